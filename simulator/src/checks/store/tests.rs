use api::{Kind, Request};
use serde_json::json;

use super::*;
use crate::checks::made_up::{
    Case, deletion, merge, node, object, one_with, pod, pod_key, replica,
};

#[test]
fn p1_revisions_rise() {
    let mut case = Case::new(Revisions::default());
    let a = case.put(None, &pod("a", &json!({})));
    let later = case.put(None, &pod("a", &json!({"metadata": {"labels": {"x": "y"}}})));
    let manager = case.manager();
    case.deliver(manager, &WatchEvent::Changed(a.clone()));
    case.deliver(manager, &WatchEvent::Changed(later.clone()));
    case.deliver(manager, &WatchEvent::Changed(later.clone()));
    case.is_right();
    case.deliver(manager, &WatchEvent::Changed(a.clone()));
    case.is_wrong(&["controller-manager-0", "pods", "from revision 3 to 2"]);
    // Another life begins anew, and a list may go back: that is the business of P5.
    case.tell(&Occurrence::Started(manager));
    case.deliver(manager, &WatchEvent::Changed(a.clone()));
    case.is_right();

    let request = Request::Create(a.clone());
    let key = a.key();
    let mut wrong = |new: &Object, revision| {
        let (by, old) = (None, None);
        let new = Some(new);
        case.tell(&Occurrence::Committed { by, request: &request, key: &key, old, new, revision });
        case.found()
    };
    one_with(&wrong(&later, Revision(3)), &["at revision 3, after revision 3"]);
    one_with(&wrong(&later, Revision(9)), &["at revision 9 and says 3"]);
}

#[test]
fn p3_one_of_two_wins() {
    let mut case = Case::new(CompareAndSwap);
    let first = case.put(None, &pod("a", &json!({})));
    let second = case.put(None, &pod("a", &json!({"metadata": {"labels": {"x": "y"}}})));
    case.is_right();
    let key = pod_key("a");
    let mut try_on_second = |request: Request| {
        case.commit(None, &request, &key, Some(second.clone()));
        case.found()
    };
    let update = |object: &Object| Request::Update { object: object.clone(), subresource: None };
    one_with(&try_on_second(update(&first)), &["updated from revision 2 while it was at 3"]);
    one_with(&try_on_second(Request::Create(first)), &["created although it existed"]);
    let bind = |uid: &str| Request::Bind { pod: pod_key("a"), uid: uid.into(), node: "n1".into() };
    assert!(try_on_second(bind("u-a")).is_empty());
    one_with(&try_on_second(bind("u-x")), &["bound as UID u-x while it was u-a"]);
    let delete = |uid: &str, revision| Request::Delete {
        key: pod_key("a"),
        uid: Some(uid.into()),
        revision: Some(Revision(revision)),
        grace_seconds: None,
        propagation: None,
    };
    one_with(&try_on_second(delete("u-x", 0)), &["deleted as UID u-x"]);
    one_with(&try_on_second(delete("u-a", 2)), &["deleted at revision 2 only"]);
}

#[test]
fn p6_uids_stay_and_others_are_noticed() {
    let mut case = Case::new(UidsStay::default());
    case.put(None, &pod("a", &json!({})));
    let manager = case.manager();
    case.show(manager, &pod_key("a"));
    case.put(None, &pod("a", &json!({"metadata": {"labels": {"x": "y"}}})));
    case.show(manager, &pod_key("a"));
    case.is_right();
    case.put(None, &pod("a", &json!({"metadata": {"uid": "u-b"}})));
    case.is_wrong(&["changed its UID from u-a to u-b"]);
    case.delete(None, &pod_key("a"));
    case.put(None, &pod("a", &json!({})));
    case.is_wrong(&["used UID \"u-a\""]);
    case.delete(None, &pod_key("a"));
    case.put(None, &pod("a", &json!({"metadata": {"uid": "u-c"}})));
    case.is_right();
    // The manager was never told that the first one is gone.
    case.show(manager, &pod_key("a"));
    case.is_wrong(&["controller-manager-0", "UID u-a", "u-c"]);
}

#[test]
fn p7_held_as_long_as_somebody_holds() {
    let mut case = Case::new(Finalizers);
    let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let namespace = |more: &serde_json::Value| {
        let mut value = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "x", "uid": "u-x"}, "spec": {"finalizers": ["kubernetes"]}});
        merge(&mut value, more);
        value
    };
    // A pod that has time to end, an object that is held, a namespace that is.
    let mut held = pod("a", &json!({"metadata": {"deletionGracePeriodSeconds": 30}}));
    merge(&mut held["metadata"], &going);
    case.put(None, &held);
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "d", "uid": "u-s", "finalizers": ["x/y"]}});
    case.put(None, &service);
    merge(&mut service["metadata"], &going);
    case.put(None, &service);
    case.put(None, &namespace(&json!({"metadata": going.clone()})));
    case.is_right();

    merge(&mut service["metadata"], &json!({"finalizers": []}));
    case.put(None, &service);
    case.is_wrong(&["services/d/s", "is held by nobody"]);
    service["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
    case.put(None, &service);
    case.is_wrong(&["lives again"]);

    let key = Key::new(Kind::Service, "d", "s");
    let update = Request::Update { object: object(&service), subresource: None };
    case.commit(None, &update, &key, None);
    case.is_wrong(&["nobody had asked"]);
    merge(&mut service["metadata"], &json!({"finalizers": ["x/y"]}));
    case.put(None, &service);
    case.commit(None, &deletion(&key), &key, None);
    case.is_wrong(&["removed while x/y held it"]);
    // The write that takes the last finalizer away removes the object.
    merge(&mut service["metadata"], &going);
    case.put(None, &service);
    case.commit(None, &update, &key, None);
    case.is_right();
}

#[test]
fn p41_one_controller() {
    let mut case = Case::new(OneController);
    case.put(None, &pod("a", &json!({})));
    case.put(None, &replica("a", &json!({})));
    case.put(None, &pod("a", &json!({})));
    case.put(None, &node("n1", &json!({})));
    case.put(None, &replica("a", &json!({})));
    case.is_right();
    let reference = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name,
            "uid": format!("u-{name}"), "controller": true})
    };
    let owners = |list: serde_json::Value| json!({"metadata": {"ownerReferences": list}});
    case.put(None, &pod("a", &owners(json!([reference("q")]))));
    case.is_wrong(&["taken from controller u-r by u-q"]);
    case.put(None, &pod("a", &owners(json!([reference("q"), reference("r")]))));
    case.is_wrong(&["has 2 controllers"]);
    // A claim goes with its set, or with its pod.
    let claim = |kind: &str, name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "d", "uid": "u-c", "ownerReferences":
                [{"apiVersion": "v1", "kind": kind, "name": name, "uid": format!("u-{name}"),
                    "controller": true}]}})
    };
    case.put(None, &claim("StatefulSet", "s"));
    case.put(None, &claim("Pod", "s-0"));
    case.is_right();
    case.put(None, &claim("ReplicaSet", "r"));
    case.is_wrong(&["persistentvolumeclaims/d/c was taken from controller u-s-0 by u-r"]);
}
