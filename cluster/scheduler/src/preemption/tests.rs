//! What the documentation says, by hand.

#![expect(clippy::needless_pass_by_value, reason = "manifests read better without borrows")]

use api::{Kind, Pod};
use machine::RngTree;
use serde_json::{Value, json};

use super::*;
use crate::cycle::Diagnosis;
use crate::pod_info::{Classes, PodInfo, Standing};

/// A pod that has a node.
#[derive(Clone, Copy)]
struct There {
    name: &'static str,
    node: &'static str,
    cpu: u32,
    priority: i32,
    /// Zero for one that has not started.
    started: u64,
}

const fn there(
    name: &'static str,
    node: &'static str,
    cpu: u32,
    priority: i32,
    started: u64,
) -> There {
    There { name, node, cpu, priority, started }
}

struct Cluster {
    profile: Profile,
    snapshot: Snapshot,
    classes: Classes,
    rng: ChaCha8Rng,
}

impl Cluster {
    /// Nodes of four processors each, and the pods on them.
    fn new(nodes: &[&str], pods: &[There]) -> Self {
        let mut cluster = Self {
            profile: Profile::default(),
            snapshot: Snapshot::default(),
            classes: Classes::default(),
            rng: RngTree::new(1).rng("ties"),
        };
        for name in nodes {
            cluster.node(name, json!({}));
        }
        for pod in pods {
            cluster.place(pod, json!({}));
        }
        cluster
    }

    fn node(&mut self, name: &str, spec: Value) {
        let node = json!({"spec": spec, "metadata": {"name": name,
                "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
        self.snapshot.set_node(&serde_json::from_value(node).unwrap());
    }

    fn place(&mut self, pod: &There, status: Value) {
        let mut value = pod_of(pod.name, pod.cpu, pod.priority);
        value["metadata"]["labels"] = json!({"app": pod.name.trim_end_matches(char::is_numeric)});
        value["status"] = status;
        if value["status"]["conditions"].is_array() {
            value["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:09Z");
        }
        if pod.started > 0 {
            value["status"]["startTime"] = json!(Time::from_secs(pod.started).to_meta());
        }
        let object: Pod = serde_json::from_value(value).unwrap();
        let info = PodInfo::of(&object, &mut self.classes).unwrap();
        let presence = self.classes.presence(&object, object.spec.as_ref().unwrap());
        let load = &info.class.load;
        self.snapshot.add_pod(&info.key, &info.uid, &presence, load, pod.node);
        self.snapshot.set_standing(&info.key, Standing::of(&object));
    }

    fn budget(&mut self, app: &str, allowed: i32, disrupted: &[&str]) {
        let disrupted: serde_json::Map<String, Value> = disrupted
            .iter()
            .map(|name| ((*name).to_owned(), json!("1970-01-01T00:00:09Z")))
            .collect();
        let selector =
            if app.is_empty() { json!({}) } else { json!({"matchLabels": {"app": app}}) };
        let budget = json!({"metadata": {"name": format!("of-{app}"), "namespace": "d"},
            "spec": {"selector": selector},
            "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted}});
        self.snapshot.set_budget(&serde_json::from_value(budget).unwrap());
    }

    fn nominate(&mut self, name: &str, cpu: u32, priority: i32, node: &str) {
        let info = self.info(&pod_of(name, cpu, priority));
        self.snapshot.nominate(&info, node);
    }

    fn info(&mut self, pod: &Value) -> PodInfo {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        PodInfo::of(&pod, &mut self.classes).unwrap()
    }

    fn decide(&mut self, pod: &Value) -> Result<String, Diagnosis> {
        let info = self.info(pod);
        let mut start = 0;
        let question = info.question();
        cycle::choose(&self.profile, &self.snapshot, question, &mut start, &mut self.rng)
            .map(|choice| choice.node)
    }

    /// Which node is cleared for a pod, and of whom.
    fn evict(&mut self, cpu: u32, priority: i32) -> (String, Vec<String>, usize) {
        self.evict_for(&pod_of("new", cpu, priority))
    }

    fn evict_for(&mut self, pod: &Value) -> (String, Vec<String>, usize) {
        let diagnosis = self.decide(pod).unwrap_err();
        let Preemption::Found(eviction) = diagnosis.preemption else { panic!("{diagnosis:?}") };
        let names = eviction.victims.iter().map(|victim| victim.key.name.to_string());
        (eviction.node, names.collect(), eviction.violations)
    }

    fn message(&mut self, pod: &Value) -> String {
        self.decide(pod).unwrap_err().message()
    }
}

fn pod_of(name: &str, cpu: u32, priority: i32) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]}})
}

