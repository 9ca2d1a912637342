//! Packages, swap, blocks within files, labels and firewalls of one host.

use std::collections::{BTreeMap, BTreeSet};

use super::host::HostPlanner;
use super::{Change, Upload};
use crate::bundle::PackageFile;
use crate::digest::Digest;
use crate::distribution::{Architecture, DOCKER_CE, Distribution, PackageManager};
use crate::facts::{DockerFact, ENGINE_DATA, Facts, SWITCH_DATA, SWITCH_PROGRAM};
use crate::firewall::{self, FirewallChange, FirewallFact, Opening};
use crate::inventory::FirewallPolicy;
use crate::state::{BlockState, HostState, Stage};
use crate::step::Step;

/// The packages that a host still needs, and who installs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    /// The program; `None` where the host has none that serves its distribution.
    pub(crate) manager: Option<PackageManager>,
    /// Names of packages.
    pub(crate) packages: BTreeSet<String>,
}

/// What must be installed; `None` where nothing is missing or the distribution is unknown, which
/// preflight says.
pub(crate) fn installation(state: &HostState, facts: &Facts) -> Option<Installation> {
    let distribution = Distribution::of(&facts.os).ok()?;
    let mut packages: BTreeSet<_> = state.packages.difference(&facts.packages).cloned().collect();
    packages.extend(engine_packages(state, facts, distribution));
    if lacks_switch(state, facts) {
        packages.extend(distribution.switch_packages().iter().map(|name| (*name).to_owned()));
    }
    if facts.packages_unfinished
        && let Some(record) = &facts.record
    {
        packages.extend(record.packages.iter().cloned());
    }
    let manager = distribution.manager(&facts.managers);
    (!packages.is_empty()).then_some(Installation { manager, packages })
}

/// Whether the host needs Open vSwitch and has none, by whatever way it would have come.
pub(crate) fn lacks_switch(state: &HostState, facts: &Facts) -> bool {
    state.open_vswitch && !facts.paths.contains_key(SWITCH_PROGRAM)
}

/// The package files that `manager` can install on the host.
fn package_files<'a>(
    state: &'a HostState,
    facts: &Facts,
    manager: PackageManager,
) -> impl Iterator<Item = &'a PackageFile> {
    let architecture = Architecture::of_name(&facts.arch);
    let fits = move |file: &&PackageFile| {
        file.format.is_of(manager) && architecture.is_some_and(|own| file.fits(own))
    };
    state.package_files.iter().filter(fits)
}

/// The packages of an engine for a host that needs one and has none; also none where neither the
/// inventory nor the distribution has any.
pub(crate) fn engine_packages(
    state: &HostState,
    facts: &Facts,
    distribution: Distribution,
) -> BTreeSet<String> {
    let engine = &state.engine;
    if !state.docker || !engine.install || facts.docker != DockerFact::Absent {
        return BTreeSet::new();
    }
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let is_docker_ce = |file: &PackageFile| file.name == DOCKER_CE[0];
    let manager = distribution.manager(&facts.managers);
    let mut files = manager.into_iter().flat_map(|manager| package_files(state, facts, manager));
    match (&engine.packages, &engine.repository) {
        (packages, _) if !packages.is_empty() => packages.clone(),
        (_, Some(_)) => named(&DOCKER_CE),
        (_, None) if files.any(is_docker_ce) => named(&DOCKER_CE),
        (_, None) => named(distribution.engine_packages()),
    }
}

