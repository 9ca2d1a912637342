//! [`Lean`]: pods and nodes without what a scheduler never looks at, and what many have in common
//! held once.
//!
//! What comes from an API server is decoded anew for each object, and a pod's spec and status take
//! some kilobytes each, most of it for its kubelet. Nothing that a decision depends on is left out.

use std::collections::BTreeMap;

use api::hash::fnv64;
use api::{ApiObject, Object, Pod, Shared};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeStatus, PodCondition, PodSpec, PodStatus, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::{Cache, WatchEvent};
use serde::Serialize;

use crate::pod_info::DISRUPTION_TARGET;

/// Unused values are not looked for below this number.
const SWEEP_MIN: usize = 1024;

/// What is left of objects, and the specs and statuses that they share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lean {
    specs: Pool<PodSpec>,
    statuses: Pool<PodStatus>,
}

impl Lean {
    /// The news without what is of no use; `cache` holds what was left of former news.
    pub(crate) fn event(&mut self, cache: &Cache, event: WatchEvent) -> WatchEvent {
        match event {
            WatchEvent::Changed(object) => WatchEvent::Changed(self.object(cache, object)),
            WatchEvent::Replaced { kind, objects, revision } => {
                let objects = objects.into_iter().map(|o| self.object(cache, o)).collect();
                WatchEvent::Replaced { kind, objects, revision }
            }
            other => other,
        }
    }

    fn object(&mut self, cache: &Cache, object: Object) -> Object {
        match &object {
            Object::Pod(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                self.pod(pod, cache.get(namespace, name)).into_object()
            }
            Object::Node(node) => lean_node(node).into_object(),
            _ => object,
        }
    }

    /// What is left of a pod; `old` is what was left of it before.
    fn pod(&mut self, pod: &Pod, old: Option<&Pod>) -> Pod {
        let spec = pod
            .spec
            .as_deref()
            .map(|spec| self.specs.share(lean_spec(spec), old.and_then(|old| old.spec.as_ref())));
        let status = pod
            .status
            .as_deref()
            .map(lean_status)
            .map(|status| self.statuses.share(status, old.and_then(|old| old.status.as_ref())));
        Pod { metadata: lean_meta(&pod.metadata), spec, node_name: pod.node_name.clone(), status }
    }
}

/// Values that are held once, for as long as something uses them.
#[derive(Clone, Debug)]
struct Pool<T> {
    /// By a hash of their JSON.
    known: BTreeMap<u64, Vec<Shared<T>>>,
    len: usize,
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), len: 0, sweep_at: SWEEP_MIN }
    }
}

impl<T: PartialEq + Serialize> Pool<T> {
    /// The value as others have it, first of all as `old` is.
    fn share(&mut self, value: T, old: Option<&Shared<T>>) -> Shared<T> {
        if let Some(same) = old.filter(|old| ***old == value) {
            return same.clone();
        }
        // Without a hash of their own such values would all be in one place, and still be right.
        let hash = serde_json::to_vec(&value).map_or(0, |json| fnv64(&json));
        let alike = self.known.get(&hash).map(Vec::as_slice).unwrap_or_default();
        if let Some(same) = alike.iter().find(|known| ***known == value) {
            return same.clone();
        }
        self.sweep();
        let value = Shared::new(value);
        self.known.entry(hash).or_default().push(value.clone());
        self.len += 1;
        value
    }

    fn sweep(&mut self) {
        if self.len < self.sweep_at {
            return;
        }
        self.known.retain(|_, alike| {
            alike.retain(Shared::is_shared);
            !alike.is_empty()
        });
        self.len = self.known.values().map(Vec::len).sum();
        self.sweep_at = SWEEP_MIN.max(2 * self.len);
    }
}

/// What `kubectl apply` keeps on an object for itself: the whole of it once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Names, labels, annotations and what says whose an object is.
fn lean_meta(full: &ObjectMeta) -> ObjectMeta {
    let annotations = full.annotations.iter().flatten().filter(|(key, _)| *key != LAST_APPLIED);
    let annotations: BTreeMap<_, _> = annotations.map(|(k, v)| (k.clone(), v.clone())).collect();
    ObjectMeta {
        annotations: Some(annotations).filter(|map| !map.is_empty()),
        deletion_timestamp: full.deletion_timestamp.clone(),
        labels: full.labels.clone(),
        name: full.name.clone(),
        namespace: full.namespace.clone(),
        owner_references: full.owner_references.clone(),
        resource_version: full.resource_version.clone(),
        uid: full.uid.clone(),
        ..ObjectMeta::default()
    }
}

