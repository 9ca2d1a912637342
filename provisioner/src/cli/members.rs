//! The members of etcd: who they are, and bringing new ones into a running cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Exit;
use super::diary::Diary;
use super::output::Failure;
use super::prepare::{self, Prepared};
use crate::etcd::births::{self, Births};
use crate::etcd::gateway::{Gateway, MemberEntry, peer_url};
use crate::etcd::membership::{self, Change, Member, Planned, Wanted};
use crate::execute::{Execution, Hosts, Limits, Report, chain};
use crate::facts::{Facts, FactsQuery};
use crate::inventory::{Hook, Inventory, Phase, Role};
use crate::lock::Lease;
use crate::pki::Pki;
use crate::plan::{self, HostPlan, Plan};
use crate::preflight::Problem;
use crate::state::{HostState, Stage};

/// The unit of every member.
const UNIT: &str = "etcd.service";
/// Longest wait for members that must have been connected for a while before the next change.
const SETTLING: Duration = Duration::from_secs(30);
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
    let path = inventory.cluster.layout.environment("etcd");
    let told = running.iter().find_map(|host| {
        let texts = hosts.get_mut(&host.name)?.read(std::slice::from_ref(&path)).ok()?;
        births::told_by(texts.get(&path)?).map(Births::told)
    });
    told.unwrap_or_else(|| Births::of(inventory))
}

fn has_run(facts: &Facts) -> bool {
    facts.started.contains_key(UNIT)
}

/// Whether it matters to one of the chosen hosts who the members are, so that all of them must be
/// asked.
pub(super) fn are_concerned(
    known: Option<&Births>,
    inventory: &Inventory,
    facts: &BTreeMap<String, Facts>,
    chosen: &BTreeSet<String>,
) -> bool {
    let joins =
        |births: &Births| births.newcomers(inventory).iter().any(|name| chosen.contains(name));
    known.is_none_or(joins) || !leaving(inventory, facts).is_empty()
}

/// The changes that bring those hosts of the inventory into a running etcd that are `ready` for it
/// and no members, with what they are told. Members that are not in the inventory stay: to remove
/// one takes an order of its own.
///
/// # Errors
/// The host that is in the way, and how.
pub(super) fn newcomers(
    births: &Births,
    ready: &BTreeSet<String>,
    inventory: &Inventory,
    pki: &Pki,
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
) -> Result<(Births, Vec<Planned>), Problem> {
    let etcd = || inventory.with_role(Role::Etcd).map(|host| facts.get(&host.name));
    if etcd().all(|facts| facts.is_some_and(|facts| !has_run(facts))) {
        // Nothing runs anywhere: all begin together, whatever was before.
        return Ok((Births::of(inventory), Vec::new()));
    }
    no_member_is_stopped(inventory, pki, facts, hosts)?;
    let newcomers = births.newcomers(inventory);
    let first = newcomers.iter().find(|name| ready.contains(*name));
    let Some(first) = first.filter(|_| etcd().flatten().any(has_run)) else {
        return Ok((births.clone(), Vec::new()));
    };
    let current = observe(inventory, pki, hosts).map_err(|reason| unknown(first, &reason))?;
    let wanted = wanted(inventory, &current, ready);
    let planned = membership::plan(&wanted, &current).map_err(|refusal| Problem {
        host: first.clone(),
        check: CHECK,
        message: format!("it cannot join etcd: {refusal}"),
        advice: advice(&refusal).to_owned(),
    })?;
    let halfway = planned.iter().find_map(|planned| match &planned.change {
        Change::Start { name } if !ready.contains(name) => Some(name),
        _ => None,
    });
    if let Some(name) = halfway {
        return Err(Problem {
            host: first.clone(),
            check: CHECK,
            message: format!("it cannot join etcd before {name}, which is halfway in"),
            advice: format!("apply to {name} as well; it must be reachable"),
        });
    }
    let mut births = births.clone();
    births.join(&current, &wanted, &planned);
    Ok((births, planned))
}

