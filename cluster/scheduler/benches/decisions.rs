//! How long decisions take: the reference's and the fast ones, on clusters of several sizes, for
//! pods without a controller and with one, and a scheduler's whole work for a pod.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::cell::RefCell;

use api::{Key, Kind, Object, Pod, Reply, Request, Revision, Time, codec};
use divan::Bencher;
use divan::counter::ItemsCount;
use k8s_openapi::api::core::v1::Node;
use machine::{ApiEffect, ApiInput, Machine, RngTree, WatchEvent};
use rand_chacha::ChaCha8Rng;
use scheduler::{Classes, Fast, PodInfo, Presence, Profile, Question, Scheduler, Snapshot, cycle};
use serde_json::{Value, json};

const SIZES: [usize; 4] = [1_000, 5_000, 15_000, 100_000];

fn main() {
    divan::main();
}

fn node(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number:06}"), "resourceVersion": "1", "labels": {
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            "kubernetes.io/hostname": format!("node-{number:06}")}},
        "status": {"allocatable": {
            "cpu": if number.is_multiple_of(2) { "32" } else { "64" },
            "memory": "128Gi", "pods": "110"}}})
}

fn pod(number: usize, class: usize, owner: Option<usize>) -> Value {
    let mut metadata = json!({"name": format!("pod-{number:07}"), "namespace": "default",
        "uid": format!("4c2f0a5e-0000-4000-8000-{number:012}")});
    if let Some(owner) = owner {
        metadata["labels"] = json!({"app": format!("app-{owner}")});
        metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": format!("rs-{owner}"), "uid": format!("owner-{owner}"), "controller": true}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "c", "image": format!("image-{class}"),
            "resources": {"requests": {"cpu": format!("{}m", 100 + class), "memory": "256Mi"}}}]}})
}

/// The controller of pods: they spread by its selector.
fn replica_set(owner: usize) -> Object {
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"namespace": "default", "name": format!("rs-{owner}"), "resourceVersion": "1"},
        "spec": {"selector": {"matchLabels": {"app": format!("app-{owner}")}}, "template": {}}});
    codec::decode_any(set.to_string().as_bytes()).unwrap()
}

/// A cluster, and pods that come to it in turn; half of the places are taken, and for each pod
/// that comes another goes.
struct Cluster {
    profile: Profile,
    snapshot: Snapshot,
    fast: Fast,
    start: usize,
    rng: ChaCha8Rng,
    pods: Vec<PodInfo>,
    next: usize,
}

/// What pods come: so many classes, taking turns; each its own controller's, with so many pods.
#[derive(Clone, Copy)]
struct Load {
    classes: usize,
    owned: bool,
}

impl Cluster {
    fn new(nodes: usize, load: Load) -> Self {
        let mut snapshot = Snapshot::default();
        for number in 0..nodes {
            snapshot.set_node(&serde_json::from_value::<Node>(node(number)).unwrap());
        }
        for owner in 0..if load.owned { load.classes } else { 0 } {
            let set = replica_set(owner);
            snapshot.census_mut().selectors.set(&set.key(), Some(&set));
        }
        let mut classes = Classes::default();
        let count = (10 * nodes).min(100_000);
        let pods = (0..count).map(|number| {
            let class = number % load.classes;
            let pod = pod(number, class, load.owned.then_some(class));
            PodInfo::of(&serde_json::from_value::<Pod>(pod).unwrap(), &mut classes).unwrap()
        });
        let mut cluster = Self {
            profile: Profile::default(),
            snapshot,
            fast: Fast::default(),
            start: 0,
            rng: RngTree::new(1).rng("ties"),
            pods: pods.collect(),
            next: 0,
        };
        for _ in 0..count {
            cluster.decide_fast();
        }
        cluster
    }

    fn place(&mut self, node: &str) {
        let pod = &self.pods[self.next];
        let presence = Presence::of(&pod.kin);
        self.snapshot.add_pod(&pod.key, &pod.uid, &presence, &pod.class.load, node);
        self.next = (self.next + 1) % self.pods.len();
        let oldest = &self.pods[(self.next + self.pods.len() / 2) % self.pods.len()];
        self.snapshot.remove_pod(&oldest.key);
    }

    fn decide_fast(&mut self) {
        let pod = &self.pods[self.next];
        let choice = self.fast.choose(
            &self.profile,
            &mut self.snapshot,
            pod,
            &mut self.start,
            &mut self.rng,
        );
        self.place(&choice.unwrap().node);
    }

    fn decide_reference(&mut self) {
        let pod = &self.pods[self.next];
        let question = Question { class: &pod.class, kin: &pod.kin };
        let choice =
            cycle::choose(&self.profile, &self.snapshot, question, &mut self.start, &mut self.rng);
        self.place(&choice.unwrap().node);
    }
}

fn run(bencher: Bencher, nodes: usize, load: Load, decide: impl Fn(&mut Cluster)) {
    let cluster = RefCell::new(Cluster::new(nodes, load));
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| decide(&mut cluster.borrow_mut()));
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 2)]
fn reference(bencher: Bencher, nodes: usize) {
    run(bencher, nodes, Load { classes: 10, owned: false }, Cluster::decide_reference);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 2)]
