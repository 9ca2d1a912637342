//! Whether a pod that was bound to this node fits it.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/lifecycle/predicate.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Time;
use api::selector::Selector;
use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::context::Context;
use crate::pod_worker::PodWorker;
use crate::resources;

/// Reason and message of a refusal.
pub(crate) type Refusal = (String, String);

/// Judges `pod` beside the `others` that are to run here.
pub(crate) fn admit<'a>(
    ctx: &Context,
    pod: &Pod,
    others: impl Iterator<Item = &'a PodWorker> + Clone,
    allocatable: &BTreeMap<&'static str, i64>,
) -> Result<(), Refusal> {
    resources_fit(pod, &others, allocatable)?;
    let node = ctx.cache.get::<Node>("", &ctx.config.node_name);
    if let Some(node) = node {
        matches_node(pod, node)?;
        tolerates(pod, node)?;
    }
    let wanted = host_ports(pod);
    let taken: BTreeSet<(String, i32, String)> = others.flat_map(|w| host_ports(&w.pod)).collect();
    if wanted.iter().any(|port| taken.iter().any(|other| clash(port, other))) {
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

fn resources_fit<'a>(
    pod: &Pod,
    others: &(impl Iterator<Item = &'a PodWorker> + Clone),
    allocatable: &BTreeMap<&'static str, i64>,
) -> Result<(), Refusal> {
    for (resource, capacity) in allocatable {
        let of = |p: &Pod| {
            if *resource == "pods" { 1 } else { resources::pod_request(p, resource) }
        };
        let wanted = of(pod);
        if wanted == 0 {
            continue;
        }
        let used = others.clone().map(|w| of(&w.pod)).fold(0_i64, i64::saturating_add);
        if used.saturating_add(wanted) > *capacity {
            return Err((
                format!("OutOf{resource}"),
                format!(
                    "Node didn't have enough resource: {resource}, requested: {wanted}, \
                     used: {used}, capacity: {capacity}"
                ),
            ));
        }
    }
    Ok(())
}

/// Address, port and protocol of each port of the node that a pod takes.
fn host_ports(pod: &Pod) -> BTreeSet<(String, i32, String)> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().unwrap_or_default();
            let ip = if ip == "0.0.0.0" { String::new() } else { ip };
            Some((ip, port, p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())))
        })
        .collect()
}

fn clash(a: &(String, i32, String), b: &(String, i32, String)) -> bool {
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
