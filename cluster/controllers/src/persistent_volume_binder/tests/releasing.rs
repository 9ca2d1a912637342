//! Volumes whose claims are gone.

use super::*;

/// A volume that was bound to the claim `c`, which is gone.
fn left_behind(change: &[(&str, Value)]) -> Bench {
    let mut volume = volume(json!({"claimRef": {"namespace": "n", "name": "c", "uid": "uid-c"}}));
    volume["status"]["phase"] = json!("Bound");
    for (pointer, new) in change {
        let mut at = &mut volume;
        for part in pointer.split('|') {
            at = &mut at[part];
        }
        *at = new.clone();
    }
    bench(&[volume, node("a")])
}

fn policy(policy: &str) -> (&'static str, Value) {
    ("spec|persistentVolumeReclaimPolicy", json!(policy))
}

#[test]
fn volumes_without_a_claim_are_available() {
    let mut free = volume(json!({}));
    free["status"]["phase"] = json!("Pending");
    let mut bench = bench(&[free]);
    settle(&mut bench);
    assert_eq!(phase(&bench, &volume_at("v")), "Available");
}

#[test]
fn what_is_retained_is_released() {
    let mut bench = left_behind(&[policy("Retain")]);
    assert_eq!(settle(&mut bench), ["update persistentvolumes/v status"]);
    assert_eq!(phase(&bench, &volume_at("v")), "Released");
    // A new claim of that name does not get the data of the old one.
    let mut again = claim(json!({}));
    again["metadata"]["uid"] = json!("another");
    bench.put(again);
    settle(&mut bench);
    assert_eq!(phase(&bench, &volume_at("v")), "Released");
    assert_eq!(phase(&bench, &claim_at("c")), "Pending");
}

#[test]
fn nothing_is_released_before_the_watch_of_claims_has_come_that_far() {
    let mut bench = Fixture::new(PersistentVolumeBinder);
    bench.put(volume(json!({"claimRef": {"namespace": "n", "name": "c", "uid": "uid-c"}})));
    assert_eq!(summary(&bench.reconcile(&volume_at("v"))), ["read PersistentVolumeClaim"]);
}

#[test]
fn what_nobody_here_can_reclaim_fails() {
    let check = |kind: &str, reason: &str, message: &str| {
        let mut bench = left_behind(&[policy(kind)]);
        bench.request(bench.reconcile(&volume_at("v")).requests[0].clone());
        bench.progress();
        assert_eq!(event(&bench, &volume_at("v")), format!("{reason} {message}"));
        settle(&mut bench);
        let volume = value(&bench, &volume_at("v"));
        assert_eq!(volume["status"]["phase"], "Failed");
        assert_eq!(volume["status"]["message"], message);
        assert_eq!(event(&bench, &volume_at("v")), "");
    };
    check("Recycle", "VolumeFailedRecycle", "No recycler plugin found for the volume!");
    check(
        "Delete",
        "VolumeFailedDelete",
        "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
    );
}

#[test]
fn others_delete_what_they_made() {
    let by = ("metadata|annotations", json!({"pv.kubernetes.io/provisioned-by": "a.io/b"}));
    let mut bench = left_behind(&[policy("Delete"), by]);
    settle(&mut bench);
    assert_eq!(phase(&bench, &volume_at("v")), "Released");
}

fn ours() -> Bench {
    let annotations = json!({"pv.kubernetes.io/provisioned-by": "kprov.io/local",
        "kprov.io/node": "a"});
    left_behind(&[policy("Delete"), ("metadata|annotations", annotations)])
}

#[test]
fn the_folder_goes_before_the_volume() {
    let mut bench = ours();
    let told = |bench: &Bench| {
        let node = value(bench, &Key::cluster(Kind::Node, "a"));
        node["metadata"]["annotations"]["local-volume.kprov.io/v"].clone()
    };
    let done = settle(&mut bench);
    assert_eq!(done, ["update persistentvolumes/v status", "update nodes/a"]);
    assert_eq!(told(&bench), "remove");
    let mut node = value(&bench, &Key::cluster(Kind::Node, "a"));
    node["metadata"]["annotations"]["local-volume.kprov.io/v"] = json!("removed");
    assert_eq!(bench.put(node), [volume_at("v")]);
    assert_eq!(settle(&mut bench), ["delete persistentvolumes/v", "update nodes/a"]);
    assert_eq!(told(&bench), Value::Null);
    assert_eq!(bench.settle(&volume_at("v")), [""; 0]);
}

#[test]
fn the_folder_of_a_node_that_is_gone_is_gone() {
    let mut bench = ours();
    settle(&mut bench);
    assert!(bench.remove(&Key::cluster(Kind::Node, "a")).contains(&volume_at("v")));
    bench.progress();
    assert_eq!(settle(&mut bench), ["delete persistentvolumes/v"]);
}

#[test]
fn a_volume_whose_claim_has_another_one_is_let_go() {
    let mut elsewhere = claim(json!({"volumeName": "w"}));
    elsewhere["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    elsewhere["status"]["phase"] = json!("Lost");
    let reference = json!({"namespace": "n", "name": "c", "uid": "uid-c"});
    let mut chosen = volume(json!({"claimRef": reference}));
    let reserved = chosen.clone();
    chosen["metadata"]["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    for (volume, expected) in
        [(chosen, Value::Null), (reserved, json!({"namespace": "n", "name": "c"}))]
    {
        let mut bench = bench(&[elsewhere.clone(), volume]);
        settle(&mut bench);
        let volume = value(&bench, &volume_at("v"));
        assert_eq!(volume["spec"]["claimRef"], expected);
        assert_eq!(volume["status"]["phase"], "Available");
    }
}
