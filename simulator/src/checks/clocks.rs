//! How wrong the clocks of processes have been.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::{Cluster, Occurrence};
use crate::plan::{Component, Fault};
use crate::world::ProcessId;

/// By how much the clock of each process has been ahead at most. A clock that was ahead stands
/// still until it is right, so it is ahead for some time after the fault.
#[derive(Clone, Default)]
pub(super) struct Clocks(BTreeMap<Component, Duration>);

impl Clocks {
    /// Takes in what happened.
    pub(super) fn observe(&mut self, occurrence: &Occurrence<'_>) {
        if let Occurrence::FaultBegan(Fault::ClockSkew { component, ahead }) = occurrence {
            // Skews of one process add up.
            *self.0.entry(component.clone()).or_default() += ahead.duration();
        }
    }

    /// By how much the clock of a process may be ahead.
    pub(super) fn ahead(&self, cluster: &dyn Cluster, process: ProcessId) -> Duration {
        self.0.get(&cluster.component(process)).copied().unwrap_or_default()
    }

    /// By how much any clock may be ahead.
    pub(super) fn most(&self) -> Duration {
        self.0.values().max().copied().unwrap_or_default()
    }
}
