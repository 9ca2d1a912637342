//! [`Snapshot`]: all nodes and the pods on them, kept current by changes.

mod budgets;
mod changes;
mod nominations;
mod order;
mod places;
mod siblings;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Name};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::node_info::NodeInfo;
use crate::pod_info::{Load, PodInfo, Standing};
pub(crate) use budgets::Budgets;
use changes::Changes;
pub(crate) use nominations::{Nomination, Nominations};
use order::Order;
pub(crate) use places::Placed;
use places::Places;
use siblings::Owners;
pub use siblings::Siblings;

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
    places: Places,
    owners: Owners,
    changes: Changes,
    /// Changes of what decides whether pods may be displaced, and of nothing else.
    restandings: Changes,
    budgets: Budgets,
    nominations: Nominations,
}

/// The owner of pods without a controller: half the size of an `Option`.
const NOBODY: u32 = u32::MAX;

/// A pod that has a node.
#[derive(Clone, Copy, Debug)]
pub struct PlacedPod<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The pod's UID.
    pub uid: &'a str,
    /// What it takes of the node.
    pub load: &'a Arc<Load>,
    /// What decides whether it may be displaced.
    pub standing: Standing,
}

/// How crowded with a pod's siblings the zones are.
#[derive(Clone, Debug)]
pub struct Crowd<'a> {
    /// How many zones have nodes.
    pub zones: usize,
    by_zone: Option<Cow<'a, BTreeMap<u32, i64>>>,
}

