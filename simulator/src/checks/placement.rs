//! Where pods go: P9, P10, P11 and P19. What nodes can hold is in `capacity`.
//!
//! A scheduler decides on what it was shown, which is always a little old. So its decisions are
//! judged by the nodes that were delivered to it, at the moment it asks for the binding; the rules
//! are those of [`crate::oracle`].

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Name, Object, Pod, Request, Table, Time};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use machine::WatchEvent;

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, volumes};
use crate::world::ProcessId;

/// The nodes as they were delivered to each process of one role.
#[derive(Clone)]
pub(super) struct NodesShown {
    to: Role,
    shown: BTreeMap<ProcessId, BTreeMap<Name, Object>>,
}

impl NodesShown {
    pub(super) const fn new(to: Role) -> Self {
        Self { to, shown: BTreeMap::new() }
    }

    /// Takes in what happened.
    pub(super) fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { to, event } => self.delivered(cluster, *to, event),
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.shown.remove(process);
            }
            _ => {}
        }
    }

    fn delivered(&mut self, cluster: &dyn Cluster, to: ProcessId, event: &WatchEvent) {
        if event.kind() != Kind::Node || cluster.role(to) != self.to {
            return;
        }
        let nodes = self.shown.entry(to).or_default();
        match event {
            WatchEvent::Changed(object) => {
                nodes.insert(object.key().name, object.clone());
            }
            WatchEvent::Deleted { key, .. } => {
                nodes.remove(&key.name);
            }
            WatchEvent::Replaced { objects, .. } => {
                *nodes = objects.iter().map(|o| (o.key().name, o.clone())).collect();
            }
            WatchEvent::Progress { .. } | WatchEvent::Renewing { .. } => {}
        }
    }

    /// A node as a process was last shown it.
    pub(super) fn get(&self, process: ProcessId, name: &str) -> Option<&Node> {
        self.shown.get(&process)?.get(name)?.get()
    }

    /// All nodes as a process was last shown them.
    pub(super) fn all(&self, process: ProcessId) -> impl Iterator<Item = &Node> {
        self.shown.get(&process).into_iter().flat_map(BTreeMap::values).filter_map(Object::get)
    }
}

/// A binding that a scheduler asks for, with the pod as it is stored; `None` for other
/// occurrences, and for pods that are gone meanwhile (the binding will be refused).
pub(super) fn asked_binding<'a>(
    cluster: &'a dyn Cluster,
    occurrence: &Occurrence<'a>,
) -> Option<(ProcessId, &'a Key, &'a Pod, &'a str)> {
    let Occurrence::Called { by, request: Request::Bind { pod: key, uid, node } } = occurrence
    else {
        return None;
    };
    if cluster.role(*by) != Role::Scheduler {
        return None;
    }
    let object = cluster.object(key).filter(|o| o.uid() == uid)?;
    Some((*by, key, object.get()?, node))
}

/// P9: a pod gets its node once.
#[derive(Clone, Default)]
pub(super) struct BoundOnce;

impl Check for BoundOnce {
    fn property(&self) -> &'static str {
        "P9"
    }

    fn statement(&self) -> &'static str {
        "a pod gets its node once, and not while it is held back or being deleted"
    }

    fn observe(&mut self, _: &dyn Cluster, occurrence: &Occurrence<'_>, found: &mut Vec<String>) {
        let Occurrence::Committed { key, old: Some(old), new: Some(new), request, .. } = occurrence
        else {
            return;
        };
        let (Some(before), Some(after)) = (old.get::<Pod>(), new.get::<Pod>()) else { return };
        let binds = matches!(request, Request::Bind { .. });
        match (oracle::node_of(before), oracle::node_of(after)) {
            (Some(was), is) if binds || is != Some(was) => {
                let is = is.unwrap_or("no node");
                found.push(format!("{key} was bound to {was} and is bound to {is} now"));
            }
            (None, Some(node)) if oracle::is_gated(before) => {
                found.push(format!("{key} was bound to {node} although gates hold it back"));
            }
            (None, Some(node)) if oracle::is_going(&before.metadata) => {
                found.push(format!("{key} was bound to {node} while it is being deleted"));
            }
            _ => {}
        }
    }
}

/// P10: the node of a binding was there when the scheduler decided, and took pods.
///
/// A pod that has claims without volumes gets its node when they have some, which may be long after
/// the decision. So what is judged then is what the scheduler says to claims: for which node they
/// shall get volumes.
#[derive(Clone)]
pub(super) struct NodeWasThere {
    nodes: NodesShown,
    /// Since when claims have volumes.
    bound: Table<Key, Time>,
}

impl Default for NodeWasThere {
    fn default() -> Self {
        Self { nodes: NodesShown::new(Role::Scheduler), bound: Table::new() }
    }
}

impl NodeWasThere {
    /// Why a pod should not have gone to a node, as far as the scheduler was shown.
    fn wrong(&self, by: ProcessId, pod: &Pod, node: &str) -> Option<String> {
        let Some(shown) = self.nodes.get(by, node) else {
            return Some(", a node it was not shown".to_owned());
        };
        let why = oracle::taints_allow(pod.spec.as_ref()?, shown).err()?;
        Some(format!(" although {why}"))
    }

