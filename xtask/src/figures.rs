//! Figures beside their goals: a table for people, and JSON below `target/bench`.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

/// One figure; a negative goal is one to be at least reached.
pub(crate) fn row(name: &str, value: f64, unit: &str, goal: f64) -> Value {
    let met = if goal < 0.0 { value >= -goal } else { value <= goal };
    json!({"name": name, "value": value, "unit": unit, "goal": goal.abs(), "met": met})
}

/// Prints the table and writes `target/bench/NAME.json`; `built` tells how what was measured was
/// built.
#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn report(root: &Path, name: &str, built: &str, rows: &[Value]) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    println!("\none run at a time on one of {cores} cores, {built}, load {load}\n");
    println!("{:<34} {:>12} {:<13} {:>10}  met", "figure", "value", "unit", "goal");
    for row in rows {
        println!(
            "{:<34} {:>12.2} {:<13} {:>10.1}  {}",
            row["name"].as_str().unwrap_or_default(),
            row["value"].as_f64().unwrap_or(0.0),
            row["unit"].as_str().unwrap_or_default(),
            row["goal"].as_f64().unwrap_or(0.0),
            if row["met"] == true { "yes" } else { "no" },
        );
    }
    let folder = root.join("target/bench");
    std::fs::create_dir_all(&folder).context("cannot create target/bench")?;
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(rows)?)
        .with_context(|| format!("cannot write {}", file.display()))
}
