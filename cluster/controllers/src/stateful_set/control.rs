//! Which pods come, go and give way to newer ones, and in which order.

use api::{ApiObject, Pod, Request, meta};
use machine::{Announcement, Plan};

use super::claims::Readiness;
use super::{BURST_MAX, Pass, identity, revision_of};
use crate::ownership::{self, workload_selector};
use crate::{announce, pods};

impl<'a> Pass<'a> {
    /// Brings each wanted ordinal to a pod, and then takes the others from theirs. Whether a
    /// rollout may go on: in order, not before all is well.
    pub(super) fn scale(&self, plan: &mut Plan) -> bool {
        let before = plan.requests.len();
        for (ordinal, pod) in self.pods.iter().filter(|(o, _)| !self.range().contains(o)) {
            self.own_claims(*ordinal, pod, plan);
        }
        // What shall go with an unwanted pod must know it before.
        plan.requests.len() == before && self.fill(plan) && self.drain(plan)
    }

    /// From the lowest ordinal up: creates what is missing, removes what has ended so that it can
    /// be missing. In order, nothing happens beyond the first pod that is not available.
    fn fill(&self, plan: &mut Plan) -> bool {
        for ordinal in self.range() {
            if plan.requests.len() >= BURST_MAX {
                return false;
            }
            let Some(pod) = self.pods.get(&ordinal) else {
                if self.provide(ordinal, plan) == Readiness::Wait {
                    if self.is_ordered() {
                        return false;
                    }
                    continue;
                }
                if self.create(ordinal, plan).is_none() || self.is_ordered() {
                    return false;
                }
                continue;
            };
            if pods::phase(pod) == "Pending" {
                // Nobody starts a pod without its claims.
                let missing = self.provide(ordinal, plan) == Readiness::Wait;
                if missing && self.is_ordered() {
                    return false;
                }
            }
            self.own_claims(ordinal, pod, plan);
            if pods::is_terminal(pod) {
                // There will be another of that name when this one is gone, not before.
                if !meta::is_terminating(&pod.metadata) {
                    self.delete(pod, plan);
                }
                if self.is_ordered() {
                    return false;
                }
                continue;
            }
            if self.is_ordered() && !self.is_healthy(pod) {
                return false;
            }
            if let Some(repair) = identity::repair(pod, ordinal) {
                plan.request_announced(repair, self.announcement("Update", pod));
            }
        }
        true
    }

    /// From the highest ordinal down: deletes pods that are not wanted. In order, one at a time,
    /// and only when it is available or the lowest that is not. (Kubernetes also waits for pods that
    /// have ended, of which two keep each other for ever.)
    fn drain(&self, plan: &mut Plan) -> bool {
        let range = self.range();
        let unwanted = || self.pods.iter().filter(|(ordinal, _)| !range.contains(ordinal));
        let ill = unwanted().map(|(_, pod)| *pod).find(|pod| !self.is_healthy(pod));
        for (_, pod) in unwanted().rev() {
            let going = meta::is_terminating(&pod.metadata);
            if !self.is_ordered() {
                if plan.requests.len() >= BURST_MAX {
                    return false;
                }
                if !going {
                    self.delete(pod, plan);
                }
                continue;
            }
            let first = ill.is_some_and(|ill| std::ptr::eq(ill, *pod));
            if !going && (self.is_available(pod) || first || pods::is_terminal(pod)) {
                self.delete(pod, plan);
            }
            return false;
        }
        true
    }

    /// Deletes the highest pod that is not of today's template, unless one above is not yet
    /// available; returns it.
    pub(super) fn roll(&self, plan: &mut Plan) -> Option<&'a Pod> {
        let first = self.partition().unwrap_or(self.range().start);
        for ordinal in (first..self.range().end).rev() {
            let pod = self.pods.get(&ordinal)?;
            let going = meta::is_terminating(&pod.metadata) || pods::is_terminal(pod);
            if !going && revision_of(pod) != self.history.update {
                self.delete(pod, plan);
                return Some(pod);
            }
            if !self.is_healthy(pod) {
                return None;
            }
        }
        None
    }

    /// Whether a pod of that ordinal is still made of the current revision. Without a partition,
    /// this holds for as many as the status counts, so that what a rollout has not reached is made
    /// good as it was.
    fn is_held_back(&self, ordinal: i64) -> bool {
        let counted = self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
        let reached = self.range().start + i64::from(counted);
        self.rolls() && ordinal < self.partition().unwrap_or(reached)
    }

    fn create(&self, ordinal: i64, plan: &mut Plan) -> Option<()> {
        let history = &self.history;
        let pod = if self.is_held_back(ordinal) && history.current != history.update {
            identity::pod(self.set, &history.template()?, history.current, ordinal)
        } else {
            identity::pod(self.set, &self.spec.template, history.update, ordinal)
        };
        // It would be released at once, and stand in the way of the next one.
        if !workload_selector(&self.spec.selector).matches(pod.metadata.labels.as_ref()) {
            return None;
        }
        let announcement = self.announcement("Create", &pod);
        plan.request_announced(Request::Create(pod.into_object()), announcement);
        Some(())
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        plan.request_announced(ownership::delete(pod), self.announcement("Delete", pod));
    }

    fn announcement(&self, verb: &str, pod: &Pod) -> Announcement {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let what = format!("{} Pod {name} in StatefulSet {}", verb.to_lowercase(), self.name());
        let done =
            announce::normal(self.set, &format!("Successful{verb}"), format!("{what} successful"));
        let refused =
            announce::warning(self.set, &format!("Failed{verb}"), format!("{what} failed error: "));
        Announcement { done: Some(done), refused: Some(refused) }
    }
}
