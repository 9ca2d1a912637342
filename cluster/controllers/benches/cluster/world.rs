//! A store that answers at once and tells of every change at once, typed and fast: as much of
//! the API as the controller manager can tell.

use std::collections::{BTreeMap, VecDeque};

use api::{
    ApiError, ApiObject, Key, Kind, Object, Pod, Reply, Request, Revision, Subresource, Time,
};
use api::{codec, meta};
use controllers::Config;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, PodCondition, PodIP};
use machine::{ApiEffect, ApiInput, ControllerManager, Machine, WatchEvent};
use serde_json::{Value, json};

/// What the controller manager was told, and when.
pub(crate) type Told = (Time, ApiInput);

/// A manager of all controllers.
pub(crate) fn manager() -> ControllerManager {
    let config = Config {
        cluster_cidr: Some("10.0.0.0/8".parse().expect("a range")),
        node_cidr_mask_size: 25,
        ..Config::default()
    };
    ControllerManager::new(controllers::all(config), None)
}

pub(crate) struct World {
    machine: ControllerManager,
    objects: BTreeMap<Key, Object>,
    revision: u64,
    now: Time,
    inputs: VecDeque<ApiInput>,
    /// Pods that are to be bound and started.
    waiting: VecDeque<Key>,
    nodes: usize,
    pub(crate) told: Vec<Told>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            machine: manager(),
            objects: BTreeMap::new(),
            revision: 1,
            now: Time::from_secs(1_000_000_000),
            inputs: VecDeque::new(),
            waiting: VecDeque::new(),
            nodes: 0,
            told: Vec::new(),
        };
        for kind in world.machine.kinds() {
            let list = WatchEvent::Replaced { kind, objects: vec![], revision: Revision(1) };
            world.inputs.push_back(ApiInput::Watch(list));
        }
        world.create(&json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "default"}}));
        world.settle();
        world
    }

    fn create(&mut self, value: &Value) {
        let bytes = serde_json::to_vec(value).expect("JSON");
        let object = codec::decode_any(&bytes).expect("a valid object");
        self.write(object);
    }

    fn write(&mut self, mut object: Object) -> Object {
        self.revision += 1;
        let now = self.now.to_meta();
        let metadata = object.meta_mut();
        metadata.resource_version = Some(self.revision.to_string());
        if metadata.uid.is_none() {
            metadata.uid = Some(format!("00000000-0000-4000-8000-{:012x}", self.revision));
            metadata.creation_timestamp = Some(now);
            metadata.generation = Some(1);
            if object.kind() == Kind::Pod {
                self.waiting.push_back(object.key());
            }
        }
        self.objects.insert(object.key(), object.clone());
        self.inputs.push_back(ApiInput::Watch(WatchEvent::Changed(object.clone())));
        object
    }

    fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.objects.remove(key);
        let revision = Revision(self.revision);
        self.inputs.push_back(ApiInput::Watch(WatchEvent::Deleted { key: key.clone(), revision }));
    }

    fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) => {
                let key = object.key();
                if self.objects.contains_key(&key) {
                    return Err(api::Status::already_exists(key.kind, &key.name).into());
                }
                Ok(Reply::Object(self.write(object)))
            }
            Request::Update { mut object, subresource } => {
                let key = object.key();
                let Some(stored) = self.objects.get(&key) else {
                    return Err(api::Status::not_found(key.kind, &key.name).into());
                };
                if stored.revision() != object.revision() {
                    return Err(api::Status::modified(key.kind, &key.name).into());
                }
                if subresource == Some(Subresource::Status) {
                    let generation = stored.meta().generation;
                    object.meta_mut().generation = generation;
                } else if matches!(key.kind, Kind::Deployment | Kind::ReplicaSet) {
                    let generation = stored.meta().generation.unwrap_or(0) + 1;
                    object.meta_mut().generation = Some(generation);
                }
                Ok(Reply::Object(self.write(object)))
            }
            Request::Delete { key, .. } => {
                self.remove(&key);
                Ok(Reply::Done(Revision(self.revision)))
            }
            Request::ReadRevision(kind) => {
                let revision = Revision(self.revision);
                let progress = WatchEvent::Progress { kind, revision };
                self.inputs.push_back(ApiInput::Watch(progress));
                Ok(Reply::Done(revision))
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn step(&mut self, input: ApiInput) {
        self.told.push((self.now, input.clone()));
        let mut out = Vec::new();
        self.machine.step(self.now, input, &mut out);
        for effect in out {
            let ApiEffect::Call { id, request } = effect else { continue };
            let result = self.answer(request);
            self.inputs.push_back(ApiInput::Reply { id, result });
        }
    }

    /// Tells everything that happened, and what happens for that.
    fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.step(input);
        }
    }

    /// Nodes register with a lease, and report ready.
    pub(crate) fn add_nodes(&mut self, nodes: usize) {
        self.nodes = nodes;
        for i in 0..nodes {
            let name = format!("node-{i:06}");
            let zone = format!("zone-{}", i % 3);
            self.create(&json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
                    "topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
            self.create(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {}}));
            self.settle();
            self.edit::<Node>(&Key::cluster(Kind::Node, &name), |node| {
                node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
                    type_: "Ready".to_owned(),
                    status: "True".to_owned(),
                    ..NodeCondition::default()
                }]);
            });
            self.settle();
        }
    }

    fn edit<T: ApiObject>(&mut self, key: &Key, change: impl FnOnce(&mut T)) {
        let Some(mut object) = self.objects.get(key).and_then(Object::get::<T>).cloned() else {
            return;
        };
        change(&mut object);
        self.write(object.into_object());
    }

    /// Renews the leases of all nodes but the first `silent` ones every ten seconds.
    pub(crate) fn renew_leases(&mut self, nodes: usize, silent: usize, secs: u64) {
        let end = self.now.0 + secs * 1_000_000_000;
        let mut next = self.now.0 + 10_000_000_000;
        while next <= end {
            while let Some(at) = self.machine.wake_at().filter(|at| at.0 < next) {
                self.now = self.now.max(at);
                self.step(ApiInput::Wake);
                self.settle();
            }
            self.now = Time(next);
            for i in silent..nodes {
                let key = Key::new(Kind::Lease, "kube-node-lease", &format!("node-{i:06}"));
                let now = self.now.to_micro();
                self.edit::<Lease>(&key, |lease| {
                    lease.spec.get_or_insert_default().renew_time = Some(now);
                });
                self.settle();
            }
            next += 10_000_000_000;
        }
    }

    /// The whole life of pods that nobody owns, each stage for all of them.
    pub(crate) fn bare_pods(&mut self, pods: usize) {
        for i in 0..pods {
            self.create(&json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("job-{i:06}"), "namespace": "default",
                    "labels": {"app": format!("job-{}", i % 100), "tier": "batch"}},
                "spec": {"containers": [{"name": "c", "image": "busybox"}]},
                "status": {"phase": "Pending"}}));
        }
        self.settle();
        let keys: Vec<Key> = self.waiting.drain(..).collect();
        for key in &keys {
            self.bind(key);
        }
        self.settle();
        for key in &keys {
            self.start(key);
        }
        self.settle();
        for key in &keys {
            let now = self.now.to_meta();
            self.edit::<Pod>(key, |pod| pod.metadata.deletion_timestamp = Some(now));
        }
        self.settle();
        for key in &keys {
            self.remove(key);
        }
        self.settle();
    }

    fn bind(&mut self, key: &Key) {
        let i = usize::try_from(self.revision).expect("few revisions") % self.nodes;
        let now = self.now.to_meta();
        self.edit::<Pod>(key, |pod| {
            pod.node_name = Some(format!("node-{i:06}").into());
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Pending".to_owned());
            status.conditions.get_or_insert_default().push(PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(now),
                ..PodCondition::default()
            });
        });
    }

    fn start(&mut self, key: &Key) {
        let now = self.now.to_meta();
        let ip = format!("10.{}.{}.1", self.revision % 250, self.revision / 250 % 250);
        self.edit::<Pod>(key, |pod| {
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Running".to_owned());
            status.pod_ip = Some(ip.clone());
            status.pod_ips = Some(vec![PodIP { ip }]);
            status.conditions.get_or_insert_default().push(PodCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(now),
                ..PodCondition::default()
            });
        });
    }

    /// Deployments in one namespace, and a service for each if asked for.
    pub(crate) fn deployments(&mut self, deployments: usize, replicas: usize, services: bool) {
        for i in 0..deployments {
            let name = format!("web-{i:05}");
            self.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name, "tier": "web"}},
                        "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}}));
            if services {
                self.create(&json!({"apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"clusterIP": "10.1.1.1", "selector": {"app": name},
                        "ports": [{"port": 80, "targetPort": 8080}]}}));
            }
            self.settle();
        }
    }

    /// The whole life of replica sets and their pods, pod by pod.
    pub(crate) fn replica_sets(&mut self, sets: usize, replicas: usize) {
        let names: Vec<String> = (0..sets).map(|i| format!("web-{i:05}")).collect();
        for name in &names {
            self.create(&json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name, "tier": "web"}},
                        "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}}));
            self.settle();
        }
        self.run_pods(1);
        for name in &names {
            self.remove(&Key::new(Kind::ReplicaSet, "default", name));
            self.settle();
        }
        assert!(self.objects.keys().all(|key| key.kind != Kind::Pod));
    }

    /// Binds and starts all pods that wait, so many at a time.
    pub(crate) fn run_pods(&mut self, at_a_time: usize) {
        while !self.waiting.is_empty() {
            let n = self.waiting.len().min(at_a_time);
            let keys: Vec<Key> = self.waiting.drain(..n).collect();
            for key in &keys {
                self.bind(key);
            }
            self.settle();
            for key in &keys {
                self.start(key);
            }
            self.settle();
        }
        let running = |o: &Object| {
            o.get::<Pod>().is_some_and(|p| {
                p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
                    && meta::controller_of(&p.metadata).is_some()
            })
        };
        assert!(self.objects.values().filter(|o| o.kind() == Kind::Pod).all(running));
    }
}
