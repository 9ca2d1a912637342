use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::endpoints::tests::{pod, service};
use crate::fixture::Fixture;

fn fixture(service: Value, pods: &[&str]) -> (Fixture<EndpointSlices>, Key) {
    let mut fixture = Fixture::new(EndpointSlices);
    fixture.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": "z"}}}));
    for text in pods {
        fixture.put(pod(text));
    }
    let keys = fixture.put(service);
    (fixture, keys[0].clone())
}

fn slices(fixture: &Fixture<EndpointSlices>) -> Vec<Value> {
    fixture.store.kind(Kind::EndpointSlice).map(api::codec::to_value).collect()
}

fn sizes(fixture: &Fixture<EndpointSlices>) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        slices(fixture).iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn one_slice_in_full() {
    let (mut fixture, key) = fixture(service(Value::Null), &["a 10.0.0.1 yes"]);
    fixture.settle(&key);
    let slice = slices(&fixture).remove(0);
    let name = slice["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "svc");
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.0.0.1"], "nodeName": "node", "zone": "z",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": "a", "namespace": "n", "uid": "a"}}])
    );
}

#[test]
fn endpoints_may_be_meant_for_their_zone() {
    let hints = |fixture: &Fixture<EndpointSlices>| {
        let endpoints = slices(fixture)[0]["endpoints"].as_array().unwrap().clone();
        endpoints.iter().map(|e| e["hints"].clone()).collect::<Vec<_>>()
    };
    let close = json!({"trafficDistribution": "PreferClose"});
    let (mut fixture, key) = fixture(service(close), &["a 10.0.0.1 yes", "b 10.0.0.2 no"]);
    fixture.settle(&key);
    assert_eq!(hints(&fixture), [json!({"forZones": [{"name": "z"}]}), Value::Null]);
    let mut plain = service(Value::Null);
    plain["metadata"]["annotations"] = json!({"service.kubernetes.io/topology-mode": "Auto"});
    fixture.put(plain);
    fixture.settle(&key);
    // All nodes are in one zone.
    assert_eq!(hints(&fixture), [Value::Null, Value::Null]);
    fixture.put(pod("c 10.0.0.3 yes"));
    let node = |name: &str, zone: &str, ready: &str| {
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "2"},
                "conditions": [{"type": "Ready", "status": ready}]}})
    };
    assert!(fixture.put(node("node", "z", "True")).contains(&key));
    assert!(fixture.put(node("other", "y", "False")).is_empty());
    assert_eq!(fixture.put(node("other", "y", "True")), std::slice::from_ref(&key));
    fixture.settle(&key);
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    assert_eq!(hints(&fixture), [zone("y"), Value::Null, zone("z")]);
    fixture.remove(&Key::cluster(Kind::Node, "other"));
    fixture.settle(&key);
    assert_eq!(hints(&fixture), [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn people_are_told_of_hints_when_that_changes() {
    let mut auto = service(Value::Null);
    auto["metadata"]["annotations"] = json!({"service.kubernetes.io/topology-mode": "Auto"});
    let pods = ["a 10.0.0.1 yes", "b 10.0.0.2 yes"];
    let (mut fixture, key) = fixture(auto.clone(), &pods);
    let node = |name: &str, zone: &str| {
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "2"},
                "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    let mut check = |change: Option<Value>, forget: bool, expected: &str| {
        if let Some(change) = change {
            fixture.put(change);
        }
        if forget {
            fixture.forget();
        }
        let told = fixture.told(&key);
        fixture.settle(&key);
        assert_eq!(told.join("; "), expected);
        // Once, as long as nothing changes.
        assert_eq!(fixture.told(&key), [""; 0]);
    };
    let enabled =
        "TopologyAwareHintsEnabled Topology Aware Hints has been enabled, addressType: IPv4";
    let why = |why: &str| format!("TopologyAwareHintsDisabled {why}, addressType: IPv4");
    let insufficient = why("Insufficient Node information: allocatable CPU or zone not specified \
                            on one or more nodes");
    check(None, false, &insufficient);
    check(Some(node("node", "z")), false, "");
    check(Some(node("other", "y")), false, enabled);
    // A process that starts anew finds them as they are.
    check(None, true, "");
    let few = why("Insufficient number of endpoints (2 endpoints, 3 zones)");
    check(Some(node("third", "x")), false, &few);
    check(Some(pod("c 10.0.0.3 yes")), false, enabled);
    check(Some(service(Value::Null)), false, &why("Topology Aware Hints has been disabled"));
    check(Some(pod("d 10.0.0.4 yes")), false, "");
}

#[test]
fn people_are_told_what_the_api_refuses() {
    let (mut fixture, key) = fixture(service(Value::Null), &["a 10.0.0.1 yes"]);
    let refusal = |fixture: &Fixture<EndpointSlices>| {
        let plan = fixture.reconcile(&key);
        assert_eq!((plan.requests.len(), plan.announcements.len()), (1, 1));
        let announcement = plan.announcements[&0].clone();
        assert_eq!(announcement.done, None);
        let record = announcement.refused.unwrap();
        assert!(record.warning && record.reason == "FailedToUpdateEndpointSlices");
        record.message
    };
    let wrong = "Error updating Endpoint Slices for Service n/web: failed to";
    assert_eq!(refusal(&fixture), format!("{wrong} create EndpointSlice for Service n/web: "));
    fixture.settle(&key);
    fixture.put(pod("b 10.0.0.2 yes"));
    let name = slices(&fixture)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        refusal(&fixture),
        format!("{wrong} update {name} EndpointSlice for Service n/web: ")
    );
}