/// What it is that is wrong with a host.
const CHECK: &str = "etcd-members";

fn unknown(host: &str, reason: &str) -> Problem {
    Problem {
        host: host.to_owned(),
        check: CHECK,
        message: no_answer_because(reason),
        advice: NO_ANSWER.to_owned(),
    }
}

/// Hosts that have lost the role and run etcd still.
fn leaving<'a>(
    inventory: &'a Inventory,
    facts: &BTreeMap<String, Facts>,
) -> Vec<&'a crate::inventory::Host> {
    let runs = |host: &&crate::inventory::Host| {
        let record = facts.get(&host.name).and_then(|facts| facts.record.as_ref());
        !host.has(Role::Etcd) && record.is_some_and(|record| record.unit(UNIT).is_some())
    };
    inventory.hosts.iter().filter(runs).collect()
}

/// A host that has lost the role still runs etcd until an apply stops it. As long as it is a member,
/// that would cost the others one of those they may lose.
fn no_member_is_stopped(
    inventory: &Inventory,
    pki: &Pki,
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
) -> Result<(), Problem> {
    let leaving = leaving(inventory, facts);
    let Some(first) = leaving.first() else { return Ok(()) };
    let current = observe(inventory, pki, hosts).map_err(|reason| unknown(&first.name, &reason))?;
    let is_member = |name: &str| current.iter().any(|member| member.name == name);
    match leaving.iter().find(|host| is_member(&host.name)) {
        None => Ok(()),
        Some(host) => Err(Problem {
            host: host.name.clone(),
            check: CHECK,
            message: "it has lost the role etcd and is a member of it".to_owned(),
            advice: format!("`kprov etcd remove INVENTORY {} --yes` first", host.name),
        }),
    }
}

/// The members of the inventory that are `ready` or members already, and those besides them that
/// there are now.
fn wanted(inventory: &Inventory, current: &[Member], ready: &BTreeSet<String>) -> Vec<Wanted> {
    let mut all = in_inventory(inventory);
    all.retain(|wanted| {
        ready.contains(&wanted.name)
            || current.iter().any(|member| membership::same(wanted, member))
    });
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

const NO_ANSWER: &str = "bring a majority of the members up first; if it is lost for good, see \
                         `kprov recover`";

fn no_answer_because(reason: &str) -> String {
    format!("no member of etcd tells who the members are: {reason}")
}

pub(super) fn no_answer(reason: &str) -> Failure {
    Failure::Other { message: no_answer_because(reason), advice: NO_ANSWER.to_owned() }
}

pub(super) fn refused(refusal: &membership::Refusal) -> Failure {
    Failure::new(refusal, advice(refusal))
}

fn advice(refusal: &membership::Refusal) -> &'static str {
    match refusal {
        membership::Refusal::NoQuorum { .. } => {
            "bring a majority up again; if it is lost for good, see `kprov recover`"
        }
        _ => "bring the members that are not healthy up again first; nothing was changed",
    }
}

/// Refuses a saved plan that would have to change who the members are: that is done by looking
/// anew after each change, and no list of steps.
pub(super) fn none_join(joins: &[Planned], exit: Exit) -> Result<(), Failure> {
    if joins.is_empty() {
        return Ok(());
    }
    let changes: String = joins.iter().map(|planned| format!("\n    {planned}")).collect();
    Err(Failure::Coded {
        exit,
        message: format!(
            "a saved plan holds no changes of etcd's members, and some are due:{changes}"
        ),
        advice: "apply the inventory itself first".to_owned(),
    })
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

/// What it takes to bring members into etcd.
pub(super) struct Settling<'a> {
    pub(super) state_dir: &'a Path,
    pub(super) limits: Limits,
    pub(super) lease: &'a Lease,
    pub(super) diary: &'a Diary,
    pub(super) stop: &'a AtomicBool,
}

