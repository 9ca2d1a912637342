//! Cells of nodes.

use std::collections::BTreeSet;

use api::Time;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::name;
use super::text::{NONE, age, or};

pub(super) fn row(node: &Node, now: Time) -> Vec<Value> {
    let status = node.status.as_ref();
    let info = status.and_then(|s| s.node_info.as_ref());
    let address = |kind: &str| {
        let mut all = status.and_then(|s| s.addresses.as_ref()).into_iter().flatten();
        all.find(|a| a.type_ == kind).map_or(NONE, |a| a.address.as_str()).into()
    };
    vec![
        name(&node.metadata),
        condition(node).into(),
        roles(node).into(),
        age(&node.metadata, now),
        info.map_or("", |i| &i.kubelet_version).into(),
        address("InternalIP"),
        address("ExternalIP"),
        or(info.map(|i| i.os_image.as_str()), "<unknown>").into(),
        or(info.map(|i| i.kernel_version.as_str()), "<unknown>").into(),
        or(info.map(|i| i.container_runtime_version.as_str()), "<unknown>").into(),
    ]
}

fn condition(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    // The last of several conditions of a type counts.
    let ready = conditions.into_iter().flatten().rfind(|c| c.type_ == "Ready");
    let ready = match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

/// From the labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`.
fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    let roles: Vec<&str> = roles.into_iter().collect();
    or(Some(&roles.join(",")), NONE).to_owned()
}
