//! Packages, swap, blocks, labels and a firewall in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::FakeState;
use crate::digest::Digest;
use crate::facts::{DockerFact, ENGINE, Facts, FactsQuery, PathFact, SWITCH_PROGRAM};
use crate::firewall::{FirewallChange, FirewallFact};
use crate::state::{Mode, Owner};
use crate::step::Step;

/// What is true of a fake machine besides its files and units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakePreparation {
    /// Installed packages.
    pub packages: BTreeSet<String>,
    /// Those that came with an installation of ours: the ones asked for and what they need.
    pub came: BTreeSet<String>,
    /// Swap that is on.
    pub swaps: BTreeSet<String>,
    /// Swap that the next boot switches on.
    pub boot_swaps: BTreeSet<String>,
    /// Blocks of ours, by the path of their file.
    pub blocks: BTreeMap<String, String>,
    /// Whether SELinux is enforcing.
    pub selinux: bool,
    /// Paths with a label that the policy does not say.
    pub mislabelled: BTreeSet<String>,
    /// The firewall.
    pub firewall: Option<FirewallFact>,
    /// Whether it is on.
    pub firewall_on: bool,
    /// What the armed timer would do.
    pub guard: Option<Vec<FirewallChange>>,
    /// Whether the firewall keeps new connections out once it has been changed.
    pub shuts_out: bool,
}

impl FakeState {
    /// The timer of an unconfirmed change comes to its end.
    pub fn fire_guard(&mut self) {
        for change in self.preparation.guard.take().unwrap_or_default() {
            self.change_firewall(&change);
        }
    }

    pub(super) fn preparation_facts(&self, query: &FactsQuery, facts: &mut Facts) {
        let here = &self.preparation;
        facts.packages = here.packages.intersection(&query.packages).cloned().collect();
        if query.swap {
            facts.swaps = here.swaps.clone();
            facts.swaps.extend(here.boot_swaps.iter().map(|swap| format!("fstab:{swap}")));
        }
        let asked = here.blocks.iter().filter(|(path, _)| query.blocks.contains(*path));
        facts.blocks =
            asked.map(|(path, text)| (path.clone(), Digest::of(text.as_bytes()))).collect();
        facts.selinux_enforcing = here.selinux;
        if here.selinux {
            facts.mislabelled = here.mislabelled.intersection(&query.paths).cloned().collect();
        }
        facts.firewall = here.firewall.clone().filter(|_| here.firewall_on);
        facts.firewall_guarded = here.guard.is_some();
    }

    /// A new object has the label of the directory where it was made.
    pub(super) fn made(&mut self, path: &str) {
        if self.preparation.selinux {
            self.preparation.mislabelled.insert(path.to_owned());
        }
    }

    pub(super) fn preparation_step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::InstallPackages { packages, .. } => self.install(packages),
            Step::RemovePackages { .. } => self.remove_packages(),
            Step::SwapOff { swaps } => {
                let here = &mut self.preparation;
                here.swaps.retain(|swap| !swaps.contains(swap));
                here.boot_swaps.retain(|swap| !swaps.contains(&format!("fstab:{swap}")));
            }
            Step::SwapOn { swaps } => {
                for swap in swaps {
                    match swap.strip_prefix("fstab:") {
                        Some(swap) => _ = self.preparation.boot_swaps.insert(swap.to_owned()),
                        None => _ = self.preparation.swaps.insert(swap.clone()),
                    }
                }
            }
            Step::WriteBlock { path, text } => {
                self.parent_of(path)?;
                let (mode, owner) = (Mode::PUBLIC, Owner::root());
                let new = PathFact::File { mode, owner, sha256: None, len: 0 };
                self.paths.entry(path.clone()).or_insert(new);
                self.preparation.blocks.insert(path.clone(), text.clone());
                self.made(path);
            }
            Step::RemoveBlock { path, existed } => {
                self.preparation.blocks.remove(path);
                if !existed {
                    self.paths.remove(path);
                }
            }
            Step::Relabel { path } => {
                if !self.paths.contains_key(path) {
                    return Err(format!("there is no {path} to label"));
                }
                self.preparation.mislabelled.remove(path);
            }
            Step::GuardFirewall { undo } => {
                let older = self.preparation.guard.take().unwrap_or_default();
                self.preparation.guard = Some(undo.iter().cloned().chain(older).collect());
            }
            Step::ChangeFirewall { change } => {
                if self.preparation.guard.is_none() {
                    return Err("a change of the firewall without a guard".to_owned());
                }
                self.change_firewall(change);
            }
            Step::ConfirmFirewall if self.preparation.shuts_out => {
                return Err("no new connection is possible".to_owned());
            }
            Step::ConfirmFirewall => {
                self.preparation.guard.take().ok_or("the change was taken back")?;
            }
            other => return self.unit_step(other),
        }
        Ok(())
    }

    fn install(&mut self, packages: &BTreeSet<String>) {
        let before = self.preparation.packages.clone();
        for package in packages {
            self.preparation.packages.insert(package.clone());
            if package.starts_with("openvswitch") {
                let program = PathFact::File {
                    mode: Mode(0o755),
                    owner: Owner::root(),
                    sha256: None,
                    len: 1,
                };
                self.paths.insert(SWITCH_PROGRAM.to_owned(), program);
            }
            if package.starts_with("docker") {
                self.preparation.packages.insert("containerd".to_owned());
                self.base.docker = DockerFact::Stopped;
                self.units.entry(ENGINE.to_owned()).or_default().installed = true;
            }
        }
        let came: Vec<_> = self.preparation.packages.difference(&before).cloned().collect();
        self.preparation.came.extend(came);
    }

    fn remove_packages(&mut self) {
        let came = std::mem::take(&mut self.preparation.came);
        self.preparation.packages.retain(|package| !came.contains(package));
        if came.iter().any(|package| package.starts_with("docker")) {
            self.base.docker = DockerFact::Absent;
            self.units.remove(ENGINE);
        }
        if came.iter().any(|package| package.starts_with("openvswitch")) {
            self.paths.remove(SWITCH_PROGRAM);
        }
    }

    /// An engine that runs for the first time makes its directories.
    pub(super) fn started(&mut self, unit: &str) {
        if unit != ENGINE {
            return;
        }
        let version = "20.10.24".to_owned();
        self.base.docker = DockerFact::Running { version };
        for path in crate::facts::ENGINE_DATA {
            let (mode, owner) = (Mode(0o711), Owner::root());
            let new = PathFact::Directory { mode, owner, empty: false };
            self.paths.entry(path.to_owned()).or_insert(new);
        }
    }

    fn change_firewall(&mut self, change: &FirewallChange) {
        let Some(firewall) = &mut self.preparation.firewall else { return };
        match change {
            FirewallChange::Rules { kind, open, close } => {
                for key in open.iter().map(|rule| kind.key(rule)) {
                    firewall.permanent.insert(key.clone());
                    firewall.runtime.insert(key);
                }
                for key in close.iter().map(|rule| kind.key(rule)) {
                    firewall.permanent.remove(&key);
                    firewall.runtime.remove(&key);
                }
            }
            FirewallChange::Switch { on, .. } => self.preparation.firewall_on = *on,
        }
    }
}
