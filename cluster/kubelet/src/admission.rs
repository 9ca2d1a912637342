//! Whether a pod that was bound to this node fits it.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/lifecycle/predicate.go`.

use std::collections::BTreeMap;

use api::selector::Selector;
use api::{Pod, Time};
use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Taint, Toleration};

use crate::context::Context;
use crate::occupancy::Sums;
use crate::pod_worker::PodWorker;
use crate::resources::{HostPort, LIMITED, Takes};

/// Reason and message of a refusal.
pub(crate) type Refusal = (String, String);

/// Judges `pod`, which takes `takes`, beside the `others` that are to run here and take `used` of
/// what is `allocatable`, both in the order of [`LIMITED`].
pub(crate) fn admit<'a>(
    ctx: &Context,
    pod: &Pod,
    takes: &Takes,
    others: impl Iterator<Item = &'a PodWorker> + Clone,
    used: &Sums,
    allocatable: &Sums,
) -> Result<(), Refusal> {
    resources_fit(takes, used, allocatable)?;
    devices_suffice(ctx, takes, &others)?;
    if let Some(node) = ctx.node() {
        matches_node(pod, node)?;
        tolerates(pod, node)?;
    }
    // Most pods claim no port: then nobody is asked.
    let mut taken = others.flat_map(|w| &w.takes.ports);
    if !takes.ports.is_empty() && taken.any(|other| takes.ports.iter().any(|p| clash(p, other))) {
        return Err(predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    Ok(())
}

fn predicate(name: &str, why: &str) -> Refusal {
    (name.to_owned(), format!("Predicate {name} failed: {why}"))
}

fn resources_fit(takes: &Takes, used: &Sums, allocatable: &Sums) -> Result<(), Refusal> {
    for (place, resource) in LIMITED.into_iter().enumerate() {
        let (wanted, used, capacity) = (takes.amounts[place], used[place], allocatable[place]);
        if wanted != 0 && used.saturating_add(wanted) > capacity {
            return Err(out_of(resource, wanted, used, capacity));
        }
    }
    Ok(())
}

fn out_of(resource: &str, wanted: i64, used: i64, capacity: i64) -> Refusal {
    (
        format!("OutOf{resource}"),
        format!(
            "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, \
             capacity: {capacity}"
        ),
    )
}

/// Judges devices. Those of a kind that the node knows nothing of are not its to judge, as in
/// Kubernetes (`removeMissingExtendedResources`).
fn devices_suffice<'a>(
    ctx: &Context,
    takes: &Takes,
    others: &(impl Iterator<Item = &'a PodWorker> + Clone),
) -> Result<(), Refusal> {
    let Some(facts) = &ctx.facts else { return Ok(()) };
    for (resource, wanted) in &takes.devices {
        let Some(capacity) = facts.devices.get(&**resource) else { continue };
        let capacity = i64::try_from(*capacity).unwrap_or(i64::MAX);
        let of_others = others.clone().flat_map(|w| &w.takes.devices);
        let of_others = of_others.filter(|(name, _)| name == resource);
        let used = of_others.fold(0_i64, |sum, (_, amount)| sum.saturating_add(*amount));
        if *wanted != 0 && used.saturating_add(*wanted) > capacity {
            return Err(out_of(resource, *wanted, used, capacity));
        }
    }
    Ok(())
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
}

fn matches_node(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let refusal = || predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    let Some(spec) = &pod.spec else { return Ok(()) };
    let labels = node.metadata.labels.as_ref();
    let has = |key: &String, value: &String| labels.and_then(|l| l.get(key)) == Some(value);
    if spec.node_selector.iter().flatten().any(|(key, value)| !has(key, value)) {
        return Err(refusal());
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    match required {
        Some(r) if !r.node_selector_terms.iter().any(|t| term_matches(t, node)) => Err(refusal()),
        _ => Ok(()),
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.metadata.name.clone().unwrap_or_default();
    let field_map = BTreeMap::from([("metadata.name".to_owned(), name)]);
    let holds = |key: &str, op: &str, values: &[String], map: Option<&BTreeMap<String, String>>| {
        let words = values.join(",");
        let text = match op {
            "In" => format!("{key} in ({words})"),
            "NotIn" => format!("{key} notin ({words})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            "Gt" => format!("{key}>{words}"),
            "Lt" => format!("{key}<{words}"),
            _ => return false,
        };
        Selector::parse(&text).is_ok_and(|s| s.matches(map))
    };
    expressions.iter().all(|e| {
        let values = e.values.as_deref().unwrap_or_default();
        holds(&e.key, &e.operator, values, node.metadata.labels.as_ref())
    }) && fields.iter().all(|e| {
        let values = e.values.as_deref().unwrap_or_default();
        holds(&e.key, &e.operator, values, Some(&field_map))
    })
}

fn tolerates(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut serious = taints.filter(|t| t.effect == "NoExecute");
    if serious.all(|taint| tolerations.iter().any(|t| tolerated(t, taint))) {
        return Ok(());
    }
    Err(predicate("TaintToleration", "node(s) had untolerated taint(s)"))
}

fn tolerated(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists) || key == taint.key)
        && (exists || toleration.value.as_deref() == Some(taint.value.as_deref().unwrap_or("")))
}

/// The deadline of a pod that may only run so long.
pub(crate) fn active_deadline(pod: &Pod, started: Time) -> Option<Time> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Some(started + std::time::Duration::from_secs(seconds))
}
