//! Measures the scheduler: one case at a time, each in a process of its own; prints a table and
//! writes `target/bench/sched.json`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::figures::{self, row};

/// A case of the scheduler's benchmark `throughput` with its goals: pods a second, the time that
/// 99 of 100 pods do not exceed, and bytes of memory.
#[derive(Default)]
struct Case {
    name: &'static str,
    title: &'static str,
    pods_per_second: Option<f64>,
    p99_seconds: Option<f64>,
    bytes: Option<f64>,
}

/// Runs everything.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let fast = |name, title, pods_per_second| Case {
        name,
        title,
        pods_per_second: Some(pods_per_second),
        ..Case::default()
    };
    let cases = [
        Case { p99_seconds: Some(1e-3), ..fast("basic", "5,000 nodes, 10,000 pods", 20_000.0) },
        fast("affinity", "required affinity, 5,000 pods", 5_000.0),
        fast("anti-affinity", "anti-affinity, 6,000 pods", 5_000.0),
        fast("spread", "hard spreading, 5,000 pods", 10_000.0),
        fast("preemption", "preemption, 5,000 pods", 2_000.0),
        fast("basic-100k", "100,000 nodes, 50,000 pods", 10_000.0),
        Case {
            name: "memory",
            title: "10,000 nodes, 100,000 pods",
            bytes: Some(250e6),
            ..Case::default()
        },
    ];
    let mut rows = Vec::new();
    for case in cases {
        let figures = measure(root, case.name)?;
        let figure = |key: &str| figures[key].as_f64().unwrap_or(0.0);
        let title = case.title;
        if let Some(goal) = case.pods_per_second {
            rows.push(row(title, figure("pods_per_second"), "pods/s", -goal));
        }
        if let Some(goal) = case.p99_seconds {
            let took = 1e3 * figure("p99_seconds");
            rows.push(row(&format!("{title}: p99"), took, "ms", 1e3 * goal));
        }
        if let Some(goal) = case.bytes {
            let bytes = figure("resident_bytes");
            rows.push(row(&format!("{title}: memory"), bytes / 1e6, "MB", goal / 1e6));
        }
    }
    figures::report(root, "sched", "profile bench", &rows)
}

/// Takes random decisions both ways; that they differ is an error.
#[expect(clippy::print_stdout, reason = "the figures are the result")]
pub(crate) fn differential(root: &Path, decisions: u64, seed: u64) -> anyhow::Result<()> {
    let figures = benchmark(root, "differential", &[&decisions.to_string(), &seed.to_string()])?;
    let folder = root.join("target/bench");
    let file = folder.join("sched-differential.json");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, format!("{figures:#}\n")))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let count = |key: &str| figures[key].as_u64().unwrap_or(0);
    println!(
        "{} decisions from the seeds {} to {}, {:.0} a second: {} pods bound, {} displaced",
        count("decisions"),
        count("first_seed"),
        count("last_seed"),
        figures["decisions_per_second"].as_f64().unwrap_or(0.0),
        count("bound"),
        count("displaced"),
    );
    let differences = figures["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for difference in differences {
        println!("seed {}: {}", difference["seed"], difference["first"]);
    }
    ensure!(
        differences.is_empty() && count("decisions") >= decisions,
        "the two ways differ; add the seeds to cluster/scheduler/tests/differential/seeds.txt"
    );
    Ok(())
}

/// The figures of one case.
fn measure(root: &Path, case: &str) -> anyhow::Result<Value> {
    benchmark(root, "throughput", &[case])
}

/// The figures that a benchmark of the scheduler prints.
fn benchmark(root: &Path, name: &str, options: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["bench", "--quiet", "--package", "scheduler", "--bench", name, "--"])
        .args(options)
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(
        output.status.success(),
        "{name} {options:?} ended with {} and said: {}",
        output.status,
        said()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{name} {options:?} told no figures"))
}
