use api::Subresource;
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{
    Case, deletion, object, placed, plan, pod_key, replica, replica_set, replica_set_key,
};

fn ready(name: &str) -> Value {
    let mut value = replica(name, &json!({}));
    crate::checks::made_up::merge(&mut value, &placed(name, "n1", "Running"));
    value
}

/// Lets the manager ask for a pod.
fn ask(case: &mut Case<NoOvershoot>, by: ProcessId, name: &str) {
    case.call(by, &Request::Create(object(&replica(name, &json!({})))));
}

fn overshoot(replicas: i64) -> (Case<NoOvershoot>, ProcessId) {
    let mut case = Case::new(NoOvershoot::default());
    let manager = case.manager();
    case.tell(&Occurrence::Started(manager));
    case.put(None, &replica_set(replicas, 0));
    case.show(manager, &replica_set_key());
    (case, manager)
}

#[test]
fn p29_no_pod_too_many() {
    let (mut case, manager) = overshoot(1);
    ask(&mut case, manager, "a");
    case.put(Some(manager), &replica("a", &json!({})));
    case.is_right();
    // The cache does not show it yet, so another one is made: that is the bug.
    case.advance(1);
    ask(&mut case, manager, "b");
    case.put(Some(manager), &replica("b", &json!({})));
    case.is_wrong(&["pods/d/b is pod number 2 of a controller that asks for 1"]);
}

#[test]
fn p29_a_loss_is_replaced_and_a_change_of_mind_is_no_fault() {
    let (mut case, manager) = overshoot(1);
    ask(&mut case, manager, "a");
    case.put(Some(manager), &replica("a", &json!({})));
    case.delete(None, &pod_key("a"));
    ask(&mut case, manager, "b");
    // Meanwhile the user wants none: the manager could not know.
    case.put(None, &replica_set(0, 1));
    case.put(Some(manager), &replica("b", &json!({})));
    case.is_right();
}

#[test]
fn p29_what_nobody_could_know_is_excused() {
    // A creation that is carried out after a later one was asked for.
    let (mut case, manager) = overshoot(1);
    ask(&mut case, manager, "late");
    case.advance(10);
    ask(&mut case, manager, "b");
    case.put(Some(manager), &replica("late", &json!({})));
    case.put(Some(manager), &replica("b", &json!({})));
    case.is_right();
    case.advance(10);
    ask(&mut case, manager, "c");
    case.put(Some(manager), &replica("c", &json!({})));
    case.is_wrong(&["pods/d/c is pod number 3"]);
    // One that is carried out when its caller has given it up.
    let (mut case, manager) = overshoot(1);
    ask(&mut case, manager, "late");
    case.advance(6);
    case.put(Some(manager), &replica("late", &json!({})));
    ask(&mut case, manager, "b");
    case.put(Some(manager), &replica("b", &json!({})));
    case.is_right();
    // Another leader.
    let (mut case, manager) = overshoot(1);
    let other = case.other_manager();
    case.show(other, &replica_set_key());
    ask(&mut case, manager, "a");
    case.put(Some(manager), &replica("a", &json!({})));
    ask(&mut case, other, "b");
    case.put(Some(other), &replica("b", &json!({})));
    case.is_right();
}

fn undershoot(replicas: i64, pods: &[&str]) -> (Case<NoUndershoot>, ProcessId) {
    let mut case = Case::new(NoUndershoot::new(&plan()));
    let manager = case.manager();
    case.put(None, &replica_set(replicas, 0));
    case.show(manager, &replica_set_key());
    for name in pods {
        case.put(None, &replica(name, &json!({})));
        case.show(manager, &pod_key(name));
    }
    (case, manager)
}

/// The write of an object's status.
fn status_of(value: &Value) -> Request {
    Request::Update { object: object(value), subresource: Some(Subresource::Status) }
}

fn take_down(case: &mut Case<NoUndershoot>, manager: ProcessId, name: &str) {
    case.call(manager, &deletion(&pod_key(name)));
    case.delete(Some(manager), &pod_key(name));
}

