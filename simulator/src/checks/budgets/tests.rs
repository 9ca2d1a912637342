use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{
    Case, merge, node, object, one_with, placed, plan, pod_key, replica_set, replica_set_key,
};

fn budget(spec: &Value, status: &Value) -> Value {
    let mut value = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "d", "uid": "u-b"},
        "spec": {"selector": {"matchLabels": {"app": "r"}}}, "status": {
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}});
    merge(&mut value, &json!({"spec": spec, "status": status}));
    value
}

fn budget_key() -> Key {
    Key::new(Kind::PodDisruptionBudget, "d", "b")
}

fn member(name: &str, phase: &str) -> Value {
    let mut value = placed(name, "n1", phase);
    let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
        "uid": "u-r", "controller": true}]);
    merge(&mut value, &json!({"metadata": {"labels": {"app": "r"}, "ownerReferences": owners}}));
    value
}

/// The manager knows all that there is and writes what it has counted.
fn count(case: &mut Case<BudgetsHold>, by: ProcessId, budget: &Value) {
    case.show(by, &budget_key());
    let request =
        Request::Update { object: object(budget), subresource: Some(Subresource::Status) };
    case.call(by, &request);
    case.put(Some(by), budget);
}

fn case(spec: &Value) -> (Case<BudgetsHold>, ProcessId) {
    let mut case = Case::new(BudgetsHold::new(&plan()));
    let manager = case.manager();
    case.put(None, &node("n1", &json!({})));
    case.put(None, &replica_set(3, 3));
    case.put(None, &budget(spec, &json!({})));
    case.show(manager, &replica_set_key());
    for name in ["a", "b", "c"] {
        case.put(None, &member(name, "Running"));
        case.show(manager, &pod_key(name));
    }
    count(&mut case, manager, &budget(spec, &json!({"disruptionsAllowed": 1})));
    (case, manager)
}

fn grant(case: &mut Case<BudgetsHold>, name: &str) {
    case.tell(&Occurrence::EvictionGranted { pod: &pod_key(name) });
}

#[test]
fn p44_no_more_is_granted_than_can_be_spared() {
    for spec in [
        json!({"minAvailable": 2}),
        json!({"maxUnavailable": 1}),
        json!({"minAvailable": "50%"}),
        json!({"maxUnavailable": "33%"}),
    ] {
        let (mut case, _) = case(&spec);
        grant(&mut case, "a");
        case.is_right();
        grant(&mut case, "b");
        case.is_wrong(&["pods/d/b may be evicted", "poddisruptionbudgets/d/b 1 healthy pods of 2"]);
    }
}

#[test]
fn p44_a_count_that_forgets_what_was_granted_is_no_excuse() {
    let (mut case, manager) = case(&json!({"minAvailable": 2}));
    grant(&mut case, "a");
    count(&mut case, manager, &budget(&json!({"minAvailable": 2}), &json!({})));
    grant(&mut case, "b");
    case.is_wrong(&["pods/d/b may be evicted"]);
    // After two minutes a pod that is still there counts again.
    let (mut case, _) = self::case(&json!({"minAvailable": 2}));
    grant(&mut case, "a");
    case.advance(121);
    grant(&mut case, "b");
    case.is_right();
}

#[test]
fn p44_what_is_lost_otherwise_is_excused() {
    let (mut case, _) = case(&json!({"minAvailable": 2}));
    // The controller has not seen it.
    case.put(None, &member("c", "Pending"));
    grant(&mut case, "a");
    case.is_right();
    // Nobody relies on what does not run.
    grant(&mut case, "c");
    case.is_right();
}

#[test]
fn p44_at_rest_budgets_are_counted_right() {
    let (mut case, _) = case(&json!({"minAvailable": 2}));
    let right = json!({"currentHealthy": 3, "desiredHealthy": 2, "disruptionsAllowed": 1});
    case.put(None, &budget(&json!({"minAvailable": 2}), &right));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let noted = json!({"disruptedPods": {"a": "2026-01-01T00:00:00Z"}, "currentHealthy": 2,
        "desiredHealthy": 2, "disruptionsAllowed": 1});
    case.put(None, &budget(&json!({"minAvailable": 2}), &noted));
    one_with(&case.at_rest(), &["poddisruptionbudgets/d/b reports 1 disruptions", "0 is right"]);
}
