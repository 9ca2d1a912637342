//! Where pods may and would rather run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use super::selector;
use crate::field::{Causes, Path};
use crate::names;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
const IN_BOTH: &str = "exists in both matchLabelKeys and labelSelector";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn affinity(affinity: &Affinity, path: &Path<'_>, causes: &mut Causes) {
    if let Some(node) = &affinity.node_affinity {
        let at = path.child("nodeAffinity");
        if let Some(wanted) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(wanted, &at.child(REQUIRED), causes);
        }
        let preferred = node.preferred_during_scheduling_ignored_during_execution.iter();
        for (i, term) in preferred.flatten().enumerate() {
            let at = at.child(PREFERRED);
            let at = at.index(i);
            weight(term.weight, &at, causes);
            node_term(&term.preference, &at.child("preference"), causes);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let at = path.child("podAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at, causes);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let at = path.child("podAntiAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at, causes);
    }
}

pub(super) fn node_selector(wanted: &NodeSelector, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("nodeSelectorTerms");
    if wanted.node_selector_terms.is_empty() {
        causes.required(&at, "must have at least one node selector term");
    }
    for (i, term) in wanted.node_selector_terms.iter().enumerate() {
        node_term(term, &at.index(i), causes);
    }
}

fn weight(weight: i32, path: &Path<'_>, causes: &mut Causes) {
    if !(1..=100).contains(&weight) {
        causes.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(term: &NodeSelectorTerm, path: &Path<'_>, causes: &mut Causes) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        node_requirement(requirement, &path.child("matchExpressions").index(i), causes);
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let at = path.child("matchFields");
        let at = at.index(i);
        let count = requirement.values.as_ref().map_or(0, Vec::len);
        match requirement.operator.as_str() {
            "In" | "NotIn" => {
                if count != 1 {
                    let detail = "must be only one value when `operator` is 'In' or 'NotIn' for \
                                  node field selector";
                    causes.required(&at.child("values"), detail);
                }
            }
            other => {
                causes.invalid(&at.child("operator"), other, "not a valid selector operator");
            }
        }
        if requirement.key != "metadata.name" {
            let detail = "not a valid field selector key";
            causes.invalid(&at.child("key"), &requirement.key, detail);
        }
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement, path: &Path<'_>, causes: &mut Causes) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                causes.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                causes.forbidden(
                    &at,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                causes.required(&at, detail);
            }
        }
        other => causes.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    let key = &requirement.key;
    causes.invalid_each(&path.child("key"), key, names::qualified_name(key));
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    for (i, term) in required.into_iter().flatten().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(i), causes);
    }
    for (i, term) in preferred.into_iter().flatten().enumerate() {
        let at = path.child(PREFERRED);
        let at = at.index(i);
        weight(term.weight, &at, causes);
        pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"), causes);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path<'_>, causes: &mut Causes) {
    for (wanted, field) in
        [(&term.label_selector, "labelSelector"), (&term.namespace_selector, "namespaceSelector")]
    {
        if let Some(wanted) = wanted {
            selector::label_selector(wanted, &path.child(field), causes);
        }
    }
    for name in term.namespaces.iter().flatten() {
        causes.invalid_each(&path.child("namespace"), name, names::label(name));
    }
    label_keys(term, path, causes);
    let key = &term.topology_key;
    if key.is_empty() {
        causes.required(&path.child("topologyKey"), "can not be empty");
    }
    causes.invalid_each(&path.child("topologyKey"), key, names::qualified_name(key));
}

