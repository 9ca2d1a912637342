mod extenders;
mod groups;
mod profiles;
mod storage;

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
        self.change(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
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

    /// A pod with these labels and this affinity; it has a node, unless that is empty.
    fn related(&mut self, name: &str, labels: &Value, affinity: &Value, node: &str) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"),
                "labels": labels},
            "spec": {"containers": [], "affinity": affinity}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        self.change(pod);
    }

    /// Lets time pass until nothing is left to be done, and tells who was bound where.
    fn settle(&mut self) -> Vec<(String, String)> {
        for _ in 0..20 {
            let Some(at) = self.scheduler.wake_at() else { break };
            self.now = self.now.max(at);
            self.step(ApiInput::Wake);
        }
        self.bindings().into_iter().map(|(_, pod, node)| (pod, node)).collect()
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
    // The other becomes schedulable when the first is gone, and nobody else waits.
    bench.delete("a");
    assert_eq!(names(&bench.bindings()), [("b", "n1")]);
}

#[test]
fn a_pod_that_asks_for_more_than_numbers_hold_leaves_no_trace() {
    let mut bench = Bench::new();
    bench.node("n1", "1");
    bench.pod("a", "600m", "n1");
    // Whoever names the node himself is not judged.
    for name in ["huge", "huger"] {
        bench.pod(name, "9223372036854775807m", "n1");
    }
    bench.pod("b", "600m", "");
    assert_eq!(names(&bench.bindings()), []);
    for name in ["huge", "huger"] {
        bench.delete(name);
    }
    assert_eq!(bench.settle(), [], "400m are left");
    bench.pod("c", "400m", "");
    assert_eq!(names(&bench.bindings()), [("c", "n1")]);
    bench.delete("a");
    assert_eq!(bench.settle(), [("b".to_owned(), "n1".to_owned())]);
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
    assert_eq!(names(&bench.bindings()), [("big", "n3")]);
}

/// Affinity to nodes by name: each term has these lists of names.
fn named(terms: &[&[&[&str]]]) -> Value {
    let list = |names: &[&str]| json!({"key": "metadata.name", "operator": "In", "values": names});
    let term = |lists: &[&[&str]]| -> Value {
        json!({"matchFields": lists.iter().map(|names| list(names)).collect::<Vec<_>>()})
    };
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": terms.iter().map(|lists| term(lists)).collect::<Vec<_>>()}}})
}

/// Tells where such a pod would go, or why it goes nowhere.
#[test]
fn nodes_that_a_pod_does_not_name_are_not_looked_at() {
    let mut bench = Bench::new();
    bench.scheduler.compare_decisions(std::num::NonZeroU32::new(1));
    for name in ["n1", "n2", "n3", "n4"] {
        bench.node(name, "1");
    }
    bench.pod("full", "1", "n1");
    let mut check = |affinity: &Value, cpu: &str, expected: &str| {
        bench.change(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "uid": "u-p"},
            "spec": {"affinity": affinity,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}));
        bench.settle();
        let explained = bench.scheduler.explain(&Key::new(Kind::Pod, "d", "p")).unwrap();
        let why = explained.message.unwrap_or_else(|| explained.winners.join(" "));
        bench.delete("p");
        let why = why.split(" preemption: ").next().unwrap();
        assert_eq!(why, expected, "{affinity}");
        let shadow = bench.scheduler.shadow().unwrap();
        assert_eq!(shadow.different(), 0, "{:?}", shadow.differences());
        shadow.compared()
    };
    check(&named(&[&[&["n2"]]]), "1", "n2");
    check(&named(&[&[&["n1"]], &[&["n3"]]]), "1", "n3");
    check(&named(&[&[&["n1", "n4"], &["n4", "n2"]]]), "1", "n4");
    let expected = "0/4 nodes are available: 1 Insufficient cpu, 3 node(s) didn't satisfy plugin(s) \
                    [NodeAffinity].";
    check(&named(&[&[&["n1"]]]), "1", expected);
    // Of nodes that are not there nothing is told.
    let expected = "0/4 nodes are available: 4 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    check(&named(&[&[&["n7"]]]), "1", expected);
    let mut labelled = named(&[&[&["n2"]]]);
    labelled["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        [0]["matchExpressions"] = json!([{"key": "disk", "operator": "Exists"}]);
    let expected = "0/4 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
                    3 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    check(&labelled, "1", expected);
    let expected = "0/4 nodes are available: pod affinity terms conflict.";
    check(&named(&[&[&["n1"], &["n2"]]]), "1", expected);
    // Where one term names none, all are looked at.
    let expected = "0/4 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
                    3 Insufficient cpu.";
    let mut open = named(&[&[&["n2"]]]);
    open["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        .as_array_mut()
        .unwrap()
        .push(json!({"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n3", "n4"]}]}));
    assert_eq!(check(&open, "2", expected), 8);
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
        let expected = "running Bind plugin \"DefaultBinder\": lost";
        let told = bench
            .out
            .iter()
            .any(|e| matches!(e, ApiEffect::Record(report) if report.record.message == expected));
        let noted = bench.out.iter().find_map(|e| match e {
            ApiEffect::Call { request: Request::Patch { patch, .. }, .. } => {
                Some(patch.body.json()["status"]["conditions"][0]["reason"].clone())
            }
            _ => None,
        });
        assert_eq!((told, noted), (again, again.then(|| json!("SchedulerError"))));
        bench.now = bench.now + Duration::from_secs(2);
        bench.step(ApiInput::Wake);
        assert_eq!(bench.bindings().len(), usize::from(again));
    }
}

