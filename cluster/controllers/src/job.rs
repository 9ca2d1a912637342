//! `Job`: runs pods until enough of them have succeeded.
//!
//! Each pod carries a finalizer until its end is counted, and is counted in two steps: its UID is
//! written into the status, and only when that is seen the finalizer goes; once it is gone the UID
//! becomes a number. Both steps follow from what is stored alone, so that any process can go on
//! where another one stopped, and no pod is counted twice or not at all.
//!
//! Source: kubernetes 1.33, `pkg/controller/job/job_controller.go`.

mod backoff;
mod create;
mod intervals;
mod job_pods;
mod limits;
mod manage;
mod orphan;
mod pass;
mod pod;
mod policy;
mod tracking;

use api::{Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use machine::{Cache, Delta, Index, Memory, Plan, Reconciler};

use self::job_pods::JobPods;
use self::pass::Pass;
use crate::labels::{Labels, Orphans};
use crate::ownership::{self, required_labels, workload_selector};
use crate::selectors::{Selecting, Selectors};
use crate::{pods, quota_room};

/// No more pods are written in one pass: a mistake in a job must not flood the API server before
/// anybody can correct it.
const BURST_MAX: usize = 500;

/// The name by which jobs say that this controller manages them.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Runs the pods of jobs and counts how they end.
pub struct Jobs;

impl Reconciler for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Job, Kind::Pod]
    }

    fn hears_of(&self) -> &'static [Kind] {
        quota_room::KINDS
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![
            Box::<JobPods>::default(),
            Box::<Orphans<Pod>>::default(),
            Box::<Selectors<Job>>::default(),
        ]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if let Some(keys) = quota_room::affected(cache, delta, |job| !is_finished(job)) {
            return keys;
        }
        match delta.key.kind {
            Kind::Job => of_job(cache, delta),
            _ => of_pod(cache, delta),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        if key.kind == Kind::Pod {
            return orphan::reconcile(cache, key);
        }
        let mut plan = Plan::nothing();
        let found = cache.object(key).and_then(|object| Some((object, object.get::<Job>()?)));
        let found = found.filter(|(_, job)| is_ours(job) && !is_finished(job));
        let pass = found.and_then(|(object, job)| Some((object, Pass::new(cache, job, now)?)));
        let Some((object, mut pass)) = pass else {
            memory.notes.clear();
            return plan;
        };
        pass.remember(memory);
        pass.run(&mut plan);
        // Pods as they were before the status was written would be counted once more.
        if !plan.requests.is_empty() && cache.revision(Kind::Pod) < object.revision() {
            plan = Plan::nothing();
            plan.request(Request::ReadRevision(Kind::Pod));
        }
        plan
    }
}

/// The job itself; when it leaves pods behind that it will not count any more, these too.
fn of_job(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let mut keys = vec![delta.key.clone()];
    let job = |object: &Option<Object>| object.as_ref().and_then(Object::share::<Job>);
    let (old, new) = (job(&delta.old), job(&delta.new));
    let mut leave = |job: &Job| {
        let owned = JobPods::of(cache, job.metadata.uid.as_deref().unwrap_or_default());
        keys.extend(owned.into_iter().flat_map(|o| o.tracked_keys()).map(|key| Key::clone(key)));
    };
    if let Some(old) = old
        && new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid)
    {
        leave(&old);
    }
    if let Some(new) = new.filter(|new| is_finished(new)) {
        leave(&new);
    }
    keys
}

/// The jobs that a change of a pod affects, and the pod if it is tracked for nobody.
fn of_pod(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let old = delta.old.as_ref().and_then(Object::get::<Pod>);
    let new = delta.new.as_ref().and_then(Object::get::<Pod>);
    if !new.is_some_and(pod::is_tracked) && !ownership::concerns::<Job>(cache, delta) {
        return Vec::new();
    }
    if let (Some(old), Some(new)) = (old, new)
        && relevant(old) == relevant(new)
    {
        return Vec::new();
    }
    let mut keys = ownership::affected(cache, delta, selector_of);
    if let Some(new) = new.filter(|new| pod::is_tracked(new))
        && orphan::is_orphan(cache, new)
    {
        keys.insert(delta.key.clone());
    }
    keys.into_iter().collect()
}

/// What may change the plan of a pod's job.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    (
        (meta.uid.as_ref(), meta.labels.as_ref(), meta::controller_of(meta)),
        (meta::is_terminating(meta), pod::is_tracked(pod), pod::completion_index(pod)),
        (pods::phase(pod), pods::is_ready(pod), pod::restarts(pod)),
    )
}

impl Selecting for Job {
    fn required_labels(&self) -> Option<&Labels> {
        required_labels(self.spec.as_ref()?.selector.as_ref()?)
    }
}

/// The pods that the job means; without a selector none.
fn selector_of(job: &Job) -> api::selector::Selector {
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.map_or_else(api::selector::Selector::nothing, workload_selector)
}

/// Whether nobody else manages the job.
fn is_ours(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_none_or(|manager| manager == MANAGER)
}

/// Whether the job is complete or has failed.
fn is_finished(job: &Job) -> bool {
    let status = job.status.as_ref();
    status.is_some_and(|s| has_condition(s, "Complete") || has_condition(s, "Failed"))
}

fn has_condition(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod is replaced when it has ended, not when it is merely being deleted.
fn replaces_only_ended(spec: &JobSpec) -> bool {
    spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// Whether the pod has failed for this job.
fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        // One that vanishes before anybody reports its end must not be missed.
        _ => meta::is_terminating(&pod.metadata) && !replaces_only_ended(spec),
    }
}

#[cfg(test)]
mod tests;
