//! Jobs: P38.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Time};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use machine::WatchEvent;

use super::asked::{Overshoot, Overshot};
use super::brood::{Broods, known_owner};
use super::quotas::is_short_of_template;
use super::replication::served;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, sets};
use crate::world::ProcessId;

/// What became of the pods of one job, by their UIDs.
#[derive(Clone, Default)]
struct Tally {
    /// All that there ever were.
    all: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    /// Those that failed, and those that somebody deleted before they ended.
    failed: BTreeSet<String>,
    /// Those that ended, or were deleted, before the job had ended and while their end was to be
    /// counted.
    due: BTreeSet<String>,
    /// The indexes of those that succeeded.
    indexes: BTreeSet<i64>,
}

/// P38: a job runs no more pods at a time than it may, counts each end once, completes each index
/// once, and has an end that stays.
///
/// More pods than asked for are excused as with other controllers (P29), but for this: that two
/// processes have made pods of the job is no excuse. What has failed is not more than there was:
/// when a job fails, everything in it has failed. Pods of a job that has ended are made by who has
/// not heard of it, or had planned them before.
#[derive(Clone)]
pub(super) struct CountsOnce {
    overshoot: Overshoot,
    tallies: BTreeMap<String, Tally>,
    /// Counts what happens: much may happen at one time.
    happened: u64,
    /// When controller managers heard that a job had ended, by its UID.
    heard: BTreeMap<(ProcessId, String), (u64, Time)>,
    /// What controller managers are doing for a job, by its UID.
    plans: BTreeMap<(ProcessId, String), Carried>,
}

/// A plan is carried out in batches, each sent when the one before is answered.
#[derive(Clone, Copy)]
struct Carried {
    /// Where in what happened its first write was sent.
    since: u64,
    /// When its last write so far was sent.
    last: Time,
}

/// The longest time between two batches of a plan, of a process that is paused among others, and
/// from hearing that a job has ended to the last batch of what was planned before.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Default for CountsOnce {
    fn default() -> Self {
        let broods = Broods::by(|pod| job_of(pod).map(str::to_owned));
        Self {
            overshoot: Overshoot::new(broods, parallelism),
            tallies: BTreeMap::new(),
            happened: 0,
            heard: BTreeMap::new(),
            plans: BTreeMap::new(),
        }
    }
}

/// The UID of the job of a pod.
fn job_of(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|o| o.controller == Some(true) && o.kind == "Job")?;
    Some(&owner.uid)
}

fn parallelism(owner: &Object) -> Option<i64> {
    Some(owner.get::<Job>()?.spec.as_ref()?.parallelism.unwrap_or(1).into())
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// How many ends the status counts: successes and failures, those among them that are still listed
/// by name.
fn counted(status: &JobStatus) -> (i64, i64) {
    let listed = status.uncounted_terminated_pods.as_ref();
    let number = |n: Option<i32>, uids: Option<&Vec<String>>| {
        let listed = i64::try_from(uids.map_or(0, Vec::len)).unwrap_or(i64::MAX);
        i64::from(n.unwrap_or(0)).saturating_add(listed)
    };
    (
        number(status.succeeded, listed.and_then(|l| l.succeeded.as_ref())),
        number(status.failed, listed.and_then(|l| l.failed.as_ref())),
    )
}

fn number(set: &BTreeSet<impl Sized>) -> i64 {
    i64::try_from(set.len()).unwrap_or(i64::MAX)
}

fn has_failed(status: &JobStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.status == "True" && matches!(&*c.type_, "FailureTarget" | "Failed"))
}

