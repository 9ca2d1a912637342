//! What is refused, field by field, with the paths and words of Kubernetes.
//!
//! Source: kubernetes 1.33, `pkg/apis/*/validation`.

use api::quantity::Quantity as Amount;
use api::{Object, Subresource};
use k8s_openapi::api::autoscaling::v1::Scale;

mod affinity;
mod autoscaler;
mod condition;
mod config;
mod container;
mod cron_job;
mod daemon_set;
mod disruption;
mod endpoints;
mod event;
mod handler;
mod job;
mod job_policy;
mod job_status;
mod lease;
mod limit_range;
mod namespace;
mod node;
mod pod;
mod pod_update;
mod priority_class;
mod quota;
mod rbac;
mod request;
mod selector;
mod service;
mod stateful_set;
mod storage;
mod volume;
mod workload;

use crate::field::{Causes, Path};
use crate::meta;
use crate::operation::Options;

/// Everything that is wrong with an object that is created; of a pod whose spec is `known` to be
/// valid, with the rest of it.
pub(crate) fn create(object: &Object, known: bool, options: &Options) -> Causes {
    let mut causes = meta::validate(object.meta(), object.kind());
    match object {
        Object::Pod(o) if known => pod::node(o, &Path::new("spec"), &mut causes),
        _ => content(object, options, &mut causes),
    }
    match object {
        Object::CertificateSigningRequest(o) => request::create(o, &mut causes),
        Object::CronJob(o) => cron_job::create(o, &mut causes),
        Object::EndpointSlice(o) => endpoints::slice_create(o, &mut causes),
        Object::PriorityClass(o) => priority_class::create(o, &mut causes),
        Object::Pod(o) if o.spec.as_ref().is_some_and(|s| s.ephemeral_containers.is_some()) => {
            let at = Path::new("spec");
            let at = at.child("ephemeralContainers");
            causes.forbidden(&at, "cannot be set on create");
        }
        _ => {}
    }
    causes
}

/// Everything that is wrong with the change of an object; its metadata apart.
pub(crate) fn update(
    new: &Object,
    old: &Object,
    subresource: Option<Subresource>,
    options: &Options,
) -> Causes {
    let mut causes = Causes::default();
    match subresource {
        Some(Subresource::Status) => status(new, old, &mut causes),
        Some(Subresource::Approval) => {
            if let (
                Object::CertificateSigningRequest(new),
                Object::CertificateSigningRequest(old),
            ) = (new, old)
            {
                request::approval(new, old, &mut causes);
            }
        }
        Some(Subresource::Finalize) => content(new, options, &mut causes),
        None | Some(Subresource::Scale) => {
            content(new, options, &mut causes);
            change(new, old, &mut causes);
        }
    }
    causes
}

/// What holds for an object however it came about.
fn content(object: &Object, options: &Options, causes: &mut Causes) {
    match object {
        Object::Namespace(o) => namespace::namespace(o, causes),
        Object::Node(o) => node::node(o, causes),
        Object::Pod(o) => pod::pod(o, options, causes),
        Object::Service(o) => service::service(o, causes),
        Object::Endpoints(o) => endpoints::endpoints(o, causes),
        Object::EndpointSlice(o) => endpoints::slice(o, causes),
        Object::ConfigMap(o) => config::config_map(o, causes),
        Object::Secret(o) => config::secret(o, causes),
        Object::ResourceQuota(o) => quota::resource_quota(o, causes),
        Object::LimitRange(o) => limit_range::limit_range(o, causes),
        Object::Event(o) => event::event(o, causes),
        Object::ReplicationController(o) => {
            workload::replication_controller(o, options, causes);
        }
        Object::ReplicaSet(o) => workload::replica_set(o, options, causes),
        Object::Deployment(o) => workload::deployment(o, options, causes),
        Object::DaemonSet(o) => daemon_set::daemon_set(o, options, causes),
        Object::StatefulSet(o) => stateful_set::stateful_set(o, options, causes),
        Object::ControllerRevision(o) => daemon_set::controller_revision(o, causes),
        Object::Job(o) => job::job(o, options, causes),
        Object::CronJob(o) => cron_job::cron_job(o, options, causes),
        Object::HorizontalPodAutoscaler(o) => autoscaler::autoscaler(o, causes),
        Object::Lease(o) => lease::lease(o, causes),
        Object::PodDisruptionBudget(o) => disruption::budget(o, causes),
        Object::PersistentVolume(o) => storage::volume(o, causes),
        Object::PersistentVolumeClaim(o) => storage::claim(o, causes),
        Object::StorageClass(o) => storage::class(o, causes),
        Object::CsiNode(o) => storage::csi_node(o, causes),
        Object::Role(o) => rbac::rules(o.rules.as_deref(), true, causes),
        Object::ClusterRole(o) => rbac::cluster_role(o, causes),
        Object::RoleBinding(o) => {
            rbac::binding(&o.role_ref, o.subjects.as_deref(), true, causes);
        }
        Object::ClusterRoleBinding(o) => {
            rbac::binding(&o.role_ref, o.subjects.as_deref(), false, causes);
        }
        _ => {}
    }
}

