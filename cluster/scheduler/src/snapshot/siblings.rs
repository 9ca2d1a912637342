//! How many pods of each controller are on each node and in each zone.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The pods of one controller.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    owner: String,
    by_node: BTreeMap<u32, u32>,
    /// Of the nodes that exist, as of `epoch`.
    by_zone: BTreeMap<u32, i64>,
    epoch: u64,
}

impl Siblings {
    /// How many there are on a node.
    pub(crate) fn on(&self, node: u32) -> u32 {
        self.by_node.get(&node).copied().unwrap_or(0)
    }

    /// The nodes that have any, with how many.
    pub(crate) const fn nodes(&self) -> &BTreeMap<u32, u32> {
        &self.by_node
    }
}

/// The pods of all controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    ids: BTreeMap<String, u32>,
    owners: Vec<Siblings>,
    free: Vec<u32>,
    /// How often nodes with pods came, went or moved to another zone: sums by zone that are
    /// older have to be made anew.
    epoch: u64,
}

impl Owners {
    /// The number of a controller that has pods.
    pub(crate) fn id(&self, owner: &str) -> Option<u32> {
        self.ids.get(owner).copied()
    }

    /// The pods of a controller.
    pub(crate) fn siblings(&self, owner: u32) -> &Siblings {
        &self.owners[owner as usize]
    }

    /// Counts a pod in. The zone is `None` while there is no such node.
    pub(crate) fn add(&mut self, owner: &str, node: u32, zone: Option<u32>) -> u32 {
        let id = self.id(owner).unwrap_or_else(|| self.make(owner));
        let siblings = &mut self.owners[id as usize];
        *siblings.by_node.entry(node).or_default() += 1;
        if let Some(zone) = zone.filter(|_| siblings.epoch == self.epoch) {
            *siblings.by_zone.entry(zone).or_default() += 1;
        }
        id
    }

    /// Counts a pod out.
    pub(crate) fn remove(&mut self, owner: u32, node: u32, zone: Option<u32>) {
        let siblings = &mut self.owners[owner as usize];
        if let Some(count) = siblings.by_node.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                siblings.by_node.remove(&node);
            }
        }
        if let Some(zone) = zone.filter(|_| siblings.epoch == self.epoch) {
            *siblings.by_zone.entry(zone).or_default() -= 1;
        }
        if siblings.by_node.is_empty() {
            self.ids.remove(&siblings.owner);
            *siblings = Siblings::default();
            self.free.push(owner);
        }
    }

    /// Says that a node with pods came, went or moved to another zone.
    pub(crate) const fn node_moved(&mut self) {
        self.epoch += 1;
    }

    /// Makes the sums by zone current; `zone` tells that of a node that exists.
    pub(crate) fn settle(&mut self, owner: u32, zone: impl Fn(u32) -> Option<u32>) {
        let siblings = &mut self.owners[owner as usize];
        if siblings.epoch != self.epoch {
            siblings.by_zone = sum(&siblings.by_node, zone);
            siblings.epoch = self.epoch;
        }
    }

    /// The sums by zone.
    pub(crate) fn by_zone(
        &self,
        owner: u32,
        zone: impl Fn(u32) -> Option<u32>,
    ) -> Cow<'_, BTreeMap<u32, i64>> {
        let siblings = self.siblings(owner);
        if siblings.epoch == self.epoch {
            Cow::Borrowed(&siblings.by_zone)
        } else {
            Cow::Owned(sum(&siblings.by_node, zone))
        }
    }

    fn make(&mut self, owner: &str) -> u32 {
        let siblings =
            Siblings { owner: owner.to_owned(), epoch: self.epoch, ..Siblings::default() };
        let id = if let Some(id) = self.free.pop() {
            self.owners[id as usize] = siblings;
            id
        } else {
            self.owners.push(siblings);
            u32::try_from(self.owners.len() - 1).expect("fewer controllers than pods")
        };
        self.ids.insert(owner.to_owned(), id);
        id
    }
}

fn sum(by_node: &BTreeMap<u32, u32>, zone: impl Fn(u32) -> Option<u32>) -> BTreeMap<u32, i64> {
    let mut by_zone = BTreeMap::new();
    for (node, count) in by_node {
        if let Some(zone) = zone(*node) {
            *by_zone.entry(zone).or_default() += i64::from(*count);
        }
    }
    by_zone
}
