use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plan::{
    Fault, NodeShape, Operation, PlannedFault, PlannedNode, PlannedOperation, PodTemplate,
    Settings, Target,
};

fn meter(nodes: &[&str]) -> Meter {
    Meter::new(&plan(nodes))
}

fn plan(nodes: &[&str]) -> Plan {
    let planned =
        |name: &&str| PlannedNode { name: (*name).to_owned(), shape: 0, joins: Span::ZERO };
    Plan {
        name: "test".to_owned(),
        seed: 1,
        settings: Settings::default(),
        shapes: Vec::new(),
        nodes: nodes.iter().map(planned).collect(),
        templates: Vec::new(),
        operations: Vec::new(),
        faults: Vec::new(),
    }
}

fn node(name: &str, cpu: &str, ready: &str) -> Object {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "3"},
            "conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap();
    node.into_object()
}

fn pod(name: &str, cpu_milli: u32, node: &str, phase: &str, extra: &Value) -> Object {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "app", "resources":
            {"requests": {"cpu": format!("{cpu_milli}m"), "memory": "1Gi"}}}]},
        "status": {"phase": phase},
    });
    if !node.is_empty() {
        value["spec"]["nodeName"] = node.into();
    }
    if extra["deleted"] == true {
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    if extra["disrupted"] == true {
        value["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    }
    let pod: Pod = serde_json::from_value(value).unwrap();
    pod.into_object()
}

/// Lets an object go through its states, one a second; `None` is its removal.
fn live(meter: &mut Meter, states: &[Option<Object>]) {
    let mut old: Option<&Object> = None;
    for (second, new) in states.iter().enumerate() {
        let key = new.as_ref().or(old).unwrap().key();
        meter.written(Span::secs(second as u64), &key, old, new.as_ref());
        old = new.as_ref();
    }
}

#[test]
fn a_pod_is_timed_from_its_creation_and_takes_what_it_asks_for() {
    let mut meter = meter(&["a"]);
    live(&mut meter, &[Some(node("a", "2", "False")), Some(node("a", "2", "True"))]);
    let none = json!({});
    let states = [
        Some(pod("p", 500, "", "Pending", &none)),
        Some(pod("p", 500, "", "Pending", &none)),
        Some(pod("p", 500, "a", "Pending", &none)),
        Some(pod("p", 500, "a", "Running", &none)),
        Some(pod("p", 500, "a", "Succeeded", &none)),
        None,
    ];
    live(&mut meter, &states[..1]);
    let mut seen = Vec::new();
    for (second, pair) in states.windows(2).enumerate() {
        let [old, new] = pair else { unreachable!("windows of two") };
        let key = old.as_ref().unwrap().key();
        let at = Span::secs(second as u64 + 1);
        meter.written(at, &key, old.as_ref(), new.as_ref());
        meter.sample_at(at);
        let sample = meter.samples.last().unwrap();
        seen.push((sample.pending, sample.running, sample.cpu_requested_milli, sample.nodes_used));
    }
    assert_eq!(seen, [(1, 0, 0, 0), (0, 0, 500, 1), (0, 1, 500, 1), (0, 0, 0, 0), (0, 0, 0, 0)]);
    assert_eq!(meter.pods.created_at.len(), 0, "nothing is kept of what is gone");
    let outcome = meter.measured();
    assert_eq!((outcome.nodes, outcome.pods_created, outcome.pods_bound), (1, 1, 1));
    assert_eq!((outcome.pods_succeeded, outcome.pods_failed, outcome.pods_deleted), (1, 0, 1));
    assert_eq!(outcome.scheduling.max_ns, Span::secs(2).0);
    assert_eq!(outcome.start.max_ns, Span::secs(3).0);
    assert_eq!(outcome.pods_at_end["deleted"], 1);
    assert_eq!(outcome.pods_at_end.values().sum::<u64>(), outcome.pods_created);
    assert_eq!(outcome.writes, 2 + 6);
    let last = outcome.samples[1];
    assert_eq!((last.nodes, last.nodes_ready, last.cpu_allocatable_milli), (1, 1, 2_000));
    assert_eq!(last.memory_requested_bytes, 1 << 30);
    assert_eq!(last.scheduling_p50_ns, Span::secs(2).0);
    assert_eq!(outcome.samples[2].scheduling_p50_ns, 0, "none was bound since");
    assert_eq!(outcome.heat.cpu_percent, [[0], [25], [25], [0], [0]]);
}

#[test]
fn an_eviction_is_counted_once_whoever_does_it_and_however() {
    let check = |states: &[Option<Value>], evicted: u64| {
        let mut meter = meter(&[]);
        let states: Vec<Option<Object>> = states
            .iter()
            .map(|extra| {
                let extra = extra.as_ref()?;
                Some(pod("p", 1, "a", extra["phase"].as_str().unwrap_or("Running"), extra))
            })
            .collect();
        live(&mut meter, &states);
        assert_eq!(meter.measured().pods_evicted, evicted, "{states:?}");
    };
    let plain = Some(json!({}));
    let marked = Some(json!({"disrupted": true}));
    let going = Some(json!({"deleted": true}));
    let both = Some(json!({"disrupted": true, "deleted": true}));
    let failed = Some(json!({"disrupted": true, "phase": "Failed"}));
    check(&[plain.clone(), going.clone(), None], 0);
    check(&[plain.clone(), marked.clone(), plain.clone()], 0);
    check(&[plain.clone(), marked.clone(), both.clone(), both.clone(), None], 1);
    check(&[plain.clone(), going, both, None], 1);
    check(&[plain.clone(), marked, None], 1);
    check(&[plain, failed, None], 1);
}

#[test]
fn cpu_is_stranded_where_the_pending_pod_finds_no_room() {
    let mut meter = meter(&["a", "b", "c"]);
    let none = json!({});
    for (name, cpu) in [("a", "1"), ("b", "2"), ("c", "1")] {
        live(&mut meter, &[Some(node(name, cpu, if name == "c" { "False" } else { "True" }))]);
    }
    live(&mut meter, &[Some(pod("x", 600, "a", "Running", &none))]);
    live(&mut meter, &[Some(pod("y", 600, "b", "Running", &none))]);
    live(&mut meter, &[Some(pod("z", 100, "c", "Running", &none))]);
    let stranded = |meter: &mut Meter| {
        meter.sample_at(Span::ZERO);
        meter.samples.last().unwrap().cpu_stranded_milli
    };
    // The most frequent pod asks for 600m: a has 400m free, b 1400m, c is not ready.
    assert_eq!(stranded(&mut meter), 400);
    live(&mut meter, &[Some(pod("w", 1_500, "", "Pending", &none))]);
    assert_eq!(stranded(&mut meter), 1_800);
    // No room for more than three pods, whatever they ask for.
    live(&mut meter, &[Some(pod("w", 1_500, "", "Pending", &none)), None]);
    live(&mut meter, &[Some(pod("v", 0, "b", "Running", &none))]);
    live(&mut meter, &[Some(pod("u", 0, "b", "Running", &none))]);
    assert_eq!(stranded(&mut meter), 1_800);
}

#[test]
fn nodes_come_and_go() {
    let mut meter = meter(&["a"]);
    live(
        &mut meter,
        &[
            Some(node("a", "1", "True")),
            Some(node("a", "4", "True")),
            Some(node("a", "4", "Unknown")),
            None,
        ],
    );
    meter.sample_at(Span::ZERO);
    live(&mut meter, &[Some(node("a", "2", "True"))]);
    meter.sample_at(Span::secs(1));
    let outcome = meter.measured();
    assert_eq!(outcome.nodes, 1);
    let seen = outcome.samples.iter().map(|s| (s.nodes, s.nodes_ready, s.cpu_allocatable_milli));
    assert_eq!(seen.collect::<Vec<_>>(), [(0, 0, 0), (1, 1, 2_000)]);
    assert_eq!(outcome.heat.cpu_percent, [[255], [0]]);
}

#[test]
fn a_pod_that_nobody_counted_is_a_violation() {
    let mut meter = meter(&[]);
    live(&mut meter, &[Some(pod("p", 1, "", "Pending", &json!({})))]);
    assert_eq!(meter.pods.unaccounted([1, 0, 0, 0, 0], Time::ZERO), None);
    let violation = meter.pods.unaccounted([1, 0, 1, 0, 0], Time::ZERO).unwrap();
    assert_eq!(violation.property, "P54");
    assert!(violation.message.contains("1 pods were created and 0 deleted"), "{violation:?}");
}

const PHASES: [(&str, &str); 7] = [
    ("", "Pending"),
    ("", "Failed"),
    ("a", "Pending"),
    ("a", "Running"),
    ("b", "Running"),
    ("b", "Succeeded"),
    ("b", "Failed"),
];

proptest! {
    /// Whatever pods go through, the running totals are what counting anew gives.
    #[test]
    fn totals_are_what_is_there(steps in prop::collection::vec((0..4_usize, 0..9_usize), 0..60)) {
        let mut meter = meter(&[]);
        let mut there: [Option<Object>; 4] = Default::default();
        let (mut created, mut deleted) = (0, 0);
        for (at, (which, state)) in steps.into_iter().enumerate() {
            let new = PHASES.get(state).map(|(node, phase)| {
                let cpu = 100 * (u32::try_from(which).unwrap() + 1);
                pod(&which.to_string(), cpu, node, phase, &json!({}))
            });
            if new.is_none() && there[which].is_none() {
                continue;
            }
            let key = new.as_ref().or(there[which].as_ref()).unwrap().key();
            created += u64::from(there[which].is_none());
            deleted += u64::from(new.is_none());
            meter.written(Span::secs(at as u64), &key, there[which].as_ref(), new.as_ref());
            there[which] = new;
        }
        let mut places = [0; Place::ALL.len()];
        let mut requested = 0;
        let mut live = 0;
        for pod in there.iter().flatten().filter_map(Object::get::<Pod>) {
            let place = Place::of(pod);
            places[place as usize] += 1;
            live += usize::from(place.is_live());
            let placed = claim(pod).is_some_and(|node| !node.is_empty());
            requested += if placed { Pods::default().shape(pod).cpu_milli } else { 0 };
        }
        prop_assert_eq!(meter.pods.places, places);
        prop_assert_eq!((meter.pods.created, meter.pods.deleted), (created, deleted));
        prop_assert_eq!(meter.pods.unaccounted(places, Time::ZERO), None);
        prop_assert!(meter.pods.created_at.len() <= live);
        meter.sample_at(Span::ZERO);
        prop_assert_eq!(meter.samples[0].cpu_requested_milli, requested.unsigned_abs());
    }
}

/// A deployment that is rolled out, pods that end, and a host that dies and comes back.
fn eventful() -> Plan {
    let mut plan = plan(&["a", "b", "c"]);
    plan.settings.safety = Span::secs(900);
    plan.shapes = vec![NodeShape::default()];
    let template = |image: &str, runs| PodTemplate {
        image: image.to_owned(),
        cpu_milli: 1_000,
        runs,
        restart_policy: if runs.is_some() { "Never" } else { "Always" }.to_owned(),
        ..PodTemplate::default()
    };
    plan.templates = vec![
        template("web:1", None),
        template("web:2", None),
        template("batch:1", Some(Span::secs(30))),
    ];
    let at = |secs, operation| PlannedOperation { at: Span::secs(secs), operation };
    plan.operations.push(at(
        20,
        Operation::CreateDeployment {
            name: "web".to_owned(),
            template: 0,
            replicas: 6,
            max_surge: "25%".to_owned(),
            max_unavailable: "25%".to_owned(),
        },
    ));
    for i in 0..4 {
        let name = format!("batch-{i}");
        plan.operations.push(at(60, Operation::CreatePod { name, template: 2, runs: None }));
    }
    plan.operations.push(at(
        100,
        Operation::SetTemplate { target: Target::Deployment, name: "web".to_owned(), template: 1 },
    ));
    plan.faults.push(PlannedFault {
        at: Span::secs(200),
        lasts: Some(Span::secs(600)),
        fault: Fault::HostCrash { node: "a".to_owned() },
    });
    plan
}

#[test]
fn a_real_run_is_measured() {
    let run = || {
        let mut world = World::with_checks(eventful(), Vec::new()).unwrap();
        world.run();
        world.outcome()
    };
    let outcome = run();
    assert_eq!(outcome, run());
    assert_eq!(outcome.violations, []);
    assert_eq!(outcome.pods_at_end.values().sum::<u64>(), outcome.pods_created);
    assert_eq!((outcome.nodes, outcome.pods_succeeded), (3, 4));
    // Two deployments' worth of pods, the batch, and those in place of the evicted.
    assert_eq!(outcome.pods_created, 6 + 6 + 4 + outcome.pods_evicted);
    assert!((1..=6).contains(&outcome.pods_evicted), "{}", outcome.pods_evicted);
    assert_eq!(outcome.pods_bound, outcome.pods_created);
    assert_eq!(outcome.scheduling.count, outcome.pods_bound);
    assert!(outcome.start.p50_ns > outcome.scheduling.p50_ns, "{outcome:?}");
    let [created, changed] = &outcome.rollouts[..] else { panic!("{:?}", outcome.rollouts) };
    assert_eq!((created.generation, created.replicas, created.began), (1, 6, Span::secs(20)));
    assert!(created.completed.is_some_and(|c| c < changed.began), "{created:?}");
    assert!(changed.completed.is_some() && changed.available_min >= 5, "{changed:?}");
    let ready: Vec<u64> = outcome.samples.iter().map(|s| s.nodes_ready).collect();
    assert!(ready.contains(&3) && ready.contains(&2), "{ready:?}");
    assert_eq!(outcome.peak(|s| Some(s.cpu_requested_milli as f64)), Some(10_000.0));
    assert_eq!(outcome.heat.nodes.len(), 3);
}