    /// Whether all claims of the pod had volumes before it was made, so that nothing was waited for.
    fn waits_for_nothing(&self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let made = pod.metadata.creation_timestamp.as_ref().map(Time::from_meta);
        volumes::claims_of(pod).iter().all(|(claim, _)| {
            let key = Key::new(Kind::PersistentVolumeClaim, namespace, claim);
            self.bound.get(&key).is_some_and(|since| made.is_some_and(|made| *since <= made))
        })
    }

    /// A scheduler says for which node a claim shall get a volume: the pods that wait for it, and
    /// why they should not go there.
    fn reserves(
        &self,
        cluster: &dyn Cluster,
        by: ProcessId,
        object: &Object,
        found: &mut Vec<String>,
    ) {
        let Some(claim) = object.get::<PersistentVolumeClaim>() else { return };
        let Some(node) = volumes::chosen_node(claim) else { return };
        let key = object.key();
        for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
            let waits = oracle::node_of(pod).is_none()
                && oracle::is_active(pod)
                && pod.metadata.namespace.as_deref() == Some(&*key.namespace)
                && volumes::claims_of(pod).iter().any(|(name, _)| *name == *key.name);
            if waits && let Some(why) = self.wrong(by, pod, node) {
                let component = cluster.component(by);
                found.push(format!("{component} chooses {node} for {key}{why}"));
            }
        }
    }
}

impl Check for NodeWasThere {
    fn property(&self) -> &'static str {
        "P10"
    }

    fn statement(&self) -> &'static str {
        "the node of a binding was there when the scheduler decided, and took pods"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.nodes.observe(cluster, occurrence);
        match occurrence {
            Occurrence::Committed { key, new, .. } if key.kind == Kind::PersistentVolumeClaim => {
                let claim = new.and_then(Object::get::<PersistentVolumeClaim>);
                if claim.is_some_and(volumes::is_bound) {
                    if !self.bound.contains_key(*key) {
                        self.bound.insert((*key).clone(), cluster.now());
                    }
                } else {
                    self.bound.remove(*key);
                }
            }
            Occurrence::Called {
                by,
                request: Request::Update { object: object @ Object::PersistentVolumeClaim(_), .. },
            } if cluster.role(*by) == Role::Scheduler => {
                self.reserves(cluster, *by, object, found);
            }
            _ => {}
        }
        let Some((by, key, pod, node)) = asked_binding(cluster, occurrence) else { return };
        if self.waits_for_nothing(pod)
            && let Some(why) = self.wrong(by, pod, node)
        {
            let component = cluster.component(by);
            found.push(format!("{component} binds {key} to {node}{why}"));
        }
    }
}

/// P11: node selectors and required node affinity are honoured.
#[derive(Clone)]
pub(super) struct LabelsHonoured(NodesShown);

impl Default for LabelsHonoured {
    fn default() -> Self {
        Self(NodesShown::new(Role::Scheduler))
    }
}

impl Check for LabelsHonoured {
    fn property(&self) -> &'static str {
        "P11"
    }

    fn statement(&self) -> &'static str {
        "node selectors and required node affinity are honoured when a pod is bound"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.0.observe(cluster, occurrence);
        let Some((by, key, pod, node)) = asked_binding(cluster, occurrence) else { return };
        if let (Some(spec), Some(shown)) = (&pod.spec, self.0.get(by, node))
            && let Err(why) = oracle::labels_allow(spec, shown)
        {
            let component = cluster.component(by);
            found.push(format!("{component} binds {key} to {node} although {why}"));
        }
    }
}

/// P19: at rest the pods that a scheduler counts on nodes, those it assumed among them, are those
/// that are bound.
#[derive(Clone, Default)]
pub(super) struct AssumedIsReal;

impl Check for AssumedIsReal {
    fn property(&self) -> &'static str {
        "P19"
    }

    fn statement(&self) -> &'static str {
        "at rest a scheduler counts exactly the bound pods on each node"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let mut bound: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
        for object in cluster.objects(Kind::Pod) {
            let Some(pod) = object.get::<Pod>().filter(|p| !oracle::has_ended(p)) else { continue };
            if let Some(node) = oracle::node_of(pod) {
                bound.entry(node).or_default().insert(object.key());
            }
        }
        let nobody = BTreeSet::new();
        for process in cluster.processes() {
            let Some(counted) = cluster.placements(process) else { continue };
            let component = cluster.component(process);
            for object in cluster.objects(Kind::Node) {
                let name = object.key().name;
                let is = bound.get(&*name).unwrap_or(&nobody);
                let Some(counts) = counted.get(&*name) else {
                    found.push(format!("{component} does not know {name}"));
                    continue;
                };
                if counts != is {
                    found.push(format!(
                        "{component} counts {} pods on {name}, and {} are bound to it; it misses \
                         {}, and counts wrongly {}",
                        counts.len(),
                        is.len(),
                        oracle::some_of(is.difference(counts)),
                        oracle::some_of(counts.difference(is))
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