fn lean_spec(full: &PodSpec) -> PodSpec {
    PodSpec {
        affinity: full.affinity.clone(),
        containers: full.containers.iter().map(lean_container).collect(),
        init_containers: full
            .init_containers
            .as_ref()
            .map(|list| list.iter().map(lean_container).collect()),
        node_selector: full.node_selector.clone(),
        overhead: full.overhead.clone(),
        preemption_policy: full.preemption_policy.clone(),
        priority: full.priority,
        resources: full.resources.clone(),
        scheduler_name: full.scheduler_name.clone(),
        scheduling_gates: full.scheduling_gates.clone(),
        tolerations: full.tolerations.clone(),
        topology_spread_constraints: full.topology_spread_constraints.clone(),
        volumes: full
            .volumes
            .as_ref()
            .map(|list| list.iter().filter(|v| !is_of_the_node(v)).cloned().collect()),
        ..PodSpec::default()
    }
}

fn lean_container(full: &Container) -> Container {
    Container {
        name: full.name.clone(),
        image: full.image.clone(),
        ports: full
            .ports
            .as_ref()
            .map(|ports| ports.iter().filter(|port| port.host_port.is_some()).cloned().collect()),
        resources: full.resources.clone(),
        restart_policy: full.restart_policy.clone(),
        ..Container::default()
    }
}

/// Whether any node can make the volume out of itself and the API. The names of some are made up
/// for each pod.
const fn is_of_the_node(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}

fn lean_status(full: &PodStatus) -> PodStatus {
    let of_use = |c: &&PodCondition| {
        c.type_ == DISRUPTION_TARGET || (c.type_ == "PodScheduled" && c.status == "False")
    };
    PodStatus {
        conditions: full
            .conditions
            .as_ref()
            .map(|list| list.iter().filter(of_use).cloned().collect::<Vec<_>>())
            .filter(|list| !list.is_empty()),
        nominated_node_name: full.nominated_node_name.clone(),
        phase: full.phase.clone(),
        start_time: full.start_time.clone(),
        ..PodStatus::default()
    }
}

