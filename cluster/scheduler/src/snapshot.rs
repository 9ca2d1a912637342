//! [`Snapshot`]: all nodes and the pods on them, kept current by changes.

mod budgets;
mod claims;
mod log;
mod nominations;
mod order;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Name};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::census::{Census, Move};
use crate::group::{GroupCounts, GroupName};
use crate::node_info::NodeInfo;
use crate::pod_info::{Load, PodInfo, Standing};
use crate::relations::{Constraint, Identity, Kin, Numbered, Presence};
pub(crate) use budgets::Budgets;
use claims::ClaimUsers;
pub(crate) use log::Log;
pub(crate) use nominations::{Nomination, Nominations};
use order::Order;
pub(crate) use places::Placed;
use places::Places;

/// The nodes in the order in which they are tried: zones in turn, then by name.
///
/// Nodes have numbers, dense and given again after a node is gone: what is derived from nodes is
/// kept in arrays.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    rows: Vec<NodeInfo>,
    free: Vec<u32>,
    ids: BTreeMap<String, u32>,
    order: Order,
    images: BTreeMap<String, usize>,
    /// How many volumes nodes take of each driver, by the node's name.
    volume_limits: BTreeMap<Name, BTreeMap<String, usize>>,
    places: Places,
    claim_users: ClaimUsers,
    census: Census,
    changes: Log<Change>,
    /// Nodes with pods of which the standing changed, and nothing else.
    restandings: Log<u32>,
    budgets: Budgets,
    nominations: Nominations,
    /// Pods that are not on their way out, by group.
    groups: GroupCounts,
}

/// A change of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which.
    pub(crate) node: u32,
    /// Whether its own properties changed, not just the pods on it.
    pub(crate) own: bool,
}

/// A pod that has a node.
#[derive(Clone, Debug)]
pub struct PlacedPod<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The pod's UID.
    pub uid: &'a str,
    /// What it takes of the node.
    pub load: &'a Arc<Load>,
    /// What others see of it.
    pub presence: Presence,
    /// What decides whether it may be displaced.
    pub standing: Standing,
}

impl Snapshot {
    /// How many nodes there are.
    pub const fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no node.
    pub const fn is_empty(&self) -> bool {
        self.order.len() == 0
    }

