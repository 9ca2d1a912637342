//! What an apply says in the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::output::{Console, Failure, seconds};
use super::super::prepare::Prepared;
use super::super::prune::Removed;
use super::super::{Exit, Surroundings};
use crate::addons::reconcile::AddonChange;
use crate::etcd::network_key::KeyChange;
use crate::execute::{PhaseTime, Report, chain};
use crate::preflight::Problem;

/// All that came of an apply.
pub(super) struct Outcome<'a> {
    pub(super) report: Report,
    pub(super) phases: Vec<(String, Duration)>,
    /// What the cluster itself lacks though all hosts are as they should be.
    pub(super) unfinished: Option<String>,
    /// Hosts that have become members of a running etcd.
    pub(super) joined: Vec<String>,
    /// Nodes whose role label was changed.
    pub(super) labelled: Vec<String>,
    /// Nodes that wait for people to let them in, each with the name of its request.
    pub(super) asking: BTreeMap<String, String>,
    /// How the network's key in etcd was changed.
    pub(super) key: Option<KeyChange>,
    /// Objects of addons that were changed.
    pub(super) addons: Vec<AddonChange>,
    /// Hosts that left the cluster.
    pub(super) removed: BTreeMap<String, Removed>,
    /// Dead hosts that were allowed to be.
    pub(super) left_out: Vec<&'a Problem>,
    /// Whether dead hosts were no reason to stop.
    pub(super) allow_unreachable: bool,
    pub(super) total: Duration,
    pub(super) prepared: &'a Prepared,
    /// Where the logs are.
    pub(super) log: Option<PathBuf>,
}

impl Outcome<'_> {
    pub(super) fn show(
        &self,
        console: &Console,
        surroundings: &Surroundings,
    ) -> Result<Exit, Failure> {
        console.result(&self.json(), || self.text())?;
        let mark = console::style("error:").for_stderr().red().bold();
        for (host, outcome) in &self.report.hosts {
            if let Some(error) = &outcome.error {
                let (error, advice) = (chain(error), error.advice());
                console.note(&format!("{mark} {host}: {error}\n  what to do: {advice}"));
            }
        }
        if let Some(error) = &self.report.hook_failure {
            console.note(&format!("{mark} {error}\n  what to do: correct it, then apply again"));
        }
        if let Some(error) = &self.unfinished {
            console.note(&format!("{mark} {error}"));
        }
        for (host, removed) in &self.removed {
            if let Some(error) = &removed.error {
                console.note(&format!("{mark} {host} is not removed: {error}"));
            }
        }
        for problem in &self.left_out {
            let (host, message) = (&problem.host, &problem.message);
            console.note(&format!("{mark} {host} was left out: {message}"));
        }
        if let Some(note) = self.note_of_asking() {
            console.note(&note);
        }
        if let Some(log) = self.log.as_ref().filter(|_| !self.is_success()) {
            console.note(&format!("logs: {}", log.display()));
        }
        Ok(self.exit(surroundings.stop.load(Ordering::Relaxed)))
    }

    /// What people have to do for the nodes that wait for them.
    fn note_of_asking(&self) -> Option<String> {
        if self.asking.is_empty() {
            return None;
        }
        let names: Vec<_> = self.asking.keys().map(String::as_str).collect();
        let requests: Vec<_> = self.asking.values().map(String::as_str).collect();
        let waits = if names.len() == 1 { "waits" } else { "wait" };
        let mut note = format!(
            "note: {} {waits} to be let in: {}\n  what to do: kubectl certificate approve {}",
            counted(names.len(), "node"),
            names.join(" "),
            requests.join(" ")
        );
        if !self.prepared.addons.is_empty() {
            note.push_str("\n  then apply again: addons are brought in once there are nodes");
        }
        Some(note)
    }

    fn is_success(&self) -> bool {
        self.exit(false) == Exit::Ok
    }

    fn exit(&self, interrupted: bool) -> Exit {
        let removals = self.removed.values().filter(|removed| removed.error.is_some());
        Ended {
            interrupted,
            well: self.report.is_success(),
            well_but_for_lost: self.allow_unreachable && self.report.is_success_but_for_lost(),
            changed: self.report.changed_something(),
            unfinished: self.unfinished.is_some()
                || removals.clone().any(|removed| !removed.unreachable),
            away: !self.left_out.is_empty() || removals.count() > 0,
        }
        .exit()
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
                        // All that there was to do was done when it joined.
                        (None, _) if plan.changes.is_empty() => "set up for etcd".to_owned(),
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
        for name in &self.joined {
            out.push_str(&format!("{name:width$}  joined etcd\n"));
        }
        for name in &self.labelled {
            out.push_str(&format!("{name:width$}  role label changed\n"));
        }
        if let Some(change) = self.key {
            out.push_str(&format!("{}\n", change.line()));
        }
        for change in &self.addons {
            out.push_str(&format!("{}\n", change.line()));
        }
        for problem in &self.left_out {
            out.push_str(&format!("{:width$}  left out\n", problem.host));
        }
        for (name, removed) in &self.removed {
            let how = if removed.error.is_some() { "not removed" } else { "removed" };
            out.push_str(&format!("{name:width$}  {how}\n"));
            for note in &removed.notes {
                out.push_str(&format!("{:width$}    note: {note}\n", ""));
            }
        }
        if !self.report.is_success() {
            let split = self.report.split();
            let lists =
                [("done", split.done), ("failed", split.failed), ("not begun", split.not_begun)];
            for (word, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
                out.push_str(&format!("{word}: {}\n", names.join(" ")));
            }
        }
        let slow = self.phases.iter().filter(|(_, time)| time.as_millis() > 0);
        let phases: Vec<_> =
            slow.map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        out.push_str(&format!("time: {}\n", phases.join(", ")));
        let changed = self.report.hosts.len() + self.removed.len();
        let result = match (self.is_success(), changed) {
            (true, 0) if !self.joined.is_empty() => {
                format!("{} joined", counted(self.joined.len(), "member"))
            }
            (true, 0)
                if self.labelled.is_empty() && self.addons.is_empty() && self.key.is_none() =>
            {
                "nothing to do".to_owned()
            }
            (true, 0) if self.labelled.is_empty() && self.addons.is_empty() => {
                "1 key of etcd changed".to_owned()
            }
            (true, 0) if self.labelled.is_empty() => {
                format!("{} of addons changed", counted(self.addons.len(), "object"))
            }
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
            "success": self.is_success(),
            "changed_hosts": self.report.hosts.len(),
            "hosts": hosts,
            "progress": self.report.split(),
            "hook_failure": self.report.hook_failure,
            "unfinished": self.unfinished,
            "joined": self.joined,
            "labelled": self.labelled,
            "waiting_for_approval": self.asking,
            "network_key": self.key,
            "addons": self.addons,
            "left_out": self.left_out,
            "removed": self.removed,
            "phases": phases,
            "total_ms": self.total.as_millis(),
            "logs": self.log,
        })
    }
}

