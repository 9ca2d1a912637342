//! The split of an object into what its author writes and what the system observes: each kind
//! of write keeps or resets the other part before anything is checked.
//!
//! Source: kubernetes 1.33, `PrepareForCreate` and `PrepareForUpdate` of each kind's strategy.

use std::sync::Arc;

use api::{Object, Pod, Shared, Subresource, Time, meta};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
    CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

mod affinity;
mod job;
mod quality;
mod storage;

pub(crate) use self::job::{CONTROLLER_UID, JOB_NAME, LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME};
use crate::operation::{Caller, Stamp};

/// Resets what only the system writes, before an object is created.
pub(crate) fn for_create(object: &mut Object, caller: &Caller, now: Time) {
    match object {
        Object::Namespace(o) => {
            let o = Arc::make_mut(o);
            o.status.get_or_insert_default().phase = Some("Active".to_owned());
            let finalizers = o.spec.get_or_insert_default().finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == "kubernetes") {
                finalizers.push("kubernetes".to_owned());
            }
        }
        Object::Pod(o) => {
            let pod = Arc::make_mut(o);
            affinity::select_by_keys(pod);
            let class = quality::class_of(pod.spec.as_deref());
            let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
            pod.status = Some(Shared::new(PodStatus {
                phase: Some("Pending".to_owned()),
                qos_class: Some(class.to_owned()),
                conditions: gates.count().checked_sub(1).map(|_| vec![gated()]),
                ..PodStatus::default()
            }));
        }
        Object::Service(o) => {
            let service = Arc::make_mut(o);
            service.status = None;
            service.status.get_or_insert_default().load_balancer.get_or_insert_default();
        }
        Object::ReplicationController(o) => {
            Arc::make_mut(o).status = Some(Default::default());
        }
        Object::ReplicaSet(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::Deployment(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::PodDisruptionBudget(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::ResourceQuota(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::DaemonSet(o) => {
            let set = Arc::make_mut(o);
            set.status = Some(Default::default());
            let generation = template_generation(set).max(1);
            set_template_generation(set, generation);
        }
        Object::Job(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::CronJob(o) => Arc::make_mut(o).status = Some(Default::default()),
        Object::HorizontalPodAutoscaler(o) => {
            Arc::make_mut(o).status = Some(Default::default());
        }
        Object::StatefulSet(o) => {
            let set = Arc::make_mut(o);
            set.status =
                Some(StatefulSetStatus { available_replicas: Some(0), ..Default::default() });
            drop_max_unavailable(set);
        }
        Object::PersistentVolume(o) => storage::new_volume(Arc::make_mut(o), now),
        Object::PersistentVolumeClaim(o) => storage::new_claim(Arc::make_mut(o)),
        Object::CertificateSigningRequest(o) => request_for_create(Arc::make_mut(o), caller),
        _ => {}
    }
}

/// What is said of a pod that no scheduler may look at yet.
fn gated() -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }
}

/// How often the template of a daemon set was changed. Kubernetes has it in the spec of its internal
/// form, and in this annotation of `apps/v1`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The generation of the template; zero when it is not told.
fn template_generation(set: &DaemonSet) -> i64 {
    meta::annotation(&set.metadata, TEMPLATE_GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

/// Nobody but the server counts changes of the template.
fn count_template(new: &mut DaemonSet, old: &DaemonSet) {
    let template = |set: &DaemonSet| set.spec.as_ref().map(|s| s.template.clone());
    let changed = new.spec != old.spec && template(new) != template(old);
    let generation = template_generation(old).saturating_add(i64::from(changed));
    if meta::annotation(&new.metadata, TEMPLATE_GENERATION) != Some(&generation.to_string()) {
        set_template_generation(new, generation);
    }
}

/// Fills in what derives from the name and the UID, once an object that is created has them.
pub(crate) fn with_identity(object: &mut Object) {
    if let Object::Job(o) = object {
        job::select_by_identity(Arc::make_mut(o));
    }
}

/// The feature is alpha in 1.33, so that the field is not kept.
fn drop_max_unavailable(set: &mut StatefulSet) {
    let strategy = set.spec.as_mut().and_then(|s| s.update_strategy.as_mut());
    if let Some(rolling) = strategy.and_then(|s| s.rolling_update.as_mut()) {
        rolling.max_unavailable = None;
    }
}

/// A request for a certificate is made in the name of the caller and nobody else.
fn request_for_create(request: &mut CertificateSigningRequest, caller: &Caller) {
    let spec = &mut request.spec;
    spec.username = Some(caller.name.clone());
    spec.uid = (!caller.uid.is_empty()).then(|| caller.uid.clone());
    spec.groups = (!caller.groups.is_empty()).then(|| caller.groups.clone());
    spec.extra = (!caller.extra.is_empty()).then(|| caller.extra.clone());
    request.status = Some(CertificateSigningRequestStatus::default());
}

/// Takes from `old` the part that this write does not address.
pub(crate) fn for_update(
    new: &mut Object,
    old: &Object,
    subresource: Option<Subresource>,
    stamp: Stamp,
) {
    match subresource {
        None => keep_status(new, old),
        Some(Subresource::Status) => keep_spec(new, old, stamp),
        Some(Subresource::Approval) => {
            if let (
                Object::CertificateSigningRequest(new),
                Object::CertificateSigningRequest(old),
            ) = (new, old)
            {
                let new = Arc::make_mut(new);
                keep(&mut new.spec, &old.spec);
                let status = new.status.get_or_insert_default();
                status.certificate = old.status.as_ref().and_then(|s| s.certificate.clone());
                stamp_conditions(new, old, stamp.now);
            }
        }
        Some(Subresource::Finalize) => {
            if let (Object::Namespace(new), Object::Namespace(old)) = (new, old) {
                keep(&mut Arc::make_mut(new).status, &old.status);
            }
        }
        // The object was made from the current one.
        Some(Subresource::Scale) => {}
    }
}

/// Takes over a part of the old object; what is equal is not copied.
fn keep<T: Clone + PartialEq>(new: &mut T, old: &T) {
    if new != old {
        new.clone_from(old);
    }
}

fn keep_status(new: &mut Object, old: &Object) {
    match (new, old) {
        (Object::Namespace(new), Object::Namespace(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            keep(&mut new.status, &old.status);
        }
        (Object::Node(new), Object::Node(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::Pod(new), Object::Pod(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::Service(new), Object::Service(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::ReplicationController(new), Object::ReplicationController(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::Deployment(new), Object::Deployment(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::ResourceQuota(new), Object::ResourceQuota(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::PodDisruptionBudget(new), Object::PodDisruptionBudget(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.status, &old.status);
            count_template(new, old);
        }
        (Object::Job(new), Object::Job(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::CronJob(new), Object::CronJob(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::HorizontalPodAutoscaler(new), Object::HorizontalPodAutoscaler(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::StatefulSet(new), Object::StatefulSet(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.status, &old.status);
            drop_max_unavailable(new);
        }
        (Object::PersistentVolume(new), Object::PersistentVolume(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::PersistentVolumeClaim(new), Object::PersistentVolumeClaim(old)) => {
            keep(&mut Arc::make_mut(new).status, &old.status);
        }
        (Object::CertificateSigningRequest(new), Object::CertificateSigningRequest(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            keep(&mut new.status, &old.status);
        }
        _ => {}
    }
}

fn keep_spec(new: &mut Object, old: &Object, stamp: Stamp) {
    match (new, old) {
        (Object::Namespace(new), Object::Namespace(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::Node(new), Object::Node(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::Pod(new), Object::Pod(old)) => pod_status(Arc::make_mut(new), old),
        (Object::Service(new), Object::Service(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::ReplicationController(new), Object::ReplicationController(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::Deployment(new), Object::Deployment(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            keep(&mut new.metadata.labels, &old.metadata.labels);
        }
        (Object::ResourceQuota(new), Object::ResourceQuota(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::PodDisruptionBudget(new), Object::PodDisruptionBudget(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            count_template(new, old);
        }
        (Object::Job(new), Object::Job(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::CronJob(new), Object::CronJob(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::HorizontalPodAutoscaler(new), Object::HorizontalPodAutoscaler(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::StatefulSet(new), Object::StatefulSet(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::PersistentVolume(new), Object::PersistentVolume(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            storage::date_phase(new, old, stamp.now);
        }
        (Object::PersistentVolumeClaim(new), Object::PersistentVolumeClaim(old)) => {
            keep(&mut Arc::make_mut(new).spec, &old.spec);
        }
        (Object::CertificateSigningRequest(new), Object::CertificateSigningRequest(old)) => {
            let new = Arc::make_mut(new);
            keep(&mut new.spec, &old.spec);
            keep_decision(new, old);
            stamp_conditions(new, old, stamp.now);
        }
        _ => {}
    }
}

fn pod_status(new: &mut Pod, old: &Pod) {
    keep(&mut new.spec, &old.spec);
    new.node_name.clone_from(&old.node_name);
    keep(&mut new.metadata.deletion_timestamp, &old.metadata.deletion_timestamp);
    // Owners are not the business of whoever reports the status.
    keep(&mut new.metadata.owner_references, &old.metadata.owner_references);
    let class = old.status.as_ref().and_then(|s| s.qos_class.as_ref());
    let status = new.status.get_or_insert_default();
    // What is right already stays shared.
    if status.qos_class.as_ref() != class {
        status.qos_class = class.cloned();
    }
}

/// The decision on a request is made through `/approval` alone: `/status` cannot change it.
fn keep_decision(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let decided = |c: &Condition| matches!(c.type_.as_str(), "Approved" | "Denied");
    let mut kept: Vec<Condition> = conditions(old).iter().filter(|c| decided(c)).cloned().collect();
    let status = new.status.get_or_insert_default();
    kept.extend(status.conditions.take().into_iter().flatten().filter(|c| !decided(c)));
    if !kept.is_empty() {
        status.conditions = Some(kept);
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// Dates conditions that came without a date.
fn stamp_conditions(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    now: Time,
) {
    let Some(list) = new.status.as_mut().and_then(|s| s.conditions.as_mut()) else { return };
    for condition in list {
        if condition.status.is_empty() {
            "True".clone_into(&mut condition.status);
        }
        condition.last_update_time.get_or_insert_with(|| now.to_meta());
        if condition.last_transition_time.is_none() {
            let before = conditions(old)
                .iter()
                .find(|c| c.type_ == condition.type_ && c.status == condition.status)
                .and_then(|c| c.last_transition_time.clone());
            condition.last_transition_time = Some(before.unwrap_or_else(|| now.to_meta()));
        }
    }
}
