use api::Propagation;
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{
    Case, deletion, merge, one_with, pod, pod_key, replica, replica_set, replica_set_key,
};

fn collect(key: &Key) -> Request {
    Request::Delete {
        key: key.clone(),
        uid: None,
        revision: Some(api::Revision(1)),
        grace_seconds: None,
        propagation: Some(Propagation::Background),
    }
}

fn going(mut value: Value, finalizers: &[&str]) -> Value {
    let more = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": finalizers}});
    merge(&mut value, &more);
    value
}

#[test]
fn p40_what_has_an_owner_stays() {
    let mut case = Case::new(Collected::default());
    let manager = case.manager();
    case.put(None, &replica_set(2, 0));
    case.put(None, &replica("a", &json!({})));
    case.put(None, &replica("b", &json!({})));
    // The controller may delete what it owns, and users what they like.
    case.delete(Some(manager), &pod_key("a"));
    case.is_right();
    case.commit(Some(manager), &collect(&pod_key("b")), &pod_key("b"), None);
    case.is_wrong(&["pods/d/b was collected although its owner replicasets/d/r lives"]);
    // One of that name with another UID is another one, and one that waits is to be helped.
    case.put(None, &replica("c", &json!({})));
    case.delete(None, &replica_set_key());
    let mut other = replica_set(2, 0);
    other["metadata"]["uid"] = json!("u-other");
    case.put(None, &other);
    case.commit(Some(manager), &collect(&pod_key("c")), &pod_key("c"), None);
    case.is_right();
    case.put(None, &replica("d", &json!({})));
    case.put(None, &going(replica_set(2, 0), &["foregroundDeletion"]));
    case.commit(Some(manager), &collect(&pod_key("d")), &pod_key("d"), None);
    case.is_right();
}

#[test]
fn p40_owners_wait_for_what_they_promised() {
    let mut case = Case::new(Collected::default());
    let mut blocking = replica("a", &json!({}));
    blocking["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(true);
    case.put(None, &going(replica_set(2, 0), &["foregroundDeletion"]));
    case.put(None, &blocking);
    case.put(None, &replica("b", &json!({})));
    case.is_right();
    case.delete(None, &replica_set_key());
    case.is_wrong(&["replicasets/d/r went before pods/d/a"]);
    case.put(None, &going(replica_set(2, 0), &["foregroundDeletion"]));
    case.delete(None, &pod_key("a"));
    case.delete(None, &replica_set_key());
    case.is_right();
}

#[test]
fn p40_nothing_is_left() {
    let mut case = Case::new(Collected::default());
    case.put(None, &pod("a", &json!({})));
    case.put(None, &replica("b", &json!({})));
    one_with(&case.at_rest(), &["pods/d/b has lost all its owners"]);
    case.put(None, &replica_set(1, 1));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &going(pod("a", &json!({})), &["x/y"]));
    one_with(&case.at_rest(), &["pods/d/a is still being deleted", "held by x/y"]);
    case.commit(None, &deletion(&pod_key("a")), &pod_key("a"), None);
    assert_eq!(case.at_rest(), Vec::<String>::new());
}
