#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, summary};

fn key() -> Key {
    Key::new(Kind::Endpoints, "n", "web")
}

fn service(selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "n"},
        "spec": {"selector": selector, "ports": [{"port": 80}]}})
}

fn endpoints(subsets: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "n",
        "uid": "e", "labels": {"team": "a"}, "annotations": {"note": "x",
        "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}},
        "subsets": subsets})
}

fn addresses(count: usize) -> Vec<Value> {
    (0..count).map(|i| json!({"ip": format!("10.0.{}.{}", i / 250, i % 250 + 1)})).collect()
}

fn slices(fixture: &Fixture<EndpointSliceMirroring>) -> Vec<Value> {
    fixture.store.kind(Kind::EndpointSlice).map(api::codec::to_value).collect()
}

fn settled(subsets: Value) -> Fixture<EndpointSliceMirroring> {
    let mut fixture = Fixture::new(EndpointSliceMirroring);
    fixture.put(service(Value::Null));
    assert_eq!(fixture.put(endpoints(subsets)), [key()]);
    fixture.settle(&key());
    fixture
}

#[test]
fn one_slice_in_full() {
    let ports = json!([{"name": "http", "port": 80, "appProtocol": "h2c"}]);
    let fixture = settled(json!([{"ports": ports,
        "addresses": [{"ip": "10.0.0.1", "hostname": "a", "nodeName": "node",
            "targetRef": {"kind": "Pod", "name": "a"}}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}]}]));
    let slice = slices(&fixture).remove(0);
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["annotations"], json!({"note": "x"}));
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Endpoints"), &json!("e")));
    assert_eq!(slice["addressType"], "IPv4");
    let port = json!({"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "h2c"});
    assert_eq!(slice["ports"], json!([port]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hostname": "a",
            "nodeName": "node", "targetRef": {"kind": "Pod", "name": "a"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}])
    );
}

#[test]
fn ports_and_families_have_slices_of_their_own() {
    let mut fixture = settled(json!([
        {"ports": [{"port": 80}], "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        {"ports": [{"port": 81}], "addresses": [{"ip": "10.0.0.1"}]}]));
    assert_eq!(slices(&fixture).len(), 3);
    let one = json!([{"ports": [{"port": 80}], "addresses": [{"ip": "10.0.0.9"}]}]);
    fixture.put(endpoints(one));
    let done = fixture.settle(&key());
    let verbs: Vec<&str> = done.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["update", "delete", "delete"]);
    assert_eq!(slices(&fixture)[0]["endpoints"][0]["addresses"], json!(["10.0.0.9"]));
}

#[test]
fn only_what_nobody_else_keeps_is_mirrored() {
    let subsets = || json!([{"ports": [{"port": 80}], "addresses": [{"ip": "10.0.0.1"}]}]);
    let mut fixture = settled(subsets());
    assert_eq!(slices(&fixture).len(), 1);
    // A selector is set: the slices of the pods are somebody else's.
    assert_eq!(fixture.put(service(json!({"a": "b"}))), [key()]);
    fixture.settle(&key());
    assert!(slices(&fixture).is_empty());
    fixture.put(service(Value::Null));
    fixture.settle(&key());
    assert_eq!(slices(&fixture).len(), 1);
    let mut skipped = endpoints(subsets());
    skipped["metadata"]["labels"] = json!({SKIP: "true"});
    fixture.put(skipped);
    fixture.settle(&key());
    assert!(slices(&fixture).is_empty());
    let mut lock = endpoints(subsets());
    lock["metadata"]["annotations"] = json!({LEADER: "{}"});
    fixture.put(lock);
    assert_eq!(summary(&fixture.reconcile(&key())), Vec::<String>::new());
    // A slice that somebody deletes is written anew.
    fixture.put(endpoints(subsets()));
    fixture.settle(&key());
    let slice = fixture.store.kind(Kind::EndpointSlice).next().unwrap().key();
    assert_eq!(fixture.remove(&slice), [key()]);
    fixture.settle(&key());
    assert_eq!(slices(&fixture).len(), 1);
    fixture.remove(&key());
    fixture.settle(&key());
    assert!(slices(&fixture).is_empty());
    fixture.remove(&Key::new(Kind::Service, "n", "web"));
    fixture.put(endpoints(subsets()));
    assert_eq!(fixture.reconcile(&key()), Plan::nothing());
}

#[test]
fn what_is_too_much_or_wrong_is_left_out_and_told() {
    let mut all = addresses(1_001);
    all.insert(0, json!({"ip": "nowhere"}));
    let mut fixture = Fixture::new(EndpointSliceMirroring);
    fixture.put(service(Value::Null));
    fixture.put(endpoints(json!([{"ports": [{"port": 80}], "addresses": all,
        "notReadyAddresses": [{"ip": "10.1.0.1"}]}])));
    let plan = fixture.reconcile(&key());
    let told: Vec<(&str, &str)> =
        plan.events.iter().map(|e| (e.reason.as_str(), e.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("InvalidIPAddress", "Skipped 1 invalid IP addresses when mirroring to EndpointSlices"),
            (
                "TooManyAddressesToMirror",
                "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. \
                 3 addresses were skipped"
            ),
        ]
    );
    fixture.settle(&key());
    assert_eq!(slices(&fixture)[0]["endpoints"].as_array().unwrap().len(), 1_000);
    assert_eq!(fixture.reconcile(&key()), Plan::nothing());
}
