use api::{Propagation, Revision};

use super::*;

fn graceful(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
}

fn propagated(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

#[test]
fn pods_end_gracefully() {
    let mut world = World::new();
    world.create(pod("a")).unwrap();
    let a = key(Kind::Pod, "a");
    world.bind("a", "node-1").unwrap();
    let going = world.delete(&a, DeleteOptions::default()).unwrap();
    assert_eq!(going["metadata"]["deletionTimestamp"], "2023-11-14T22:13:50Z");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(going["metadata"]["generation"], 2);
    // Asking again changes nothing, nor does asking for more time.
    world.now = Time::from_secs(1_700_000_010);
    assert_eq!(world.delete(&a, DeleteOptions::default()).unwrap(), going);
    assert_eq!(world.delete(&a, graceful(60)).unwrap(), going);
    // The time becomes shorter from when it began.
    let sooner = world.delete(&a, graceful(5)).unwrap();
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "2023-11-14T22:13:25Z");
    assert_eq!(sooner["metadata"]["generation"], 2);
    // It cannot be bound or renamed into life again.
    let error = world.bind("a", "node-2").unwrap_err();
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is being deleted, cannot be \
         assigned to a host"
    );
    let error = world.create(pod("a")).unwrap_err();
    assert_eq!(error.message, "object is being deleted: pods \"a\" already exists");
    // The kubelet's report does not touch the deadline.
    let report = json!({"metadata": {"deletionTimestamp": null}, "status": {"phase": "Failed"}});
    let after = world.patch_at(&a, Some(Subresource::Status), report).unwrap();
    assert_eq!(after["metadata"]["deletionTimestamp"], "2023-11-14T22:13:25Z");
    assert_eq!(world.delete(&a, graceful(0)).unwrap(), Value::Null);
    assert!(world.get(&a).is_none());
}

#[test]
fn pods_that_run_nowhere_go_at_once() {
    let mut world = World::new();
    world.create(pod("a")).unwrap();
    assert_eq!(world.delete(&key(Kind::Pod, "a"), DeleteOptions::default()).unwrap(), Value::Null);
    world.create(pod("b")).unwrap();
    let b = key(Kind::Pod, "b");
    world.bind("b", "node-1").unwrap();
    let done = json!({"status": {"phase": "Succeeded"}});
    world.patch_at(&b, Some(Subresource::Status), done).unwrap();
    assert_eq!(world.delete(&b, graceful(30)).unwrap(), Value::Null);
}

#[test]
fn finalizers_hold_an_object() {
    let mut world = World::new();
    let held = with(pod("a"), "/metadata/finalizers", json!(["example.com/hold"]));
    world.create(held).unwrap();
    let a = key(Kind::Pod, "a");
    let going = world.delete(&a, DeleteOptions::default()).unwrap();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(
        world.patch(&a, more).unwrap_err().message,
        "Pod \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if \
         the object is being deleted, found new finalizers []string{\"example.com/more\"}"
    );
    assert_eq!(world.patch(&a, json!({"metadata": {"finalizers": null}})).unwrap(), Value::Null);
    assert!(world.get(&a).is_none());
}

#[test]
fn propagation() {
    let mut world = World::new();
    let finalizers = |value: &Value| value["metadata"]["finalizers"].clone();
    world.create(deployment("a")).unwrap();
    let a = key(Kind::Deployment, "a");
    let going = world.delete(&a, propagated(Propagation::Foreground)).unwrap();
    assert_eq!(finalizers(&going), json!(["foregroundDeletion"]));
    assert_eq!(going["metadata"]["generation"], 2);
    // The caller may still change its mind.
    let going = world.delete(&a, propagated(Propagation::Orphan)).unwrap();
    assert_eq!(finalizers(&going), json!(["orphan"]));
    let gone = world.delete(&a, propagated(Propagation::Background)).unwrap();
    assert_eq!(gone, Value::Null);
    world.create(super::crud::minimal(Kind::ReplicationController)).unwrap();
    let rc = key(Kind::ReplicationController, "x");
    let going = world.delete(&rc, DeleteOptions::default()).unwrap();
    assert_eq!(finalizers(&going), json!(["orphan"]));
    // Events own nothing.
    world.create(super::crud::minimal(Kind::Event)).unwrap();
    let event = key(Kind::Event, "x");
    assert_eq!(world.delete(&event, propagated(Propagation::Orphan)).unwrap(), Value::Null);
}

#[test]
fn preconditions() {
    let mut world = World::new();
    let made = world.create(pod("a")).unwrap();
    let a = key(Kind::Pod, "a");
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let options = DeleteOptions { uid: Some("u".to_owned()), ..DeleteOptions::default() };
    assert_eq!(
        world.delete(&a, options).unwrap_err().message,
        format!(
            "Operation cannot be fulfilled on pods \"a\": the UID in the precondition (u) does \
             not match the UID in record ({uid}). The object might have been deleted and then \
             recreated"
        )
    );
    let options = DeleteOptions { revision: Some(Revision(1)), ..DeleteOptions::default() };
    let error = world.delete(&a, options).unwrap_err();
    assert!(error.message.contains("the ResourceVersion in the precondition (1)"), "{error}");
}

#[test]
fn namespaces() {
    let mut world = World::new();
    let manifest = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "team"}});
    let made = world.create(manifest).unwrap();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    let team = key(Kind::Namespace, "team");
    let going = world.delete(&team, DeleteOptions::default()).unwrap();
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(world.delete(&team, DeleteOptions::default()).unwrap(), going);
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "m", "namespace": "team"}});
    let error = world.create(map).unwrap_err();
    assert_eq!(
        error.message,
        "configmaps \"m\" is forbidden: unable to create new content in namespace team because \
         it is being terminated"
    );
    assert_eq!(error.causes[0].reason, "NamespaceTerminating");
    // A plain update cannot take the finalizer away.
    let body = json!({"spec": {"finalizers": []}});
    world.patch(&team, body.clone()).unwrap();
    assert!(world.get(&team).is_some());
    let finalized = world.patch_at(&team, Some(Subresource::Finalize), body).unwrap();
    assert_eq!(finalized, Value::Null);
    let error =
        world.delete(&key(Kind::Namespace, "default"), DeleteOptions::default()).unwrap_err();
    assert_eq!(
        error.message,
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}
