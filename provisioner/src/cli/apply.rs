//! `kprov apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::output::{Console, Failure, seconds};
use super::prepare::{self, Prepared};
use super::{ApplyArgs, Exit, Surroundings, members};
use crate::execute::{Execution, Limits, PhaseTime, Report, chain};
use crate::host::HttpsEndpoint;
use crate::inventory::{self, API_SERVER_PORT, Inventory, Role};
use crate::lock;
use crate::pki::{LeafKind, Pki};
use crate::plan;
use crate::progress::Display;
use crate::ready;
use crate::role_label;

/// Longest wait for one unit's health, within the run's own limit.
pub(super) const GATE_WAIT: Duration = Duration::from_secs(60);

pub(super) fn run(
    args: &ApplyArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let deadline = began + args.timeout;
    let inventory = prepare::inventory(&args.source, console)?;
    let state_dir = prepare::state_dir(&args.source, &inventory);
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, "apply");
    let locking = (Some(&lock), args.force_unlock);
    let mut prepared =
        prepare::prepare(&args.source, surroundings, console, &state_dir, inventory, locking)?;
    let mut phases = std::mem::take(&mut prepared.phases);

    let limits = Limits { at_once: args.source.at_once, gate: GATE_WAIT, deadline };
    let joining = Instant::now();
    if members::settle(&mut prepared, &state_dir, limits, surroundings, console)? {
        phases.push(("etcd members".to_owned(), joining.elapsed()));
    }
    for host in &prepared.plan.hosts {
        for warning in &host.warnings {
            console.note(&format!("warning: {}: {warning}", host.host));
        }
    }
    if console.verbose > 0 {
        console.note(plan::summary(&prepared.plan, &BTreeMap::new()).trim_end());
    }
    let changed: Vec<_> = (prepared.plan.hosts.iter())
        .filter(|host| !host.is_empty())
        .map(|host| host.host.clone())
        .collect();
    let display = Display::new(&changed, console.is_json());
    let execution = Execution {
        desired: &prepared.desired,
        plan: &prepared.plan,
        limits,
        observer: &display,
        stop: &surroundings.stop,
    };
    let mut report = execution.run(&mut prepared.hosts);
    phases.append(&mut report.phases);
    let mut not_ready = None;
    if report.is_success() && !report.hosts.is_empty() && !args.no_wait {
        let began = Instant::now();
        not_ready = wait_ready(&mut prepared, deadline, &display).err();
        phases.push(("nodes ready".to_owned(), began.elapsed()));
    }
    let (mut labelled, mut not_labelled) = (Vec::new(), None);
    if report.is_success() && not_ready.is_none() && !args.no_wait {
        let began = Instant::now();
        match label_masters(&mut prepared) {
            Ok(changed) => labelled = changed,
            Err(error) => not_labelled = Some(error),
        }
        phases.push(("label masters".to_owned(), began.elapsed()));
    }
    let unfinished = not_ready.or(not_labelled);
    display.finish();
    let outcome = Outcome {
        report,
        phases,
        unfinished,
        labelled,
        total: began.elapsed(),
        prepared: &prepared,
    };
    outcome.show(console, surroundings)
}

struct Outcome<'a> {
    report: Report,
    phases: Vec<(String, Duration)>,
    /// What the cluster itself lacks though all hosts are as they should be.
    unfinished: Option<String>,
    /// Nodes whose role label was changed.
    labelled: Vec<String>,
    total: Duration,
    prepared: &'a Prepared,
}

