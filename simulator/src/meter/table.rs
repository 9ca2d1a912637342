//! [`Table`]: numbers by fingerprint, for a million entries in little memory and one cache miss.

use api::hash;

/// The size of a table with hardly anything in it.
const CAPACITY_MIN: usize = 16;
/// Marks a free slot; no entry has this fingerprint.
const FREE: u64 = 0;

/// A map from fingerprints to numbers: open addressing with linear probing, 20 to 40 bytes an
/// entry. Two of a million names have the same fingerprint once in 10⁷ runs; what is counted of
/// them is then wrong, in every repetition alike.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Fingerprint and number; a power of two of them, or none.
    slots: Vec<(u64, u64)>,
    len: usize,
}

/// What stands for a name in a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) const fn of(name: &str) -> Self {
        let hash = hash::fnv64(name.as_bytes());
        Self(if hash == FREE { 1 } else { hash })
    }
}

impl Table {
    /// The entry's number.
    pub(super) fn get(&self, name: Fingerprint) -> Option<u64> {
        self.find(name).map(|at| self.slots[at].1)
    }

    /// Sets the entry's number.
    pub(super) fn insert(&mut self, name: Fingerprint, number: u64) {
        if let Some(at) = self.find(name) {
            self.slots[at].1 = number;
            return;
        }
        // Fuller tables are slow, and emptier ones would take more than 40 bytes an entry when
        // they have just been doubled.
        if (self.len + 1) * 16 > self.slots.len() * 13 {
            self.resize((self.slots.len() * 2).max(CAPACITY_MIN));
        }
        self.place(name.0, number);
        self.len += 1;
    }

    /// Removes the entry and tells its number.
    pub(super) fn remove(&mut self, name: Fingerprint) -> Option<u64> {
        let mut hole = self.find(name)?;
        let number = self.slots[hole].1;
        let mask = self.slots.len() - 1;
        let mut at = hole;
        // Whoever was pushed beyond the hole moves up, so that searches may end at a free slot.
        loop {
            at = (at + 1) & mask;
            let (key, _) = self.slots[at];
            if key == FREE {
                break;
            }
            let pushed = at.wrapping_sub(self.home(key)) & mask;
            if pushed >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = (FREE, 0);
        self.len -= 1;
        if self.slots.len() > CAPACITY_MIN && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
        Some(number)
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn find(&self, name: Fingerprint) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.home(name.0);
        loop {
            match self.slots[at].0 {
                FREE => return None,
                key if key == name.0 => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Where the search for a fingerprint begins: the golden ratio spreads what is alike.
    fn home(&self, key: u64) -> usize {
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(spread).expect("32 bits") & (self.slots.len() - 1)
    }

    fn place(&mut self, key: u64, number: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(key);
        while self.slots[at].0 != FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = (key, number);
    }

    fn resize(&mut self, capacity: usize) {
        let slots = std::mem::replace(&mut self.slots, vec![(FREE, 0); capacity]);
        for (key, number) in slots.into_iter().filter(|(key, _)| *key != FREE) {
            self.place(key, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_takes_at_most_forty_bytes_and_gives_them_back() {
        let name = |i: u32| Fingerprint::of(&format!("pod-{i}"));
        let mut table = Table::default();
        for i in 0..100_000 {
            table.insert(name(i), u64::from(i));
            let bytes = table.slots.len() * size_of::<(u64, u64)>();
            assert!(bytes <= (table.len() * 40).max(CAPACITY_MIN * 16), "{bytes} at {i}");
        }
        for i in 0..100_000 {
            assert_eq!(table.remove(name(i)), Some(u64::from(i)));
        }
        assert_eq!((table.len(), table.slots.len()), (0, CAPACITY_MIN));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..40_u64, any::<bool>()), 0..400)) {
            let mut table = Table::default();
            let mut map = BTreeMap::new();
            for (at, (name, insert)) in steps.into_iter().enumerate() {
                // Multiples of a power of two crowd together.
                let name = Fingerprint(((name + 1) << 58) | ((name & 7) + 1));
                if insert {
                    table.insert(name, at as u64);
                    map.insert(name, at as u64);
                } else {
                    prop_assert_eq!(table.remove(name), map.remove(&name));
                }
                prop_assert_eq!(table.len(), map.len());
                for (name, number) in &map {
                    prop_assert_eq!(table.get(*name), Some(*number));
                }
            }
        }
    }
}
