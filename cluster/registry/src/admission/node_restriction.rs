//! NodeRestriction: what runs as a node may touch only what belongs to that node.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/noderestriction`.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Pod, Status, Subresource};
use k8s_openapi::api::core::v1::Node;

use super::forbidden;
use super::service_account::{refers_to_config_maps, refers_to_secrets};
use crate::Caller;
use crate::admit::Context;
use crate::authorize::node_name;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of the `kubernetes.io` and `k8s.io` domains that a kubelet may set on its node.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Domains of which it may set every label.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

pub(super) fn create(context: Context<'_>, object: &Object) -> Result<(), Status> {
    let Some(node) = node_name(context.caller) else { return Ok(()) };
    match object {
        Object::Pod(pod) => mirror_pod(context, node, pod, object),
        Object::Node(new) => {
            own_node(node, object)?;
            let changed = changed_labels(new.metadata.labels.as_ref(), None);
            let refused = refused_labels(&changed);
            if refused.is_empty() {
                return Ok(());
            }
            let why = format!(
                "node {node:?} is not allowed to set the following labels: {}",
                refused.join(", ")
            );
            Err(forbidden(object, &why))
        }
        Object::Lease(_) => own_lease(node, object),
        Object::CsiNode(_) => own_csi_node(node, object),
        _ => Ok(()),
    }
}

pub(super) fn update(
    context: Context<'_>,
    new: &Object,
    old: &Object,
    subresource: Option<Subresource>,
) -> Result<(), Status> {
    let Some(node) = node_name(context.caller) else { return Ok(()) };
    match (new, old) {
        (Object::Pod(new_pod), Object::Pod(old_pod)) => {
            if subresource != Some(Subresource::Status) {
                let why = format!(
                    "unexpected operation \"UPDATE\", node {node:?} can only create and delete \
                     mirror pods"
                );
                return Err(forbidden(new, &why));
            }
            if old_pod.node() != node {
                let why = format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to \
                     itself"
                );
                return Err(forbidden(new, &why));
            }
            if new_pod.metadata.labels != old_pod.metadata.labels {
                let why = format!("node {node:?} cannot update labels through pod status");
                return Err(forbidden(new, &why));
            }
            Ok(())
        }
        (Object::Node(new_node), Object::Node(old_node)) => {
            own_node(node, new)?;
            changed_node(node, new_node, old_node).map_err(|why| forbidden(new, &why))
        }
        (Object::Lease(_), _) => own_lease(node, new),
        (Object::CsiNode(_), _) => own_csi_node(node, new),
        _ => Ok(()),
    }
}

pub(super) fn delete(context: Context<'_>, object: &Object) -> Result<(), Status> {
    let Some(node) = node_name(context.caller) else { return Ok(()) };
    match object {
        Object::Pod(pod) if pod.node() != node => {
            let why =
                format!("node {node:?} can only delete pods with spec.nodeName set to itself");
            Err(forbidden(object, &why))
        }
        Object::Node(_) => own_node(node, object),
        Object::Lease(_) => own_lease(node, object),
        Object::CsiNode(_) => own_csi_node(node, object),
        _ => Ok(()),
    }
}

pub(super) fn evict(caller: &Caller, object: &Object) -> Result<(), Status> {
    let (Some(node), Object::Pod(pod)) = (node_name(caller), object) else { return Ok(()) };
    if pod.node() == node {
        return Ok(());
    }
    let why = format!("node {node:?} can only evict pods with spec.nodeName set to itself");
    Err(forbidden(object, &why))
}

pub(super) fn bind(context: Context<'_>, pod: &str) -> Result<(), Status> {
    if node_name(context.caller).is_none() {
        return Ok(());
    }
    let why = "unexpected pod subresource \"binding\", only 'status' and 'eviction' are allowed";
    Err(Status::forbidden(Kind::Pod, pod, why))
}

fn own_node(node: &str, object: &Object) -> Result<(), Status> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    if name == node {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to modify node {name:?}");
    Err(forbidden(object, &why))
}

fn own_lease(node: &str, object: &Object) -> Result<(), Status> {
    let meta = object.meta();
    if meta.namespace.as_deref() != Some(LEASES) {
        let why = format!("can only access leases in the {LEASES:?} system namespace");
        return Err(forbidden(object, &why));
    }
    if meta.name.as_deref() != Some(node) {
        let why = "can only access node lease with the same name as the requesting node";
        return Err(forbidden(object, why));
    }
    Ok(())
}

fn own_csi_node(node: &str, object: &Object) -> Result<(), Status> {
    if object.meta().name.as_deref() == Some(node) {
        return Ok(());
    }
    Err(forbidden(object, "can only access CSINode with the same name as the requesting node"))
}

fn changed_node(node: &str, new: &Node, old: &Node) -> Result<(), String> {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints(new) != taints(old) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if new.metadata.owner_references != old.metadata.owner_references {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let changed = changed_labels(new.metadata.labels.as_ref(), old.metadata.labels.as_ref());
    let refused = refused_labels(&changed);
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("is not allowed to modify labels: {}", refused.join(", ")))
}

type Labels = BTreeMap<String, String>;

/// Keys whose value differs between the two.
fn changed_labels<'a>(a: Option<&'a Labels>, b: Option<&'a Labels>) -> BTreeSet<&'a str> {
    let differs = |key: &&String| a.and_then(|l| l.get(*key)) != b.and_then(|l| l.get(*key));
    let keys = a.into_iter().chain(b).flat_map(Labels::keys);
    keys.filter(differs).map(String::as_str).collect()
}

fn in_domain(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn refused_labels(keys: &BTreeSet<&str>) -> Vec<String> {
    let refused = |key: &&&str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        if in_domain(domain, RESTRICTED_DOMAIN) {
            return true;
        }
        let of_kubernetes = in_domain(domain, "kubernetes.io") || in_domain(domain, "k8s.io");
        let own = OWN_LABELS.contains(*key) || OWN_DOMAINS.iter().any(|d| in_domain(domain, d));
        of_kubernetes && !own
    };
    keys.iter().filter(refused).map(|key| (*key).to_owned()).collect()
}

fn mirror_pod(context: Context<'_>, node: &str, pod: &Pod, object: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(forbidden(object, &why));
    if !pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return refuse(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.node() != node {
        return refuse(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    mirror_owner(context, node, pod, object)?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    let referenced = if spec.service_account_name.is_some() {
        "a service account"
    } else if refers_to_secrets(spec) {
        "secrets"
    } else if refers_to_config_maps(spec) {
        "configmaps"
    } else if spec.volumes.iter().flatten().any(|v| v.persistent_volume_claim.is_some()) {
        "persistentvolumeclaims"
    } else {
        return Ok(());
    };
    refuse(format!("node {node:?} can not create pods that reference {referenced}"))
}

fn mirror_owner(
    context: Context<'_>,
    node: &str,
    pod: &Pod,
    object: &Object,
) -> Result<(), Status> {
    let refuse = |why: String| Err(forbidden(object, &why));
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] => owner,
        [] => {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return refuse(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return refuse(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner.controller != Some(true) {
        return refuse(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.block_owner_deletion == Some(true) {
        return refuse(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let Some(found) = context.view.get(&Key::cluster(Kind::Node, node)) else {
        return Err(Status::not_found(Kind::Node, node));
    };
    if found.uid() != owner.uid {
        return refuse(format!(
            "node {node} UID mismatch: expected {} got {}",
            owner.uid,
            found.uid()
        ));
    }
    Ok(())
}
