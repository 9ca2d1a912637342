//! The status of a deployment: counts, and whether a rollout gets on.

use std::time::Duration;

use api::{ApiError, Request, Time};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use machine::Plan;

use super::Pass;
use super::sets::Set;
use crate::ownership;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const SET_CREATED: &str = "NewReplicaSetCreated";
pub(super) const SET_FOUND: &str = "FoundNewReplicaSet";
pub(super) const SET_CREATION_FAILED: &str = "ReplicaSetCreateError";
const SET_UPDATED: &str = "ReplicaSetUpdated";
const SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// The condition of that type.
pub(super) fn condition<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn new_condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Time,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
    }
}

/// Sets a condition. The same status for the same reason is no news; the same status for another
/// reason keeps the time of the transition.
fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(old) = conditions.iter().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// How long a rollout may stand still; `None` when that is nobody's concern.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let secs = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (secs != i32::MAX).then(|| Duration::from_secs(u64::try_from(secs).unwrap_or(0)))
}

/// The write that notes that a replica set could not be created.
pub(super) fn creation_refused(
    deployment: &Deployment,
    set: &str,
    error: &ApiError,
    now: Time,
) -> Option<Request> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let message = format!("Failed to create new replica set \"{set}\": {error}");
    let new = new_condition(PROGRESSING, "False", SET_CREATION_FAILED, message, now);
    set_condition(&mut status, new);
    if deployment.status.as_ref() == Some(&status) {
        return None;
    }
    let mut deployment = deployment.clone();
    deployment.status = Some(status);
    Some(ownership::update_status(deployment))
}

impl<'a> Pass<'a> {
    /// Notes progress, if anybody set a deadline for it.
    pub(super) fn note_progress(&mut self, status: &str, reason: &str, message: String) {
        if deadline(self.deployment).is_some() {
            let new = new_condition(PROGRESSING, status, reason, message, self.now);
            set_condition(&mut self.status, new);
        }
    }

    /// Notes that the deployment was paused or resumed: the time it was paused does not count.
    pub(super) fn note_pause(&mut self) {
        let reason = condition(&self.status, PROGRESSING).and_then(|c| c.reason.as_deref());
        if reason == Some(TIMED_OUT) {
            return;
        }
        match (self.paused, reason == Some(PAUSED)) {
            (true, false) => {
                self.note_progress("Unknown", PAUSED, "Deployment is paused".to_owned());
            }
            (false, true) => {
                self.note_progress("Unknown", RESUMED, "Deployment is resumed".to_owned());
            }
            _ => {}
        }
    }

    /// Whether the status says that the rollout is over.
    pub(super) fn is_complete(&self, status: Option<&DeploymentStatus>) -> bool {
        let Some(status) = status else { return false };
        let is_all = |n: Option<i32>| n.unwrap_or(0) == self.replicas;
        is_all(status.updated_replicas)
            && is_all(status.replicas)
            && is_all(status.available_replicas)
            && status.observed_generation.unwrap_or(0)
                >= self.deployment.metadata.generation.unwrap_or(0)
    }