impl Crowd<'_> {
    /// How many siblings are in the zone.
    pub fn in_zone(&self, zone_id: u32) -> i64 {
        self.by_zone.as_ref().and_then(|by_zone| by_zone.get(&zone_id)).copied().unwrap_or(0)
    }
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
        let node = &self.row(pod.node).name;
        Some(PlacedPod { node, uid: &pod.uid, load: &pod.load, standing: pod.standing })
    }

    /// On how many nodes an image is present.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Where the pods of a controller are; `None` if it has none.
    pub fn siblings(&self, owner: &str) -> Option<&Siblings> {
        Some(self.owners.siblings(self.owners.id(owner)?))
    }

    /// How crowded the zones are with the pods of a controller.
    pub fn crowd(&self, owner: &str) -> Crowd<'_> {
        let by_zone =
            self.owners.id(owner).map(|id| self.owners.by_zone(id, |node| self.zone_of(node)));
        Crowd { zones: self.order.zones(), by_zone }
    }

    /// Takes a new or changed node.
    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let id = self.id(name);
        let mut info = self.row(id).clone();
        info.set(node);
        info.zone_id = self.order.zone_id(info.zone());
        let before = std::mem::replace(&mut self.rows[id as usize], info);
        let now = &self.rows[id as usize];
        if before == *now {
            return;
        }
        for image in now.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        let (zone, pods) = (now.zone_id, now.pods);
        for image in before.images.keys() {
            self.forget_image(image);
        }
        if !before.known || before.zone_id != zone {
            if before.known {
                self.order.remove(before.zone_id, id, by_name(&self.rows, name));
            }
            self.order.insert(zone, id, by_name(&self.rows, name));
            if pods > 0 {
                self.owners.node_moved();
            }
        }
        self.changes.push(id, true, self.rows.len());
    }

    /// Forgets a node; pods bound to it stay counted in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.known(name) else { return };
        self.order.remove(self.row(id).zone_id, id, by_name(&self.rows, name));
        let row = &mut self.rows[id as usize];
        row.known = false;
        let images = std::mem::take(&mut row.images);
        if row.pods > 0 {
            self.owners.node_moved();
        }
        for image in images.keys() {
            self.forget_image(image);
        }
        self.changes.push(id, true, self.rows.len());
        self.drop_unused(id);
    }

    /// Counts a pod in on a node, which need not exist yet. `owner` is the UID of its
    /// controller, empty if it has none. See [`Self::set_labels`] for what budgets there may be.
    pub fn add_pod(
        &mut self,
        key: &Key,
        uid: &str,
        owner: &str,
        (load, standing): (&Arc<Load>, Standing),
        node: &str,
    ) {
        self.remove_pod(key);
        let id = self.id(node);
        let zone = self.zone_of(id);
        self.rows[id as usize].add(load);
        let owner = if owner.is_empty() { NOBODY } else { self.owners.add(owner, id, zone) };
        self.places.insert(Placed {
            key: key.clone(),
            uid: uid.into(),
            load: Arc::clone(load),
            standing,
            budgets: None,
            node: id,
            owner,
        });
        self.changes.push(id, false, self.rows.len());
    }

    /// Counts a pod out of its node; `false` if it had none.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(pod) = self.places.remove(key) else { return false };
        let zone = self.zone_of(pod.node);
        self.rows[pod.node as usize].remove(&pod.load);
        if pod.owner != NOBODY {
            self.owners.remove(pod.owner, pod.node, zone);
        }
        self.changes.push(pod.node, false, self.rows.len());
        self.drop_unused(pod.node);
        true
    }

    /// Takes what decides whether a pod that has a node may be displaced.
    pub fn set_standing(&mut self, key: &Key, standing: Standing) {
        if let Some(node) = self.places.set_standing(key, standing) {
            self.restandings.push(node, false, self.rows.len());
        }
    }

    /// Takes the labels of a pod that has a node: they tell which budgets it counts for.
    pub fn set_labels(&mut self, key: &Key, labels: Option<&BTreeMap<String, String>>) {
        let budgets = self.budgets.list(&key.namespace, labels);
        if let Some(node) = self.places.set_budgets(key, budgets) {
            self.restandings.push(node, false, self.rows.len());
        }
    }

    /// Takes a new or changed budget; `true` if the labels of all pods of its namespace have to
    /// be taken again.
    pub fn set_budget(&mut self, budget: &PodDisruptionBudget) -> bool {
        self.budgets.set(budget)
    }

    /// Forgets a budget; `true` if the labels of all pods of its namespace have to be taken again.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) -> bool {
        self.budgets.remove(namespace, name)
    }

    /// Counts a pod as if it were on a node that is being cleared for it, in decisions about
    /// pods of no higher priority.
    pub fn nominate(&mut self, pod: &PodInfo, node: &str) {
        self.withdraw(&pod.key);
        let nomination = Nomination { node: node.into(), class: Arc::clone(&pod.class) };
        self.nominations.insert(pod.key.clone(), nomination);
        self.renominated(node);
    }

    /// Forgets the node that was being cleared for a pod; gives its name, if there was one.
    pub fn withdraw(&mut self, pod: &Key) -> Option<Name> {
        let node = self.nominations.remove(pod)?.node;
        self.renominated(&node);
        Some(node)
    }

    fn renominated(&mut self, node: &str) {
        if let Some(id) = self.known(node) {
            self.changes.push(id, false, self.rows.len());
        }
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

    /// Changes of what decides whether pods may be displaced, that are no other changes.
    pub(crate) const fn restandings(&self) -> &Changes {
        &self.restandings
    }

    /// Makes all that decisions about pods of `owner` look at current.
    pub(crate) fn settle(&mut self, owner: &str) {
        self.order.settle();
        if let Some(owner) = self.owners.id(owner) {
            let rows = &self.rows;
            self.owners.settle(owner, |node| zone_of(&rows[node as usize]));
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

    pub(crate) const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The number of a controller that has pods.
    pub(crate) fn owner_id(&self, owner: &str) -> Option<u32> {
        self.owners.id(owner)
    }

    pub(crate) fn siblings_of(&self, owner: u32) -> &Siblings {
        self.owners.siblings(owner)
    }

    /// The number of a node that exists.
    pub(crate) fn known(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied().filter(|id| self.row(*id).known)
    }

    fn zone_of(&self, node: u32) -> Option<u32> {
        zone_of(self.row(node))
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

fn zone_of(row: &NodeInfo) -> Option<u32> {
    row.known.then_some(row.zone_id)
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
    fn pods_outlive_their_node_and_count_in_its_new_zone() {
        let mut snapshot = Snapshot::default();
        let key = |name: &str| Key::new(api::Kind::Pod, "d", name);
        let load = Arc::new(Load::default());
        let load = (&load, Standing::default());
        snapshot.add_pod(&key("p"), "u", "rs", load, "n2");
        assert!(snapshot.get("n2").is_none() && snapshot.is_empty());
        for (name, zone) in [("n3", "b"), ("n2", "a"), ("n1", "a")] {
            snapshot.set_node(&node(name, zone));
        }
        let names = |s: &Snapshot| s.nodes().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&snapshot), ["n1", "n3", "n2"]);
        let in_zone = |snapshot: &Snapshot, node: &str| {
            let zone = snapshot.get(node).unwrap().zone_id;
            snapshot.crowd("rs").in_zone(zone)
        };
        assert_eq!((in_zone(&snapshot, "n1"), in_zone(&snapshot, "n3")), (1, 0));
        snapshot.settle("rs");
        snapshot.set_node(&node("n2", "b"));
        assert_eq!(names(&snapshot), ["n1", "n2", "n3"]);
        assert_eq!((in_zone(&snapshot, "n1"), in_zone(&snapshot, "n3")), (0, 1));
        snapshot.add_pod(&key("q"), "u", "rs", load, "n1");
        snapshot.settle("rs");
        snapshot.add_pod(&key("r"), "u", "rs", load, "n3");
        assert_eq!((in_zone(&snapshot, "n1"), in_zone(&snapshot, "n3")), (1, 2));

        snapshot.remove_node("n2");
        assert_eq!((in_zone(&snapshot, "n3"), snapshot.nodes_with_image("i")), (1, 2));
        assert_eq!(snapshot.pod(&key("p")).unwrap().node, "n2");
        snapshot.set_node(&node("n2", "b"));
        assert_eq!((in_zone(&snapshot, "n3"), snapshot.get("n2").unwrap().pods), (2, 1));
        snapshot.remove_node("n2");
        assert!(snapshot.remove_pod(&key("p")) && !snapshot.remove_pod(&key("p")));
        snapshot.set_node(&node("n4", ""));
        assert_eq!(
            (names(&snapshot), snapshot.rows()),
            (["n4", "n1", "n3"].map(str::to_owned).into(), 3)
        );
        assert_eq!(snapshot.siblings("rs").unwrap().nodes().len(), 2);
    }
}
