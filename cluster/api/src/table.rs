//! [`Table`] and [`Ledger`]: maps that find a key by its hash.
//!
//! A hundred thousand names are twenty comparisons away from each other in a tree, each in
//! another place of the memory; a hash finds one at once. The order of a hash map must not decide
//! anything, so a [`Table`] cannot be walked, and a [`Ledger`] is walked in the order of its keys.
//! See [ADR 9](../../../docs/adr/0009-found-by-hash.md).
#![expect(
    clippy::disallowed_types,
    reason = "this is what keeps the order of a hash map out of sight"
)]

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::ops::Bound;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;

/// A map that finds a key by its hash and cannot be walked.
#[derive(Clone)]
pub struct Table<K, V>(HashMap<K, V, FixedState>);

impl<K, V> Table<K, V> {
    /// An empty table.
    pub const fn new() -> Self {
        Self(HashMap::with_hasher(FixedState::with_seed(0)))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// What is known of `key`.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// What is known of `key`, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// The key as it is held, and what is known of it.
    pub fn get_key_value<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.0.get_key_value(key)
    }

    /// Whether `key` is there.
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Puts a value; the one before is given back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Takes a value out.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.remove(key)
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells the size alone: what is in it has no order.
impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table of {}", self.len())
    }
}

/// A map that finds a key by its hash and is walked in the order of its keys. The order is made
/// when somebody walks and kept as long as somebody does; then keys are held twice: they should
/// be small and cheap to clone.
pub struct Ledger<K, V> {
    table: Table<K, V>,
    order: OnceLock<BTreeSet<K>>,
    /// How many keys came or went since the last walk.
    unwalked: AtomicUsize,
}

impl<K, V> Ledger<K, V> {
    /// An empty ledger.
    pub const fn new() -> Self {
        Self { table: Table::new(), order: OnceLock::new(), unwalked: AtomicUsize::new(0) }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl<K: Ord + Hash + Clone, V> Ledger<K, V> {
    /// What is known of `key`.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.table.get(key)
    }

    /// What is known of `key`, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.table.get_mut(key)
    }

    /// The key as it is held, and what is known of it.
    pub fn get_key_value<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.table.get_key_value(key)
    }

    /// Puts a value; the one before is given back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.order.get().is_some() && !self.table.contains_key(&key) {
            self.order_in_use().map(|order| order.insert(key.clone()));
        }
        self.table.insert(key, value)
    }

    /// Takes a value out.
    pub fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.table.remove(key)?;
        if let Some(order) = self.order_in_use() {
            order.remove(key);
        }
        Some(value)
    }

    /// All keys in order, with what is known of them.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order().iter().filter_map(|key| self.table.get_key_value(key))
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.order().iter().filter_map(|key| self.table.get(key))
    }

    /// The keys from `from` on in order, with what is known of them.
    pub fn iter_from<'a, Q: Ord + ?Sized>(
        &'a self,
        from: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, Q, K, V>
    where
        K: Borrow<Q>,
    {
        let keys = self.order().range::<Q, _>((Bound::Included(from), Bound::Unbounded));
        keys.filter_map(|key| self.table.get_key_value::<K>(key))
    }

    fn order(&self) -> &BTreeSet<K> {
        self.unwalked.store(0, Ordering::Relaxed);
        self.order.get_or_init(|| self.table.0.keys().cloned().collect())
    }

    /// The order, to be kept as a key comes or goes. It is dropped when so many did since the last
    /// walk that making it anew costs each of them little.
    fn order_in_use(&mut self) -> Option<&mut BTreeSet<K>> {
        self.order.get()?;
        let unwalked = self.unwalked.get_mut();
        *unwalked += 1;
        if *unwalked > self.table.len() / 2 + 8 {
            *unwalked = 0;
            self.order.take();
        }
        self.order.get_mut()
    }
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whoever walks the copy makes its order.
impl<K: Clone, V: Clone> Clone for Ledger<K, V> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), ..Self::new() }
    }
}

/// Tells the size alone: the order may have to be made.
impl<K, V> fmt::Debug for Ledger<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger of {}", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ledger_is_a_sorted_map(
            writes in prop::collection::vec((0_u8..40, prop::option::of(any::<u8>()), 0_u8..20), 0..300),
            from in 0_u8..40,
        ) {
            let mut ledger = Ledger::new();
            let mut sorted = BTreeMap::new();
            for (key, value, walked) in writes {
                match value {
                    Some(value) => {
                        prop_assert_eq!(ledger.insert(key, value), sorted.insert(key, value));
                    }
                    None => prop_assert_eq!(ledger.remove(&key), sorted.remove(&key)),
                }
                prop_assert_eq!(ledger.get(&key), sorted.get(&key));
                prop_assert_eq!(ledger.len(), sorted.len());
                // So that orders are kept, dropped and made again.
                if walked == 0 {
                    prop_assert!(ledger.iter().eq(sorted.iter()));
                }
            }
            prop_assert!(ledger.clone().iter().eq(sorted.iter()));
            prop_assert!(ledger.values().eq(sorted.values()));
            prop_assert!(ledger.iter_from(&from).eq(sorted.range(from..)));
        }
    }

    #[test]
    fn an_order_that_nobody_walks_is_dropped() {
        let mut ledger = Ledger::new();
        for key in 0..100 {
            ledger.insert(key, ());
        }
        assert!(ledger.order.get().is_none());
        assert_eq!(ledger.iter().count(), 100);
        ledger.insert(100, ());
        assert!(ledger.order.get().is_some());
        for key in 0..40 {
            ledger.remove(&key);
        }
        assert!(ledger.order.get().is_none());
        assert_eq!(ledger.iter().next(), Some((&40, &())));
    }
}
