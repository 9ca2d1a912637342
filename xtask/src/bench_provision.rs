//! Measures kprov with hosts in memory; prints a table and writes `target/bench/provision.json`.
//! What needs real hosts is measured in the lab, by `bench`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::figures::{self, row};

/// Hosts, and milliseconds of a round trip.
const FLEET: [&str; 2] = ["1000", "20"];

/// Runs everything.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["bench", "--quiet", "--package", "provisioner", "--bench", "apply", "--"])
        .args(FLEET)
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "apply ended with {} and said: {}", output.status, said());
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    let figures: Value = serde_json::from_str(line).context("apply told no figures")?;
    let figure = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    let at_20 = figure("one_more_at_20_round_trips") / figure("one_more_at_3_round_trips");
    let rows = [
        row("no-op apply, 1,000 hosts, 20 ms", figure("noop_apply_s"), "s", 5.0),
        row("  round trips a host", figure("noop_round_trips_a_host"), "", 2.0),
        row("one node more at 20 hosts and at 3", at_20, "times", 1.2),
        row("  hosts written at 20", figure("one_more_at_20_hosts_written"), "hosts", 2.0),
    ];
    figures::report(root, "provision", "profile bench, hosts in memory", &rows)
}
