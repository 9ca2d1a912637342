//! Fields of a pod that containers can read: `fieldRef` and `resourceFieldRef`.
//!
//! Source: kubernetes 1.33, `pkg/fieldpath`, `pkg/api/v1/resource`.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use crate::context::Context;
use crate::node_status;
use crate::pod_worker::PodWorker;
use crate::resources;

/// The value of a field, for a variable or a file.
pub(crate) fn field(ctx: &Context, worker: &PodWorker, path: &str) -> Result<String, String> {
    let meta = &worker.pod.metadata;
    let node_ip = ctx.config.node_ip.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => worker.name().to_owned(),
        "metadata.namespace" => worker.namespace().to_owned(),
        "metadata.uid" => worker.uid.to_string(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => ctx.config.node_name.clone(),
        "spec.serviceAccountName" => worker.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => node_ip.to_owned(),
        "status.podIP" | "status.podIPs" => worker.ip(node_ip).to_owned(),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines with escapes.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A container's request or limit, divided and rounded up.
pub(crate) fn resource(
    ctx: &Context,
    worker: &PodWorker,
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => {
            &worker.definition(name).ok_or_else(|| format!("container {name} not found"))?.0
        }
        None => &container,
    };
    let (what, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let amount = match what {
        "limits" => resources::limit(container, name).or_else(|| allocatable(ctx, name)),
        "requests" => resources::request(container, name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(resources::parse).filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or(Quantity::whole(1)).nano();
    let nano = amount.map_or(0, Quantity::nano);
    Ok(((nano + divisor - 1) / divisor).to_string())
}

/// A container without a limit can have all that the node gives to pods.
fn allocatable(ctx: &Context, name: &str) -> Option<Quantity> {
    let facts = ctx.facts.as_ref()?;
    let map = node_status::allocatable(&ctx.config, facts);
    map.get(name).map(resources::parse)
}
