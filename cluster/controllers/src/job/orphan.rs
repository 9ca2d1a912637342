//! Pods that are tracked for nobody: their job is gone or has finished, or they were let go.

use api::{ApiObject, Key, Kind, Object, Pod, Request, meta};
use k8s_openapi::api::batch::v1::Job;
use machine::{Cache, Plan};

use super::{is_finished, is_ours, pod};

/// Removes the finalizer of an orphan.
pub(super) fn reconcile(cache: &Cache, key: &Key) -> Plan {
    let mut plan = Plan::nothing();
    let Some(object) = cache.object(key) else { return plan };
    let Some(pod) = object.get::<Pod>().filter(|pod| pod::is_tracked(pod)) else { return plan };
    if !is_orphan(cache, pod) {
        return plan;
    }
    // The job is older than its pods: one that is not known yet is known when its pods' last
    // write is.
    plan.request(if cache.revision(Kind::Job) < object.revision() {
        Request::ReadRevision(Kind::Job)
    } else {
        Request::Update { object: pod::untracked(pod).into_object(), subresource: None }
    });
    plan
}

/// Whether no job will count the pod, as far as the cache knows.
pub(super) fn is_orphan(cache: &Cache, pod: &Pod) -> bool {
    let Some(owner) = meta::controller_of(&pod.metadata) else { return true };
    if owner.kind != Kind::Job.name() || owner.api_version != Kind::Job.api_version() {
        return false;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let job = cache.object(&Key::new(Kind::Job, namespace, &owner.name));
    let job = job.and_then(Object::get::<Job>);
    match job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid)) {
        None => true,
        Some(job) => is_ours(job) && is_finished(job),
    }
}