#[test]
fn conditions() {
    let check = |ready: &str, extra: Value, expected: [bool; 3]| {
        let text = format!("a 10.0.0.1 {ready}");
        let (mut fixture, key) = fixture(service(extra), &[&text]);
        fixture.settle(&key);
        let conditions = slices(&fixture)[0]["endpoints"][0]["conditions"].clone();
        let shown = ["ready", "serving", "terminating"].map(|c| conditions[c] == true);
        assert_eq!(shown, expected, "{ready}");
    };
    check("yes", Value::Null, [true, true, false]);
    check("no", Value::Null, [false, false, false]);
    check("going", Value::Null, [false, true, true]);
    check("no", json!({"publishNotReadyAddresses": true}), [true, false, false]);
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    let headless = service(json!({"clusterIP": "None"}));
    let (mut fixture, key) = fixture(headless, &["a 10.0.0.1 ended"]);
    fixture.settle(&key);
    assert_eq!(sizes(&fixture), [0]);
    assert_eq!(slices(&fixture)[0]["metadata"]["labels"]["service.kubernetes.io/headless"], "");
    // It is replaced by one with ports when a pod comes.
    fixture.put(pod("b 10.0.0.2 yes"));
    fixture.settle(&key);
    assert_eq!(sizes(&fixture), [1]);
    fixture.remove(&Key::new(Kind::Pod, "n", "b"));
    fixture.settle(&key);
    assert_eq!(sizes(&fixture), [0]);
}

#[test]
fn slices_hold_a_hundred_and_change_one_at_a_time() {
    let (mut fixture, key) = fixture(service(Value::Null), &[]);
    for i in 0..250 {
        fixture.put(pod(&format!("p{i} 10.0.{}.{} yes", i / 200, i % 200 + 1)));
    }
    fixture.settle(&key);
    assert_eq!(sizes(&fixture), [50, 100, 100]);
    // One pod more or less touches one slice, when the slices have rested.
    fixture.put(pod("q 10.0.9.9 yes"));
    assert_eq!(fixture.settle(&key).len(), 0);
    fixture.advance(Duration::from_millis(250));
    assert_eq!(fixture.settle(&key).len(), 1);
    fixture.remove(&Key::new(Kind::Pod, "n", "p0"));
    fixture.advance(Duration::from_secs(1));
    assert_eq!(fixture.settle(&key).len(), 1);
    let mut all: Vec<String> = slices(&fixture)
        .iter()
        .flat_map(|s| s["endpoints"].as_array().unwrap().clone())
        .map(|e| e["addresses"][0].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 250);
    for i in 1..250 {
        fixture.remove(&Key::new(Kind::Pod, "n", &format!("p{i}")));
    }
    fixture.advance(Duration::from_secs(1));
    fixture.settle(&key);
    assert_eq!(sizes(&fixture), [1]);
}

#[test]
fn both_families_have_slices() {
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let (mut fixture, key) = fixture(dual, &[]);
    let mut both = pod("a 10.0.0.1 yes");
    both["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
    fixture.put(both);
    fixture.settle(&key);
    let mut shown: Vec<String> = slices(&fixture)
        .iter()
        .map(|s| format!("{} {}", s["addressType"], s["endpoints"][0]["addresses"][0]))
        .collect();
    shown.sort();
    assert_eq!(shown, ["\"IPv4\" \"10.0.0.1\"", "\"IPv6\" \"fd00::1\""]);
    // A family that the service gives up goes.
    fixture.put(service(json!({"ipFamilies": ["IPv4"]})));
    fixture.settle(&key);
    assert_eq!(slices(&fixture).len(), 1);
}

#[test]
fn a_nodes_zone_concerns_its_services() {
    let (mut fixture, key) = fixture(service(Value::Null), &["a 10.0.0.1 yes"]);
    let node = |zone: &str| {
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": zone}}})
    };
    assert_eq!(fixture.put(node("z")), []);
    assert_eq!(fixture.put(node("y")), std::slice::from_ref(&key));
    fixture.settle(&key);
    assert_eq!(slices(&fixture)[0]["endpoints"][0]["zone"], "y");
}
