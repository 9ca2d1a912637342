mod profiles;

use std::time::Duration;

use api::{Revision, codec};
use serde_json::{Value, json};

use super::*;
use crate::desk::SchedulerConfig;

mod preemption;

/// A scheduler and the store it writes to, answered at will.
struct Bench {
    scheduler: Scheduler,
    now: Time,
    revision: u64,
    out: Vec<ApiEffect>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&SchedulerConfig::default())
    }

    fn with(config: &SchedulerConfig) -> Self {
        let mut bench = Self {
            scheduler: Scheduler::new(Desk::new(config).unwrap(), None, &RngTree::new(1)),
            now: Time::from_secs(100),
            revision: 10,
            out: Vec::new(),
        };
        for kind in Scheduler::KINDS {
            let event =
                WatchEvent::Replaced { kind: *kind, objects: Vec::new(), revision: Revision(1) };
            bench.step(ApiInput::Watch(event));
        }
        bench
    }

    fn step(&mut self, input: ApiInput) {
        self.scheduler.step(self.now, input, &mut self.out);
    }

    fn change(&mut self, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = codec::decode_any(value.to_string().as_bytes()).unwrap();
        self.step(ApiInput::Watch(WatchEvent::Changed(object)));
    }

    fn node(&mut self, name: &str, cpu: &str) {
        self.change(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}}));
    }

    fn pod(&mut self, name: &str, cpu: &str, node: &str) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        self.change(pod);
    }

    fn delete(&mut self, name: &str) {
        self.revision += 1;
        let key = Key::new(Kind::Pod, "d", name);
        let revision = Revision(self.revision);
        self.step(ApiInput::Watch(WatchEvent::Deleted { key, revision }));
    }

    /// The bindings called for since the last question: pod to node.
    fn bindings(&mut self) -> Vec<(CallId, String, String)> {
        std::mem::take(&mut self.out)
            .into_iter()
            .filter_map(|effect| match effect {
                ApiEffect::Call { id, request: Request::Bind { pod, node, .. } } => {
                    Some((id, pod.name.to_string(), node))
                }
                _ => None,
            })
            .collect()
    }

    fn reply(&mut self, id: CallId, result: Result<Reply, ApiError>) {
        self.step(ApiInput::Reply { id, result });
    }
}

fn names(bindings: &[(CallId, String, String)]) -> Vec<(&str, &str)> {
    bindings.iter().map(|(_, pod, node)| (pod.as_str(), node.as_str())).collect()
}

#[test]
fn assumes_what_it_binds_and_never_overcommits() {
    let mut bench = Bench::new();
    bench.node("n1", "1");
    bench.pod("a", "600m", "");
    bench.pod("b", "600m", "");
    // `a` is not yet seen bound, but its place is taken.
    assert_eq!(names(&bench.bindings()), [("a", "n1")]);
    assert_eq!(bench.scheduler.pending(), 2);
    bench.pod("a", "600m", "n1");
    assert_eq!(bench.scheduler.pending(), 1);
    // The other becomes schedulable when the first is gone, after its back-off.
    bench.delete("a");
    assert_eq!(names(&bench.bindings()), []);
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    assert_eq!(names(&bench.bindings()), [("b", "n1")]);
}

#[test]
fn tells_why_a_pod_fits_nowhere() {
    let mut bench = Bench::new();
    bench.node("n1", "1");
    bench.node("n2", "2");
    bench.pod("big", "4", "");
    let effects = std::mem::take(&mut bench.out);
    let patch = effects.iter().find_map(|e| match e {
        ApiEffect::Call { request: Request::Patch { patch, .. }, .. } => Some(patch.body.json()),
        _ => None,
    });
    let expected = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are \
                    available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(patch.unwrap()["status"]["conditions"][0]["message"], expected);
    let event = effects.iter().find_map(|e| match e {
        ApiEffect::Record(report) => Some(report.record.clone()),
        ApiEffect::Call { .. } => None,
    });
    let event = event.unwrap();
    assert_eq!((event.reason.as_str(), event.message.as_str()), ("FailedScheduling", expected));
    // Nothing happens until something changes.
    assert_eq!(bench.scheduler.wake_at(), None);
    bench.node("n3", "8");
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    assert_eq!(names(&bench.bindings()), [("big", "n3")]);
}

#[test]
fn a_lost_binding_is_looked_up_not_repeated_blindly() {
    let pod = |node: &str| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "d", "uid": "u-a", "resourceVersion": "50"},
            "spec": {"containers": []}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        Reply::Object(codec::decode_any(pod.to_string().as_bytes()).unwrap())
    };
    for (stored, again) in [("n1", false), ("", true)] {
        let mut bench = Bench::new();
        bench.node("n1", "1");
        bench.pod("a", "1", "");
        let (id, ..) = bench.bindings().remove(0);
        bench.reply(id, Err(ApiError::Unknown("lost".into())));
        let Some(ApiEffect::Call { id, request: Request::Get(_) }) = bench.out.pop() else {
            panic!("no look-up")
        };
        bench.reply(id, Ok(pod(stored)));
        bench.now = bench.now + Duration::from_secs(2);
        bench.step(ApiInput::Wake);
        assert_eq!(bench.bindings().len(), usize::from(again));
    }
}

