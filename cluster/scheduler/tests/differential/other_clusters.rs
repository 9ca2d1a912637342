//! What a scheduler would choose in another cluster: one whose nodes and pods have other names and
//! came in another order (P21), and one that has a node more (P26).
//!
//! Two schedulers are told of the same history, one of them of its own version. Only the first one
//! decides; the other one holds each pod back behind a gate and explains what it would decide, which
//! is the plain way's answer. What the first one decided is done in both clusters.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Reply, Revision, Time, codec};
use machine::{ApiEffect, ApiInput, Machine, RngTree, WatchEvent};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use scheduler::group::{GROUP, MIN_AVAILABLE};
use scheduler::{Choice, Desk, Diagnosis, Explanation, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

use super::shapes::{self, Shapes};

/// Numbers of nodes are below this.
const NODES_MAX: usize = 150;
/// So many things happen in each cluster.
const EVENTS: usize = 60;
/// A name of a pod is this number less its own in the cluster of other names.
const LAST: usize = 1_000_000;

/// What the second cluster is.
enum Other {
    /// The same one, in which the node of the first number is called by the second.
    Renamed(Vec<usize>),
    /// The same one with another node, to which no pod goes.
    Larger,
}

/// One scheduler and what it is told of.
struct Side {
    scheduler: Scheduler,
    now: Time,
    revision: u64,
}

impl Side {
    fn new(config: &SchedulerConfig, seed: u64) -> Self {
        let desk = Desk::new(config).expect("the profiles are valid");
        let mut scheduler = Scheduler::new(desk, None, &RngTree::new(seed));
        scheduler.keep_decisions(true);
        let mut side = Self { scheduler, now: Time::from_secs(1000), revision: 1 };
        for kind in Scheduler::KINDS {
            let (objects, revision) = (Vec::new(), Revision(1));
            side.tell(WatchEvent::Replaced { kind: *kind, objects, revision });
        }
        side
    }

    /// Tells of something; whatever is asked for then is answered as if it were done.
    fn tell(&mut self, event: WatchEvent) {
        let mut out = Vec::new();
        self.scheduler.step(self.now, ApiInput::Watch(event), &mut out);
        while let Some(effect) = out.pop() {
            if let ApiEffect::Call { id, .. } = effect {
                let result = Ok(Reply::Done(Revision(self.revision)));
                self.scheduler.step(self.now, ApiInput::Reply { id, result }, &mut out);
            }
        }
    }

    fn put(&mut self, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = codec::decode_any(value.to_string().as_bytes()).expect("it can be decoded");
        self.tell(WatchEvent::Changed(object));
    }

    fn remove(&mut self, key: &Key) {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.tell(WatchEvent::Deleted { key: key.clone(), revision });
    }
}

/// What came of a history.
#[derive(Debug, Default)]
struct Outcome {
    bound: usize,
    refused: usize,
    /// Decisions with several best nodes.
    ties: usize,
    /// Pods that only the second cluster had a node for.
    helped: usize,
    differences: Vec<String>,
}

struct Twins {
    ours: Side,
    theirs: Side,
    other: Other,
    shapes: Shapes,
    rng: ChaCha8Rng,
    made: usize,
    /// Pods that have a node.
    pods: Vec<Key>,
    outcome: Outcome,
}

fn config(rng: &mut ChaCha8Rng) -> SchedulerConfig {
    let profiles = (0..shapes::PROFILES).map(|number| {
        let mut profile = shapes::profile(rng);
        // Groups are decided about together, which no explanation does.
        profile.enabled.clear();
        profile.name = shapes::scheduler_name(number);
        profile
    });
    SchedulerConfig { profiles: profiles.collect(), ..SchedulerConfig::default() }
}

/// The number of a node's name.
fn number_of(name: &str) -> Option<usize> {
    (0..NODES_MAX).find(|number| name == shapes::node_name(*number))
}

impl Other {
    fn node(&self, name: &str) -> String {
        match (self, number_of(name)) {
            (Self::Renamed(names), Some(number)) => shapes::node_name(names[number]),
            _ => name.to_owned(),
        }
    }

    fn pod(&self, name: &str) -> String {
        let number = name.strip_prefix('p').and_then(|number| number.parse::<usize>().ok());
        match (self, number) {
            (Self::Renamed(_), Some(number)) => format!("p{}", LAST - number),
            _ => name.to_owned(),
        }
    }

    /// An object as it is in the second cluster.
    fn object(&self, value: &Value) -> Value {
        let mut object = self.nodes_in(value);
        if object["kind"] == "Pod" {
            let name = self.pod(object["metadata"]["name"].as_str().expect("it has one"));
            object["metadata"]["name"] = json!(name);
        }
        object
    }

    fn nodes_in(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.node(text)),
            Value::Array(items) => items.iter().map(|item| self.nodes_in(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, field)| (name.clone(), self.nodes_in(field))).collect()
            }
            plain => plain.clone(),
        }
    }

    fn key(&self, key: &Key) -> Key {
        match key.kind {
            Kind::Pod => Key::new(Kind::Pod, &key.namespace, &self.pod(&key.name)),
            Kind::Node => Key::cluster(Kind::Node, &self.node(&key.name)),
            _ => key.clone(),
        }
    }
}