/// Checks which labels of the pod a term asks for. When this happens to a pod, they are in the
/// selector already: a key that it names twice was there before.
fn label_keys(term: &PodAffinityTerm, path: &Path<'_>, causes: &mut Causes) {
    let matching = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatching = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (keys, field) in [(matching, "matchLabelKeys"), (mismatching, "mismatchLabelKeys")] {
        let at = path.child(field);
        if !keys.is_empty() && term.label_selector.is_none() {
            causes.forbidden(&at, NO_SELECTOR);
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            causes.invalid_each(&at.index(i), key, names::qualified_name(key));
        }
    }
    if let Some(wanted) = &term.label_selector {
        let mut named: BTreeSet<&String> =
            wanted.match_labels.iter().flatten().map(|l| l.0).collect();
        for expression in wanted.match_expressions.iter().flatten() {
            let key = &expression.key;
            if let Some(i) = matching.iter().rposition(|k| k == key)
                && named.contains(key)
            {
                causes.invalid(&path.index(i), key, IN_BOTH);
            }
            named.insert(key);
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        causes.invalid(&path.child("matchLabelKeys").index(i), key, detail);
    }
}

pub(super) fn spread(
    constraints: &[TopologySpreadConstraint],
    path: &Path<'_>,
    causes: &mut Causes,
) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    const POLICIES: [&str; 2] = ["Honor", "Ignore"];
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            let detail = "must be greater than zero";
            causes.invalid(&at.child("maxSkew"), constraint.max_skew, detail);
        }
        if constraint.topology_key.is_empty() {
            causes.required(&at.child("topologyKey"), "can not be empty");
        }
        let action = constraint.when_unsatisfiable.as_str();
        if !ACTIONS.contains(&action) {
            causes.not_supported(&at.child("whenUnsatisfiable"), action, &ACTIONS);
        }
        let pair = (&constraint.topology_key, &constraint.when_unsatisfiable);
        let twin = |c: &TopologySpreadConstraint| (&c.topology_key, &c.when_unsatisfiable) == pair;
        if constraints[i + 1..].iter().any(twin) {
            let shown = format!("{{{}, {}}}", pair.0, pair.1);
            causes.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), shown);
        }
        if let Some(domains) = constraint.min_domains {
            let at = at.child("minDomains");
            if domains <= 0 {
                causes.invalid(&at, domains, "must be greater than zero");
            }
            if action != ACTIONS[0] {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                causes.invalid(&at, domains, &detail);
            }
        }
        for (policy, field) in [
            (&constraint.node_affinity_policy, "nodeAffinityPolicy"),
            (&constraint.node_taints_policy, "nodeTaintsPolicy"),
        ] {
            if let Some(policy) = policy.as_deref().filter(|policy| !POLICIES.contains(policy)) {
                causes.not_supported(&at.child(field), policy, &POLICIES);
            }
        }
        spread_keys(constraint, &at.child("matchLabelKeys"), causes);
        if let Some(wanted) = &constraint.label_selector {
            selector::label_selector(wanted, &at.child("labelSelector"), causes);
        }
    }
}

/// Checks which labels of the pod a constraint asks for.
fn spread_keys(constraint: &TopologySpreadConstraint, path: &Path<'_>, causes: &mut Causes) {
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    if !keys.is_empty() && constraint.label_selector.is_none() {
        causes.forbidden(path, NO_SELECTOR);
    }
    let wanted = constraint.label_selector.as_ref();
    let is_named = |key: &String| {
        wanted.is_some_and(|wanted| {
            wanted.match_labels.as_ref().is_some_and(|labels| labels.contains_key(key))
                || wanted.match_expressions.iter().flatten().any(|e| e.key == *key)
        })
    };
    for (i, key) in keys.iter().enumerate() {
        causes.invalid_each(&path.index(i), key, names::qualified_name(key));
        if is_named(key) {
            causes.invalid(&path.index(i), key, IN_BOTH);
        }
    }
}

pub(super) fn tolerations(tolerations: &[Toleration], path: &Path<'_>, causes: &mut Causes) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if !key.is_empty() {
            causes.invalid_each(&at.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            causes.invalid(
                &at.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            );
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.invalid(&at.child("effect"), effect, detail);
        }
        let value = toleration.value.as_deref().unwrap_or_default();
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    causes.invalid(&at.child("operator"), value, &messages.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    causes.invalid(&at.child("operator"), toleration, detail);
                }
            }
            other => causes.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(effect, &at.child("effect"), causes);
        }
    }
}

/// Checks what a taint does.
pub(super) fn taint_effect(effect: &str, path: &Path<'_>, causes: &mut Causes) {
    if effect.is_empty() {
        causes.required(path, "");
    } else if !EFFECTS.contains(&effect) {
        causes.not_supported(path, effect, &EFFECTS);
    }
}
