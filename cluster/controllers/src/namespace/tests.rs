#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, summary};

fn fixture(terminating: bool) -> Fixture<Namespaces> {
    let mut fixture = Fixture::new(Namespaces);
    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "n", "uid": "n"}, "spec": {"finalizers": ["kubernetes"]}});
    if terminating {
        namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    fixture.put(namespace);
    fixture
}

fn key() -> Key {
    Key::cluster(Kind::Namespace, "n")
}

fn object(kind: Kind, name: &str, finalizers: Value) -> Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.name(),
        "metadata": {"name": name, "namespace": "n", "uid": name, "finalizers": finalizers}})
}

#[test]
fn living_namespaces_are_left_alone() {
    let mut fixture = fixture(false);
    assert_eq!(fixture.put(object(Kind::Secret, "s", Value::Null)), []);
    assert_eq!(summary(&fixture.reconcile(&key())), Vec::<String>::new());
}

#[test]
fn contents_go_in_order_and_the_namespace_last() {
    let mut fixture = fixture(true);
    fixture.put(object(Kind::Secret, "s", Value::Null));
    assert_eq!(fixture.put(object(Kind::ReplicaSet, "r", Value::Null)), [key()]);
    let mut other = object(Kind::Secret, "s", Value::Null);
    other["metadata"]["namespace"] = "other".into();
    assert_eq!(fixture.put(other), []);
    let done = fixture.settle(&key());
    assert_eq!(done[..2], ["delete replicasets/n/r Background", "delete secrets/n/s Background"]);
    assert_eq!(done.last().unwrap(), "update namespaces/n finalize");
    // Before the end every watch was seen to have come far enough.
    assert!(done.iter().any(|s| s == "read Pod"), "{done:?}");
    assert!(!fixture.store.objects.contains_key(&key()));
}

#[test]
fn what_pods_need_stays_until_they_are_gone() {
    let mut fixture = fixture(true);
    fixture.put(object(Kind::ConfigMap, "c", Value::Null));
    fixture.put(object(Kind::Deployment, "d", Value::Null));
    let mut pod = object(Kind::Pod, "p", Value::Null);
    pod["spec"] = json!({"nodeName": "node", "containers": []});
    fixture.put(pod);
    let done = fixture.settle(&key());
    assert_eq!(
        done,
        [
            "delete deployments/n/d Background",
            "delete pods/n/p Background",
            "update namespaces/n status"
        ]
    );
    let value = api::codec::to_value(&fixture.store.objects[&key()]);
    let conditions = value["status"]["conditions"].as_array().unwrap();
    let remaining = conditions.iter().find(|c| c["type"] == "NamespaceContentRemaining").unwrap();
    let expected = "Some resources are remaining: pods. has 1 resource instances";
    assert_eq!(remaining["message"], expected);
    fixture.remove(&Key::new(Kind::Pod, "n", "p"));
    assert_eq!(fixture.settle(&key())[0], "delete configmaps/n/c Background");
    assert!(!fixture.store.objects.contains_key(&key()));
}

#[test]
fn what_remains_is_reported_once() {
    let mut fixture = fixture(true);
    fixture.put(object(Kind::Secret, "s", json!(["example.com/hold"])));
    let done = fixture.settle(&key());
    assert_eq!(done, ["delete secrets/n/s Background", "update namespaces/n status"]);
    let value = api::codec::to_value(&fixture.store.objects[&key()]);
    let messages: Vec<&str> = value["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["status"] == "True")
        .map(|c| c["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "Some resources are remaining: secrets. has 1 resource instances",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 \
             resource instances"
        ]
    );
    assert_eq!(value["status"]["phase"], "Terminating");
}

#[test]
fn every_namespaced_kind_is_emptied() {
    let stored: std::collections::BTreeSet<Kind> =
        Kind::stored().filter(|k| k.namespaced()).collect();
    assert_eq!(ORDER.iter().copied().collect::<std::collections::BTreeSet<_>>(), stored);
    assert!(ORDER.iter().all(|k| KINDS.contains(k)));
    assert!(ORDER.iter().is_sorted_by_key(|kind| stage_of(*kind)));
}
