//! A made-up cluster and history for the tests of checks: what a check must find wrong cannot be
//! had from a world that works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Request, Revision, Time, codec};
use machine::WatchEvent;
use scheduler::shadow::Difference;
use serde_json::{Value, json};

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::plan::{Component, Fault, NodeShape, Plan, PlannedNode, Settings};
use crate::world::{ProcessId, START, World};

/// Two schedulers, two controller managers and two nodes.
pub(crate) fn plan() -> Plan {
    let node = |name: &str| PlannedNode {
        name: name.to_owned(),
        shape: 0,
        joins: crate::span::Span::ZERO,
    };
    Plan {
        name: "made up".to_owned(),
        seed: 1,
        settings: Settings { schedulers: 2, controller_managers: 2, ..Settings::default() },
        shapes: vec![NodeShape::default()],
        nodes: vec![node("n1"), node("n2")],
        templates: Vec::new(),
        operations: Vec::new(),
        faults: Vec::new(),
    }
}

/// What is said of the cluster.
pub(crate) struct MadeUp {
    plan: Plan,
    processes: Vec<ProcessId>,
    now: Time,
    revision: Revision,
    objects: BTreeMap<Key, Object>,
    pub(crate) known: BTreeMap<(ProcessId, Key), Object>,
    pub(crate) placements: BTreeMap<String, BTreeSet<Key>>,
    pub(crate) running: BTreeMap<String, BTreeSet<String>>,
    pub(crate) at_rest: bool,
    pub(crate) differences: Vec<Difference>,
}

impl Cluster for MadeUp {
    fn now(&self) -> Time {
        self.now
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn object(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    fn objects(&self, kind: Kind) -> Box<dyn Iterator<Item = &Object> + '_> {
        Box::new(self.objects.values().filter(move |o| o.kind() == kind))
    }

    fn processes(&self) -> Vec<ProcessId> {
        self.processes.clone()
    }

    fn role(&self, process: ProcessId) -> Role {
        match process.index() {
            0 | 1 => Role::Scheduler,
            2 | 3 => Role::ControllerManager,
            _ => Role::Kubelet,
        }
    }

    fn component(&self, process: ProcessId) -> Component {
        let number = u16::try_from(process.index() % 2).unwrap();
        match self.role(process) {
            Role::Scheduler => Component::Scheduler(number),
            Role::ControllerManager => Component::ControllerManager(number),
            Role::Kubelet => Component::Kubelet(format!("n{}", number + 1)),
        }
    }

    fn is_at_rest(&self) -> bool {
        self.at_rest
    }

    fn known(&self, manager: ProcessId, key: &Key) -> Option<&Object> {
        self.known.get(&(manager, key.clone()))
    }

    fn all_known(&self, manager: ProcessId, kind: Kind) -> Option<Vec<&Object>> {
        let of_kind = |(p, k): &(ProcessId, Key)| *p == manager && k.kind == kind;
        Some(self.known.iter().filter(|(k, _)| of_kind(k)).map(|(_, o)| o).collect())
    }

    fn placements(&self, scheduler: ProcessId) -> Option<BTreeMap<String, BTreeSet<Key>>> {
        (scheduler == self.processes[0]).then(|| self.placements.clone())
    }

    fn compared(&self, scheduler: ProcessId) -> Option<(u64, &[Difference])> {
        (scheduler == self.processes[0]).then_some((7, &*self.differences))
    }

    fn running_pods(&self, node: &str) -> BTreeSet<String> {
        self.running.get(node).cloned().unwrap_or_default()
    }
}

/// A check and the history that it is told.
pub(crate) struct Case<C> {
    pub(crate) cluster: MadeUp,
    check: C,
    found: Vec<String>,
}

impl<C: Check> Case<C> {
    pub(crate) fn new(check: C) -> Self {
        Self::with_plan(check, plan())
    }

    pub(crate) fn with_plan(check: C, plan: Plan) -> Self {
        let world = World::with_checks(self::plan(), Vec::new()).unwrap();
        let cluster = MadeUp {
            plan,
            processes: world.processes().collect(),
            now: START,
            revision: Revision(1),
            objects: BTreeMap::new(),
            known: BTreeMap::new(),
            placements: BTreeMap::new(),
            running: BTreeMap::new(),
            at_rest: true,
            differences: Vec::new(),
        };
        Self { cluster, check, found: Vec::new() }
    }

    pub(crate) fn scheduler(&self) -> ProcessId {
        self.cluster.processes[0]
    }

    pub(crate) fn manager(&self) -> ProcessId {
        self.cluster.processes[2]
    }

    pub(crate) fn other_manager(&self) -> ProcessId {
        self.cluster.processes[3]
    }

    pub(crate) fn kubelet(&self) -> ProcessId {
        self.cluster.processes[4]
    }

    pub(crate) fn tell(&mut self, occurrence: &Occurrence<'_>) {
        self.check.observe(&self.cluster, occurrence, &mut self.found);
    }

    pub(crate) fn advance(&mut self, secs: u64) {
        self.cluster.now = self.cluster.now + Duration::from_secs(secs);
    }

    pub(crate) const fn revision(&self) -> Revision {
        self.cluster.revision
    }

    /// A write of anything: the object after it (with the next revision), or its removal.
    pub(crate) fn commit(
        &mut self,
        by: Option<ProcessId>,
        request: &Request,
        key: &Key,
        new: Option<Object>,
    ) {
        self.cluster.revision.0 += 1;
        let revision = self.cluster.revision;
        let new = new.map(|object| stamped(object, revision));
        let old = match &new {
            Some(object) => self.cluster.objects.insert(key.clone(), object.clone()),
            None => self.cluster.objects.remove(key),
        };
        self.tell(&Occurrence::Committed {
            by,
            request,
            key,
            old: old.as_ref(),
            new: new.as_ref(),
            revision,
        });
    }

