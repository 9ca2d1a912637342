use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, node, one_with, placed, pod, pod_key};

fn bind(pod: &str, node: &str) -> Request {
    Request::Bind { pod: pod_key(pod), uid: format!("u-{pod}"), node: node.to_owned() }
}

fn node_key(name: &str) -> Key {
    Key::cluster(Kind::Node, name)
}

#[test]
fn p9_bound_once() {
    let mut case = Case::new(BoundOnce);
    let on = |node: &str| placed("a", node, "Pending");
    case.put(None, &pod("a", &json!({})));
    case.put(None, &on("n1"));
    case.put(None, &placed("a", "n1", "Running"));
    case.is_right();
    case.put(None, &on("n2"));
    case.is_wrong(&["bound to n1", "bound to n2 now"]);
    let object = crate::checks::made_up::object(&on("n2"));
    case.commit(None, &bind("a", "n2"), &pod_key("a"), Some(object));
    case.is_wrong(&["bound to n2 and is bound to n2 now"]);
    case.put(None, &pod("b", &json!({"spec": {"schedulingGates": [{"name": "x"}]}})));
    case.put(None, &placed("b", "n1", "Pending"));
    case.is_wrong(&["gates"]);
    case.put(None, &pod("c", &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
    case.put(None, &placed("c", "n1", "Pending"));
    case.is_wrong(&["being deleted"]);
}

/// What a check finds when a scheduler binds a pod to a node that it was shown.
fn bound<C: Check>(check: C, wanted: &Value, offered: &Value) -> Vec<String> {
    let mut case = Case::new(check);
    let scheduler = case.scheduler();
    case.put(None, &pod("a", wanted));
    case.put(None, &node("n1", offered));
    case.show(scheduler, &node_key("n1"));
    // What happens after the decision was made is nobody's fault.
    case.put(None, &node("n1", &json!({"spec": {"unschedulable": true}})));
    case.call(scheduler, &bind("a", "n1"));
    case.found()
}

#[test]
fn p10_the_node_was_there_and_took_pods() {
    let find = |wanted: Value, offered: Value| bound(NodeWasThere::default(), &wanted, &offered);
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
    let tolerate = json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}});
    assert_eq!(find(json!({}), json!({})), Vec::<String>::new());
    one_with(&find(json!({}), json!({"spec": {"unschedulable": true}})), &["it is cordoned"]);
    one_with(&find(json!({}), taint("NoExecute")), &["scheduler-0", "taint k:NoExecute"]);
    assert_eq!(find(json!({}), taint("PreferNoSchedule")), Vec::<String>::new());
    assert_eq!(find(tolerate, taint("NoSchedule")), Vec::<String>::new());

    let mut case = Case::new(NodeWasThere::default());
    let scheduler = case.scheduler();
    case.put(None, &pod("a", &json!({})));
    case.put(None, &node("n1", &json!({})));
    case.call(scheduler, &bind("a", "n1"));
    case.is_wrong(&["n1, a node it was not shown"]);
    let kind = Kind::Node;
    case.show(scheduler, &node_key("n1"));
    let nothing = WatchEvent::Replaced { kind, objects: Vec::new(), revision: case.revision() };
    case.deliver(scheduler, &nothing);
    case.call(scheduler, &bind("a", "n1"));
    case.is_wrong(&["not shown"]);
    // Bindings of pods that are gone meanwhile will be refused.
    case.call(scheduler, &bind("b", "n1"));
    case.is_right();
}

#[test]
fn p10_a_pod_that_waits_for_volumes_is_decided_about_earlier() {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
    let waits = pod("a", &json!({"spec": {"volumes": volumes}}));
    let claim = |phase: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "d", "uid": "u-c", "annotations":
                {"volume.kubernetes.io/selected-node": "n1"}},
            "spec": {}, "status": {"phase": phase}})
    };
    let mut case = Case::new(NodeWasThere::default());
    let scheduler = case.scheduler();
    let cordoned = json!({"spec": {"unschedulable": true}});
    case.put(None, &waits);
    case.put(None, &node("n1", &cordoned));
    case.show(scheduler, &node_key("n1"));
    let object = crate::checks::made_up::object(&claim("Pending"));
    case.call(scheduler, &Request::Update { object, subresource: None });
    case.is_wrong(&[
        "scheduler-0 chooses n1 for persistentvolumeclaims/d/c although it is cordoned",
    ]);
    // The decision was made before there was a volume.
    case.put(None, &claim("Bound"));
    case.call(scheduler, &bind("a", "n1"));
    case.is_right();
    // Who comes later has one at once.
    case.delete(None, &pod_key("a"));
    let mut later = waits;
    later["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:05Z");
    case.put(None, &later);
    case.call(scheduler, &bind("a", "n1"));
    case.is_wrong(&["scheduler-0 binds pods/d/a to n1 although it is cordoned"]);
}

#[test]
fn p11_labels_are_honoured() {
    let find = |wanted: Value, labels: Value| {
        bound(LabelsHonoured::default(), &wanted, &json!({"metadata": {"labels": labels}}))
    };
    let selector = json!({"spec": {"nodeSelector": {"disk": "fast"}}});
    assert_eq!(find(selector.clone(), json!({"disk": "fast"})), Vec::<String>::new());
    one_with(&find(selector, json!({"disk": "slow"})), &["lacks the label disk=fast"]);
    let affinity = |operator: &str, value: &str| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "n", "operator": operator, "values": [value]}]}]}}}}})
    };
    assert_eq!(find(affinity("Gt", "4"), json!({"n": "5"})), Vec::<String>::new());
    one_with(&find(affinity("Gt", "5"), json!({"n": "5"})), &["no term"]);
    one_with(&find(affinity("In", "5"), json!({})), &["no term"]);
}

#[test]
fn p19_what_is_assumed_is_real() {
    let mut case = Case::new(AssumedIsReal);
    case.put(None, &node("n1", &json!({})));
    case.put(None, &placed("a", "n1", "Running"));
    case.put(None, &placed("b", "n1", "Succeeded"));
    one_with(&case.at_rest(), &["scheduler-0", "does not know n1"]);
    case.cluster.placements.insert("n1".to_owned(), BTreeSet::from([pod_key("a")]));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.cluster.placements.insert("n1".to_owned(), BTreeSet::from([pod_key("c")]));
    one_with(&case.at_rest(), &["misses pods/d/a", "wrongly pods/d/c"]);
}
