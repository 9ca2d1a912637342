//! `kprov reset`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::connect::{Asking, Connected, UNREACHABLE, connect};
use super::diary::Diary;
use super::output::{Console, Failure, seconds};
use super::{Exit, ResetArgs, Surroundings, prepare};
use crate::execute::{Execution, Limits, Report, chain};
use crate::facts::FactsQuery;
use crate::inventory::Rollout;
use crate::last_known::LastKnown;
use crate::lock::{self, Lease};
use crate::plan::{self, Plan};
use crate::preflight::Problem;

pub(super) fn run(
    args: &ResetArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let inventory = prepare::inventory(&args.source, console)?;
    let state_dir = prepare::state_dir(&args.source, &inventory);
    let chosen = args.choice.choose(&inventory)?;
    let states: Vec<_> =
        (chosen.iter()).map(|name| plan::reset_state(&inventory.cluster.name, name)).collect();
    let hosts = inventory.hosts.iter().filter(|host| chosen.contains(&host.name));
    let hosts = hosts.map(|host| (host, FactsQuery::default())).collect();
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, "reset");
    let asking = Asking {
        lock: args.yes.then_some(&lock),
        force_unlock: args.force_unlock,
        source: &args.source,
        surroundings,
        state_dir: &state_dir,
    };
    let mut connected = connect(hosts, &asking);
    let (dead, problems): (Vec<_>, Vec<_>) = problems(&mut connected, &inventory.cluster.name)
        .into_iter()
        .partition(|problem| args.allow_unreachable && problem.check == UNREACHABLE);
    if !problems.is_empty() {
        return Err(Failure::Unfit(problems));
    }
    let hosts: Vec<_> =
        connected.facts.iter().map(|(name, facts)| plan::reset(name, facts)).collect();
    let plan = Plan { waves: plan::waves(&hosts, &Rollout::AT_ONCE), hosts };
    if !args.yes {
        let text = plan::reset_summary(&plan);
        console.result(&plan, || text)?;
        if !plan.is_empty() {
            console.note("nothing was changed; say --yes to do this");
        }
        return Ok(Exit::Ok);
    }
    let names: Vec<_> = connected.hosts.keys().cloned().collect();
    let name = &inventory.cluster.name;
    let diary = Diary::new(&state_dir, name, "reset", began, &names, console);
    let execution = Execution {
        desired: &states,
        plan: &plan,
        limits: Limits::until(began + args.timeout, args.source.parallel),
        observer: &diary,
        stop: &surroundings.stop,
        lease: Some(&Lease::of_these(&connected.facts)),
        hooks: (&[], name),
        nodes: &[],
        drain: false,
    };
    let report = execution.run(&mut connected.hosts);
    diary.finish();
    forget(&state_dir, &report, console);
    show(&plan, &report, &dead, began.elapsed(), console)
}

/// A host that was given back is ours no more, wherever it goes.
fn forget(state_dir: &Path, report: &Report, console: &Console) {
    let forgotten = LastKnown::read(state_dir).and_then(|mut known| {
        let done = report.hosts.iter().filter(|(_, outcome)| outcome.error.is_none());
        done.for_each(|(host, _)| known.forget(host));
        known.write(state_dir)
    });
    if let Err(error) = forgotten {
        console.note(&format!("warning: {}", chain(&error)));
    }
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

fn show(
    plan: &Plan,
    report: &Report,
    dead: &[Problem],
    took: Duration,
    console: &Console,
) -> Result<Exit, Failure> {
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
    for problem in dead {
        text.push_str(&format!("{}: left out, {}\n", problem.host, problem.message));
    }
    text.push_str(&format!("reset in {}\n", seconds(took)));
    let notes: BTreeMap<_, _> =
        report.hosts.iter().map(|(host, outcome)| (host, &outcome.notes)).collect();
    let value = serde_json::json!({
        "success": report.is_success(),
        "notes": notes,
        "left_out": dead,
        "total_ms": took.as_millis(),
    });
    console.result(&value, || text)?;
    for (host, outcome) in &report.hosts {
        if let Some(error) = &outcome.error {
            let (error, advice) = (chain(error), error.advice());
            console.note(&format!("error: {host}: {error}\n  what to do: {advice}"));
        }
    }
    Ok(match (report.is_success(), dead.is_empty()) {
        (true, true) => Exit::Ok,
        (true, false) => Exit::Unreached,
        (false, _) => Exit::Partial,
    })
}