impl Settling<'_> {
    /// Brings the new members into etcd, one after the other, and writes down what they were told.
    /// What was done on hosts is added to `report`; gives the names of those that have joined.
    pub(super) fn settle(
        &self,
        prepared: &mut Prepared,
        report: &mut Report,
    ) -> Result<Vec<String>, Failure> {
        // Before anything of it is on a host, so that a run that dies is taken up by the next one.
        write_down(&prepared.births, self.state_dir)?;
        let mut joined = Vec::new();
        if !prepared.joins.is_empty() {
            self.join(prepared, report, &mut joined)?;
            replan(prepared)?;
        }
        if prepared.births.all_joined() {
            write_down(&prepared.births, self.state_dir)?;
        }
        Ok(joined)
    }

    fn join(
        &self,
        prepared: &mut Prepared,
        report: &mut Report,
        joined: &mut Vec<String>,
    ) -> Result<(), Failure> {
        // Orders to etcd are writes as well, and no host checks their lease.
        self.lease.claim(&mut prepared.hosts, self.limits.at_once).map_err(|why| stuck(&why))?;
        let ready: BTreeSet<_> = prepared.plan.hosts.iter().map(|plan| plan.host.clone()).collect();
        // Three changes a member, and each may be looked at once more after a hiccup.
        let turns = 6 * prepared.inventory.hosts.len();
        for _ in 0..turns {
            let current = observe(&prepared.inventory, &prepared.pki, &mut prepared.hosts)
                .map_err(|reason| no_answer(&reason))?;
            let wanted = wanted(&prepared.inventory, &current, &ready);
            let next = membership::next(&wanted, &current).map_err(|refusal| refused(&refusal))?;
            let Some(planned) = next else { return Ok(()) };
            self.diary.said(&format!("etcd: {}", planned.change));
            self.diary.say(&format!("etcd: {planned}"));
            match &planned.change {
                Change::Start { name } => self.start(prepared, name, report)?,
                change => {
                    let (inventory, pki) = (&prepared.inventory, &prepared.pki);
                    let deadline = self.limits.deadline;
                    carry_out(change, inventory, pki, &mut prepared.hosts, deadline)?;
                }
            }
            if let Change::Promote { name, .. } = &planned.change {
                joined.push(name.clone());
            }
        }
        Err(stuck("the members of etcd do not settle"))
    }

    /// Brings one host as far as a running etcd; the rest of its plan comes with all the others'.
    fn start(
        &self,
        prepared: &mut Prepared,
        name: &str,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let state = prepared.desired.iter().find(|state| state.host == name).cloned();
        let (Some(state), true) = (state, prepared.hosts.contains_key(name)) else {
            return Err(stuck(&format!("{name} is to join etcd and cannot be reached")));
        };
        let facts = [(name.to_owned(), facts_again(prepared, &state)?)].into();
        let whole = plan::plan(std::slice::from_ref(&state), &facts);
        let plan = until_etcd(whole);
        // Those around the whole run have their turn when it begins and ends.
        let of_phases = |hook: &&Hook| matches!(hook.phase, Phase::Host | Phase::Etcd);
        let hooks: Vec<_> = prepared.inventory.hooks.iter().filter(of_phases).cloned().collect();
        let execution = Execution {
            desired: std::slice::from_ref(&state),
            plan: &plan,
            limits: self.limits,
            observer: self.diary,
            stop: self.stop,
            lease: Some(self.lease),
            hooks: (&hooks, &prepared.inventory.cluster.name),
            nodes: &[],
            drain: false,
        };
        let mut done = execution.run(&mut prepared.hosts);
        if let Some(failure) = done.hook_failure {
            return Err(stuck(&failure));
        }
        report.phases.append(&mut done.phases);
        if let Some(outcome) = done.hosts.remove(name) {
            if let Some(error) = outcome.error {
                return Err(Failure::new(&error, error.advice()));
            }
            let whole = report.hosts.entry(name.to_owned()).or_default();
            whole.steps += outcome.steps;
            whole.restarted.extend(outcome.restarted);
            whole.notes.extend(outcome.notes);
        }
        wait_for_learner(prepared, name, self.limits.deadline)
    }
}

