//! Pods as the scheduler sees them: parsed once; what many pods have in common is held once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::hash::fnv64;
use api::selector::Selector;
use api::{Key, Kind, Memo, Name, Pod, Shared, Time, meta};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorTerm, PodCondition, PodSpec, PodStatus, Taint, Toleration, Volume,
};

use crate::cycle::Question;
use crate::disk::Disk;
use crate::node_info::NodeInfo;
use crate::relations::{Kin, Numbered, Presence, Relations};
use crate::resources::{Resources, requests, scored_requests};
use crate::volumes::{ClaimUse, Volumes};

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
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTerm {
    labels: Selector,
    name: Selector,
    empty: bool,
    /// The only names that can match, if the term lists names.
    names: Option<BTreeSet<String>>,
}

impl NodeTerm {
    /// Parses a term; `None` if it has an operator that does not exist, or a bound that is no
    /// number.
    pub(crate) fn parse(term: &NodeSelectorTerm) -> Option<Self> {
        let (mut labels, mut name) = (Selector::default(), Selector::default());
        let mut names: Option<BTreeSet<String>> = None;
        for r in term.match_expressions.iter().flatten() {
            labels.require(&r.key, &r.operator, r.values.as_deref().unwrap_or_default()).ok()?;
        }
        for r in term.match_fields.iter().flatten() {
            let values = r.values.as_deref().unwrap_or_default();
            name.require(&r.key, &r.operator, values).ok()?;
            if r.key == "metadata.name" && r.operator == "In" {
                let listed: BTreeSet<String> = values.iter().cloned().collect();
                // Each of several lists has to have the name.
                names = Some(match names {
                    None => listed,
                    Some(others) => &listed & &others,
                });
            }
        }
        let empty = labels.is_everything() && name.is_everything();
        Some(Self { labels, name, empty, names })
    }

    /// Whether the node satisfies every requirement; a term without requirements matches none.
    pub fn matches(&self, node: &NodeInfo) -> bool {
        let named = || {
            let field = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
            self.name.matches(Some(&field))
        };
        !self.empty
            && self.labels.matches(Some(&node.labels))
            && (self.name.is_everything() || named())
    }
}

/// What a pod takes of its node, and all that is remembered of one that has a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// What it asks for.
    pub requests: Resources,
    /// What it counts for when nodes are scored.
    pub scored: Resources,
    /// Ports of the host it claims.
    pub host_ports: Vec<HostPort>,
    /// Its claims of volumes, each once.
    pub claims: Vec<Key>,
    /// Disks that it names.
    pub disks: Vec<Disk>,
}

impl Load {
    fn of(spec: &PodSpec) -> Self {
        Self {
            requests: requests(spec),
            scored: scored_requests(spec),
            host_ports: host_ports(spec),
            claims: Vec::new(),
            disks: Disk::of(spec),
        }
    }

    /// That of a pod, of which others of the same spec may have other claims.
    fn with_claims(pod: &Pod, spec: &PodSpec) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let names: BTreeSet<String> = ClaimUse::of(pod).into_iter().map(|used| used.name).collect();
        let key = |name: &String| Key::new(Kind::PersistentVolumeClaim, namespace, name);
        Self { claims: names.iter().map(key).collect(), ..Self::of(spec) }
    }
}

/// All that plugins look at in a pod, other pods aside: pods of one class find the same nodes
/// equally good.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodClass {
    /// What it takes of a node.
    pub load: Arc<Load>,
    /// The node it names; empty if none.
    pub node: String,
    /// `spec.nodeSelector`.
    pub node_selector: Selector,
    /// Required node affinity: any term must match; `None` if there is none.
    pub node_required: Option<Vec<NodeTerm>>,
    /// Preferred node affinity with weights.
    pub node_preferred: Vec<(i32, NodeTerm)>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Images of its containers.
    pub images: Vec<String>,
    /// Its priority: it yields to nominated pods of no lower one.
    pub priority: i32,
    /// What its volumes ask for at this moment; of pods that wait, not worked out yet.
    pub volumes: Volumes,
}

