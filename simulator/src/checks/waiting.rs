//! Pods without a node: P22, P23 and P25.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Table, Time};
use k8s_openapi::api::core::v1::Node;

use super::volumes;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::company::{self, Placed};
use crate::oracle::{self, Amounts, HostPort};
use crate::plan::PodTemplate;

/// Kubernetes tries unschedulable pods again after five minutes at the latest, whatever events it
/// has or has not seen (`podMaxInUnschedulablePodsDuration`).
const ATTEMPT_MAX: Duration = Duration::from_secs(300);
/// So long may a pod wait beside room that nobody else takes.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// The time between two looks at the pods that wait.
const LOOK: Duration = Duration::from_secs(30);
/// Pods that are looked at in one look.
const LOOK_PODS_MAX: usize = 64;
/// What waits for less is no cause for a look at all the nodes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the default scheduler should find a node for the pod.
fn wants_node(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
    oracle::node_of(pod).is_none()
        && oracle::is_active(pod)
        && !oracle::is_gated(pod)
        // Of a group that is to be placed together the others may find none.
        && oracle::group(pod).is_none()
        && matches!(scheduler, None | Some("" | "default-scheduler"))
}

/// What the bound pods take of each node, as stored.
struct Occupied<'a> {
    sums: BTreeMap<String, Amounts>,
    ports: BTreeMap<String, Vec<HostPort>>,
    /// All bound pods and all nodes, if it matters to any pod where others are.
    company: Option<(Vec<Placed<'a>>, Vec<&'a Node>)>,
}

impl<'a> Occupied<'a> {
    fn read(cluster: &'a dyn Cluster) -> Self {
        let company = company(cluster);
        let mut occupied = Self { sums: BTreeMap::new(), ports: BTreeMap::new(), company };
        let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
        for pod in pods.filter(|p| !oracle::has_ended(p)) {
            let (Some(node), Some(spec)) = (oracle::node_of(pod), &pod.spec) else { continue };
            if !occupied.sums.contains_key(node) {
                occupied.sums.insert(node.to_owned(), Amounts::default());
            }
            if let Some(sum) = occupied.sums.get_mut(node) {
                sum.add(&oracle::requests(spec), 1);
            }
            let ports = oracle::host_ports(spec);
            if !ports.is_empty() {
                occupied.ports.entry(node.to_owned()).or_default().extend(ports);
            }
        }
        occupied
    }

    /// Whether the node could take the pod.
    fn takes(&self, node: &Node, pod: &Pod) -> bool {
        let (Some(spec), Some(name)) = (&pod.spec, &node.metadata.name) else { return false };
        let mut sum = self.sums.get(name).cloned().unwrap_or_default();
        sum.add(&oracle::requests(spec), 1);
        let wanted = oracle::host_ports(spec);
        let taken = self.ports.get(name).map(Vec::as_slice).unwrap_or_default();
        !oracle::is_going(&node.metadata)
            && oracle::taints_allow(spec, node).is_ok()
            && oracle::labels_allow(spec, node).is_ok()
            && sum.beyond(&oracle::allocatable(node)).is_none()
            && !wanted.iter().any(|a| taken.iter().any(|b| oracle::ports_clash(a, b)))
            && self.company.as_ref().is_none_or(|(placed, nodes)| {
                company::apart_allows(pod, node, placed).is_ok()
                    && company::near_allows(pod, node, placed).is_ok()
                    && company::spread_allows(pod, node, nodes, placed).is_ok()
            })
    }

    /// The first node that could take the pod.
    fn node_for(&self, cluster: &dyn Cluster, pod: &Pod) -> Option<String> {
        let mut nodes = cluster.objects(Kind::Node).filter_map(Object::get::<Node>);
        let takes =
            |node: &&Node| self.takes(node, pod) && volumes::allow(cluster, pod, node).is_ok();
        nodes.find(takes)?.metadata.name.clone()
    }
}

fn has_claims(pod: &Pod) -> bool {
    !oracle::volumes::claims_of(pod).is_empty()
}

/// Who is where, if that matters to any pod.
fn company(cluster: &dyn Cluster) -> Option<(Vec<Placed<'_>>, Vec<&Node>)> {
    let pods = || cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
    let matters = |pod: &Pod| pod.spec.as_deref().is_some_and(company::has_demands);
    if !cluster.plan().templates.iter().any(PodTemplate::minds_others) || !pods().any(matters) {
        return None;
    }
    let node = |name: &str| cluster.object(&Key::cluster(Kind::Node, name))?.get::<Node>();
    let placed = pods().filter(|p| !oracle::has_ended(p)).filter_map(|pod| {
        let node = node(oracle::node_of(pod)?)?;
        Some(Placed { pod, node })
    });
    let nodes = cluster.objects(Kind::Node).filter_map(Object::get::<Node>);
    Some((placed.collect(), nodes.collect()))
}

