//! [`Kept`]: what is worth keeping, up to a limit; what was not used for longest goes first.

use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Entry<V> {
    value: V,
    size: usize,
    /// The number of the use that was its last.
    used: u64,
}

/// Values by key, within limits of their number and of their sizes together.
#[derive(Clone, Debug)]
pub(super) struct Kept<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Of all values.
    size: usize,
    uses: u64,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), size: 0, uses: 0 }
    }
}

impl<K: Ord + Copy, V> Kept<K, V> {
    /// The value of a key, made if there is none and then made current; it may have grown to
    /// `size`. Others are forgotten if there are more than `values`, or than `sizes` together.
    pub(super) fn get(
        &mut self,
        key: K,
        (values, sizes): (usize, usize),
        make: impl FnOnce() -> V,
        follow: impl FnOnce(&mut V),
        size: impl Fn(&V) -> usize,
    ) -> &mut V {
        self.uses += 1;
        let known = self.entries.contains_key(&key);
        if self.size > sizes || (!known && self.entries.len() >= values) {
            self.forget_old(key);
        }
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { value: make(), size: 0, used: 0 });
        entry.used = self.uses;
        follow(&mut entry.value);
        self.size -= entry.size;
        entry.size = size(&entry.value);
        self.size += entry.size;
        &mut entry.value
    }

    /// Forgets the half that was not used for longest, but not the value of `key`.
    fn forget_old(&mut self, key: K) {
        let mut used: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        used.sort_unstable();
        let Some(median) = used.get(used.len() / 2).copied() else { return };
        self.entries.retain(|k, entry| *k == key || entry.used > median);
        self.size = self.entries.values().map(|entry| entry.size).sum();
    }

    /// How many values there are, and their sizes together.
    #[cfg(test)]
    pub(super) fn amount(&self) -> (usize, usize) {
        assert_eq!(self.size, self.entries.values().map(|entry| entry.size).sum::<usize>());
        (self.entries.len(), self.size)
    }

    /// All values.
    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }
}
