use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, one_with, placed};

fn behind(name: &str, ip: &str, phase: &str) -> Value {
    let mut value = placed(name, "n1", phase);
    merge(&mut value, &json!({"metadata": {"labels": {"app": "w"}}, "status": {"podIP": ip}}));
    value
}

fn service(selector: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "d", "uid": "u-s"},
        "spec": {"selector": selector, "ports": [{"port": 80}]}})
}

fn endpoints(ready: &[&str], not_ready: &[&str]) -> Value {
    let list = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s", "namespace": "d",
        "uid": "u-e"}, "subsets": [{"addresses": list(ready), "notReadyAddresses": list(not_ready)}]})
}

fn slice(name: &str, addresses: &[(&str, bool)]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|(ip, ready)| json!({"addresses": [ip], "conditions": {"ready": ready}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"),
            "labels": {"kubernetes.io/service-name": "s"}}, "endpoints": endpoints})
}

#[test]
fn p42_endpoints_are_the_pods() {
    let mut case = Case::new(EndpointsAreRight);
    case.put(None, &service(&json!({"app": "w"})));
    case.put(None, &behind("a", "10.0.0.1", "Running"));
    case.put(None, &behind("b", "10.0.0.2", "Pending"));
    case.put(None, &behind("c", "10.0.0.3", "Failed"));
    case.put(None, &placed("other", "n1", "Running"));
    assert_eq!(case.at_rest().len(), 2, "neither the old form nor the new one is there");
    case.put(None, &endpoints(&["10.0.0.1"], &["10.0.0.2"]));
    case.put(None, &slice("s-1", &[("10.0.0.1", true)]));
    case.put(None, &slice("s-2", &[("10.0.0.2", false)]));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &endpoints(&["10.0.0.1", "10.0.0.2"], &[]));
    one_with(&case.at_rest(), &["the endpoints of services/d/s", "missing: none, wrong: 10.0.0.2"]);
    case.put(None, &endpoints(&["10.0.0.1"], &["10.0.0.2"]));
    case.put(None, &slice("s-2", &[("10.0.0.3", true)]));
    one_with(&case.at_rest(), &["the slices of services/d/s", "wrong: 10.0.0.3"]);
}

#[test]
fn p42_only_what_is_derived_from_pods() {
    let mut case = Case::new(EndpointsAreRight);
    case.put(None, &behind("a", "10.0.0.1", "Running"));
    case.put(None, &service(&json!({})));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let mut named = service(&json!({"app": "w"}));
    named["spec"]["ports"][0]["targetPort"] = json!("http");
    case.put(None, &named);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &service(&json!({"app": "w"})));
    assert_eq!(case.at_rest().len(), 2);
}
