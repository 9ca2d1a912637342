//! The lives of pods: P36 and P54.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Name, Object, Patch, PatchBody, Pod, Request, Table};

use super::ordinals::InOrder;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::plan::Plan;

/// P36: of the pods that had one name at most one runs, on whatever nodes they are; and those of a
/// stateful set come and go in order.
///
/// A node whose object was deleted is excused: whoever deleted it vouched for its end.
#[derive(Clone, Default)]
pub(super) struct OneOfAName {
    /// Where the last pods of each name were bound.
    places: Table<Key, Vec<Place>>,
    /// When nodes were deleted, by the count of those that were.
    deleted: Table<Name, u64>,
    deletions: u64,
    order: InOrder,
}

/// Where a pod was bound.
#[derive(Clone)]
struct Place {
    uid: Box<str>,
    node: Name,
    /// How many nodes had been deleted by then.
    deletions: u64,
}

impl OneOfAName {
    fn bound(&mut self, key: &Key, pod: &Pod) {
        let (Some(node), Some(uid)) = (&pod.node_name, &pod.metadata.uid) else { return };
        let known = self.places.get(key).into_iter().flatten();
        if known.into_iter().any(|place| *place.uid == **uid) {
            return;
        }
        let (uid, node) = (uid.as_str().into(), node.clone());
        let place = Place { uid, node, deletions: self.deletions };
        match self.places.get_mut(key) {
            Some(places) => places.push(place),
            None => drop(self.places.insert(key.clone(), vec![place])),
        }
    }

    fn node_gone(&mut self, node: &Name) {
        self.deletions += 1;
        self.deleted.insert(node.clone(), self.deletions);
    }

    /// Another pod of the name that runs.
    fn twin(&mut self, cluster: &dyn Cluster, key: &Key, uid: &str) -> Option<String> {
        let places = self.places.get_mut(key)?;
        if places.len() < 2 {
            return None;
        }
        places.retain(|Place { uid: other, node, deletions }| {
            let vouched_for = self.deleted.get(node).is_some_and(|deletion| deletion > deletions);
            let runs = || **other == *uid || cluster.running_pods(node).contains(&**other);
            !vouched_for && runs()
        });
        places.iter().find(|place| *place.uid != *uid).map(|place| place.node.to_string())
    }
}

