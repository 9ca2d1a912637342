//! Runs the benchmarks; each prints a table and writes `target/bench/NAME.json`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Runs the figures of the provisioner and the cluster in a lab of three hosts.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    run_program(root, Path::new("cargo"), "run --release --package tests --bin bench".split(' '))
}

/// Runs the figures of a control plane with hollow nodes on loopback; `options` are for it.
pub(crate) fn end_to_end(root: &Path, options: &[String]) -> anyhow::Result<()> {
    let build =
        "build --release --package hyperkube --package tests --bin hyperkube --bin bench_e2e";
    run_program(root, Path::new("cargo"), build.split(' '))?;
    let options = options.iter().map(String::as_str);
    run_program(root, &root.join("target/release/bench_e2e"), options)
}

fn run_program<'a>(
    root: &Path,
    program: &Path,
    arguments: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "{} failed", program.display());
    Ok(())
}
