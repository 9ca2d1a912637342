//! Runs the benchmarks; each prints a table and writes `target/bench/NAME.json`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Runs the figures of the provisioner and the cluster in a lab of three hosts.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["run", "--release", "--package", "tests", "--bin", "bench"])
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}
