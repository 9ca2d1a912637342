//! `kprov reset`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::connect::{Asking, Connected, connect};
use super::output::{Console, Failure, seconds};
use super::{Exit, ResetArgs, Surroundings, apply, prepare};
use crate::execute::{Execution, Limits, Report, chain};
use crate::lock;
use crate::plan::{self, Plan};
use crate::preflight::Problem;
use crate::progress::Display;

pub(super) fn run(
    args: &ResetArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let inventory = prepare::inventory(&args.source, console)?;
    let state_dir = prepare::state_dir(&args.source, &inventory);
    let chosen: BTreeSet<_> = args.hosts.iter().map(String::as_str).collect();
    if let Some(unknown) = chosen.iter().find(|name| inventory.host(name).is_none()) {
        return Err(Failure::Other {
            message: format!("the inventory has no host {unknown}"),
            advice: "see `kprov status` for the hosts' names".to_owned(),
        });
    }
    let states: Vec<_> = (inventory.hosts.iter())
        .filter(|host| chosen.is_empty() || chosen.contains(host.name.as_str()))
        .map(|host| plan::reset_state(&inventory.cluster.name, &host.name))
        .collect();
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, "reset");
    let asking = Asking {
        lock: args.yes.then_some(&lock),
        force_unlock: args.force_unlock,
        source: &args.source,
        state_dir: &state_dir,
    };
    let mut connected = connect(&inventory, &states, &asking);
    let problems = problems(&mut connected, &inventory.cluster.name);
    if !problems.is_empty() {
        return Err(Failure::Unfit(problems));
    }
    let hosts: Vec<_> =
        connected.facts.iter().map(|(name, facts)| plan::reset(name, facts)).collect();
    let plan = Plan { waves: plan::waves(&hosts), hosts };
    if !args.yes {
        let text = plan::reset_summary(&plan);
        console.result(&plan, || text)?;
        if !plan.is_empty() {
            console.note("nothing was changed; say --yes to do this");
        }
        return Ok(Exit::Ok);
    }
    let names: Vec<_> = connected.hosts.keys().cloned().collect();
    let display = Display::new(&names, console.is_json());
    let limits = Limits {
        at_once: args.source.at_once,
        gate: apply::GATE_WAIT,
        deadline: began + args.timeout,
    };
    let stop = &surroundings.stop;
    let execution = Execution { desired: &states, plan: &plan, limits, observer: &display, stop };
    let report = execution.run(&mut connected.hosts);
    display.finish();
    show(&plan, &report, began.elapsed(), console)
}

/// Hosts that did not answer, and hosts of others.
fn problems(connected: &mut Connected, cluster: &str) -> Vec<Problem> {
    let mut problems = std::mem::take(&mut connected.problems);
    for (name, facts) in &connected.facts {
        let foreign = facts.record.as_ref().filter(|record| record.cluster != cluster);
        if let Some(record) = foreign {
            problems.push(Problem {
                host: name.clone(),
                check: "cluster",
                message: format!("it belongs to the cluster {}", record.cluster),
                advice: "reset it with its own inventory".to_owned(),
            });
        }
        if let Some(error) = &facts.record_error {
            problems.push(Problem {
                host: name.clone(),
                check: "record",
                message: format!("kprov's record on the host cannot be used: {error}"),
                advice: "use the kprov version that wrote it".to_owned(),
            });
        }
    }
    problems
}

fn show(plan: &Plan, report: &Report, took: Duration, console: &Console) -> Result<Exit, Failure> {
    let mut text = String::new();
    for plan in &plan.hosts {
        let line = match report.hosts.get(&plan.host) {
            None => "nothing of ours".to_owned(),
            Some(outcome) if outcome.error.is_some() => "failed".to_owned(),
            Some(outcome) => {
                let notes = outcome.notes.iter().map(|note| format!("\n    note: {note}"));
                format!("as it was before{}", notes.collect::<String>())
            }
        };
        text.push_str(&format!("{}: {line}\n", plan.host));
    }
    text.push_str(&format!("reset in {}\n", seconds(took)));
    let notes: BTreeMap<_, _> =
        report.hosts.iter().map(|(host, outcome)| (host, &outcome.notes)).collect();
    let value = serde_json::json!({
        "success": report.is_success(),
        "notes": notes,
        "total_ms": took.as_millis(),
    });
    console.result(&value, || text)?;
    for (host, outcome) in &report.hosts {
        if let Some(error) = &outcome.error {
            let (error, advice) = (chain(error), error.advice());
            console.note(&format!("error: {host}: {error}\n  what to do: {advice}"));
        }
    }
    Ok(if report.is_success() { Exit::Ok } else { Exit::Partial })
}
