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

/// The figures of one case.
fn measure(root: &Path, case: &str) -> anyhow::Result<Value> {
    let arguments =
        ["bench", "--quiet", "--package", "scheduler", "--bench", "throughput", "--", case];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(
        output.status.success(),
        "case {case} ended with {} and said: {}",
        output.status,
        said()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("case {case} told no figures"))
}