#[test]
fn same_inputs_same_choices() {
    let run = |seed: u64| {
        let mut bench = Bench::new();
        bench.scheduler.rng = RngTree::new(seed).rng("ties");
        for i in 0..20 {
            bench.node(&format!("n{i}"), "4");
        }
        for i in 0..40 {
            bench.pod(&format!("p{i}"), "1", "");
        }
        bench.bindings().into_iter().map(|(_, pod, node)| (pod, node)).collect::<Vec<_>>()
    };
    assert_eq!(run(1).len(), 40);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn explains_without_deciding() {
    let mut bench = Bench::new();
    for (name, cpu) in [("n1", "4"), ("n2", "4"), ("n3", "2"), ("n4", "1")] {
        bench.node(name, cpu);
    }
    bench.pod("other", "2", "n2");
    let key = Key::new(Kind::Pod, "d", "a");
    assert_eq!(bench.scheduler.explain(&key), Err(Unexplained::Unknown));
    bench.scheduler.keep_decisions(true);
    bench.pod("a", "1500m", "");
    // Both before and after the decision: what it would be if the pod had no node.
    let explanation = bench.scheduler.explain(&key).unwrap();
    assert_eq!(explanation.winners, ["n1"]);
    assert_eq!((explanation.runner_up.as_deref(), explanation.evaluated), (Some("n3"), 4));
    insta::assert_snapshot!(
        explanation.feasible[0].scores.iter().map(|s| format!("{s:?}\n")).collect::<String>(),
        @r#"
    PluginScore { plugin: "TaintToleration", traits: [0], raw: 100, weighted: 300 }
    PluginScore { plugin: "NodeResourcesFit", traits: [], raw: 79, weighted: 79 }
    PluginScore { plugin: "NodeResourcesBalancedAllocation", traits: [], raw: 81, weighted: 81 }
    PluginScore { plugin: "ImageLocality", traits: [], raw: 0, weighted: 0 }
    "#
    );
    assert_eq!(
        serde_json::to_value(&explanation.rejected[0]).unwrap(),
        json!({"node": "n4", "plugin": "NodeResourcesFit", "reasons": ["Insufficient cpu"],
            "resolvable": false, "also": []})
    );
    let decision = bench.scheduler.take_decisions().remove(0);
    let choice = decision.result.unwrap();
    assert_eq!((decision.pod, choice.node.as_str()), (key.clone(), "n1"));
    assert_eq!(choice.score, explanation.feasible[0].total);
    assert_eq!(names(&bench.bindings()), [("a", "n1")]);
    assert_eq!(explanation.node.as_deref(), Some("n1"));
    assert_eq!(bench.scheduler.explain(&key), Ok(explanation));
    bench.pod("big", "9", "");
    let message = bench.scheduler.explain(&Key::new(Kind::Pod, "d", "big")).unwrap().message;
    assert!(message.unwrap().starts_with("0/4 nodes are available: 4 Insufficient cpu."));
}

#[test]
fn a_shadow_compares_one_decision_in_so_many() {
    for (one_in, expected) in [(1, 7), (3, 3)] {
        let mut bench = Bench::new();
        bench.scheduler.compare_decisions(NonZeroU32::new(one_in));
        bench.node("n1", "4");
        bench.node("n2", "4");
        for i in 0..7 {
            bench.pod(&format!("p{i}"), if i == 5 { "9" } else { "1" }, "");
        }
        let shadow = bench.scheduler.shadow().unwrap();
        assert_eq!((shadow.compared(), shadow.differences()), (expected, &[][..]));
    }
}

#[test]
fn a_shadow_tells_decisions_on_what_is_no_longer_true() {
    let cluster = |room: [&str; 2]| {
        let mut bench = Bench::new();
        bench.scheduler.compare_decisions(NonZeroU32::new(1));
        bench.node("n1", room[0]);
        bench.node("n2", room[1]);
        bench.pod("known", "2", "");
        bench
    };
    // What is kept of one cluster is believed of another one.
    let (mut bench, mut other) = (cluster(["8", "2"]), cluster(["2", "8"]));
    let desks = [&mut bench, &mut other].map(|bench| bench.scheduler.desk.fast_mut(0));
    let [ours, others] = desks;
    std::mem::swap(ours, others);
    bench.bindings();
    bench.pod("new", "2", "");
    assert_eq!(names(&bench.bindings()), [("new", "n2")]);
    let [difference] = bench.scheduler.shadow().unwrap().differences() else {
        panic!("one decision differs");
    };
    assert_eq!(difference.expected.as_ref().unwrap().node, "n1");
    let text = difference.to_string();
    assert!(text.starts_with("pods/d/new goes to n2 (score "), "{text}");
    assert!(text.contains("), by the reference to n1 (score "), "{text}");
}
