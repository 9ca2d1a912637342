//! [`Pass`]: one look at a job and its pods.

use std::collections::BTreeSet;

use api::{ApiObject, Key, Object, Pod, Request, Time, meta};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use machine::{Announcement, Cache, Plan, Record};

use super::intervals::Intervals;
use super::job_pods::{JobPods, Owned};
use super::{
    BURST_MAX, has_condition, has_failed, is_indexed, is_suspended, pod, policy,
    replaces_only_ended, selector_of,
};
use crate::ownership::{self, Claim};
use crate::{announce, pods};

/// How a job ends, once that is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn failure(reason: &str, message: &str) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(super) fn success(reason: &str, message: &str) -> Self {
        Self { success: true, ..Self::failure(reason, message) }
    }

    /// The condition that announces the end.
    pub(super) const fn interim(&self) -> &'static str {
        if self.success { "SuccessCriteriaMet" } else { "FailureTarget" }
    }

    /// The condition of the end.
    pub(super) const fn terminal(&self) -> &'static str {
        if self.success { "Complete" } else { "Failed" }
    }
}

/// What indexed jobs know of their indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    /// Those whose success the status already tells.
    pub(super) told: Intervals,
    /// Those that have succeeded.
    pub(super) succeeded: Intervals,
    /// Those that have failed for good; `None` without limits by index.
    pub(super) failed: Option<Intervals>,
}

