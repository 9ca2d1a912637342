//! What pods ask of the places of other pods: required affinity and anti-affinity between pods, and
//! spreading that must be honoured.
//!
//! Source: kubernetes.io/docs/concepts/scheduling-eviction: "Inter-pod affinity and anti-affinity",
//! "Pod Topology Spread Constraints".

use std::collections::BTreeMap;

use api::Pod;
use k8s_openapi::api::core::v1::{Node, PodAffinityTerm, PodSpec, TopologySpreadConstraint};

use super::{is_going, labels_allow, selects};

/// A pod that has a node.
#[derive(Clone, Copy)]
pub struct Placed<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its node.
    pub node: &'a Node,
}

fn near(spec: &PodSpec) -> &[PodAffinityTerm] {
    let affinity = spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
    affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

fn apart(spec: &PodSpec) -> &[PodAffinityTerm] {
    let affinity = spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

fn spread(spec: &PodSpec) -> impl Iterator<Item = &TopologySpreadConstraint> {
    let all = spec.topology_spread_constraints.iter().flatten();
    all.filter(|c| c.when_unsatisfiable == "DoNotSchedule")
}

/// Whether the pod must have other pods near it, or must not, or must be spread.
pub fn has_demands(spec: &PodSpec) -> bool {
    !near(spec).is_empty() || !apart(spec).is_empty() || spread(spec).next().is_some()
}

/// Whether it does not matter to the pod where others are, nor to any of those where it is.
pub fn is_indifferent<'a>(pod: &Pod, mut others: impl Iterator<Item = &'a Pod>) -> bool {
    let means_it = |other: &Pod| {
        let terms = other.spec.as_deref().map(apart).unwrap_or_default();
        terms.iter().any(|term| means(other, term, pod))
    };
    !pod.spec.as_deref().is_some_and(has_demands) && !others.any(means_it)
}

/// The domain of a node: the value of a label.
fn domain<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a term of `of` means the other pod. Without namespaces it means those of its own.
fn means(of: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let namespace = &other.metadata.namespace;
    let within = match named {
        [] => *namespace == of.metadata.namespace,
        names => namespace.as_ref().is_some_and(|n| names.contains(n)),
    };
    let labels = other.metadata.labels.as_ref();
    within && term.label_selector.as_ref().is_some_and(|selector| selects(selector, labels))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Whether no pod that is placed must be apart from this one on that node, and none from it.
///
/// # Errors
/// The words for the first that must.
pub fn apart_allows(pod: &Pod, node: &Node, placed: &[Placed<'_>]) -> Result<(), String> {
    let own = pod.spec.as_deref().map(apart).unwrap_or_default();
    for other in placed {
        let together = |term: &&PodAffinityTerm| {
            let here = domain(node, &term.topology_key);
            here.is_some() && here == domain(other.node, &term.topology_key)
        };
        let mut of_own = own.iter().filter(together);
        let others = other.pod.spec.as_deref().map(apart).unwrap_or_default();
        let mut of_other = others.iter().filter(together);
        if of_own.any(|term| means(pod, term, other.pod))
            || of_other.any(|term| means(other.pod, term, pod))
        {
            return Err(format!("it must be apart from {}", name(other.pod)));
        }
    }
    Ok(())
}

/// Whether the pods that this one must be near to are in the node's domains. The first pod of a
/// group that means itself may go anywhere where there is a domain.
///
/// # Errors
/// The words for what is missing.
pub fn near_allows(pod: &Pod, node: &Node, placed: &[Placed<'_>]) -> Result<(), String> {
    let terms = pod.spec.as_deref().map(near).unwrap_or_default();
    let all_mean = |other: &Pod| terms.iter().all(|term| means(pod, term, other));
    if let Some(term) = terms.iter().find(|term| domain(node, &term.topology_key).is_none()) {
        return Err(format!("the node has no label {}", term.topology_key));
    }
    let is_near = |term: &&PodAffinityTerm| {
        let here = domain(node, &term.topology_key);
        let same = |other: &&Placed<'_>| domain(other.node, &term.topology_key) == here;
        placed.iter().filter(same).any(|other| all_mean(other.pod))
    };
    let Some(lonely) = terms.iter().find(|term| !is_near(term)) else { return Ok(()) };
    let has_domain = |other: &&Placed<'_>| {
        terms.iter().any(|term| domain(other.node, &term.topology_key).is_some())
    };
    let first = !placed.iter().filter(has_domain).any(|other| all_mean(other.pod));
    if first && all_mean(pod) {
        return Ok(());
    }
    Err(format!("no pod that it must be near to is in its {}", lonely.topology_key))
}

/// Whether the pod on that node leaves every domain with no more pods beyond the emptiest one than
/// its constraints allow. Only nodes that the pod may be on, with all the labels, count, and no
/// pod that is being deleted.
///
/// # Errors
/// The words for the constraint that does not hold.
pub fn spread_allows(
    pod: &Pod,
    node: &Node,
    nodes: &[&Node],
    placed: &[Placed<'_>],
) -> Result<(), String> {
    let Some(spec) = pod.spec.as_deref() else { return Ok(()) };
    let constraints: Vec<&TopologySpreadConstraint> = spread(spec).collect();
    let counts_on = |node: &Node| {
        labels_allow(spec, node).is_ok()
            && constraints.iter().all(|c| domain(node, &c.topology_key).is_some())
    };
    for constraint in &constraints {
        let key = &constraint.topology_key;
        let Some(here) = domain(node, key) else {
            return Err(format!("the node has no label {key}"));
        };
        let selected = |pod: &Pod| {
            let labels = pod.metadata.labels.as_ref();
            constraint.label_selector.as_ref().is_some_and(|s| selects(s, labels))
        };
        let mut counts: BTreeMap<&str, i64> = nodes
            .iter()
            .filter(|node| counts_on(node))
            .filter_map(|node| Some((domain(node, key)?, 0)))
            .collect();
        for other in placed.iter().filter(|other| counts_on(other.node)) {
            let counts_as_one = other.pod.metadata.namespace == pod.metadata.namespace
                && !is_going(&other.pod.metadata)
                && selected(other.pod);
            if let Some(count) = domain(other.node, key).and_then(|d| counts.get_mut(d)) {
                *count += i64::from(counts_as_one);
            }
        }
        let least = counts.values().copied().min().unwrap_or(0);
        let there = counts.get(here).copied().unwrap_or(0) + i64::from(selected(pod));
        let skew = there - least;
        if skew > i64::from(constraint.max_skew) {
            let most = constraint.max_skew;
            return Err(format!("the skew of {key} is then {skew}, and {most} is the most"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, apart_from: Option<&str>) -> Pod {
        let apart = apart_from.map_or(Value::Null, |app| {
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}]}})
        });
        let value = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "labels": {"app": name}},
            "spec": {"containers": [], "affinity": apart}});
        let object = api::codec::decode_any(value.to_string().as_bytes()).unwrap();
        object.get::<Pod>().unwrap().clone()
    }

    #[test]
    fn who_minds_nobody_and_is_minded_by_nobody_is_indifferent() {
        let (plain, shy, rival) = (pod("a", None), pod("b", Some("c")), pod("c", Some("a")));
        assert!(is_indifferent(&plain, [&plain, &shy].into_iter()));
        assert!(!is_indifferent(&shy, [&plain].into_iter()));
        assert!(!is_indifferent(&plain, [&shy, &rival].into_iter()));
    }
}
