use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, deletion, merge, node, object, one_with, owned, pod_key};

fn set(surge: u64, unavailable: u64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "a", "namespace": "d", "uid": "u-a", "generation": 1},
        "spec": {"selector": {}, "template": {"spec": {"containers": []}},
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}})
}

fn daemon(name: &str, node: &str) -> Value {
    owned(name, node, "Running", "DaemonSet", "a")
}

/// A daemon that is tied to its node and not bound yet.
fn tied(name: &str, node: &str) -> Value {
    let mut value = owned(name, node, "Pending", "DaemonSet", "a");
    value["spec"]["nodeName"] = Value::Null;
    value["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    value
}

fn tainted(name: &str, effect: &str) -> Value {
    node(name, &json!({"spec": {"taints": [{"key": "a", "effect": effect}]}}))
}

fn set_key() -> Key {
    Key::new(Kind::DaemonSet, "d", "a")
}

/// A daemon set that a controller manager knows, with its nodes.
fn case(set: &Value, nodes: &[Value]) -> (Case<OneOnEachNode>, ProcessId) {
    let mut case = Case::new(OneOnEachNode::default());
    let manager = case.manager();
    case.tell(&Occurrence::Started(manager));
    case.put(None, set);
    case.show(manager, &set_key());
    for node in nodes {
        let key = case.put(None, node).key();
        case.show(manager, &key);
    }
    (case, manager)
}

/// Lets the manager make a pod.
fn make(case: &mut Case<OneOnEachNode>, by: ProcessId, pod: &Value) {
    case.call(by, &Request::Create(object(pod)));
    case.put(Some(by), pod);
}

#[test]
fn p37_one_pod_on_each_node() {
    let (mut case, manager) = case(&set(0, 1), &[node("n1", &json!({})), node("n2", &json!({}))]);
    make(&mut case, manager, &tied("x", "n1"));
    make(&mut case, manager, &tied("y", "n2"));
    case.is_right();
    make(&mut case, manager, &tied("z", "n2"));
    case.is_wrong(&["pods/d/z is pod number 2 on its node, and 1 may be"]);
    // Nor two by two managers.
    let other = case.other_manager();
    case.tell(&Occurrence::Started(other));
    for key in [set_key(), Key::cluster(Kind::Node, "n1")] {
        case.show(other, &key);
    }
    make(&mut case, other, &tied("w", "n1"));
    case.is_wrong(&["pods/d/w is pod number 2 on its node"]);
}

#[test]
fn p37_a_new_leader_knows_no_loss_that_was_before_it() {
    let (mut case, manager) = case(&set(0, 1), &[node("n1", &json!({}))]);
    let lead = |case: &mut Case<OneOnEachNode>| {
        let other = case.other_manager();
        case.tell(&Occurrence::Started(other));
        for key in [set_key(), Key::cluster(Kind::Node, "n1")] {
            case.show(other, &key);
        }
        other
    };
    make(&mut case, manager, &tied("x", "n1"));
    let other = lead(&mut case);
    // It should have asked for `x` as well, and been told that it is there.
    make(&mut case, other, &tied("y", "n1"));
    case.is_wrong(&["pods/d/y is pod number 2 on its node"]);
    case.delete(None, &pod_key("x"));
    case.delete(None, &pod_key("y"));
    make(&mut case, manager, &tied("z", "n1"));
    let other = lead(&mut case);
    make(&mut case, other, &tied("v", "n1"));
    case.is_right();
    // Its own pod it knows, shown or not.
    make(&mut case, other, &tied("w", "n1"));
    case.is_wrong(&["pods/d/w is pod number 3 on its node"]);
}

#[test]
fn p37_a_surge_is_one_more() {
    let (mut case, manager) = case(&set(1, 0), &[node("n1", &json!({}))]);
    for name in ["x", "y"] {
        make(&mut case, manager, &tied(name, "n1"));
    }
    case.is_right();
    make(&mut case, manager, &tied("z", "n1"));
    case.is_wrong(&["pods/d/z is pod number 3 on its node, and 2 may be"]);
}

#[test]
fn p37_only_nodes_that_are_meant() {
    let not_ready = node(
        "n3",
        &json!({"spec": {"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
    );
    let nodes = [tainted("n1", "NoSchedule"), tainted("n2", "PreferNoSchedule"), not_ready];
    let (mut case, manager) = case(&set(0, 1), &nodes);
    for (name, node) in [("x", "n2"), ("y", "n3")] {
        make(&mut case, manager, &tied(name, node));
    }
    case.is_right();
    make(&mut case, manager, &tied("z", "n1"));
    case.is_wrong(&["daemonsets/d/a gets a pod for n1, which is not meant"]);
    make(&mut case, manager, &tied("w", "n9"));
    case.is_wrong(&["daemonsets/d/a gets a pod for n9, which is not there"]);
}

/// Three nodes with a pod each that runs.
fn rolling(unavailable: u64) -> (Case<OneOnEachNode>, ProcessId) {
    let nodes = ["n1", "n2", "n3"].map(|name| node(name, &json!({})));
    let (mut case, manager) = case(&set(0, unavailable), &nodes);
    for (name, node) in [("x", "n1"), ("y", "n2"), ("z", "n3")] {
        case.put(None, &daemon(name, node));
        case.show(manager, &pod_key(name));
    }
    (case, manager)
}

#[test]
fn p37_not_more_without_than_allowed() {
    let (mut case, manager) = rolling(1);
    case.call(manager, &deletion(&pod_key("x")));
    case.is_right();
    case.call(manager, &deletion(&pod_key("y")));
    case.is_wrong(&["pods/d/y is given up", "2 nodes", "1 may be"]);

    let (mut case, manager) = rolling(2);
    for name in ["x", "y"] {
        case.call(manager, &deletion(&pod_key(name)));
    }
    case.is_right();

    // When there is another one, the next may go.
    let (mut case, manager) = rolling(1);
    case.call(manager, &deletion(&pod_key("x")));
    case.put(None, &daemon("x2", "n1"));
    case.show(manager, &pod_key("x2"));
    case.call(manager, &deletion(&pod_key("y")));
    case.is_right();
}

#[test]
fn p37_what_came_after_the_plan_is_excused() {
    for late in [true, false] {
        let (mut case, manager) = rolling(1);
        // The node was not meant when it was to lose its pod.
        case.put(None, &tainted("n2", "NoSchedule"));
        case.show(manager, &Key::cluster(Kind::Node, "n2"));
        case.call(manager, &deletion(&pod_key("x")));
        case.put(None, &owned("x", "n1", "Pending", "DaemonSet", "a"));
        case.show(manager, &pod_key("x"));
        let key = case.put(None, &node("n2", &json!({}))).key();
        case.show(manager, &key);
        if late {
            case.advance(61);
        }
        case.call(manager, &deletion(&pod_key("y")));
        assert_eq!(case.found().len(), usize::from(late));
    }
}

#[test]
fn p37_what_has_long_been_missing_counts() {
    let ill = || {
        let (mut case, manager) = rolling(1);
        case.put(None, &owned("z", "n3", "Pending", "DaemonSet", "a"));
        case.show(manager, &pod_key("z"));
        (case, manager)
    };
    let (mut case, manager) = ill();
    case.call(manager, &deletion(&pod_key("x")));
    case.is_right();
    let (mut case, manager) = ill();
    case.advance(70);
    case.call(manager, &deletion(&pod_key("x")));
    case.is_wrong(&["pods/d/x is given up", "2 nodes", "1 may be"]);
    // The one that is of no use may always go.
    case.call(manager, &deletion(&pod_key("z")));
    case.is_right();
}

#[test]
fn p37_at_rest_each_has_one() {
    let (mut case, _) = case(&set(0, 1), &[node("n1", &json!({})), tainted("n2", "NoExecute")]);
    one_with(&case.at_rest(), &["daemonsets/d/a has 0 pods on n1 at rest"]);
    case.put(None, &daemon("x", "n1"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &daemon("y", "n2"));
    one_with(&case.at_rest(), &["daemonsets/d/a has 1 pods on n2 at rest"]);
    let mut going = daemon("y", "n2");
    merge(&mut going, &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    case.put(None, &going);
    assert_eq!(case.at_rest(), Vec::<String>::new());
}
