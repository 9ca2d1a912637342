//! Pods and nodes as the scheduler sees them: parsed once, compact, without the rest.

use std::collections::{BTreeMap, BTreeSet};

use api::selector::Selector;
use api::{Key, Time, meta};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use crate::resources::{Resources, requests, scored_requests};

/// A port of the host that a pod claims: protocol, address (`0.0.0.0` for all), number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The host address, `0.0.0.0` for all.
    pub address: String,
    /// The port number.
    pub port: i32,
}

impl HostPort {
    /// Whether two pods cannot both have these ports on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address == "0.0.0.0"
                || other.address == "0.0.0.0")
    }
}

/// One term of a node selector: requirements on labels and on the node's name.
#[derive(Clone, Debug)]
pub struct NodeTerm {
    labels: Selector,
    name: Selector,
    empty: bool,
}

impl NodeTerm {
    fn parse(term: &NodeSelectorTerm) -> Option<Self> {
        let (mut labels, mut name) = (Selector::default(), Selector::default());
        for r in term.match_expressions.iter().flatten() {
            labels.require(&r.key, &r.operator, r.values.as_deref().unwrap_or_default()).ok()?;
        }
        for r in term.match_fields.iter().flatten() {
            name.require(&r.key, &r.operator, r.values.as_deref().unwrap_or_default()).ok()?;
        }
        let empty = labels.is_everything() && name.is_everything();
        Some(Self { labels, name, empty })
    }

    /// Whether the node satisfies every requirement; a term without requirements matches none.
    pub fn matches(&self, node: &NodeInfo) -> bool {
        !self.empty
            && self.labels.matches(Some(&node.labels))
            && (self.name.is_everything() || self.name.matches(Some(&node.name_field)))
    }
}

/// A pod, as far as placing it needs.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// UID; a pod of the same name made later has another.
    pub uid: String,
    /// When it was created.
    pub created: Time,
    /// Higher goes first.
    pub priority: i32,
    /// What it asks for.
    pub requests: Resources,
    /// What it counts for when nodes are scored.
    pub scored: Resources,
    /// Ports of the host it claims.
    pub host_ports: Vec<HostPort>,
    /// The node it names or is bound to; empty if none.
    pub node: String,
    /// `spec.nodeSelector`.
    pub node_selector: Selector,
    /// Required node affinity: any term must match; `None` if there is none.
    pub node_required: Option<Vec<NodeTerm>>,
    /// Preferred node affinity with weights.
    pub node_preferred: Vec<(i32, NodeTerm)>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// UID of its controller; empty if none.
    pub owner: String,
    /// Images of its containers.
    pub images: Vec<String>,
    /// The profile that schedules it.
    pub scheduler: String,
    /// Whether scheduling gates hold it back.
    pub gated: bool,
    /// The message of its `PodScheduled` condition if that is false.
    pub complaint: String,
}

impl PodInfo {
    /// Parses a pod; `None` for pods that take no place: finished ones.
    pub fn of(pod: &Pod) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let spec = pod.spec.as_ref()?;
        let metadata = &pod.metadata;
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|s: &NodeSelector| {
                s.node_selector_terms.iter().filter_map(NodeTerm::parse).collect()
            });
        let preferred = affinity
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|t| Some((t.weight, NodeTerm::parse(&t.preference)?)))
            .collect();
        let condition = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        Some(Self {
            key: Key::new(
                api::Kind::Pod,
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: metadata.uid.clone().unwrap_or_default(),
            created: meta::created_at(metadata),
            priority: spec.priority.unwrap_or(0),
            requests: requests(spec),
            scored: scored_requests(spec),
            host_ports: host_ports(spec),
            node: spec.node_name.clone().unwrap_or_default(),
            node_selector: spec.node_selector.as_ref().map(Selector::of_map).unwrap_or_default(),
            node_required: required,
            node_preferred: preferred,
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            owner: meta::controller_of(metadata).map(|o| o.uid.clone()).unwrap_or_default(),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into()),
            gated: spec.scheduling_gates.iter().flatten().next().is_some(),
            complaint: condition
                .filter(|c| c.type_ == "PodScheduled" && c.status == "False")
                .filter_map(|c| c.message.clone())
                .next()
                .unwrap_or_default(),
        })
    }

    /// Whether the pod tolerates a taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| tolerates(t, taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists
            || toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default())
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    sidecars
        .chain(&spec.containers)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            let address = p.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                address: address.unwrap_or_else(|| "0.0.0.0".into()),
                port,
            })
        })
        .collect()
}

/// A node with the pods that are bound to it or assumed to be.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// The name in the form field requirements want it.
    name_field: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may ask for in all.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods_max: i64,
    /// What its pods ask for.
    pub requested: Resources,
    /// What its pods count for when nodes are scored.
    pub scored: Resources,
    /// Its pods, with the UID of their controller.
    pub pods: BTreeMap<Key, String>,
    /// Ports of the host in use, by pod.
    pub host_ports: BTreeSet<(HostPort, Key)>,
    /// Images present, with their size in bytes.
    pub images: BTreeMap<String, i64>,
}

impl NodeInfo {
    /// Takes the node's own properties; the pods stay.
    pub fn set(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.name_field = BTreeMap::from([("metadata.name".to_owned(), name.clone())]);
        self.name = name;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        self.taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        let status = node.status.as_ref();
        let list = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = Resources::of_list(list);
        self.pods_max = list
            .and_then(|l| l.get("pods"))
            .and_then(|q| api::quantity::Quantity::parse(&q.0).ok())
            .map_or(0, api::quantity::Quantity::value);
        self.images = status
            .iter()
            .flat_map(|s| s.images.iter().flatten())
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: &PodInfo) {
        if self.pods.insert(pod.key.clone(), pod.owner.clone()).is_some() {
            return;
        }
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        for port in &pod.host_ports {
            self.host_ports.insert((port.clone(), pod.key.clone()));
        }
    }

    /// Counts a pod out.
    pub fn remove(&mut self, pod: &PodInfo) {
        if self.pods.remove(&pod.key).is_none() {
            return;
        }
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored);
        for port in &pod.host_ports {
            self.host_ports.remove(&(port.clone(), pod.key.clone()));
        }
    }

    /// The zone, for interleaving; empty if the node has none.
    pub fn zone(&self) -> &str {
        self.labels.get("topology.kubernetes.io/zone").map_or("", String::as_str)
    }
}
