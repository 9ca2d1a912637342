//! Evictions: deletions of pods that a `PodDisruptionBudget` can refuse.
//!
//! [`decide`] says what is to be done about one, given the pod and the budgets of its namespace as
//! committed. Whoever carries it out first spends the budget, if one is to be spent, then marks
//! the pod ([`Operation::Disrupt`](crate::Operation::Disrupt)) and deletes it.
//!
//! Source: kubernetes 1.33, `pkg/registry/core/pod/storage/eviction.go`.

use std::sync::Arc;

use api::{Cause, Object, Pod, Reason, Status, Time, disruption, meta};
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::operation::{Caller, DeleteOptions, Mutation};
use crate::{admission, deletion};

/// Evictions that were granted and that the controller has not seen yet: with more of them, it
/// must have stopped.
const DISRUPTED_PODS_MAX: usize = 2000;

/// When a client is to try again while a budget is out of date.
const RETRY_SECONDS: u32 = 10;

/// What is to be done about an eviction.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The budget with one disruption less, whose status is stored first; `None` when no budget
    /// is spent. When it was changed meanwhile, decide anew.
    pub spend: Option<Object>,
    /// How the pod is deleted. If the decision rests on the state of the pod, its revision is
    /// among the preconditions.
    pub options: DeleteOptions,
    /// What a conflict of the deletion means.
    pub on_conflict: OnConflict,
}

/// What it means that the pod was changed since the decision.
#[derive(Clone, Debug, PartialEq)]
pub enum OnConflict {
    /// The caller asked for another state of the pod.
    Refuse,
    /// Decide anew.
    DecideAnew,
    /// The pod may be ready by now: the caller is told to try again.
    Answer(Box<Status>),
}

/// Decides whether a pod may be evicted. `budgets` are those of its namespace.
///
/// # Errors
/// The refusal, as Kubernetes words it.
pub fn decide(
    caller: &Caller,
    object: &Object,
    budgets: &[Object],
    options: &DeleteOptions,
    now: Time,
) -> Result<Decision, Status> {
    let Some(pod) = object.get::<Pod>() else { return Err(Status::no_route()) };
    admission::evict(caller, object)?;
    let plain = Decision { spend: None, options: options.clone(), on_conflict: OnConflict::Refuse };
    let at_revision = |on_conflict| {
        let mut decision = plain.clone();
        if options.revision.is_none() {
            decision.options.revision = Some(object.revision());
            decision.on_conflict = on_conflict;
        }
        decision
    };
    if has_ended(pod) {
        return Ok(plain);
    }
    if phase(pod) == "Pending" {
        return Ok(at_revision(OnConflict::DecideAnew));
    }
    let labels = pod.metadata.labels.as_ref();
    let mut matching = budgets
        .iter()
        .filter_map(Object::share::<PodDisruptionBudget>)
        .filter(|budget| disruption::selector(budget).matches(labels));
    let Some(mut budget) = matching.next() else { return Ok(plain) };
    if matching.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction \
                       subresource does not support.";
        return Err(Status::new(Reason::InternalError, message));
    }
    if !is_ready(pod) && lets_unhealthy_go(&budget) {
        let waiting = out_of_date(name(&budget));
        return Ok(at_revision(OnConflict::Answer(Box::new(waiting))));
    }
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    spend(Arc::make_mut(&mut budget), pod_name, now)?;
    Ok(Decision { spend: Some(Object::PodDisruptionBudget(budget)), ..plain })
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has been disrupted already: nothing that happens now makes it worse.
fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed") || meta::is_terminating(&pod.metadata)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn name(budget: &PodDisruptionBudget) -> &str {
    budget.metadata.name.as_deref().unwrap_or_default()
}

/// Whether a pod that is not ready may go without the budget being spent: it does not count.
fn lets_unhealthy_go(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    if policy == Some("AlwaysAllow") {
        return true;
    }
    let status = budget.status.as_ref();
    status.is_some_and(|s| s.desired_healthy > 0 && s.current_healthy >= s.desired_healthy)
}

/// Takes one disruption from the budget, in favour of that pod.
fn spend(budget: &mut PodDisruptionBudget, pod: String, now: Time) -> Result<(), Status> {
    let name = name(budget).to_owned();
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        return Err(out_of_date(&name));
    }
    if status.disruptions_allowed < 0 {
        return Err(unsound(&name, "pdb disruptions allowed is negative"));
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if disrupted.len() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(unsound(&name, why));
    }
    if status.disruptions_allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy, status.current_healthy
        );
        return Err(too_many(why, 0));
    }
    status.disruptions_allowed -= 1;
    disrupted.insert(pod, now.to_meta());
    if status.disruptions_allowed == 0 {
        disruption::set_condition(status, now);
    }
    Ok(())
}

fn too_many(why: String, retry_after_seconds: u32) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() };
    Status {
        causes: vec![cause],
        retry_after_seconds,
        ..Status::new(Reason::TooManyRequests, message)
    }
}

fn out_of_date(budget: &str) -> Status {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    too_many(why, RETRY_SECONDS)
}

/// The refusal to use a status that cannot be right; it names the resource in the singular.
fn unsound(budget: &str, why: &str) -> Status {
    let message = format!("poddisruptionbudget.policy \"{budget}\" is forbidden: {why}");
    Status {
        kind: "poddisruptionbudget".to_owned(),
        group: "policy".to_owned(),
        name: budget.to_owned(),
        ..Status::new(Reason::Forbidden, message)
    }
}

/// Marks the pod as the target of an eviction.
///
/// # Errors
/// A precondition of the deletion that does not hold.
pub(crate) fn mark(
    current: &Object,
    options: &DeleteOptions,
    now: Time,
) -> Result<Mutation, Status> {
    let mut object = current.clone();
    let Object::Pod(pod) = &mut object else { return Err(Status::no_route()) };
    deletion::check_preconditions(current, options)?;
    let mut target = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: Some(now.to_meta()),
        ..PodCondition::default()
    };
    let conditions = |pod: &Pod| pod.status.as_ref().and_then(|s| s.conditions.clone());
    let mut list = conditions(pod).unwrap_or_default();
    match list.iter_mut().find(|c| c.type_ == target.type_) {
        Some(old) => {
            if old.status == target.status {
                target.last_transition_time.clone_from(&old.last_transition_time);
            }
            if *old == target {
                return Ok(Mutation::Unchanged(object));
            }
            *old = target;
        }
        None => list.push(target),
    }
    Arc::make_mut(pod).status.get_or_insert_default().conditions = Some(list);
    Ok(Mutation::put(object))
}

#[cfg(test)]
mod tests;