/// Writes the births down where they are not.
pub(super) fn write_down(births: &Births, state_dir: &Path) -> Result<(), Failure> {
    if Births::load(state_dir).ok().flatten().as_ref() == Some(births) {
        return Ok(());
    }
    let saved = births.save(state_dir);
    saved.map_err(|error| Failure::new(&error, "check the state directory"))
}

/// Takes the member called `name` out of etcd, if there is one and the others keep a quorum, and
/// out of what is written down. Says whether there was one.
pub(super) fn leave(
    name: &str,
    prepared: &mut Prepared,
    state_dir: &Path,
    deadline: Instant,
) -> Result<bool, Failure> {
    let Prepared { inventory, pki, hosts, .. } = prepared;
    let current = observe(inventory, pki, hosts).map_err(|reason| no_answer(&reason))?;
    let planned = removal(name, &current)?;
    if let Some(planned) = &planned {
        carry_out(&planned.change, inventory, pki, hosts, deadline)?;
    }
    forget(state_dir, inventory, &[name])?;
    Ok(planned.is_some())
}

/// The removal of the member called `name`, if that is safe and there is one.
pub(super) fn removal(name: &str, current: &[Member]) -> Result<Option<Planned>, Failure> {
    let Some(leaving) = current.iter().find(|member| member.name == name) else {
        return Ok(None);
    };
    let others = current.iter().filter(|member| member.id != leaving.id && !member.is_learner);
    let wanted: Vec<_> = others
        .map(|member| Wanted { name: member.name.clone(), peer_url: member.peer_url.clone() })
        .collect();
    let planned = membership::next(&wanted, current).map_err(|refusal| refused(&refusal))?;
    Ok(planned
        .filter(|planned| matches!(planned.change, Change::Remove { id, .. } if id == leaving.id)))
}

/// Writes down that hosts are members no more.
pub(super) fn forget(
    state_dir: &Path,
    inventory: &Inventory,
    names: &[&str],
) -> Result<(), Failure> {
    let known = prepare::known_births(state_dir)?;
    let mut births = known.unwrap_or_else(|| Births::of(inventory));
    for name in names {
        births.forget(name);
    }
    write_down(&births, state_dir)
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
    let settled = deadline.min(Instant::now() + SETTLING);
    loop {
        let done = through_voter(inventory, pki, hosts, change);
        let until = match &done {
            Ok(()) => return Ok(()),
            Err(reason) if is_behind(change, reason) => deadline,
            Err(reason) if is_unsettled(reason) => settled,
            Err(_) => Instant::now(),
        };
        match done {
            Err(reason) if Instant::now() >= until => return Err(stuck(&reason)),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// etcd itself knows best when a learner has caught up.
fn is_behind(change: &Change, reason: &str) -> bool {
    matches!(change, Change::Promote { .. }) && reason.contains("in sync with leader")
}

/// After a change, etcd refuses the next one until all members have been connected for a while.
/// Source: etcd 3.4, `etcdserver/server.go`, `HealthInterval` (5 s) and `ErrUnhealthy`.
fn is_unsettled(reason: &str) -> bool {
    reason.contains("unhealthy cluster")
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

/// Plans anew, with what is true now of the hosts that have been worked on.
fn replan(prepared: &mut Prepared) -> Result<(), Failure> {
    let reached: Vec<_> = (prepared.desired.iter())
        .filter(|state| prepared.plan.host(&state.host).is_some())
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
    let Prepared { inventory, facts, hosts, .. } = prepared;
    prepared.plan = prepare::planned(&reached, facts, hosts, &inventory.rollout);
    Ok(())
}

#[cfg(test)]
mod tests;