impl PodClass {
    /// Whether the pod tolerates a taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| tolerates(t, taint))
    }

    /// The first taint of the node that keeps the pod away.
    pub fn untolerated<'a>(&self, node: &'a NodeInfo) -> Option<&'a Taint> {
        let hard = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
        node.taints.iter().find(|t| hard(&t.effect) && !self.tolerates(t))
    }

    /// Whether its node selector and required node affinity allow the node.
    pub fn allows(&self, node: &NodeInfo) -> bool {
        let required = self.node_required.as_ref();
        self.node_selector.matches(Some(&node.labels))
            && required.is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }

    /// The only nodes that can match, by name, if each term of required affinity lists some: so it
    /// is for the pods of a `DaemonSet`. None are left if the lists contradict each other.
    pub fn pinned(&self) -> Option<BTreeSet<&str>> {
        let terms = self.node_required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut all = BTreeSet::new();
        for term in terms {
            all.extend(term.names.as_ref()?.iter().map(String::as_str));
        }
        Some(all)
    }

    /// Equal classes have equal hashes; what tells classes apart in practice is in it.
    fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(256);
        for resources in [&self.load.requests, &self.load.scored] {
            bytes.extend(resources.cpu.0.to_le_bytes());
            bytes.extend(resources.memory.0.to_le_bytes());
        }
        for text in self.images.iter().chain(self.load.requests.extended.keys()) {
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.node_selector.to_text().as_bytes());
        for key in self.tolerations.iter().filter_map(|t| t.key.as_ref()) {
            bytes.extend(key.as_bytes());
        }
        bytes.extend(self.priority.to_le_bytes());
        fnv64(&bytes)
    }
}

/// The number of a pod class: never given twice.
pub type ClassId = u64;

/// A pod that needs a node.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// UID; a pod of the same name made later has another.
    pub uid: String,
    /// Higher goes first, and may displace lower.
    pub priority: i32,
    /// Whether it may displace pods of lower priority at all.
    pub preempts: bool,
    /// The node that was cleared for it, as the API knows; empty if none.
    pub nominated: Name,
    /// How it gets on with other pods.
    pub kin: Arc<Numbered<Kin>>,
    /// The profile that schedules it.
    pub scheduler: String,
    /// Whether scheduling gates hold it back.
    pub gated: bool,
    /// The message of its `PodScheduled` condition if that is false.
    pub complaint: String,
    /// The claims it uses.
    pub claims: Vec<ClaimUse>,
    /// What plugins look at.
    pub class: Arc<PodClass>,
    /// The number of the class; `None` if the class is of no use to other pods.
    pub class_id: Option<ClassId>,
}

impl PodInfo {
    /// Parses a pod; `None` for pods that take no place: finished ones.
    pub fn of(pod: &Pod, classes: &mut Classes) -> Option<Self> {
        let spec = pod.spec.as_ref().filter(|_| takes_place(pod))?;
        let metadata = &pod.metadata;
        let (class, class_id) = classes.class_of(pod, spec);
        let condition = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        Some(Self {
            key: Key::new(
                Kind::Pod,
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: metadata.uid.clone().unwrap_or_default(),
            priority: class.priority,
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: nominated(pod).into(),
            kin: classes.relations.kin(pod, spec),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into()),
            gated: spec.scheduling_gates.iter().flatten().next().is_some(),
            complaint: condition
                .filter(|c| c.type_ == "PodScheduled" && c.status == "False")
                .filter_map(|c| c.message.clone())
                .next()
                .unwrap_or_default(),
            claims: ClaimUse::of(pod),
            class,
            class_id,
        })
    }

    /// The pod with what its volumes ask for, which is of no use to other pods.
    pub(crate) fn with_volumes(&self, volumes: Volumes) -> Self {
        let class = Arc::new(PodClass { volumes, ..PodClass::clone(&self.class) });
        Self { class, class_id: None, ..self.clone() }
    }
}

impl PodInfo {
    /// The pod as a decision is about it.
    pub fn question(&self) -> Question<'_> {
        let Self { key, class, kin, preempts, .. } = self;
        Question { key, class, kin, preempts: *preempts }
    }
}

/// `status.nominatedNodeName`; empty if there is none.
fn nominated(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default()
}

