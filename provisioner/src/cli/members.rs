//! The members of etcd: who they are, and bringing new ones into a running cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Surroundings;
use super::output::{Console, Failure};
use super::prepare::Prepared;
use crate::etcd::births::{self, Births};
use crate::etcd::gateway::{Gateway, MemberEntry, peer_url};
use crate::etcd::membership::{self, Change, Member, Planned, Wanted};
use crate::execute::{Execution, Hosts, Limits, chain};
use crate::facts::{Facts, FactsQuery};
use crate::inventory::{Inventory, Role};
use crate::pki::Pki;
use crate::plan::{self, HostPlan, Plan};
use crate::progress::Display;
use crate::state::{HostState, Stage};

/// The unit of every member.
const UNIT: &str = "etcd.service";
/// Pause between two looks at a learner that catches up.
const PAUSE: Duration = Duration::from_millis(500);

/// What the running members were told at their birth, also where only they know it: a state
/// directory of an earlier version does not.
pub(super) fn births(
    known: Option<Births>,
    inventory: &Inventory,
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
) -> Births {
    if let Some(known) = known {
        return known;
    }
    let etcd = inventory.with_role(Role::Etcd);
    let (running, fresh): (Vec<_>, Vec<_>) =
        etcd.partition(|host| facts.get(&host.name).is_some_and(has_run));
    if running.is_empty() || fresh.is_empty() {
        return Births::of(inventory);
    }
    let path = "/etc/etcd/etcd.env".to_owned();
    let told = running.iter().find_map(|host| {
        let texts = hosts.get_mut(&host.name)?.read(std::slice::from_ref(&path)).ok()?;
        births::told_by(texts.get(&path)?).map(Births::told)
    });
    told.unwrap_or_else(|| Births::of(inventory))
}

fn has_run(facts: &Facts) -> bool {
    facts.started.contains_key(UNIT)
}

/// The changes that bring hosts of the inventory into a running etcd of which they are no members.
/// Members that are not in the inventory stay: to remove one takes an order of its own.
pub(super) fn newcomers(
    mut births: Births,
    inventory: &Inventory,
    pki: &Pki,
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
) -> Result<(Births, Vec<Planned>), Failure> {
    let etcd = || inventory.with_role(Role::Etcd).map(|host| facts.get(&host.name));
    if etcd().all(|facts| facts.is_some_and(|facts| !has_run(facts))) {
        // Nothing runs anywhere: all begin together, whatever was before.
        return Ok((Births::of(inventory), Vec::new()));
    }
    no_member_is_stopped(inventory, pki, facts, hosts)?;
    let newcomers = births.newcomers(inventory);
    if newcomers.is_empty() || !etcd().flatten().any(has_run) {
        return Ok((births, Vec::new()));
    }
    let current = observe(inventory, pki, hosts).map_err(|reason| no_answer(&reason))?;
    let wanted = wanted(inventory, &current);
    let planned = membership::plan(&wanted, &current).map_err(|refusal| refused(&refusal))?;
    births.join(&current, &wanted, &planned);
    Ok((births, planned))
}

/// A host that has lost the role still runs etcd until an apply stops it. As long as it is a member,
/// that would cost the others one of those they may lose.
fn no_member_is_stopped(
    inventory: &Inventory,
    pki: &Pki,
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
) -> Result<(), Failure> {
    let runs = |host: &&crate::inventory::Host| {
        let record = facts.get(&host.name).and_then(|facts| facts.record.as_ref());
        !host.has(Role::Etcd) && record.is_some_and(|record| record.unit(UNIT).is_some())
    };
    let leaving: Vec<_> = inventory.hosts.iter().filter(runs).collect();
    if leaving.is_empty() {
        return Ok(());
    }
    let current = observe(inventory, pki, hosts).map_err(|reason| no_answer(&reason))?;
    let is_member = |name: &str| current.iter().any(|member| member.name == name);
    match leaving.iter().find(|host| is_member(&host.name)) {
        None => Ok(()),
        Some(host) => Err(Failure::Other {
            message: format!("{} has lost the role etcd and is a member of it", host.name),
            advice: format!("`kprov etcd remove INVENTORY {} --yes` first", host.name),
        }),
    }
}

/// The members of the inventory, and those besides them that there are now.
fn wanted(inventory: &Inventory, current: &[Member]) -> Vec<Wanted> {
    let mut all = in_inventory(inventory);
    for member in current.iter().filter(|member| !member.is_learner) {
        let (name, peer_url) = (member.name.clone(), member.peer_url.clone());
        // A host that has moved is wanted at its new address only.
        if !all.iter().any(|wanted| wanted.name == name || wanted.peer_url == peer_url) {
            all.push(Wanted { name, peer_url });
        }
    }
    all
}

/// The members of the inventory.
pub(super) fn in_inventory(inventory: &Inventory) -> Vec<Wanted> {
    let members = births::members(inventory).into_iter();
    members.map(|(name, peer_url)| Wanted { name, peer_url }).collect()
}

