use serde_json::{Value, json};

use super::*;
use crate::check::Check;
use crate::checks::lifecycle::OneOfAName;
use crate::checks::made_up::{Case, deletion, merge, object, one_with, owned, pod_key};

fn set(replicas: i64, policy: &str, partition: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "s", "namespace": "d", "uid": "u-s", "generation": 1},
        "spec": {"replicas": replicas, "podManagementPolicy": policy, "serviceName": "",
            "selector": {},
            "template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}},
            "updateStrategy": {"rollingUpdate": {"partition": partition}}},
        "status": {"replicas": replicas, "updateRevision": "new", "observedGeneration": 1}})
}

fn member(ordinal: i64, phase: &str, revision: &str) -> Value {
    let mut value = owned(&format!("s-{ordinal}"), "n1", phase, "StatefulSet", "s");
    merge(&mut value, &json!({"metadata": {"labels": {REVISION: revision}}}));
    value
}

/// A stateful set whose pods a controller manager knows.
fn case(set: &Value, pods: &[Value]) -> (Case<OneOfAName>, ProcessId) {
    let mut case = Case::new(OneOfAName::default());
    let manager = case.manager();
    for value in [set].into_iter().chain(pods) {
        let key = case.put(None, value).key();
        case.show(manager, &key);
    }
    (case, manager)
}

fn create(case: &mut Case<OneOfAName>, by: ProcessId, ordinal: i64) {
    case.call(by, &Request::Create(object(&member(ordinal, "Pending", "new"))));
}

fn delete(case: &mut Case<OneOfAName>, by: ProcessId, ordinal: i64) {
    case.call(by, &deletion(&pod_key(&format!("s-{ordinal}"))));
}

#[test]
fn p36_pods_come_in_order() {
    let ordered = set(3, "OrderedReady", 0);
    let (mut case, manager) = case(&ordered, &[member(0, "Running", "new")]);
    create(&mut case, manager, 1);
    case.is_right();
    create(&mut case, manager, 2);
    case.is_wrong(&["statefulsets/d/s gets its pod 2 although pod 1 is not ready"]);
    create(&mut case, manager, 3);
    case.is_wrong(&["statefulsets/d/s gets a pod 3, which it does not ask for"]);
    let (mut case, manager) = self::case(&set(3, "Parallel", 0), &[]);
    create(&mut case, manager, 2);
    case.is_right();
}

#[test]
fn p36_pods_go_in_order() {
    let all = [0, 1, 2].map(|i| member(i, "Running", "new"));
    let (mut case, manager) = case(&set(1, "OrderedReady", 0), &all);
    delete(&mut case, manager, 2);
    case.is_right();
    delete(&mut case, manager, 1);
    case.is_wrong(&["pods/d/s-1 goes although pod 2 is still there"]);
    let (mut case, manager) = self::case(&set(1, "Parallel", 0), &all);
    delete(&mut case, manager, 1);
    case.is_right();
    // Not before those that stay are well.
    let ill = [member(0, "Pending", "new"), member(1, "Running", "new")];
    let (mut case, manager) = self::case(&set(1, "OrderedReady", 0), &ill);
    delete(&mut case, manager, 1);
    case.is_wrong(&["pods/d/s-1 goes although pod 0 is not ready"]);
}

#[test]
fn p36_rollouts_go_down_to_the_partition() {
    let old = [0, 1, 2].map(|i| member(i, "Running", "old"));
    let (mut case, manager) = case(&set(3, "Parallel", 1), &old);
    delete(&mut case, manager, 2);
    case.is_right();
    delete(&mut case, manager, 0);
    case.is_wrong(&["statefulsets/d/s replaces its pod 0, before the partition"]);
    let ill =
        [member(0, "Running", "old"), member(1, "Running", "old"), member(2, "Pending", "new")];
    let (mut case, manager) = self::case(&set(3, "Parallel", 0), &ill);
    delete(&mut case, manager, 1);
    case.is_wrong(&["statefulsets/d/s replaces its pod 1 although pod 2 is not ready"]);
    delete(&mut case, manager, 2);
    case.is_wrong(&["statefulsets/d/s replaces its pod 2, which is of its template"]);
    // What the taint manager takes away is no rollout.
    let mut marked = member(2, "Pending", "new");
    merge(
        &mut marked,
        &json!({"status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]}}),
    );
    case.put(None, &marked);
    delete(&mut case, manager, 2);
    case.is_right();
}

#[test]
fn p36_a_plan_goes_by_what_was_known_when_it_was_made() {
    let mut before = set(3, "Parallel", 0);
    before["status"]["updateRevision"] = json!("old");
    let pods = [1, 2].map(|i| member(i, "Running", "new"));
    let (mut case, manager) = case(&before, &pods);
    create(&mut case, manager, 0);
    let after = set(3, "Parallel", 0);
    let key = case.put(None, &after).key();
    case.show(manager, &key);
    delete(&mut case, manager, 2);
    case.is_right();
    // The next plan begins when the status was reported.
    let subresource = Some(api::Subresource::Status);
    case.call(manager, &Request::Update { object: object(&after), subresource });
    delete(&mut case, manager, 1);
    case.is_wrong(&["statefulsets/d/s replaces its pod 1, which is of its template"]);
}

#[test]
fn p36_at_rest_a_rollout_has_come_to_its_end() {
    let with_image = |ordinal: i64, image: &str| {
        let mut value = member(ordinal, "Running", "");
        value["spec"]["containers"][0]["image"] = json!(image);
        value
    };
    let pods = [with_image(0, "app:1"), with_image(1, "app:2")];
    let (mut case, _) = case(&set(2, "OrderedReady", 1), &pods);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &set(2, "OrderedReady", 0));
    one_with(&case.at_rest(), &["statefulsets/d/s has a pod 0 of an old template at rest"]);
    // It cannot go on beyond a pod that is not ready.
    case.put(None, &member(1, "Pending", "new"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    assert_eq!(OneOfAName::default().property(), "P36");
}