impl CountsOnce {
    /// Notes what controller managers hear of jobs, and what they do for them.
    fn follow(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        let now = cluster.now();
        self.happened += 1;
        let here = self.happened;
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::ControllerManager => {
                let objects = match event {
                    WatchEvent::Changed(object) => std::slice::from_ref(object),
                    WatchEvent::Replaced { objects, .. } => objects.as_slice(),
                    _ => &[],
                };
                let ended = |o: &&Object| o.get::<Job>().is_some_and(|j| sets::end_of(j).is_some());
                for object in objects.iter().filter(ended) {
                    self.heard.entry((*to, object.uid().to_owned())).or_insert((here, now));
                }
            }
            Occurrence::Called { by, request } if cluster.role(*by) == Role::ControllerManager => {
                let Some(uid) = served(cluster, request) else { return };
                let begun = Carried { since: here, last: now };
                let plan = self.plans.entry((*by, uid)).or_insert(begun);
                if now.since(plan.last) > PAUSE_MAX {
                    plan.since = here;
                }
                plan.last = now;
            }
            Occurrence::Crashed(id) => {
                self.heard.retain(|(by, _), _| by != id);
                self.plans.retain(|(by, _), _| by != id);
            }
            _ => {}
        }
    }

    /// Whether what a process does for a job was planned before it heard that the job had ended.
    fn was_planned(&self, now: Time, by: ProcessId, job: &str) -> bool {
        let of = (by, job.to_owned());
        let heard = self.heard.get(&of);
        self.plans
            .get(&of)
            .zip(heard)
            .is_some_and(|(plan, (heard, at))| plan.since < *heard && now.since(*at) <= PAUSE_MAX)
    }

    fn pod_committed(&mut self, cluster: &dyn Cluster, old: Option<&Pod>, new: Option<&Pod>) {
        let Some(pod) = new.or(old) else { return };
        let (Some(uid), Some(job)) = (&pod.metadata.uid, job_of(pod)) else { return };
        let tally = self.tallies.entry(job.to_owned()).or_default();
        tally.all.insert(uid.clone());
        let (ended, going) = (oracle::has_ended(pod), oracle::is_going(&pod.metadata));
        if oracle::phase(pod) == "Succeeded" {
            tally.succeeded.insert(uid.clone());
            tally.indexes.extend(sets::completion_index(pod));
        }
        if oracle::phase(pod) == "Failed" || going || new.is_none() && !ended {
            tally.failed.insert(uid.clone());
        }
        if (ended || going) && sets::is_tracked(pod) && !job_has_ended(cluster, pod) {
            tally.due.insert(uid.clone());
        }
    }

    fn job_committed(
        &self,
        key: &Key,
        uid: &str,
        old: Option<&Job>,
        job: &Job,
        found: &mut Vec<String>,
    ) {
        let (Some(spec), Some(status)) = (&job.spec, &job.status) else { return };
        let nothing = Tally::default();
        let tally = self.tallies.get(uid).unwrap_or(&nothing);
        let (succeeded, failed) = counted(status);
        let failures = number(if has_failed(status) { &tally.all } else { &tally.failed });
        if failed > failures {
            found.push(format!("{key} counts {failed} failures, and {failures} pods have failed"));
        }
        if is_indexed(spec) {
            self.indexes(key, tally, old, job, found);
        } else {
            let is = number(&tally.succeeded);
            if succeeded > is {
                found.push(format!("{key} counts {succeeded} successes, and {is} pods succeeded"));
            }
            let most = spec.completions.map_or(i64::MAX, i64::from);
            let most = most.saturating_add(self.overshoot.late(uid));
            if succeeded > most {
                found.push(format!("{key} counts {succeeded} successes and asks for {most}"));
            }
        }
        let end = sets::end_of(job);
        if let Some((before, _)) = old.and_then(sets::end_of)
            && end.map(|(end, _)| end) != Some(before)
        {
            let now = end.map_or("running", |(end, _)| end);
            found.push(format!("{key} had ended as {before} and is {now} now"));
        }
        if old.and_then(sets::end_of).is_some() {
            return;
        }
        match end {
            Some(("Complete", _)) => {
                let least = spec.completions.map_or(1, i64::from);
                if succeeded < least {
                    found.push(format!("{key} is complete with {succeeded} of {least} successes"));
                }
            }
            Some(("Failed", "BackoffLimitExceeded")) => {
                let limit = i64::from(spec.backoff_limit.unwrap_or(6));
                let never = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
                let is = number(&tally.failed);
                if never == Some("Never") && is <= limit {
                    found.push(format!("{key} has failed after {is} failures of {limit}"));
                }
            }
            _ => {}
        }
    }

    fn indexes(
        &self,
        key: &Key,
        tally: &Tally,
        old: Option<&Job>,
        job: &Job,
        found: &mut Vec<String>,
    ) {
        let of = |job: &Job| {
            let status = job.status.as_ref();
            sets::indexes(status.and_then(|s| s.completed_indexes.as_deref()).unwrap_or_default())
        };
        let done = of(job);
        let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        if i64::from(succeeded) != number(&done) {
            let says = done.len();
            found.push(format!("{key} counts {succeeded} successes and names {says} indexes"));
        }
        let most = job.spec.as_ref().and_then(|s| s.completions).map_or(i64::MAX, i64::from);
        if let Some(index) = done.iter().find(|i| **i >= most || !tally.indexes.contains(i)) {
            found.push(format!("{key} has index {index} complete, which no pod has completed"));
        }
        if let Some(index) = old.map(of).unwrap_or_default().difference(&done).next() {
            found.push(format!("{key} had index {index} complete and has it no more"));
        }
    }
}

