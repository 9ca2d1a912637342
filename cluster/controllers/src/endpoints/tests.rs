#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

use super::*;
use crate::fixture::Fixture;

/// A pod as `name ip ready`; `ready` may be `yes`, `no`, `going` or `ended`.
pub(crate) fn pod(text: &str) -> Value {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, ip, ready] = words[..] else { panic!("{text}") };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c",
            "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
    match ready {
        "no" => pod["status"]["conditions"][0]["status"] = "False".into(),
        "going" => pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        "ended" => pod["status"]["phase"] = "Succeeded".into(),
        _ => {}
    }
    pod
}

pub(crate) fn service(extra: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "n", "uid": "svc", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    for (key, value) in extra.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    service
}

/// Subsets as `ready ips|not ready ips|ports`.
fn check(service: Value, pods: &[&str], expected: &[&str]) {
    let mut fixture = Fixture::new(Endpoints);
    for text in pods {
        fixture.put(pod(text));
    }
    let keys = fixture.put(service);
    fixture.settle(&keys[0]);
    let endpoints = fixture.store.kind(Kind::Endpoints).next().map(api::codec::to_value);
    let subsets = endpoints.map(|e| e["subsets"].clone()).unwrap_or_default();
    let list = |v: &Value, f: fn(&Value) -> String| {
        v.as_array().into_iter().flatten().map(f).collect::<Vec<_>>().join(",")
    };
    let ip = |v: &Value| v["ip"].as_str().unwrap().to_owned();
    let port = |v: &Value| format!("{}/{}", v["port"], v["protocol"].as_str().unwrap());
    let shown: Vec<String> = subsets
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| {
            let (ready, not) = (list(&s["addresses"], ip), list(&s["notReadyAddresses"], ip));
            format!("{ready}|{not}|{}", list(&s["ports"], port))
        })
        .collect();
    assert_eq!(shown, expected, "{pods:?}");
}

#[test]
fn addresses_by_readiness() {
    let plain = || service(Value::Null);
    check(plain(), &[], &[]);
    check(
        plain(),
        &[
            "b 10.0.0.2 yes",
            "a 10.0.0.1 yes",
            "c 10.0.0.3 no",
            "d 10.0.0.4 going",
            "e 10.0.0.5 ended",
        ],
        &["10.0.0.1,10.0.0.2|10.0.0.3|8080/TCP"],
    );
    let any = service(json!({"publishNotReadyAddresses": true}));
    check(any, &["a 10.0.0.1 no", "d 10.0.0.4 going"], &["10.0.0.1,10.0.0.4||8080/TCP"]);
    // A port no pod has, and a number that needs no pod's word.
    check(
        service(json!({"ports": [{"port": 80, "targetPort": "nope"}]})),
        &["a 10.0.0.1 yes"],
        &[],
    );
    check(
        service(json!({"ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]})),
        &["a 10.0.0.1 yes"],
        &["10.0.0.1||80/TCP,53/UDP"],
    );
    // Only headless services may have no ports.
    check(service(json!({"ports": [], "clusterIP": "None"})), &["a 10.0.0.1 yes"], &["10.0.0.1||"]);
    check(service(json!({"ports": []})), &["a 10.0.0.1 yes"], &[]);
    // Not ours.
    check(service(json!({"type": "ExternalName"})), &["a 10.0.0.1 yes"], &[]);
    check(service(json!({"selector": null})), &["a 10.0.0.1 yes"], &[]);
}

#[test]
fn services_take_their_endpoints_along() {
    let mut fixture = Fixture::new(Endpoints);
    let key = fixture.put(service(Value::Null))[0].clone();
    fixture.settle(&key);
    let made = fixture.store.kind(Kind::Endpoints).next().unwrap().meta().clone();
    assert_eq!(meta::label(&made, MANAGED_BY), Some(MANAGER));
    assert_eq!(meta::label(&made, "team"), Some("a"));
    fixture.remove(&key);
    assert_eq!(fixture.settle(&key), ["delete endpoints/n/web"]);
    // Somebody else's endpoints stay.
    fixture.put(json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "n"}}));
    assert_eq!(fixture.settle(&key), Vec::<String>::new());
}

#[test]
fn pods_concern_their_services_old_and_new() {
    let mut fixture = Fixture::new(Endpoints);
    let key = fixture.put(service(Value::Null))[0].clone();
    assert_eq!(fixture.put(pod("a 10.0.0.1 yes")), std::slice::from_ref(&key));
    let mut annotated = pod("a 10.0.0.1 yes");
    annotated["metadata"]["annotations"] = json!({"x": "y"});
    assert_eq!(fixture.put(annotated), []);
    let mut relabelled = pod("a 10.0.0.1 yes");
    relabelled["metadata"]["labels"] = json!({"app": "other"});
    assert_eq!(fixture.put(relabelled.clone()), [key]);
    assert_eq!(fixture.put(relabelled), []);
}

#[test]
fn people_are_told_what_the_api_refuses() {
    let mut fixture = Fixture::new(Endpoints);
    fixture.put(pod("a 10.0.0.1 yes"));
    let key = fixture.put(service(Value::Null)).remove(0);
    let refusal = |fixture: &Fixture<Endpoints>| {
        let plan = fixture.reconcile(&key);
        let record = plan.announcements[&0].refused.clone().unwrap();
        assert!(record.warning && record.regarding.kind == "Endpoints");
        format!("{}: {}", record.reason, record.message)
    };
    assert_eq!(
        refusal(&fixture),
        "FailedToCreateEndpoint: Failed to create endpoint for service n/web: "
    );
    fixture.settle(&key);
    assert!(fixture.reconcile(&key).announcements.is_empty());
    fixture.put(pod("b 10.0.0.2 yes"));
    assert_eq!(refusal(&fixture), "FailedToUpdateEndpoint: Failed to update endpoint n/web: ");
}
