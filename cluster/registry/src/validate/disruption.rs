//! Budgets for the disruption of pods.
//!
//! Source: kubernetes 1.33, `pkg/apis/policy/validation`.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{condition, selector};
use crate::field::{Causes, Json, Path};
use crate::names;

/// What may happen to pods that are not ready.
const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub(super) fn budget(budget: &PodDisruptionBudget, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &budget.spec else { return };
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        causes.invalid(&path, Json(spec), "minAvailable and maxUnavailable cannot be both set");
    }
    if let Some(amount) = &spec.min_available {
        share(amount, &path.child("minAvailable"), causes);
    }
    if let Some(amount) = &spec.max_unavailable {
        share(amount, &path.child("maxUnavailable"), causes);
    }
    if let Some(wanted) = &spec.selector {
        selector::label_selector(wanted, &path.child("selector"), causes);
    }
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy
        && !POLICIES.contains(&policy.as_str())
    {
        causes.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &POLICIES);
    }
}

/// Checks a number of pods, or a share of them.
fn share(amount: &IntOrString, path: &Path<'_>, causes: &mut Causes) {
    match amount {
        IntOrString::Int(number) => causes.non_negative(path, i64::from(*number)),
        IntOrString::String(text) => {
            for message in names::percent(text) {
                causes.invalid(path, amount, &message);
            }
            // Digits too many for a number are more than a hundred.
            let share = text.strip_suffix('%').map(|digits| digits.parse().unwrap_or(u64::MAX));
            if names::percent(text).is_empty() && share.is_some_and(|share| share > 100) {
                causes.invalid(path, amount, "must not be greater than 100%");
            }
        }
    }
}

pub(super) fn status(budget: &PodDisruptionBudget, causes: &mut Causes) {
    let path = Path::new("status");
    let Some(status) = &budget.status else { return };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    condition::conditions(conditions, &path.child("conditions"), causes);
    for (field, value) in [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ] {
        causes.non_negative(&path.child(field), i64::from(value));
    }
}