/// What decides whether a pod that has a node may be displaced, and before which others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It yields to higher ones.
    pub priority: i32,
    /// Since when it has run; the end of time if it has not started.
    pub started: Time,
    /// Whether it is being deleted because a scheduler has displaced it.
    pub displaced: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Standing {
    /// A pod that has not started.
    pub const fn new(priority: i32) -> Self {
        Self { priority, started: Time(u64::MAX), displaced: false }
    }

    /// That of a pod.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_deref();
        let displaced = meta::is_terminating(&pod.metadata)
            && status
                .and_then(disruption_target)
                .is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(PREEMPTED));
        Self {
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
            started: status
                .and_then(|s| s.start_time.as_ref())
                .map_or(Time(u64::MAX), Time::from_meta),
            displaced,
        }
    }
}

/// The condition of pods that are about to be displaced.
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Its reason if a scheduler does so.
pub(crate) const PREEMPTED: &str = "PreemptionByScheduler";

/// The condition that says that a pod is about to be displaced, or was.
pub(crate) fn disruption_target(status: &PodStatus) -> Option<&PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == DISRUPTION_TARGET)
}

/// Whether a pod takes a place on a node: not when it has finished.
pub fn takes_place(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.spec.is_some() && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn class_of(spec: &PodSpec, node: &str) -> PodClass {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|s: &NodeSelector| s.node_selector_terms.iter().filter_map(NodeTerm::parse).collect());
    let preferred = affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|t| Some((t.weight, NodeTerm::parse(&t.preference)?)))
        .collect();
    PodClass {
        load: Arc::new(Load::of(spec)),
        node: node.to_owned(),
        node_selector: spec.node_selector.as_ref().map(Selector::of_map).unwrap_or_default(),
        node_required: required,
        node_preferred: preferred,
        tolerations: spec.tolerations.clone().unwrap_or_default(),
        images: spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .filter_map(|c| c.image.as_deref().map(image_name))
            .collect(),
        priority: spec.priority.unwrap_or(0),
        volumes: Volumes::default(),
    }
}

/// The name of an image as nodes report it: with a tag.
///
/// Source: kubernetes 1.33, `imagelocality`.
fn image_name(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = if name.contains(':') { "" } else { ":latest" };
    [image, tag].concat()
}

/// Whether pods of the spec have claims.
fn has_claims(spec: &PodSpec) -> bool {
    let claims = |v: &Volume| v.persistent_volume_claim.is_some() || v.ephemeral.is_some();
    spec.volumes.iter().flatten().any(claims)
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

/// Holds each load and each class once, for as long as something uses it.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    loads: BTreeSet<Arc<Load>>,
    /// By hash.
    classes: BTreeMap<u64, Vec<(ClassId, Arc<PodClass>)>>,
    count: usize,
    next: ClassId,
    relations: Relations,
    /// So many loads and classes may there be before unused ones are looked for.
    sweep_at: usize,
    /// What was found of specs that several pods share.
    known: Memo<PodSpec, Known>,
}

/// What was found of a spec.
#[derive(Clone, Debug)]
struct Known {
    load: Arc<Load>,
    class: Option<(Arc<PodClass>, Option<ClassId>)>,
}

/// Unused loads and classes are not looked for below this number.
const SWEEP_MIN: usize = 1024;

impl Classes {
    /// What a pod takes of its node.
    pub fn load(&mut self, pod: &Pod, spec: &Shared<PodSpec>) -> Arc<Load> {
        if has_claims(spec) {
            return Arc::new(Load::with_claims(pod, spec));
        }
        if !spec.is_shared() {
            return self.share(Arc::new(Load::of(spec)));
        }
        Arc::clone(&self.known(spec).load)
    }

    /// What others see of a pod that has a node.
    pub fn presence(&mut self, pod: &Pod, spec: &PodSpec) -> Presence {
        self.relations.presence(pod, spec)
    }

