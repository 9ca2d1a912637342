use api::Pod;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::*;
use crate::pod_info::{Classes, PodInfo};

/// Eight nodes: three can take the pod, and five cannot, for two reasons.
fn explained() -> Explanation {
    let mut snapshot = Snapshot::default();
    for number in 0..8 {
        let cpu = if number < 3 { 4 + number } else { 1 };
        let taint = json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]);
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": format!("n{number}")},
            "spec": {"taints": if number > 5 { taint } else { json!([]) }},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "10"}}}))
        .unwrap();
        snapshot.set_node(&node);
    }
    let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "a"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}))
    .unwrap();
    let info = PodInfo::of(&pod, &mut Classes::default()).unwrap();
    let mut rng = machine::RngTree::new(1).rng("ties");
    explain(&Profile::default(), &snapshot, &info.key, info.question(), 2, &mut rng)
}

#[test]
fn tells_each_node_and_each_plugin() {
    let explanation = explained();
    insta::assert_snapshot!(explanation.to_text(&explanation.headline(), 12), @r"
    d/a has no node yet.
    8 of 8 nodes were looked at from n2 on; 3 can take it, 5 cannot.
    Runner-up: n1.

    SCORE  NODE
      464  n2  TaintToleration 300 (100)  NodeResourcesFit 81 (81)  NodeResourcesBalancedAllocation 83 (83)  ImageLocality 0 (0)
      458  n1  TaintToleration 300 (100)  NodeResourcesFit 78 (78)  NodeResourcesBalancedAllocation 80 (80)  ImageLocality 0 (0)
      448  n0  TaintToleration 300 (100)  NodeResourcesFit 73 (73)  NodeResourcesBalancedAllocation 75 (75)  ImageLocality 0 (0)

    REJECTED BY
    NodeResourcesFit: Insufficient cpu
        n3 n4 n5
    TaintToleration: node(s) had untolerated taint {team: a}
        n6 (+NodeResourcesFit) n7 (+NodeResourcesFit)
    ");
}

#[test]
fn the_example_of_the_manual_is_true() {
    let explanation = explained();
    let text = explanation.to_text(&explanation.headline(), 12);
    let manual = include_str!("../../../../docs/scheduling.md");
    assert!(manual.contains(&text), "{text}");
}

#[test]
fn only_so_many_nodes_are_told_and_the_rest_is_counted() {
    let whole = explained();
    let mut short = whole.clone();
    short.node = Some("n0".into());
    short.shorten(2);
    assert_eq!(short.omitted, Omitted { feasible: 0, rejected: 3 });
    let names: Vec<&str> = short.feasible.iter().map(|n| n.node.as_str()).collect();
    assert_eq!(names, ["n2", "n1", "n0"], "the best two, and the one that the pod has");
    assert_eq!(short.causes, whole.causes);
    let mut shorter = whole;
    shorter.shorten(1);
    assert_eq!(shorter.omitted, Omitted { feasible: 2, rejected: 4 });
    insta::assert_snapshot!(short.to_text(&short.headline(), 1), @r"
    d/a is on n0. If it had no node, this would be decided now:
    8 of 8 nodes were looked at from n2 on; 3 can take it, 5 cannot.
    Runner-up: n1.

    SCORE  NODE
      464  n2  TaintToleration 300 (100)  NodeResourcesFit 81 (81)  NodeResourcesBalancedAllocation 83 (83)  ImageLocality 0 (0)
      448  n0  TaintToleration 300 (100)  NodeResourcesFit 73 (73)  NodeResourcesBalancedAllocation 75 (75)  ImageLocality 0 (0)
           … and 1 more

    REJECTED BY
    NodeResourcesFit: Insufficient cpu
        n3 and 2 more
    TaintToleration: node(s) had untolerated taint {team: a}
        n6 (+NodeResourcesFit) and 1 more
    ");
    let json = serde_json::to_value(&short).unwrap();
    assert_eq!(json["omitted"], json!({"feasible": 0, "rejected": 3}));
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), short);
}

#[test]
fn headlines() {
    let mut explanation = explained();
    let check = |explanation: &Explanation, expected: &str| {
        assert_eq!(explanation.headline(), expected);
    };
    check(&explanation, "d/a has no node yet.");
    explanation.message = Some("0/1 nodes are available: 1 Too many pods.".into());
    check(&explanation, "d/a has no node: 0/1 nodes are available: 1 Too many pods.");
    explanation.gates = vec!["x".into(), "y".into()];
    check(
        &explanation,
        "d/a is held back by scheduling gates (x, y). Without, this would be decided now:",
    );
    explanation.node = Some("n1".into());
    check(&explanation, "d/a is on n1. If it had no node, this would be decided now:");
}
