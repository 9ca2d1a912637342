#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use api::{ApiError, Status};
use machine::Reconciler;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, creates, summary};
use crate::replica_set::ReplicaSets;
use crate::replication_controller::ReplicationControllers;

fn set(replicas: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
}

fn owned_by(uid: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid,
        "controller": true, "blockOwnerDeletion": true}])
}

/// A pod as `name label owner phase`, with `-` for nothing.
fn pod(text: &str) -> Value {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, label, owner, phase] = words[..] else { panic!("{text}") };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"containers": [], "nodeName": "node"}, "status": {"phase": "Running"}});
    if label != "-" {
        pod["metadata"]["labels"] = json!({"app": label});
    }
    if owner != "-" {
        pod["metadata"]["ownerReferences"] = owned_by(owner);
    }
    match phase {
        "Ready" => {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                "lastTransitionTime": crate::fixture::START.to_meta()}]);
        }
        "Terminating" => {
            pod["metadata"]["deletionTimestamp"] = json!(crate::fixture::START.to_meta());
        }
        phase => pod["status"]["phase"] = phase.into(),
    }
    pod
}

fn fixture(set: Value, pods: &[&str]) -> Fixture<ReplicaSets> {
    let mut fixture = Fixture::new(ReplicaSets::new());
    for text in pods {
        fixture.put(pod(text));
    }
    fixture.put(set);
    fixture
}

fn key() -> Key {
    Key::new(Kind::ReplicaSet, "n", "web")
}

/// What is done, with created pods as a mere count.
fn check(set: Value, pods: &[&str], created: usize, rest: &[&str]) {
    let plan = fixture(set, pods).reconcile(&key());
    assert_eq!(creates(&plan).len(), created, "{pods:?}");
    let others: Vec<String> =
        summary(&plan).into_iter().filter(|s| !s.starts_with("create ")).collect();
    assert_eq!(others, rest, "{pods:?}");
}

const STATUS: &str = "update replicasets/n/web status";

#[test]
fn pods_are_made_and_removed() {
    check(set(json!(3)), &[], 3, &[STATUS]);
    check(set(Value::Null), &[], 1, &[STATUS]);
    check(set(json!(-4)), &[], 0, &[STATUS]);
    check(set(json!(2)), &["a web set Ready", "b web set Running"], 0, &[STATUS]);
    check(
        set(json!(1)),
        &["a web set Ready", "b web set Pending"],
        0,
        &["delete pods/n/b", STATUS],
    );
    // Pods that ended or are being deleted do not count and are left alone.
    check(
        set(json!(2)),
        &["a web set Failed", "b web set Terminating", "c web set Succeeded"],
        2,
        &[STATUS],
    );
    // No more than 500 in one pass.
    check(set(json!(10_000)), &[], 500, &[STATUS]);
}

#[test]
fn orphans_are_adopted_and_strangers_released_first() {
    check(set(json!(1)), &["a web - Running"], 0, &["update pods/n/a"]);
    check(set(json!(1)), &["a other set Running"], 0, &["update pods/n/a"]);
    check(set(json!(1)), &["a web other Running"], 1, &[STATUS]);
    check(set(json!(1)), &["a - - Running", "b web - Terminating"], 1, &[STATUS]);

    let mut adopting = fixture(set(json!(1)), &["a web - Running"]);
    assert_eq!(adopting.settle(&key()), ["update pods/n/a", STATUS]);
    let owners = &adopting.store.objects[&Key::new(Kind::Pod, "n", "a")].meta().owner_references;
    assert_eq!(owners.as_ref().unwrap()[0].uid, "set");
}

