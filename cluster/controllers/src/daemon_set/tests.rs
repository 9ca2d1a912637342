#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod placing;
mod properties;
mod revisions;
mod rolling;

use api::codec;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, START, creates, summary};

/// The daemon set `agent` with that image and update strategy.
fn daemon(image: &str, strategy: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "n", "uid": "ds", "generation": 1,
            "annotations": {GENERATION: "1"}},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 10,
            "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn rolling(max_unavailable: Value, max_surge: Value) -> Value {
    json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": max_unavailable, "maxSurge": max_surge}})
}

fn one_by_one() -> Value {
    rolling(json!(1), json!(0))
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"disk": "ssd"}}, "spec": {}})
}

fn tainted(name: &str, key: &str, effect: &str) -> Value {
    let mut node = node(name);
    node["spec"]["taints"] = json!([{"key": key, "effect": effect}]);
    node
}

fn key() -> Key {
    Key::new(Kind::DaemonSet, "n", "agent")
}

fn fixture(set: Value, nodes: &[&str]) -> Fixture<DaemonSets> {
    let mut fixture = Fixture::new(DaemonSets);
    for name in nodes {
        fixture.put(node(name));
    }
    fixture.put(set);
    fixture
}

/// Changes the daemon set as a user does, and counts as the API does.
fn edit(fixture: &mut Fixture<DaemonSets>, change: impl FnOnce(&mut Value)) {
    let mut value = codec::to_value(&fixture.store.objects[&key()]);
    let template = value["spec"]["template"].clone();
    change(&mut value["spec"]);
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
    value["metadata"]["generation"] = (generation + 1).into();
    if value["spec"]["template"] != template {
        let counted: i64 =
            value["metadata"]["annotations"][GENERATION].as_str().unwrap().parse().unwrap();
        value["metadata"]["annotations"][GENERATION] = (counted + 1).to_string().into();
    }
    fixture.put(value);
}

fn set_image(fixture: &mut Fixture<DaemonSets>, image: &str) {
    edit(fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = image.into());
}

/// The pods, by name.
fn pods_in(fixture: &Fixture<DaemonSets>) -> Vec<Pod> {
    fixture.store.kind(Kind::Pod).filter_map(|o| o.get::<Pod>().cloned()).collect()
}

/// Plays scheduler and kubelets, one step of each pod: what is tied to a node is bound and becomes
/// ready, what is being deleted goes.
fn obey_one(fixture: &mut Fixture<DaemonSets>, pod: &Pod) {
    let key = Key::new(Kind::Pod, "n", pod.metadata.name.as_deref().unwrap());
    if meta::is_terminating(&pod.metadata) {
        fixture.remove(&key);
    } else if !pods::is_ready(pod) && !pods::is_terminal(pod) {
        let node = nodes::target(pod).unwrap().to_owned();
        if fixture.store.get(&Key::cluster(Kind::Node, &node)).is_none() {
            return;
        }
        let ready = json!([{"type": "Ready", "status": "True",
            "lastTransitionTime": fixture.now().to_meta()}]);
        change_pod(fixture, &key, |value| {
            value["spec"]["nodeName"] = node.into();
            value["status"] = json!({"phase": "Running", "conditions": ready});
        });
    }
}

fn change_pod(fixture: &mut Fixture<DaemonSets>, key: &Key, change: impl FnOnce(&mut Value)) {
    let mut value = codec::to_value(&fixture.store.objects[key]);
    change(&mut value);
    fixture.put(value);
}

fn obey(fixture: &mut Fixture<DaemonSets>) {
    for pod in pods_in(fixture) {
        obey_one(fixture, &pod);
    }
}

/// Goes on until nothing changes any more.
fn roll_out(fixture: &mut Fixture<DaemonSets>) {
    for _ in 0..40 {
        fixture.settle(&key());
        obey(fixture);
    }
    assert_eq!(fixture.settle(&key()), Vec::<String>::new());
}

/// Pods as `node image`, with what is being deleted marked, sorted.
fn show(fixture: &Fixture<DaemonSets>) -> Vec<String> {
    let mut shown: Vec<String> = pods_in(fixture)
        .iter()
        .map(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap_or_default();
            let going = if meta::is_terminating(&pod.metadata) { " going" } else { "" };
            format!("{} {image}{going}", nodes::target(pod).unwrap_or("-"))
        })
        .collect();
    shown.sort();
    shown
}

fn status(fixture: &Fixture<DaemonSets>) -> Value {
    codec::to_value(&fixture.store.objects[&key()])["status"].clone()
}

/// What is done to pods: `create NODE` and `delete NAME`.
fn done_to_pods(plan: &Plan) -> Vec<String> {
    let short = |request: &Request| match request {
        Request::Create(object) => {
            let node = nodes::target(object.get::<Pod>()?).unwrap_or("-");
            Some(format!("create {node}"))
        }
        Request::Delete { key, .. } if key.kind == Kind::Pod => {
            Some(format!("delete {}", key.name))
        }
        _ => None,
    };
    plan.requests.iter().filter_map(short).collect()
}
