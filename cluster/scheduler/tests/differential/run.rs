//! A scheduler with a random cluster around it, of which every decision is taken by both ways.
//!
//! The cluster does what the scheduler asks for: bindings, conditions, evictions, claims. Whatever
//! else happens is drawn from a seed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use api::{Key, Kind, Object, PatchKind, Reply, Request, Revision, Time, codec};
use machine::{ApiEffect, ApiInput, Machine, RngTree, WatchEvent};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scheduler::{Desk, ProfileConfig, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

use super::shapes::{self, Shapes};

/// What came of one seed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many decisions were taken twice.
    pub(crate) decisions: u64,
    /// How many of them differ.
    pub(crate) different: u64,
    /// The first that do, in words.
    pub(crate) differences: Vec<String>,
    /// How many pods got a node.
    pub(crate) bound: u64,
    /// How many were displaced for others.
    pub(crate) displaced: u64,
}

/// With more pods than this some of them end.
const PODS_MAX: usize = 700;
/// A cluster that hardly decides anything any more ends, too.
const EVENTS_MAX: u64 = 20_000;

struct Cluster {
    scheduler: Scheduler,
    shapes: Shapes,
    rng: ChaCha8Rng,
    now: Time,
    revision: u64,
    objects: BTreeMap<Key, Value>,
    made: usize,
    out: Vec<ApiEffect>,
    outcome: Outcome,
}

/// Takes at least so many decisions, from a seed.
pub(crate) fn run(seed: u64, decisions: u64) -> Outcome {
    let mut cluster = Cluster::new(seed);
    let mut events = 0;
    while cluster.compared() < decisions && events < EVENTS_MAX {
        cluster.happen();
        events += 1;
    }
    let shadow = cluster.scheduler.shadow().expect("decisions are compared");
    cluster.outcome.decisions = shadow.compared();
    cluster.outcome.different = shadow.different();
    cluster.outcome.differences = shadow.differences().iter().map(ToString::to_string).collect();
    cluster.outcome
}

