//! `/scale`: the replica count of any workload through one type.

use std::sync::Arc;

use api::{Kind, Object, selector::Selector};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The `Scale` of a deployment, replica set, replication controller or stateful set; `None` for
/// other kinds.
pub fn of(object: &Object) -> Option<Scale> {
    let (replicas, observed, selector) = match object {
        Object::Deployment(o) => {
            let spec = o.spec.as_ref();
            let status = o.status.as_ref();
            (
                spec.and_then(|s| s.replicas),
                status.and_then(|s| s.replicas),
                text_of(spec.map(|s| &s.selector)),
            )
        }
        Object::ReplicaSet(o) => {
            let spec = o.spec.as_ref();
            (
                spec.and_then(|s| s.replicas),
                o.status.as_ref().map(|s| s.replicas),
                text_of(spec.map(|s| &s.selector)),
            )
        }
        Object::StatefulSet(o) => {
            let spec = o.spec.as_ref();
            (
                spec.and_then(|s| s.replicas),
                o.status.as_ref().map(|s| s.replicas),
                text_of(spec.map(|s| &s.selector)),
            )
        }
        Object::ReplicationController(o) => {
            let spec = o.spec.as_ref();
            let selector = spec.and_then(|s| s.selector.as_ref());
            (
                spec.and_then(|s| s.replicas),
                o.status.as_ref().map(|s| s.replicas),
                selector.map(|s| Selector::of_map(s).to_text()),
            )
        }
        _ => return None,
    };
    let meta = object.meta();
    Some(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(replicas.unwrap_or(0)) }),
        status: Some(ScaleStatus { replicas: observed.unwrap_or(0), selector }),
    })
}

/// The object with the replica count of `scale`; other kinds stay as they are.
pub fn apply(object: &Object, scale: &Scale) -> Object {
    let replicas = Some(scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0));
    let mut scaled = object.clone();
    match &mut scaled {
        Object::Deployment(o) => {
            Arc::make_mut(o).spec.get_or_insert_default().replicas = replicas;
        }
        Object::ReplicaSet(o) => {
            Arc::make_mut(o).spec.get_or_insert_default().replicas = replicas;
        }
        Object::StatefulSet(o) => {
            Arc::make_mut(o).spec.get_or_insert_default().replicas = replicas;
        }
        Object::ReplicationController(o) => {
            Arc::make_mut(o).spec.get_or_insert_default().replicas = replicas;
        }
        _ => {}
    }
    scaled
}

/// Whether objects of the kind can be scaled.
pub(crate) const fn can(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Deployment | Kind::ReplicaSet | Kind::ReplicationController | Kind::StatefulSet
    )
}

fn text_of(selector: Option<&LabelSelector>) -> Option<String> {
    Selector::of_label_selector(selector?).ok().map(|s| s.to_text())
}