fn lean_node(full: &Node) -> Node {
    Node {
        metadata: lean_meta(&full.metadata),
        spec: full.spec.clone(),
        status: full.status.as_ref().map(|status| NodeStatus {
            allocatable: status.allocatable.clone(),
            capacity: status.capacity.clone().filter(|_| status.allocatable.is_none()),
            images: status.images.clone(),
            ..NodeStatus::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use api::{Kind, Revision, Time, codec};
    use serde_json::{Value, json};

    use super::*;
    use crate::node_info::NodeInfo;
    use crate::pod_info::{Classes, PodInfo, Standing};
    use crate::volumes::ClaimUse;

    /// A pod with all that a decision can depend on, and much that it does not.
    fn pod(number: usize) -> Value {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}});
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p-{number}"), "namespace": "d", "uid": format!("u{number}"),
                "resourceVersion": "7", "labels": {"app": "a"},
                "annotations": {"note": "n", LAST_APPLIED: "{}"},
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
                    "uid": "r", "controller": true}]},
            "spec": {
                "schedulerName": "other", "priority": 7, "preemptionPolicy": "Never",
                "schedulingGates": [{"name": "g"}],
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "overhead": {"cpu": "10m"},
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "a"}}}],
                "affinity": {
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [term]},
                    "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 3, "preference": {"matchExpressions": [
                            {"key": "disk", "operator": "Exists"}]}}]}},
                "initContainers": [{"name": "side", "image": "s:1", "restartPolicy": "Always",
                    "ports": [{"containerPort": 80, "hostPort": 8080}],
                    "resources": {"requests": {"cpu": "50m"}}}],
                "containers": [{"name": "c", "image": "i:1", "command": ["run"],
                    "env": [{"name": "E", "value": "v"}],
                    "ports": [{"containerPort": 80}, {"containerPort": 53, "hostPort": 53,
                        "protocol": "UDP", "hostIP": "10.0.0.1"}],
                    "resources": {"requests": {"cpu": "100m", "example.com/gpu": "1"}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": format!("kube-api-access-{number}"), "projected": {"sources": []}},
                    {"name": "t", "emptyDir": {}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                "nominatedNodeName": "n", "podIP": format!("10.0.0.{number}"),
                "containerStatuses": [{"name": "c", "image": "i:1", "imageID": "x", "ready": true,
                    "restartCount": 0}],
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "PodScheduled", "status": "False", "message": "no room"},
                    {"type": DISRUPTION_TARGET, "status": "True",
                        "reason": "PreemptionByScheduler"}]}})
    }

    fn typed<T: ApiObject + Clone>(value: &Value) -> T {
        codec::decode_any(value.to_string().as_bytes()).unwrap().get::<T>().unwrap().clone()
    }

    /// All that the scheduler finds in a pod.
    fn found(pod: &Pod) -> String {
        let mut classes = Classes::default();
        let spec = pod.spec.as_ref().unwrap();
        let load = classes.load(pod, spec);
        let presence = classes.presence(pod, spec);
        let (standing, claims) = (Standing::of(pod), ClaimUse::of(pod));
        let info = PodInfo::of(pod, &mut classes);
        assert!(info.is_some() && !claims.is_empty());
        format!("{info:#?} {load:#?} {presence:#?} {standing:#?} {claims:#?}")
    }

    #[test]
    fn decisions_find_the_same_in_what_is_left() {
        let whole: Pod = typed(&pod(1));
        let lean = Lean::default().pod(&whole, None);
        assert_eq!(found(&lean), found(&whole));
        assert_eq!(lean.metadata.annotations.map(|map| map.len()), Some(1));
        let size = |pod: &Pod| codec::encode(&pod.clone().into_object()).len();
        let left = Lean::default().pod(&whole, None);
        assert!(size(&left) < size(&whole) && lean.metadata.managed_fields.is_none());
    }

    #[test]
    fn nodes_look_the_same() {
        let whole: Node = typed(&json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "8", "pods": "10"},
                "conditions": [{"type": "Ready", "status": "True"}],
                "images": [{"names": ["i:1"], "sizeBytes": 7}]}}));
        let lean = lean_node(&whole);
        let info = |node: &Node| {
            let mut info = NodeInfo::default();
            info.set(node);
            info
        };
        assert_eq!(info(&lean), info(&whole));
        assert!(lean.status.unwrap().conditions.is_none());
        let mut allocatable = whole.clone();
        let status = allocatable.status.as_mut().unwrap();
        status.allocatable = status.capacity.clone();
        assert_eq!(info(&lean_node(&allocatable)), info(&allocatable));
    }

    #[test]
    fn equal_specs_are_held_once_and_let_go() {
        let mut lean = Lean::default();
        let mut cache = Cache::default();
        let hear = |lean: &mut Lean, cache: &mut Cache, value: &Value| {
            let object = codec::decode_any(value.to_string().as_bytes()).unwrap();
            let event = lean.event(cache, WatchEvent::Changed(object));
            cache.apply(Time::ZERO, event);
        };
        for number in 0..10 {
            hear(&mut lean, &mut cache, &pod(number));
        }
        let first = |cache: &Cache| cache.get::<Pod>("d", "p-0").cloned().unwrap();
        let (one, other) = (first(&cache), cache.get::<Pod>("d", "p-9").cloned().unwrap());
        assert!(one.spec.as_ref().unwrap().is_same(other.spec.as_ref().unwrap()));
        assert!(one.status.as_ref().unwrap().is_same(other.status.as_ref().unwrap()));
        assert_eq!((lean.specs.len, lean.statuses.len), (1, 1));
        // Another status is news, and the spec stays the one that there was.
        let mut later = pod(0);
        later["metadata"]["resourceVersion"] = json!("8");
        later["status"]["phase"] = json!("Succeeded");
        hear(&mut lean, &mut cache, &later);
        let now = first(&cache);
        assert_eq!(now.status.as_ref().unwrap().phase.as_deref(), Some("Succeeded"));
        assert!(now.spec.as_ref().unwrap().is_same(one.spec.as_ref().unwrap()));
        drop((one, other, now));
        // Specs that nothing uses any more are let go.
        for priority in 0..3 * SWEEP_MIN {
            let mut other = pod(0);
            other["metadata"]["resourceVersion"] = json!((9 + priority).to_string());
            other["spec"]["priority"] = json!(100 + priority);
            hear(&mut lean, &mut cache, &other);
            assert!(lean.specs.len <= SWEEP_MIN);
        }
        let (kind, revision) = (Kind::Pod, Revision(1 << 40));
        let none = WatchEvent::Replaced { kind, objects: Vec::new(), revision };
        cache.apply(Time::ZERO, lean.event(&cache, none));
        assert_eq!(cache.objects(Kind::Pod).count(), 0);
    }
}
