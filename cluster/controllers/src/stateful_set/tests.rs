#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod claims;
mod identities;
mod properties;
mod revisions;
mod rolling;
mod scaling;

use api::codec;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, creates, summary};

/// The stateful set `web` with so many pods.
fn web(replicas: i32, policy: &str, strategy: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "n", "uid": "sts", "generation": 1},
        "spec": {"replicas": replicas, "podManagementPolicy": policy, "serviceName": "hosts",
            "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 10,
            "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]}}}})
}

fn rolling(partition: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}})
}

fn ordered(replicas: i32) -> Value {
    web(replicas, "OrderedReady", rolling(0))
}

fn parallel(replicas: i32) -> Value {
    web(replicas, "Parallel", rolling(0))
}

fn key() -> Key {
    Key::new(Kind::StatefulSet, "n", "web")
}

fn pod_key(ordinal: i64) -> Key {
    Key::new(Kind::Pod, "n", &format!("web-{ordinal}"))
}

fn fixture(set: Value) -> Fixture<StatefulSets> {
    let mut fixture = Fixture::new(StatefulSets);
    fixture.put(set);
    fixture
}

/// Changes the stateful set as a user does, and counts as the API does.
fn edit(fixture: &mut Fixture<StatefulSets>, change: impl FnOnce(&mut Value)) {
    let mut value = codec::to_value(&fixture.store.objects[&key()]);
    change(&mut value["spec"]);
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
    value["metadata"]["generation"] = (generation + 1).into();
    fixture.put(value);
}

fn set_image(fixture: &mut Fixture<StatefulSets>, image: &str) {
    edit(fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = image.into());
}

/// The pods, by name.
fn pods_in(fixture: &Fixture<StatefulSets>) -> Vec<Pod> {
    fixture.store.kind(Kind::Pod).filter_map(|o| o.get::<Pod>().cloned()).collect()
}

fn change(fixture: &mut Fixture<StatefulSets>, key: &Key, change: impl FnOnce(&mut Value)) {
    let mut value = codec::to_value(&fixture.store.objects[key]);
    change(&mut value);
    fixture.put(value);
}

fn end(fixture: &mut Fixture<StatefulSets>, ordinal: i64, phase: &str) {
    change(fixture, &pod_key(ordinal), |v| v["status"] = json!({"phase": phase}));
}

/// Plays scheduler and kubelets, one step of each pod: what is new is bound and becomes ready, what
/// is being deleted goes.
fn obey_one(fixture: &mut Fixture<StatefulSets>, pod: &Pod) {
    let key = Key::new(Kind::Pod, "n", pod.metadata.name.as_deref().unwrap());
    if meta::is_terminating(&pod.metadata) {
        fixture.remove(&key);
    } else if !pods::is_ready(pod) && !pods::is_terminal(pod) {
        let ready = json!([{"type": "Ready", "status": "True",
            "lastTransitionTime": fixture.now().to_meta()}]);
        change(fixture, &key, |value| {
            value["spec"]["nodeName"] = "a".into();
            value["status"] = json!({"phase": "Running", "conditions": ready});
        });
    }
}

fn obey(fixture: &mut Fixture<StatefulSets>) {
    for pod in pods_in(fixture) {
        obey_one(fixture, &pod);
    }
}

/// Goes on until nothing changes any more.
fn roll_out(fixture: &mut Fixture<StatefulSets>) {
    for _ in 0..60 {
        fixture.settle(&key());
        obey(fixture);
        fixture.advance(Duration::from_secs(10));
    }
    assert_eq!(fixture.settle(&key()), Vec::<String>::new());
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap_or_default()
}

/// Pods as `name image`, with those marked that are going or not ready.
fn show(fixture: &Fixture<StatefulSets>) -> Vec<String> {
    let show = |pod: &Pod| {
        let state = match (meta::is_terminating(&pod.metadata), pods::is_ready(pod)) {
            (true, _) => " going",
            (false, true) => "",
            (false, false) => " new",
        };
        format!("{} {}{state}", pod.metadata.name.as_deref().unwrap(), image(pod))
    };
    pods_in(fixture).iter().map(show).collect()
}

fn status(fixture: &Fixture<StatefulSets>) -> Value {
    codec::to_value(&fixture.store.objects[&key()])["status"].clone()
}

/// What a plan does to pods: `create web-0`, `delete web-0`, `update web-0`.
fn done_to_pods(plan: &Plan) -> Vec<String> {
    summary(plan)
        .iter()
        .filter(|s| s.contains(" pods/n/"))
        .map(|s| s.replace("pods/n/", ""))
        .collect()
}

/// Plans and carries out what is to be done; returns what is done to pods.
fn step(fixture: &mut Fixture<StatefulSets>) -> Vec<String> {
    let plan = fixture.reconcile(&key());
    let done = done_to_pods(&plan);
    for request in plan.requests {
        fixture.request(request);
    }
    done
}