impl Twins {
    /// Two clusters of fewer than a hundred nodes, which a search always looks at all of.
    fn new(seed: u64, renamed: bool) -> Self {
        let mut rng = RngTree::new(seed).rng("other clusters");
        let config = config(&mut rng);
        let other = if renamed {
            let mut names: Vec<usize> = (0..NODES_MAX).collect();
            names.shuffle(&mut rng);
            Other::Renamed(names)
        } else {
            Other::Larger
        };
        let mut twins = Self {
            ours: Side::new(&config, seed),
            // Other random numbers: only what does not depend on them is compared.
            theirs: Side::new(&config, seed + 1),
            other,
            shapes: Shapes::draw(&mut rng),
            rng,
            made: 0,
            pods: Vec::new(),
            outcome: Outcome::default(),
        };
        let count = twins.rng.random_range(3..60);
        let nodes: Vec<Value> = twins.nodes(0, count);
        if matches!(twins.other, Other::Larger) {
            let mut extra = nodes[0].clone();
            for place in ["/metadata/name", "/metadata/labels/kubernetes.io~1hostname"] {
                *extra.pointer_mut(place).expect("it is named") = json!("extra");
            }
            twins.theirs.put(extra);
        }
        twins
    }

    /// Adds nodes, in the second cluster the last one first.
    fn nodes(&mut self, first: usize, count: usize) -> Vec<Value> {
        let numbers = first..first + count;
        let nodes: Vec<Value> =
            numbers.map(|number| self.shapes.node(number, &mut self.rng).0).collect();
        for node in &nodes {
            self.ours.put(node.clone());
        }
        for node in nodes.iter().rev() {
            self.theirs.put(self.other.object(node));
        }
        nodes
    }

    fn put(&mut self, value: &Value) {
        self.ours.put(value.clone());
        self.theirs.put(self.other.object(value));
    }

    fn remove(&mut self, key: &Key) {
        self.ours.remove(key);
        self.theirs.remove(&self.other.key(key));
    }

    fn happen(&mut self) {
        match self.rng.random_range(0..100) {
            0..70 => {
                let shape = self.shapes.pick(&mut self.rng);
                for _ in 0..self.rng.random_range(1..8) {
                    self.pod(shape);
                }
            }
            70..85 => {
                let every = self.rng.random_range(1..6);
                let gone: Vec<Key> = self.pods.iter().step_by(every).cloned().collect();
                self.pods.retain(|key| !gone.contains(key));
                gone.iter().for_each(|key| self.remove(key));
            }
            85..90 => {
                let first = self.rng.random_range(0..80);
                self.nodes(first, 3);
            }
            90..95 => {
                let namespace = shapes::namespace(&mut self.rng);
                self.put(&namespace);
            }
            _ => {
                let service = shapes::service(&mut self.rng);
                self.put(&service);
            }
        }
    }

