//! `kprov apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::addons;
use super::diary::Diary;
use super::members::{self, Settling};
use super::network_key;
use super::output::{Console, Failure};
use super::prepare::{self, Composition, Prepared, Wish};
use super::prune::{self, Departed};
use super::rollback;
use super::select::Choice;
use super::{ApplyArgs, Exit, RunArgs, Source, Surroundings};
use crate::applicants;
use crate::etcd::births::Births;
use crate::execute::{Execution, Limits, Report};
use crate::facts::LockRequest;
use crate::host::HttpsEndpoint;
use crate::inventory::{self, API_SERVER_PORT, Inventory, NodeApproval, Role};
use crate::leave;
use crate::lock::{self, Lease};
use crate::pki::{LeafKind, Pki};
use crate::plan::{self, SavedPlan, is_saved_plan};
use crate::ready;
use crate::role_label;

mod outcome;

use outcome::Outcome;

impl ApplyArgs {
    /// An apply to all hosts.
    pub(super) fn whole(run: RunArgs) -> Self {
        let choice = Choice::default();
        Self {
            run,
            choice,
            inventory_file: None,
            prune: false,
            allow_unreachable: false,
            rollback: false,
            drain: false,
        }
    }
}

/// Brings the hosts to the desired state; `command` is what the operator asked for.
pub(super) fn run(
    command: &str,
    args: &ApplyArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, command);
    let source = &args.run.source;
    if is_saved_plan(&source.inventory) {
        return saved(args, surroundings, console, began, &lock);
    }
    if args.inventory_file.is_some() {
        return Err(Failure::Usage {
            message: "--inventory is for saved plans".to_owned(),
            advice: "kprov apply INVENTORY, or kprov apply PLAN --inventory INVENTORY".to_owned(),
        });
    }
    let inventory = prepare::inventory(source, console)?;
    let chosen = args.choice.choose(&inventory)?;
    let state_dir = prepare::state_dir(source, &inventory);
    let departed = Departed::read(&state_dir, &inventory)?;
    let orphans = departed.hosts(args.prune);
    let wish = Wish {
        source,
        chosen,
        orphans: &orphans,
        state_dir: &state_dir,
        certificates_in: &state_dir,
        lock: Some(&lock),
        force_unlock: args.run.force_unlock,
        rollback: args.rollback,
    };
    let prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let prepared = prepared.fit(&wish, args.allow_unreachable)?;
    if !args.prune {
        departed.note(console);
    }
    if command != "apply" && !console.is_json() {
        let changes = rollback::announce(&prepared);
        changes.lines().for_each(|line| console.note(line));
    }
    let limited = args.choice.is_limited();
    let wish = &wish;
    let run = Run { command, args, surroundings, console, began, wish, departed, limited };
    run.carry_out(prepared)
}

/// Carries a saved plan out, exactly, or refuses.
fn saved(
    args: &ApplyArgs,
    surroundings: &Surroundings,
    console: &Console,
    began: Instant,
    lock: &LockRequest,
) -> Result<Exit, Failure> {
    if args.choice.is_limited() || args.prune {
        return Err(Failure::Usage {
            message: "a saved plan is carried out as a whole".to_owned(),
            advice: "give --hosts and --groups to kprov plan -o, and --prune to an apply of the \
                     inventory"
                .to_owned(),
        });
    }
    let refused = |error| super::plan::refused(&error);
    let saved = SavedPlan::read(&args.run.source.inventory).map_err(refused)?;
    let (place, given) = (&saved.source, &args.run.source);
    let source = Source {
        inventory: args.inventory_file.clone().unwrap_or_else(|| place.inventory.clone()),
        state_dir: given.state_dir.clone().or_else(|| Some(place.state_dir.clone())),
        templates: given.templates.clone().or_else(|| place.templates.clone()),
        key_file: given.key_file.clone(),
        bundle: given.bundle.clone(),
        skip: given.skip.clone(),
        ask_sudo_password: given.ask_sudo_password,
        local: place.local,
        parallel: given.parallel,
    };
    let inventory = prepare::inventory(&source, console)?;
    let state_dir = prepare::state_dir(&source, &inventory);
    // The certificates of the plan are there or it is refused: none is issued for it now.
    let scratch = prepare::scratch(&state_dir)?;
    let composition = Composition::new(&source, surroundings, scratch.path(), &inventory)?;
    let births = prepare::known_births(&state_dir)?.unwrap_or_else(|| Births::of(&inventory));
    let desired = composition.desired(&inventory, &births)?;
    saved.check_inputs(&desired, &inventory.hooks, &composition.addons).map_err(refused)?;
    let departed = Departed::read(&state_dir, &inventory)?;
    let chosen = Choice::of(saved.basis.keys().cloned()).choose(&inventory)?;
    let wish = Wish {
        source: &source,
        chosen,
        orphans: &[],
        state_dir: &state_dir,
        certificates_in: scratch.path(),
        lock: Some(lock),
        force_unlock: args.run.force_unlock,
        rollback: false,
    };
    let prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let mut prepared = prepared.fit(&wish, false)?;
    members::none_join(&prepared.joins, Exit::Drifted)?;
    let Prepared { desired, facts, plan, .. } = &prepared;
    prepared.plan = saved.check_hosts(desired, facts, plan).map_err(refused)?;
    let limited = saved.basis.len() < prepared.inventory.hosts.len();
    let (command, wish) = ("apply", &wish);
    let run = Run { command, args, surroundings, console, began, wish, departed, limited };
    run.carry_out(prepared)
}

