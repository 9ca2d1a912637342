//! The pods that have a node, by key and by node.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Table};

use crate::pod_info::{Load, Standing};

/// All that is remembered of a pod that has a node: there may be a million.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) key: Key,
    pub(crate) uid: Box<str>,
    pub(crate) load: Arc<Load>,
    pub(crate) standing: Standing,
    pub(super) node: u32,
    /// The crowd of its identity.
    pub(super) crowd: u32,
    /// The crowd of its terms, or nobody.
    pub(super) holder: u32,
    /// Whether it is being deleted.
    pub(crate) leaving: bool,
}

/// The pods that have a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    slots: Vec<Option<Placed>>,
    free: Vec<u32>,
    ids: Table<Key, u32>,
    /// Slots by node, in no particular order.
    by_node: Vec<Vec<u32>>,
    /// How many pods there are of each priority.
    priorities: BTreeMap<i32, usize>,
}

impl Places {
    pub(super) fn get(&self, key: &Key) -> Option<&Placed> {
        self.slots[*self.ids.get(key)? as usize].as_ref()
    }

    /// The pods on a node.
    pub(super) fn on(&self, node: u32) -> impl Iterator<Item = &Placed> {
        let slots = self.by_node.get(node as usize).into_iter().flatten();
        slots.filter_map(|slot| self.slots[*slot as usize].as_ref())
    }

    /// Whether a pod has a lower priority than that.
    pub(super) fn has_lower(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
    }

    /// Adds a pod that is not there.
    pub(super) fn insert(&mut self, placed: Placed) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer pods than numbers")
        });
        let node = placed.node as usize;
        if self.by_node.len() <= node {
            self.by_node.resize(node + 1, Vec::new());
        }
        self.by_node[node].push(slot);
        *self.priorities.entry(placed.standing.priority).or_default() += 1;
        self.ids.insert(placed.key.clone(), slot);
        self.slots[slot as usize] = Some(placed);
    }

    /// Takes a pod out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Placed> {
        let slot = self.ids.remove(key)?;
        let placed = self.slots[slot as usize].take()?;
        self.free.push(slot);
        let there = &mut self.by_node[placed.node as usize];
        if let Some(at) = there.iter().position(|other| *other == slot) {
            there.swap_remove(at);
        }
        self.forget_priority(placed.standing.priority);
        Some(placed)
    }

    /// Changes the standing of a pod; gives its node if that was another.
    pub(super) fn set_standing(&mut self, key: &Key, standing: Standing) -> Option<u32> {
        let placed = self.slots[*self.ids.get(key)? as usize].as_mut()?;
        let (node, before) = (placed.node, std::mem::replace(&mut placed.standing, standing));
        if before == standing {
            return None;
        }
        *self.priorities.entry(standing.priority).or_default() += 1;
        self.forget_priority(before.priority);
        Some(node)
    }

    fn forget_priority(&mut self, priority: i32) {
        if let Some(count) = self.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&priority);
            }
        }
    }
}
