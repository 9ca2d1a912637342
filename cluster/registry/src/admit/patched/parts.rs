//! A patch applied to no more of an object than it names.
//!
//! Most patches report a status: of a pod, most of what they would turn into JSON and back is
//! the spec. What a patch does not name is what it was, so here it is never turned into JSON.

use std::sync::Arc;

use api::{ApiObject, Object, Patch, PatchBody, PatchKind, Pod, PodStatusChange, Shared, codec};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, NodeStatus, PodStatus, ReplicationController, Service,
};
use serde_json::{Map, Value};

use crate::patch;

type Fields = Map<String, Value>;

/// The parts of an object that a patch names.
#[derive(Clone, Copy, Default)]
struct Named {
    metadata: bool,
    spec: bool,
    status: bool,
}

/// The object with the patch applied. `None` when the patch has to be applied to the whole
/// object, be it only to learn what is wrong with it.
pub(super) fn patched(current: &Object, patch: &Patch) -> Option<Object> {
    if let (Object::Pod(pod), PatchBody::PodStatus(change)) = (current, &patch.body)
        && pod.status == change.from
    {
        return Some(reported(pod, change));
    }
    let document = patch.body.json();
    let body = document.as_object()?;
    match patch.kind {
        PatchKind::Merge => {
            replaced_in_status(current, body).or_else(|| merged(current, patch, body))
        }
        PatchKind::Strategic => merged(current, patch, body),
        PatchKind::Json => None,
    }
}

/// The pod with the status that its kubelet reports. Nobody else has touched the status: the
/// patch would turn it into just that.
fn reported(pod: &Pod, change: &PodStatusChange) -> Object {
    let mut metadata = pod.metadata.clone();
    if let Some(uid) = &change.uid
        && metadata.uid.as_ref() != Some(uid)
    {
        metadata.uid = Some(uid.clone());
    }
    let (spec, node_name) = (pod.spec.clone(), pod.node_name.clone());
    Pod { metadata, spec, node_name, status: Some(change.to.clone()) }.into_object()
}

/// Applies a merge patch that gives fields of the status another value: they need not be known
/// to be replaced.
fn replaced_in_status(current: &Object, body: &Fields) -> Option<Object> {
    let sent = body.get("status")?.as_object()?;
    let rest = body.len() - 1;
    let uid = match body.get("metadata") {
        Some(metadata) => Some(only_uid(metadata)?),
        None => None,
    };
    // A field that is an object would be merged with what it was.
    if rest != usize::from(uid.is_some()) || sent.values().any(Value::is_object) {
        return None;
    }
    let mut object = match current {
        Object::Pod(old) => {
            let mut new = decode_status(current, sent)?;
            let Object::Pod(new) = &mut new else { return None };
            let status = Arc::make_mut(new).status.take()?.into_inner();
            let status = Shared::new(pod_status(old.status.as_deref(), status, sent));
            Object::Pod(Arc::new(Pod { status: Some(status), ..Pod::clone(old) }))
        }
        Object::Node(old) => {
            let mut new = decode_status(current, sent)?;
            let Object::Node(new) = &mut new else { return None };
            let status = node_status(old.status.as_ref(), Arc::make_mut(new).status.take()?, sent);
            let (metadata, spec) = (old.metadata.clone(), old.spec.clone());
            Object::Node(Arc::new(Node { metadata, spec, status: Some(status) }))
        }
        _ => return None,
    };
    if let Some(uid) = uid {
        object.meta_mut().uid = Some(uid.to_owned());
    }
    Some(object)
}

/// The UID in metadata that holds nothing else: kubelets send it as a precondition.
fn only_uid(metadata: &Value) -> Option<&str> {
    let metadata = metadata.as_object()?;
    metadata.get("uid").filter(|_| metadata.len() == 1)?.as_str()
}

/// An object of the kind of `current` with nothing but this status.
fn decode_status(current: &Object, status: &Fields) -> Option<Object> {
    let kind = current.kind();
    let mut json = br#"{"metadata":{},"status":"#.to_vec();
    serde_json::to_writer(&mut json, status).expect("JSON values have text keys");
    json.push(b'}');
    let (object, unknown) = codec::decode(kind, &json).ok()?;
    unknown.is_empty().then_some(object)
}

