use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, object, one_with, pod};

fn quota(hard: &Value, used: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "d", "uid": "u-q"},
        "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
}

#[test]
fn p55_nothing_is_made_beyond_a_quota() {
    let mut case = Case::new(WithinQuotas);
    case.put(None, &quota(&json!({"pods": "2", "requests.cpu": "2500m"}), &json!({})));
    case.put(None, &pod("a", &json!({})));
    case.put(None, &pod("b", &json!({})));
    case.is_right();
    case.put(None, &pod("c", &json!({})));
    case.is_wrong(&["with pods/d/c there is 3 of pods", "quotas/d/q allows 2"]);
    // Those that have ended or are going leave their place.
    case.put(None, &pod("a", &going()));
    case.put(None, &pod("b", &json!({"status": {"phase": "Failed"}})));
    case.put(None, &pod("e", &json!({})));
    case.is_right();
    let mut large = pod("f", &json!({"status": {"phase": "Failed"}}));
    case.put(None, &large);
    case.is_right();
    large["metadata"]["name"] = json!("g");
    large["status"] = Value::Null;
    large["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("600m");
    case.put(None, &quota(&json!({"requests.cpu": "2500m"}), &json!({})));
    case.put(None, &large);
    case.is_wrong(&["there is 2600 of requests.cpu, of which", "allows 2500"]);
}

#[test]
fn p55_a_quota_says_what_is_used() {
    let mut case = Case::new(WithinQuotas);
    case.put(None, &pod("a", &json!({})));
    case.put(None, &quota(&json!({"pods": "2", "count/pods": "9"}), &json!({"pods": "1"})));
    one_with(&case.at_rest(), &["says that 0 of count/pods is used, and 1 is"]);
    case.put(None, &quota(&json!({"pods": "2", "cpu": "9"}), &json!({"pods": "1", "cpu": "1"})));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let mut unseen = quota(&json!({"pods": "2"}), &json!({"pods": "1"}));
    unseen["spec"]["hard"]["pods"] = json!("3");
    case.put(None, &unseen);
    one_with(&case.at_rest(), &["has not taken notice of what it allows"]);
}

#[test]
fn p55_who_is_refused_pods_says_so() {
    let mut case = Case::new(WithinQuotas);
    case.put(None, &quota(&json!({"pods": "0"}), &json!({"pods": "0"})));
    let mut set = crate::checks::made_up::replica_set(1, 0);
    merge(&mut set, &json!({"spec": {"template": {"spec": {"containers": []}}}}));
    case.put(None, &set);
    one_with(&case.at_rest(), &["replicasets/d/r has 0 of 1 pods", "does not say so"]);
    set["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]);
    case.put(None, &set);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let template = template(case.cluster.object(&object(&set).key()).unwrap()).cloned();
    assert!(is_short_of_template(&case.cluster, "d", template.as_ref()));
    assert!(!is_short_of_template(&case.cluster, "e", template.as_ref()));
}

#[test]
fn p56_containers_are_as_limit_ranges_want_them() {
    let range = |item: Value| {
        let mut item = item;
        item["type"] = json!("Container");
        json!({"apiVersion": "v1", "kind": "LimitRange",
            "metadata": {"name": "l", "namespace": "d", "uid": "u-l"}, "spec": {"limits": [item]}})
    };
    for (item, words) in [
        (json!({"defaultRequest": {"memory": "1Mi"}}), "it requests no memory"),
        (json!({"default": {"cpu": "2"}}), "it has no limit of cpu"),
        (json!({"min": {"cpu": "2"}}), "it requests less cpu than it must"),
        (json!({"max": {"cpu": "500m"}}), "it may have more cpu than is allowed"),
    ] {
        let mut case = Case::new(WithinRanges);
        case.put(None, &range(item));
        case.put(None, &pod("a", &json!({})));
        case.is_wrong(&["pods/d/a was made although of c", words]);
    }
    let mut case = Case::new(WithinRanges);
    case.put(None, &range(json!({"defaultRequest": {"cpu": "1"}, "min": {"cpu": "1"}})));
    case.put(None, &pod("a", &json!({})));
    case.is_right();
}
