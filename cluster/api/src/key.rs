//! Names of objects and versions of the store.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Kind;

/// The store's version counter; an object's `resourceVersion` is the revision of its last write.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Parses a `resourceVersion`; `None` when it is no number.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name: short ones, which is most of them, are held in place, so that keys are compared
/// without a look at other memory. Cloning allocates nothing.
pub type Name = smol_str::SmolStr;

/// The identity of an object: kind, namespace (empty for cluster-scoped kinds) and name.
///
/// Keys are in the order of kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The object's kind.
    pub kind: Kind,
    /// The namespace, empty for cluster-scoped kinds.
    pub namespace: Name,
    /// The name, unique in kind and namespace.
    pub name: Name,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let kinds = self.kind.cmp(&other.kind);
        let namespaces = || order(&self.namespace, &other.namespace);
        kinds.then_with(namespaces).then_with(|| order(&self.name, &other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As `str` compares, but in place: names differ within a few words, or are equal, and are
/// compared so often that calls of the C library are a good part of what a big cluster costs.
pub fn order(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let common = left.len().min(right.len());
    let (a, b) = (&left[..common], &right[..common]);
    let lengths = || left.len().cmp(&right.len());
    let (words, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for (word, other) in words.iter().zip(others) {
        if word != other {
            return u64::from_be_bytes(*word).cmp(&u64::from_be_bytes(*other));
        }
    }
    // What is left is the end of a word that begins earlier, in what is equal.
    if let (Some(word), Some(other)) = (a.last_chunk(), b.last_chunk()) {
        return u64::from_be_bytes(*word).cmp(&u64::from_be_bytes(*other)).then_with(lengths);
    }
    if let (Some(first), Some(last), Some(other_first), Some(other_last)) =
        (a.first_chunk(), a.last_chunk(), b.first_chunk(), b.last_chunk())
    {
        let firsts = u32::from_be_bytes(*first).cmp(&u32::from_be_bytes(*other_first));
        let lasts = || u32::from_be_bytes(*last).cmp(&u32::from_be_bytes(*other_last));
        return firsts.then_with(lasts).then_with(lengths);
    }
    a.cmp(b).then_with(lengths)
}

impl Key {
    /// Makes the key of a namespaced object.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Makes the key of a cluster-scoped object.
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self::new(kind, "", name)
    }

    /// `namespace/name`, or the name alone for cluster-scoped objects.
    pub fn path(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            [&*self.namespace, "/", &*self.name].concat()
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.plural(), self.path())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_in_the_order_of_text(left in "[ab]{0,20}", right in "[abé]{0,20}", same in "[a-c]{0,18}") {
            prop_assert_eq!(order(&left, &right), left.cmp(&right));
            let (left, right) = (format!("{same}{left}"), format!("{same}{right}"));
            prop_assert_eq!(order(&left, &right), left.cmp(&right));
            prop_assert_eq!(order(&left, &left), Ordering::Equal);
        }

        #[test]
        fn keys_are_in_the_order_of_kind_namespace_and_name(
            left in ("[ab]{0,3}", "[ab]{0,3}", 0_usize..3),
            right in ("[ab]{0,3}", "[ab]{0,3}", 0_usize..3),
        ) {
            let key = |(namespace, name, kind): &(String, String, usize)| {
                Key::new(Kind::ALL[*kind], namespace, name)
            };
            let parts = |(namespace, name, kind): &(String, String, usize)| {
                (Kind::ALL[*kind], namespace.clone(), name.clone())
            };
            prop_assert_eq!(key(&left).cmp(&key(&right)), parts(&left).cmp(&parts(&right)));
        }
    }
}