fn reference_owned(bencher: Bencher, nodes: usize) {
    run(bencher, nodes, Load { classes: 10, owned: true }, Cluster::decide_reference);
}

#[divan::bench(args = SIZES, sample_count = 100, sample_size = 200)]
fn fast(bencher: Bencher, nodes: usize) {
    run(bencher, nodes, Load { classes: 10, owned: false }, Cluster::decide_fast);
}

/// Controllers with very many pods: on almost every node, or on thousands.
#[divan::bench(args = SIZES, sample_count = 100, sample_size = 200)]
fn fast_owned(bencher: Bencher, nodes: usize) {
    run(bencher, nodes, Load { classes: 10, owned: true }, Cluster::decide_fast);
}

/// Controllers with few pods, all with classes of their own, taking turns: the least to keep.
#[divan::bench(args = [1_000, 5_000, 15_000], sample_count = 100, sample_size = 200)]
fn fast_owned_by_many(bencher: Bencher, nodes: usize) {
    run(bencher, nodes, Load { classes: 500, owned: true }, Cluster::decide_fast);
}

/// All nodes join, one after the other.
#[divan::bench(args = [1_000, 100_000], sample_count = 2, sample_size = 1)]
fn join(bencher: Bencher, count: usize) {
    let parsed: Vec<Node> =
        (0..count).map(|number| serde_json::from_value(node(number)).unwrap()).collect();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let mut snapshot = Snapshot::default();
        for node in &parsed {
            snapshot.set_node(node);
        }
        snapshot
    });
}

/// The work of a scheduler for each of many pods: it is created, bound, the binding is answered
/// and seen, the pod starts to run, and an older one is deleted.
struct Lives {
    nodes: Vec<Object>,
    /// What to feed after the nodes; all effects that it causes are the same in each run.
    inputs: Vec<ApiInput>,
}

const NOW: Time = Time::from_secs(100);

impl Lives {
    /// Lives `pods` pods through once, to know where they go.
    fn record(nodes: usize, pods: usize) -> Self {
        let object = |value: &Value| codec::decode_any(value.to_string().as_bytes()).unwrap();
        let nodes = (0..nodes).map(|number| object(&node(number))).collect();
        let mut lives = Self { nodes, inputs: Vec::new() };
        let mut scheduler = lives.scheduler();
        let mut revision = 10;
        let mut feed = |input: ApiInput| {
            let mut out = Vec::new();
            scheduler.step(NOW, input.clone(), &mut out);
            lives.inputs.push(input);
            out.into_iter().find_map(|effect| match effect {
                ApiEffect::Call { id, request: Request::Bind { node, .. } } => Some((id, node)),
                _ => None,
            })
        };
        let mut changed = |pod: &mut Pod| {
            revision += 1;
            pod.metadata.resource_version = Some(revision.to_string());
            ApiInput::Watch(WatchEvent::Changed(Object::Pod(pod.clone().into())))
        };
        for i in 0..pods {
            let owner = i / 100 % 50;
            let mut pod: Pod = serde_json::from_value(pod(i, owner, Some(owner))).unwrap();
            let (id, node) = feed(changed(&mut pod)).unwrap();
            feed(ApiInput::Reply { id, result: Ok(Reply::Done(Revision(1))) });
            pod.node_name = Some(node.into());
            feed(changed(&mut pod));
            pod.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
            feed(changed(&mut pod));
            if let Some(old) = i.checked_sub(pods / 2) {
                let key = Key::new(Kind::Pod, "default", &format!("pod-{old:07}"));
                feed(ApiInput::Watch(WatchEvent::Deleted { key, revision: Revision(1 << 40) }));
            }
        }
        lives
    }

    fn scheduler(&self) -> Scheduler {
        let mut scheduler = Scheduler::new(Profile::default(), None, &RngTree::new(1));
        for kind in Scheduler::KINDS.iter().copied() {
            let objects = match kind {
                Kind::Node => self.nodes.clone(),
                Kind::ReplicaSet => (0..50).map(replica_set).collect(),
                _ => Vec::new(),
            };
            let list = WatchEvent::Replaced { kind, objects, revision: Revision(1) };
            scheduler.step(NOW, ApiInput::Watch(list), &mut Vec::new());
        }
        scheduler
    }
}

/// A scheduler's whole work for a pod.
#[divan::bench(args = [1_000, 15_000], sample_count = 5, sample_size = 1)]
fn machine(bencher: Bencher, nodes: usize) {
    let pods = 20_000;
    let lives = Lives::record(nodes, pods);
    let start = || (lives.scheduler(), lives.inputs.clone());
    bencher.counter(ItemsCount::new(pods)).with_inputs(start).bench_local_values(
        |(mut scheduler, inputs)| {
            let mut out = Vec::new();
            for input in inputs {
                scheduler.step(NOW, input, &mut out);
                out.clear();
            }
            scheduler
        },
    );
}