    fn sum(&self, count: impl Fn(&Set<'a>) -> i32) -> i32 {
        self.sets.all().map(count).fold(0, i32::saturating_add)
    }

    fn counted(&self) -> DeploymentStatus {
        let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
        let available = self.sum(Set::available);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(self.sum(Set::actual)),
            updated_replicas: nonzero(self.sets.new.as_ref().map_or(0, Set::actual)),
            ready_replicas: nonzero(self.sum(Set::ready)),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero(self.sets.replicas().saturating_sub(available).max(0)),
            ..self.status.clone()
        };
        let enough = available >= self.replicas - self.strategy.unavailable;
        set_condition(
            &mut status,
            if enough {
                let message = "Deployment has minimum availability.".to_owned();
                new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", message, self.now)
            } else {
                let message = "Deployment does not have minimum availability.".to_owned();
                new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, self.now)
            },
        );
        status
    }

    /// Reports counts and availability.
    pub(super) fn report_counts(&self, plan: &mut Plan) {
        let status = self.counted();
        self.finish(status, plan);
    }

    /// Reports counts, availability and how the rollout gets on.
    pub(super) fn report_rollout(&self, plan: &mut Plan) {
        let mut status = self.counted();
        let deadline = deadline(self.deployment);
        if deadline.is_none() {
            remove_condition(&mut status, PROGRESSING);
        }
        let current = condition(&self.status, PROGRESSING).cloned();
        let over = status.replicas == status.updated_replicas
            && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(SET_AVAILABLE));
        if let Some(deadline) = deadline.filter(|_| !over) {
            self.judge_progress(&mut status, current.as_ref(), deadline);
        }
        match self.set_failure() {
            Some(failure) => set_condition(&mut status, failure),
            None => remove_condition(&mut status, REPLICA_FAILURE),
        }
        if let Some(deadline) = deadline {
            self.revisit(&status, deadline, plan);
        }
        self.finish(status, plan);
    }

    fn judge_progress(
        &self,
        status: &mut DeploymentStatus,
        current: Option<&DeploymentCondition>,
        deadline: Duration,
    ) {
        let subject = match &self.sets.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.name()),
            None => {
                let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
                format!("Deployment \"{name}\"")
            }
        };
        if self.is_complete(Some(status)) {
            let message = format!("{subject} has successfully progressed.");
            let new = new_condition(PROGRESSING, "True", SET_AVAILABLE, message, self.now);
            set_condition(status, new);
        } else if self.has_progressed(status) {
            let message = format!("{subject} is progressing.");
            let mut new = new_condition(PROGRESSING, "True", SET_UPDATED, message, self.now);
            if let Some(current) = current.filter(|c| c.status == "True") {
                new.last_transition_time = current.last_transition_time.clone();
            }
            // Progress for the same reason is news all the same: it restarts the deadline.
            remove_condition(status, PROGRESSING);
            set_condition(status, new);
        } else if current.is_some_and(|c| self.has_timed_out(c, deadline)) {
            let message = format!("{subject} has timed out progressing.");
            let new = new_condition(PROGRESSING, "False", TIMED_OUT, message, self.now);
            set_condition(status, new);
        }
    }

    fn has_progressed(&self, status: &DeploymentStatus) -> bool {
        let n = |n: Option<i32>| n.unwrap_or(0);
        let before = self.deployment.status.clone().unwrap_or_default();
        let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
        n(status.updated_replicas) > n(before.updated_replicas)
            || old(status) < old(&before)
            || n(status.ready_replicas) > n(before.ready_replicas)
            || n(status.available_replicas) > n(before.available_replicas)
    }

    fn has_timed_out(&self, current: &DeploymentCondition, deadline: Duration) -> bool {
        match current.reason.as_deref() {
            Some(SET_AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => updated_at(current) + deadline < self.now,
        }
    }

    /// Looks again when the deadline will have passed.
    fn revisit(&self, status: &DeploymentStatus, deadline: Duration, plan: &mut Plan) {
        let Some(current) = condition(status, PROGRESSING) else { return };
        let settled = matches!(current.reason.as_deref(), Some(TIMED_OUT | SET_AVAILABLE));
        if !settled && !self.is_complete(Some(status)) {
            let due = updated_at(current) + deadline + Duration::from_secs(1);
            plan.revisit_in(due.since(self.now).max(Duration::from_secs(1)));
        }
    }

    /// The failure of a replica set to create pods, first of the new one.
    fn set_failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &Set<'_>| {
            let conditions = set.set.status.as_ref()?.conditions.as_ref()?;
            let found = conditions.iter().find(|c| c.type_ == REPLICA_FAILURE)?;
            Some(DeploymentCondition {
                type_: found.type_.clone(),
                status: found.status.clone(),
                reason: found.reason.clone(),
                message: found.message.clone(),
                last_transition_time: found.last_transition_time.clone(),
                last_update_time: found.last_transition_time.clone(),
            })
        };
        self.sets.new.iter().chain(&self.sets.old).find_map(failure)
    }

    /// Writes the deployment, once: its revision if that changed, else its status.
    fn finish(&self, status: DeploymentStatus, plan: &mut Plan) {
        if let Some(request) = self.renumbered() {
            plan.request(request);
        } else if self.deployment.status.as_ref() != Some(&status) {
            let mut deployment = self.deployment.clone();
            deployment.status = Some(status);
            plan.request(ownership::update_status(deployment));
        }
    }
}

fn updated_at(condition: &DeploymentCondition) -> Time {
    condition.last_update_time.as_ref().map(Time::from_meta).unwrap_or_default()
}
