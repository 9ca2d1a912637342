//! Hosts that left the inventory: drained, out of etcd, given back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;

use super::apply::Going;
use super::output::{Console, Failure};
use super::prepare::Prepared;
use super::{Surroundings, members};
use crate::execute::{Execution, chain};
use crate::host::HttpsEndpoint;
use crate::inventory::{Host, Inventory, Role};
use crate::last_known::LastKnown;
use crate::leave;
use crate::plan::{self, HostPlan, Plan};
use crate::ready;

/// The hosts that were ours when last seen and that the inventory no longer has.
pub(super) struct Departed {
    pub(super) known: LastKnown,
    hosts: Vec<Host>,
}

/// What `--prune` will do to one host.
#[derive(Debug, Serialize)]
pub(super) struct Removal {
    pub(super) host: String,
    /// Whether it has a node to drain and delete.
    node: bool,
    /// Whether it was a member of etcd.
    etcd: bool,
    /// Why it cannot be given back now, if so.
    problem: Option<String>,
    plan: HostPlan,
}

/// What became of it.
#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) notes: Vec<String>,
    pub(super) error: Option<String>,
    /// Whether the host was out of reach, and remains to be given back.
    pub(super) unreachable: bool,
}

impl Departed {
    pub(super) fn read(state_dir: &Path, inventory: &Inventory) -> Result<Self, Failure> {
        let known = LastKnown::read(state_dir)
            .map_err(|error| Failure::new(&error, "put it right, or remove it to forget"))?;
        let hosts = known.departed(inventory);
        Ok(Self { known, hosts })
    }

    /// The hosts to connect to: none unless they shall be removed.
    pub(super) fn hosts(&self, prune: bool) -> Vec<Host> {
        if prune { self.hosts.clone() } else { Vec::new() }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.hosts.iter().map(|host| host.name.as_str()).collect()
    }

    /// Says that there are such hosts.
    pub(super) fn note(&self, console: &Console) {
        for host in &self.hosts {
            let (name, address) = (&host.name, host.address);
            console.note(&format!(
                "note: {name} ({address}) is no longer in the inventory: --prune takes it out"
            ));
        }
    }

    /// What would be done, from the facts of those that answered.
    pub(super) fn removals(&self, prepared: &Prepared) -> Vec<Removal> {
        self.hosts.iter().map(|host| removal(host, prepared)).collect()
    }
}

fn removal(host: &Host, prepared: &Prepared) -> Removal {
    let cluster = &prepared.inventory.cluster.name;
    let facts = prepared.facts.get(&host.name);
    let record = facts.and_then(|facts| facts.record.as_ref());
    let mut problem = None;
    if let Some(record) = record.filter(|record| record.cluster != *cluster) {
        problem = Some(format!("it belongs to the cluster {} now", record.cluster));
    }
    if let Some(error) = facts.and_then(|facts| facts.record_error.as_ref()) {
        problem = Some(format!("kprov's record on the host cannot be used: {error}"));
    }
    let failed = prepared.unreachable.iter().chain(&prepared.unfit);
    if let Some(found) = failed.into_iter().find(|problem| problem.host == host.name) {
        problem = Some(found.message.clone());
    }
    let plan = match (facts, &problem) {
        (Some(facts), None) => plan::reset(&host.name, facts),
        _ => plan::nothing(&host.name),
    };
    Removal {
        host: host.name.clone(),
        node: host.has(Role::Node),
        etcd: host.has(Role::Etcd),
        problem,
        plan,
    }
}

impl Removal {
    /// What will be done, for people.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}: leaves the cluster\n", self.host);
        let mut line = |text: &str| out.push_str(&format!("  - {text}\n"));
        if self.node {
            line("drain the node, where the API server is up");
        }
        if self.etcd {
            line("leave etcd, if the others keep a quorum");
        }
        match &self.problem {
            Some(problem) => line(&format!("cannot be given back: {problem}")),
            None => {
                let steps: usize = self.plan.batches.values().map(|batch| batch.steps.len()).sum();
                line(&format!("give the host back as it was ({steps} steps)"));
            }
        }
        if self.node {
            line("delete the node");
        }
        out
    }
}

