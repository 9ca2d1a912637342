//! Taking back what is no longer wanted, and all of it on a reset.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{HostPlanner, is_unit_file};
use super::preparation::guarded_steps;
use super::{Batch, Change, HostPlan, Plan, UnitAction};
use crate::facts::{ENGINE, Facts, parents};
use crate::firewall::{FirewallChange, FirewallKind};
use crate::record::{OwnedUnit, Prior, Record};
use crate::state::{HostState, Stage};
use crate::step::Step;

impl HostPlanner<'_> {
    /// Plans the end of all that is owned and no longer desired.
    pub(super) fn remove_unwanted(&mut self) {
        self.finished = self.claimed.clone();
        self.former_programs();
        self.unwanted_units();
        self.unwanted_paths();
        self.unwanted_sysctls();
        self.unwanted_preparation();
    }

    /// Keeps of each program the generation before the wanted one; older ones go with their files.
    fn former_programs(&mut self) {
        let state = self.state;
        self.finished.programs.retain(|name, _| state.programs.contains_key(name));
        let generation = self.finished.generation + 1;
        for (name, known) in &mut self.finished.programs {
            *known = known.finish(&state.programs[name], generation);
        }
    }

    fn unwanted_units(&mut self) {
        let mut wanted: BTreeSet<_> =
            self.state.units.iter().map(|unit| unit.name.as_str()).collect();
        wanted.extend(self.state.docker.then_some(ENGINE));
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.finished.units)
            .into_iter()
            .partition(|unit| wanted.contains(unit.name.as_str()));
        self.finished.units = kept;
        for unit in gone.iter().rev() {
            self.unit_change(&unit.name, UnitAction::Stop, BTreeSet::new());
            self.stops.extend(stop(unit));
        }
    }

    fn unwanted_paths(&mut self) {
        let state = self.state;
        let former: Vec<_> = (self.finished.programs.iter())
            .filter_map(|(name, known)| Some(known.previous.as_ref()?.path(name)))
            .collect();
        let mut wanted: BTreeSet<&str> = state.files.iter().map(|f| f.path.as_str()).collect();
        wanted.extend(state.links.iter().map(|link| link.path.as_str()));
        wanted.extend(state.directories.iter().map(|directory| directory.path.as_str()));
        wanted.extend(former.iter().map(String::as_str));
        let above: Vec<_> = wanted.iter().flat_map(|path| parents(path)).collect();
        wanted.extend(above);
        let gone: BTreeMap<_, _> = (self.finished.paths.iter())
            .filter(|(path, _)| !wanted.contains(path.as_str()))
            .map(|(path, prior)| (path.clone(), prior.clone()))
            .collect();
        // Deepest first: reverse order puts children before their parents.
        for (path, prior) in gone.iter().rev() {
            self.finished.paths.remove(path);
            let restores = *prior != Prior::Absent;
            self.changes.push(Change::Remove { path: path.clone(), restores });
            self.removals.push(Step::Restore { path: path.clone(), prior: prior.clone() });
        }
        if gone.keys().any(|path| is_unit_file(path)) {
            self.removals.push(Step::Reload);
        }
    }

    fn unwanted_sysctls(&mut self) {
        let desired = &self.state.sysctls;
        let gone: Vec<_> = (self.finished.sysctls.iter())
            .filter(|(key, _)| !desired.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        // In the reverse of the order in which they were set.
        for (key, value) in gone.into_iter().rev() {
            self.finished.sysctls.remove(&key);
            let from = self.facts.sysctls.get(&key).cloned();
            self.changes.push(Change::Sysctl { key: key.clone(), from, to: value.clone() });
            self.removals.push(Step::Sysctl { key, value });
        }
    }
}

/// Stops a unit of ours; one that was there before keeps running until its files are back.
fn stop(unit: &OwnedUnit) -> Vec<Step> {
    let name = unit.name.clone();
    let mut steps = vec![Step::Forget { unit: name.clone() }];
    if !unit.existed || !unit.active {
        steps.push(Step::Stop { unit: name.clone() });
    }
    if !unit.enabled {
        steps.push(Step::Disable { unit: name });
    }
    steps
}

/// The plan that gives a host back as it was. For a host without a record there is nothing to do
/// but to remove what a run sent that was killed before it wrote one.
#[must_use]
pub fn reset(host: &str, facts: &Facts) -> HostPlan {
    let mut plan = nothing(host);
    if let Some(record) = &facts.record {
        plan.changes = reset_changes(record);
        let batch = Batch { steps: reset_steps(record, facts), ..Batch::default() };
        plan.batches.insert(Stage::HostPrep, batch);
    } else if facts.staged || facts.fence > 0 {
        plan.changes.push(Change::Record);
        let batch = Batch { steps: vec![Step::RemoveRecord], ..Batch::default() };
        plan.batches.insert(Stage::HostPrep, batch);
    }
    plan
}