/// A run that has begun to write.
pub(super) struct Going<'a> {
    pub(super) diary: &'a Diary,
    pub(super) lease: &'a Lease,
    pub(super) limits: Limits,
}

/// What an apply needs from here on.
struct Run<'a> {
    command: &'a str,
    args: &'a ApplyArgs,
    surroundings: &'a Surroundings,
    console: &'a Console,
    began: Instant,
    wish: &'a Wish<'a>,
    departed: Departed,
    /// Whether hosts of the inventory are left out on purpose.
    limited: bool,
}

impl Run<'_> {
    fn carry_out(mut self, mut prepared: Prepared) -> Result<Exit, Failure> {
        let Self { command, args, surroundings, console, began, wish, .. } = self;
        let mut phases = std::mem::take(&mut prepared.phases);
        for host in &prepared.plan.hosts {
            for warning in &host.warnings {
                console.note(&format!("warning: {}: {warning}", host.host));
            }
        }
        if console.verbose > 0 {
            console.note(plan::summary(&prepared.plan, &BTreeMap::new()).trim_end());
        }
        let lease = Lease::of_masters(&prepared.inventory, &prepared.facts)
            .map_err(|problem| Failure::Unfit(vec![problem]))?;
        let changed: Vec<_> = (prepared.plan.hosts.iter())
            .filter(|host| !host.is_empty())
            .map(|host| host.host.clone())
            .collect();
        let diary = Diary::begin(wish.state_dir, &prepared, command, began, &changed, console);
        let deadline = began + args.run.timeout;
        let limits = Limits {
            passes: prepared.inventory.rollout.passes,
            allow_unreachable: args.allow_unreachable,
            nodes_by_hand: approved_by_hand(&prepared.inventory),
            ..Limits::until(deadline, args.run.source.parallel)
        };
        let run = Going { diary: &diary, lease: &lease, limits };
        let (mut report, joined) = match self.bring(&mut prepared, &run) {
            Ok(done) => done,
            Err(failure) => {
                diary.close(console);
                return Err(failure);
            }
        };
        phases.append(&mut report.phases);
        let well = |report: &Report| match args.allow_unreachable {
            true => report.is_success_but_for_lost(),
            false => report.is_success(),
        };
        let asks = !args.run.no_wait;
        let (mut not_ready, mut asking) = (None, BTreeMap::new());
        if well(&report) && !report.hosts.is_empty() && asks {
            let began = Instant::now();
            diary.said("nodes ready");
            match wait_ready(&mut prepared, wish, &report, deadline, &diary) {
                Ok(waiting) => asking = waiting,
                Err(error) => not_ready = Some(error),
            }
            phases.push(("nodes ready".to_owned(), began.elapsed()));
        } else if well(&report) && asks && approved_by_hand(&prepared.inventory) {
            asking = look_for_applicants(&mut prepared);
        }
        let (mut labelled, mut not_labelled) = (Vec::new(), None);
        if well(&report) && not_ready.is_none() && asks && !self.limited {
            let began = Instant::now();
            match label_masters(&mut prepared) {
                Ok(changed) => labelled = changed,
                Err(error) => not_labelled = Some(error),
            }
            phases.push(("label masters".to_owned(), began.elapsed()));
        }
        let (mut key, mut not_kept) = (None, None);
        if well(&report) && asks && !self.limited {
            match network_key::apply(&mut prepared) {
                Ok(changed) => key = changed,
                Err(error) => not_kept = Some(error),
            }
        }
        let (mut addons, mut not_added) = (Vec::new(), None);
        // Without nodes their workloads would not get ready.
        if well(&report) && not_ready.is_none() && asks && !self.limited && asking.is_empty() {
            let began = Instant::now();
            let were = self.departed.known.addons;
            match addons::apply(&mut prepared, were, deadline, &surroundings.stop, &diary) {
                Ok(changed) => addons = changed,
                Err(error) => not_added = Some(error),
            }
            self.departed.known.addons = !prepared.addons.is_empty() || not_added.is_some();
            phases.push(("addons".to_owned(), began.elapsed()));
        }
        let mut left_cordoned = None;
        if well(&report) && asks && matches!(command, "upgrade" | "rollback") {
            left_cordoned = uncordon(&mut prepared, wish, console).err();
        }
        let unfinished = not_ready.or(not_labelled).or(not_kept).or(not_added).or(left_cordoned);
        let mut removed = BTreeMap::new();
        if args.prune && well(&report) && unfinished.is_none() {
            let removals = self.departed.removals(&prepared);
            removed = prune::run(&removals, &mut prepared, &run, wish.state_dir, surroundings);
        }
        self.remember(&prepared, &report, &removed);
        let log = diary.finish();
        let outcome = Outcome {
            left_out: prepared.left_out(&wish.chosen),
            report,
            phases,
            unfinished,
            joined,
            labelled,
            asking,
            key,
            addons,
            removed,
            allow_unreachable: args.allow_unreachable,
            total: began.elapsed(),
            prepared: &prepared,
            log,
        };
        let exit = outcome.show(console, surroundings)?;
        if args.rollback && exit == Exit::Ok && !outcome.report.hosts.is_empty() {
            console.note(rollback::AFTERWARDS);
        }
        Ok(exit)
    }

    /// Carries the plan out, after new members of etcd have joined; gives their names.
    fn bring(
        &self,
        prepared: &mut Prepared,
        run: &Going<'_>,
    ) -> Result<(Report, Vec<String>), Failure> {
        let nodes: Vec<_> = match self.args.run.no_wait {
            true => Vec::new(),
            false => nodes_requests(&prepared.inventory, &prepared.pki)
                .into_iter()
                .map(|(_, request)| request)
                .collect(),
        };
        let mut hosts = std::mem::take(&mut prepared.hosts);
        let mut report = self.execution(prepared, run, &nodes).begin(&mut hosts);
        prepared.hosts = hosts;
        let mut joined = Vec::new();
        if report.is_success() {
            let began = Instant::now();
            let settling = Settling {
                state_dir: self.wish.state_dir,
                limits: run.limits,
                lease: run.lease,
                diary: run.diary,
                stop: &self.surroundings.stop,
            };
            joined = settling.settle(prepared, &mut report)?;
            if !joined.is_empty() {
                report.phases.push(("etcd members".to_owned(), began.elapsed()));
            }
        }
        let mut hosts = std::mem::take(&mut prepared.hosts);
        let report = self.execution(prepared, run, &nodes).go_on(&mut hosts, report);
        prepared.hosts = hosts;
        Ok((report, joined))
    }

    fn execution<'a>(
        &'a self,
        prepared: &'a Prepared,
        run: &Going<'a>,
        nodes: &'a [HttpsEndpoint],
    ) -> Execution<'a> {
        Execution {
            desired: &prepared.desired,
            plan: &prepared.plan,
            limits: run.limits,
            observer: run.diary,
            stop: &self.surroundings.stop,
            lease: Some(run.lease),
            hooks: (&prepared.inventory.hooks, &prepared.inventory.cluster.name),
            nodes,
            drain: self.args.drain,
        }
    }

    /// Keeps where the hosts are, for the day that they leave the inventory.
    fn remember(
        &mut self,
        prepared: &Prepared,
        report: &Report,
        removed: &BTreeMap<String, prune::Removed>,
    ) {
        let known = &mut self.departed.known;
        let touched = |name: &str| {
            let begun = report.hosts.get(name).is_none_or(|outcome| outcome.steps > 0);
            prepared.plan.host(name).is_some() && begun
        };
        let hosts = prepared.inventory.hosts.iter();
        hosts.filter(|host| touched(&host.name)).for_each(|host| known.remember(host));
        for (name, removed) in removed {
            if removed.error.is_none() {
                known.forget(name);
            }
        }
        if let Err(error) = known.write(self.wish.state_dir) {
            self.console.note(&format!("warning: {}", crate::execute::chain(&error)));
        }
    }
}

