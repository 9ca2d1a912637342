//! All controllers in a small world: lagging watches, lost calls, nodes that run pods, and a
//! scheduler of few words. Everything is drawn from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::hash::fnv64;
use api::volume::{LOCAL_REMOVE, LOCAL_REMOVED, SELECTED_NODE};
use api::{ApiError, Key, Kind, Object, Pod, Request, Revision, Status, Time, codec, meta};
use k8s_openapi::api::core::v1::Node;
use machine::{
    ApiEffect, ApiInput, Cache, CallId, ControllerManager, Machine, Reconciler, Record, Recorder,
    RngTree, WatchEvent,
};
use rand::RngExt;
use serde_json::{Value, json};

use crate::claim_users::claims_of;
use crate::daemon_set::nodes;
use crate::fixture::{START, Store, affected, short};
use crate::{Config, all, pods};

/// Something that is due.
#[derive(Debug)]
enum Due {
    Input(ApiInput),
    Schedule(Key),
    Start(Key),
    End(Key),
    Heartbeat(String),
    /// The kubelet of the node removes folders of volumes.
    Clean(String),
}

/// What the API server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// It answers, but for calls that are lost.
    Up,
    /// It creates no pods.
    RefusesPods,
    /// Nothing reaches it.
    Down,
}

/// What becomes of pods that are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They are ready.
    Runs,
    /// They run and are never ready.
    NeverReady,
    /// Their container fails at once.
    Fails,
    /// Their container succeeds at once.
    Succeeds,
}

/// What is checked after every write.
type Check = fn(&World);

/// Where the controllers die, which start anew at once; calls are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The call never leaves.
    Before(usize),
    /// The call is carried out, and nobody hears the answer.
    After(usize),
}

fn config() -> Config {
    Config {
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        node_cidr_mask_size: 24,
        root_ca_pem: Some("CA".to_owned()),
        nodes_approved_by_hand: false,
        cluster_dns: None,
    }
}

fn controllers() -> ControllerManager {
    ControllerManager::new(all(config()), None)
}

/// Sees what the controllers see, and that nothing concerns them that they do not heed.
struct Witness {
    reconcilers: Vec<Box<dyn Reconciler>>,
    cache: Cache,
}

impl Witness {
    fn new() -> Self {
        let reconcilers = all(config());
        let cache = Cache::with_indexes(reconcilers.iter().flat_map(|r| r.indexes()));
        Self { reconcilers, cache }
    }

    fn watch(&mut self, now: Time, event: WatchEvent) {
        self.cache.apply_each(now, event, |cache, delta| {
            let kind = delta.key.kind;
            for reconciler in &self.reconcilers {
                if reconciler.kinds().contains(&kind) || reconciler.hears_of().contains(&kind) {
                    affected(&**reconciler, cache, &delta);
                }
            }
        });
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    machine: ControllerManager,
    witness: Witness,
    queue: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    rng: rand_chacha::ChaCha8Rng,
    watch_due: BTreeMap<Kind, Time>,
    dead: BTreeSet<String>,
    pub(crate) api: Api,
    pub(crate) fate: Fate,
    /// Calls that are lost, in a hundred.
    loss_percent: u32,
    /// Writes by the controllers, in order, without events.
    pub(crate) log: Vec<String>,
    pub(crate) events: Vec<String>,
    recorder: Recorder,
    /// Thousandths of a core that the ready pods of each selector use together.
    pub(crate) load_milli: i64,
    pub(crate) last_write: Time,
    pub(crate) check: Check,
    /// Calls that the controllers have made, the one at which they died among them.
    pub(crate) calls: usize,
    pub(crate) crash: Option<Crash>,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, loss_percent: u32) -> Self {
        let mut world = Self {
            store: Store { now: START, ..Store::default() },
            queue: BTreeMap::new(),
            sequence: 0,
            rng: RngTree::new(seed).rng("world"),
            watch_due: BTreeMap::new(),
            dead: BTreeSet::new(),
            api: Api::Up,
            fate: Fate::Runs,
            loss_percent,
            log: Vec::new(),
            events: Vec::new(),
            recorder: Recorder::default(),
            load_milli: 0,
            last_write: START,
            check: |_| {},
            machine: controllers(),
            witness: Witness::new(),
            calls: 0,
            crash: None,
        };
        for kind in world.machine.kinds() {
            let list = WatchEvent::Replaced { kind, objects: vec![], revision: Revision(0) };
            world.push(START, Due::Input(ApiInput::Watch(list)));
        }
        for name in ["default", "kube-node-lease"] {
            world.create(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            );
        }
        for i in 0..nodes {
            world.add_node(&format!("node-{i}"));
        }
        world
    }