/// Removes hosts one after another, so that etcd never loses two members at once.
pub(super) fn run(
    removals: &[Removal],
    prepared: &mut Prepared,
    going: &Going<'_>,
    state_dir: &Path,
    surroundings: &Surroundings,
) -> BTreeMap<String, Removed> {
    let mut outcomes = BTreeMap::new();
    for removal in removals {
        let mut removed = Removed {
            notes: Vec::new(),
            unreachable: prepared.unreachable.iter().any(|p| p.host == removal.host),
            error: None,
        };
        let interrupted = surroundings.stop.load(Ordering::Relaxed);
        let ended = match interrupted {
            true => Err("the operator interrupted the run".to_owned()),
            false => {
                going.diary.said(&format!("remove {}", removal.host));
                one(removal, prepared, going, state_dir, surroundings, &mut removed.notes)
            }
        };
        removed.error = ended.err();
        outcomes.insert(removal.host.clone(), removed);
    }
    outcomes
}

fn one(
    removal: &Removal,
    prepared: &mut Prepared,
    going: &Going<'_>,
    state_dir: &Path,
    surroundings: &Surroundings,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let name = &removal.host;
    let api = api(prepared);
    if removal.node {
        let up = match &api {
            Some((via, nodes)) => {
                let host = prepared.hosts.get_mut(via).ok_or("no host to ask through")?;
                ready::nodes(host.as_mut(), nodes)
            }
            None => Err("no host to ask through".to_owned()),
        };
        match (up, &api) {
            (Ok(_), Some((via, nodes))) => {
                let until = (Instant::now() + leave::DRAIN_WAIT).min(going.limits.deadline);
                let host = prepared.hosts.get_mut(via).ok_or("no host to ask through")?;
                leave::drain(host.as_mut(), nodes, name, until)?;
            }
            (Err(error), _) => notes.push(format!("not drained, the API is down: {error}")),
            (Ok(_), None) => {}
        }
    }
    if removal.etcd {
        let left = members::leave(name, prepared, state_dir, going.limits.deadline);
        left.map_err(|failure| failure.message())?;
    }
    if let Some(problem) = &removal.problem {
        delete_node(removal, prepared, api.as_ref(), notes);
        return Err(format!("not given back: {problem}"));
    }
    let plan = Plan {
        waves: plan::waves(
            std::slice::from_ref(&removal.plan),
            &crate::inventory::Rollout::AT_ONCE,
        ),
        hosts: vec![removal.plan.clone()],
    };
    let desired = [plan::reset_state(&prepared.inventory.cluster.name, name)];
    let execution = Execution {
        desired: &desired,
        plan: &plan,
        limits: going.limits,
        observer: going.diary,
        stop: &surroundings.stop,
        lease: Some(going.lease),
        hooks: (&[], ""),
        nodes: &[],
        drain: false,
    };
    let report = execution.run(&mut prepared.hosts);
    for outcome in report.hosts.values() {
        notes.extend(outcome.notes.iter().cloned());
        if let Some(error) = &outcome.error {
            return Err(chain(error));
        }
    }
    delete_node(removal, prepared, api.as_ref(), notes);
    Ok(())
}

/// The node goes last: while its kubelet runs, it would come back.
fn delete_node(
    removal: &Removal,
    prepared: &mut Prepared,
    api: Option<&(String, HttpsEndpoint)>,
    notes: &mut Vec<String>,
) {
    if !removal.node {
        return;
    }
    let Some((via, nodes)) = api else { return };
    let Some(host) = prepared.hosts.get_mut(via) else { return };
    if let Err(error) = leave::delete_node(host.as_mut(), nodes, &removal.host) {
        notes.push(format!("the node is still in the API: {error}"));
    }
}

/// The question for nodes, and the host to ask it through.
fn api(prepared: &Prepared) -> Option<(String, HttpsEndpoint)> {
    let requests = super::apply::nodes_requests(&prepared.inventory, &prepared.pki);
    let connected = |name: &String| prepared.hosts.contains_key(name);
    let own = requests.iter().find(|(master, _)| connected(master));
    let (master, request) = own.or_else(|| requests.first())?;
    let via = if connected(master) { master.clone() } else { any(prepared)? };
    Some((via, request.clone()))
}

fn any(prepared: &Prepared) -> Option<String> {
    let ours = |name: &&String| prepared.inventory.host(name).is_some();
    prepared.hosts.keys().find(ours).cloned()
}
