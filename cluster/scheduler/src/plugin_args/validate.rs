//! What arguments may be, worded as Kubernetes words it.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/apis/config/validation/validation_pluginargs.go`.

use std::collections::BTreeSet;

use api::names;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::{
    CoschedulingArgs, DefaultPreemptionArgs, InterPodAffinityArgs, LEAST_ALLOCATED,
    LIST_DEFAULTING, MOST_ALLOCATED, NodeAffinityArgs, NodeResourcesBalancedAllocationArgs,
    NodeResourcesFitArgs, PodTopologySpreadArgs, REQUESTED_TO_CAPACITY_RATIO, ResourceSpec,
    SYSTEM_DEFAULTING, ShapePoint, VolumeBindingArgs,
};
use crate::configuration::Problems;

/// Longer than this nobody shall hold nodes that it does not use.
const PERMIT_SECONDS_MAX: i64 = 3600;

impl CoschedulingArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let seconds = self.permit_waiting_time_seconds;
        if !(1..=PERMIT_SECONDS_MAX).contains(&seconds) {
            let at = format!("{path}.permitWaitingTimeSeconds");
            let detail = format!("not in valid range [1, {PERMIT_SECONDS_MAX}]");
            problems.invalid(&at, seconds, &detail);
        }
    }
}

impl DefaultPreemptionArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let (percentage, absolute) =
            (self.min_candidate_nodes_percentage, self.min_candidate_nodes_absolute);
        let at = format!("{path}.minCandidateNodesPercentage");
        if !(0..=100).contains(&percentage) {
            problems.invalid(&at, percentage, "not in valid range [0, 100]");
        }
        let other = format!("{path}.minCandidateNodesAbsolute");
        if absolute < 0 {
            problems.invalid(&other, absolute, "not in valid range [0, inf)");
        }
        if percentage == 0 && absolute == 0 {
            let with = |field: &str| format!("cannot be zero at the same time as {field}");
            problems.invalid(&at, percentage, &with("minCandidateNodesAbsolute"));
            problems.invalid(&other, absolute, &with("minCandidateNodesPercentage"));
        }
    }
}

impl InterPodAffinityArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let weight = self.hard_pod_affinity_weight;
        if !(0..=100).contains(&weight) {
            let at = format!("{path}.hardPodAffinityWeight");
            problems.invalid(&at, weight, "not in valid range [0, 100]");
        }
    }
}

impl NodeAffinityArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let Some(added) = &self.added_affinity else { return };
        let path = format!("{path}.addedAffinity");
        if let Some(required) = &added.required_during_scheduling_ignored_during_execution {
            let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution");
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(term, &format!("{path}.nodeSelectorTerms[{i}]"), problems);
            }
        }
        let preferred = added.preferred_during_scheduling_ignored_during_execution.iter();
        for (i, term) in preferred.flatten().enumerate() {
            let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            node_term(&term.preference, &path, problems);
        }
    }
}

fn node_term(term: &NodeSelectorTerm, path: &str, problems: &mut Problems) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        label_requirement(requirement, &format!("{path}.matchExpressions[{i}]"), problems);
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        field_requirement(requirement, &format!("{path}.matchFields[{i}]"), problems);
    }
}

fn label_requirement(requirement: &NodeSelectorRequirement, path: &str, problems: &mut Problems) {
    const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = format!("{path}.values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                let detail = "for 'in', 'notin' operators, values set can't be empty";
                problems.invalid(&at, values, detail);
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "values set must be empty for exists and does not exist";
                problems.invalid(&at, values, detail);
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                problems.invalid(&at, values, detail);
            }
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                problems.invalid(&format!("{at}[{i}]"), value, detail);
            }
        }
        other => problems.not_supported(&format!("{path}.operator"), other, &OPERATORS),
    }
    let key = &requirement.key;
    problems.invalid_each(&format!("{path}.key"), key, names::qualified_name(key));
}

fn field_requirement(requirement: &NodeSelectorRequirement, path: &str, problems: &mut Problems) {
    if !matches!(requirement.operator.as_str(), "In" | "NotIn") {
        let at = format!("{path}.operator");
        problems.not_supported(&at, &requirement.operator, &["In", "NotIn"]);
    }
    let values = requirement.values.as_deref().unwrap_or_default();
    if values.len() != 1 {
        problems.invalid(&format!("{path}.values"), values, "must have one element");
    }
    if requirement.key != "metadata.name" {
        let detail = "not a valid field selector key";
        problems.invalid(&format!("{path}.key"), &requirement.key, detail);
    }
}

impl NodeResourcesBalancedAllocationArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for (i, resource) in self.resources.iter().enumerate() {
            let path = format!("{path}.resources[{i}]");
            if !seen.insert(resource.name.as_str()) {
                problems.duplicate(&format!("{path}.name"), &resource.name);
            }
            if resource.weight() != 1 {
                problems.invalid(&format!("{path}.weight"), resource.weight, "must be 1");
            }
        }
    }
}

