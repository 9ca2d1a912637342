//! What a stateful set reports.

use api::{Pod, Request, meta};
use machine::Plan;

use super::{Pass, is_running, revision_of};
use crate::replicas::{nonzero, number};
use crate::{ownership, pods};

impl Pass<'_> {
    /// The write of the status, if it says something else than before; asks to be called again when
    /// a pod becomes available. The pod that a rollout gives up is not counted as of the current
    /// revision any more: it must not come back as one.
    pub(super) fn report(&self, given_up: Option<&Pod>, plan: &mut Plan) -> Option<Request> {
        let mut status = self.set.status.clone().unwrap_or_default();
        let [mut ready, mut available, mut current, mut updated] = [0_usize; 4];
        for pod in self.pods.values() {
            if is_running(pod) && pods::is_ready(pod) {
                ready += 1;
                available += usize::from(self.is_available(pod));
                let at = self.available_at(pod);
                if let Some(at) = at.filter(|at| *at > self.now) {
                    plan.revisit_in(at.since(self.now));
                }
            }
            if !meta::is_terminating(&pod.metadata) {
                let is_given_up = given_up.is_some_and(|given_up| std::ptr::eq(given_up, *pod));
                let revision = revision_of(pod);
                current += usize::from(revision == self.history.current && !is_given_up);
                updated += usize::from(revision == self.history.update);
            }
        }
        let range = self.range();
        let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut revision = self.history.current;
        // A rollout is complete.
        if self.rolls() && [self.pods.len(), ready, updated] == [wanted; 3] {
            current = updated;
            revision = self.history.update;
        }
        status.replicas = number(self.pods.len());
        status.ready_replicas = nonzero(ready);
        status.available_replicas = Some(number(available));
        status.current_replicas = nonzero(current);
        status.updated_replicas = nonzero(updated);
        status.current_revision = Some(revision.to_owned());
        status.update_revision = Some(self.history.update.to_owned());
        status.observed_generation = self.set.metadata.generation;
        status.collision_count.get_or_insert(0);
        if self.set.status.as_ref() == Some(&status) {
            return None;
        }
        let mut set = self.set.clone();
        set.status = Some(status);
        Some(ownership::update_status(set))
    }
}