    fn push(&mut self, at: Time, due: Due) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), due);
    }

    fn delay(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(ms))
    }

    fn add_node(&mut self, name: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
        self.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {}}));
        self.push(self.store.now, Due::Heartbeat(name.to_owned()));
    }

    pub(crate) fn kill_node(&mut self, name: &str) {
        self.dead.insert(name.to_owned());
    }

    pub(crate) fn revive_node(&mut self, name: &str) {
        self.dead.remove(name);
        self.push(self.store.now, Due::Heartbeat(name.to_owned()));
        // The kubelet ends what was to end meanwhile.
        let ends = |object: &&Object| {
            object.get::<Pod>().is_some_and(|pod| pod.node() == name)
                && meta::is_terminating(object.meta())
        };
        let keys: Vec<Key> = self.store.kind(Kind::Pod).filter(ends).map(Object::key).collect();
        for key in keys {
            let at = self.store.now + self.delay(100..3000);
            self.push(at, Due::End(key));
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write objects in place")]
    pub(crate) fn create(&mut self, value: Value) -> Key {
        let object = codec::decode_any(&serde_json::to_vec(&value).unwrap()).unwrap();
        let key = object.key();
        self.carry_out(Request::Create(object)).unwrap();
        key
    }

    /// Changes an object's spec and metadata as a user does.
    pub(crate) fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let generation = |v: &Value| v["metadata"]["generation"].as_i64().unwrap_or(0);
        let _ = self.store.edit(key, None, |v| {
            let spec = v["spec"].clone();
            change(v);
            if v["spec"] != spec {
                v["metadata"]["generation"] = (generation(v) + 1).into();
            }
        });
        self.publish();
    }

    pub(crate) fn delete(&mut self, key: &Key, propagation: Option<api::Propagation>) {
        let request = Request::Delete {
            key: key.clone(),
            uid: None,
            revision: None,
            grace_seconds: None,
            propagation,
        };
        self.carry_out(request).unwrap();
    }

    pub(crate) fn value(&self, key: &Key) -> Value {
        self.store.get(key).map(codec::to_value).unwrap_or_default()
    }

    pub(crate) fn count(&self, kind: Kind, namespace: &str) -> usize {
        self.store.kind(kind).filter(|o| &*o.key().namespace == namespace).count()
    }

    /// Pods that count as replicas.
    pub(crate) fn active_pods(&self) -> Vec<&Pod> {
        let pods = self.store.kind(Kind::Pod).filter_map(Object::get::<Pod>);
        pods.filter(|p| pods::is_active(p)).collect()
    }

    fn carry_out(&mut self, request: Request) -> Result<api::Reply, ApiError> {
        if let Request::List { kind: Kind::PodMetrics, namespace, selector } = &request {
            return Ok(api::Reply::Objects(self.measure(namespace, selector)));
        }
        let reply = self.store.request(request);
        self.publish();
        reply
    }

    /// What pods use: each an equal part of the load.
    fn measure(&self, namespace: &str, selector: &str) -> Vec<Object> {
        let selector = api::selector::Selector::parse(selector).unwrap();
        let pods: Vec<&Pod> = self
            .active_pods()
            .into_iter()
            .filter(|p| p.metadata.namespace.as_deref() == Some(namespace) && pods::is_ready(p))
            .filter(|p| selector.matches(p.metadata.labels.as_ref()))
            .collect();
        let each = self.load_milli / i64::try_from(pods.len().max(1)).unwrap();
        let at = self.store.now.to_meta();
        let measured = pods.iter().map(|pod| {
            let value = json!({"metadata": {"name": pod.metadata.name, "namespace": namespace},
                "timestamp": at, "window": "0s", "containers": [{"name": "c",
                    "usage": {"cpu": format!("{each}m")}}]});
            codec::decode_value(Kind::PodMetrics, &value).unwrap()
        });
        measured.collect()
    }

    /// Sends the news to the controllers, late, and lets the nodes and the scheduler act on it.
    fn publish(&mut self) {
        let news = std::mem::take(&mut self.store.news);
        for (kind, event) in news {
            let lag = self.delay(0..300);
            let due = self.watch_due.get(&kind).copied().unwrap_or_default();
            let due = due.max(self.store.now + lag);
            self.watch_due.insert(kind, due);
            if let WatchEvent::Changed(object) = &event
                && let Some(pod) = object.get::<Pod>()
            {
                self.act_on(&object.key(), pod);
            }
            if let WatchEvent::Changed(Object::Node(node)) = &event
                && node.metadata.annotations.iter().flatten().any(|(_, v)| v == LOCAL_REMOVE)
            {
                let at = self.store.now + self.delay(10..2000);
                self.push(at, Due::Clean(node.metadata.name.clone().unwrap()));
            }
            self.push(due, Due::Input(ApiInput::Watch(event)));
        }
        let check = self.check;
        check(self);
    }

    fn act_on(&mut self, key: &Key, pod: &Pod) {
        let node = pod.node().to_owned();
        let at = |world: &mut Self, ms| world.store.now + world.delay(ms);
        if node.is_empty() {
            if !meta::is_terminating(&pod.metadata) {
                let at = at(self, 1..200);
                self.push(at, Due::Schedule(key.clone()));
            }
        } else if meta::is_terminating(&pod.metadata) {
            let at = at(self, 100..3000);
            self.push(at, Due::End(key.clone()));
        } else if pods::phase(pod) == "Pending" {
            let at = at(self, 200..4000);
            self.push(at, Due::Start(key.clone()));
        }
    }

    fn is_dead_node_of(&self, key: &Key) -> bool {
        let pod = self.store.get(key).and_then(Object::get::<Pod>);
        pod.is_some_and(|p| self.dead.contains(p.node()))
    }

    fn due(&mut self, due: Due) {
        match due {
            Due::Input(input) => self.step(input),
            Due::Schedule(key) => self.schedule(&key),
            Due::Start(key) if self.is_dead_node_of(&key) => {}
            Due::Start(key) => {
                let at = json!(self.store.now.to_meta());
                let ip = format!("10.0.0.{}", fnv64(key.path().as_bytes()) % 250 + 1);
                let (phase, ready, exit_code) = match self.fate {
                    Fate::Runs => ("Running", "True", None),
                    Fate::NeverReady => ("Running", "False", None),
                    Fate::Fails => ("Failed", "False", Some(1)),
                    Fate::Succeeds => ("Succeeded", "False", Some(0)),
                };
                let _ = self.store.edit(&key, None, |v| {
                    v["status"] = json!({"phase": phase, "startTime": at,
                        "podIP": ip, "podIPs": [{"ip": ip}],
                        "conditions": [{"type": "Ready", "status": ready,
                            "lastTransitionTime": at}]});
                    if let Some(code) = exit_code {
                        v["status"]["containerStatuses"] = json!([{"name": "c", "image": "",
                            "imageID": "", "ready": false, "restartCount": 0,
                            "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]);
                    }
                });
                self.publish();
            }
            Due::End(key) if self.is_dead_node_of(&key) => {}
            Due::End(key) => {
                let _ = self.store.request(Request::Delete {
                    key,
                    uid: None,
                    revision: None,
                    grace_seconds: Some(0),
                    propagation: None,
                });
                self.publish();
            }
            Due::Heartbeat(node) => self.heartbeat(&node),
            Due::Clean(node) if self.dead.contains(&node) => {}
            Due::Clean(node) => {
                let _ = self.store.edit(&Key::cluster(Kind::Node, &node), None, |v| {
                    let annotations = v["metadata"]["annotations"].as_object_mut();
                    for value in annotations.into_iter().flat_map(|a| a.values_mut()) {
                        if value == LOCAL_REMOVE {
                            *value = LOCAL_REMOVED.into();
                        }
                    }
                });
                self.publish();
            }
        }
    }

    fn schedule(&mut self, key: &Key) {
        let Some(pod) = self.store.get(key).and_then(Object::get::<Pod>) else { return };
        if !pod.node().is_empty() {
            return;
        }
        let uid = pod.metadata.uid.clone().unwrap();
        let claims = claims_of(pod);
        let tie = nodes::target(pod).map(str::to_owned);
        let named = |n: &&Node| tie.is_none() || tie == n.metadata.name;
        let fits =
            |n: &&Node| n.spec.as_ref().is_none_or(|s| s.taints.as_ref().is_none_or(Vec::is_empty));
        let nodes: Vec<String> = self
            .store
            .kind(Kind::Node)
            .filter_map(Object::get::<Node>)
            .filter(|n| named(n) && fits(n))
            .filter_map(|n| n.metadata.name.clone())
            .collect();
        if nodes.is_empty() {
            let at = self.store.now + Duration::from_secs(1);
            self.push(at, Due::Schedule(key.clone()));
            return;
        }
        let mut node = nodes[self.rng.random_range(0..nodes.len())].clone();
        for claim in claims {
            let claim = Key::new(Kind::PersistentVolumeClaim, &key.namespace, &claim);
            let Some(there) = self.folder_of(&claim, &node) else {
                let at = self.store.now + Duration::from_millis(500);
                return self.push(at, Due::Schedule(key.clone()));
            };
            node = there;
        }
        let _ = self.carry_out(Request::Bind { pod: key.clone(), uid, node });
    }

    /// On which node the volume of a claim is; one that is not bound is told to be on `node`.
    fn folder_of(&mut self, claim: &Key, node: &str) -> Option<String> {
        let value = self.value(claim);
        if value["status"]["phase"] == "Bound" {
            let volume = value["spec"]["volumeName"].as_str()?;
            let volume = self.value(&Key::cluster(Kind::PersistentVolume, volume));
            return Some(volume["metadata"]["annotations"]["kprov.io/node"].as_str()?.to_owned());
        }
        if !value.is_null() && value["metadata"]["annotations"][SELECTED_NODE].is_null() {
            let _ = self.store.edit(claim, None, |v| {
                v["metadata"]["annotations"][SELECTED_NODE] = node.into();
            });
            self.publish();
        }
        None
    }

    fn heartbeat(&mut self, node: &str) {
        if self.dead.contains(node) {
            return;
        }
        let at = json!(self.store.now.to_meta());
        let lease = Key::new(Kind::Lease, "kube-node-lease", node);
        let now = json!(self.store.now.to_micro());
        let _ = self.store.edit(&lease, None, |v| v["spec"]["renewTime"] = now);
        let key = Key::cluster(Kind::Node, node);
        let ready = self.value(&key)["status"]["conditions"][0]["status"] == "True";
        if !ready {
            let _ = self.store.edit(&key, None, |v| {
                v["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                    "lastHeartbeatTime": at, "lastTransitionTime": at}]);
            });
        }
        self.publish();
        let next = self.store.now + Duration::from_secs(10);
        self.push(next, Due::Heartbeat(node.to_owned()));
    }

    fn step(&mut self, input: ApiInput) {
        // What runs to a crash is a run that was witnessed without one.
        if let ApiInput::Watch(event) = &input
            && self.crash.is_none()
        {
            self.witness.watch(self.store.now, event.clone());
        }
        let mut out = Vec::new();
        self.machine.step(self.store.now, input, &mut out);
        for effect in out {
            match effect {
                ApiEffect::Call { id, request } => {
                    if self.call(id, request) {
                        self.restart();
                        return;
                    }
                }
                ApiEffect::Record(report) => {
                    if let Request::Create(_) = self.recorder.write(&report) {
                        let Record { regarding, reason, message, .. } = &report.record;
                        let name = &regarding.name;
                        self.events.push(format!("{name} {reason} {message}"));
                    }
                }
            }
        }
    }

    /// The controllers start anew: what they knew is gone, and so is what was on its way to them.
    fn restart(&mut self) {
        self.machine = controllers();
        self.witness = Witness::new();
        self.recorder = Recorder::default();
        self.queue.retain(|_, due| !matches!(due, Due::Input(_)));
        let revision = Revision(self.store.revision);
        for kind in self.machine.kinds() {
            let objects = self.store.kind(kind).cloned().collect();
            let due = self.store.now + self.delay(0..300);
            self.watch_due.insert(kind, due);
            let list = WatchEvent::Replaced { kind, objects, revision };
            self.push(due, Due::Input(ApiInput::Watch(list)));
        }
    }

    /// Carries out a call; whether the controllers die at it.
    fn call(&mut self, id: CallId, request: Request) -> bool {
        let now = self.store.now;
        self.calls += 1;
        if self.crash == Some(Crash::Before(self.calls)) {
            return true;
        }
        self.log.push(format!("{} {}", (now.0 - START.0) / 1_000_000, short(&request)));
        if request.writes().is_some() {
            self.last_write = now;
        }
        let lost = || Err(ApiError::Unknown("lost".into()));
        let is_pod = matches!(&request, Request::Create(Object::Pod(_)));
        let result = match self.rng.random_range(0..200) {
            _ if self.api == Api::Down => Err(ApiError::Unreachable("refused".into())),
            _ if self.api == Api::RefusesPods && is_pod => {
                Err(Status::forbidden(Kind::Pod, "x", "exceeded quota").into())
            }
            n if n < self.loss_percent => lost(),
            n if n < 2 * self.loss_percent => {
                let _ = self.carry_out(request);
                lost()
            }
            _ => self.carry_out(request),
        };
        let at = now + self.delay(0..20);
        self.push(at, Due::Input(ApiInput::Reply { id, result }));
        self.crash == Some(Crash::After(self.calls))
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.store.now + duration;
        loop {
            let next = self.queue.first_key_value().map(|(key, _)| key.0);
            let wake = self.machine.wake_at().map(|at| at.max(self.store.now));
            let at = [next, wake].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.store.now = self.store.now.max(at);
            if next == Some(at) {
                let (_, due) = self.queue.pop_first().unwrap();
                self.due(due);
            } else {
                self.step(ApiInput::Wake);
            }
        }
        self.store.now = end;
    }

    pub(crate) fn run_secs(&mut self, secs: u64) {
        self.run(Duration::from_secs(secs));
    }

    /// Runs until the controllers have written nothing for half a minute.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            self.run_secs(5);
            if self.store.now.since(self.last_write) >= Duration::from_secs(30) {
                return;
            }
        }
        let tail = self.log.len().saturating_sub(40);
        panic!("no rest: {:#?}", &self.log[tail..]);
    }
}

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod storage;
#[cfg(test)]
mod tests;