    /// The node of that name.
    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        self.known(name).map(|id| self.row(id))
    }

    /// All nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        let ids = self.order.nodes();
        (0..ids.len()).map(move |i| self.row(ids[i]))
    }

    /// The pod of that key, if it has a node, or shall have one.
    pub fn pod(&self, key: &Key) -> Option<PlacedPod<'_>> {
        let pod = self.places.get(key)?;
        Some(PlacedPod {
            node: &self.row(pod.node).name,
            uid: &pod.uid,
            load: &pod.load,
            presence: self.presence(pod),
            standing: pod.standing,
        })
    }

    /// The pods on the node of that name, in no particular order.
    pub fn pods_of(&self, name: &str) -> impl Iterator<Item = &Key> {
        self.known(name).into_iter().flat_map(|id| self.pods_on(id)).map(|pod| &pod.key)
    }

    /// What others see of a pod that has a node.
    pub(crate) fn presence(&self, pod: &Placed) -> Presence {
        let holder = self.census.holders().get(pod.holder);
        Presence {
            identity: Arc::clone(self.identity(pod)),
            terms: holder.map(|holder| Arc::clone(&holder.of)),
            leaving: pod.leaving,
        }
    }

    /// What selectors see of a pod that has a node.
    pub(crate) fn identity(&self, pod: &Placed) -> &Arc<Numbered<Identity>> {
        &self.census.crowds().get(pod.crowd).expect("its pods are counted").of
    }

    /// On how many nodes an image is present.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Which pods are where, as far as other pods care.
    pub const fn census(&self) -> &Census {
        &self.census
    }

    /// As [`Self::census`], to tell it of namespaces and of what has selectors.
    pub const fn census_mut(&mut self) -> &mut Census {
        &mut self.census
    }

    /// Takes a new or changed node.
    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let id = self.id(name);
        let mut info = self.row(id).clone();
        info.set(node);
        info.volume_limits = self.volume_limits.get(name).cloned().unwrap_or_default();
        let zone = self.order.zone_id(info.zone());
        info.zone_id = zone;
        let before = std::mem::replace(&mut self.rows[id as usize], info);
        let now = &self.rows[id as usize];
        if before == *now {
            return;
        }
        for image in now.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        if !before.known || before.labels != now.labels {
            self.census.domains.set_node(id, now);
        }
        if before.taints != now.taints {
            self.census.domains.taints_changed();
        }
        for image in before.images.keys() {
            self.forget_image(image);
        }
        if !before.known || before.zone_id != zone {
            if before.known {
                self.order.remove(before.zone_id, id, by_name(&self.rows, name));
            }
            self.order.insert(zone, id, by_name(&self.rows, name));
        }
        self.changes.push(Change { node: id, own: true }, self.rows.len());
    }

    /// Forgets a node; pods bound to it stay counted in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.known(name) else { return };
        self.order.remove(self.row(id).zone_id, id, by_name(&self.rows, name));
        let row = &mut self.rows[id as usize];
        row.known = false;
        let images = std::mem::take(&mut row.images);
        self.census.domains.set_node(id, row);
        for image in images.keys() {
            self.forget_image(image);
        }
        self.changes.push(Change { node: id, own: true }, self.rows.len());
        self.drop_unused(id);
    }

    /// Takes how many volumes of each driver a node takes, which need not exist yet. Tells whether
    /// it may take more than before.
    pub fn set_volume_limits(&mut self, name: &str, limits: BTreeMap<String, usize>) -> bool {
        let before = self.volume_limits.remove(name).unwrap_or_default();
        let grows =
            before.iter().any(|(driver, count)| limits.get(driver).is_none_or(|c| c > count));
        if let Some(id) = self.known(name).filter(|_| before != limits) {
            self.rows[id as usize].volume_limits.clone_from(&limits);
            self.changes.push(Change { node: id, own: false }, self.rows.len());
        }
        if !limits.is_empty() {
            self.volume_limits.insert(name.into(), limits);
        }
        grows
    }

    /// The names of the nodes with pods that use the claim. They need not exist.
    pub(crate) fn nodes_with_claim(&self, claim: &Key) -> BTreeSet<String> {
        self.claim_users.of(claim).map(|node| self.row(node).name.clone()).collect()
    }

    /// Whether a node tells how many volumes of some driver it takes.
    pub(crate) fn limits_volumes(&self) -> bool {
        !self.volume_limits.is_empty()
    }

    /// Counts a pod in on a node, which need not exist yet. It has no priority and has not
    /// started, unless [`Self::set_standing`] says so next.
    pub fn add_pod(
        &mut self,
        key: &Key,
        uid: &str,
        presence: &Presence,
        load: &Arc<Load>,
        node: &str,
    ) {
        self.remove_pod(key);
        let id = self.id(node);
        self.rows[id as usize].add(load);
        self.claim_users.add(&load.claims, id);
        let (crowd, holder) = self.census.add(presence, id, self.rows.len());
        // Pods that come are seldom the first with their terms, and keys are few.
        for term in presence.terms.iter().flat_map(|terms| terms.all()) {
            self.census.domains.register(&term.key, &self.rows);
        }
        let leaving = presence.leaving;
        if let Some(group) = presence.identity.group.as_ref().filter(|_| !leaving) {
            self.groups.add(&group.name);
        }
        self.budgets.meet(&presence.identity);
        let load = Arc::clone(load);
        let (key, standing) = (key.clone(), Standing::default());
        let uid = uid.into();
        self.places.insert(Placed { key, uid, load, standing, node: id, crowd, holder, leaving });
        self.changes.push(Change { node: id, own: false }, self.rows.len());
    }

    /// Counts a pod out of its node; `false` if it had none.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(pod) = self.places.remove(key) else { return false };
        let identity = Arc::clone(self.identity(&pod));
        if let Some(group) = identity.group.as_ref().filter(|_| !pod.leaving) {
            self.groups.remove(&group.name);
        }
        let identity = identity.id;
        self.rows[pod.node as usize].remove(&pod.load);
        self.claim_users.remove(&pod.load.claims, pod.node);
        let moved = Move {
            crowd: pod.crowd,
            holder: pod.holder,
            node: pod.node,
            by: -1,
            leaving: pod.leaving,
            new_crowd: false,
            new_holder: false,
        };
        self.census.remove(moved, self.rows.len());
        if self.census.crowds().get(pod.crowd).is_none() {
            self.budgets.forget(identity);
        }
        self.changes.push(Change { node: pod.node, own: false }, self.rows.len());
        self.drop_unused(pod.node);
        true
    }

    /// Takes what decides whether a pod that has a node may be displaced.
    pub fn set_standing(&mut self, key: &Key, standing: Standing) {
        if let Some(node) = self.places.set_standing(key, standing) {
            self.restandings.push(node, self.rows.len());
        }
    }

    /// Takes a new or changed budget.
    pub fn set_budget(&mut self, budget: &PodDisruptionBudget) {
        if self.budgets.set(budget) {
            self.budgets.meet_all(self.census.crowds().iter().map(|(_, crowd)| &*crowd.of));
        }
    }

    /// Forgets a budget.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        if self.budgets.remove(namespace, name) {
            self.budgets.meet_all(self.census.crowds().iter().map(|(_, crowd)| &*crowd.of));
        }
    }

    /// Counts a pod as if it were on a node that is being cleared for it, in decisions about
    /// pods of no higher priority.
    pub fn nominate(&mut self, pod: &PodInfo, node: &str) {
        self.withdraw(&pod.key);
        let (class, kin) = (Arc::clone(&pod.class), Arc::clone(&pod.kin));
        let nomination = Nomination { node: node.into(), class, kin };
        self.nominations.insert(pod.key.clone(), nomination);
        self.renominated(node);
    }

    /// Forgets the node that was being cleared for a pod; gives it if there was one.
    pub(crate) fn withdraw(&mut self, pod: &Key) -> Option<Nomination> {
        let nomination = self.nominations.remove(pod)?;
        self.renominated(&nomination.node);
        Some(nomination)
    }

    fn renominated(&mut self, node: &str) {
        if let Some(node) = self.known(node) {
            self.changes.push(Change { node, own: false }, self.rows.len());
        }
    }

    /// How many pods of a group have a node or shall have one, and are not on their way out.
    pub(crate) fn placed_of(&self, group: &GroupName) -> usize {
        self.groups.of(group)
    }

    /// The nodes that are being cleared for pods.
    pub(crate) const fn nominations(&self) -> &Nominations {
        &self.nominations
    }

    /// The number of the node that was cleared for a pod, if it exists.
    pub(crate) fn nominated_node(&self, pod: &Key) -> Option<u32> {
        self.known(&self.nominations.of(pod)?.node)
    }

    /// Whether a pod that has a node has a lower priority than that.
    pub(crate) fn has_lower(&self, priority: i32) -> bool {
        self.places.has_lower(priority)
    }

    /// The pods on a node.
    pub(crate) fn pods_on(&self, node: u32) -> impl Iterator<Item = &Placed> {
        self.places.on(node)
    }

    pub(crate) const fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Nodes with pods of which the standing changed, and nothing else.
    pub(crate) const fn restandings(&self) -> &Log<u32> {
        &self.restandings
    }

    /// Makes all that decisions about such a pod look at current; `defaults` are the constraints
    /// of pods that have none.
    pub(crate) fn settle(&mut self, kin: &Kin, defaults: &[Constraint]) {
        self.order.settle();
        let terms = kin.terms.iter().flat_map(|terms| terms.all()).map(|term| &term.key);
        let own = kin.constraints.iter().map(|constraint| &constraint.key);
        let default = defaults.iter().map(|constraint| &constraint.key);
        for key in terms.chain(own).chain(default) {
            self.census.domains.register(key, &self.rows);
        }
    }

    pub(crate) fn row(&self, id: u32) -> &NodeInfo {
        &self.rows[id as usize]
    }

    /// Node numbers are below this.
    pub(crate) const fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) const fn order(&self) -> &Order {
        &self.order
    }

    pub(crate) const fn changes(&self) -> &Log<Change> {
        &self.changes
    }

    /// The number of a node that exists.
    pub(crate) fn known(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied().filter(|id| self.row(*id).known)
    }

    fn id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.rows.push(NodeInfo::default());
            u32::try_from(self.rows.len() - 1).expect("fewer than 2^31 nodes")
        });
        name.clone_into(&mut self.rows[id as usize].name);
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn drop_unused(&mut self, id: u32) {
        let row = &mut self.rows[id as usize];
        if !row.known && row.pods == 0 {
            self.ids.remove(&row.name);
            *row = NodeInfo::default();
            self.free.push(id);
        }
    }

    fn forget_image(&mut self, image: &str) {
        if let Some(count) = self.images.get_mut(image) {
            *count -= 1;
            if *count == 0 {
                self.images.remove(image);
            }
        }
    }
}

