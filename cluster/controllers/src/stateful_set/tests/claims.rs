//! Claims of templates: they come before the pods and stay, unless the policy says otherwise.

use super::*;

/// `web` with a template of claims, `data`.
fn with_claims(replicas: i32, policy: &str, deleted: &str, scaled: &str) -> Value {
    let mut set = web(replicas, policy, rolling(0));
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data",
            "labels": {"own": "x"}, "annotations": {"a": "b"}},
        "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}}]);
    set["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": deleted, "whenScaled": scaled});
    set["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]);
    set
}

fn retained(replicas: i32) -> Value {
    with_claims(replicas, "OrderedReady", "Retain", "Retain")
}

fn claim_key(ordinal: i64) -> Key {
    Key::new(Kind::PersistentVolumeClaim, "n", &format!("data-web-{ordinal}"))
}

fn owners(fixture: &Fixture<StatefulSets>, ordinal: i64) -> Vec<String> {
    let claim = codec::to_value(&fixture.store.objects[&claim_key(ordinal)]);
    let owners = claim["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    owners.iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn claims_come_before_their_pod_which_mounts_them() {
    let mut fixture = fixture(retained(1));
    let done = fixture.settle(&key());
    let made: Vec<&String> = done.iter().filter(|s| s.starts_with("create ")).collect();
    assert_eq!(
        made[made.len() - 2..],
        ["create persistentvolumeclaims/n/data-web-0", "create pods/n/web-0"]
    );
    let claim = codec::to_value(&fixture.store.objects[&claim_key(0)]);
    assert_eq!(claim["metadata"]["labels"], json!({"app": "web", "own": "x"}));
    assert_eq!(claim["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
    let pod = codec::to_value(&fixture.store.objects[&pod_key(0)]);
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
            {"name": "tmp", "emptyDir": {}}])
    );
}

#[test]
fn claims_outlive_pods_and_ordinals() {
    let mut fixture = fixture(retained(2));
    roll_out(&mut fixture);
    let uid =
        |fixture: &Fixture<StatefulSets>| fixture.store.objects[&claim_key(1)].uid().to_owned();
    let before = uid(&fixture);
    fixture.remove(&pod_key(1));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["replicas"] = 1.into());
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v2"]);
    edit(&mut fixture, |spec| spec["replicas"] = 2.into());
    roll_out(&mut fixture);
    assert_eq!(uid(&fixture), before);
}

#[test]
fn a_pod_waits_for_a_claim_that_goes() {
    let mut fixture = fixture(retained(1));
    let time = fixture.now().to_meta();
    let mut going = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata":
        {"name": "data-web-0", "namespace": "n", "deletionTimestamp": time,
            "finalizers": ["kubernetes.io/pvc-protection"]}});
    assert_eq!(fixture.put(going.clone()), [key()]);
    fixture.settle(&key());
    assert!(fixture.store.get(&pod_key(0)).is_none());
    let told = fixture.reconcile(&key()).events;
    assert_eq!(
        told[0].message,
        "create Pod web-0 in StatefulSet web failed error: pvc data-web-0 is to be deleted"
    );
    assert_eq!(fixture.remove(&claim_key(0)), [key()]);
    fixture.settle(&key());
    assert!(fixture.store.get(&pod_key(0)).is_some());
    // Claims of others are not looked at.
    going["metadata"]["name"] = json!("data-web-x");
    assert_eq!(fixture.put(going), []);
}

#[test]
fn a_pod_that_waits_gets_its_claims_back() {
    let mut fixture = fixture(retained(1));
    fixture.settle(&key());
    assert_eq!(fixture.remove(&claim_key(0)), [key()]);
    assert_eq!(fixture.settle(&key()), ["create persistentvolumeclaims/n/data-web-0"]);
}

#[test]
fn by_the_policy_claims_go_with_the_set() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut fixture = fixture(with_claims(2, policy, "Delete", "Retain"));
        roll_out(&mut fixture);
        assert_eq!(owners(&fixture, 0), ["StatefulSet"]);
        edit(&mut fixture, |spec| {
            spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] = "Retain".into();
        });
        roll_out(&mut fixture);
        assert_eq!(owners(&fixture, 0), [""; 0]);
    }
}

#[test]
fn by_the_policy_claims_go_with_unwanted_pods() {
    for deleted in ["Retain", "Delete"] {
        let mut fixture = fixture(with_claims(2, "OrderedReady", deleted, "Delete"));
        roll_out(&mut fixture);
        let with_set: &[&str] = if deleted == "Delete" { &["StatefulSet"] } else { &[] };
        assert_eq!(owners(&fixture, 1), with_set);
        edit(&mut fixture, |spec| spec["replicas"] = 1.into());
        fixture.settle(&key());
        // Before its pod is deleted, the claim is told.
        assert_eq!(owners(&fixture, 1), ["Pod"]);
        assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1 going"]);
        // Wanted again while the pod still goes: the claim stays.
        edit(&mut fixture, |spec| spec["replicas"] = 2.into());
        fixture.settle(&key());
        assert_eq!(owners(&fixture, 1), with_set);
        edit(&mut fixture, |spec| spec["replicas"] = 1.into());
        roll_out(&mut fixture);
        assert_eq!(show(&fixture), ["web-0 v1"]);
        assert_eq!(owners(&fixture, 1), ["Pod"]);
        // What goes with an earlier pod is not given to a new one.
        edit(&mut fixture, |spec| spec["replicas"] = 2.into());
        fixture.settle(&key());
        assert!(fixture.store.get(&pod_key(1)).is_none());
        assert_eq!(fixture.remove(&claim_key(1)), [key()]);
        roll_out(&mut fixture);
        assert_eq!(owners(&fixture, 1), with_set);
    }
}

#[test]
fn claims_of_other_controllers_are_left_alone() {
    let mut fixture = fixture(with_claims(1, "OrderedReady", "Delete", "Retain"));
    let owner = json!([{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o",
        "controller": true}]);
    fixture.put(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata":
        {"name": "data-web-0", "namespace": "n", "ownerReferences": owner}}));
    roll_out(&mut fixture);
    assert_eq!(owners(&fixture, 0), ["Other"]);
    let told = fixture.reconcile(&key()).events;
    assert_eq!(told[0].reason, "ConflictingController");
}