#[test]
fn p30_no_pod_too_few() {
    let (mut case, manager) = undershoot(1, &["a", "b"]);
    take_down(&mut case, manager, "a");
    case.is_right();
    take_down(&mut case, manager, "b");
    case.is_wrong(&["pods/d/b was deleted as surplus", "asks for 1 pods, and 0 are left"]);
    // What was lost to others and not seen yet is no fault of the deleting one.
    let (mut case, manager) = undershoot(1, &["a", "b"]);
    case.delete(None, &pod_key("a"));
    take_down(&mut case, manager, "b");
    case.is_right();
    // But once it has seen it, it is.
    let (mut case, manager) = undershoot(1, &["a", "b"]);
    case.delete(None, &pod_key("a"));
    let gone = machine::WatchEvent::Deleted { key: pod_key("a"), revision: case.revision() };
    case.deliver(manager, &gone);
    take_down(&mut case, manager, "b");
    case.is_wrong(&["0 are left"]);
    // A deletion of its own that is carried out when it has given it up.
    for (seconds, right) in [(6, true), (1, false)] {
        let (mut case, manager) = undershoot(1, &["a", "b"]);
        case.call(manager, &deletion(&pod_key("a")));
        case.advance(seconds);
        case.delete(Some(manager), &pod_key("a"));
        take_down(&mut case, manager, "b");
        assert_eq!(case.found().is_empty(), right);
    }
    // What comes to be known in the middle of a plan is too late: the rest was decided before.
    let (mut case, manager) = undershoot(1, &["a", "b", "c"]);
    take_down(&mut case, manager, "c");
    case.delete(None, &pod_key("a"));
    let gone = machine::WatchEvent::Deleted { key: pod_key("a"), revision: case.revision() };
    case.deliver(manager, &gone);
    take_down(&mut case, manager, "b");
    case.is_right();
}

#[test]
fn p30_evictions_are_no_surplus() {
    let (mut case, manager) = undershoot(1, &[]);
    let disrupted =
        json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}});
    case.put(None, &replica("a", &disrupted));
    take_down(&mut case, manager, "a");
    case.is_right();
    // The mark is on its way, together with the deletion; it is that pod's alone.
    let (mut case, manager) = undershoot(1, &["a"]);
    case.call(manager, &status_of(&replica("a", &disrupted)));
    take_down(&mut case, manager, "a");
    case.is_right();
    case.put(None, &replica("a", &json!({})));
    case.show(manager, &pod_key("a"));
    take_down(&mut case, manager, "a");
    case.is_wrong(&["pods/d/a was deleted as surplus"]);
    let (mut case, manager) = undershoot(1, &["a"]);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d",
        "uid": "u-d", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}});
    case.put(None, &namespace);
    case.show(manager, &Key::cluster(Kind::Namespace, "d"));
    take_down(&mut case, manager, "a");
    case.is_right();
}

#[test]
fn p30_creations_start_slowly() {
    let (mut case, manager) = undershoot(9_999, &[]);
    let create = |case: &mut Case<NoUndershoot>, count: usize| {
        for i in 0..count {
            case.call(manager, &Request::Create(object(&replica(&format!("p{i}"), &json!({})))));
        }
        case.advance(1);
    };
    for count in [1, 2, 4, 7, 14, 1, 2, 3, 6] {
        create(&mut case, count);
    }
    case.is_right();
    create(&mut case, 20);
    case.is_wrong(&["more than 12 pods of controller u-r", "after 6"]);
    let mut size = 20;
    while size < 500 {
        size = (2 * size).min(500);
        create(&mut case, size);
    }
    case.is_right();
    create(&mut case, 501);
    case.is_wrong(&["more than 500"]);
}