fn by_name(rows: &[NodeInfo], name: &str) -> impl Fn(u32) -> bool {
    move |other| rows[other as usize].name.as_str() < name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> Node {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
            "status": {"images": [{"names": ["i"], "sizeBytes": 5}]}}))
        .unwrap()
    }

    #[test]
    fn pods_outlive_their_node() {
        let mut snapshot = Snapshot::default();
        let key = |name: &str| Key::new(api::Kind::Pod, "d", name);
        let (load, nobody) = (Arc::new(Load::default()), Presence::default());
        snapshot.add_pod(&key("p"), "u", &nobody, &load, "n2");
        assert!(snapshot.get("n2").is_none() && snapshot.is_empty());
        for (name, zone) in [("n3", "b"), ("n2", "a"), ("n1", "a")] {
            snapshot.set_node(&node(name, zone));
        }
        let names = |s: &Snapshot| s.nodes().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&snapshot), ["n1", "n3", "n2"]);
        snapshot.set_node(&node("n2", "b"));
        assert_eq!(names(&snapshot), ["n1", "n2", "n3"]);
        snapshot.add_pod(&key("q"), "u", &nobody, &load, "n1");
        snapshot.add_pod(&key("r"), "u", &nobody, &load, "n3");
        let on = |s: &Snapshot| {
            let all = s.census().crowds().iter();
            all.map(|(_, crowd)| crowd.on.values().map(|heads| heads.all()).sum())
                .collect::<Vec<i64>>()
        };
        assert_eq!(on(&snapshot), [3]);

        snapshot.remove_node("n2");
        assert_eq!(snapshot.nodes_with_image("i"), 2);
        assert_eq!(snapshot.pod(&key("p")).unwrap().node, "n2");
        snapshot.set_node(&node("n2", "b"));
        assert_eq!(snapshot.get("n2").unwrap().pods, 1);
        snapshot.remove_node("n2");
        assert!(snapshot.remove_pod(&key("p")) && !snapshot.remove_pod(&key("p")));
        snapshot.set_node(&node("n4", ""));
        assert_eq!(
            (names(&snapshot), snapshot.rows()),
            (["n4", "n1", "n3"].map(str::to_owned).into(), 3)
        );
        assert!(snapshot.remove_pod(&key("q")) && snapshot.remove_pod(&key("r")));
        assert!(on(&snapshot).is_empty());
    }
}