#[track_caller]
fn check(found: (String, Vec<String>, usize), node: &str, victims: &[&str], violations: usize) {
    let (on, names, violated) = found;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!((on.as_str(), names.as_slice(), violated), (node, victims, violations));
}

#[test]
fn as_many_as_possible_stay_the_most_important_first() {
    let pods = [
        there("a", "n", 1, 3, 10),
        there("b", "n", 1, 2, 10),
        there("late", "n", 1, 1, 30),
        there("early", "n", 1, 1, 20),
    ];
    let mut cluster = Cluster::new(&["n"], &pods);
    check(cluster.evict(1, 9), "n", &["late"], 0);
    check(cluster.evict(2, 9), "n", &["early", "late"], 0);
    check(cluster.evict(3, 3), "n", &["b", "early", "late"], 0);
    assert_eq!(
        cluster.message(&pod_of("new", 4, 3)),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 Insufficient cpu."
    );
    // One that is large enough goes, though smaller ones are less important: they fit beside.
    let pods = [there("large", "n", 3, 2, 10), there("small", "n", 1, 1, 10)];
    check(Cluster::new(&["n"], &pods).evict(3, 9), "n", &["large"], 0);
    // Pods that have not started are the youngest, and of equals the name decides.
    let pods = [there("b", "n", 2, 0, 0), there("a", "n", 1, 0, 0), there("c", "n", 1, 0, 9)];
    check(Cluster::new(&["n"], &pods).evict(1, 9), "n", &["b"], 0);
}

#[test]
fn budgets_are_violated_least() {
    let pods = [there("web1", "n1", 4, 1, 10), there("db1", "n2", 4, 5, 10)];
    let with = |budgets: &[(&str, i32, &[&str])]| {
        let mut cluster = Cluster::new(&["n1", "n2"], &[]);
        for (app, allowed, disrupted) in budgets {
            cluster.budget(app, *allowed, disrupted);
        }
        for pod in &pods {
            cluster.place(pod, json!({}));
        }
        cluster.evict(4, 9)
    };
    // The lower priority, if no budget says otherwise.
    check(with(&[]), "n1", &["web1"], 0);
    check(with(&[("web", 1, &[])]), "n1", &["web1"], 0);
    check(with(&[("web", 0, &[])]), "n2", &["db1"], 0);
    check(with(&[("web", 0, &[]), ("db", 0, &[])]), "n1", &["web1"], 1);
    // Whose eviction was granted is counted already; an empty selector selects nothing.
    check(with(&[("web", 0, &["web1"])]), "n1", &["web1"], 0);
    check(with(&[("", 0, &[])]), "n1", &["web1"], 0);
}

#[test]
fn those_stay_first_whose_removal_violates_a_budget() {
    let mut cluster = Cluster::new(&["n"], &[]);
    cluster.budget("web", 1, &[]);
    for pod in [
        there("web1", "n", 1, 1, 10),
        there("web2", "n", 1, 1, 20),
        there("db1", "n", 1, 5, 10),
        there("db2", "n", 1, 4, 10),
    ] {
        cluster.place(&pod, json!({}));
    }
    // The budget lets the more important of the two go: the other stays at the cost of others.
    check(cluster.evict(1, 9), "n", &["web1"], 0);
    check(cluster.evict(2, 9), "n", &["db2", "web1"], 0);
    check(cluster.evict(3, 9), "n", &["db1", "db2", "web1"], 0);
    check(cluster.evict(4, 9), "n", &["db1", "db2", "web1", "web2"], 1);
}

/// Nodes differ in nothing but what is looked at; the answer must not depend on where the search
/// begins.
#[track_caller]
fn prefers(pods: &[There], cpu: u32, node: &str) {
    for seed in 0..8 {
        let mut cluster = Cluster::new(&["n1", "n2", "n3"], pods);
        cluster.rng = RngTree::new(seed).rng("ties");
        assert_eq!(cluster.evict(cpu, 100).0, node);
    }
}