impl Check for OneOfAName {
    fn property(&self) -> &'static str {
        "P36"
    }

    fn statement(&self) -> &'static str {
        "of the pods that had one name at most one runs, and those of stateful sets keep order"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        found.extend(self.order.observe(cluster, occurrence));
        let Occurrence::Committed { key, old, new, .. } = occurrence else { return };
        match key.kind {
            Kind::Node if new.is_none() => self.node_gone(&key.name),
            Kind::Pod => {
                let (Some(object), Some(pod)) = (new, oracle::pod(*new)) else { return };
                self.bound(key, pod);
                let began = oracle::phase(pod) == "Running"
                    && oracle::pod(*old).is_none_or(|p| oracle::phase(p) != "Running");
                if began && let Some(node) = self.twin(cluster, key, object.uid()) {
                    found.push(format!(
                        "{key} runs on {} while an earlier pod of that name still runs on {node}",
                        oracle::node_of(pod).unwrap_or_default()
                    ));
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if cluster.is_at_rest() {
            InOrder::at_rest(cluster, found);
        }
    }
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Pending,
    Bound,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    fn of(pod: &Pod) -> Option<Self> {
        match (oracle::phase(pod), oracle::node_of(pod)) {
            ("Succeeded", _) => Some(Self::Succeeded),
            ("Failed", _) => Some(Self::Failed),
            ("Running", Some(_)) => Some(Self::Running),
            ("" | "Pending", Some(_)) => Some(Self::Bound),
            ("" | "Pending", None) => Some(Self::Pending),
            _ => None,
        }
    }

    const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// P54: every pod that was created is in exactly one place, and none gets lost or comes back.
///
/// A status has no revision: one that its kubelet wrote before that of the end, and that is carried
/// out after it, is excused. The kubelet writes the end again when it sees it.
#[derive(Clone, Default)]
pub(super) struct Conserved {
    /// Whether calls can be overtaken.
    faulty: bool,
    /// UIDs of the pods of which their kubelet last wrote that they have ended, whatever became
    /// of the call.
    ended: BTreeSet<String>,
    created: u64,
    deleted: u64,
    counts: BTreeMap<Phase, u64>,
}

/// The UID and phase in a kubelet's write of a status.
fn phase_of_patch(patch: &Patch) -> Option<(&str, &str)> {
    match &patch.body {
        PatchBody::Json(document) => {
            let uid = document["metadata"]["uid"].as_str()?;
            Some((uid, document["status"]["phase"].as_str()?))
        }
        PatchBody::PodStatus(change) => {
            let before = change.from.as_ref().and_then(|status| status.phase.as_ref());
            let phase = change.to.phase.as_ref().filter(|phase| Some(*phase) != before)?;
            Some((change.uid.as_deref()?, phase))
        }
    }
}

impl Conserved {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { faulty: !plan.faults.is_empty(), ..Self::default() }
    }

    fn written(&mut self, uid: &str, phase: &str) {
        if matches!(phase, "Succeeded" | "Failed") {
            self.ended.insert(uid.to_owned());
        } else {
            self.ended.remove(uid);
        }
    }

    fn committed(&mut self, key: &Key, old: Option<&Pod>, new: Option<&Pod>) -> Option<String> {
        let place = |pod: Option<&Pod>| pod.and_then(Phase::of);
        let (before, after) = (place(old), place(new));
        match (old, new) {
            (None, Some(_)) => self.created += 1,
            (Some(pod), None) => {
                self.deleted += 1;
                self.ended.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
            _ => {}
        }
        if let Some(count) = before.and_then(|p| self.counts.get_mut(&p)) {
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            *self.counts.entry(after).or_default() += 1;
        }
        if new.is_some() && after.is_none() {
            let pod = new?;
            let node = oracle::node_of(pod).unwrap_or("none");
            return Some(format!(
                "{key} is in no place: phase {:?}, node {node}",
                oracle::phase(pod)
            ));
        }
        let before = before.filter(|p| p.is_end())?;
        let after = after.filter(|p| *p != before)?;
        let uid = new.and_then(|pod| pod.metadata.uid.as_deref());
        if uid.is_some_and(|uid| self.ended.contains(uid)) {
            return None;
        }
        Some(format!("{key} had ended as {before:?} and is {after:?} now"))
    }
}

impl Check for Conserved {
    fn property(&self) -> &'static str {
        "P54"
    }

    fn statement(&self) -> &'static str {
        "every pod that was created is in exactly one place, and none gets lost or comes back"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Called { by, request: Request::Patch { key, patch, .. } }
                if self.faulty && key.kind == Kind::Pod && cluster.role(*by) == Role::Kubelet =>
            {
                if let Some((uid, phase)) = phase_of_patch(patch) {
                    self.written(uid, phase);
                }
            }
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Pod => {
                found.extend(self.committed(key, oracle::pod(*old), oracle::pod(*new)));
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        let mut counts: BTreeMap<Phase, u64> = BTreeMap::new();
        let mut present = 0;
        for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
            present += 1;
            if let Some(place) = Phase::of(pod) {
                *counts.entry(place).or_default() += 1;
            }
        }
        self.counts.retain(|_, count| *count > 0);
        if counts != self.counts || self.created != self.deleted + present {
            found.push(format!(
                "{} pods were created, {} are gone and {present} are there, in {counts:?}; counted \
                 write by write there should be {:?}",
                self.created, self.deleted, self.counts
            ));
        }
    }
}

#[cfg(test)]
mod tests;
