//! One table for all filters: a pod, a node, the verdict.

mod args;

use api::Pod;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::image_locality::ImageLocality;
use super::plugins;
use crate::cycle::{Question, scores_of};
use crate::framework::{Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::plugin_args::{LEAST_ALLOCATED, MOST_ALLOCATED, PluginArgs, ScoringStrategy};
use crate::pod_info::{Classes, PodClass, PodInfo};
use crate::profile::{Profile, ProfileConfig};
use crate::relations::{Kin, Presence};
use crate::snapshot::Snapshot;
use crate::survey::Survey;

fn pod(spec: Value) -> PodClass {
    let pod = Pod::of_spec(serde_json::from_value(spec).unwrap());
    let info = PodInfo::of(&pod, &mut Classes::default()).unwrap();
    (*info.class).clone()
}

fn node(value: &Value) -> NodeInfo {
    let mut node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "2"}}});
    json_patch_merge(&mut node, value);
    let node: Node = serde_json::from_value(node).unwrap();
    let mut info = NodeInfo::default();
    info.set(&node);
    info
}

fn json_patch_merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                json_patch_merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn check(spec: Value, node: &NodeInfo, expected: &[&str]) {
    let pod = pod(spec);
    let reasons = plugins(&PluginArgs::default())
        .iter()
        .find_map(|plugin| match plugin.filter(&pod, node) {
            Verdict::Fit => None,
            Verdict::Reject { reasons, .. } => Some(reasons),
        })
        .unwrap_or_default();
    assert_eq!(reasons, expected, "{pod:?} on {node:?}");
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}])
}

