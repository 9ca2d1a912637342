//! What the API server and the disruption controller both know of a `PodDisruptionBudget`: which
//! pods it is about, and its `DisruptionAllowed` condition.
//!
//! Source: kubernetes 1.33, `k8s.io/component-helpers/apps/poddisruptionbudget`.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::Time;
use crate::selector::Selector;

/// The type of the condition.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// The selector of a budget. None matches nothing, as does a malformed one, which the API
/// refuses; the empty one matches every pod of the namespace.
pub fn selector(budget: &PodDisruptionBudget) -> Selector {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.and_then(|s| Selector::of_label_selector(s).ok()).unwrap_or_else(Selector::nothing)
}

/// Makes the condition say whether disruptions are allowed.
pub fn set_condition(status: &mut PodDisruptionBudgetStatus, now: Time) {
    if status.disruptions_allowed > 0 {
        set(status, "True", "SufficientPods", String::new(), now);
    } else {
        set(status, "False", "InsufficientPods", String::new(), now);
    }
}

/// Makes the condition say why nobody could tell whether disruptions are allowed.
pub fn set_sync_failed(status: &mut PodDisruptionBudgetStatus, why: String, now: Time) {
    set(status, "False", "SyncFailed", why, now);
}

fn set(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: String,
    now: Time,
) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|c| c.type_ == DISRUPTION_ALLOWED);
    let since = old.and_then(|at| conditions.get(at)).filter(|c| c.status == value);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation,
        last_transition_time: since
            .map_or_else(|| now.to_meta(), |c| c.last_transition_time.clone()),
    };
    match old.and_then(|at| conditions.get_mut(at)) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_condition_is_dated_by_its_last_change() {
        let mut status = PodDisruptionBudgetStatus::default();
        let mut check = |allowed: i32, at: u64, expected: [&str; 2], since: u64| {
            status.disruptions_allowed = allowed;
            set_condition(&mut status, Time::from_secs(at));
            let [condition] = status.conditions.as_deref().unwrap() else { panic!("one") };
            assert_eq!([condition.status.as_str(), condition.reason.as_str()], expected);
            assert_eq!(Time::from_meta(&condition.last_transition_time), Time::from_secs(since));
        };
        check(0, 10, ["False", "InsufficientPods"], 10);
        check(0, 20, ["False", "InsufficientPods"], 10);
        check(2, 30, ["True", "SufficientPods"], 30);
        check(1, 40, ["True", "SufficientPods"], 30);
        set_sync_failed(&mut status, "no".to_owned(), Time::from_secs(50));
        let failed = status.conditions.as_deref().unwrap();
        assert_eq!((failed[0].reason.as_str(), failed[0].message.as_str()), ("SyncFailed", "no"));
        set_condition(&mut status, Time::from_secs(60));
        assert_eq!(status.conditions.unwrap()[0].message, "");
    }

    #[test]
    fn no_selector_selects_nothing_and_an_empty_one_everything() {
        let check = |selector: Value, matches: bool| {
            let budget: PodDisruptionBudget =
                serde_json::from_value(json!({"metadata": {}, "spec": {"selector": selector}}))
                    .unwrap();
            let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            assert_eq!(super::selector(&budget).matches(Some(&labels)), matches, "{selector}");
        };
        check(Value::Null, false);
        check(json!({}), true);
        check(json!({"matchLabels": {"a": "b"}}), true);
        check(json!({"matchLabels": {"a": "c"}}), false);
        check(json!({"matchExpressions": [{"key": "a", "operator": "?"}]}), false);
    }
}
