//! The pause after failures: how many pods have failed in a row, and when the last of them did.
//!
//! The pods there are tell it; what they told once is remembered, so that a failed pod which is
//! deleted takes nothing of the pause with it. A new process knows only of the pods that are left.
//!
//! Source: kubernetes 1.33, `pkg/controller/job/backoff_utils.go`.

use std::collections::BTreeMap;
use std::time::Duration;

use api::hash::fnv64;
use api::{Pod, Time};
use machine::Memory;

use super::limits::{FAILURES_MAX, remaining};
use super::pass::Pass;
use super::{pod, replaces_only_ended};

/// The job that the notes are of.
const JOB: &str = "job";
/// The pods that failed last since one succeeded: when, and which.
const FAILED: &str = "failed";
/// When a pod succeeded last.
const SUCCEEDED: &str = "succeeded";

/// What stands for a UID in a note.
fn number_of(uid: &str) -> i64 {
    fnv64(uid.as_bytes()).cast_signed()
}

impl Pass<'_> {
    /// Notes what the pods tell, and takes up what they told before.
    pub(super) fn remember(&mut self, memory: &mut Memory) {
        let job = number_of(self.job.metadata.uid.as_deref().unwrap_or_default());
        if memory.last(JOB).is_some_and(|(_, known)| known != job) {
            memory.notes.clear();
        }
        let known = memory.notes.remove(FAILED).unwrap_or_default();
        let mut failed: BTreeMap<i64, Time> = known.into_iter().map(|(at, of)| (of, at)).collect();
        failed.extend(self.failures());
        let told = self.owned.and_then(|o| o.succeeded.last()).map(|(time, _)| *time);
        let success = memory.last(SUCCEEDED).map(|(time, _)| time).max(told);
        let mut failed: Vec<(Time, i64)> = failed
            .into_iter()
            .map(|(of, at)| (at, of))
            .filter(|(at, _)| success.is_none_or(|success| *at > success))
            .collect();
        failed.sort_unstable();
        failed.drain(..failed.len().saturating_sub(FAILURES_MAX));
        self.failed_in_a_row = failed.iter().map(|(at, _)| *at).collect();
        if failed.is_empty() && success.is_none() {
            memory.notes.clear();
            return;
        }
        memory.notes.insert(JOB, vec![(Time::ZERO, job)]);
        memory.notes.insert(FAILED, failed);
        if let Some(success) = success {
            memory.notes.insert(SUCCEEDED, vec![(success, 0)]);
        }
    }

    /// The pods there are that failed last, and when they did.
    fn failures(&self) -> Vec<(i64, Time)> {
        let Some(owned) = self.owned else { return Vec::new() };
        let keys = owned.failed.iter().rev().take(FAILURES_MAX).map(|(_, key)| key);
        let ended = self.pods_of(keys);
        let ending: Vec<&Pod> = match replaces_only_ended(self.spec) {
            true => Vec::new(),
            false => self.unaccounted.iter().copied().filter(|p| pod::is_ending(p)).collect(),
        };
        let all = ended.into_iter().chain(ending);
        all.map(|pod| (number_of(pod::uid(pod)), pod::finish_time(pod))).collect()
    }

    /// How long no pod may be made, because pods have failed since one succeeded last.
    pub(super) fn backoff(&self) -> Duration {
        let last = self.failed_in_a_row.last();
        last.map_or(Duration::ZERO, |last| remaining(self.failed_in_a_row.len(), *last, self.now))
    }
}
