//! Priorities, from the template to the class and to who goes first.

use std::collections::BTreeMap;

use api::{Kind, Object, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use simulator::plan::{
    NodeShape, Operation, Plan, PlannedNode, PlannedOperation, PodTemplate, Settings, Target,
};
use simulator::span::Span;
use simulator::world::{Phase, World};

/// One node that joins after a minute, and pods of one CPU that wait for it.
fn plan(priorities: &[i32], operations: Vec<(u64, Operation)>) -> Plan {
    let template = |priority: &i32| PodTemplate {
        priority: *priority,
        cpu_milli: 1_000,
        ..PodTemplate::default()
    };
    let operation = |(at, operation)| PlannedOperation { at: Span::secs(at), operation };
    Plan {
        name: "priorities".to_owned(),
        seed: 1,
        settings: Settings { safety: Span::secs(120), ..Settings::default() },
        shapes: vec![NodeShape { cpu_milli: 1_000, ..NodeShape::default() }],
        nodes: vec![PlannedNode { name: "n".to_owned(), shape: 0, joins: Span::secs(60) }],
        templates: priorities.iter().map(template).collect(),
        operations: operations.into_iter().map(operation).collect(),
        faults: Vec::new(),
    }
}

fn pod(name: &str, template: u32) -> Operation {
    Operation::CreatePod { name: name.to_owned(), template, runs: None }
}

fn deployment(template: u32) -> Operation {
    Operation::CreateDeployment {
        name: "web".to_owned(),
        template,
        replicas: 1,
        max_surge: "1".to_owned(),
        max_unavailable: "0".to_owned(),
    }
}

/// The classes that are not the system's, with their values.
fn classes(world: &World) -> BTreeMap<String, i32> {
    let classes = world.objects(Kind::PriorityClass).filter_map(Object::get::<PriorityClass>);
    let classes = classes.map(|class| {
        assert_eq!(class.global_default, None);
        (class.metadata.name.clone().expect("it has a name"), class.value)
    });
    let mut classes: BTreeMap<String, i32> = classes.collect();
    assert_eq!(classes.remove("system-cluster-critical"), Some(2_000_000_000));
    assert_eq!(classes.remove("system-node-critical"), Some(2_000_001_000));
    classes
}

fn rested(plan: Plan) -> World {
    let mut world = World::new(plan).expect("a plan that can be run");
    world.run();
    assert_eq!((world.phase(), world.gave_up()), (Phase::Rest, None));
    assert_eq!(world.violations(), []);
    world
}

#[test]
fn a_class_is_made_when_it_is_first_used() {
    let set =
        Operation::SetTemplate { target: Target::Deployment, name: "web".to_owned(), template: 4 };
    let operations = vec![
        (20, pod("plain", 0)),
        (30, pod("first", 1)),
        (31, pod("second", 2)),
        (40, deployment(3)),
        (50, set),
    ];
    let mut plan = plan(&[0, 7, 7, -5, 1_000_000_000, 9], operations);
    plan.shapes[0].cpu_milli = 8_000;
    let mut world = World::new(plan.clone()).expect("a plan that can be run");
    let mut seen = vec![classes(&world)];
    while world.step() {
        let now = classes(&world);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    let all = [("priority-7", 7), ("priority-minus-5", -5), ("priority-1000000000", 1_000_000_000)];
    let expected = (0..=all.len()).map(|n| all[..n].iter().map(|(k, v)| ((*k).to_owned(), *v)));
    let expected: Vec<BTreeMap<String, i32>> = expected.map(Iterator::collect).collect();
    assert_eq!(seen, expected);
    let pods = world.objects(Kind::Pod).filter_map(Object::get::<Pod>);
    let of = |pod: &Pod| {
        let spec = pod.spec.as_ref().expect("it has a spec");
        (spec.priority_class_name.clone().unwrap_or_default(), spec.priority.unwrap_or_default())
    };
    let mut found: Vec<(String, i32)> = pods.map(of).collect();
    found.sort();
    let of = |name: &str, value: i32| (name.to_owned(), value);
    let seven = of("priority-7", 7);
    let most = of("priority-1000000000", 1_000_000_000);
    assert_eq!(found, [of("", 0), most, seven.clone(), seven]);
    let hash = world.effect_log_hash();
    assert_eq!(rested(plan).effect_log_hash(), hash);
}

#[test]
fn who_has_the_higher_priority_goes_first() {
    let operations = vec![(20, pod("low", 0)), (21, pod("mid", 1)), (22, pod("high", 2))];
    let world = rested(plan(&[-1, 0, 1], operations));
    let bound = world.objects(Kind::Pod).filter_map(Object::get::<Pod>);
    let bound = bound.filter(|pod| !pod.node().is_empty());
    let bound: Vec<_> = bound.filter_map(|pod| pod.metadata.name.as_deref()).collect();
    assert_eq!(bound, ["high"]);
}

#[test]
fn priorities_of_the_system_are_refused() {
    let Err(error) = World::new(plan(&[0, 1_000_000_001], Vec::new())) else {
        panic!("no class can have that value")
    };
    assert_eq!(
        error.to_string(),
        "the pod template with index 1 has priority 1000000001, above 1000000000, the highest \
         that is not the system's"
    );
}