#[test]
fn same_inputs_same_choices() {
    let run = |seed: u64| {
        let mut bench = Bench::new();
        bench.scheduler.chooser.rng = RngTree::new(seed).rng("ties");
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

fn affinity(kind: &str, key: &str, selector: &Value) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": key, "labelSelector": {"matchLabels": selector}}]}})
}

#[test]
fn a_pod_that_waits_for_others_is_tried_when_they_come() {
    let host = "kubernetes.io/hostname";
    let mut bench = Bench::new();
    bench.node("n1", "4");
    bench.node("n2", "4");
    let beside = affinity("podAffinity", host, &json!({"app": "db"}));
    bench.related("web", &json!({}), &beside, "");
    assert_eq!(bench.settle(), []);
    // Another pod is no reason to try it again.
    bench.related("other", &json!({"app": "x"}), &json!({}), "n1");
    bench.related("third", &json!({"app": "x"}), &json!({}), "");
    assert!(!bench.scheduler.queue.has_active());
    assert_eq!(bench.settle().len(), 1);
    // One that comes to match is, by its labels or by being bound here.
    bench.related("other", &json!({"app": "db"}), &json!({}), "n1");
    assert_eq!(bench.settle(), [("web".to_owned(), "n1".to_owned())]);
    bench.related("web2", &json!({}), &affinity("podAffinity", host, &json!({"app": "q"})), "");
    assert_eq!(bench.settle(), []);
    bench.related("q", &json!({"app": "q"}), &json!({}), "");
    let bound = bench.settle();
    assert_eq!((bound.len(), &bound[0].0, &bound[1].0), (2, &"q".to_owned(), &"web2".to_owned()));
    assert_eq!(bound[0].1, bound[1].1);
}

#[test]
fn a_pod_that_is_kept_away_is_tried_when_others_go() {
    let host = "kubernetes.io/hostname";
    let mut bench = Bench::new();
    bench.node("n1", "4");
    let apart = affinity("podAntiAffinity", host, &json!({"app": "db"}));
    for name in ["plain", "fixed"] {
        bench.related(name, &json!({}), &json!({}), "n1");
    }
    bench.related("db", &json!({"app": "db"}), &apart, "n1");
    // One is kept away by what it wants, one by what the other wants.
    bench.related("apart", &json!({}), &apart, "");
    bench.related("db2", &json!({"app": "db"}), &json!({}), "");
    assert_eq!(bench.settle(), []);
    bench.delete("plain");
    assert!(!bench.scheduler.queue.has_active() && bench.scheduler.queue.wake_at().is_none());
    bench.related("db", &json!({"app": "no longer"}), &apart, "n1");
    // Still kept away: by its labels the other is not meant any more, but it means this one.
    assert_eq!(bench.settle(), [("apart".to_owned(), "n1".to_owned())]);
    bench.delete("db");
    assert_eq!(bench.settle(), []);
    bench.delete("apart");
    assert_eq!(bench.settle(), [("db2".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_pod_that_spreads_is_tried_when_pods_come_go_and_begin_to_go() {
    let mut bench = Bench::new();
    for name in ["n1", "n2"] {
        bench.node(name, "4");
    }
    let pod = |bench: &mut Bench, name: &str, node: &str, going: bool| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c"}], "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "a"}}}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        if going {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        bench.change(pod);
    };
    bench.change(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n2", "labels": {"kubernetes.io/hostname": "n2"}},
        "spec": {"unschedulable": true},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "10"}}}));
    pod(&mut bench, "p1", "n1", false);
    pod(&mut bench, "p2", "", false);
    assert_eq!(bench.settle(), []);
    // The emptiest domain gets one more.
    pod(&mut bench, "p3", "n2", false);
    assert_eq!(bench.settle(), [("p2".to_owned(), "n1".to_owned())]);
    pod(&mut bench, "p4", "", false);
    assert_eq!(bench.settle(), []);
    pod(&mut bench, "p1", "n1", true);
    assert_eq!(bench.settle(), [("p4".to_owned(), "n1".to_owned())]);
    pod(&mut bench, "p5", "", false);
    assert_eq!(bench.settle(), []);
    bench.step(ApiInput::Watch(WatchEvent::Deleted {
        key: Key::new(Kind::Node, "", "n2"),
        revision: Revision(9999),
    }));
    assert_eq!(bench.settle(), [("p5".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_pod_is_tried_when_labels_of_namespaces_change() {
    let mut bench = Bench::new();
    bench.node("n1", "4");
    let namespace = |bench: &mut Bench, name: &str, labels: Value| {
        bench.change(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}}));
    };
    namespace(&mut bench, "d", json!({"team": "x"}));
    let mut other = affinity("podAntiAffinity", "kubernetes.io/hostname", &json!({"app": "a"}));
    other["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
        json!({"matchLabels": {"team": "x"}});
    bench.related("there", &json!({}), &other, "n1");
    bench.related("new", &json!({"app": "a"}), &json!({}), "");
    assert_eq!(bench.settle(), []);
    namespace(&mut bench, "e", json!({"team": "y"}));
    assert!(!bench.scheduler.queue.has_active() && bench.scheduler.queue.wake_at().is_none());
    namespace(&mut bench, "d", json!({"team": "y"}));
    assert_eq!(bench.settle(), [("new".to_owned(), "n1".to_owned())]);
}