/// What holds between the old object and the new one.
fn change(new: &Object, old: &Object, causes: &mut Causes) {
    let selector = Path::new("spec");
    let selector = selector.child("selector");
    match (new, old) {
        (Object::Pod(new), Object::Pod(old)) => pod_update::pod(new, old, causes),
        (Object::Node(new), Object::Node(old)) => node::update(new, old, causes),
        (Object::Service(new), Object::Service(old)) => service::update(new, old, causes),
        (Object::ConfigMap(new), Object::ConfigMap(old)) => {
            config::config_map_update(new, old, causes);
        }
        (Object::Secret(new), Object::Secret(old)) => config::secret_update(new, old, causes),
        (Object::Deployment(new), Object::Deployment(old)) => {
            let of = |o: &k8s_openapi::api::apps::v1::Deployment| {
                o.spec.as_ref().map(|s| s.selector.clone())
            };
            causes.immutable(&selector, &of(new), &of(old));
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) => {
            let of = |o: &k8s_openapi::api::apps::v1::ReplicaSet| {
                o.spec.as_ref().map(|s| s.selector.clone())
            };
            causes.immutable(&selector, &of(new), &of(old));
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => {
            let of = |o: &k8s_openapi::api::apps::v1::DaemonSet| {
                o.spec.as_ref().map(|s| s.selector.clone())
            };
            causes.immutable(&selector, &of(new), &of(old));
        }
        (Object::StatefulSet(new), Object::StatefulSet(old)) => {
            stateful_set::update(new, old, causes);
        }
        (Object::ControllerRevision(new), Object::ControllerRevision(old)) => {
            daemon_set::controller_revision_update(new, old, causes);
        }
        (Object::Job(new), Object::Job(old)) => job::update(new, old, causes),
        (Object::CronJob(new), Object::CronJob(old)) => cron_job::update(new, old, causes),
        (Object::EndpointSlice(new), Object::EndpointSlice(old)) => {
            causes.immutable(&Path::new("addressType"), &new.address_type, &old.address_type);
        }
        (Object::ResourceQuota(new), Object::ResourceQuota(old)) => {
            quota::update(new, old, causes);
        }
        (Object::PriorityClass(new), Object::PriorityClass(old)) => {
            priority_class::update(new, old, causes);
        }
        (Object::PersistentVolume(new), Object::PersistentVolume(old)) => {
            storage::volume_update(new, old, causes);
        }
        (Object::PersistentVolumeClaim(new), Object::PersistentVolumeClaim(old)) => {
            storage::claim_update(new, old, causes);
        }
        (Object::StorageClass(new), Object::StorageClass(old)) => {
            storage::class_update(new, old, causes);
        }
        (Object::CsiNode(new), Object::CsiNode(old)) => {
            storage::csi_node_update(new, old, causes);
        }
        (Object::RoleBinding(new), Object::RoleBinding(old)) => {
            rbac::same_role(&new.role_ref, &old.role_ref, causes);
        }
        (Object::ClusterRoleBinding(new), Object::ClusterRoleBinding(old)) => {
            rbac::same_role(&new.role_ref, &old.role_ref, causes);
        }
        _ => {}
    }
}

fn status(new: &Object, old: &Object, causes: &mut Causes) {
    match (new, old) {
        (Object::Pod(new), Object::Pod(old)) => pod_update::status(new, old, causes),
        (Object::Node(new), Object::Node(old)) => {
            node::node(new, causes);
            node::update(new, old, causes);
        }
        (Object::Deployment(new), Object::Deployment(old)) => {
            workload::deployment_status(new, old, causes);
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => {
            daemon_set::status(new, old, causes);
        }
        (Object::StatefulSet(new), Object::StatefulSet(old)) => {
            stateful_set::status(new, old, causes);
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(_)) => {
            workload::replica_set_status(new, causes);
        }
        (Object::ReplicationController(new), Object::ReplicationController(_)) => {
            workload::replication_controller_status(new, causes);
        }
        (Object::ResourceQuota(new), Object::ResourceQuota(_)) => quota::status(new, causes),
        (Object::PodDisruptionBudget(new), Object::PodDisruptionBudget(_)) => {
            disruption::status(new, causes);
        }
        (Object::Job(new), Object::Job(old)) => job_status::update(new, old, causes),
        (Object::PersistentVolumeClaim(new), Object::PersistentVolumeClaim(_)) => {
            storage::claim_status(new, causes);
        }
        (Object::HorizontalPodAutoscaler(new), Object::HorizontalPodAutoscaler(_)) => {
            autoscaler::status(new, causes);
        }
        (Object::CertificateSigningRequest(new), Object::CertificateSigningRequest(old)) => {
            request::status(new, old, causes);
        }
        _ => {}
    }
}

/// How often one amount goes into another.
#[expect(clippy::cast_precision_loss, reason = "ratios are told to six places")]
pub(crate) fn ratio(amount: Amount, part: Amount) -> f64 {
    amount.nano() as f64 / part.nano() as f64
}

/// Everything that is wrong with a `Scale`.
pub(crate) fn scale(scale: &Scale) -> Causes {
    let mut causes = Causes::default();
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    causes.non_negative(&Path::new("spec").child("replicas"), i64::from(replicas));
    causes
}
