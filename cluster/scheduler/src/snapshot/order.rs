//! The order in which nodes are tried: zones in turn, then by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where a node stands that is not in the order.
const NOWHERE: u32 = u32::MAX;

/// The known nodes by zone, and the order made of them when it is asked for: a cluster is built
/// node by node, and nobody asks in between.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    zone_ids: BTreeMap<String, u32>,
    /// Nodes of each zone, by name.
    zones: Vec<Vec<u32>>,
    nodes: usize,
    order: Vec<u32>,
    /// By node.
    positions: Vec<u32>,
    stale: bool,
    epoch: u64,
    kept: usize,
}

impl Order {
    /// How many nodes there are.
    pub(crate) const fn len(&self) -> usize {
        self.nodes
    }

    /// The number of a zone.
    pub(crate) fn zone_id(&mut self, zone: &str) -> u32 {
        if let Some(id) = self.zone_ids.get(zone) {
            return *id;
        }
        let id = u32::try_from(self.zones.len()).expect("fewer zones than nodes");
        self.zone_ids.insert(zone.to_owned(), id);
        self.zones.push(Vec::new());
        id
    }

    /// Adds a node to a zone; `before` tells which of its nodes have smaller names.
    pub(crate) fn insert(&mut self, zone: u32, node: u32, before: impl Fn(u32) -> bool) {
        let list = &mut self.zones[zone as usize];
        let at = list.partition_point(|other| before(*other));
        list.insert(at, node);
        self.nodes += 1;
        self.stale = true;
    }

    /// Takes a node from its zone.
    pub(crate) fn remove(&mut self, zone: u32, node: u32, before: impl Fn(u32) -> bool) {
        let list = &mut self.zones[zone as usize];
        let at = list.partition_point(|other| before(*other));
        assert_eq!(list.get(at), Some(&node), "a known node is in the list of its zone");
        list.remove(at);
        self.nodes -= 1;
        self.stale = true;
    }

    /// Makes the order current.
    pub(crate) fn settle(&mut self) {
        if !self.stale {
            return;
        }
        let order = self.interleave();
        self.kept = order.iter().zip(&self.order).take_while(|(a, b)| a == b).count();
        for node in &self.order[self.kept..] {
            self.positions[*node as usize] = NOWHERE;
        }
        let nodes = order.iter().max().map_or(0, |most| *most as usize + 1);
        if self.positions.len() < nodes {
            self.positions.resize(nodes, NOWHERE);
        }
        for (position, node) in (0_u32..).zip(&order).skip(self.kept) {
            self.positions[*node as usize] = position;
        }
        self.order = order;
        self.epoch += 1;
        self.stale = false;
    }

    /// The nodes in order.
    pub(crate) fn nodes(&self) -> Cow<'_, [u32]> {
        if self.stale { Cow::Owned(self.interleave()) } else { Cow::Borrowed(&self.order) }
    }

    /// The nodes in order, as of the last [`Self::settle`].
    pub(crate) fn settled(&self) -> &[u32] {
        &self.order
    }

    /// Where a node stands, as of the last [`Self::settle`].
    pub(crate) fn position(&self, node: u32) -> Option<usize> {
        let position = self.positions.get(node as usize).copied().unwrap_or(NOWHERE);
        (position != NOWHERE).then_some(position as usize)
    }

    /// How often the order has changed, and how many nodes the last change left in their place.
    pub(crate) const fn epoch(&self) -> (u64, usize) {
        (self.epoch, self.kept)
    }

    fn interleave(&self) -> Vec<u32> {
        let mut zones: Vec<&[u32]> =
            self.zone_ids.values().map(|id| self.zones[*id as usize].as_slice()).collect();
        let mut order = Vec::with_capacity(self.nodes);
        for turn in 0.. {
            zones.retain(|zone| zone.len() > turn);
            if zones.is_empty() {
                break;
            }
            order.extend(zones.iter().map(|zone| zone[turn]));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_take_turns_and_a_prefix_is_kept() {
        let mut order = Order::default();
        let zones = ["b", "a", "c"].map(|zone| order.zone_id(zone));
        assert_eq!(order.zone_id("a"), zones[1]);
        for (zone, node) in [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (2, 5)] {
            order.insert(zones[zone], node, |other| other < node);
        }
        assert_eq!(*order.nodes(), [3, 0, 5, 4, 1, 2]);
        order.settle();
        assert_eq!((order.settled(), order.position(4)), (&[3, 0, 5, 4, 1, 2][..], Some(3)));
        order.remove(zones[0], 1, |other| other < 1);
        order.settle();
        assert_eq!(order.settled(), [3, 0, 5, 4, 2]);
        assert_eq!((order.epoch(), order.position(1), order.position(2)), ((2, 4), None, Some(4)));
        assert_eq!(order.len(), 5);
    }
}
