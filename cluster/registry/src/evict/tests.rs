#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use api::{Kind, Revision, codec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: Time = Time::from_secs(1_700_000_000);

/// A pod of the labels `app=web`, at revision 7.
fn pod(name: &str, phase: &str, ready: bool) -> Object {
    let ready = if ready { "True" } else { "False" };
    object(json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "d", "uid": "u", "resourceVersion": "7",
            "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}}))
}

/// The budget `web` for `app=web`, seen by its controller.
fn budget(status: Value) -> Value {
    let mut value = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1",
        "metadata": {"name": "web", "namespace": "d", "generation": 2, "resourceVersion": "9"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 2,
            "desiredHealthy": 2, "expectedPods": 3}});
    for (key, new) in status.as_object().unwrap() {
        value["status"][key] = new.clone();
    }
    value
}

fn object(value: Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

fn decided(pod: &Object, budgets: &[Value], options: &DeleteOptions) -> Result<Decision, Status> {
    let budgets: Vec<Object> = budgets.iter().cloned().map(object).collect();
    decide(&Caller::default(), pod, &budgets, options, NOW)
}

/// What is decided, in short.
fn check(pod: Object, budgets: &[Value], expected: &str) {
    let found = match decided(&pod, budgets, &DeleteOptions::default()) {
        Err(status) => {
            let causes: Vec<String> =
                status.causes.iter().map(|c| format!(" [{}: {}]", c.reason, c.message)).collect();
            format!("{} {}{}", status.code, status.message, causes.join(""))
        }
        Ok(Decision { spend, options, on_conflict }) => {
            let spent = spend.map(|b| format!("spend {}, ", b.key().name)).unwrap_or_default();
            let at = options.revision.map(|r| format!(" at {r}")).unwrap_or_default();
            let then = match on_conflict {
                OnConflict::Refuse => "refuse".to_owned(),
                OnConflict::DecideAnew => "decide anew".to_owned(),
                OnConflict::Answer(status) => format!("answer {}", status.code),
            };
            format!("{spent}delete{at}, else {then}")
        }
    };
    assert_eq!(found, expected);
}

const REFUSED: &str = "429 Cannot evict pod as it would violate the pod's disruption budget.";

#[test]
fn who_has_ended_or_not_begun_needs_no_budget() {
    let spent = [budget(json!({}))];
    check(pod("p", "Succeeded", false), &spent, "delete, else refuse");
    check(pod("p", "Failed", false), &spent, "delete, else refuse");
    check(pod("p", "Pending", false), &spent, "delete at 7, else decide anew");
    let mut going = pod("p", "Running", true);
    going.meta_mut().deletion_timestamp = Some(NOW.to_meta());
    check(going, &spent, "delete, else refuse");
}

#[test]
fn one_budget_decides() {
    let running = || pod("p", "Running", true);
    check(running(), &[], "delete, else refuse");
    check(running(), &[budget(json!({"disruptionsAllowed": 1}))], "spend web, delete, else refuse");
    let needs = "[DisruptionBudget: The disruption budget web needs 2 healthy pods and has 2 \
                 currently]";
    check(running(), &[budget(json!({}))], &format!("{REFUSED} {needs}"));
    let late = "[DisruptionBudget: The disruption budget web is still being processed by the \
                server.]";
    let old = budget(json!({"observedGeneration": 1, "disruptionsAllowed": 1}));
    check(running(), &[old], &format!("{REFUSED} {late}"));
    let forbidden = "403 poddisruptionbudget.policy \"web\" is forbidden:";
    let negative = budget(json!({"disruptionsAllowed": -1}));
    check(running(), &[negative], &format!("{forbidden} pdb disruptions allowed is negative"));
    let many: serde_json::Map<String, Value> =
        (0..2001).map(|i| (format!("p{i}"), json!("2023-11-14T22:13:20Z"))).collect();
    let unconfirmed = budget(json!({"disruptionsAllowed": 1, "disruptedPods": many}));
    check(
        running(),
        &[unconfirmed],
        &format!(
            "{forbidden} DisruptedPods map too big - too many evictions not confirmed by PDB \
             controller"
        ),
    );
    check(
        running(),
        &[budget(json!({})), budget(json!({}))],
        "500 This pod has more than one PodDisruptionBudget, which the eviction subresource does \
         not support.",
    );
}

#[test]
fn budgets_of_other_pods_do_not_matter() {
    for selector in [
        Value::Null,
        json!({"matchLabels": {"app": "db"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
    ] {
        let mut other = budget(json!({}));
        other["spec"]["selector"] = selector;
        check(pod("p", "Running", true), &[other], "delete, else refuse");
    }
    let mut every = budget(json!({"disruptionsAllowed": 1}));
    every["spec"]["selector"] = json!({});
    check(pod("p", "Running", true), &[every], "spend web, delete, else refuse");
}

#[test]
fn pods_that_are_not_ready_go_by_the_policy() {
    let sick = || pod("p", "Running", false);
    let goes = "delete at 7, else answer 429";
    check(sick(), &[budget(json!({}))], goes);
    let disturbed = || budget(json!({"currentHealthy": 1}));
    let refused = format!(
        "{REFUSED} [DisruptionBudget: The disruption budget web needs 2 healthy pods and has 1 \
         currently]"
    );
    check(sick(), &[disturbed()], &refused);
    for (policy, expected) in [("IfHealthyBudget", refused.as_str()), ("AlwaysAllow", goes)] {
        let mut budget = disturbed();
        budget["spec"]["unhealthyPodEvictionPolicy"] = policy.into();
        check(sick(), &[budget], expected);
    }
    // Nothing is known yet.
    let fresh = budget(json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 1}));
    check(sick(), &[fresh], "spend web, delete, else refuse");
}

#[test]
fn the_callers_revision_stands() {
    let options = DeleteOptions { revision: Some(Revision(5)), ..DeleteOptions::default() };
    for pod in [pod("p", "Pending", false), pod("p", "Running", false)] {
        let decision = decided(&pod, &[budget(json!({}))], &options).unwrap();
        assert_eq!(decision.options, options);
        assert_eq!(decision.on_conflict, OnConflict::Refuse);
    }
}

#[test]
fn what_is_spent_is_noted() {
    let check = |allowed: i32, reason: Option<&str>| {
        let budget = budget(json!({"disruptionsAllowed": allowed}));
        let decision =
            decided(&pod("p", "Running", true), &[budget], &DeleteOptions::default()).unwrap();
        let spent = codec::to_value(&decision.spend.unwrap());
        assert_eq!(spent["metadata"]["resourceVersion"], "9");
        assert_eq!(spent["status"]["disruptionsAllowed"], allowed - 1);
        assert_eq!(spent["status"]["disruptedPods"], json!({"p": "2023-11-14T22:13:20Z"}));
        assert_eq!(spent["status"]["conditions"][0]["reason"].as_str(), reason);
    };
    check(2, None);
    check(1, Some("InsufficientPods"));
}

#[test]
fn nodes_evict_their_own_pods_only() {
    let ask = |node: &str| {
        let caller = Caller {
            name: format!("system:node:{node}"),
            groups: vec!["system:nodes".to_owned()],
            ..Caller::default()
        };
        decide(&caller, &pod("p", "Running", true), &[], &DeleteOptions::default(), NOW)
    };
    assert!(ask("n").is_ok());
    assert_eq!(
        ask("m").unwrap_err().message,
        "pods \"p\" is forbidden: node \"m\" can only evict pods with spec.nodeName set to itself"
    );
}

#[test]
fn a_pod_is_marked_once() {
    let marked = |object: &Object, options: &DeleteOptions, now: Time| {
        mark(object, options, now).map(|mutation| mutation.object().clone())
    };
    let none = DeleteOptions::default();
    let first = marked(&pod("p", "Running", true), &none, NOW).unwrap();
    let condition = |object: &Object| {
        codec::to_value(object)["status"]["conditions"].as_array().unwrap().last().cloned()
    };
    assert_eq!(
        condition(&first).unwrap(),
        json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": "2023-11-14T22:13:20Z"})
    );
    let later = Time::from_secs(1_700_000_060);
    let again = mark(&first, &none, later).unwrap();
    assert_eq!(again, Mutation::Unchanged(first.clone()));
    // Somebody else's mark is replaced, but not its date.
    let mut value = codec::to_value(&first);
    value["status"]["conditions"][1]["reason"] = "DeletionByTaintManager".into();
    assert_eq!(condition(&marked(&object(value), &none, later).unwrap()), condition(&first));
}

#[test]
fn preconditions_hold_when_the_pod_is_marked() {
    let check = |options: DeleteOptions, expected: &str| {
        let status = mark(&pod("p", "Running", true), &options, NOW).unwrap_err();
        assert_eq!(
            status.message,
            format!("Operation cannot be fulfilled on pods \"p\": {expected}")
        );
    };
    check(
        DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() },
        "the UID in the precondition (other) does not match the UID in record (u). The object \
         might have been deleted and then recreated",
    );
    check(
        DeleteOptions { revision: Some(Revision(6)), ..DeleteOptions::default() },
        "the ResourceVersion in the precondition (6) does not match the ResourceVersion in record \
         (7). The object might have been modified",
    );
}

proptest! {
    /// Without its controller, a budget lets no more pods go than it allows.
    #[test]
    fn a_budget_is_never_overspent(allowed in 0..5_i32, asked in 0..10_usize) {
        let mut budget = object(budget(json!({"disruptionsAllowed": allowed})));
        let mut granted = 0;
        for i in 0..asked {
            let pod = pod(&format!("p{i}"), "Running", true);
            let budgets = [budget.clone()];
            let decision =
                decide(&Caller::default(), &pod, &budgets, &DeleteOptions::default(), NOW);
            if let Ok(decision) = decision {
                budget = decision.spend.unwrap();
                granted += 1;
            }
        }
        prop_assert_eq!(granted, i32::try_from(asked).unwrap().min(allowed));
        let status = budget.get::<PodDisruptionBudget>().unwrap().status.clone().unwrap();
        prop_assert_eq!(status.disruptions_allowed, allowed - granted);
        let noted = status.disrupted_pods.map_or(0, |pods| pods.len());
        prop_assert_eq!(noted, usize::try_from(granted).unwrap());
    }
}

#[test]
fn only_pods_are_evicted() {
    let budget = object(budget(json!({})));
    assert_eq!(budget.kind(), Kind::PodDisruptionBudget);
    let decision = decide(&Caller::default(), &budget, &[], &DeleteOptions::default(), NOW);
    assert_eq!(decision.unwrap_err().code, 404);
}
