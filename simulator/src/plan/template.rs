//! What pods are like: [`PodTemplate`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// Each node is a domain of its own.
pub const BY_NODE: &str = "kubernetes.io/hostname";

/// What pods are like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodTemplate {
    /// Distinguishes templates; becomes the image, so a change is a rollout.
    pub image: String,
    /// Labels; workloads add `app`.
    pub labels: BTreeMap<String, String>,
    /// Requested thousandths of a CPU.
    pub cpu_milli: u64,
    /// Requested bytes of memory.
    pub memory_bytes: u64,
    /// Requests of other resources, by name.
    pub extended: BTreeMap<String, u64>,
    /// Who goes first: pods have the class `priority-N`, for negative ones `priority-minus-N`, that
    /// is created with the first of them; zero is no class if it may displace others. At most
    /// 1,000,000,000.
    pub priority: i32,
    /// Whether it may displace others; its class is `priority-N-never` if not.
    pub preempts: bool,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations: key (empty for all), value, effect (empty for all), seconds.
    pub tolerations: Vec<(String, String, String, Option<i64>)>,
    /// A port of the host, none when zero.
    pub host_port: u16,
    /// How long the container runs before it exits by itself; for ever when absent.
    pub runs: Option<Span>,
    /// How it exits then.
    pub exit_code: i32,
    /// How long after its start it is ready (a readiness probe is added when not zero).
    pub ready_after: Span,
    /// How long it must be ready to count as available: `minReadySeconds` of the workloads, in
    /// whole seconds, less than ten minutes.
    pub min_ready: Span,
    /// `Always`, `OnFailure` or `Never`.
    pub restart_policy: String,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// `spec.schedulerName`, the default one when empty.
    pub scheduler: String,
    /// Whether it is held back by a scheduling gate.
    pub gated: bool,
    /// Bytes of a volume that is made for each pod on its node, none when zero. In a stateful set
    /// pods of one name keep it; else it goes with its pod.
    pub storage: u64,
    /// Pods that must, or should, be in the same domain.
    pub near: Vec<Neighbours>,
    /// Pods that must not, or should not, be in the same domain.
    pub apart: Vec<Neighbours>,
    /// Over which domains pods are spread evenly.
    pub spread: Vec<Spread>,
}

impl PodTemplate {
    /// Whether it matters to these pods where others are, so that they may not go everywhere.
    pub fn minds_others(&self) -> bool {
        let required = |n: &Neighbours| n.weight == 0;
        self.near.iter().chain(&self.apart).any(required) || self.spread.iter().any(|s| !s.soft)
    }
}

/// Pods whose place matters to others: a term of `podAffinity` or `podAntiAffinity`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Neighbours {
    /// The labels of these pods; the pods' own labels when empty.
    pub labels: BTreeMap<String, String>,
    /// The label of nodes whose values are the domains.
    pub topology: String,
    /// How much it is wished for, 1 to 100; zero for what must be.
    pub weight: u8,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), topology: BY_NODE.to_owned(), weight: 0 }
    }
}

/// How evenly pods are spread: one of `topologySpreadConstraints`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// The labels of the pods that are counted; the pods' own labels when empty.
    pub labels: BTreeMap<String, String>,
    /// The label of nodes whose values are the domains.
    pub topology: String,
    /// By how many pods domains may differ.
    pub max_skew: u32,
    /// Whether it is a wish: `ScheduleAnyway`.
    pub soft: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), topology: BY_NODE.to_owned(), max_skew: 1, soft: false }
    }
}

impl Default for PodTemplate {
    fn default() -> Self {
        Self {
            image: "app:1".to_owned(),
            labels: BTreeMap::new(),
            cpu_milli: 100,
            memory_bytes: 64 << 20,
            extended: BTreeMap::new(),
            priority: 0,
            preempts: true,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            host_port: 0,
            runs: None,
            exit_code: 0,
            ready_after: Span::ZERO,
            min_ready: Span::ZERO,
            restart_policy: "Always".to_owned(),
            grace_seconds: 30,
            scheduler: String::new(),
            gated: false,
            storage: 0,
            near: Vec::new(),
            apart: Vec::new(),
            spread: Vec::new(),
        }
    }
}
