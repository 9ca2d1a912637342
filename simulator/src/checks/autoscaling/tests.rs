use api::{Patch, PatchKind};
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, one_with, placed, plan};
use crate::plan::{Autoscaler, Load, Operation, PlannedOperation, Target};

/// A plan with a load of the deployment `w` of the namespace `d`.
fn with_load(milli: u64) -> Plan {
    let autoscaler = Autoscaler {
        name: "d/w".to_owned(),
        target: Target::Deployment,
        min_replicas: 2,
        max_replicas: 10,
        cpu_percent: 50,
        load: Load { steps: vec![(Span::ZERO, milli)], diurnal: None },
    };
    let operation = Operation::CreateAutoscaler(Box::new(autoscaler));
    let operations = vec![PlannedOperation { at: Span::ZERO, operation }];
    Plan { operations, ..plan() }
}

fn autoscaler(wanted: i64) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "w", "namespace": "d", "uid": "u-h"},
        "spec": {"minReplicas": 2, "maxReplicas": 10,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]},
        "status": {"desiredReplicas": wanted, "currentReplicas": wanted}})
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "w", "namespace": "d", "uid": "u-w"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}},
            "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": []}}}})
}

fn key() -> Key {
    Key::new(Kind::Deployment, "d", "w")
}

fn scale(replicas: i64) -> Request {
    Request::Patch {
        key: key(),
        subresource: Some(Subresource::Scale),
        patch: Patch {
            kind: PatchKind::Merge,
            body: json!({"spec": {"replicas": replicas}}).into(),
        },
    }
}

/// A deployment of so many ready pods, of one CPU each, under a load.
fn case(milli: u64, pods: i64) -> (Case<ScalesAsUsed>, ProcessId) {
    let plan = with_load(milli);
    let mut case = Case::with_plan(ScalesAsUsed::new(&plan), plan);
    let manager = case.manager();
    case.put(None, &deployment(pods));
    let of = case.put(None, &autoscaler(pods)).key();
    for i in 0..pods {
        let mut pod = placed(&format!("w-{i}"), "n1", "Running");
        pod["metadata"]["labels"] = json!({"app": "w"});
        case.put(None, &pod);
    }
    case.show(manager, &key());
    case.show(manager, &of);
    (case, manager)
}

#[test]
fn p45_bounds_are_kept() {
    let (mut case, manager) = case(9_000, 2);
    case.call(manager, &scale(10));
    case.is_right();
    case.call(manager, &scale(11));
    case.is_wrong(&["asks for 11 pods of deployments/d/w, and may ask for 2 to 10"]);
    case.call(manager, &scale(1));
    case.is_wrong(&["asks for 1 pods", "may ask for 2 to 10"]);
}

#[test]
fn p45_no_more_than_the_load_is_worth() {
    // 1.4 CPUs at half a CPU each.
    let (mut case, manager) = case(1_400, 2);
    case.call(manager, &scale(3));
    case.is_right();
    case.call(manager, &scale(4));
    case.is_wrong(&["asks for 4 pods of deployments/d/w instead of 2", "the load is worth 3"]);
    // Who shrinks may come from anywhere.
    case.put(None, &deployment(9));
    case.show(manager, &key());
    case.call(manager, &scale(4));
    case.is_right();
}

#[test]
fn p45_at_rest_the_number_is_right() {
    assert_eq!(case(1_400, 3).0.at_rest(), Vec::<String>::new());
    one_with(&case(1_400, 2).0.at_rest(), &["asks for 2 pods at rest, and 3 are right at 70 %"]);
    one_with(&case(1_400, 4).0.at_rest(), &["asks for 4 pods at rest, and 3 are right at 35 %"]);
    // A tenth more or less is right, and so is what the bounds make of the rest.
    assert_eq!(case(2_150, 4).0.at_rest(), Vec::<String>::new());
    assert_eq!(case(0, 2).0.at_rest(), Vec::<String>::new());
    assert_eq!(case(90_000, 10).0.at_rest(), Vec::<String>::new());
    one_with(&case(90_000, 11).0.at_rest(), &["asks for 11 pods, and its bounds are 2 and 10"]);
    let (mut case, _) = case(1_400, 3);
    case.put(None, &autoscaler(4));
    one_with(&case.at_rest(), &["reports 4 wanted pods at rest, and 3 are"]);
}
