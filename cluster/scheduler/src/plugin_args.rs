//! [`PluginArgs`]: what plugins can be told in a configuration, with Kubernetes' names, defaults
//! and limits.
//!
//! Source: kubernetes 1.33, `k8s.io/kube-scheduler/config/v1/types_pluginargs.go`.

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::{Deserialize, Serialize};

mod validate;

use crate::configuration::Problems;

/// What the plugins of a profile are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginArgs {
    /// Of `DefaultPreemption`.
    pub default_preemption: DefaultPreemptionArgs,
    /// Of `InterPodAffinity`.
    pub inter_pod_affinity: InterPodAffinityArgs,
    /// Of `NodeAffinity`.
    pub node_affinity: NodeAffinityArgs,
    /// Of `NodeResourcesBalancedAllocation`.
    pub balanced_allocation: NodeResourcesBalancedAllocationArgs,
    /// Of `NodeResourcesFit`.
    pub fit: NodeResourcesFitArgs,
    /// Of `PodTopologySpread`.
    pub topology_spread: PodTopologySpreadArgs,
    /// Of `Coscheduling`.
    pub coscheduling: CoschedulingArgs,
    /// Of `VolumeBinding`.
    pub volume_binding: VolumeBindingArgs,
}

impl PluginArgs {
    /// Names each plugin that can be told something.
    pub(crate) const PLUGINS: [&'static str; 8] = [
        "Coscheduling",
        "DefaultPreemption",
        "InterPodAffinity",
        "NodeAffinity",
        "NodeResourcesBalancedAllocation",
        "NodeResourcesFit",
        "PodTopologySpread",
        "VolumeBinding",
    ];

    /// Tells what is wrong, each with its place; `path` gives that of a plugin's arguments.
    pub(crate) fn validate(&self, path: impl Fn(&str) -> String, problems: &mut Problems) {
        self.coscheduling.validate(&path("Coscheduling"), problems);
        self.default_preemption.validate(&path("DefaultPreemption"), problems);
        self.inter_pod_affinity.validate(&path("InterPodAffinity"), problems);
        self.node_affinity.validate(&path("NodeAffinity"), problems);
        self.balanced_allocation.validate(&path("NodeResourcesBalancedAllocation"), problems);
        self.fit.validate(&path("NodeResourcesFit"), problems);
        self.topology_spread.validate(&path("PodTopologySpread"), problems);
        self.volume_binding.validate(&path("VolumeBinding"), problems);
    }
}

/// How many nodes are looked at for pods that can be displaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultPreemptionArgs {
    /// As a share of all nodes, in percent.
    pub min_candidate_nodes_percentage: i32,
    /// At least so many, if there are.
    pub min_candidate_nodes_absolute: i32,
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

/// How affinity between pods counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InterPodAffinityArgs {
    /// What a required term of a pod that has a node weighs for a pod that it matches.
    pub hard_pod_affinity_weight: i32,
    /// Whether the preferred terms of pods that have a node do not count for others.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Affinity to nodes that all pods of a profile have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAffinityArgs {
    /// In addition to the affinity of each pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_affinity: Option<NodeAffinity>,
}

/// A resource, and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpec {
    /// Its name, as in requests.
    pub name: String,
    /// Its weight; zero stands for one.
    #[serde(default)]
    pub weight: i64,
}

impl ResourceSpec {
    /// The weight, at least one.
    pub const fn weight(&self) -> i64 {
        if self.weight == 0 { 1 } else { self.weight }
    }
}

/// CPU and memory, each as much as the other.
pub(crate) fn cpu_and_memory() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).into()
}

/// What shall be used to the same degree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeResourcesBalancedAllocationArgs {
    /// CPU and memory if empty.
    pub resources: Vec<ResourceSpec>,
}

/// Which resources count, and which nodes with room are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeResourcesFitArgs {
    /// Extended resources of which a node needs to have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_resources: Vec<String>,
    /// What such resources' names begin with, up to the slash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_resource_groups: Vec<String>,
    /// Which nodes with room are preferred; those with most of it left if absent.
    pub scoring_strategy: ScoringStrategy,
}

/// Prefers nodes with most of their resources left.
pub const LEAST_ALLOCATED: &str = "LeastAllocated";
/// Prefers nodes with least of their resources left.
pub const MOST_ALLOCATED: &str = "MostAllocated";
/// Prefers nodes by a function of how much of a resource is asked for.
pub const REQUESTED_TO_CAPACITY_RATIO: &str = "RequestedToCapacityRatio";

/// Which nodes with room are preferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoringStrategy {
    /// `LeastAllocated`, `MostAllocated` or `RequestedToCapacityRatio`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// CPU and memory if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceSpec>,
    /// The function of `RequestedToCapacityRatio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_to_capacity_ratio: Option<RequestedToCapacityRatio>,
}

impl ScoringStrategy {
    /// A strategy by its name, for CPU and memory.
    pub fn named(kind: &str) -> Self {
        Self { kind: kind.to_owned(), resources: Vec::new(), requested_to_capacity_ratio: None }
    }
}

impl Default for ScoringStrategy {
    fn default() -> Self {
        Self::named(LEAST_ALLOCATED)
    }
}

/// A score for each share of a resource that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestedToCapacityRatio {
    /// Points, in order; straight lines lie between them.
    pub shape: Vec<ShapePoint>,
}

/// One point of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShapePoint {
    /// How much is asked for, in percent.
    pub utilization: i32,
    /// The score, 0..=10.
    pub score: i32,
}

/// The constraints of the cluster take the place of those that a pod does not have.
pub const SYSTEM_DEFAULTING: &str = "System";
/// Listed constraints do.
pub const LIST_DEFAULTING: &str = "List";

/// How pods are spread that do not say it themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodTopologySpreadArgs {
    /// Constraints without selectors: these follow from the owners of a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_constraints: Vec<TopologySpreadConstraint>,
    /// `System` or `List`.
    pub defaulting_type: String,
}

impl Default for PodTopologySpreadArgs {
    fn default() -> Self {
        Self { default_constraints: Vec::new(), defaulting_type: SYSTEM_DEFAULTING.to_owned() }
    }
}

/// How the pods of a group wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CoschedulingArgs {
    /// How long those that have a place may wait for the claims of the others.
    pub permit_waiting_time_seconds: i64,
}

impl Default for CoschedulingArgs {
    fn default() -> Self {
        Self { permit_waiting_time_seconds: 60 }
    }
}

/// How volumes are bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeBindingArgs {
    /// How long a pod waits for its volumes; zero is no time at all.
    pub bind_timeout_seconds: i64,
    /// Refused: the feature is off in 1.33.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600, shape: None }
    }
}
