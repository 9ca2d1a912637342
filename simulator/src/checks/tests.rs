use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::plan;
use crate::plan::{Neighbours, PlannedNode, PlannedOperation, PodTemplate};
use crate::span::Span;

fn properties(plan: &Plan) -> Vec<&'static str> {
    all(plan).iter().map(|c| c.property()).collect()
}

fn asking_for(operations: Value) -> Plan {
    let operations: Vec<Operation> = serde_json::from_value(operations).unwrap();
    let planned = |operation| PlannedOperation { at: Span::ZERO, operation };
    Plan { operations: operations.into_iter().map(planned).collect(), ..plan() }
}

#[test]
fn every_check_has_a_number_and_a_statement_of_its_own() {
    let mut everything = asking_for(json!([
        {"do": "create-deployment", "name": "d", "template": 0, "replicas": 1},
        {"do": "create-daemon-set", "name": "d", "template": 0},
        {"do": "create-job", "name": "j", "template": 0},
        {"do": "create-budget", "name": "b", "app": "d"},
    ]));
    everything.templates.push(PodTemplate::default());
    everything.templates.push(PodTemplate {
        host_port: 80,
        apart: vec![Neighbours::default()],
        priority: 7,
        ..PodTemplate::default()
    });
    let all = all(&everything);
    let numbers: BTreeSet<&str> = all.iter().map(|c| c.property()).collect();
    let statements: BTreeSet<&str> = all.iter().map(|c| c.statement()).collect();
    assert_eq!((numbers.len(), statements.len()), (all.len(), all.len()));
    let expected = "P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11 P12 P13 P14 P15 P17 P18 P19 P20 P22 P23 \
                    P24 P25 P27 P28 P29 P30 P31 P32 P33 P34 P35 P36 P37 P38 P40 P41 P42 \
                    P43 P44 P46 P54";
    assert_eq!(numbers, expected.split_whitespace().collect());
}

#[test]
fn what_a_plan_does_not_ask_for_is_not_looked_for() {
    let pods = json!([{"do": "create-pod", "name": "p", "template": 0}]);
    let left = properties(&asking_for(pods.clone()));
    let of_sets = ["P29", "P30", "P31", "P32", "P37", "P38", "P40"];
    assert!(of_sets.iter().all(|property| !left.contains(property)), "{left:?}");
    assert!(["P2", "P8", "P17", "P54"].iter().all(|property| left.contains(property)));
    let sets = json!([{"do": "create-replica-set", "name": "r", "template": 0, "replicas": 1}]);
    let left = properties(&asking_for(sets));
    assert!(["P29", "P30", "P31", "P40"].iter().all(|property| left.contains(property)));
    assert!(["P32", "P37", "P38"].iter().all(|property| !left.contains(property)));
    let mut claims = asking_for(pods);
    claims.templates.push(PodTemplate { storage: 1, ..PodTemplate::default() });
    assert!(properties(&claims).contains(&"P40"));
}

#[test]
fn what_the_settings_name_is_left_out() {
    let mut plan = plan();
    let before = properties(&plan).len();
    plan.settings.unchecked = vec!["P9".to_owned(), "P54".to_owned()];
    let after = properties(&plan);
    assert_eq!(after.len(), before - 2);
    assert!(!after.contains(&"P9") && !after.contains(&"P54"));
}

#[test]
fn large_plans_do_without_what_is_expensive() {
    let mut many_nodes = plan();
    many_nodes.nodes = (0..=NODES_MAX)
        .map(|i| PlannedNode { name: format!("n{i}"), shape: 0, joins: Span::ZERO })
        .collect();
    let mut many_pods = plan();
    many_pods.operations.push(PlannedOperation {
        at: Span::ZERO,
        operation: Operation::CreateReplicaSet {
            name: "r".to_owned(),
            template: 0,
            replicas: 300_001,
        },
    });
    for plan in [many_nodes, many_pods] {
        let left = properties(&plan);
        assert!(left.contains(&"P9") && !left.contains(&"P2") && !left.contains(&"P29"));
    }
}
