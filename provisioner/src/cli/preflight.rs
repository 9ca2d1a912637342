//! `kprov preflight`: whether hosts and the network between them are fit, as a table.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::output::{Console, Failure};
use super::prepare::{self, Prepared, Wish};
use super::select::Choice;
use super::status::table;
use super::{Exit, Source, Surroundings};
use crate::execute::{Hosts, chain, in_parallel};
use crate::facts::Facts;
use crate::host::{HostError, Probe};
use crate::inventory::{Inventory, Role};
use crate::plan::size;
use crate::preflight::Problem;
use crate::probe::{self, Disk, Measured, Task};
use crate::skew::HYPERKUBE;
use crate::state::{Blob, Content, HostState};

/// Longest time that a host listens for others, in seconds; it is ended when all have asked.
const LISTEN_S: u64 = 120;

/// `kprov preflight`.
#[derive(Debug, Args)]
pub(super) struct PreflightArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
}

/// What is told about one host.
#[derive(Debug, Serialize)]
struct Row {
    os: String,
    kernel: String,
    memory: Option<u64>,
    disk_free: Option<u64>,
    clock_skew_ms: i64,
    /// Of members of etcd.
    fsync: Option<Disk>,
    /// Endpoints of others that it reaches, of how many.
    reaches: Option<(usize, usize)>,
    problems: usize,
}

pub(super) fn run(
    args: &PreflightArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = prepare::inventory(source, console)?;
    let chosen = args.choice.choose(&inventory)?;
    let state_dir = prepare::state_dir(source, &inventory);
    let scratch = prepare::scratch(&state_dir)?;
    let wish = Wish::to_look(source, chosen, &state_dir, scratch.path());
    let mut prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let mut problems = std::mem::take(&mut prepared.unfit);
    problems.extend(std::mem::take(&mut prepared.unreachable));
    let wanted = |check: &str| !source.skip.iter().any(|skipped| skipped == check);
    let (measured, failed) = measure(&mut prepared, &wish, wanted("connectivity"), wanted("fsync"));
    let packet = packet(&prepared.inventory);
    let judgement = probe::judge(&measured, &prepared.desired, &prepared.facts, packet);
    problems.extend(failed);
    problems.extend(judgement.problems);
    problems.retain(|problem| !prepare::skips(source, problem, console));
    problems.sort_by(|a, b| (&a.host, a.check).cmp(&(&b.host, b.check)));
    let rows = rows(&prepared.facts, &wish.chosen, &measured, &judgement.reached, &problems);
    let value = serde_json::json!({
        "hosts": rows,
        "reached": measured.reached,
        "problems": problems,
        "notes": judgement.notes,
    });
    console.result(&value, || text(&rows))?;
    judgement.notes.iter().for_each(|note| console.note(&format!("note: {note}")));
    if problems.is_empty() {
        return Ok(Exit::Ok);
    }
    console.note(&super::output::unfit(&problems));
    Ok(Exit::Unfit)
}

/// The longest packet between hosts.
fn packet(inventory: &Inventory) -> u16 {
    inventory.network.mtu.saturating_add(inventory.network.backend.overhead())
}

/// The program that measures: that of the components.
fn program(desired: &[HostState]) -> Option<Blob> {
    desired.iter().find_map(|state| {
        let program = state.programs.get(HYPERKUBE)?;
        state.files.iter().find_map(|file| match &file.content {
            Content::Blob(blob) if blob.sha256 == program.sha256 => Some(blob.clone()),
            _ => None,
        })
    })
}

/// Listens everywhere, then asks from everywhere, then ends: each on all hosts at the same time.
fn measure(
    prepared: &mut Prepared,
    wish: &Wish<'_>,
    connectivity: bool,
    fsync: bool,
) -> (Measured, Vec<Problem>) {
    let mut measured = Measured::default();
    let mut failed = Vec::new();
    let Some(program) = program(&prepared.desired) else { return (measured, failed) };
    let reached: Vec<_> = (prepared.desired.iter())
        .filter(|state| {
            wish.chosen.contains(&state.host) && prepared.hosts.contains_key(&state.host)
        })
        .cloned()
        .collect();
    let tasks = if connectivity { probe::tasks(&reached) } else { BTreeMap::new() };
    let token = format!("kprov-{:032x}", rand::random::<u128>());
    let mut round = Round {
        program: &program,
        at_once: wish.source.parallel,
        hosts: &mut prepared.hosts,
        failed: &mut failed,
    };
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
    let listen = |task: &Task| {
        let fixed = words(&["listen", "--for-s", &LISTEN_S.to_string(), "--token", &token]);
        asking(fixed, task.listen.iter())
    };
    measured.listening = round.all(&tasks, true, listen);
    let mtu = packet(&prepared.inventory).to_string();
    let reach = |task: &Task| {
        asking(words(&["reach", "--token", &token, "--mtu", &mtu]), task.reach.iter())
    };
    measured.reached = round.all(&tasks, false, reach);
    if fsync {
        let layout = prepared.inventory.cluster.layout;
        // The directory may not be there yet: its disk is that of the nearest one that is.
        let (data, facts) = (layout.etcd_data(), &prepared.facts);
        let members = prepared.inventory.with_role(Role::Etcd).map(|host| host.name.clone());
        let members = members.map(|name| {
            let at = facts.get(&name).and_then(|facts| facts.free_at(data));
            let mount = at.map_or("/var", |(mount, _)| mount).to_owned();
            (name, mount)
        });
        let members: BTreeMap<_, _> = members.collect();
        measured.disks =
            round.all(&members, false, |mount| Some(words(&["disk", "--directory", mount])));
    }
    round.end();
    (measured, failed)
}