#[test]
fn odd_sets_make_nothing() {
    let mut empty = set(json!(3));
    empty["spec"]["selector"] = json!({});
    check(empty, &["a web - Running"], 0, &[STATUS]);
    let mut mismatch = set(json!(3));
    mismatch["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    check(mismatch, &[], 0, &[STATUS]);
    let mut bare = set(json!(3));
    bare.as_object_mut().unwrap().remove("spec");
    check(bare, &["a web - Running"], 0, &[STATUS]);
    let mut no_template = set(json!(3));
    no_template["spec"].as_object_mut().unwrap().remove("template");
    check(no_template, &[], 0, &[STATUS]);
    let mut dying = set(json!(3));
    dying["metadata"]["deletionTimestamp"] = json!(crate::fixture::START.to_meta());
    check(dying, &["a web set Running"], 0, &[STATUS]);
}

#[test]
fn names_repeat_until_a_pod_is_lost() {
    let mut fixture = fixture(set(json!(2)), &[]);
    let first = creates(&fixture.reconcile(&key()));
    assert_eq!(first, creates(&fixture.reconcile(&key())));
    fixture.settle(&key());
    let (_, name) = first[0].rsplit_once('/').unwrap();
    fixture.remove(&Key::new(Kind::Pod, "n", name));
    let next = creates(&fixture.reconcile(&key()));
    assert!(next.len() == 1 && !first.contains(&next[0]), "{first:?} {next:?}");
    assert!(name_prefix(&"é".repeat(60)).len() <= NAME_PREFIX_MAX);
}

#[test]
fn the_status_counts() {
    let pods = ["a web set Ready", "b web set Ready", "c web set Running"];
    let mut long = set(json!(3));
    long["spec"]["minReadySeconds"] = 10.into();
    long["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let mut fixture = fixture(long, &pods);
    fixture.advance(Duration::from_secs(4));
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.revisit, Some(Duration::from_secs(6)));
    fixture.settle(&key());
    let status = |f: &Fixture<ReplicaSets>| {
        serde_json::to_string(&api::codec::to_value(&f.store.objects[&key()])["status"]).unwrap()
    };
    insta::assert_snapshot!(
        status(&fixture),
        @r#"{"fullyLabeledReplicas":3,"observedGeneration":3,"readyReplicas":2,"replicas":3}"#
    );
    fixture.advance(Duration::from_secs(6));
    fixture.settle(&key());
    assert!(status(&fixture).starts_with(r#"{"availableReplicas":2,"#));
}

#[test]
fn refusals_are_noted_until_the_number_is_right() {
    let mut fixture = fixture(set(json!(1)), &[]);
    let plan = fixture.reconcile(&key());
    let told = &plan.announcements[&0];
    assert_eq!(told.refused.as_ref().unwrap().reason, "FailedCreate");
    assert!(told.done.as_ref().unwrap().message.starts_with("Created pod: web-"));
    let error = ApiError::from(Status::forbidden(Kind::Pod, "web-x", "exceeded quota"));
    let note = |f: &Fixture<ReplicaSets>| {
        ReplicaSets::new().note_refusal(&f.cache, &key(), &plan.requests[0], &error, f.now())
    };
    fixture.request(note(&fixture).unwrap());
    assert!(note(&fixture).is_none());
    fixture.settle(&key());
    // With its pod the failure is gone.
    let value = api::codec::to_value(&fixture.store.objects[&key()]);
    assert_eq!(value["status"]["conditions"], Value::Null);
}

#[test]
fn refused_pods_do_not_keep_the_others_from_being_reported() {
    let mut fixture = fixture(set(json!(3)), &["a web set Ready"]);
    let plan = fixture.reconcile(&key());
    let error = ApiError::from(Status::forbidden(Kind::Pod, "web-x", "exceeded quota"));
    let note = |f: &Fixture<ReplicaSets>| {
        ReplicaSets::new().note_refusal(&f.cache, &key(), &plan.requests[0], &error, f.now())
    };
    fixture.request(note(&fixture).unwrap());
    let status = |f: &Fixture<ReplicaSets>| {
        let value = api::codec::to_value(&f.store.objects[&key()]);
        let status = &value["status"];
        let reason = status["conditions"][0]["reason"].as_str().map(str::to_owned);
        (status["replicas"].as_i64(), status["readyReplicas"].as_i64(), reason)
    };
    let failed = || Some("FailedCreate".to_owned());
    assert_eq!(status(&fixture), (Some(1), Some(1), failed()));
    assert!(note(&fixture).is_none());
    // One that goes is told of, although the next creation is refused as well.
    fixture.remove(&Key::new(Kind::Pod, "n", "a"));
    fixture.request(note(&fixture).unwrap());
    assert_eq!(status(&fixture), (Some(0), None, failed()));
}

#[test]
fn changes_of_pods_concern_old_and_new_owners() {
    let mut fixture = fixture(set(json!(1)), &[]);
    assert_eq!(fixture.put(pod("a web set Running")), [key()]);
    assert_eq!(fixture.put(pod("a other - Running")), [key()]);
    assert_eq!(fixture.put(pod("a other - Running")), []);
    assert_eq!(fixture.put(pod("a web - Running")), [key()]);
    assert_eq!(fixture.remove(&Key::new(Kind::Pod, "n", "a")), []);
}

#[test]
fn replication_controllers_do_the_same() {
    let mut fixture = Fixture::new(ReplicationControllers::new());
    let keys = fixture.put(json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "six", "namespace": "n", "uid": "rc", "generation": 1},
        "spec": {"replicas": 2, "selector": {"app": "web"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}}));
    let done = fixture.settle(&keys[0]);
    assert_eq!(done.iter().filter(|s| s.starts_with("create pods/n/six-")).count(), 2);
    let value = api::codec::to_value(&fixture.store.objects[&keys[0]]);
    assert_eq!(value["status"]["replicas"], 2);
    // Without a selector and labels it selects nothing.
    let keys = fixture.put(json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "odd", "namespace": "n"}, "spec": {"replicas": 2}}));
    assert_eq!(creates(&fixture.reconcile(&keys[0])), Vec::<String>::new());
}