pub(super) fn no_answer(reason: &str) -> Failure {
    Failure::Other {
        message: format!("no member of etcd tells who the members are: {reason}"),
        advice: "bring a majority of the members up first; if it is lost for good, see \
                 `kprov recover`"
            .to_owned(),
    }
}

pub(super) fn refused(refusal: &membership::Refusal) -> Failure {
    let advice = match refusal {
        membership::Refusal::NoQuorum { .. } => {
            "bring a majority up again; if it is lost for good, see `kprov recover`"
        }
        _ => "bring the members that are not healthy up again first; nothing was changed",
    };
    Failure::new(refusal, advice)
}

/// Asks a healthy member who the members are, and each of them how it is.
pub(super) fn observe(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
) -> Result<Vec<Member>, String> {
    let mut answered: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    let (mut list, mut reason) = (None, "none is reachable".to_owned());
    for host in inventory.with_role(Role::Etcd) {
        let Some(connection) = hosts.get_mut(&host.name) else { continue };
        let Some(mut gateway) = Gateway::new(connection.as_mut(), host, pki) else { continue };
        match gateway.status() {
            Ok(status) => {
                answered.insert(peer_url(host), (status.leader != 0, status.is_learner));
                // A learner does not answer for the others.
                if list.is_none() && status.leader != 0 && !status.is_learner {
                    list = gateway.members().map_err(|error| reason = error.to_string()).ok();
                }
            }
            Err(error) => reason = error.to_string(),
        }
    }
    let list = list.ok_or(reason)?;
    let member = |entry: MemberEntry| {
        let url = entry.peer_urls.into_iter().next().unwrap_or_default();
        let is_healthy = answered.get(&url).is_some_and(|(has_leader, _)| *has_leader);
        Member {
            id: entry.id,
            name: entry.name,
            is_learner: entry.is_learner,
            is_healthy,
            is_lost: false,
            peer_url: url,
        }
    };
    Ok(list.into_iter().map(member).collect())
}

/// The changes of members, for people.
pub(super) fn shown(planned: &[Planned]) -> String {
    match planned {
        [] => String::new(),
        planned => {
            let lines = planned.iter().map(|planned| format!("  ~ {planned}\n"));
            format!("etcd members:\n{}", lines.collect::<String>())
        }
    }
}

