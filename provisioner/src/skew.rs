//! Which versions may run beside each other, and which may follow which.
//!
//! Source: Kubernetes' version skew policy: a kubelet is not newer than an API server and at most
//! three minor versions older; masters go up one minor version at a time and never down.

use std::collections::BTreeMap;
use std::fmt;

use crate::facts::Facts;
use crate::preflight::Problem;
use crate::program::Program;
use crate::state::HostState;

/// Minor versions that a kubelet may be older than an API server.
const KUBELET_BEHIND_MAX: u64 = 3;

/// The program whose version is the cluster's.
pub const HYPERKUBE: &str = "hyperkube";

/// A version of Kubernetes; what follows the three numbers does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Version {
    /// Reads `v1.33.0+kprov.0.1.0` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix('v')?.split(['+', '-']).next()?;
        let mut parts = numbers.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One host as far as versions go.
struct Seen<'a> {
    name: &'a str,
    master: bool,
    node: bool,
    now: Option<Version>,
    /// What it will run; what it runs now where it is not changed.
    then: Option<Version>,
    changes: bool,
    /// Whether the host keeps what it will run.
    kept: bool,
}

/// Checks what the hosts of `changed` will run against what all others run, as far as `facts` tell.
/// A version that a program does not say is not judged.
#[must_use]
pub fn check(
    desired: &[HostState],
    facts: &BTreeMap<String, Facts>,
    changed: &dyn Fn(&str) -> bool,
) -> Vec<Problem> {
    let seen: Vec<_> = desired
        .iter()
        .filter_map(|state| Some(see(state, facts.get(&state.host)?, changed(&state.host))))
        .collect();
    // What is as it was is not this run's doing.
    if !seen.iter().any(|host| host.changes && host.now != host.then) {
        return Vec::new();
    }
    let mut problems: Vec<_> = seen.iter().filter_map(one_by_one).collect();
    problems.extend(seen.iter().filter_map(|host| beside_masters(host, &seen)));
    problems
}

fn see<'a>(state: &'a HostState, facts: &Facts, changes: bool) -> Seen<'a> {
    let version = |program: &Program| Version::parse(program.version.as_deref()?);
    let record = facts.record.as_ref().and_then(|record| record.programs.get(HYPERKUBE));
    // A run that was broken off may have brought its build to some units already.
    let there = record.map(|known| known.pending.iter().chain(&known.current));
    let now = there.and_then(|programs| programs.filter_map(version).max());
    let wanted = state.programs.get(HYPERKUBE);
    let has = |unit: &str| state.units.iter().any(|known| known.name == unit);
    Seen {
        name: &state.host,
        master: has("kube-apiserver.service"),
        node: has("kubelet.service"),
        now,
        then: if changes { wanted.and_then(version) } else { now },
        changes,
        kept: record.zip(wanted).is_some_and(|(known, wanted)| known.keep(wanted)),
    }
}

fn problem(host: &Seen<'_>, message: String, advice: String) -> Problem {
    Problem { host: host.name.to_owned(), check: "version", message, advice }
}

/// The steps that one host may take.
fn one_by_one(host: &Seen<'_>) -> Option<Problem> {
    let (now, then) = (host.now?, host.then?);
    if !host.changes || now == then {
        return None;
    }
    let down = then < now;
    if host.master && (then.major, then.minor) < (now.major, now.minor) {
        let message = format!(
            "its API server would go from {now} down to {then}, and data written by a newer minor \
             version is not understood by an older one"
        );
        let advice = "restore a backup that was made before the upgrade (kprov restore)";
        return Some(problem(host, message, advice.to_owned()));
    }
    if host.master && (then.major, then.minor) > (now.major, now.minor + 1) {
        let message = format!(
            "its API server would go from {now} to {then}: masters go up one minor version at a time"
        );
        let advice = format!("bring all hosts to {}.{} first", now.major, now.minor + 1);
        return Some(problem(host, message, advice));
    }
    if down && !host.kept {
        let message = format!("it would go from {now} down to {then}");
        let advice = "kprov rollback brings back the build before, which hosts keep; no other build \
                      that is older is taken";
        return Some(problem(host, message, advice.to_owned()));
    }
    None
}

