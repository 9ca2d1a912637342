//! What to do to which host in which order: a pure function of desired states and facts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::facts::Facts;
use crate::firewall::FirewallChange;
use crate::inventory::Rollout;
use crate::program::Program;
use crate::record::Record;
use crate::repository;
use crate::state::{Blob, Content, Gate, HostState, Stage};
use crate::step::Step;

mod file;
mod host;
mod inputs;
mod lapsed;
mod preparation;
mod removal;
mod show;
#[cfg(test)]
mod tests;
mod wave;

pub use file::{Basis, FORMAT, PlanSource, SavedPlan, SavedPlanError, is_saved_plan};
pub(crate) use host::HostPlanner;
pub(crate) use preparation::{engine_packages, installation, lacks_switch};
pub use removal::{nothing, reset, reset_state, reset_summary};
pub(crate) use show::size;
pub use show::{ContentDiff, DiffSource, change_line, rollout_summary, summary};
pub use wave::{Part, Wave, waves};

/// All that an apply will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry a host, in the order of the desired states; hosts without changes are here too.
    pub hosts: Vec<HostPlan>,
    /// The order in which batches run.
    pub waves: Vec<Wave>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.iter().all(HostPlan::is_empty)
    }

    /// The same plan, its nodes in the parts that `rollout` asks for.
    #[must_use]
    pub fn rolled(self, rollout: &Rollout) -> Self {
        Self { waves: waves(&self.hosts, rollout), hosts: self.hosts }
    }

    /// The plan of one host.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostPlan> {
        self.hosts.iter().find(|host| host.host == name)
    }
}

/// What will be done to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The host's name.
    pub host: String,
    /// The generation that the host will have afterwards.
    pub generation: u64,
    /// The differences, for people.
    pub changes: Vec<Change>,
    /// The steps of each stage that has any.
    pub batches: BTreeMap<Stage, Batch>,
    /// The bytes that the steps need on the host, by digest.
    #[serde(skip)]
    pub uploads: BTreeMap<Digest, Upload>,
    /// What compose asked for and the host cannot give, without harm.
    pub warnings: Vec<String>,
}

impl HostPlan {
    /// Whether there is nothing to do on this host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many bytes must travel.
    #[must_use]
    pub fn upload_bytes(&self) -> u64 {
        self.uploads.values().map(Upload::len).sum()
    }

    /// The units that the plan starts or restarts, in order.
    pub fn started_units(&self) -> impl Iterator<Item = &str> {
        self.batches.values().flat_map(|batch| &batch.steps).filter_map(|step| match step {
            Step::Restart { unit } => Some(unit.as_str()),
            _ => None,
        })
    }
}

/// The steps of one stage on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// In order.
    pub steps: Vec<Step>,
    /// What must be healthy afterwards, by unit, in start order.
    pub gates: Vec<(String, Gate)>,
    /// Whether a unit of this stage that runs now goes down for a moment.
    pub interrupts: bool,
}

/// Bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    /// From memory.
    Content(Content),
    /// From a file on the operator's machine.
    Blob(Blob),
}

impl Upload {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Content(content) => content.len(),
            Self::Blob(blob) => blob.len,
        }
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One difference between what is and what should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields say what the variant's sentence says")]
pub enum Change {
    /// A directory is made or gets other attributes.
    Directory { path: String, action: Action },
    /// A file is made, gets other bytes or other attributes.
    File { path: String, action: Action, secret: bool, len: u64 },
    /// A program is brought in another build; the one that runs now is kept beside it.
    Program { name: String, from: Option<Program>, to: Program },
    /// A link is made or points elsewhere.
    Link { path: String, target: String, action: Action },
    /// Something of ours is no longer wanted.
    Remove { path: String, restores: bool },
    /// A kernel setting changes.
    Sysctl { key: String, from: Option<String>, to: String },
    /// A module is loaded.
    Module { module: String },
    /// An image is loaded.
    Image { reference: String, len: u64 },
    /// A unit is started, restarted, stopped, enabled or disabled.
    Unit { unit: String, action: UnitAction, because: BTreeSet<String> },
    /// Packages are installed.
    Packages { manager: PackageManager, packages: BTreeSet<String> },
    /// Swap is switched off or on.
    Swap { on: bool, swaps: BTreeSet<String> },
    /// Our block of somebody else's file is written.
    Block { path: String, new: bool },
    /// A path gets the label that SELinux' policy says.
    Label { path: String },
    /// The host's firewall changes.
    Firewall { what: FirewallChange },
    /// A change of the firewall that is there is confirmed.
    FirewallConfirmation,
    /// Only the record of what kprov owns differs.
    Record,
}

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing is there now.
    Create,
    /// Something else is there now.
    Update,
    /// Only mode or owner differ.
    Attributes,
}

/// What happens to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitAction {
    /// It does not run now.
    Start,
    /// It runs with other inputs.
    Restart,
    /// It is no longer wanted.
    Stop,
    /// It will start at boot.
    Enable,
    /// It will no longer start at boot.
    Disable,
}

/// Compares what should be with what is.
///
/// `facts` must have an entry for every host of `desired`; preflight has seen to that.
///
/// # Panics
/// When a host has no facts.
#[must_use]
pub fn plan(desired: &[HostState], facts: &BTreeMap<String, Facts>) -> Plan {
    let hosts: Vec<_> = desired
        .iter()
        .map(|state| {
            let facts = facts.get(&state.host).expect("every host's facts were gathered");
            HostPlanner::new(&repository::settled(state, facts), facts).plan()
        })
        .collect();
    let waves = waves(&hosts, &Rollout::AT_ONCE);
    Plan { hosts, waves }
}

/// The record that a host will have when `desired` is true of it, as far as its facts tell.
pub(crate) fn owned(desired: &HostState, facts: &Facts) -> Record {
    let mut record =
        facts.record.clone().unwrap_or_else(|| Record::new(&desired.cluster, &desired.host));
    if !desired.authority.is_empty() {
        record.authority.clone_from(&desired.authority);
    }
    record.layout = desired.layout;
    record
}
