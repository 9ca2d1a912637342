//! Every check and test, in the order in which failures are cheapest to find.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::tidy;

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
    if e2e {
        step(root, "build", &["make", "--no-print-directory", "build"])?;
        step(root, "images", &["cargo", "run", "--quiet", "--package", "lab", "--", "images"])?;
        step(
            root,
            "end-to-end tests",
            &["cargo", "nextest", "run", "--workspace", "--profile", "e2e"],
        )?;
    }
    Ok(())
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