    /// A pod that displaces nobody, has no claims and is of no group.
    fn drawn(&mut self, shape: usize) -> Value {
        self.made += 1;
        let mut pod = self.shapes.pod(shape, self.made).pop().expect("the pod is the last");
        pod["spec"]["preemptionPolicy"] = json!("Never");
        pod["spec"].as_object_mut().expect("a spec").remove("volumes");
        let labels = pod["metadata"]["labels"].as_object_mut().expect("labels");
        labels.remove(GROUP);
        labels.remove(MIN_AVAILABLE);
        if matches!(self.other, Other::Larger) {
            // Where it minds other pods, another domain is another question.
            let spec = pod["spec"].as_object_mut().expect("a spec");
            spec.remove("topologySpreadConstraints");
            if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
                affinity.retain(|kind, _| kind == "nodeAffinity");
            }
        }
        pod
    }

    /// Decides about a pod in one cluster and explains it in the other.
    fn pod(&mut self, shape: usize) {
        let pod = self.drawn(shape);
        let mut gated = self.other.object(&pod);
        gated["spec"]["schedulingGates"] = json!([{"name": "example.com/twin"}]);
        self.theirs.put(gated);
        self.ours.put(pod.clone());
        let object = codec::decode_any(pod.to_string().as_bytes()).expect("it can be decoded");
        let key = object.key();
        let decision = self.ours.scheduler.take_decisions().pop().expect("it was decided about");
        assert_eq!(decision.pod, key);
        let here = self.ours.scheduler.explain(&key).expect("it is known");
        let there = self.theirs.scheduler.explain(&self.other.key(&key)).expect("it is known");
        let differences = match self.other {
            Other::Renamed(_) => self.named_otherwise(&decision.result, &here, &there),
            Other::Larger => self.with_one_more(&decision.result, &here, &there),
        };
        let named = differences.into_iter().map(|what| format!("{key}: {what}"));
        self.outcome.differences.extend(named);
        match decision.result {
            Ok(choice) => {
                self.outcome.bound += 1;
                self.outcome.ties += usize::from(here.winners.len() > 1);
                let mut bound = pod;
                bound["spec"]["nodeName"] = json!(choice.node);
                self.put(&bound);
                self.pods.push(key);
            }
            Err(_) => {
                self.outcome.refused += 1;
                self.outcome.helped += usize::from(there.message.is_none());
                self.remove(&key);
            }
        }
    }

    /// P21: the same nodes for the same reasons and scores, of which one of the best is chosen.
    fn named_otherwise(
        &self,
        result: &Result<Choice, Diagnosis>,
        here: &Explanation,
        there: &Explanation,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut same = |what: &str, is: String, expected: String| {
            if is != expected {
                found.push(format!("{what}: {is} instead of {expected}"));
            }
        };
        let (ours, theirs) =
            (verdicts(here, |node| self.other.node(node)), verdicts(there, str::to_owned));
        for (node, verdict) in &theirs {
            let expected = ours.get(node).cloned().unwrap_or_default();
            same(node, verdict.clone(), expected);
        }
        same("nodes", theirs.len().to_string(), ours.len().to_string());
        let best = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
        let renamed: Vec<String> = here.winners.iter().map(|node| self.other.node(node)).collect();
        same("the best", format!("{:?}", best(&there.winners)), format!("{:?}", best(&renamed)));
        match result {
            Ok(choice) => {
                let node = self.other.node(&choice.node);
                if !there.winners.contains(&node) {
                    found.push(format!("{node} was chosen, which is none of {:?}", there.winners));
                }
            }
            Err(diagnosis) => {
                let expected = there.message.clone().unwrap_or_default();
                same("the message", diagnosis.message(), expected);
            }
        }
        found
    }

    /// P26: whoever can have a node can have one where there is another one, and no node is worse.
    fn with_one_more(
        &self,
        result: &Result<Choice, Diagnosis>,
        here: &Explanation,
        there: &Explanation,
    ) -> Vec<String> {
        let mut found = Vec::new();
        if result.is_ok() && there.message.is_some() {
            found.push(format!("no node any more: {:?}", there.message));
        }
        let takes = |explanation: &Explanation| {
            let nodes = explanation.feasible.iter().map(|scored| scored.node.clone());
            nodes.filter(|node| node != "extra").collect::<BTreeSet<String>>()
        };
        if takes(here) != takes(there) {
            found.push(format!("{:?} instead of {:?}", takes(there), takes(here)));
        }
        found
    }
}

/// What is said of each node, by its name.
fn verdicts(explanation: &Explanation, name: impl Fn(&str) -> String) -> BTreeMap<String, String> {
    assert_eq!(explanation.omitted, scheduler::explain::Omitted::default());
    let feasible = explanation.feasible.iter().map(|scored| {
        let scores: Vec<_> = scored.scores.iter().map(|s| (&s.plugin, s.raw, s.weighted)).collect();
        (name(&scored.node), format!("{} {scores:?}", scored.total))
    });
    let rejected = explanation.rejected.iter().map(|rejected| {
        let verdict = format!("{} {:?} {:?}", rejected.plugin, rejected.reasons, rejected.also);
        (name(&rejected.node), verdict)
    });
    feasible.chain(rejected).collect()
}

fn run(seed: u64, renamed: bool) -> Outcome {
    let mut twins = Twins::new(seed, renamed);
    for _ in 0..EVENTS {
        twins.happen();
    }
    twins.outcome
}

fn all_agree(renamed: bool) -> Outcome {
    let mut sum = Outcome::default();
    for seed in 0..24 {
        let outcome = run(seed, renamed);
        assert!(outcome.differences.is_empty(), "seed {seed}: {:#?}", outcome.differences);
        sum.bound += outcome.bound;
        sum.refused += outcome.refused;
        sum.ties += outcome.ties;
        sum.helped += outcome.helped;
    }
    sum
}

/// P21.
#[test]
fn other_names_change_nothing_but_which_of_the_best_is_drawn() {
    let outcome = all_agree(true);
    let Outcome { bound, refused, ties, .. } = outcome;
    assert!(bound > 1_000 && refused > 100 && ties > 100, "{outcome:?}");
}

/// P26. What is drawn looks at nodes alone, and more of it than at their resources.
#[test]
fn a_node_more_keeps_no_pod_from_its_node() {
    let outcome = all_agree(false);
    let Outcome { bound, refused, helped, .. } = outcome;
    assert!(bound > 1_000 && refused > 100 && helped > 10, "{outcome:?}");
}

/// Whether it would be noticed if the clusters were not the same.
#[test]
fn another_cluster_is_told_apart() {
    let mut twins = Twins::new(1, true);
    twins.happen();
    assert_eq!(twins.outcome.differences, [""; 0]);
    let mut node = twins.shapes.node(0, &mut twins.rng).0;
    node["spec"]["unschedulable"] = json!(true);
    twins.theirs.put(twins.other.object(&node));
    for _ in 0..EVENTS {
        twins.happen();
    }
    assert!(!twins.outcome.differences.is_empty());
}
