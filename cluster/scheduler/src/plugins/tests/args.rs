//! What plugins make of their arguments.

use super::*;
use crate::plugin_args::{NodeAffinityArgs, RequestedToCapacityRatio, ResourceSpec, ShapePoint};

/// The score of one plugin for a node with `used` of a cluster's profile.
fn score(name: &str, args: &PluginArgs, spec: Value, node: &NodeInfo) -> i64 {
    let class = pod(spec);
    let plugins = plugins(args);
    plugins.iter().find(|plugin| plugin.name() == name).unwrap().score(&class, node)
}

fn gpu_node(used: i64) -> NodeInfo {
    let mut node = node(&json!({"status": {"allocatable":
        {"cpu": "10", "memory": "100Gi", "ephemeral-storage": "100Gi", "x.y/gpu": "8"}}}));
    for _ in 0..used {
        let pod = pod(json!({"containers": [{"name": "c", "resources": {"requests":
            {"cpu": "1", "memory": "10Gi", "x.y/gpu": "1"}}}]}));
        node.add(&pod.load);
    }
    node
}

fn wants(cpu: &str, gpus: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests":
        {"cpu": cpu, "memory": "10Gi", "x.y/gpu": gpus}}}]})
}

fn resources(list: &[(&str, i64)]) -> Vec<ResourceSpec> {
    list.iter()
        .map(|(name, weight)| ResourceSpec { name: (*name).to_owned(), weight: *weight })
        .collect()
}

fn fit(strategy: ScoringStrategy) -> PluginArgs {
    let mut args = PluginArgs::default();
    args.fit.scoring_strategy = strategy;
    args
}

#[test]
fn resources_count_by_their_weights() {
    let name = "NodeResourcesFit";
    let by = |kind: &str, list: &[(&str, i64)]| {
        fit(ScoringStrategy { resources: resources(list), ..ScoringStrategy::named(kind) })
    };
    let node = gpu_node(3);
    // 5 of 10 processors, 4 of 10 parts of the memory, 4 of 8 GPUs.
    let check = |kind: &str, list: &[(&str, i64)], expected: i64| {
        let found = score(name, &by(kind, list), wants("2", "1"), &node);
        assert_eq!(found, expected, "{kind} {list:?}");
    };
    check(LEAST_ALLOCATED, &[], 55);
    check(LEAST_ALLOCATED, &[("cpu", 1), ("memory", 3)], 57);
    check(LEAST_ALLOCATED, &[("cpu", 0), ("x.y/gpu", 5)], 50);
    check(MOST_ALLOCATED, &[("memory", 1), ("x.y/gpu", 5)], 48);
    // What a node does not have does not count, nor what it has, if the pod does not want it.
    check(MOST_ALLOCATED, &[("memory", 1), ("x.y/other", 5)], 40);
    check(MOST_ALLOCATED, &[("x.y/other", 5)], 0);
    let without = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]});
    let args = by(MOST_ALLOCATED, &[("cpu", 1), ("x.y/gpu", 5)]);
    assert_eq!(score(name, &args, without, &node), 50);
    check(LEAST_ALLOCATED, &[("ephemeral-storage", 1)], 100);
}

#[test]
fn a_ratio_is_scored_along_straight_lines() {
    let shape = |points: &[(i32, i32)], list: &[(&str, i64)]| {
        let shape = points
            .iter()
            .map(|(utilization, score)| ShapePoint { utilization: *utilization, score: *score })
            .collect();
        fit(ScoringStrategy {
            resources: resources(list),
            requested_to_capacity_ratio: Some(RequestedToCapacityRatio { shape }),
            ..ScoringStrategy::named(crate::plugin_args::REQUESTED_TO_CAPACITY_RATIO)
        })
    };
    let check = |points: &[(i32, i32)], list: &[(&str, i64)], used: i64, expected: i64| {
        let args = shape(points, list);
        let found = score("NodeResourcesFit", &args, wants("1", "1"), &gpu_node(used));
        assert_eq!(found, expected, "{points:?} {list:?} {used}");
    };
    let gpu = [("x.y/gpu", 1)];
    check(&[(0, 0), (100, 10)], &gpu, 3, 50);
    check(&[(0, 10), (100, 0)], &gpu, 0, 88);
    // Level before the first point and behind the last.
    check(&[(20, 4), (30, 10)], &gpu, 0, 40);
    check(&[(20, 4), (30, 10)], &gpu, 7, 100);
    // Down towards zero, as integers are divided.
    check(&[(0, 10), (50, 3)], &gpu, 1, 65);
    // A resource that is worth nothing does not count; a mean is rounded.
    check(&[(0, 0), (50, 0), (100, 10)], &[("cpu", 1), ("x.y/gpu", 1)], 4, 24);
    check(&[(0, 0), (100, 10)], &[("cpu", 1), ("x.y/gpu", 2)], 4, 58);
    check(&[(0, 0), (100, 0)], &gpu, 4, 0);
}