/// Asks an API server through the connection of its own host, or of any other. Gives the nodes that
/// wait for people to let them in, each with its request.
fn wait_ready(
    prepared: &mut Prepared,
    wish: &Wish<'_>,
    report: &Report,
    deadline: Instant,
    diary: &Diary,
) -> Result<BTreeMap<String, String>, String> {
    let inventory = &prepared.inventory;
    let lost = |name: &str| {
        let error = report.hosts.get(name).and_then(|outcome| outcome.error.as_ref());
        error.is_some() || !prepared.hosts.contains_key(name)
    };
    let expected: BTreeSet<_> = (inventory.with_role(Role::Node))
        .filter(|host| wish.chosen.contains(&host.name) && !lost(&host.name))
        .map(|host| host.name.clone())
        .collect();
    let requests = nodes_requests(inventory, &prepared.pki);
    let own = requests.iter().find(|(master, _)| !lost(master));
    let none = Ok(BTreeMap::new());
    let Some((master, request)) = own.or_else(|| requests.first()) else { return none };
    let via = match lost(master) {
        false => Some(master),
        true => expected.first().or_else(|| prepared.hosts.keys().find(|name| !lost(name))),
    };
    let via = via.cloned();
    let Some(host) = via.and_then(|via| prepared.hosts.get_mut(&via)) else { return none };
    let mut said = None;
    let by_hand = approved_by_hand(inventory);
    let waited = ready::wait(host.as_mut(), request, &expected, by_hand, deadline, |missing| {
        if said != Some(missing) {
            said = Some(missing);
            diary.say(&format!("waiting for {missing} of {} nodes to be ready", expected.len()));
        }
    });
    let error = match waited {
        Ok(asking) => return Ok(asking),
        Err(error) => error,
    };
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

/// Whether people let new nodes in.
fn approved_by_hand(inventory: &Inventory) -> bool {
    inventory.cluster.node_approval == NodeApproval::Manual
}

/// The nodes that wait for people to let them in, each with its request; none when nobody can tell.
fn look_for_applicants(prepared: &mut Prepared) -> BTreeMap<String, String> {
    let requests = nodes_requests(&prepared.inventory, &prepared.pki);
    let reached = requests.into_iter().find(|(name, _)| prepared.hosts.contains_key(name));
    let Some((master, request)) = reached else { return BTreeMap::new() };
    let Some(host) = prepared.hosts.get_mut(&master) else { return BTreeMap::new() };
    let mut asking = applicants::waiting(host.as_mut(), &request).unwrap_or_default();
    asking.retain(|name, _| prepared.inventory.hosts.iter().any(|host| host.name == *name));
    asking
}

/// Lets pods onto nodes again that an upgrade that was killed has left without.
fn uncordon(prepared: &mut Prepared, wish: &Wish<'_>, console: &Console) -> Result<(), String> {
    let requests = nodes_requests(&prepared.inventory, &prepared.pki);
    let reached = requests.into_iter().find(|(name, _)| prepared.hosts.contains_key(name));
    let Some((master, request)) = reached else { return Ok(()) };
    let Some(host) = prepared.hosts.get_mut(&master) else { return Ok(()) };
    let left = leave::uncordon_left(host.as_mut(), &request, &wish.chosen)
        .map_err(|error| format!("nodes may have been left cordoned: {error}"))?;
    for name in left {
        console.note(&format!("note: {name} was left cordoned by an earlier run; it is no more"));
    }
    Ok(())
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
    let requests = nodes_requests(inventory, &prepared.pki);
    let reached = requests.into_iter().find(|(name, _)| prepared.hosts.contains_key(name));
    let Some((master, request)) = reached else { return Ok(Vec::new()) };
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
