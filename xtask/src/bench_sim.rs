//! Measures the simulator: one run at a time, on one core, built for speed; prints a table and
//! writes `target/bench/sim.json`.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::figures::{self, row};

/// A scenario with its goals: seconds, and bytes of memory if they count.
struct Case {
    scenario: &'static str,
    seconds: f64,
    bytes: Option<f64>,
    /// The median of so many runs counts: of a short run a neighbour on the machine, or memory that
    /// was never used before, takes a large part.
    runs: usize,
}

const CASES: [Case; 3] = [
    Case { scenario: "rival-1k", seconds: 5.0, bytes: None, runs: 7 },
    Case { scenario: "deployments-10k", seconds: 30.0, bytes: None, runs: 1 },
    Case { scenario: "million", seconds: 300.0, bytes: Some(8.0e9), runs: 1 },
];
/// Events a second of the bare engine at a million pending ones.
const ENGINE_GOAL: f64 = 5.0e6;
/// Seeds of the faulty cluster of five nodes an hour and core.
const SOAK_GOAL: f64 = 1_000.0;
/// How long the soak is measured.
const SOAK_TIME: &str = "60s";

/// Runs everything.
#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let ksim = crate::ksim::build(root)?;
    let mut rows = Vec::new();
    for case in CASES {
        let path = format!("simulator/scenarios/{}.toml", case.scenario);
        let arguments = ["run", &path, "--no-checks", "--quiet", "--output", "json"];
        let mut results = Vec::new();
        for _ in 0..case.runs {
            results.push(json_of(root, &ksim.path, &arguments)?);
        }
        let seconds = |result: &Value| result["wall_seconds"].as_f64().unwrap_or(0.0);
        results.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        if case.runs > 1 {
            let (least, most) = (seconds(&results[0]), seconds(&results[case.runs - 1]));
            println!("{}: {} runs took {least:.2} to {most:.2} s", case.scenario, case.runs);
        }
        let result = &results[case.runs / 2];
        let figure = |key: &str| result[key].as_f64().unwrap_or(0.0);
        let name = case.scenario;
        rows.push(row(&format!("{name}: wall time"), figure("wall_seconds"), "s", case.seconds));
        if let Some(bytes) = case.bytes {
            let peak = figure("peak_memory_bytes");
            rows.push(row(&format!("{name}: peak memory"), peak / 1e9, "GB", bytes / 1e9));
        }
        println!(
            "{name}: {:.0} virtual s, {:.0} events, {:.0} pods bound, {:.2} GB, effects {}",
            figure("virtual_seconds"),
            figure("events"),
            figure("pods_bound"),
            figure("peak_memory_bytes") / 1e9,
            result["effect_log_hash"].as_str().unwrap_or_default(),
        );
    }
    // What it takes to look at everything that happens, too.
    let path = format!("simulator/scenarios/{}.toml", CASES[0].scenario);
    let checked = json_of(root, &ksim.path, &["run", &path, "--quiet", "--output", "json"])?;
    let seconds = checked["wall_seconds"].as_f64().unwrap_or(0.0);
    println!("{}, all properties checked: {seconds:.2} s", CASES[0].scenario);
    let engine = json_of(root, &ksim.path, &["bench-engine"])?;
    let rate = engine["events_per_second"].as_f64().unwrap_or(0.0);
    rows.push(row("engine, 1,000,000 pending", rate / 1e6, "M events/s", -ENGINE_GOAL / 1e6));
    let soak = json_of(
        root,
        &ksim.path,
        &[
            "soak",
            "simulator/scenarios/faulty-5.toml",
            "--time",
            SOAK_TIME,
            "--threads",
            "1",
            "--no-shrink",
            "--output",
            "json",
        ],
    )?;
    let seeds = soak["seeds_per_hour_and_core"].as_f64().unwrap_or(0.0);
    rows.push(row("soak of faulty-5", seeds, "seeds/h/core", -SOAK_GOAL));
    let built = if ksim.guided { "by a run's profile" } else { "without a run's profile" };
    let conditions = format!(
        "profile sim, laid out {built}, no checks; {}: the median of {} runs",
        CASES[0].scenario, CASES[0].runs
    );
    figures::report(root, "sim", &conditions, &rows)
}

fn json_of(root: &Path, ksim: &Path, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new(ksim)
        .args(arguments)
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot start {}", ksim.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| {
        format!(
            "ksim {} ended with {} and said: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}