/// The plan that leaves a host alone.
#[must_use]
pub fn nothing(host: &str) -> HostPlan {
    HostPlan {
        host: host.to_owned(),
        generation: 0,
        changes: Vec::new(),
        batches: BTreeMap::new(),
        uploads: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

fn reset_steps(record: &Record, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    let (theirs, ours): (Vec<_>, Vec<_>) = record.units.iter().partition(|unit| unit.existed);
    // An engine of ours is still needed, to remove what it holds.
    let (engine, ours): (Vec<_>, Vec<_>) = ours.into_iter().partition(|unit| unit.name == ENGINE);
    steps.extend(ours.iter().rev().flat_map(|unit| stop(unit)));
    steps.push(Step::RemoveContainers);
    let images = record.images.iter().cloned();
    steps.extend(images.map(|reference| Step::RemoveImage { reference }));
    steps.push(Step::RemoveNetwork);
    steps.extend(guarded_steps(firewall_changes(record), facts.firewall_guarded));
    if !engine.is_empty() {
        steps.extend(engine.iter().flat_map(|unit| stop(unit)));
        steps.push(Step::RemoveEngineNetwork);
    }
    steps.extend(record.manager.map(|manager| Step::RemovePackages { manager }));
    let blocks = record.blocks.iter().map(|(path, existed)| (path.clone(), *existed));
    steps.extend(blocks.map(|(path, existed)| Step::RemoveBlock { path, existed }));
    if !record.swaps.is_empty() {
        steps.push(Step::SwapOn { swaps: record.swaps.clone() });
    }
    let data = record.data.iter().map(|(path, prior)| (path.clone(), prior.clone()));
    steps.extend(data.map(|(path, prior)| Step::RemoveData { path, prior }));
    let paths = record.paths.iter().rev().map(|(path, prior)| (path.clone(), prior.clone()));
    steps.extend(paths.map(|(path, prior)| Step::Restore { path, prior }));
    // In the reverse of the order in which they were set: the switch for forwarding moves others.
    let sysctls = record.sysctls.iter().rev().map(|(key, value)| (key.clone(), value.clone()));
    steps.extend(sysctls.map(|(key, value)| Step::Sysctl { key, value }));
    steps.push(Step::Reload);
    // With its own files back, a unit that was there before becomes what it was.
    for unit in theirs.iter().rev() {
        if unit.name == ENGINE && unit.active && facts.started.contains_key(&unit.name) {
            steps.extend(engine_as_it_was(unit));
            continue;
        }
        steps.extend(stop(unit));
        let unit_again = |step: fn(String) -> Step| step(unit.name.clone());
        if unit.enabled {
            steps.push(unit_again(|unit| Step::Enable { unit }));
        }
        // A mark says that it was started with files of ours: it has to run with its own again.
        match (unit.active, facts.started.contains_key(&unit.name)) {
            (true, true) => steps.push(unit_again(|unit| Step::Restart { unit })),
            (true, false) => steps.push(unit_again(|unit| Step::Start { unit })),
            (false, _) => {}
        }
    }
    let modules = record.modules.iter().cloned();
    steps.extend(modules.map(|module| Step::UnloadModule { module }));
    steps.extend([Step::ResetFailed, Step::RemoveRecord]);
    steps
}

/// The owner's engine was on a range of ours. One that is started again keeps the address that its
/// bridge has, so that this has to go in between.
fn engine_as_it_was(unit: &OwnedUnit) -> Vec<Step> {
    let name = || unit.name.clone();
    let mut steps = vec![
        Step::Stop { unit: name() },
        Step::RemoveEngineNetwork,
        Step::Start { unit: name() },
        Step::Forget { unit: name() },
    ];
    if unit.enabled {
        steps.push(Step::Enable { unit: name() });
    }
    steps
}

/// Takes back all that was done to the host's firewalls.
fn firewall_changes(record: &Record) -> Vec<FirewallChange> {
    let close = |(kind, rules): (&FirewallKind, &BTreeSet<String>)| FirewallChange::Rules {
        kind: *kind,
        open: BTreeSet::new(),
        close: rules.clone(),
    };
    let on = record.firewall_off.map(|kind| FirewallChange::Switch { kind, on: true });
    record.rules.iter().map(close).chain(on).collect()
}

fn reset_changes(record: &Record) -> Vec<Change> {
    let unit = |unit: &OwnedUnit| Change::Unit {
        unit: unit.name.clone(),
        action: if unit.active { UnitAction::Restart } else { UnitAction::Stop },
        because: BTreeSet::new(),
    };
    let path = |(path, prior): (&String, &Prior)| Change::Remove {
        path: path.clone(),
        restores: *prior != Prior::Absent,
    };
    (record.units.iter().rev().map(unit))
        .chain(record.paths.iter().rev().map(path))
        .chain(record.data.iter().map(path))
        .chain(firewall_changes(record).into_iter().map(|what| Change::Firewall { what }))
        .collect()
}

/// The state to ask facts about before a reset: only the record matters.
#[must_use]
pub fn reset_state(cluster: &str, host: &str) -> HostState {
    HostState::new(cluster, host)
}

/// What a reset would do, host by host.
#[must_use]
pub fn reset_summary(plan: &Plan) -> String {
    let mut out = String::new();
    for host in &plan.hosts {
        out.push_str(&format!("{}:\n", host.host));
        let steps = host.batches.values().flat_map(|batch| &batch.steps);
        for step in steps.filter(|step| !matches!(step, Step::Forget { .. })) {
            out.push_str(&format!("  - {}\n", step.describe()));
        }
        if host.is_empty() {
            out.push_str("  nothing of ours\n");
        }
    }
    out
}