    /// The class of a pod.
    fn class_of(&mut self, pod: &Pod, spec: &Shared<PodSpec>) -> (Arc<PodClass>, Option<ClassId>) {
        let node = pod.node();
        if has_claims(spec) {
            // Others have other claims: nothing is gained by comparing them.
            let load = Arc::new(Load::with_claims(pod, spec));
            return (Arc::new(PodClass { load, ..class_of(spec, node) }), None);
        }
        if !spec.is_shared() || !node.is_empty() {
            return self.class(class_of(spec, node));
        }
        if let Some(class) = &self.known(spec).class {
            return class.clone();
        }
        let class = self.class(class_of(spec, node));
        self.known(spec).class = Some(class.clone());
        class
    }

    /// What was found of a spec that several pods share.
    fn known(&mut self, spec: &Shared<PodSpec>) -> &mut Known {
        if self.known.get(spec).is_none() {
            let load = self.share(Arc::new(Load::of(spec)));
            self.known.insert(spec, Known { load, class: None });
        }
        self.known.get_mut(spec).expect("it was just put there")
    }

    fn share(&mut self, load: Arc<Load>) -> Arc<Load> {
        if let Some(known) = self.loads.get(&load) {
            return Arc::clone(known);
        }
        self.sweep();
        self.loads.insert(Arc::clone(&load));
        load
    }

    fn class(&mut self, mut class: PodClass) -> (Arc<PodClass>, Option<ClassId>) {
        class.load = self.share(class.load);
        // A `DaemonSet` has a class for every node: nothing is gained by comparing them.
        if class.pinned().is_some() || !class.node.is_empty() {
            return (Arc::new(class), None);
        }
        let hash = class.hash();
        let alike = self.classes.get(&hash).map(Vec::as_slice).unwrap_or_default();
        if let Some((id, known)) = alike.iter().find(|(_, known)| **known == class) {
            return (Arc::clone(known), Some(*id));
        }
        self.sweep();
        let (id, class) = (self.next, Arc::new(class));
        self.next += 1;
        self.count += 1;
        self.classes.entry(hash).or_default().push((id, Arc::clone(&class)));
        (class, Some(id))
    }

    fn sweep(&mut self) {
        if self.count + self.loads.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.classes.retain(|_, alike| {
            alike.retain(|(_, class)| Arc::strong_count(class) > 1);
            !alike.is_empty()
        });
        self.loads.retain(|load| Arc::strong_count(load) > 1);
        self.count = self.classes.values().map(Vec::len).sum();
        self.sweep_at = 2 * (self.count + self.loads.len());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_of_one_template_share_their_class_while_it_is_in_use() {
        let mut classes = Classes::default();
        let pod = |name: &str, cpu: &str, fields: &serde_json::Value| {
            serde_json::from_value::<Pod>(json!({"metadata": {"name": name}, "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchFields": fields}]}}}}}))
            .unwrap()
        };
        let mut of = |name: &str, cpu: &str, fields| {
            PodInfo::of(&pod(name, cpu, fields), &mut classes).unwrap()
        };
        let none = json!([]);
        let (a, b, c) = (of("a", "1", &none), of("b", "1000m", &none), of("c", "2", &none));
        assert!(Arc::ptr_eq(&a.class, &b.class) && a.class_id == b.class_id);
        assert_ne!(a.class_id, c.class_id);
        let pin = json!([{"key": "metadata.name", "operator": "In", "values": ["n1", "n2"]}]);
        let d = of("d", "1", &pin);
        assert_eq!(d.class.pinned(), Some(BTreeSet::from(["n1", "n2"])));
        assert!(d.class_id.is_none() && Arc::ptr_eq(&d.class.load, &a.class.load));
        let both = json!([{"key": "metadata.name", "operator": "In", "values": ["n1", "n2"]},
            {"key": "metadata.name", "operator": "In", "values": ["n2", "n3"]}]);
        assert_eq!(of("d", "1", &both).class.pinned(), Some(BTreeSet::from(["n2"])));
        drop((b, c));
        for i in 0..3 * SWEEP_MIN {
            of("e", &i.to_string(), &none);
        }
        assert!(classes.count + classes.loads.len() <= SWEEP_MIN);
        assert_eq!(PodInfo::of(&pod("f", "1", &none), &mut classes).unwrap().class_id, a.class_id);
    }
}
