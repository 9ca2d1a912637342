//! [`Outcome`]: what a run came to, ready to be written as JSON, compared and plotted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// The run's seed.
    pub seed: u64,
    /// Real time the run took, in seconds; zero where nobody measured.
    pub wall_seconds: f64,
    /// Virtual time that passed, in seconds.
    pub virtual_seconds: f64,
    /// Events of the engine.
    pub events: u64,
    /// Largest resident memory of the process, in bytes; zero where nobody measured.
    pub peak_memory_bytes: u64,
    /// Nodes that ever registered.
    pub nodes: u64,
    /// Pods that were created.
    pub pods_created: u64,
    /// Pods that were bound to a node.
    pub pods_bound: u64,
    /// Pods whose containers started.
    pub pods_started: u64,
    /// Pods that ended by themselves with success.
    pub pods_succeeded: u64,
    /// Pods that failed, other than by being stopped.
    pub pods_failed: u64,
    /// Pods that were deleted.
    pub pods_deleted: u64,
    /// Pods that the taint manager, the kubelet or the garbage collector took from their nodes.
    pub pods_evicted: u64,
    /// Where the pods are at the end: every one in exactly one place.
    pub pods_at_end: BTreeMap<String, u64>,
    /// Rows of traces that make no sense and were left out, by what is wrong with them.
    #[serde(default)]
    pub skipped_rows: BTreeMap<String, u64>,
    /// Operations of users that were given up, as too often or for good refused.
    #[serde(default)]
    pub operations_given_up: u64,
    /// The first of them: what, when and why.
    #[serde(default)]
    pub given_up: Vec<String>,
    /// Writes to the store.
    pub writes: u64,
    /// Events for people.
    pub records: u64,
    /// When the cluster came to rest after the faults were healed; `None` if it did not.
    pub settled_after: Option<Span>,
    /// Properties that did not hold.
    pub violations: Vec<crate::check::Violation>,
    /// The first of them, explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Box<crate::finding::Finding>>,
    /// Hash over all effects of all components in order, hexadecimal.
    pub effect_log_hash: String,
    /// From a pod's creation to its binding.
    pub scheduling: Percentiles,
    /// From a pod's creation until its containers run.
    pub start: Percentiles,
    /// The same waits as a curve.
    #[serde(default)]
    pub scheduling_curve: LatencyCurve,
    /// The same waits as a curve.
    #[serde(default)]
    pub start_curve: LatencyCurve,
    /// The cluster over time, at equal distances.
    pub samples: Vec<Sample>,
    /// Use of nodes over time.
    pub heat: HeatMap,
    /// Rollouts of deployments.
    pub rollouts: Vec<Rollout>,
}

/// Quantiles of lengths of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half are below.
    pub p50_ns: u64,
    /// Nine of ten are below.
    pub p90_ns: u64,
    /// 99 of 100 are below.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// A distribution of lengths of time: of a thousand so many, in rising order, take no longer than
/// so many nanoseconds. Empty when nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyCurve(pub Vec<(u16, u64)>);

/// The cluster at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// From the start of the run.
    pub at: Span,
    /// Nodes that are Ready.
    pub nodes_ready: u64,
    /// Nodes that are registered.
    pub nodes: u64,
    /// Nodes with at least one pod that has not ended: fewer for the same pods is denser packing.
    pub nodes_used: u64,
    /// What the nodes offer, thousandths of a CPU.
    pub cpu_allocatable_milli: u64,
    /// What bound pods that have not ended ask for.
    pub cpu_requested_milli: u64,
    /// What the nodes offer, bytes.
    pub memory_allocatable_bytes: u64,
    /// What bound pods that have not ended ask for.
    pub memory_requested_bytes: u64,
    /// GPUs that the nodes offer.
    #[serde(default)]
    pub gpus_allocatable: u64,
    /// GPUs that bound pods that have not ended ask for.
    #[serde(default)]
    pub gpus_requested: u64,
    /// Free CPU on nodes where the pending (or else the most frequent) pod does not fit,
    /// thousandths of a CPU: what fragmentation costs.
    pub cpu_stranded_milli: u64,
    /// Pods without a node.
    pub pending: u64,
    /// Pods that run.
    pub running: u64,
    /// Pods evicted so far.
    pub evicted: u64,
    /// Writes so far.
    pub writes: u64,
    /// Median and 99th percentile of creation-to-binding of the pods bound since the last
    /// sample, nanoseconds.
    pub scheduling_p50_ns: u64,
    /// See above.
    pub scheduling_p99_ns: u64,
}

/// Requested CPU of nodes over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatMap {
    /// The nodes that were followed: all, or evenly chosen among many.
    pub nodes: Vec<String>,
    /// The moments.
    pub times: Vec<Span>,
    /// Percent of allocatable CPU, `[times][nodes]`; 255 where the node was not there.
    pub cpu_percent: Vec<Vec<u8>>,
}

/// One rollout of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// `namespace/name` of the deployment.
    pub deployment: String,
    /// Its generation.
    pub generation: i64,
    /// When it began.
    pub began: Span,
    /// When all replicas were updated and available; `None` if that was not seen.
    pub completed: Option<Span>,
    /// The fewest available replicas during it.
    pub available_min: i32,
    /// Replicas that were wanted.
    pub replicas: i32,
}

impl Outcome {
    /// The mean over the samples of what can be said of each, for people and plots.
    pub fn mean(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values = self.samples.iter().filter_map(of);
        let (sum, count) = values.fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The greatest over the samples of what can be said of each, for people and plots.
    pub fn peak(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        self.samples.iter().filter_map(of).reduce(f64::max)
    }

    /// The moment at which most CPU was asked for, the first of equals; `None` when it never was.
    pub fn busiest(&self) -> Option<&Sample> {
        let busy = self.samples.iter().filter(|s| s.cpu_requested_milli > 0);
        busy.rev().max_by_key(|s| s.cpu_requested_milli)
    }

    /// How many rows of traces were left out because they make no sense.
    pub fn rows_skipped(&self) -> u64 {
        self.skipped_rows.values().sum()
    }

    /// Whether the run was as it should be.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

impl Sample {
    /// Percent of the nodes' CPU that is asked for; `None` without nodes.
    pub fn cpu_percent(&self) -> Option<f64> {
        percent(self.cpu_requested_milli, self.cpu_allocatable_milli)
    }

    /// Percent of the nodes' memory that is asked for; `None` without nodes.
    pub fn memory_percent(&self) -> Option<f64> {
        percent(self.memory_requested_bytes, self.memory_allocatable_bytes)
    }

    /// Percent of the nodes' GPUs that is asked for; `None` where there are none.
    pub fn gpu_percent(&self) -> Option<f64> {
        percent(self.gpus_requested, self.gpus_allocatable)
    }

    /// Percent of the nodes' CPU that is stranded; `None` without nodes.
    pub fn stranded_percent(&self) -> Option<f64> {
        percent(self.cpu_stranded_milli, self.cpu_allocatable_milli)
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}