#[test]
fn ignored_resources_need_not_be_there() {
    let node = node(&json!({}));
    let wants = |name: &str| {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {name: "1"}}}]}))
    };
    let mut args = PluginArgs::default();
    args.fit.ignored_resources = vec!["a.b/c".into()];
    args.fit.ignored_resource_groups = vec!["d.e".into()];
    let plugins = plugins(&args);
    let fit = plugins.iter().find(|plugin| plugin.name() == "NodeResourcesFit").unwrap();
    for (name, fits) in [("a.b/c", true), ("d.e/f", true), ("a.b/d", false), ("d.f/f", false)] {
        assert_eq!(fit.filter(&wants(name), &node) == Verdict::Fit, fits, "{name}");
        assert_eq!(fit.fits(&wants(name), &node), fits, "{name}");
    }
}

#[test]
fn any_number_of_resources_is_balanced() {
    let name = "NodeResourcesBalancedAllocation";
    let balanced = |list: &[(&str, i64)]| {
        let mut args = PluginArgs::default();
        args.balanced_allocation.resources = resources(list);
        args
    };
    let check = |list: &[(&str, i64)], spec: Value, expected: i64| {
        assert_eq!(score(name, &balanced(list), spec, &gpu_node(3)), expected, "{list:?}");
    };
    // 0.5, 0.4 and 0.75.
    let third = || wants("2", "3");
    check(&[], third(), 95);
    check(&[("cpu", 1), ("x.y/gpu", 1)], third(), 87);
    check(&[("cpu", 1), ("memory", 1), ("x.y/gpu", 1)], third(), 85);
    check(&[("cpu", 1)], third(), 100);
    check(&[("x.y/gpu", 1)], json!({"containers": [{"name": "c"}]}), 0);
    // No node has it, so that nothing is out of balance.
    let other = json!({"containers": [{"name": "c", "resources": {"requests": {"o.p/q": "1"}}}]});
    check(&[("o.p/q", 1)], other, 100);
}

/// The sum is as Kubernetes' floating-point numbers have it, also where that of whole numbers would
/// be higher by one.
#[test]
fn balance_is_reckoned_as_kubernetes_reckons() {
    let name = "NodeResourcesBalancedAllocation";
    let check = |list: &[(&str, i64)], [cpu, memory, storage]: [u32; 3], expected: i64| {
        let mut args = PluginArgs::default();
        args.balanced_allocation.resources = resources(list);
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {
            "cpu": format!("{cpu}"), "memory": format!("{memory}0Gi"),
            "ephemeral-storage": format!("{storage}0Gi")}}}]});
        assert_eq!(score(name, &args, spec, &gpu_node(0)), expected, "{cpu} {memory} {storage}");
    };
    check(&[], [1, 8, 0], 64);
    check(&[], [8, 6, 0], 89);
    check(&[], [7, 9, 0], 89);
    check(&[], [5, 3, 0], 90);
    check(&[], [20, 10, 0], 100);
    let three = [("cpu", 1), ("memory", 1), ("ephemeral-storage", 1)];
    check(&three, [7, 7, 7], 99);
    check(&three, [8, 8, 8], 99);
    check(&three, [6, 6, 6], 100);
    check(&three, [1, 2, 3], 91);
}

#[test]
fn added_affinity_comes_on_top_of_the_pods_own() {
    let term = |key: &str, value: &str| json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
    let args: NodeAffinityArgs = serde_json::from_value(json!({"addedAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [term("disk", "ssd"), term("disk", "nvme")]},
        "preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 3, "preference": term("cores", "8")}]}}))
    .unwrap();
    let plugin = super::super::NodeAffinity::new(&args);
    use crate::framework::Plugin;
    let plain = pod(json!({"containers": []}));
    let reasons = |class: &PodClass, labels: Value| match plugin
        .filter(class, &node(&json!({"metadata": {"labels": labels}})))
    {
        Verdict::Fit => String::new(),
        Verdict::Reject { reasons, .. } => reasons.join(", "),
    };
    assert_eq!(reasons(&plain, json!({})), "");
    assert_eq!(reasons(&plain, json!({"disk": "nvme"})), "");
    assert_eq!(
        reasons(&plain, json!({"disk": "hdd"})),
        "node(s) didn't match scheduler-enforced node affinity"
    );
    let choosy = pod(json!({"containers": [], "nodeSelector": {"cores": "16"}}));
    assert_eq!(reasons(&choosy, json!({})), "node(s) didn't match Pod's node affinity/selector");
    let mut traits = Vec::new();
    plugin.traits(&plain, &node(&json!({})), &mut traits);
    assert_eq!(traits, [3]);
}