/// Brings the new members into etcd, one after the other, and writes down what they were told.
/// Says whether there was anything to do.
pub(super) fn settle(
    prepared: &mut Prepared,
    state_dir: &Path,
    limits: Limits,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<bool, Failure> {
    let written = Births::load(state_dir).ok().flatten();
    let save = |births: &Births| {
        let saved = births.save(state_dir);
        saved.map_err(|error| Failure::new(&error, "check the state directory"))
    };
    // Before anything of it is on a host, so that a run that dies is taken up by the next one.
    if written.as_ref() != Some(&prepared.births) {
        save(&prepared.births)?;
    }
    let joined = !prepared.joins.is_empty();
    if joined {
        join(prepared, limits, surroundings, console)?;
        replan(prepared)?;
    }
    if prepared.births.all_joined() {
        save(&prepared.births)?;
    }
    Ok(joined)
}

fn join(
    prepared: &mut Prepared,
    limits: Limits,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<(), Failure> {
    // Three changes a member, and each may be looked at once more after a hiccup.
    let turns = 6 * prepared.inventory.hosts.len();
    for _ in 0..turns {
        let current = observe(&prepared.inventory, &prepared.pki, &mut prepared.hosts)
            .map_err(|reason| no_answer(&reason))?;
        let wanted = wanted(&prepared.inventory, &current);
        let next = membership::next(&wanted, &current).map_err(|refusal| refused(&refusal))?;
        let Some(planned) = next else { return Ok(()) };
        console.note(&format!("etcd: {planned}"));
        match &planned.change {
            Change::Start { name } => start(prepared, name, limits, surroundings, console)?,
            change => {
                let (inventory, pki) = (&prepared.inventory, &prepared.pki);
                carry_out(change, inventory, pki, &mut prepared.hosts, limits.deadline)?;
            }
        }
    }
    Err(stuck("the members of etcd do not settle"))
}

fn stuck(message: &str) -> Failure {
    Failure::Other {
        message: message.to_owned(),
        advice: "see journalctl -u etcd on the members, then apply again".to_owned(),
    }
}

/// Has a member make a change of the members.
pub(super) fn carry_out(
    change: &Change,
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
    deadline: Instant,
) -> Result<(), Failure> {
    loop {
        let done = through_voter(inventory, pki, hosts, change);
        match done {
            Ok(()) => return Ok(()),
            // etcd itself knows best when the learner has caught up.
            Err(reason)
                if matches!(change, Change::Promote { .. })
                    && reason.contains("in sync with leader")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            Err(reason) => return Err(stuck(&reason)),
        }
    }
}

/// Asks the members with a vote in turn until one carries the change out.
fn through_voter(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
    change: &Change,
) -> Result<(), String> {
    let mut reason = "no member of etcd with a vote answers".to_owned();
    for host in inventory.with_role(Role::Etcd) {
        let Some(connection) = hosts.get_mut(&host.name) else { continue };
        let Some(mut gateway) = Gateway::new(connection.as_mut(), host, pki) else { continue };
        let Ok(status) = gateway.status() else { continue };
        if status.is_learner || status.leader == 0 || leaves(change, status.header.member_id) {
            continue;
        }
        let done = match change {
            Change::AddLearner { peer_url, .. } => gateway.add_learner(peer_url).map(drop),
            Change::Promote { id, .. } => gateway.promote(*id),
            Change::Remove { id, .. } => gateway.remove(*id),
            Change::Start { .. } => Ok(()),
        };
        match done {
            Ok(()) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// A member that is removed is not the one to be asked for it.
fn leaves(change: &Change, member: u64) -> bool {
    matches!(change, Change::Remove { id, .. } if *id == member)
}

/// Brings one host as far as a running etcd; the rest of its plan comes with all the others'.
fn start(
    prepared: &mut Prepared,
    name: &str,
    limits: Limits,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<(), Failure> {
    let state = prepared.desired.iter().find(|state| state.host == name).cloned();
    let (Some(state), true) = (state, prepared.hosts.contains_key(name)) else {
        return Err(stuck(&format!("{name} is to join etcd and cannot be reached")));
    };
    let facts = [(name.to_owned(), facts_again(prepared, &state)?)].into();
    let whole = plan::plan(std::slice::from_ref(&state), &facts);
    let plan = until_etcd(whole);
    let display = Display::new(&[name.to_owned()], console.is_json());
    let execution = Execution {
        desired: std::slice::from_ref(&state),
        plan: &plan,
        limits,
        observer: &display,
        stop: &surroundings.stop,
    };
    let mut report = execution.run(&mut prepared.hosts);
    display.finish();
    match report.hosts.remove(name).and_then(|outcome| outcome.error) {
        Some(error) => Err(Failure::new(&error, error.advice())),
        None => wait_for_learner(prepared, name, limits.deadline),
    }
}

/// Waits until the member that has started says that it has a leader.
fn wait_for_learner(prepared: &mut Prepared, name: &str, deadline: Instant) -> Result<(), Failure> {
    let host = prepared.inventory.host(name).expect("members are hosts of the inventory");
    let connection = prepared.hosts.get_mut(name).expect("it has just been worked on");
    let mut gateway = Gateway::new(connection.as_mut(), host, &prepared.pki)
        .ok_or_else(|| stuck("there is no certificate to ask etcd with"))?;
    loop {
        let reason = match gateway.status() {
            Ok(status) if status.leader != 0 => return Ok(()),
            Ok(_) => "it has no leader".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(stuck(&format!("etcd on {name} does not come up: {reason}")));
        }
        std::thread::sleep(PAUSE);
    }
}

/// A plan without what comes after etcd, and without its gate: a member without a vote answers no
/// health check. What is left out is planned anew afterwards.
fn until_etcd(plan: Plan) -> Plan {
    let hosts: Vec<HostPlan> = (plan.hosts.into_iter())
        .map(|mut host| {
            host.batches.retain(|stage, _| *stage <= Stage::Etcd);
            host.batches.values_mut().for_each(|batch| batch.gates.clear());
            host
        })
        .collect();
    let mut waves = plan.waves;
    waves.retain(|wave| wave.stage <= Stage::Etcd);
    Plan { hosts, waves }
}

fn facts_again(prepared: &mut Prepared, state: &HostState) -> Result<Facts, Failure> {
    let host = prepared.hosts.get_mut(&state.host).expect("its facts were gathered before");
    let facts = host.facts(&FactsQuery::for_state(state), None);
    facts.map_err(|error| Failure::Other { message: chain(&error), advice: error.advice() })
}

/// Plans anew for the hosts that have been worked on.
fn replan(prepared: &mut Prepared) -> Result<(), Failure> {
    let reached: Vec<_> = (prepared.desired.iter())
        .filter(|state| prepared.facts.contains_key(&state.host))
        .cloned()
        .collect();
    let started: Vec<_> = (prepared.joins.iter())
        .filter_map(|planned| match &planned.change {
            Change::Start { name } => Some(name.clone()),
            _ => None,
        })
        .collect();
    for state in reached.iter().filter(|state| started.contains(&state.host)) {
        let facts = facts_again(prepared, state)?;
        prepared.facts.insert(state.host.clone(), facts);
    }
    prepared.plan = plan::plan(&reached, &prepared.facts);
    Ok(())
}

#[cfg(test)]
mod tests;
