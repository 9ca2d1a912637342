//! Runs the benchmarks; each prints a table and writes `target/bench/NAME.json`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Runs the figures of the provisioner and the cluster in a lab of three hosts.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let run = ["run", "--release", "--package", "tests", "--bin", "bench"];
    cargo(root, run.iter().copied(), "the benchmark failed")
}

/// Runs the figures of a control plane with hollow nodes on loopback; `options` are for it.
pub(crate) fn end_to_end(root: &Path, options: &[String]) -> anyhow::Result<()> {
    let build = ["build", "--release", "--package", "hyperkube", "--bin", "hyperkube"];
    cargo(root, build.iter().copied(), "hyperkube cannot be built")?;
    let run = ["run", "--release", "--package", "tests", "--bin", "bench_e2e", "--"];
    let all = run.iter().copied().chain(options.iter().map(String::as_str));
    cargo(root, all, "the benchmark failed")
}

fn cargo<'a>(
    root: &Path,
    arguments: impl Iterator<Item = &'a str>,
    failure: &'static str,
) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), failure);
    Ok(())
}
