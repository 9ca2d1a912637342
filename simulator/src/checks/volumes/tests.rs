use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, node, object, one_with, placed, pod};

fn claim(name: &str, volume: Option<&str>) -> Value {
    let phase = if volume.is_some() { "Bound" } else { "Pending" };
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"volumeName": volume}, "status": {"phase": phase}})
}

fn volume(name: &str, claim: &str, host: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "uid": format!("u-{name}")},
        "spec": {"persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "d", "name": claim, "uid": format!("u-{claim}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "host", "operator": "In", "values": [host]}]}]}}},
        "status": {"phase": "Bound"}})
}

fn user(name: &str, host: &str, claim: &str) -> Value {
    let mut value = placed(name, host, "Running");
    value["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    value
}

/// Two nodes, and the claim `c` with the volume `v` on the first.
fn case() -> Case<OneVolumeEach> {
    let mut case = Case::new(OneVolumeEach);
    for host in ["n1", "n2"] {
        case.put(None, &node(host, &json!({"metadata": {"labels": {"host": host}}})));
    }
    case.put(None, &volume("v", "c", "n1"));
    case.put(None, &claim("c", Some("v")));
    case.is_right();
    case
}

fn key(name: &str) -> Key {
    Key::new(Kind::PersistentVolumeClaim, "d", name)
}

#[test]
fn p57_a_claim_and_its_volume_belong_together() {
    let mut case = case();
    case.put(None, &claim("b", Some("v")));
    case.is_wrong(&["persistentvolumeclaims/d/b is bound to v, which belongs to u-c"]);
    one_with(&case.at_rest(), &["persistentvolumeclaims/d/b and its volume v are not bound"]);
    case.put(None, &volume("w", "c", "n2"));
    case.put(None, &claim("c", Some("w")));
    case.is_wrong(&["persistentvolumeclaims/d/c had the volume v and has w now"]);
    case.put(None, &volume("w", "b", "n2"));
    case.is_wrong(&["belonged to the claim u-c and belongs to u-b now"]);
}

#[test]
fn p57_pods_run_where_their_volumes_are() {
    let mut case = case();
    case.put(None, &user("a", "n1", "c"));
    case.is_right();
    case.put(None, &user("b", "n2", "c"));
    case.is_wrong(&["pods/d/b runs where the volume of its claim c is not"]);
    case.put(None, &claim("e", None));
    case.put(None, &user("e", "n1", "e"));
    case.is_wrong(&["pods/d/e runs, and its claim e has no volume"]);
    one_with(&case.at_rest(), &["pods/d/e has a node at rest, and no volume of claim e"]);
    // What waits may go to the node of its volume alone, and anywhere with a claim that has none.
    let allowed = |pod: &Value| {
        let nodes = case.cluster.objects(Kind::Node).filter_map(Object::get::<Node>);
        let pod = object(pod).get::<Pod>().unwrap().clone();
        nodes.map(|n| allow(&case.cluster, &pod, n).is_ok()).collect::<Vec<_>>()
    };
    let waits = |claim: &str| {
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        pod("p", &json!({"spec": {"volumes": volumes}}))
    };
    assert_eq!(allowed(&waits("c")), [true, false]);
    assert_eq!(allowed(&waits("e")), [true, true]);
    assert_eq!(allowed(&waits("none")), [false, false]);
}

#[test]
fn p57_what_is_used_is_not_deleted() {
    let mut case = case();
    case.put(None, &user("a", "n1", "c"));
    case.delete(None, &Key::cluster(Kind::PersistentVolume, "v"));
    case.is_wrong(&["persistentvolumes/v is gone although persistentvolumeclaims/d/c has it"]);
    case.delete(None, &key("c"));
    case.is_wrong(&["persistentvolumeclaims/d/c is gone although pods/d/a uses it"]);
    let mut case = self::case();
    case.delete(None, &key("c"));
    case.is_right();
    one_with(&case.at_rest(), &["persistentvolumes/v is there at rest, and its claim is not"]);
}

#[test]
fn p57_stateful_sets_keep_their_claims() {
    let set = |policy: &str| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "s", "namespace": "d", "uid": "u-s"},
            "spec": {"serviceName": "s", "selector": {}, "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": policy},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}})
    };
    let lose = |policy: &str, name: &str, owner: &Value| {
        let mut case = self::case();
        let manager = case.manager();
        case.put(None, &set(policy));
        let mut claim = claim(name, None);
        merge(&mut claim, &json!({"metadata": {"ownerReferences": owner}}));
        case.put(None, &claim);
        case.delete(Some(manager), &key(name));
        case
    };
    lose("Retain", "data-s-0", &json!([])).is_wrong(&[
        "persistentvolumeclaims/d/data-s-0 is deleted although statefulsets/d/s keeps",
    ]);
    lose("Retain", "data-s-x", &json!([])).is_right();
    lose("Delete", "data-s-0", &json!([])).is_right();
    let earlier = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s",
        "uid": "u-earlier"}]);
    lose("Retain", "data-s-0", &earlier).is_right();
}