impl Outcome<'_> {
    fn show(&self, console: &Console, surroundings: &Surroundings) -> Result<Exit, Failure> {
        console.result(&self.json(), || self.text())?;
        for (host, outcome) in &self.report.hosts {
            if let Some(error) = &outcome.error {
                let mark = console::style("error:").for_stderr().red().bold();
                let (error, advice) = (chain(error), error.advice());
                console.note(&format!("{mark} {host}: {error}\n  what to do: {advice}"));
            }
        }
        if let Some(error) = &self.unfinished {
            let mark = console::style("error:").for_stderr().red().bold();
            console.note(&format!("{mark} {error}"));
            return Ok(Exit::Partial);
        }
        if self.report.is_success() {
            return Ok(Exit::Ok);
        }
        let interrupted = surroundings.stop.load(std::sync::atomic::Ordering::Relaxed);
        Ok(match (interrupted, self.report.changed_something()) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Partial,
            (false, false) => Exit::Failed,
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let width = self.prepared.plan.hosts.iter().map(|h| h.host.len()).max().unwrap_or(0);
        for plan in &self.prepared.plan.hosts {
            let line = match self.report.hosts.get(&plan.host) {
                None => "up to date".to_owned(),
                Some(outcome) => {
                    let changes = counted(plan.changes.len(), "change");
                    let mut line = match (&outcome.error, outcome.steps) {
                        (None, _) => changes,
                        (Some(_), 0) => format!("none of {changes} made"),
                        (Some(_), _) => format!("failed within {changes}"),
                    };
                    if !outcome.restarted.is_empty() {
                        line.push_str(&format!(", started {}", outcome.restarted.join(" ")));
                    }
                    for note in &outcome.notes {
                        line.push_str(&format!("\n{:width$}    note: {note}", ""));
                    }
                    line
                }
            };
            out.push_str(&format!("{:width$}  {line}\n", plan.host));
        }
        for name in &self.labelled {
            out.push_str(&format!("{name:width$}  role label changed\n"));
        }
        let slow = self.phases.iter().filter(|(_, time)| time.as_millis() > 0);
        let phases: Vec<_> =
            slow.map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        out.push_str(&format!("time: {}\n", phases.join(", ")));
        let changed = self.report.hosts.len();
        let result = match (self.report.is_success() && self.unfinished.is_none(), changed) {
            (true, 0) if self.labelled.is_empty() => "nothing to do".to_owned(),
            (true, 0) => format!("{} labelled", counted(self.labelled.len(), "node")),
            (true, count) => format!("{} changed", counted(count, "host")),
            (false, _) => "not complete".to_owned(),
        };
        out.push_str(&format!("{result} in {}\n", seconds(self.total)));
        out
    }

    fn json(&self) -> serde_json::Value {
        let hosts: BTreeMap<_, _> = (self.prepared.plan.hosts.iter())
            .map(|plan| {
                let outcome = self.report.hosts.get(&plan.host);
                let error = outcome.and_then(|outcome| outcome.error.as_ref());
                let value = serde_json::json!({
                    "generation": plan.generation,
                    "changes": plan.changes,
                    "started": outcome.map(|outcome| &outcome.restarted),
                    "notes": outcome.map(|outcome| &outcome.notes),
                    "error": error.map(|error| chain(error)),
                });
                (plan.host.clone(), value)
            })
            .collect();
        let phases: Vec<_> = (self.phases.iter())
            .map(|(phase, time)| PhaseTime { phase: phase.clone(), ms: time.as_millis() })
            .collect();
        serde_json::json!({
            "success": self.report.is_success() && self.unfinished.is_none(),
            "changed_hosts": self.report.hosts.len(),
            "hosts": hosts,
            "unfinished": self.unfinished,
            "labelled": self.labelled,
            "phases": phases,
            "total_ms": self.total.as_millis(),
        })
    }
}

/// Asks the API server of the first master through that host's connection.
fn wait_ready(prepared: &mut Prepared, deadline: Instant, display: &Display) -> Result<(), String> {
    let inventory = &prepared.inventory;
    let expected: BTreeSet<_> =
        inventory.with_role(Role::Node).map(|host| host.name.clone()).collect();
    let mut requests = nodes_requests(inventory, &prepared.pki).into_iter();
    let Some((master, request)) = requests.next() else { return Ok(()) };
    let Some(host) = prepared.hosts.get_mut(&master) else { return Ok(()) };
    let mut said = None;
    let waited = ready::wait(host.as_mut(), &request, &expected, deadline, |missing| {
        if said != Some(missing) {
            said = Some(missing);
            display.say(&format!("waiting for {missing} of {} nodes to be ready", expected.len()));
        }
    });
    let Err(error) = waited else { return Ok(()) };
    let mut text = error.to_string();
    for name in error.missing.keys() {
        let journal = prepared.hosts.get_mut(name).map(|host| host.journal("kubelet.service", 10));
        if let Some(Ok(journal)) = journal {
            text.push_str(&format!("\n  the kubelet of {name} said last:"));
            journal.lines().for_each(|line| text.push_str(&format!("\n    | {line}")));
        }
    }
    Err(text)
}

/// Sees to the role labels where there are masters that are nodes; asks nothing where not.
fn label_masters(prepared: &mut Prepared) -> Result<Vec<String>, String> {
    let inventory = &prepared.inventory;
    let names =
        |role| -> BTreeSet<_> { inventory.with_role(role).map(|host| host.name.clone()).collect() };
    let (nodes, masters) = (names(Role::Node), names(Role::Master));
    if nodes.is_disjoint(&masters) {
        return Ok(Vec::new());
    }
    let mut requests = nodes_requests(inventory, &prepared.pki).into_iter();
    let Some((master, request)) = requests.next() else { return Ok(Vec::new()) };
    let Some(host) = prepared.hosts.get_mut(&master) else { return Ok(Vec::new()) };
    role_label::ensure(host.as_mut(), &request, &nodes, &masters)
        .map_err(|error| format!("the masters could not be labelled as such: {error}"))
}

/// The question for all nodes, by the master to ask.
pub(super) fn nodes_requests(inventory: &Inventory, pki: &Pki) -> Vec<(String, HttpsEndpoint)> {
    let Some(admin) = pki.leaf(LeafKind::Admin, "") else { return Vec::new() };
    let request = |master: &inventory::Host| {
        let request = HttpsEndpoint {
            address: master.address.to_string(),
            port: API_SERVER_PORT,
            path: "/api/v1/nodes".to_owned(),
            ca: pki.cluster_trust.clone(),
            client: Some((admin.cert.clone(), admin.key.clone())),
        };
        (master.name.clone(), request)
    };
    inventory.with_role(Role::Master).map(request).collect()
}

/// `1 host`, `2 hosts`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