#[test]
fn p31_the_least_useful_go_first() {
    let history = |settled: bool| {
        let mut case = Case::new(LeastUsefulFirst::default());
        let manager = case.manager();
        case.put(None, &replica_set(1, 2));
        case.show(manager, &replica_set_key());
        case.put(None, &ready("useful"));
        case.put(None, &replica("pending", &json!({})));
        case.show(manager, &pod_key("useful"));
        case.show(manager, &pod_key("pending"));
        case.advance(if settled { 400 } else { 100 });
        (case, manager)
    };
    let (mut case, manager) = history(true);
    case.call(manager, &deletion(&pod_key("useful")));
    case.is_wrong(&["pods/d/useful", "although pods/d/pending has long been of less use"]);
    // It is evicted, which the store does not show yet.
    let (mut case, manager) = history(true);
    let mut evicted = ready("useful");
    evicted["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    case.call(manager, &status_of(&evicted));
    case.call(manager, &deletion(&pod_key("useful")));
    case.is_right();
    // In the right order, and when the other one may just have changed.
    let (mut case, manager) = history(true);
    case.call(manager, &deletion(&pod_key("pending")));
    case.call(manager, &deletion(&pod_key("useful")));
    case.is_right();
    let (mut case, manager) = history(false);
    case.call(manager, &deletion(&pod_key("useful")));
    case.is_right();
    // Everything goes.
    let (mut case, manager) = history(true);
    case.put(None, &replica_set(0, 2));
    case.show(manager, &replica_set_key());
    case.call(manager, &deletion(&pod_key("useful")));
    case.is_right();
}

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Three pods that have long been ready, of which the last is as described.
fn brood(last: &Value) -> (Case<LeastUsefulFirst>, ProcessId) {
    let mut case = Case::new(LeastUsefulFirst::default());
    let manager = case.manager();
    case.put(None, &replica_set(2, 3));
    case.show(manager, &replica_set_key());
    let since = json!(case.cluster.now().to_meta());
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n3")] {
        let mut pod = replica(name, &json!({}));
        crate::checks::made_up::merge(&mut pod, &placed(name, node, "Running"));
        pod["status"]["conditions"][0]["lastTransitionTime"] = since.clone();
        if name == "c" {
            crate::checks::made_up::merge(&mut pod, last);
        }
        case.put(None, &pod);
        case.show(manager, &pod_key(name));
    }
    case.advance(400);
    (case, manager)
}

#[test]
fn p31_worth_decides_between_those_of_equal_use() {
    let check = |last: Value, wrong: bool| {
        let (mut case, manager) = brood(&last);
        case.call(manager, &deletion(&pod_key("a")));
        if wrong {
            case.is_wrong(&["pods/d/a is deleted as surplus although pods/d/c is worth less"]);
        } else {
            case.is_right();
        }
        // What follows may be of the same plan.
        case.call(manager, &deletion(&pod_key("b")));
        case.is_right();
        let (mut case, manager) = brood(&last);
        case.call(manager, &deletion(&pod_key("c")));
        case.is_right();
    };
    let cost = |cost: &str| json!({"metadata": {"annotations": {COST: cost}}});
    check(json!({}), false);
    check(cost("-1"), true);
    check(cost("nonsense"), false);
}

#[test]
fn p31_the_crowded_and_the_young_go_first() {
    // Beside another one of its owner.
    let (mut case, manager) = brood(&json!({"spec": {"nodeName": "n2"}}));
    case.call(manager, &deletion(&pod_key("a")));
    case.is_wrong(&["pods/d/a is deleted as surplus although pods/d/b is worth less"]);
    // Ready for a quarter of the time that the others are.
    let (mut case, manager) = brood(&json!({}));
    case.advance(2_000);
    let mut late = replica("late", &json!({}));
    crate::checks::made_up::merge(&mut late, &placed("late", "n4", "Running"));
    late["status"]["conditions"][0]["lastTransitionTime"] = json!(case.cluster.now().to_meta());
    case.put(None, &late);
    case.show(manager, &pod_key("late"));
    case.advance(400);
    case.call(manager, &deletion(&pod_key("a")));
    case.is_wrong(&["pods/d/a is deleted as surplus although pods/d/late is worth less"]);
}
