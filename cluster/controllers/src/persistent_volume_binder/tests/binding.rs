//! Claims and volumes that are there find each other.

use super::*;

#[test]
fn a_claim_and_a_volume_are_bound_in_four_steps() {
    let mut bench = bench(&[claim(json!({})), volume(json!({}))]);
    let done = settle(&mut bench);
    assert_eq!(
        done,
        [
            "update persistentvolumes/v",
            "update persistentvolumeclaims/n/c",
            "update persistentvolumeclaims/n/c status",
            "update persistentvolumes/v status",
        ]
    );
    let (claim, volume) = (value(&bench, &claim_at("c")), value(&bench, &volume_at("v")));
    assert_eq!(claim["spec"]["volumeName"], "v");
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({"pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes"})
    );
    assert_eq!(claim["status"]["phase"], "Bound");
    assert_eq!(claim["status"]["capacity"], json!({"storage": "1Gi"}));
    assert_eq!(claim["status"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(volume["spec"]["claimRef"]["uid"], "uid-c");
    assert_eq!(volume["spec"]["claimRef"]["name"], "c");
    assert_eq!(
        volume["metadata"]["annotations"],
        json!({"pv.kubernetes.io/bound-by-controller": "yes"})
    );
    assert_eq!(volume["status"]["phase"], "Bound");
}

#[test]
fn what_the_user_reserved_is_not_marked_as_chosen() {
    let reserved = json!({"claimRef": {"namespace": "n", "name": "c"}});
    let mut bench = bench(&[claim(json!({"volumeName": "v"})), volume(reserved)]);
    settle(&mut bench);
    let (claim, volume) = (value(&bench, &claim_at("c")), value(&bench, &volume_at("v")));
    assert_eq!(
        (phase(&bench, &claim_at("c")).as_str(), &*phase(&bench, &volume_at("v"))),
        ("Bound", "Bound")
    );
    assert_eq!(volume["metadata"]["annotations"], Value::Null);
    assert_eq!(claim["metadata"]["annotations"], json!({"pv.kubernetes.io/bind-completed": "yes"}));
}

#[test]
fn claims_that_ask_for_one_volume_wait_for_it() {
    let asks = || claim(json!({"volumeName": "v"}));
    let check = |objects: &[Value], expected: &str| {
        let mut bench = bench(objects);
        assert_eq!(event(&bench, &claim_at("c")), expected);
        settle(&mut bench);
        assert_eq!(phase(&bench, &claim_at("c")), "Pending");
    };
    check(&[asks()], "");
    let other = json!({"claimRef": {"namespace": "n", "name": "d", "uid": "x"}});
    check(
        &[asks(), volume(other)],
        "FailedBinding volume \"v\" already bound to a different claim.",
    );
    for (spec, why) in [
        (json!({"capacity": {"storage": "1"}}), "requested PV is too small"),
        (json!({"storageClassName": "x"}), "storageClassName does not match"),
        (json!({"volumeMode": "Block"}), "incompatible volumeMode"),
        (json!({"accessModes": ["ReadOnlyMany"]}), "incompatible accessMode"),
    ] {
        let expected = format!("VolumeMismatch Cannot bind to requested volume \"v\": {why}");
        check(&[asks(), volume(spec)], &expected);
    }
}

#[test]
fn claims_are_told_why_they_wait() {
    let check = |objects: &[Value], expected: &str| {
        assert_eq!(event(&bench(objects), &claim_at("c")), expected);
    };
    check(
        &[claim(json!({}))],
        "FailedBinding no persistent volumes available for this claim and no storage class is set",
    );
    let of = |class: &str| claim(json!({"storageClassName": class}));
    check(&[of("x")], "ProvisioningFailed storageclass.storage.k8s.io \"x\" not found");
    check(
        &[of("x"), class("x", "kubernetes.io/no-provisioner", "Immediate")],
        "ProvisioningFailed no volume plugin matched name: kubernetes.io/no-provisioner",
    );
    let waiting = "WaitForFirstConsumer waiting for first consumer to be created before binding";
    check(&[of("local"), local()], waiting);
    // A volume of the class is not taken before a pod is there.
    check(&[of("local"), local(), volume(json!({"storageClassName": "local"}))], waiting);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "volumes":
            [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    let told = "WaitForPodScheduled waiting for pod p to be scheduled";
    check(&[of("local"), local(), pod.clone()], told);
    let mut bench = bench(&[of("local"), local()]);
    assert_eq!(bench.put(pod), [claim_at("c")]);
}

#[test]
fn what_may_help_a_waiting_claim_makes_it_be_looked_at() {
    let mut bench = bench(&[claim(json!({}))]);
    let default = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata":
        {"name": "d", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "a/b"});
    assert_eq!(bench.put(class("x", "a/b", "Immediate")), []);
    let mut found = bench.put(volume(json!({})));
    found.sort();
    let mut expected = vec![volume_at("v"), claim_at("c")];
    expected.sort();
    assert_eq!(found, expected);
    bench.remove(&volume_at("v"));
    // The default class is given to claims that are older than it.
    assert_eq!(bench.put(default), [claim_at("c")]);
    settle(&mut bench);
    assert_eq!(value(&bench, &claim_at("c"))["spec"]["storageClassName"], "d");
}

#[test]
fn two_claims_do_not_share_a_volume() {
    let mut other = claim(json!({}));
    other["metadata"]["name"] = json!("d");
    let mut bench = bench(&[claim(json!({})), other, volume(json!({}))]);
    // Both saw the same free volume.
    let plans = [bench.reconcile(&claim_at("c")), bench.reconcile(&claim_at("d"))];
    let [first, second] = plans.map(|plan| plan.requests);
    for request in first {
        bench.request(request);
    }
    assert!(bench.store.request(second[0].clone()).is_err());
    settle(&mut bench);
    assert_eq!(phase(&bench, &claim_at("c")), "Bound");
    assert_eq!(phase(&bench, &claim_at("d")), "Pending");
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost() {
    let mut bench = bench(&[claim(json!({})), volume(json!({}))]);
    settle(&mut bench);
    let affected = bench.remove(&volume_at("v"));
    assert!(affected.contains(&claim_at("c")));
    bench.progress();
    assert_eq!(
        event(&bench, &claim_at("c")),
        "ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!"
    );
    settle(&mut bench);
    assert_eq!(phase(&bench, &claim_at("c")), "Lost");
    assert_eq!(event(&bench, &claim_at("c")), "");
}

#[test]
fn a_claim_whose_volume_serves_another_is_lost() {
    let mut bench = bench(&[claim(json!({})), volume(json!({}))]);
    settle(&mut bench);
    let mut stolen = value(&bench, &volume_at("v"));
    stolen["spec"]["claimRef"]["uid"] = json!("other");
    bench.put(stolen);
    assert_eq!(
        event(&bench, &claim_at("c")),
        "ClaimMisbound Two claims are bound to the same volume, this one is bound incorrectly"
    );
}

#[test]
fn a_bound_claim_waits_for_a_watch_that_is_late() {
    let mut lost = claim(json!({"volumeName": "v"}));
    lost["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let mut bench = Fixture::new(PersistentVolumeBinder);
    bench.put(lost);
    let plan = bench.reconcile(&claim_at("c"));
    assert_eq!(summary(&plan), ["read PersistentVolume"]);
}