impl HostPlanner<'_> {
    pub(super) fn packages(&mut self) {
        self.claimed.open_vswitch = self.state.open_vswitch;
        let Some(Installation { manager: Some(manager), packages }) =
            installation(self.state, self.facts)
        else {
            return;
        };
        if self.state.docker && self.facts.docker == DockerFact::Absent {
            for path in ENGINE_DATA {
                let prior = self.facts.prior(path);
                self.claimed.data.entry(path.to_owned()).or_insert(prior);
            }
        }
        if lacks_switch(self.state, self.facts) {
            for path in SWITCH_DATA {
                let prior = self.facts.prior(path);
                self.claimed.data.entry(path.to_owned()).or_insert(prior);
            }
        }
        self.claimed.manager = Some(manager);
        self.claimed.packages.extend(packages.iter().cloned());
        self.changes.push(Change::Packages { manager, packages: packages.clone() });
        let mut files = BTreeMap::new();
        for file in package_files(self.state, self.facts, manager) {
            self.uploads.insert(file.blob.sha256, Upload::Blob(file.blob.clone()));
            files.insert(file.file.clone(), file.blob.sha256);
        }
        let step = Step::InstallPackages { manager, packages, files };
        self.stage(Stage::HostPrep).packages.push(step);
    }

    pub(super) fn swap(&mut self) {
        if !self.state.swap_off || self.facts.swaps.is_empty() {
            return;
        }
        let swaps = self.facts.swaps.clone();
        self.claimed.swaps.extend(swaps.iter().cloned());
        self.changes.push(Change::Swap { on: false, swaps: swaps.clone() });
        self.stage(Stage::HostPrep).paths.push(Step::SwapOff { swaps });
        self.stage(Stage::HostPrep).reload = true;
    }

    pub(super) fn blocks(&mut self) {
        for BlockState { path, text } in &self.state.blocks {
            let existed = self.facts.paths.contains_key(path);
            self.claimed.blocks.entry(path.clone()).or_insert(existed);
            let there = self.facts.blocks.get(path);
            if there == Some(&Digest::of(text.as_bytes())) {
                continue;
            }
            self.touched.insert(path.clone());
            self.changes.push(Change::Block { path: path.clone(), new: there.is_none() });
            let (path, text) = (path.clone(), text.clone());
            self.stage(Stage::HostPrep).paths.push(Step::WriteBlock { path: path.clone(), text });
            self.relabel(Stage::HostPrep, &path);
        }
    }

    /// Labels of what is in its place already: a run may have been killed before it set them.
    pub(super) fn labels(&mut self) {
        let ours = self.claimed.paths.keys().chain(self.claimed.blocks.keys());
        let wrong: BTreeSet<_> = (ours.filter(|path| self.facts.mislabelled.contains(*path)))
            .filter(|path| !self.touched.contains(*path))
            .cloned()
            .collect();
        for path in wrong {
            self.relabel(Stage::HostPrep, &path);
            self.changes.push(Change::Label { path });
        }
    }

    /// A new file may have the label of the directory where it was made.
    pub(super) fn relabel(&mut self, stage: Stage, path: &str) {
        if self.facts.selinux_enforcing {
            self.stage(stage).paths.push(Step::Relabel { path: path.to_owned() });
        }
    }

    pub(super) fn firewall(&mut self) {
        let mut changes = Vec::new();
        let wanted = match (self.state.firewall.policy, &self.facts.firewall) {
            (FirewallPolicy::Auto, Some(fact)) => self.open(fact, &mut changes),
            (FirewallPolicy::None, Some(fact)) => {
                self.warn_of_ports(fact);
                BTreeSet::new()
            }
            (FirewallPolicy::Disable, Some(fact)) => {
                let kind = fact.kind;
                self.warnings.push(format!(
                    "{kind} is switched off, because the inventory says `firewall = \"disable\"`: \
                     every port of the host can be reached"
                ));
                // An owned one is ours to have switched off; its rules go with it.
                self.claimed.firewall_off = Some(kind);
                changes.push(FirewallChange::Switch { kind, on: false });
                BTreeSet::new()
            }
            (_, None) => {
                self.warn_of_one_switched_off();
                return self.confirm_firewall(changes);
            }
        };
        self.close(&wanted, &mut changes);
        self.confirm_firewall(changes);
    }

    /// Opens what is missing and returns all rules that are wanted.
    fn open(&mut self, fact: &FirewallFact, changes: &mut Vec<FirewallChange>) -> BTreeSet<String> {
        let kind = fact.kind;
        let wanted = firewall::rules(&self.state.firewall.openings, fact);
        let open: BTreeSet<_> = wanted.iter().filter(|rule| !fact.has(rule)).cloned().collect();
        // A rule of the owner's that says the same stays the owner's.
        let ours: BTreeSet<_> = open.iter().filter(|rule| !fact.keeps(rule)).cloned().collect();
        if !ours.is_empty() {
            self.claimed.rules.entry(kind).or_default().extend(ours);
        }
        if !open.is_empty() {
            changes.push(FirewallChange::Rules { kind, open, close: BTreeSet::new() });
        }
        wanted
    }

    /// Takes back what is owned and no longer wanted.
    fn close(&mut self, wanted: &BTreeSet<String>, changes: &mut Vec<FirewallChange>) {
        for (kind, rules) in &self.claimed.rules {
            let close: BTreeSet<_> = rules.difference(wanted).cloned().collect();
            if !close.is_empty() {
                let (kind, open) = (*kind, BTreeSet::new());
                changes.push(FirewallChange::Rules { kind, open, close });
            }
        }
        self.closed = wanted.clone();
    }

    fn confirm_firewall(&mut self, changes: Vec<FirewallChange>) {
        let guarded = self.facts.firewall_guarded;
        for change in &changes {
            self.changes.push(Change::Firewall { what: change.clone() });
        }
        if guarded && changes.is_empty() {
            self.changes.push(Change::FirewallConfirmation);
        }
        let steps = guarded_steps(changes, guarded);
        if !steps.is_empty() {
            self.stage(Stage::HostPrep).firewall.extend(steps);
        }
    }

    /// A firewall that the inventory leaves alone; what it must let through is said.
    fn warn_of_ports(&mut self, fact: &FirewallFact) {
        let ports: BTreeSet<_> = (self.state.ports.iter())
            .map(|port| format!("{}/{}", port.port, port.protocol))
            .collect();
        let mut ports = ports;
        let is_gre = |opening: &Opening| matches!(opening, Opening::Gre { .. });
        if self.state.firewall.openings.iter().any(is_gre) {
            ports.insert("GRE".to_owned());
        }
        if ports.is_empty() {
            return;
        }
        let ports = ports.into_iter().collect::<Vec<_>>().join(" ");
        let warning = format!("{} is on: let the other hosts reach {ports} here", fact.kind);
        self.warnings.push(warning);
    }

    /// Nothing switches a firewall on behind the operator's back, who may have lost the rules that
    /// let him in.
    fn warn_of_one_switched_off(&mut self) {
        if let Some(kind) = self.claimed.firewall_off
            && self.state.firewall.policy != FirewallPolicy::Disable
        {
            self.warnings.push(format!(
                "{kind} stays off, as an inventory before this one said; switch it on and apply \
                 again, or reset the host"
            ));
        }
    }

    /// Clocks that nobody keeps right drift apart until certificates look not yet valid.
    pub(super) fn time(&mut self) {
        let kept = self.facts.time_service.is_some() || self.facts.container.is_some();
        if !kept && !self.state.units.is_empty() {
            self.warnings.push(
                "nothing keeps its clock right: run chronyd, ntpd or systemd-timesyncd".to_owned(),
            );
        }
    }

    pub(super) fn unwanted_preparation(&mut self) {
        let wanted: BTreeSet<_> = self.state.blocks.iter().map(|block| &block.path).collect();
        let gone: Vec<_> = (self.finished.blocks.iter())
            .filter(|(path, _)| !wanted.contains(path))
            .map(|(path, existed)| (path.clone(), *existed))
            .collect();
        for (path, existed) in gone {
            self.finished.blocks.remove(&path);
            self.changes.push(Change::Remove { path: path.clone(), restores: existed });
            self.removals.push(Step::RemoveBlock { path, existed });
        }
        if !self.state.swap_off && !self.finished.swaps.is_empty() {
            let swaps = std::mem::take(&mut self.finished.swaps);
            self.changes.push(Change::Swap { on: true, swaps: swaps.clone() });
            self.removals.extend([Step::SwapOn { swaps }, Step::Reload]);
        }
        if self.facts.firewall.is_some() {
            for rules in self.finished.rules.values_mut() {
                rules.retain(|rule| self.closed.contains(rule));
            }
            self.finished.rules.retain(|_, rules| !rules.is_empty());
        }
    }
}

/// Changes between a guard and its confirmation; the confirmation alone where a run that was
/// killed left its guard behind.
pub(super) fn guarded_steps(changes: Vec<FirewallChange>, guarded: bool) -> Vec<Step> {
    if changes.is_empty() {
        return if guarded { vec![Step::ConfirmFirewall] } else { Vec::new() };
    }
    let undo = changes.iter().rev().map(FirewallChange::inverse).collect();
    let mut steps = vec![Step::GuardFirewall { undo }];
    steps.extend(changes.into_iter().map(|change| Step::ChangeFirewall { change }));
    steps.push(Step::ConfirmFirewall);
    steps
}