/// Defines a function that takes the fields that were sent from the new status and the others
/// from the old one.
macro_rules! replace_fields {
    ($name:ident, $status:ident, $($json:literal $field:ident),* $(,)?) => {
        fn $name(old: Option<&$status>, new: $status, sent: &Fields) -> $status {
            $status {
                $($field: if sent.contains_key($json) {
                    new.$field
                } else {
                    old.and_then(|old| old.$field.clone())
                }),*
            }
        }
    };
}

replace_fields! { pod_status, PodStatus,
    "conditions" conditions,
    "containerStatuses" container_statuses,
    "ephemeralContainerStatuses" ephemeral_container_statuses,
    "hostIP" host_ip,
    "hostIPs" host_ips,
    "initContainerStatuses" init_container_statuses,
    "message" message,
    "nominatedNodeName" nominated_node_name,
    "observedGeneration" observed_generation,
    "phase" phase,
    "podIP" pod_ip,
    "podIPs" pod_ips,
    "qosClass" qos_class,
    "reason" reason,
    "resize" resize,
    "resourceClaimStatuses" resource_claim_statuses,
    "startTime" start_time,
}

replace_fields! { node_status, NodeStatus,
    "addresses" addresses,
    "allocatable" allocatable,
    "capacity" capacity,
    "conditions" conditions,
    "config" config,
    "daemonEndpoints" daemon_endpoints,
    "features" features,
    "images" images,
    "nodeInfo" node_info,
    "phase" phase,
    "runtimeHandlers" runtime_handlers,
    "volumesAttached" volumes_attached,
    "volumesInUse" volumes_in_use,
}

/// Applies a patch to the JSON of the parts that it names.
fn merged(current: &Object, patch: &Patch, body: &Fields) -> Option<Object> {
    let mut named = Named::default();
    for key in body.keys() {
        match key.as_str() {
            "metadata" => named.metadata = true,
            "spec" => named.spec = true,
            "status" => named.status = true,
            _ => return None,
        }
    }
    let kind = current.kind();
    let part = codec::to_value(&part_of(current, named)?);
    let json = patch::apply(kind, part, patch).ok()?.to_string();
    let (mut object, unknown) = codec::decode(kind, json.as_bytes()).ok()?;
    if !unknown.is_empty() {
        return None;
    }
    complete(&mut object, current, named);
    Some(object)
}

/// Defines how objects of metadata, spec and status are taken apart and put together; a field of
/// the spec that is kept beside it is named.
macro_rules! objects_of_parts {
    ($($kind:ident $($of_spec:ident)?),*) => {
        /// An object with only the parts that are named; `None` of kinds with other parts.
        fn part_of(object: &Object, named: Named) -> Option<Object> {
            match object {
                $(Object::$kind(o) => Some(Object::$kind(Arc::new($kind {
                    metadata: if named.metadata { o.metadata.clone() } else { Default::default() },
                    spec: o.spec.as_ref().filter(|_| named.spec).cloned(),
                    $($of_spec: o.$of_spec.as_ref().filter(|_| named.spec).cloned(),)?
                    status: o.status.as_ref().filter(|_| named.status).cloned(),
                }))),)*
                _ => None,
            }
        }

        /// Takes the parts that are not named from `current`.
        fn complete(object: &mut Object, current: &Object, named: Named) {
            match (object, current) {
                $((Object::$kind(o), Object::$kind(current)) => {
                    let o = Arc::make_mut(o);
                    if !named.metadata {
                        o.metadata.clone_from(&current.metadata);
                    }
                    if !named.spec {
                        o.spec.clone_from(&current.spec);
                        $(o.$of_spec.clone_from(&current.$of_spec);)?
                    }
                    if !named.status {
                        o.status.clone_from(&current.status);
                    }
                })*
                _ => {}
            }
        }
    };
}

objects_of_parts! {
    Namespace, Node, Pod node_name, Service, ReplicationController, ReplicaSet, Deployment, DaemonSet,
    StatefulSet
}