/// A kubelet and the API servers that it may meet: masters change before nodes do, so it is what
/// they will run that counts, and what those run that stay as they are.
fn beside_masters(host: &Seen<'_>, all: &[Seen<'_>]) -> Option<Problem> {
    let kubelet = host.then.filter(|_| host.node)?;
    let masters = || all.iter().filter(|other| other.master);
    let oldest = masters().filter_map(|m| Some((m.then?, m.name))).min()?;
    let newest = masters().filter_map(|m| Some((m.then?, m.name))).max()?;
    let minor = |version: Version| (version.major, version.minor);
    if minor(kubelet) > minor(oldest.0) {
        let (version, master) = oldest;
        let message = format!(
            "its kubelet would be {kubelet}, newer than the API server {version} on {master}"
        );
        return Some(problem(host, message, format!("upgrade {master} first, or with it")));
    }
    if kubelet.major != newest.0.major || kubelet.minor + KUBELET_BEHIND_MAX < newest.0.minor {
        let (version, master) = newest;
        let message = format!(
            "its kubelet would be {kubelet}, more than {KUBELET_BEHIND_MAX} minor versions older \
             than the API server {version} on {master}"
        );
        return Some(problem(host, message, format!("upgrade {} first", host.name)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::program::Generations;
    use crate::record::Record;
    use crate::state::{Gate, Stage, UnitState};

    fn program(version: &str) -> Program {
        Program { sha256: Digest::of(version.as_bytes()), version: Some(version.to_owned()) }
    }

    /// A row: the host, whether it is a master and a node, what it runs, what ran before that, and
    /// what it shall run, if it is to change.
    type Row<'a> = (&'a str, bool, bool, &'a str, &'a str, Option<&'a str>);

    fn said(rows: &[Row<'_>]) -> Vec<String> {
        let mut facts = BTreeMap::new();
        let mut desired = Vec::new();
        for (name, master, node, now, before, then) in rows {
            let mut state = HostState::new("c", *name);
            let units = [("kube-apiserver.service", master), ("kubelet.service", node)];
            for (unit, _) in units.iter().filter(|(_, has)| **has) {
                state.units.push(UnitState {
                    name: (*unit).to_owned(),
                    enabled: true,
                    stage: Stage::Node,
                    inputs: std::collections::BTreeSet::new(),
                    health: Gate::Active,
                });
            }
            state.programs.insert(HYPERKUBE.to_owned(), program(then.unwrap_or("v9.9.9")));
            desired.push(state);
            let mut record = Record::new("c", *name);
            let known = Generations {
                current: Some(program(now)),
                previous: Some(program(before)),
                ..Generations::default()
            };
            record.programs.insert(HYPERKUBE.to_owned(), known);
            facts.insert((*name).to_owned(), Facts { record: Some(record), ..Facts::default() });
        }
        let changed = |name: &str| rows.iter().any(|row| row.0 == name && row.5.is_some());
        check(&desired, &facts, &changed)
            .into_iter()
            .map(|problem| format!("{}: {}", problem.host, problem.message))
            .collect()
    }

    #[test]
    fn versions_are_read() {
        let read = |text: &str| Version::parse(text).map(|version| version.to_string());
        assert_eq!(read("v1.33.0+kprov.0.1.0").as_deref(), Some("1.33.0"));
        assert_eq!(read("v1.34.2-rc.1").as_deref(), Some("1.34.2"));
        for wrong in ["1.33.0", "v1.33", "v1.x.0", "v1.2.3.4", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn masters_go_up_one_minor_version_and_never_down_by_one() {
        let check = |now, before, then, expected: &[&str]| {
            assert_eq!(said(&[("m", true, false, now, before, Some(then))]), expected);
        };
        check("v1.33.0", "v1.32.0", "v1.33.4", &[]);
        check("v1.33.0", "v1.32.0", "v1.34.0", &[]);
        check("v1.33.4", "v1.33.0", "v1.33.0", &[]);
        let skips = "m: its API server would go from 1.33.0 to 1.35.0: masters go up one minor \
                     version at a time";
        check("v1.33.0", "v1.32.0", "v1.35.0", &[skips]);
        let down = "m: its API server would go from 1.33.0 down to 1.32.0, and data written by a \
                    newer minor version is not understood by an older one";
        check("v1.33.0", "v1.32.0", "v1.32.0", &[down]);
        check("v1.33.4", "v1.33.2", "v1.33.1", &["m: it would go from 1.33.4 down to 1.33.1"]);
        check("no version", "v1.32.0", "v1.35.0", &[]);
    }

    #[test]
    fn kubelets_are_not_newer_than_any_master_and_not_much_older() {
        let all = said(&[
            ("m1", true, true, "v1.33.0", "v1.33.0", Some("v1.34.0")),
            ("m2", true, true, "v1.33.0", "v1.33.0", Some("v1.34.0")),
            ("n1", false, true, "v1.33.0", "v1.33.0", Some("v1.34.0")),
        ]);
        assert_eq!(all, [""; 0]);
        let nodes_only = said(&[
            ("m1", true, false, "v1.33.0", "v1.33.0", None),
            ("n1", false, true, "v1.33.0", "v1.33.0", Some("v1.34.0")),
        ]);
        let newer = "n1: its kubelet would be 1.34.0, newer than the API server 1.33.0 on m1";
        assert_eq!(nodes_only, [newer]);
        let master_only = said(&[
            ("m1", true, false, "v1.33.0", "v1.33.0", Some("v1.34.0")),
            ("n1", false, true, "v1.31.0", "v1.31.0", None),
            ("n2", false, true, "v1.30.0", "v1.30.0", None),
        ]);
        let older = "n2: its kubelet would be 1.30.0, more than 3 minor versions older than the API \
                     server 1.34.0 on m1";
        assert_eq!(master_only, [older]);
        // A node alone may go back to what it keeps, also by a minor version.
        let back = said(&[
            ("m1", true, false, "v1.34.0", "v1.33.0", None),
            ("n1", false, true, "v1.34.0", "v1.33.0", Some("v1.33.0")),
        ]);
        assert_eq!(back, [""; 0]);
    }
}