impl NodeResourcesFitArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        for (i, name) in self.ignored_resources.iter().enumerate() {
            let at = format!("{path}.ignoredResources[{i}]");
            problems.invalid_each(&at, name, names::qualified_name(name));
        }
        for (i, group) in self.ignored_resource_groups.iter().enumerate() {
            let at = format!("{path}.ignoredResourceGroups[{i}]");
            if group.contains('/') {
                problems.invalid(&at, group, "resource group name can't contain '/'");
            }
            problems.invalid_each(&at, group, names::qualified_name(group));
        }
        let path = format!("{path}.scoringStrategy");
        let strategy = &self.scoring_strategy;
        const SUPPORTED: [&str; 3] = [LEAST_ALLOCATED, MOST_ALLOCATED, REQUESTED_TO_CAPACITY_RATIO];
        if !SUPPORTED.contains(&strategy.kind.as_str()) {
            problems.not_supported(&format!("{path}.type"), &strategy.kind, &SUPPORTED);
        }
        resources(&strategy.resources, &format!("{path}.resources"), problems);
        let at = format!("{path}.requestedToCapacityRatio");
        let by_ratio = strategy.kind == REQUESTED_TO_CAPACITY_RATIO;
        match &strategy.requested_to_capacity_ratio {
            Some(ratio) if by_ratio => shape(&ratio.shape, &format!("{at}.shape"), problems),
            None if by_ratio => {
                let detail = "must be specified when type is RequestedToCapacityRatio";
                problems.required(&at, detail);
            }
            Some(_) => {
                let detail = "must be nil when type is not RequestedToCapacityRatio";
                problems.forbidden(&at, detail);
            }
            None => {}
        }
    }
}

fn resources(list: &[ResourceSpec], path: &str, problems: &mut Problems) {
    for (i, resource) in list.iter().enumerate() {
        if !(1..=100).contains(&resource.weight()) {
            let detail =
                format!("resource weight of {} not in valid range (0, 100]", resource.name);
            problems.invalid(&format!("{path}[{i}].weight"), resource.weight, &detail);
        }
    }
}

fn shape(shape: &[ShapePoint], path: &str, problems: &mut Problems) {
    if shape.is_empty() {
        return problems.required(path, "at least one point must be specified");
    }
    if let Some(i) = shape.windows(2).position(|w| w[0].utilization >= w[1].utilization) {
        let (at, value) = (format!("{path}[{}].utilization", i + 1), shape[i + 1].utilization);
        problems.invalid(&at, value, "values must be sorted in increasing order");
    }
    for (i, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            let at = format!("{path}[{i}].utilization");
            problems.invalid(&at, point.utilization, "not in valid range [0, 100]");
        }
        if !(0..=10).contains(&point.score) {
            let at = format!("{path}[{i}].score");
            problems.invalid(&at, point.score, "not in valid range [0, 10]");
        }
    }
}

impl PodTopologySpreadArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        let at = format!("{path}.defaultingType");
        match self.defaulting_type.as_str() {
            LIST_DEFAULTING => {}
            SYSTEM_DEFAULTING if self.default_constraints.is_empty() => {}
            SYSTEM_DEFAULTING => {
                let detail = "when .defaultConstraints are not empty";
                problems.invalid(&at, &self.defaulting_type, detail);
            }
            other => problems.not_supported(&at, other, &[SYSTEM_DEFAULTING, LIST_DEFAULTING]),
        }
        let path = format!("{path}.defaultConstraints");
        for (i, constraint) in self.default_constraints.iter().enumerate() {
            let at = format!("{path}[{i}]");
            if constraint.max_skew <= 0 {
                let at = format!("{at}.maxSkew");
                problems.invalid(&at, constraint.max_skew, "not in valid range (0, inf)");
            }
            let key = &constraint.topology_key;
            if key.is_empty() {
                problems.required(&format!("{at}.topologyKey"), "can not be empty");
            } else {
                let complaints = names::qualified_name(key);
                problems.invalid_each(&format!("{at}.topologyKey"), key, complaints);
            }
            let when = &constraint.when_unsatisfiable;
            let field = format!("{at}.whenUnsatisfiable");
            match when.as_str() {
                "" => problems.required(&field, "can not be empty"),
                "DoNotSchedule" | "ScheduleAnyway" => {}
                other => {
                    problems.not_supported(&field, other, &["DoNotSchedule", "ScheduleAnyway"]);
                }
            }
            if constraint.label_selector.is_some() {
                let detail = "constraint must not define a selector, as they deduced for each pod";
                problems.forbidden(&format!("{at}.labelSelector"), detail);
            }
            let pair = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| {
                (c.topology_key.clone(), c.when_unsatisfiable.clone())
            };
            if self.default_constraints[..i].iter().any(|c| pair(c) == pair(constraint)) {
                problems.duplicate(&at, &format!("{{{key}, {when}}}"));
            }
        }
    }
}

impl VolumeBindingArgs {
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) {
        if self.bind_timeout_seconds < 0 {
            let detail = "invalid BindTimeoutSeconds, should not be a negative value";
            let at = format!("{path}.bindTimeoutSeconds");
            problems.invalid(&at, self.bind_timeout_seconds, detail);
        }
        if self.shape.is_some() {
            let detail = "unexpected field `shape`, remove it or turn on the feature gate \
                          StorageCapacityScoring";
            problems.forbidden(&format!("{path}.shape"), detail);
        }
    }
}
