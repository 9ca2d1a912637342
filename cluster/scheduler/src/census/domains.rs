//! Which nodes are one place, by topology key.

use std::collections::BTreeMap;

use crate::node_info::NodeInfo;

/// The number of a topology key.
pub(crate) type KeyId = u32;

/// The domain of nodes that do not exist.
pub(crate) const GONE: u32 = u32::MAX;
/// The domain of nodes that lack the key.
pub(crate) const LACKING: u32 = u32::MAX - 1;

/// So many keys are numbered: more than a cluster has labels for. Pods that use others are
/// decided about by the reference.
const KEYS_MAX: usize = 256;

/// The domains of nodes by the keys that are in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    ids: BTreeMap<String, KeyId>,
    keys: Vec<OfKey>,
    /// How often nodes came, went, or changed their labels.
    epoch: u64,
    /// How often nodes changed their taints.
    taints_epoch: u64,
}

/// The domains of one key. The first is that of nodes whose label is empty.
#[derive(Clone, Debug)]
struct OfKey {
    key: String,
    ids: BTreeMap<String, u32>,
    /// By domain: the value of the label.
    values: Vec<String>,
    /// How many nodes each domain has.
    nodes: Vec<u32>,
    free: Vec<u32>,
    /// By node.
    of_node: Vec<u32>,
}

impl OfKey {
    fn set(&mut self, node: u32, row: &NodeInfo) {
        let at = node as usize;
        if self.of_node.len() <= at {
            self.of_node.resize(at + 1, GONE);
        }
        let before = self.of_node[at];
        self.of_node[at] = match row.labels.get(&self.key) {
            _ if !row.known => GONE,
            None => LACKING,
            Some(value) => self.enter(value),
        };
        if before < LACKING {
            self.nodes[before as usize] -= 1;
            // The first is always there.
            if self.nodes[before as usize] == 0 && before != 0 {
                self.ids.remove(&std::mem::take(&mut self.values[before as usize]));
                self.free.push(before);
            }
        }
    }

    fn enter(&mut self, value: &str) -> u32 {
        let id = self.ids.get(value).copied().unwrap_or_else(|| {
            let id = self.free.pop().unwrap_or_else(|| {
                self.nodes.push(0);
                self.values.push(String::new());
                u32::try_from(self.nodes.len() - 1).expect("fewer domains than nodes")
            });
            self.ids.insert(value.to_owned(), id);
            value.clone_into(&mut self.values[id as usize]);
            id
        });
        self.nodes[id as usize] += 1;
        id
    }
}

impl Domains {
    /// Numbers a key; `None` if there are too many.
    pub(crate) fn register(&mut self, key: &str, rows: &[NodeInfo]) -> Option<KeyId> {
        if let Some(id) = self.ids.get(key) {
            return Some(*id);
        }
        if self.keys.len() >= KEYS_MAX {
            return None;
        }
        let mut of_key = OfKey {
            key: key.to_owned(),
            ids: BTreeMap::from([(String::new(), 0)]),
            values: vec![String::new()],
            nodes: vec![0],
            free: Vec::new(),
            of_node: Vec::new(),
        };
        for (node, row) in (0_u32..).zip(rows) {
            of_key.set(node, row);
        }
        let id = u32::try_from(self.keys.len()).expect("few keys");
        self.keys.push(of_key);
        self.ids.insert(key.to_owned(), id);
        Some(id)
    }

    /// The number of a key, if it has one.
    pub(crate) fn id(&self, key: &str) -> Option<KeyId> {
        self.ids.get(key).copied()
    }

    /// Takes a node's labels: none if it is gone.
    pub(crate) fn set_node(&mut self, node: u32, row: &NodeInfo) {
        self.epoch += 1;
        for of_key in &mut self.keys {
            of_key.set(node, row);
        }
    }

    /// Says that a node's taints changed.
    pub(crate) const fn taints_changed(&mut self) {
        self.taints_epoch += 1;
    }

    /// How often nodes came, went or changed their labels, and how often their taints.
    pub(crate) const fn epochs(&self) -> (u64, u64) {
        (self.epoch, self.taints_epoch)
    }

    /// The domain of each node by a key; nodes beyond the end do not exist.
    pub(crate) fn of_nodes(&self, key: KeyId) -> &[u32] {
        &self.keys[key as usize].of_node
    }

    /// How many nodes each domain of a key has; some may have none.
    pub(crate) fn sizes(&self, key: KeyId) -> &[u32] {
        &self.keys[key as usize].nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_nodes() {
        let row = |zone: Option<&str>| NodeInfo {
            known: true,
            labels: zone.map(|zone| ("zone".to_owned(), zone.to_owned())).into_iter().collect(),
            ..NodeInfo::default()
        };
        let mut domains = Domains::default();
        let rows = [row(Some("a")), row(None), row(Some("b")), row(Some(""))];
        let zone = domains.register("zone", &rows).unwrap();
        assert_eq!(domains.of_nodes(zone), [1, LACKING, 2, 0]);
        domains.set_node(0, &row(Some("b")));
        domains.set_node(5, &row(Some("c")));
        assert_eq!(domains.of_nodes(zone), [2, LACKING, 2, 0, GONE, 1]);
        domains.set_node(3, &NodeInfo { known: false, ..row(Some("c")) });
        assert_eq!(domains.of_nodes(zone), [2, LACKING, 2, GONE, GONE, 1]);
        assert_eq!(domains.sizes(zone), [0, 1, 2]);
        assert_eq!((domains.id("zone"), domains.id("rack")), (Some(zone), None));
        for i in 1..KEYS_MAX {
            assert!(domains.register(&i.to_string(), &rows).is_some());
        }
        assert!(domains.register("one too many", &rows).is_none());
    }
}
