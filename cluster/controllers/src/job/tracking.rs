//! Counting each pod exactly once.

use std::collections::BTreeSet;

use api::{Pod, Time, meta};
use k8s_openapi::api::batch::v1::UncountedTerminatedPods;

use super::intervals::Intervals;
use super::pass::{Indexes, Pass, Verdict};
use super::{BURST_MAX, has_failed, is_indexed, pod, policy};
use crate::{announce, pods};

/// UIDs that the status lists at most, so that it does not grow without end.
const UNCOUNTED_MAX: usize = 500;

/// What is still to be done about the end of one pod.
enum Account {
    /// It is not clear yet how it ends, or it is kept for its successor.
    Wait,
    /// Its success must be told first.
    Succeeded,
    /// Its failure must be told first.
    Failed,
    /// What is to be told of it is told.
    Settled,
}

impl<'a> Pass<'a> {
    /// Brings the status on by what can be counted, and returns the pods that it has taken account
    /// of already: these need not be kept.
    pub(super) fn track(&mut self, verdict: Option<&Verdict>) -> Vec<&'a Pod> {
        self.status.uncounted_terminated_pods.get_or_insert_default();
        self.count_released();
        let mut release = Vec::new();
        let mut indexes = BTreeSet::new();
        let kept = self.failed_last();
        let mut full = false;
        for pod in self.unaccounted.clone() {
            let [succeeded, failed] = lists(&mut self.status.uncounted_terminated_pods);
            let room = indexes.len() + succeeded.len() + failed.len() < UNCOUNTED_MAX;
            let index = pod::completion_index(pod);
            let last = index.and_then(|i| kept.get(&i));
            let is_kept = last.is_some_and(|last| pod::uid(last) == pod::uid(pod));
            match self.account(pod, is_kept, verdict) {
                Account::Wait => {}
                Account::Settled => release.push(pod),
                Account::Succeeded | Account::Failed if !room => full = true,
                Account::Succeeded if is_indexed(self.spec) => indexes.extend(index),
                Account::Succeeded => self.list(0, pod),
                Account::Failed => self.list(1, pod),
            }
        }
        if is_indexed(self.spec) {
            self.tell_indexes(indexes);
        }
        if let Some(verdict) = verdict {
            self.conclude(verdict, full);
        }
        self.drop_empty_lists();
        if meta::is_terminating(&self.job.metadata) {
            // What an owner that goes has begun is nobody's to count.
            let active = self.owned.into_iter().flat_map(|o| o.active_keys());
            let active = self.pods_of(active.take(BURST_MAX));
            release.extend(active.into_iter().filter(|p| pod::is_tracked(p)));
        }
        release.truncate(BURST_MAX);
        release
    }

    /// Turns listed UIDs into numbers where the finalizer is gone.
    fn count_released(&mut self) {
        let tracked: BTreeSet<&str> = self.unaccounted.iter().map(|p| pod::uid(p)).collect();
        let [succeeded, failed] = lists(&mut self.status.uncounted_terminated_pods);
        let count = |list: &mut Vec<String>, counter: &mut Option<i32>| {
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            let gone = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
            if gone > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(gone));
            }
        };
        count(succeeded, &mut self.status.succeeded);
        count(failed, &mut self.status.failed);
    }

    fn account(&self, pod: &Pod, is_kept: bool, verdict: Option<&Verdict>) -> Account {
        let going = meta::is_terminating(&self.job.metadata);
        let failed = has_failed(self.spec, pod);
        let succeeded = pods::phase(pod) == "Succeeded";
        if !(going || verdict.is_some() || succeeded || (failed && !is_kept)) {
            return Account::Wait;
        }
        if self.is_listed(pod) || !self.is_valid(pod) {
            return Account::Settled;
        }
        if succeeded {
            let Indexes { told, failed, .. } = &self.indexes;
            let ended = |index: i32| {
                told.contains(index) || failed.as_ref().is_some_and(|f| f.contains(index))
            };
            let index = pod::completion_index(pod).filter(|_| is_indexed(self.spec));
            let settled = index.is_some_and(ended);
            return if settled { Account::Settled } else { Account::Succeeded };
        }
        // When the job has failed so has everything in it.
        if !failed && verdict.is_none_or(|v| v.success) {
            return Account::Settled;
        }
        let failure = policy::failure(self.spec, pod);
        // The message of a pod that fails the job must not be lost with the pod.
        let decided = verdict.is_none_or(|v| self.is_announced(v));
        match failure {
            policy::Failure::Ignored if decided => Account::Settled,
            policy::Failure::Ignored => Account::Wait,
            _ => Account::Failed,
        }
    }

    /// Whether the stored status announces the end.
    fn is_announced(&self, verdict: &Verdict) -> bool {
        let status = self.job.status.as_ref();
        status.is_some_and(|s| super::has_condition(s, verdict.interim()))
    }

    fn list(&mut self, which: usize, pod: &Pod) {
        let lists = lists(&mut self.status.uncounted_terminated_pods);
        lists[which].push(pod::uid(pod).to_owned());
    }

    fn tell_indexes(&mut self, new: BTreeSet<i32>) {
        let told = self.indexes.told.union(&Intervals::of(new));
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        self.status.succeeded = Some(number(told.total())).filter(|n| *n != 0);
        self.status.completed_indexes = Some(told.to_string()).filter(|text| !text.is_empty());
        self.status.failed_indexes = self.indexes.failed.as_ref().map(Intervals::to_string);
    }

    /// Announces the end, and when nothing is left to be counted, ends the job.
    fn conclude(&mut self, verdict: &Verdict, full: bool) {
        let announced = self.is_announced(verdict);
        let Verdict { reason, message, .. } = verdict;
        if !announced {
            self.set_condition(verdict.interim(), "True", reason, message);
            return;
        }
        let [succeeded, failed] = lists(&mut self.status.uncounted_terminated_pods);
        let left = !succeeded.is_empty() || !failed.is_empty() || !self.unaccounted.is_empty();
        if full || left || self.active() > 0 || self.ending() > 0 {
            return;
        }
        self.set_condition(verdict.terminal(), "True", reason, message);
        self.told = Some(if verdict.success {
            // A controller before, whose clock was ahead, may have written a start that is still to
            // come. No job may end before it starts.
            let start = self.status.start_time.as_ref().map(Time::from_meta);
            let end = start.map_or(self.now, |start| start.max(self.now));
            self.status.completion_time = Some(end.to_meta());
            announce::normal(self.job, "Completed", "Job completed".to_owned())
        } else {
            announce::warning(self.job, reason, message.clone())
        });
    }

    /// Empty lists are left out.
    fn drop_empty_lists(&mut self) {
        if let Some(uncounted) = &mut self.status.uncounted_terminated_pods {
            for list in [&mut uncounted.succeeded, &mut uncounted.failed] {
                if list.as_ref().is_some_and(Vec::is_empty) {
                    *list = None;
                }
            }
        }
    }
}

/// The UIDs that are listed: of pods that succeeded, and that failed.
fn lists(uncounted: &mut Option<UncountedTerminatedPods>) -> [&mut Vec<String>; 2] {
    let uncounted = uncounted.get_or_insert_default();
    [uncounted.succeeded.get_or_insert_default(), uncounted.failed.get_or_insert_default()]
}