/// P25: at rest every pod without a node fits on none.
#[derive(Clone, Default)]
pub(super) struct WorkConserving;

impl Check for WorkConserving {
    fn property(&self) -> &'static str {
        "P25"
    }

    fn statement(&self) -> &'static str {
        "at rest every pod without a node fits on none"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let minds = cluster.plan().templates.iter().any(PodTemplate::minds_others);
        let mut occupied = None;
        // Most pods that wait are alike: one answer for each kind of them.
        let mut answers: BTreeMap<String, Option<String>> = BTreeMap::new();
        for object in cluster.objects(Kind::Pod) {
            let Some(pod) = object.get::<Pod>().filter(|p| wants_node(p)) else { continue };
            let Some(spec) = &pod.spec else { continue };
            let question = format!(
                "{:?}{:?}{:?}{:?}{:?}{:?}",
                oracle::requests(spec),
                oracle::host_ports(spec),
                spec.node_selector,
                spec.tolerations,
                spec.affinity,
                // Where others are, and where volumes are, is not the same for all.
                (minds || has_claims(pod)).then_some(&pod.metadata)
            );
            let occupied = occupied.get_or_insert_with(|| Occupied::read(cluster));
            let answer = answers.entry(question).or_insert_with(|| occupied.node_for(cluster, pod));
            if let Some(node) = answer {
                found.push(format!(
                    "{} waits for a node at rest, and {node} could take it",
                    object.key()
                ));
            }
        }
    }
}

/// What must happen to a pod that waits beside room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The scheduler must look at it.
    Attempt,
    /// It must be bound.
    Binding,
}

/// Room for a pod, of which nobody has taken any since.
#[derive(Clone)]
struct Room {
    node: Arc<str>,
    since: Time,
}

/// P22 and P23: pods that wait although a node has had room for them for long.
///
/// Room is looked for from time to time. It counts from when it was found, and no longer when
/// another pod is bound to the node, the node changes, or anything is wrong in the cluster.
#[derive(Clone)]
pub(super) struct Waiting {
    due: Due,
    pods: BTreeMap<Key, Time>,
    rooms: BTreeMap<Key, Room>,
    of_node: BTreeMap<Arc<str>, BTreeSet<Key>>,
    tried: Table<Key, Time>,
    next_look: Time,
    /// Where the last look ended.
    cursor: Option<Key>,
    faults: u32,
}

impl Waiting {
    const fn new(due: Due) -> Self {
        Self {
            due,
            pods: BTreeMap::new(),
            rooms: BTreeMap::new(),
            of_node: BTreeMap::new(),
            tried: Table::new(),
            next_look: Time::ZERO,
            cursor: None,
            faults: 0,
        }
    }

    /// P22: a pod for which a node has room is tried.
    pub(super) const fn for_attempt() -> Self {
        Self::new(Due::Attempt)
    }

    /// P23: a pod for which a node has room gets a node, whoever else waits.
    pub(super) const fn for_node() -> Self {
        Self::new(Due::Binding)
    }

    const fn patience(&self) -> Duration {
        match self.due {
            Due::Attempt => ATTEMPT_MAX,
            Due::Binding => WAIT_MAX,
        }
    }

    fn forget_rooms(&mut self) {
        self.rooms.clear();
        self.of_node.clear();
    }

    fn forget_rooms_of(&mut self, node: &str) {
        for key in self.of_node.remove(node).into_iter().flatten() {
            self.rooms.remove(&key);
        }
    }

    fn forget_pod(&mut self, key: &Key) {
        self.pods.remove(key);
        self.tried.remove(key);
        if let Some(room) = self.rooms.remove(key)
            && let Some(keys) = self.of_node.get_mut(&room.node)
        {
            keys.remove(key);
        }
    }

    fn committed(&mut self, now: Time, key: &Key, old: Option<&Object>, new: Option<&Object>) {
        match key.kind {
            Kind::Pod => {
                let pod = oracle::pod(new);
                if !pod.is_some_and(wants_node) {
                    self.forget_pod(key);
                } else if !self.pods.contains_key(key) {
                    self.pods.insert(key.clone(), now);
                }
                let node = |o| oracle::pod(o).and_then(oracle::node_of);
                if let Some(node) = node(new).filter(|n| node(old) != Some(*n)) {
                    self.forget_rooms_of(node);
                }
            }
            Kind::Node if offers(old) != offers(new) => self.forget_rooms_of(&key.name),
            _ => {}
        }
    }

    fn tried(&mut self, now: Time, key: Key) {
        if self.pods.contains_key(&key) {
            self.tried.insert(key, now);
        }
    }

