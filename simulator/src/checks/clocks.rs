//! How wrong the clocks of processes have been.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::{Cluster, Occurrence};
use crate::plan::{Component, Fault};
use crate::world::ProcessId;

/// By how much the clock of each process has been ahead, and behind, at most. A clock that was
/// ahead stands still until it is right, so it is ahead for some time after the fault.
#[derive(Clone, Default)]
pub(super) struct Clocks {
    ahead: BTreeMap<Component, Duration>,
    behind: BTreeMap<Component, Duration>,
}

impl Clocks {
    /// Takes in what happened.
    pub(super) fn observe(&mut self, occurrence: &Occurrence<'_>) {
        // Of several at a time the greatest counts.
        let (known, off) = match occurrence {
            Occurrence::FaultBegan(Fault::ClockSkew { component, ahead }) => {
                (self.ahead.entry(component.clone()).or_default(), ahead)
            }
            Occurrence::FaultBegan(Fault::ClockBehind { component, behind }) => {
                (self.behind.entry(component.clone()).or_default(), behind)
            }
            _ => return,
        };
        *known = off.duration().max(*known);
    }

    /// By how much the clock of a process may be ahead.
    pub(super) fn ahead(&self, cluster: &dyn Cluster, process: ProcessId) -> Duration {
        self.ahead.get(&cluster.component(process)).copied().unwrap_or_default()
    }

    /// By how much the clock of a process may be behind.
    pub(super) fn behind(&self, cluster: &dyn Cluster, process: ProcessId) -> Duration {
        self.behind.get(&cluster.component(process)).copied().unwrap_or_default()
    }

    /// By how much any clock may be wrong.
    pub(super) fn most(&self) -> Duration {
        self.ahead.values().chain(self.behind.values()).max().copied().unwrap_or_default()
    }
}
