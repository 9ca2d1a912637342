//! What a daemon set reports.

use api::Request;
use machine::Plan;

use super::Pass;
use crate::replicas::{nonzero, number};
use crate::{ownership, pods};

impl Pass<'_> {
    /// The write of the status, if it says something else than before; asks to be called again when
    /// a pod becomes available.
    pub(super) fn report(&self, plan: &mut Plan) -> Option<Request> {
        let mut status = self.set.status.clone().unwrap_or_default();
        let [mut desired, mut current, mut misplaced] = [0_usize; 3];
        let [mut ready, mut updated, mut available] = [0_usize; 3];
        for (node, fit) in &self.nodes {
            let first = self.pods_of(node).first();
            desired += usize::from(fit.run);
            let Some(pod) = first.filter(|_| fit.run) else {
                misplaced += usize::from(first.is_some());
                continue;
            };
            current += 1;
            updated += usize::from(self.is_updated(pod));
            ready += usize::from(pods::is_ready(pod));
            available += usize::from(self.is_available(pod));
        }
        // A pod beside the first one may be what a rollout waits for.
        for pod in self.on_node.values().flatten() {
            if let Some(at) = self.available_at(pod).filter(|at| *at > self.now) {
                plan.revisit_in(at.since(self.now));
            }
        }
        status.desired_number_scheduled = number(desired);
        status.current_number_scheduled = number(current);
        status.number_misscheduled = number(misplaced);
        status.number_ready = number(ready);
        status.updated_number_scheduled = nonzero(updated);
        status.number_available = nonzero(available);
        status.number_unavailable = nonzero(desired - available);
        status.observed_generation = self.set.metadata.generation;
        if self.set.status.as_ref() == Some(&status) {
            return None;
        }
        let mut set = self.set.clone();
        set.status = Some(status);
        Some(ownership::update_status(set))
    }
}
