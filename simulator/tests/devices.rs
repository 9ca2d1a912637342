//! Extended resources, from the node that offers them to the pod that has them.

use std::collections::BTreeMap;

use simulator::outcome::Outcome as SimulatedOutcome;
use simulator::plan::{
    Component, Fault, NodeShape, Operation, Outcome, Plan, PlannedFault, PlannedNode,
    PlannedOperation, PodTemplate, Settings, Target,
};
use simulator::span::Span;
use simulator::world::{Phase, World};

const GPU: &str = "nvidia.com/gpu";

/// Three nodes, two of them with two GPUs each, and a replica set of pods that want one each.
fn plan(replicas: u32) -> Plan {
    let gpus = |n: u64| BTreeMap::from([(GPU.to_owned(), n)]);
    let node = |i: u32| PlannedNode { name: format!("n{i}"), shape: i.min(1), joins: Span::ZERO };
    let create = Operation::CreateReplicaSet { name: "learn".to_owned(), template: 0, replicas };
    Plan {
        name: "devices".to_owned(),
        seed: 1,
        settings: Settings { safety: Span::secs(120), ..Settings::default() },
        shapes: vec![NodeShape::default(), NodeShape { extended: gpus(2), ..NodeShape::default() }],
        nodes: (0..3).map(node).collect(),
        templates: vec![PodTemplate { extended: gpus(1), ..PodTemplate::default() }],
        operations: vec![PlannedOperation { at: Span::secs(30), operation: create }],
        faults: Vec::new(),
    }
}

fn outcome(plan: Plan) -> SimulatedOutcome {
    let mut world = World::new(plan).expect("a plan that can be run");
    world.run();
    assert_eq!((world.phase(), world.gave_up()), (Phase::Rest, None));
    assert_eq!(world.violations(), []);
    world.outcome()
}

#[test]
fn gpus_are_given_out_until_there_are_none() {
    let outcome = outcome(plan(6));
    let last = outcome.samples.last().expect("there are samples");
    assert_eq!((last.gpus_requested, last.gpus_allocatable), (4, 4));
    assert_eq!((last.running, last.pending, last.nodes_used), (4, 2, 2));
    // All CPU of the node without GPUs is of no use to those that wait, nor is the others'.
    let free = last.cpu_allocatable_milli - last.cpu_requested_milli;
    assert_eq!(last.cpu_stranded_milli, free);
}

/// What a scheduler does not know that it has bound, the kubelet counts all the same.
#[test]
fn gpus_are_not_given_out_twice_when_bindings_come_late() {
    let mut plan = plan(6);
    plan.faults.push(PlannedFault {
        at: Span::secs(25),
        lasts: Some(Span::secs(20)),
        fault: Fault::CallTimeout {
            component: Component::Scheduler(0),
            percent: 60,
            outcome: Outcome::CarriedOutLate,
        },
    });
    let scale = |at: u64, replicas: u32| PlannedOperation {
        at: Span::secs(at),
        operation: Operation::Scale {
            target: Target::ReplicaSet,
            name: "learn".to_owned(),
            replicas,
        },
    };
    plan.operations.extend([scale(34, 2), scale(37, 6), scale(40, 1), scale(43, 5)]);
    plan.sort();
    for seed in 1..6 {
        plan.seed = seed;
        let last = *outcome(plan.clone()).samples.last().expect("there are samples");
        assert_eq!((last.gpus_requested, last.running), (4, 4), "seed {seed}");
    }
}