    fn look(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        let now = cluster.now();
        let patience = self.patience();
        let overdue: Vec<Key> = self
            .rooms
            .iter()
            .filter(|(_, room)| now.since(room.since) > patience)
            .map(|(key, _)| key.clone())
            .collect();
        for key in overdue {
            let Some(room) = self.rooms.get(&key) else { continue };
            let tried = self.tried.get(&key).is_some_and(|at| *at >= room.since);
            let what = match self.due {
                Due::Attempt if tried => None,
                Due::Attempt => Some("no scheduler has tried it"),
                Due::Binding => Some("it was not bound"),
            };
            if let Some(what) = what {
                found.push(format!(
                    "{key} waits, {} has had room for it for {} s, and {what}",
                    room.node,
                    now.since(room.since).as_secs()
                ));
            }
            // Reported once; and an attempt that failed shows that the scheduler knows better.
            let node = room.node.clone();
            self.rooms.remove(&key);
            if let Some(keys) = self.of_node.get_mut(&node) {
                keys.remove(&key);
            }
        }
        self.find_rooms(cluster, now);
    }

    fn find_rooms(&mut self, cluster: &dyn Cluster, now: Time) {
        let waits = |(key, since): &(&Key, &Time)| {
            now.since(**since) > PATIENCE && !self.rooms.contains_key(*key)
        };
        let from = |cursor: &Key| self.pods.range(cursor.clone()..).filter(waits);
        let mut keys: Vec<Key> = self
            .cursor
            .iter()
            .flat_map(from)
            .chain(self.pods.iter().filter(waits))
            .take(LOOK_PODS_MAX)
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        keys.dedup();
        self.cursor = keys.last().cloned();
        if keys.is_empty() {
            return;
        }
        let occupied = Occupied::read(cluster);
        for key in keys {
            let Some(pod) = oracle::pod(cluster.object(&key)) else { continue };
            // What a claim gets meanwhile takes room away, and so does what others do elsewhere to
            // those that mind it.
            let minds = occupied.company.as_ref().is_some_and(|(placed, _)| {
                !company::is_indifferent(pod, placed.iter().map(|p| p.pod))
            });
            if minds || has_claims(pod) {
                continue;
            }
            let Some(node) = occupied.node_for(cluster, pod) else { continue };
            let node: Arc<str> = node.into();
            self.of_node.entry(node.clone()).or_default().insert(key.clone());
            self.rooms.insert(key, Room { node, since: now });
        }
    }
}

/// What of a node decides whether pods fit.
fn offers(node: Option<&Object>) -> impl PartialEq + '_ {
    let node = node.and_then(Object::get::<Node>);
    node.map(|n| {
        let spec = n.spec.as_ref().map(|s| (s.unschedulable, s.taints.as_ref()));
        let allocatable = n.status.as_ref().and_then(|s| s.allocatable.as_ref());
        (n.metadata.labels.as_ref(), n.metadata.uid.as_ref(), spec, allocatable)
    })
}

impl Check for Waiting {
    fn property(&self) -> &'static str {
        match self.due {
            Due::Attempt => "P22",
            Due::Binding => "P23",
        }
    }

    fn statement(&self) -> &'static str {
        match self.due {
            Due::Attempt => "a pod for which a node has room is tried",
            Due::Binding => "a pod for which a node has room gets a node, whoever else waits",
        }
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Committed { key, old, new, .. } => {
                self.committed(cluster.now(), key, *old, *new);
            }
            Occurrence::Called {
                by,
                request: Request::Bind { pod: key, .. } | Request::Patch { key, .. },
            } if self.due == Due::Attempt && cluster.role(*by) == Role::Scheduler => {
                self.tried(cluster.now(), key.clone());
            }
            Occurrence::Recorded { by, report }
                if self.due == Due::Attempt && cluster.role(*by) == Role::Scheduler =>
            {
                let about = &report.record.regarding;
                let key = Key {
                    kind: Kind::Pod,
                    namespace: about.namespace.clone(),
                    name: about.name.clone(),
                };
                self.tried(cluster.now(), key);
            }
            Occurrence::FaultBegan(_) => {
                self.faults += 1;
                self.forget_rooms();
            }
            Occurrence::FaultEnded(_) => {
                self.faults = self.faults.saturating_sub(1);
                self.forget_rooms();
            }
            Occurrence::Crashed(process) | Occurrence::Started(process)
                if cluster.role(*process) != Role::Kubelet =>
            {
                self.forget_rooms();
            }
            Occurrence::Healed => {
                self.faults = 0;
                self.forget_rooms();
            }
            _ => {}
        }
        if self.faults == 0 && !self.pods.is_empty() && cluster.now() >= self.next_look {
            self.next_look = cluster.now() + LOOK;
            self.look(cluster, found);
        }
    }
}

#[cfg(test)]
mod tests;
