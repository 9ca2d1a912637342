//! When a job has failed, or may not go on yet.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Pod, Time};
use k8s_openapi::api::batch::v1::JobSpec;
use machine::Plan;

use super::pass::{Pass, Verdict};
use super::policy::Failure;
use super::{has_failed, is_indexed, is_suspended, pod, policy};
use crate::pods;

/// The pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Failures after which the pause does not grow any more: 10 s, doubled six times, are 640 s.
pub(super) const FAILURES_MAX: usize = 7;

/// Whether the pod makes its index fail for good.
pub(super) fn fails_index(spec: &JobSpec, pod: &Pod, limit: i32) -> bool {
    if !has_failed(spec, pod) {
        return false;
    }
    match policy::failure(spec, pod) {
        Failure::FailsIndex => true,
        failure => failure.counts() && pod::failures_before(pod).0 >= limit,
    }
}

/// How long to wait at `now` after so many failures in a row, the last of them then.
pub(super) fn remaining(failures: usize, last: Time, now: Time) -> Duration {
    let doublings = u32::try_from(failures.clamp(1, FAILURES_MAX) - 1).unwrap_or(0);
    let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    (last + pause).since(now)
}

impl<'a> Pass<'a> {
    /// Why the job ends now, if it does; else when it may.
    pub(super) fn limit(&self, plan: &mut Plan) -> Option<Verdict> {
        self.policy_failure()
            .or_else(|| self.backoff_failure())
            .or_else(|| self.deadline_failure(plan))
            .or_else(|| self.index_failure())
            .or_else(|| {
                let message = policy::success(self.spec, &self.indexes.succeeded)?;
                Some(Verdict::success("SuccessPolicy", &message))
            })
    }

    fn policy_failure(&self) -> Option<Verdict> {
        self.spec.pod_failure_policy.as_ref()?;
        let failed = self.unaccounted.iter().filter(|p| has_failed(self.spec, p));
        failed.into_iter().find_map(|p| match policy::failure(self.spec, p) {
            Failure::FailsJob(message) => Some(Verdict::failure("PodFailurePolicy", &message)),
            _ => None,
        })
    }

    fn backoff_failure(&self) -> Option<Verdict> {
        let limit = usize::try_from(self.spec.backoff_limit?).unwrap_or(0);
        let restarts = self.owned.map_or(0, |o| usize::try_from(o.restarts).unwrap_or(0));
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        let restarted = policy == Some("OnFailure") && restarts >= limit.max(1);
        (self.failed > limit || restarted).then(|| {
            let message = "Job has reached the specified backoff limit";
            Verdict::failure("BackoffLimitExceeded", message)
        })
    }

    fn deadline_failure(&self, plan: &mut Plan) -> Option<Verdict> {
        let seconds = self.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref().filter(|_| !is_suspended(self.spec))?;
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let due = Time::from_meta(start) + allowed;
        if due <= self.now {
            let message = "Job was active longer than specified deadline";
            return Some(Verdict::failure("DeadlineExceeded", message));
        }
        plan.revisit_in(due.since(self.now));
        None
    }

    fn index_failure(&self) -> Option<Verdict> {
        let failed = self.indexes.failed.as_ref()?.total();
        let completions = usize::try_from(self.spec.completions?).unwrap_or(0);
        let max = self.spec.max_failed_indexes.and_then(|n| usize::try_from(n).ok());
        if max.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Verdict::failure("MaxFailedIndexesExceeded", message));
        }
        let ended = failed + self.indexes.succeeded.total();
        (failed > 0 && ended >= completions)
            .then(|| Verdict::failure("FailedIndexes", "Job has failed indexes"))
    }

    /// Of each index that has failed and may be tried again, the pod that failed last: it is
    /// kept until there is another one, which takes the number of failures over from it.
    pub(super) fn failed_last(&self) -> BTreeMap<i32, &'a Pod> {
        let mut last: BTreeMap<i32, &'a Pod> = BTreeMap::new();
        if self.spec.backoff_limit_per_index.is_none() || !is_indexed(self.spec) {
            return last;
        }
        let ended = |index: i32| {
            let failed = self.indexes.failed.as_ref().is_some_and(|f| f.contains(index));
            failed || self.indexes.succeeded.contains(index)
        };
        let active = |index: i32| self.owned.is_some_and(|o| o.active.contains_key(&Some(index)));
        let failures = |pod: &Pod| {
            let (counted, ignored) = pod::failures_before(pod);
            (counted.saturating_add(ignored), pod::finish_time(pod))
        };
        for pod in &self.unaccounted {
            let index = pod::completion_index(pod).filter(|_| self.is_valid(pod));
            let Some(index) = index.filter(|i| !ended(*i) && !active(*i)) else { continue };
            if !has_failed(self.spec, pod) {
                continue;
            }
            let kept = last.entry(index).or_insert(*pod);
            if failures(kept) <= failures(pod) {
                *kept = pod;
            }
        }
        last
    }

    /// How long no other pod may be made for the index of this one, which has failed.
    pub(super) fn index_backoff(&self, failed: &Pod) -> Duration {
        let (counted, ignored) = pod::failures_before(failed);
        let failures = i64::from(counted) + i64::from(ignored) + 1;
        let failures = usize::try_from(failures).unwrap_or(usize::MAX);
        debug_assert!(pods::is_terminal(failed) || pod::is_ending(failed), "only ended pods fail");
        remaining(failures, pod::finish_time(failed), self.now)
    }
}