    /// Creates or replaces an object, at whatever revision it is.
    pub(crate) fn put(&mut self, by: Option<ProcessId>, value: &Value) -> Object {
        let object = object(value);
        let key = object.key();
        let request = match self.cluster.objects.get(&key) {
            None => Request::Create(object.clone()),
            Some(old) => {
                let object = stamped(object.clone(), old.revision());
                Request::Update { object, subresource: None }
            }
        };
        self.commit(by, &request, &key, Some(object));
        self.cluster.objects[&key].clone()
    }

    /// Removes an object by a plain deletion.
    pub(crate) fn delete(&mut self, by: Option<ProcessId>, key: &Key) {
        self.commit(by, &deletion(key), key, None);
    }

    pub(crate) fn call(&mut self, by: ProcessId, request: &Request) {
        self.tell(&Occurrence::Called { by, request });
    }

    pub(crate) fn deliver(&mut self, to: ProcessId, event: &WatchEvent) {
        self.tell(&Occurrence::Delivered { to, event });
    }

    /// Delivers an object as it is stored, and lets controller managers know it.
    pub(crate) fn show(&mut self, to: ProcessId, key: &Key) {
        let object = self.cluster.objects[key].clone();
        self.deliver(to, &WatchEvent::Changed(object.clone()));
        self.cluster.known.insert((to, key.clone()), object);
    }

    pub(crate) fn fault(&mut self, fault: &Fault, begins: bool) {
        let occurrence =
            if begins { Occurrence::FaultBegan(fault) } else { Occurrence::FaultEnded(fault) };
        self.tell(&occurrence);
    }

    /// What was found since the last time.
    pub(crate) fn found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }

    /// What is found at rest.
    pub(crate) fn at_rest(&mut self) -> Vec<String> {
        self.check.at_rest(&self.cluster, &mut self.found);
        self.found()
    }

    /// Nothing was found.
    #[track_caller]
    pub(crate) fn is_right(&mut self) {
        assert_eq!(self.found(), Vec::<String>::new());
    }

    /// Exactly one thing was found, and its message has all of `words`.
    #[track_caller]
    pub(crate) fn is_wrong(&mut self, words: &[&str]) {
        one_with(&self.found(), words);
    }
}

/// Exactly one message, and it has all of `words`.
#[track_caller]
pub(crate) fn one_with(found: &[String], words: &[&str]) {
    assert_eq!(found.len(), 1, "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "{word:?} is not in {:?}", found[0]);
    }
}

fn stamped(mut object: Object, revision: Revision) -> Object {
    object.meta_mut().resource_version = Some(revision.to_string());
    object
}

/// Decodes an object.
pub(crate) fn object(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

/// The deletion that controllers ask for.
pub(crate) fn deletion(key: &Key) -> Request {
    Request::Delete {
        key: key.clone(),
        uid: None,
        revision: None,
        grace_seconds: None,
        propagation: None,
    }
}

/// The key of a pod in the namespace `d`.
pub(crate) fn pod_key(name: &str) -> Key {
    Key::new(Kind::Pod, "d", name)
}

/// A pod in the namespace `d` that asks for one CPU; its UID is `u-NAME`.
pub(crate) fn pod(name: &str, more: &Value) -> Value {
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"containers": [{"name": "c", "image": "app:1",
            "resources": {"requests": {"cpu": "1"}}}]}});
    merge(&mut value, more);
    value
}

/// A pod on a node, in a phase, ready when it runs.
pub(crate) fn placed(name: &str, node: &str, phase: &str) -> Value {
    let ready = if phase == "Running" { "True" } else { "False" };
    pod(
        name,
        &json!({"spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}}),
    )
}

/// A pod of the replica set `r` (UID `u-r`).
pub(crate) fn replica(name: &str, more: &Value) -> Value {
    let mut value = pod(
        name,
        &json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1",
        "kind": "ReplicaSet", "name": "r", "uid": "u-r", "controller": true}]}}),
    );
    merge(&mut value, more);
    value
}

/// A node with four CPUs and room for ten pods that is ready; its UID is `u-NAME`.
pub(crate) fn node(name: &str, more: &Value) -> Value {
    let mut value = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("u-{name}")},
        "status": {"allocatable": {"cpu": "4", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
    merge(&mut value, more);
    value
}

/// The replica set `r`, whose status is right for that many ready pods.
pub(crate) fn replica_set(replicas: i64, pods: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "r", "namespace": "d", "uid": "u-r", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "r"}}},
        "status": {"replicas": pods, "readyReplicas": pods, "observedGeneration": 1}})
}

/// The key of the replica set `r`.
pub(crate) fn replica_set_key() -> Key {
    Key::new(Kind::ReplicaSet, "d", "r")
}

/// Lays `more` over `value`; lists are replaced.
pub(crate) fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                merge(value.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (_, Value::Null) => {}
        (value, more) => *value = more.clone(),
    }
}

/// A pod on a node in a phase, of the controller of that kind and name (UID `u-NAME`).
pub(crate) fn owned(name: &str, node: &str, phase: &str, kind: &str, owner: &str) -> Value {
    let api_version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let mut value = placed(name, node, phase);
    value["metadata"]["ownerReferences"] = json!([{"apiVersion": api_version, "kind": kind,
        "name": owner, "uid": format!("u-{owner}"), "controller": true}]);
    value
}