/// Whether the job of the pod had ended.
fn job_has_ended(cluster: &dyn Cluster, pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.find(|o| o.controller == Some(true)) else { return true };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let job = cluster.object(&Key::new(Kind::Job, namespace, &owner.name));
    let job = job.filter(|o| o.uid() == owner.uid).and_then(Object::get::<Job>);
    job.is_none_or(|job| sets::end_of(job).is_some() || oracle::is_going(&job.metadata))
}

impl Check for CountsOnce {
    fn property(&self) -> &'static str {
        "P38"
    }

    fn statement(&self) -> &'static str {
        "a job runs no more pods than it may, counts each end once, and has an end that stays"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let overshot = self.overshoot.observe(cluster, occurrence).filter(Overshot::is_doubled);
        if let Some(Overshot { key, has, limit, .. }) = overshot {
            found.push(format!("{key} is active pod number {has} of a job that may have {limit}"));
        }
        self.follow(cluster, occurrence);
        if let Occurrence::Called { by, request: Request::Create(object) } = occurrence
            && let Some(pod) = object.get::<Pod>()
            && let Some(job) = job_of(pod)
            && self.overshoot.late(job) == 0
            && !self.was_planned(cluster.now(), *by, job)
            && let Some((end, _)) = known_end(cluster, *by, pod)
        {
            found.push(format!("{} is made for a job that has ended as {end}", object.key()));
        }
        let Occurrence::Committed { key, old, new, .. } = occurrence else { return };
        match key.kind {
            Kind::Pod => self.pod_committed(cluster, oracle::pod(*old), oracle::pod(*new)),
            Kind::Job => match new {
                Some(object) => {
                    if let Some(job) = object.get() {
                        let old = old.and_then(Object::get);
                        self.job_committed(key, object.uid(), old, job, found);
                    }
                }
                None => {
                    let uid = old.map(Object::uid).unwrap_or_default();
                    self.tallies.remove(uid);
                    self.heard.retain(|(_, job), _| job != uid);
                    self.plans.retain(|(_, job), _| job != uid);
                }
            },
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let nothing = Tally::default();
        for object in cluster.objects(Kind::Job).filter(|o| !oracle::is_going(o.meta())) {
            let Some(job) = object.get::<Job>() else { continue };
            let (Some(spec), Some(status)) = (&job.spec, &job.status) else { continue };
            let (key, uid) = (object.key(), object.uid());
            let (succeeded, failed) = counted(status);
            let tally = self.tallies.get(uid).unwrap_or(&nothing);
            match sets::end_of(job) {
                Some(("Complete", _)) if !is_indexed(spec) => {
                    let (says, is) = (succeeded + failed, number(&tally.due));
                    if says != is {
                        found
                            .push(format!("{key} counts {says} ends, and {is} were to be counted"));
                    }
                }
                Some(_) => {}
                None => {
                    let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
                    let active = pods.filter(|p| job_of(p) == Some(uid) && oracle::is_active(p));
                    let active = i64::try_from(active.count()).unwrap_or(i64::MAX);
                    let left = spec.completions.map_or(i64::MAX, |n| i64::from(n) - succeeded);
                    let wanted = parallelism(object).unwrap_or(1).min(left);
                    let refused =
                        is_short_of_template(cluster, &key.namespace, Some(&spec.template));
                    if active != wanted && !(active < wanted && refused) {
                        found.push(format!("{key} has {active} pods at rest and wants {wanted}"));
                    }
                }
            }
        }
    }
}

/// The end of the job of a pod, as far as a process knows.
fn known_end<'a>(cluster: &'a dyn Cluster, by: ProcessId, pod: &Pod) -> Option<(&'a str, &'a str)> {
    sets::end_of(known_owner(cluster, by, pod)?.get::<Job>()?)
}

#[cfg(test)]
mod tests;