#[test]
fn nodes_are_chosen_by_the_first_difference() {
    // The lowest of the highest priorities, whatever the sum.
    prefers(
        &[
            there("a", "n1", 4, 8, 10),
            there("b", "n2", 2, 7, 10),
            there("c", "n2", 2, 7, 10),
            there("d", "n3", 4, 9, 10),
        ],
        4,
        "n2",
    );
    // The lowest sum: one negative priority is less than two.
    prefers(
        &[
            there("a", "n1", 2, -5, 10),
            there("b", "n1", 2, -5, 10),
            there("c", "n2", 4, -5, 10),
            there("d", "n3", 2, -5, 10),
            there("e", "n3", 2, -9, 10),
        ],
        4,
        "n2",
    );
    // Of the same highest priority and number, the lower rest.
    prefers(
        &[
            there("a", "n1", 2, 5, 10),
            there("b", "n1", 2, 4, 10),
            there("c", "n2", 2, 5, 10),
            there("d", "n2", 2, 3, 10),
            there("e", "n3", 2, 5, 10),
            there("f", "n3", 2, 5, 10),
        ],
        4,
        "n2",
    );
    // The latest start of those with the highest priority; others do not count.
    prefers(
        &[
            there("a", "n1", 2, 5, 10),
            there("b", "n1", 2, 1, 90),
            there("c", "n2", 2, 5, 20),
            there("d", "n2", 2, 1, 10),
            there("e", "n3", 2, 5, 15),
            there("f", "n3", 2, 1, 50),
        ],
        4,
        "n2",
    );
    // The first of several that run is what counts.
    prefers(
        &[
            there("a", "n1", 2, 5, 10),
            there("b", "n1", 2, 5, 90),
            there("c", "n2", 2, 5, 20),
            there("d", "n2", 2, 5, 30),
            there("e", "n3", 2, 5, 0),
            there("f", "n3", 2, 5, 1),
        ],
        4,
        "n2",
    );
}

/// The fewest pods decide only where the sums are equal: many at the lowest priority of all count
/// nothing, as `sum` is counted from there.
#[test]
fn fewer_pods_break_equal_sums() {
    let lowest = i32::MIN;
    prefers(
        &[
            there("a", "n1", 2, lowest, 10),
            there("b", "n1", 2, lowest, 10),
            there("c", "n2", 4, lowest, 10),
            there("d", "n3", 2, lowest, 10),
            there("e", "n3", 2, lowest, 20),
        ],
        4,
        "n2",
    );
}

#[test]
fn says_why_nobody_can_go() {
    let pods = [there("a", "n1", 4, 5, 10), there("b", "n2", 3, 1, 10), there("c", "n2", 1, 9, 10)];
    let mut cluster = Cluster::new(&["n1", "n2"], &pods);
    cluster.node("n3", json!({"unschedulable": true}));
    let head = "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. ";
    let tail = "preemption: 0/3 nodes are available: 1 Insufficient cpu, 1 No preemption victims \
                found for incoming pod, 1 Preemption is not helpful for scheduling.";
    assert_eq!(cluster.message(&pod_of("new", 4, 5)), format!("{head}{tail}"));
    // Nobody at all is lower: nobody looks.
    let before = cluster.rng.clone();
    let tail = "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, \
                2 No preemption victims found for incoming pod.";
    assert_eq!(cluster.message(&pod_of("new", 4, 1)), format!("{head}{tail}"));
    assert_eq!(cluster.rng, before);

    let mut never = pod_of("new", 4, 9);
    never["spec"]["preemptionPolicy"] = json!("Never");
    let tail = "preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(cluster.message(&never), format!("{head}{tail}"));
    // When somebody can, nothing is added.
    assert_eq!(cluster.message(&pod_of("new", 4, 9)), head.trim_end());
    cluster.profile.preemption = None;
    assert_eq!(cluster.message(&pod_of("new", 4, 9)), head.trim_end());
}

#[test]
fn waits_while_victims_of_a_scheduler_end_on_its_node() {
    let condition = |reason: &str| json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]});
    let mut cluster = Cluster::new(&["n1", "n2"], &[there("b", "n2", 4, 1, 10)]);
    cluster.place(&there("a", "n1", 4, 1, 10), condition("PreemptionByScheduler"));
    cluster.nominate("new", 4, 9, "n1");
    let waits = "preemption: not eligible due to a terminating pod on the nominated node.";
    assert!(cluster.message(&pod_of("new", 4, 9)).ends_with(waits));
    // For a node that it cannot go to in any case it does not wait.
    cluster.node("n1", json!({"unschedulable": true}));
    check(cluster.evict(4, 9), "n2", &["b"], 0);
    cluster.node("n1", json!({}));
    // Nor for pods that end for another reason, or that are not lower.
    let evicted = condition("EvictionByEvictionAPI");
    cluster.place(&there("a", "n1", 4, 1, 10), evicted);
    assert_eq!(cluster.evict(4, 9).1.len(), 1);
    cluster.place(&there("a", "n1", 4, 9, 10), condition("PreemptionByScheduler"));
    check(cluster.evict(4, 9), "n2", &["b"], 0);
}