/// One look at a job that has not finished.
pub(super) struct Pass<'a> {
    pub(super) cache: &'a Cache,
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) now: Time,
    pub(super) owned: Option<&'a Owned>,
    /// The pods whose end is to be counted, in the order in which that is done.
    pub(super) unaccounted: Vec<&'a Pod>,
    /// The UIDs that the status lists: of pods that succeeded, and that failed.
    pub(super) listed: [BTreeSet<&'a str>; 2],
    pub(super) indexes: Indexes,
    /// Pods, or indexes, that have succeeded.
    pub(super) succeeded: usize,
    /// Pods that have failed and count.
    pub(super) failed: usize,
    /// When pods failed since one succeeded last, in order; of many the last few.
    pub(super) failed_in_a_row: Vec<Time>,
    /// The status as it is to be.
    pub(super) status: JobStatus,
    /// What people are told when the status is written.
    pub(super) told: Option<Record>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(cache: &'a Cache, job: &'a Job, now: Time) -> Option<Self> {
        let spec = job.spec.as_ref()?;
        let owned = JobPods::of(cache, job.metadata.uid.as_deref().unwrap_or_default());
        let keys = owned.into_iter().flat_map(|o| &o.unaccounted);
        let mut unaccounted: Vec<&Pod> =
            keys.filter_map(|key| cache.object(key).and_then(Object::get::<Pod>)).collect();
        if is_indexed(spec) {
            unaccounted.sort_by_key(|p| pod::completion_index(p));
        }
        let uncounted = job.status.as_ref().and_then(|s| s.uncounted_terminated_pods.as_ref());
        let uids = |list: Option<&'a Vec<String>>| -> BTreeSet<&'a str> {
            list.into_iter().flatten().map(String::as_str).collect()
        };
        let listed = [
            uids(uncounted.and_then(|u| u.succeeded.as_ref())),
            uids(uncounted.and_then(|u| u.failed.as_ref())),
        ];
        let status = job.status.clone().unwrap_or_default();
        let mut pass = Self {
            cache,
            job,
            spec,
            now,
            owned,
            unaccounted,
            listed,
            indexes: Indexes::default(),
            succeeded: 0,
            failed: 0,
            failed_in_a_row: Vec::new(),
            status,
            told: None,
        };
        pass.count();
        Some(pass)
    }

    /// Adds up what is counted, what is being counted and what will be.
    fn count(&mut self) {
        let status = self.job.status.as_ref();
        let number = |n: Option<i32>| usize::try_from(n.unwrap_or(0)).unwrap_or(0);
        let [succeeded, failed] = &self.listed;
        self.failed = number(status.and_then(|s| s.failed)) + failed.len();
        self.failed += self
            .unaccounted
            .iter()
            .filter(|p| has_failed(self.spec, p) && !self.is_listed(p) && self.is_valid(p))
            .filter(|p| policy::failure(self.spec, p).counts())
            .count();
        if let Some(completions) = self.spec.completions.filter(|_| is_indexed(self.spec)) {
            self.indexes = self.count_indexes(completions);
            self.succeeded = self.indexes.succeeded.total();
        } else {
            self.succeeded = number(status.and_then(|s| s.succeeded)) + succeeded.len();
            let new = |p: &&&Pod| pods::phase(p) == "Succeeded" && !self.is_listed(p);
            self.succeeded += self.unaccounted.iter().filter(new).count();
        }
    }

    fn count_indexes(&self, completions: i32) -> Indexes {
        let status = self.job.status.as_ref();
        let told = status.and_then(|s| s.completed_indexes.as_deref()).unwrap_or_default();
        let told = Intervals::parse(told, completions);
        // An index ends once, however many pods worked on it.
        let of = |ended: &Intervals, wanted: &dyn Fn(&Pod) -> bool| {
            let pods = self.unaccounted.iter().filter(|p| self.is_valid(p) && wanted(p));
            let indexes = pods.filter_map(|p| pod::completion_index(p));
            Intervals::of(indexes.filter(|index| !ended.contains(*index)))
        };
        let text = status.and_then(|s| s.failed_indexes.as_deref()).unwrap_or_default();
        let before = Intervals::parse(text, completions);
        let succeeded = told.union(&of(&before, &|p| self.succeeds(p)));
        let failed = self.spec.backoff_limit_per_index.map(|limit| {
            let fails = |p: &Pod| super::limits::fails_index(self.spec, p, limit);
            before.union(&of(&succeeded, &fails))
        });
        Indexes { told, succeeded, failed }
    }

    /// Whether the success of the pod counts. One that counts as failed since it was deleted does
    /// not succeed any more.
    pub(super) fn succeeds(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Succeeded" && !self.listed[1].contains(pod::uid(pod))
    }

    /// Whether the status lists the pod.
    pub(super) fn is_listed(&self, pod: &Pod) -> bool {
        self.listed.iter().any(|uids| uids.contains(pod::uid(pod)))
    }

    /// Whether the job asks for what the pod works on.
    pub(super) fn is_valid(&self, pod: &Pod) -> bool {
        let completions = self.spec.completions.unwrap_or(i32::MAX);
        !is_indexed(self.spec) || pod::completion_index(pod).is_some_and(|i| i < completions)
    }

    pub(super) fn active(&self) -> usize {
        self.owned.map_or(0, |o| o.active_count)
    }

    pub(super) fn ending(&self) -> usize {
        self.owned.map_or(0, |o| o.ending)
    }

    /// Those of the keys that are pods in the cache.
    pub(super) fn pods_of<K: AsRef<Key> + 'a>(
        &self,
        keys: impl IntoIterator<Item = &'a K>,
    ) -> Vec<&'a Pod> {
        let cache = self.cache;
        keys.into_iter()
            .filter_map(|key| cache.object(key.as_ref()).and_then(Object::get::<Pod>))
            .collect()
    }

    pub(super) fn run(mut self, plan: &mut Plan) {
        self.claim_pods(plan);
        if !plan.requests.is_empty() {
            return;
        }
        let suspended = is_suspended(self.spec);
        // A job that is resumed starts anew: the deadline is about the time that it runs without
        // interruption.
        let resumes = has_condition(&self.status, "Suspended");
        if (self.status.start_time.is_none() || resumes) && !suspended {
            self.status.start_time = Some(self.now.to_meta());
        }
        let going = meta::is_terminating(&self.job.metadata);
        let mut changes = Plan::nothing();
        let mut verdict = self.decided().or_else(|| self.limit(plan));
        if let Some(verdict) = &verdict {
            self.stop(verdict, &mut changes);
        } else {
            if !going {
                self.manage(&mut changes);
            }
            let busy = self.active() > 0 || !changes.requests.is_empty();
            let enough = match self.spec.completions.and_then(|n| usize::try_from(n).ok()) {
                // Without a number of completions one success means that the work is done.
                None => self.succeeded > 0,
                Some(completions) => {
                    self.tell_of_surplus(completions, plan);
                    self.succeeded >= completions
                }
            };
            if enough && !busy {
                let message = "Reached expected number of succeeded pods";
                verdict = Some(Verdict::success("CompletionsReached", message));
            } else if !going {
                self.note_suspension(suspended);
            }
        }
        self.report_counts();
        let release = self.track(verdict.as_ref());
        let before = self.job.status.clone().unwrap_or_default();
        if self.status != before {
            let mut job = self.job.clone();
            job.status = Some(self.status);
            plan.request_announced(
                ownership::update_status(job),
                Announcement { done: self.told, refused: None },
            );
        }
        for pod in release {
            let object = pod::untracked(pod).into_object();
            plan.request(Request::Update { object, subresource: None });
        }
        let offset = plan.requests.len();
        plan.requests.extend(changes.requests);
        let announced = changes.announcements.into_iter().map(|(i, a)| (i + offset, a));
        plan.announcements.extend(announced);
        if let Some(delay) = changes.revisit {
            plan.revisit_in(delay);
        }
    }

    /// Tells people of pods that nobody needed.
    fn tell_of_surplus(&self, completions: usize, plan: &mut Plan) {
        let mut tell = |reason: &str, which: &str| {
            let text = format!("Too many {which} pods running after completion count reached");
            plan.events.push(announce::warning(self.job, reason, text));
        };
        if self.succeeded >= completions && self.active() > 0 {
            tell("TooManyActivePods", "active");
        }
        if self.succeeded > completions {
            tell("TooManySucceededPods", "succeeded");
        }
    }

    /// The end that was decided before, as the status tells.
    fn decided(&self) -> Option<Verdict> {
        let conditions = || self.status.conditions.iter().flatten().filter(|c| c.status == "True");
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        for (kind, success) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
            if let Some(c) = conditions().find(|c| c.type_ == kind) {
                return Some(Verdict {
                    success,
                    reason: text(&c.reason),
                    message: text(&c.message),
                });
            }
        }
        None
    }

    fn note_suspension(&mut self, suspended: bool) {
        let (value, reason, message, event) = if suspended {
            ("True", "JobSuspended", "Job suspended", "Suspended")
        } else {
            ("False", "JobResumed", "Job resumed", "Resumed")
        };
        if self.set_condition("Suspended", value, reason, message) {
            self.told = Some(announce::normal(self.job, event, message.to_owned()));
        }
    }

    /// Sets the condition; one that is not there is not made false. Tells whether that changed
    /// anything.
    pub(super) fn set_condition(
        &mut self,
        kind: &str,
        value: &str,
        reason: &str,
        message: &str,
    ) -> bool {
        let conditions = self.status.conditions.get_or_insert_default();
        let found = conditions.iter_mut().find(|c| c.type_ == kind);
        let same = found.as_ref().map_or(value == "False", |c| {
            c.status == value
                && c.reason.as_deref().unwrap_or_default() == reason
                && c.message.as_deref().unwrap_or_default() == message
        });
        if !same {
            let text = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
            let condition = JobCondition {
                type_: kind.to_owned(),
                status: value.to_owned(),
                reason: text(reason),
                message: text(message),
                last_probe_time: Some(self.now.to_meta()),
                last_transition_time: Some(self.now.to_meta()),
            };
            match found {
                Some(found) => *found = condition,
                None => conditions.push(condition),
            }
        }
        if conditions.is_empty() {
            self.status.conditions = None;
        }
        !same
    }

    /// How many pods there are, as the cache knows.
    fn report_counts(&mut self) {
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        self.status.active = Some(number(self.active())).filter(|n| *n != 0);
        self.status.ready = Some(number(self.owned.map_or(0, |o| o.ready)));
        self.status.terminating = Some(number(self.ending()));
    }

    /// Adopts pods that the job selects and lets those go that it does not select any more.
    fn claim_pods(&self, plan: &mut Plan) {
        let job = self.job;
        let going = meta::is_terminating(&job.metadata);
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let selector = selector_of(job);
        let mut candidates: Vec<&Pod> =
            if going { Vec::new() } else { ownership::orphans(self.cache, job) };
        let mut labels = self.owned.into_iter().flat_map(|o| o.labels.keys());
        if !going && labels.any(|labels| !selector.matches(Some(labels))) {
            let done = |pod: &Pod| pods::is_terminal(pod) && !pod::is_tracked(pod);
            candidates.extend(self.cache.owned::<Pod>(uid).filter(|pod| !done(pod)));
        }
        for pod in candidates {
            match ownership::claim(&job.metadata, &selector, &pod.metadata) {
                Claim::Keep | Claim::Ignore => {}
                Claim::Adopt => {
                    let owner = meta::controller_reference(job);
                    plan.request(ownership::adopt(&pod::tracked(pod), owner));
                }
                Claim::Release => plan.request(ownership::release(&pod::untracked(pod), uid)),
            }
            if plan.requests.len() >= BURST_MAX {
                break;
            }
        }
    }

    /// How many pods may not be replaced yet.
    pub(super) fn awaited(&self) -> usize {
        if replaces_only_ended(self.spec) { self.ending() } else { 0 }
    }
}