/// How an apply ended, as far as the exit code tells.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    interrupted: bool,
    /// No host failed.
    well: bool,
    /// None failed but those that were lost on the way, and that was allowed.
    well_but_for_lost: bool,
    changed: bool,
    /// The cluster lacks something, or a host that is there was not removed.
    unfinished: bool,
    /// A host was left out because it is out of reach.
    away: bool,
}

impl Ended {
    fn exit(self) -> Exit {
        match self {
            Self { interrupted: true, well: false, .. } => Exit::Interrupted,
            Self { unfinished: true, .. } => Exit::Partial,
            Self { well: true, away: false, .. } => Exit::Ok,
            Self { well: true, .. } | Self { well_but_for_lost: true, .. } => Exit::Unreached,
            Self { changed: true, .. } => Exit::Partial,
            _ => Exit::Failed,
        }
    }
}

/// `1 host`, `2 hosts`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_how_it_ended() {
        let failed = Ended::default();
        let well = Ended { well: true, well_but_for_lost: true, changed: true, ..failed };
        let lost = Ended { well: false, ..well };
        let check = |ended: Ended, expected| assert_eq!(ended.exit(), expected, "{ended:?}");
        check(well, Exit::Ok);
        check(Ended { changed: false, ..well }, Exit::Ok);
        // All was done before the interruption could matter.
        check(Ended { interrupted: true, ..well }, Exit::Ok);
        check(Ended { away: true, ..well }, Exit::Unreached);
        check(lost, Exit::Unreached);
        check(Ended { unfinished: true, away: true, ..well }, Exit::Partial);
        check(Ended { interrupted: true, ..lost }, Exit::Interrupted);
        check(failed, Exit::Failed);
        check(Ended { changed: true, ..failed }, Exit::Partial);
        check(Ended { changed: true, away: true, ..failed }, Exit::Partial);
    }
}
