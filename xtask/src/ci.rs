//! Every check and test, in the order in which failures are cheapest to find.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::{bench_sched, tidy};

/// Runs all checks; `e2e` adds the tests that boot lab hosts.
pub(crate) fn run(root: &Path, e2e: bool) -> anyhow::Result<()> {
    step(root, "fmt", &["cargo", "fmt", "--all", "--check"])?;
    tidy::run(root)?;
    step(
        root,
        "clippy",
        &["cargo", "clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    )?;
    step(root, "tests", &["cargo", "nextest", "run", "--workspace", "--profile", "ci"])?;
    step(root, "doctests", &["cargo", "test", "--workspace", "--doc", "--quiet"])?;
    step(root, "whole runs of clusters", &WHOLE_RUNS)?;
    soak(root)?;
    bench_sched::differential(root, FRESH_DECISIONS, first_seed(&commit(root)?)?)?;
    if e2e {
        // The program that the tests before built.
        let lab = root.join("target/debug/lab");
        let lab = lab.to_str().context("a folder whose name is no text")?;
        step(root, "build", &["make", "--no-print-directory", "build", &format!("LAB={lab}")])?;
        step(root, "images", &[lab, "images"])?;
        step(
            root,
            "end-to-end tests",
            &["cargo", "nextest", "run", "--workspace", "--profile", "e2e"],
        )?;
    }
    Ok(())
}

/// Tests that simulate clusters for minutes, built with optimization. Hyperkube is named so that
/// what is built is shared with it: see the Makefile.
const WHOLE_RUNS: [&str; 12] = [
    "cargo",
    "nextest",
    "run",
    "--release",
    "--package",
    "simulator",
    "--package",
    "controllers",
    "--package",
    "hyperkube",
    "--profile",
    "whole-runs",
];

/// What is run with seeds that nobody has tried.
const SOAKED: [&str; 2] =
    ["simulator/scenarios/faulty-5.toml", "simulator/scenarios/faulty-kinds.toml"];

/// So many decisions are taken both ways from seeds of the commit, beside those of seeds that are
/// kept: half a minute on two cores. Seeds that show a difference are printed.
const FRESH_DECISIONS: u64 = 100_000;

/// Half a minute for each of the scenarios of seeds of the simulator that nobody has tried, so that
/// each commit adds to what is known, with the program that the tests before built. They derive from
/// the commit: who looks for what CI has found gets the same ones.
fn soak(root: &Path) -> anyhow::Result<()> {
    let seed = first_seed(&commit(root)?)?.to_string();
    // On a failure it prints where the smallest scenario that shows it is kept.
    for scenario in SOAKED {
        step(
            root,
            "fresh seeds",
            &[
                "target/release/ksim",
                "soak",
                scenario,
                "--time",
                "30s",
                "--keep",
                "target/ksim-failures",
                "--first-seed",
                &seed,
                "--twice",
            ],
        )?;
    }
    Ok(())
}

/// The commit that is checked, in hexadecimal digits.
fn commit(root: &Path) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    ensure!(output.status.success(), "git rev-parse HEAD failed");
    String::from_utf8(output.stdout).context("a commit that is no text")
}

/// Where the seeds of a commit begin: far from those of others and from the small ones that
/// people try, with room for millions.
fn first_seed(commit: &str) -> anyhow::Result<u64> {
    let digits = commit.get(..8).context("a commit of less than eight digits")?;
    let number = u64::from_str_radix(digits, 16).context("a commit that is no number")?;
    Ok((number + 1) * 1_000_000)
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn step(root: &Path, name: &str, command: &[&str]) -> anyhow::Result<()> {
    eprintln!("==> {name}: {}", command.join(" "));
    let start = Instant::now();
    let status = Command::new(command[0])
        .args(&command[1..])
        .current_dir(root)
        // An assertion says what is wrong; pages of frames hide it.
        .env("RUST_BACKTRACE", "0")
        .status()
        .with_context(|| format!("cannot start {}", command[0]))?;
    ensure!(status.success(), "{name} failed: {}", command.join(" "));
    eprintln!("==> {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_commits_are_apart() {
        assert_eq!(first_seed("000000009999").unwrap(), 1_000_000);
        assert_eq!(first_seed("0000000f9999").unwrap(), 16_000_000);
        assert_eq!(first_seed("ffffffff\n").unwrap(), 4_294_967_296_000_000);
        assert!(first_seed("0000").is_err());
        assert!(first_seed("no number").is_err());
    }
}