fn asking<'a>(
    mut fixed: Vec<String>,
    endpoints: impl Iterator<Item = &'a probe::Endpoint>,
) -> Option<Vec<String>> {
    let before = fixed.len();
    fixed.extend(endpoints.map(ToString::to_string));
    (fixed.len() > before).then_some(fixed)
}

/// The same question to many hosts.
struct Round<'a> {
    program: &'a Blob,
    at_once: usize,
    hosts: &'a mut Hosts,
    failed: &'a mut Vec<Problem>,
}

impl Round<'_> {
    fn all<T: Sync, A: serde::de::DeserializeOwned + Send>(
        &mut self,
        tasks: &BTreeMap<String, T>,
        stays: bool,
        arguments: impl Fn(&T) -> Option<Vec<String>> + Sync,
    ) -> BTreeMap<String, A> {
        let asked = self.hosts.iter_mut().filter_map(|(name, host)| {
            let arguments = arguments(tasks.get(name)?)?;
            Some((name.clone(), host, arguments))
        });
        let program = self.program;
        let answers = in_parallel(asked.collect(), self.at_once, |(name, host, arguments)| {
            let probe = Probe { program, arguments: &arguments, stays };
            let answer = host.probe(&probe).map_err(|error| (chain(&error), error.advice()));
            let answer = answer.and_then(|text| {
                let line = text.lines().last().unwrap_or_default();
                serde_json::from_str(line).map_err(|error| {
                    let advice = "name the hyperkube of this version in [artifacts]".to_owned();
                    (format!("the measurement gave no answer: {error}: {line}"), advice)
                })
            });
            (name, arguments.first().cloned().unwrap_or_default(), answer)
        });
        let mut found = BTreeMap::new();
        for (host, kind, answer) in answers {
            match answer {
                Ok(answer) => _ = found.insert(host, answer),
                Err((message, advice)) => {
                    let check = if kind == "disk" { "fsync" } else { "connectivity" };
                    self.failed.push(Problem { host, check, message, advice });
                }
            }
        }
        found
    }

    fn end(self) {
        let hosts: Vec<_> = self.hosts.iter_mut().collect();
        let ended: Vec<Result<(), HostError>> =
            in_parallel(hosts, self.at_once, |(_, host)| host.end_probe());
        for error in ended.into_iter().filter_map(Result::err) {
            // What is left ends by itself, and the next measurement replaces it.
            tracing::debug!(%error, "measurements were not ended");
        }
    }
}

fn rows(
    facts: &BTreeMap<String, Facts>,
    chosen: &BTreeSet<String>,
    measured: &Measured,
    reached: &BTreeMap<String, (usize, usize)>,
    problems: &[Problem],
) -> BTreeMap<String, Row> {
    let row = |name: &String| {
        let known = facts.get(name);
        let row = Row {
            os: known.map(|facts| facts.os.pretty_name.clone()).unwrap_or_default(),
            kernel: known.map(|facts| facts.kernel.clone()).unwrap_or_default(),
            memory: known.and_then(|facts| facts.memory),
            disk_free: known.and_then(|facts| Some(facts.free_at("/var/lib")?.1)),
            clock_skew_ms: known.map_or(0, |facts| facts.clock_skew_ms),
            fsync: measured.disks.get(name).copied(),
            reaches: reached.get(name).copied(),
            problems: problems.iter().filter(|problem| problem.host == *name).count(),
        };
        (name.clone(), row)
    };
    chosen.iter().map(row).collect()
}

fn text(rows: &BTreeMap<String, Row>) -> String {
    let mut table = table([
        "HOST",
        "SYSTEM",
        "KERNEL",
        "MEMORY",
        "DISK FREE",
        "CLOCK",
        "FSYNC P99",
        "REACHES",
        "FIT",
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (name, row) in rows {
        let fit = match row.problems {
            0 => "yes".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        table.add_row([
            name.clone(),
            row.os.clone(),
            row.kernel.clone(),
            or_dash(row.memory.map(size)),
            or_dash(row.disk_free.map(size)),
            format!("{} ms", row.clock_skew_ms),
            or_dash(row.fsync.map(|disk| format!("{:.1} ms", disk.p99_us as f64 / 1000.0))),
            or_dash(row.reaches.map(|(open, all)| format!("{open} of {all}"))),
            fit,
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::host::fake::FakeMachine;

    #[test]
    fn a_measurement_that_fails_is_told_by_its_host_and_others_count() {
        let (good, bad) = (FakeMachine::new("a"), FakeMachine::new("b"));
        let disk = "{\"writes\":1,\"p50_us\":1,\"p99_us\":2,\"max_us\":3}\n";
        good.state().probes.insert("disk".to_owned(), disk.to_owned());
        let mut hosts: Hosts =
            [&good, &bad].map(|m| (m.connect().name().to_owned(), m.connect())).into();
        let blob = Blob {
            sha256: Digest::of(b""),
            len: 0,
            source: "x".into(),
            architecture: None,
            version: None,
        };
        let mut failed = Vec::new();
        let mut round =
            Round { program: &blob, at_once: 2, hosts: &mut hosts, failed: &mut failed };
        let tasks = ["a", "b"].map(|name| (name.to_owned(), ())).into();
        let found: BTreeMap<String, Disk> =
            round.all(&tasks, false, |()| Some(vec!["disk".to_owned()]));
        round.end();
        assert_eq!(found["a"].p99_us, 2);
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].host.as_str(), failed[0].check), ("b", "fsync"));
    }
}
