//! [`Bound`]: the pods that are bound to the node of one host.

use api::{Key, hash};

/// Pods in no order: thousands come and go for each time that all of them are asked for. The
/// hashes lie together, so that one that goes is found without a look at the others.
#[derive(Clone, Default)]
pub(super) struct Bound {
    hashes: Vec<u64>,
    /// In the order of `hashes`.
    keys: Vec<Key>,
}

impl Bound {
    fn find(&self, hash: u64, key: &Key) -> Option<usize> {
        let mut alike = self.hashes.iter().zip(&self.keys);
        alike.position(|(other, known)| *other == hash && known == key)
    }

    /// Adds a pod, once.
    pub(super) fn insert(&mut self, key: &Key) {
        let hash = hash::fold(key);
        if self.find(hash, key).is_some() {
            return;
        }
        if self.keys.len() == self.keys.capacity() {
            // There may be a hundred thousand hosts: doubling would leave much unused.
            let room = 4 + self.keys.len() / 4;
            self.keys.reserve_exact(room);
            self.hashes.reserve_exact(room);
        }
        self.hashes.push(hash);
        self.keys.push(key.clone());
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.find(hash::fold(key), key) {
            self.hashes.swap_remove(at);
            self.keys.swap_remove(at);
        }
        if self.keys.is_empty() {
            *self = Self::default();
        }
    }

    /// All of them, in order.
    pub(super) fn sorted(&self) -> Vec<&Key> {
        let mut keys: Vec<&Key> = self.keys.iter().collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;

    use super::*;

    #[test]
    fn pods_come_once_go_and_are_listed_in_order() {
        let key = |name: &str| Key::new(Kind::Pod, "default", name);
        let mut bound = Bound::default();
        for name in ["c", "a", "b", "a", "d"] {
            bound.insert(&key(name));
        }
        bound.remove(&key("c"));
        bound.remove(&key("nobody"));
        assert_eq!(bound.sorted(), [&key("a"), &key("b"), &key("d")]);
        for name in ["a", "b", "d"] {
            bound.remove(&key(name));
        }
        assert!(bound.sorted().is_empty());
    }
}
