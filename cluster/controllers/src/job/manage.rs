//! So many pods as the job asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{ApiObject, Key, Pod, Request};
use machine::{Announcement, Plan};

use super::intervals::Intervals;
use super::pass::{Pass, Verdict};
use super::{BURST_MAX, is_indexed, is_suspended, pod, replaces_only_ended};
use crate::{announce, ownership};

impl<'a> Pass<'a> {
    /// Deletes all active pods: the job has ended. With a job that failed they have failed, too.
    pub(super) fn stop(&self, verdict: &Verdict, plan: &mut Plan) {
        let keys = self.owned.into_iter().flat_map(|o| o.active_keys()).take(BURST_MAX);
        let active = self.pods_of(keys);
        if verdict.success {
            self.let_go(active, plan);
        } else {
            active.into_iter().for_each(|pod| self.delete(pod, plan));
        }
    }

    /// Makes or removes pods.
    pub(super) fn manage(&self, plan: &mut Plan) {
        let active = self.active();
        let wanted = self.wanted();
        let surplus = self.surplus(active.saturating_sub(wanted));
        if !surplus.is_empty() {
            self.let_go(surplus, plan);
        } else if wanted > active + self.awaited() {
            self.create(wanted - active - self.awaited(), plan);
        } else {
            self.track_again(plan);
        }
    }

    /// How many pods shall be active.
    fn wanted(&self) -> usize {
        if is_suspended(self.spec) {
            return 0;
        }
        let number = |n: i32| usize::try_from(n).unwrap_or(0);
        let parallelism = number(self.spec.parallelism.unwrap_or(1));
        match self.spec.completions {
            Some(completions) => {
                number(completions).saturating_sub(self.succeeded).min(parallelism)
            }
            // After a success what runs may end, and nothing is begun.
            None if self.succeeded > 0 => self.active(),
            None => parallelism,
        }
    }

    /// The pods to remove: doubles and strangers among the indexes, and at least so many.
    fn surplus(&self, at_least: usize) -> Vec<&'a Pod> {
        let mut surplus: Vec<&'a Pod> = Vec::new();
        let Some(owned) = self.owned else { return surplus };
        let mut strangers: Vec<&'a Arc<Key>> = Vec::new();
        if is_indexed(self.spec) {
            let completions = self.spec.completions.unwrap_or(0);
            for (index, keys) in &owned.active {
                match index {
                    Some(index) if *index < completions => {
                        if keys.len() > 1 {
                            let mut pods = self.pods_of(keys);
                            pods.sort_by_cached_key(|pod| pod::removal_order(pod));
                            pods.pop();
                            surplus.extend(pods);
                        }
                    }
                    _ => strangers.extend(keys),
                }
            }
        }
        surplus.extend(self.pods_of(strangers));
        if surplus.len() < at_least {
            let mut left = self.pods_of(owned.active_keys());
            if !surplus.is_empty() {
                let gone: BTreeSet<&str> = surplus.iter().map(|p| pod::uid(p)).collect();
                left.retain(|p| !gone.contains(pod::uid(p)));
            }
            left.sort_by_cached_key(|pod| pod::removal_order(pod));
            surplus.extend(left.into_iter().take(at_least - surplus.len()));
        }
        surplus.truncate(BURST_MAX);
        surplus
    }

    /// Removes pods that shall not count as failed: first nobody counts them any more, and when
    /// that is seen they are deleted.
    fn let_go(&self, surplus: Vec<&Pod>, plan: &mut Plan) {
        let tracked: Vec<&&Pod> = surplus.iter().filter(|p| pod::is_tracked(p)).collect();
        for pod in &tracked {
            let object = pod::untracked(pod).into_object();
            plan.request(Request::Update { object, subresource: None });
        }
        if tracked.is_empty() {
            surplus.into_iter().for_each(|pod| self.delete(pod, plan));
        }
    }

    /// A pod that was to go and is wanted again, or of which somebody removed the finalizer, is
    /// tracked anew: else nobody would learn of its end.
    fn track_again(&self, plan: &mut Plan) {
        let keys = self.owned.into_iter().flat_map(|o| &o.untracked).take(BURST_MAX);
        for pod in self.pods_of(keys) {
            let object = pod::tracked(pod).into_object();
            plan.request(Request::Update { object, subresource: None });
        }
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let done = announce::normal(self.job, "SuccessfulDelete", format!("Deleted pod: {name}"));
        let refused = announce::warning(self.job, "FailedDelete", "Error deleting: ".to_owned());
        plan.request_announced(
            ownership::delete(pod),
            Announcement { done: Some(done), refused: Some(refused) },
        );
    }

    /// The first indexes for which no pod runs, has succeeded or may not be tried again.
    pub(super) fn pending_indexes(&self, count: usize) -> Vec<i32> {
        let completions = self.spec.completions.unwrap_or(0);
        let active = self.owned.into_iter().flat_map(|o| o.active.keys());
        let mut taken = self.indexes.succeeded.union(&Intervals::of(active.flatten().copied()));
        if replaces_only_ended(self.spec) {
            // They are sorted by index.
            let ending = self.unaccounted.iter().filter(|p| pod::is_ending(p));
            taken = taken.union(&Intervals::of(ending.filter_map(|p| pod::completion_index(p))));
        }
        if let Some(failed) = &self.indexes.failed {
            taken = taken.union(failed);
        }
        taken.gaps().take_while(|index| *index < completions).take(count).collect()
    }
}
