//! Volumes that are made.

use super::*;

fn waiting(node: &str) -> Value {
    let mut claim = claim(json!({"storageClassName": "local", "volumeMode": "Filesystem"}));
    claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": node});
    claim
}

#[test]
fn a_folder_on_the_chosen_node_is_made_for_a_claim() {
    let mut bench = bench(&[waiting("a"), local(), node("a")]);
    settle(&mut bench);
    let made = value(&bench, &volume_at("pvc-uid-c"));
    assert_eq!(
        made["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": made["spec"]["claimRef"], "storageClassName": "local",
            "local": {"path": "/var/lib/kprov-volumes/pvc-uid-c"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a.host"]}]}]}},
            "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem"})
    );
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"pv.kubernetes.io/provisioned-by": "kprov.io/local", "kprov.io/node": "a",
            "pv.kubernetes.io/bound-by-controller": "yes"})
    );
    assert_eq!(made["status"]["phase"], "Bound");
    let claim = value(&bench, &claim_at("c"));
    assert_eq!(claim["status"]["phase"], "Bound");
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["volume.kubernetes.io/storage-provisioner"], "kprov.io/local");
}

#[test]
fn a_node_that_is_gone_is_given_up() {
    let mut bench = bench(&[waiting("a"), local(), node("a")]);
    bench.settle(&claim_at("x"));
    assert!(bench.remove(&Key::cluster(Kind::Node, "a")).contains(&claim_at("c")));
    settle(&mut bench);
    let claim = value(&bench, &claim_at("c"));
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], Value::Null);
    assert_eq!(bench.store.kind(Kind::PersistentVolume).count(), 0);
}

#[test]
fn what_folders_are_not_is_refused() {
    let check = |change: (&str, Value), expected: &str| {
        let mut claim = waiting("a");
        claim["spec"][change.0] = change.1;
        let mut bench = bench(&[claim, local(), node("a")]);
        settle(&mut bench);
        let expected = format!("ProvisioningFailed kprov.io/local: {expected}");
        assert_eq!(event(&bench, &claim_at("c")), expected);
    };
    check(("volumeMode", json!("Block")), "block volumes are not supported");
    check(
        ("accessModes", json!(["ReadWriteMany"])),
        "only access modes ReadWriteOnce and ReadWriteOncePod are supported",
    );
    check(
        ("selector", json!({"matchLabels": {"a": "b"}})),
        "claim.spec.selector is not supported for dynamic provisioning",
    );
    let mut bench = bench(&[
        claim(json!({"storageClassName": "local"})),
        class("local", "kprov.io/local", "Immediate"),
    ]);
    settle(&mut bench);
    assert_eq!(
        event(&bench, &claim_at("c")),
        "ProvisioningFailed kprov.io/local: storage classes must have volumeBindingMode \
         WaitForFirstConsumer"
    );
}

#[test]
fn other_provisioners_are_asked() {
    let mut bench =
        bench(&[claim(json!({"storageClassName": "x"})), class("x", "a.io/b", "Immediate")]);
    settle(&mut bench);
    assert_eq!(
        event(&bench, &claim_at("c")),
        "ExternalProvisioning Waiting for a volume to be created either by the external \
         provisioner 'a.io/b' or manually by the system administrator. If volume creation is \
         delayed, please verify that the provisioner is running and correctly registered."
    );
    let claim = value(&bench, &claim_at("c"));
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["volume.beta.kubernetes.io/storage-provisioner"], "a.io/b");
}