#[test]
fn filters() {
    let plain = node(&json!({}));
    let none = || json!([{"name": "c"}]);
    check(json!({"containers": none()}), &plain, &[]);
    check(json!({"containers": asks("2", "4Gi")}), &plain, &[]);
    check(json!({"containers": asks("2001m", "1Gi")}), &plain, &["Insufficient cpu"]);
    check(
        json!({"containers": asks("3", "5Gi")}),
        &plain,
        &["Insufficient cpu", "Insufficient memory"],
    );
    let gpu = json!([{"name": "c", "resources": {"requests": {"x.y/gpu": "1"}}}]);
    check(json!({"containers": gpu}), &plain, &["Insufficient x.y/gpu"]);
    check(
        json!({"containers": none(), "nodeName": "n2"}),
        &plain,
        &["node(s) didn't match the requested node name"],
    );

    let affinity = &["node(s) didn't match Pod's node affinity/selector"];
    check(json!({"containers": none(), "nodeSelector": {"disk": "ssd"}}), &plain, &[]);
    check(json!({"containers": none(), "nodeSelector": {"disk": "hdd"}}), &plain, affinity);
    let required = |terms: Value| {
        json!({"containers": none(), "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let term = |key: &str, op: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]});
    check(required(json!([term("cores", "Gt", &["4"])])), &plain, &[]);
    check(required(json!([term("cores", "Lt", &["4"])])), &plain, affinity);
    check(required(json!([term("x", "Exists", &[]), term("disk", "In", &["ssd"])])), &plain, &[]);
    check(required(json!([{}])), &plain, affinity);
    let by_name = json!([{"matchFields":
        [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
    check(required(by_name), &plain, &[]);

    let tainted = node(&json!({"spec": {"taints": [
        {"key": "soft", "effect": "PreferNoSchedule"},
        {"key": "team", "value": "a", "effect": "NoSchedule"}]}}));
    let untolerated = &["node(s) had untolerated taint {team: a}"];
    check(json!({"containers": none()}), &tainted, untolerated);
    let tolerate = |t: Value| json!({"containers": none(), "tolerations": [t]});
    check(tolerate(json!({"key": "team", "value": "a"})), &tainted, &[]);
    check(tolerate(json!({"key": "team", "value": "b"})), &tainted, untolerated);
    check(tolerate(json!({"key": "team", "operator": "Exists"})), &tainted, &[]);
    check(tolerate(json!({"operator": "Exists"})), &tainted, &[]);
    check(
        tolerate(json!({"key": "team", "operator": "Exists", "effect": "NoExecute"})),
        &tainted,
        untolerated,
    );
    let cordoned = node(&json!({"spec": {"unschedulable": true}}));
    check(json!({"containers": none()}), &cordoned, &["node(s) were unschedulable"]);
}

#[test]
fn host_ports_and_pod_count() {
    let mut busy = node(&json!({}));
    let port = |ip: &str, protocol: &str| {
        json!({"containers": [{"name": "c", "ports":
            [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]})
    };
    let first = pod(port("", "TCP"));
    busy.add(&first.load);
    let taken = &["node(s) didn't have free ports for the requested pod ports"];
    check(port("10.0.0.1", "TCP"), &busy, taken);
    check(port("", "UDP"), &busy, &[]);
    busy.add(&pod(json!({"containers": []})).load);
    check(json!({"containers": []}), &busy, &["Too many pods"]);
    busy.remove(&first.load);
    check(port("", "TCP"), &busy, &[]);
}

#[test]
fn scores_prefer_empty_nodes() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}}))
        .unwrap();
        snapshot.set_node(&node);
    }
    let next = pod(json!({"containers": asks("1", "2Gi")}));
    let key = |name: &str| api::Key::new(api::Kind::Pod, "d", name);
    for (name, node) in [("p1", "a"), ("p2", "b")] {
        snapshot.add_pod(&key(name), name, &Presence::default(), &next.load, node);
    }
    let nodes = snapshot.order().nodes();
    let scores = |plugin: &str, strategy| {
        let mut config = ProfileConfig::default();
        config.args.fit.scoring_strategy = ScoringStrategy::named(strategy);
        let profile = Profile::new(&config).unwrap();
        let plugin = profile.plugins.iter().find(|p| p.plugin.name() == plugin).unwrap();
        let kin = Kin::default();
        let question = Question { key: &key("p"), class: &next, kin: &kin, preempts: true };
        let survey = Survey::of(&profile.relating, &snapshot, question);
        scores_of(plugin, &snapshot, question, &survey, &nodes)
    };
    let least = LEAST_ALLOCATED;
    assert_eq!(scores("NodeResourcesFit", least), [50, 50, 75]);
    assert_eq!(scores("NodeResourcesFit", MOST_ALLOCATED), [50, 50, 25]);
    assert!(scores("PodTopologySpread", least).is_empty());
    assert_eq!(scores("NodeResourcesBalancedAllocation", least), [100, 100, 100]);
    assert_eq!(scores("TaintToleration", least), [100, 100, 100]);
}

#[test]
fn images_are_compared_by_name_and_tag_those_of_initialisation_too() {
    let snapshot = |images: Value| {
        let mut all = Snapshot::default();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"images": images}});
        all.set_node(&serde_json::from_value(node).unwrap());
        all
    };
    let score = |spec: Value, images: &Value| {
        let (all, pod) = (snapshot(images.clone()), pod(spec));
        let mut sizes = Vec::new();
        let node = all.nodes().next().unwrap();
        ImageLocality.traits(&pod, node, &mut sizes);
        ImageLocality.compare(&pod, &[&sizes], &all)[0]
    };
    let one = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    let init = json!({"containers": [{"name": "c", "image": "small:1"}],
        "initContainers": [{"name": "i", "image": "reg:5000/nginx"}]});
    let large = json!([{"names": ["reg:5000/nginx:latest"], "sizeBytes": 1_i64 << 40}]);
    for (spec, expected) in [
        (one("reg:5000/nginx"), 100),
        (one("reg:5000/nginx:latest"), 100),
        (one("reg:5000/nginx:1"), 0),
        (init, 100),
    ] {
        assert_eq!(score(spec.clone(), &large), expected, "{spec}");
    }
    // Sizes that nobody believes.
    let most = json!([{"names": ["a:1"], "sizeBytes": i64::MAX},
        {"names": ["b:1"], "sizeBytes": i64::MAX}]);
    let two = json!({"containers": [{"name": "c", "image": "a:1"}, {"name": "d", "image": "b:1"}]});
    assert_eq!(score(two, &most), 100);
}