fn desk(rng: &mut ChaCha8Rng) -> Desk {
    let profiles = (0..shapes::PROFILES).map(|number| {
        let mut profile: ProfileConfig = shapes::profile(rng);
        profile.name = shapes::scheduler_name(number);
        profile
    });
    let config = SchedulerConfig { profiles: profiles.collect(), ..SchedulerConfig::default() };
    Desk::new(&config).expect("the profiles are valid")
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let tree = RngTree::new(seed);
        let mut rng = tree.rng("differential");
        let shapes = Shapes::draw(&mut rng);
        let mut scheduler = Scheduler::new(desk(&mut rng), None, &tree);
        scheduler.compare_decisions(NonZeroU32::new(1));
        if rng.random_bool(0.5) {
            scheduler.keep_lean();
        }
        let mut cluster = Self {
            scheduler,
            shapes,
            rng,
            now: Time::from_secs(1000),
            revision: 1,
            objects: BTreeMap::new(),
            made: 0,
            out: Vec::new(),
            outcome: Outcome::default(),
        };
        for kind in Scheduler::KINDS {
            let event =
                WatchEvent::Replaced { kind: *kind, objects: Vec::new(), revision: Revision(1) };
            cluster.step(ApiInput::Watch(event));
        }
        // In small clusters pods are in each other's way.
        let most = if cluster.rng.random_bool(0.5) { 12 } else { 150 };
        let nodes = cluster.rng.random_range(3..most);
        cluster.nodes(0, nodes);
        cluster
    }

    fn compared(&self) -> u64 {
        self.scheduler.shadow().map_or(0, |shadow| shadow.compared())
    }

    fn step(&mut self, input: ApiInput) {
        self.scheduler.step(self.now, input, &mut self.out);
    }

    /// Writes an object and tells of it.
    fn put(&mut self, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = decoded(&value);
        self.objects.insert(object.key(), value);
        self.step(ApiInput::Watch(WatchEvent::Changed(object)));
    }

    fn remove(&mut self, key: &Key) {
        if self.objects.remove(key).is_some() {
            self.revision += 1;
            let revision = Revision(self.revision);
            self.step(ApiInput::Watch(WatchEvent::Deleted { key: key.clone(), revision }));
        }
    }

    fn keys(&self, kind: Kind) -> Vec<Key> {
        self.objects.keys().filter(|key| key.kind == kind).cloned().collect()
    }

    /// One in so many of them, from a random one on.
    fn some(&mut self, kind: Kind) -> Vec<Key> {
        let every = self.rng.random_range(1..9);
        let skip = self.rng.random_range(0..every);
        self.keys(kind).into_iter().skip(skip).step_by(every).collect()
    }

    fn nodes(&mut self, first: usize, count: usize) {
        for number in first..first + count {
            let (node, limits) = self.shapes.node(number, &mut self.rng);
            self.put(node);
            self.put(limits);
        }
    }

    /// Lets something happen, and all that follows from it.
    fn happen(&mut self) {
        self.now = self.now + Duration::from_millis(self.rng.random_range(0..4000));
        match self.rng.random_range(0..100) {
            0..50 => {
                let count = self.rng.random_range(1..30);
                let shape = self.shapes.pick(&mut self.rng);
                for _ in 0..count {
                    self.made += 1;
                    for object in self.shapes.pod(shape, self.made) {
                        // A claim that pods share is made for the first of them.
                        let claims = Kind::PersistentVolumeClaim;
                        let key = decoded(&object).key();
                        if key.kind != claims || !self.objects.contains_key(&key) {
                            self.put(object);
                        }
                    }
                }
            }
            50..58 => {
                for key in self.some(Kind::Pod) {
                    self.remove(&key);
                }
            }
            58..64 => {
                let (first, count) = (self.rng.random_range(0..150), self.rng.random_range(1..6));
                self.nodes(first, count);
            }
            64..66 => {
                let first = self.rng.random_range(0..150);
                for number in first..first + self.rng.random_range(1..9) {
                    self.remove(&Key::cluster(Kind::Node, &shapes::node_name(number)));
                }
            }
            66..76 => self.let_go(),
            76..86 => self.bind_claims(),
            86..90 => {
                let namespace = shapes::namespace(&mut self.rng);
                self.put(namespace);
            }
            90..94 => {
                let budget = shapes::budget(&mut self.rng);
                self.put(budget);
            }
            94..97 => {
                let service = shapes::service(&mut self.rng);
                self.put(service);
            }
            _ => self.start_pods(),
        }
        self.settle();
        if self.keys(Kind::Pod).len() > PODS_MAX {
            for key in self.keys(Kind::Pod).into_iter().step_by(2) {
                self.remove(&key);
            }
            self.settle();
        }
    }

    /// Those that are on their way out go.
    fn let_go(&mut self) {
        for key in self.keys(Kind::Pod) {
            if !self.objects[&key]["metadata"]["deletionTimestamp"].is_null() {
                self.remove(&key);
            }
        }
    }

    fn start_pods(&mut self) {
        for key in self.some(Kind::Pod) {
            let mut pod = self.objects[&key].clone();
            if !pod["spec"]["nodeName"].is_null() {
                pod["status"]["startTime"] = json!(self.now.to_meta());
                self.put(pod);
            }
        }
    }

    /// What controllers do about claims: those that know their node get a volume there.
    fn bind_claims(&mut self) {
        for key in self.keys(Kind::PersistentVolumeClaim) {
            let mut claim = self.objects[&key].clone();
            let selected = &claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
            if let (Some(node), true) = (selected.as_str(), claim["spec"]["volumeName"].is_null()) {
                let (node, name) = (node.to_owned(), format!("v-{}-{}", key.namespace, key.name));
                self.put(shapes::volume(&name, &key, &node));
                claim["spec"]["volumeName"] = json!(name);
                claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
                claim["status"]["phase"] = json!("Bound");
                self.put(claim);
            }
        }
    }

    /// Does what the scheduler asks for until it has nothing to do.
    fn settle(&mut self) {
        loop {
            for effect in std::mem::take(&mut self.out) {
                if let ApiEffect::Call { id, request } = effect {
                    let result = self.carry_out(request);
                    self.step(ApiInput::Reply { id, result: Ok(result) });
                }
            }
            if self.out.is_empty() {
                match self.scheduler.wake_at() {
                    Some(at) if at <= self.now => self.step(ApiInput::Wake),
                    _ => return,
                }
            }
        }
    }

    fn carry_out(&mut self, request: Request) -> Reply {
        match request {
            Request::Bind { pod, node, .. } => {
                if let Some(mut value) = self.objects.get(&pod).cloned() {
                    value["spec"]["nodeName"] = json!(node);
                    value["status"] = json!({"phase": "Pending"});
                    self.outcome.bound += 1;
                    self.put(value);
                }
            }
            Request::Patch { key, patch, .. } => {
                assert_eq!(patch.kind, PatchKind::Strategic);
                if let Some(mut value) = self.objects.get(&key).cloned() {
                    merge(&mut value["status"], &patch.body.json()["status"]);
                    self.put(value);
                }
            }
            Request::Delete { key, .. } => {
                self.outcome.displaced += 1;
                if let Some(mut value) = self.objects.get(&key).cloned() {
                    if self.rng.random_bool(0.5) {
                        self.remove(&key);
                    } else {
                        value["metadata"]["deletionTimestamp"] = json!(self.now.to_meta());
                        self.put(value);
                    }
                }
            }
            Request::Update { object, .. } => self.put(codec::to_value(&object)),
            other => panic!("nobody asks for {other:?}"),
        }
        Reply::Done(Revision(self.revision))
    }
}

/// Lays a patch of a status over it: conditions by their type, the rest by name.
fn merge(status: &mut Value, patch: &Value) {
    for (field, value) in patch.as_object().into_iter().flatten() {
        let conditions = status[field].as_array().cloned().unwrap_or_default();
        status[field] = match value {
            Value::Array(new) => {
                let replaced = |c: &Value| new.iter().any(|other| other["type"] == c["type"]);
                let kept = conditions.into_iter().filter(|c| !replaced(c));
                kept.chain(new.iter().cloned()).collect()
            }
            other => other.clone(),
        };
    }
}

fn decoded(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).expect("what is drawn can be decoded")
}