#[test]
fn a_nominated_pod_counts_for_those_that_are_not_higher() {
    let mut cluster = Cluster::new(&["n1", "n2"], &[there("b", "n2", 2, 1, 10)]);
    cluster.nominate("chosen", 3, 5, "n1");
    assert_eq!(cluster.decide(&pod_of("new", 4, 9)).unwrap(), "n1");
    // Its own node is tried first, and it does not stand in its own way.
    cluster.nominate("own", 2, 5, "n2");
    assert_eq!(cluster.decide(&pod_of("own", 2, 5)).unwrap(), "n2");
    cluster.snapshot.withdraw(&Key::new(Kind::Pod, "d", "own"));
    for priority in [0, 5] {
        assert_eq!(cluster.decide(&pod_of("new", 2, priority)).unwrap(), "n2");
        assert!(cluster.message(&pod_of("new", 4, priority)).starts_with("0/2 nodes"));
    }
    // It counts in the trial, too: the place is not given twice.
    cluster.nominate("other", 2, 5, "n2");
    cluster.place(&there("a", "n1", 2, 6, 10), json!({}));
    cluster.place(&there("c", "n1", 2, 6, 10), json!({}));
    let trial = cluster.message(&pod_of("new", 3, 5));
    assert!(trial.ends_with("1 Insufficient cpu, 1 No preemption victims found for incoming pod."));
    check(cluster.evict(3, 6), "n2", &["b"], 0);
}

#[test]
fn those_go_who_keep_a_pod_away() {
    let pods = [
        there("web1", "n1", 1, 1, 10),
        there("web2", "n1", 1, 2, 10),
        there("db1", "n1", 1, 0, 10),
        there("web3", "n2", 1, 9, 10),
    ];
    let web = json!({"matchLabels": {"app": "web"}});
    let mut apart = pod_of("new", 1, 5);
    apart["spec"]["affinity"]["podAntiAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "kubernetes.io/hostname", "labelSelector": web}]});
    check(Cluster::new(&["n1", "n2"], &pods).evict_for(&apart), "n1", &["web2", "web1"], 0);
    // One that is promised the node counts as well: the pod that comes must not be with it.
    let mut cluster = Cluster::new(&["n1"], &pods[..3]);
    let mut promised = pod_of("promised", 1, 5);
    promised["metadata"]["labels"] = json!({"app": "web"});
    let promised = cluster.info(&promised);
    cluster.snapshot.nominate(&promised, "n1");
    let tail = "preemption: 0/1 nodes are available: \
                1 node(s) didn't match pod anti-affinity rules.";
    assert!(cluster.message(&apart).ends_with(tail), "{}", cluster.message(&apart));

    let mut spread = pod_of("new", 1, 5);
    spread["metadata"]["labels"] = json!({"app": "web"});
    spread["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "labelSelector": web,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]);
    let mut cluster = Cluster::new(&["n1"], &pods[..3]);
    cluster.node("n3", json!({"unschedulable": true}));
    check(cluster.evict_for(&spread), "n1", &["web2", "web1"], 0);
    // Where the others have one each, one may stay.
    cluster.place(&there("web4", "n3", 1, 9, 10), json!({}));
    check(cluster.evict_for(&spread), "n1", &["web1"], 0);
}

#[test]
fn not_all_nodes_are_considered() {
    let candidates = Candidates::default();
    assert_eq!([50, 100, 1000, 5000].map(|n| candidates.enough(n)), [50, 100, 100, 500]);
    let price = |node: u32, violations: usize| Price {
        violations,
        highest: 1000 - i32::try_from(node).unwrap(),
        sum: 0,
        victims: 1,
        started: Reverse(Time::ZERO),
    };
    let potential: Vec<u32> = (0..200).collect();
    let offset = RngTree::new(1).rng("ties").random_range(0..200_usize);
    let offset = u32::try_from(offset).unwrap();
    let looked = |violating: &dyn Fn(u32) -> bool| {
        let (mut looked, mut rng) = (Vec::new(), RngTree::new(1).rng("ties"));
        let best = select(&potential, 5, &mut rng, |node| {
            looked.push(node);
            // Every second one cannot be cleared.
            node.is_multiple_of(2).then(|| price(node, usize::from(violating(node))))
        });
        (looked, best.unwrap())
    };
    let (nodes, best) = looked(&|_| false);
    let first: u32 = (offset..).find(|n: &u32| n.is_multiple_of(2)).unwrap();
    let dearest = (0..5).map(|i| (first + 2 * i) % 200).max().unwrap();
    assert_eq!((nodes[0], nodes.last(), best), (offset, Some(&((first + 8) % 200)), dearest));
    // As long as each would violate a budget, others are looked at.
    let (nodes, best) = looked(&|node| node != (first + 100) % 200);
    let harmless = (first + 100) % 200;
    assert_eq!((nodes.last(), best), (Some(&harmless), harmless));
    assert_eq!(looked(&|_| true).0.len(), 200);
}
