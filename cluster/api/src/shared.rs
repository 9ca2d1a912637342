//! [`Shared`]: a part of an object that many versions of the object have in common.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value shared by reference count, copied when it is changed while somebody else has it.
///
/// Most writes of an object change one part of it: what they leave alone is not copied, and two
/// versions are seen to agree in it without a look at its contents.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    /// Shares the value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// Whether both are one value in memory: then they are equal, too.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether somebody else has it, too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<T: Clone> Shared<T> {
    /// The value itself, copied if somebody else has it.
    pub fn into_inner(self) -> T {
        Arc::unwrap_or_clone(self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || *self.0 == *other.0
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(ser)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        T::deserialize(de).map(Self::new)
    }
}

/// What was found of values that several objects share: it need not be found again for the next
/// one.
///
/// Values are known by where they are in memory, which nothing else can be for as long as they are
/// held here. They are only ever looked up: nothing depends on where that is.
#[derive(Clone, Debug)]
pub struct Memo<T, V> {
    known: BTreeMap<usize, (Shared<T>, V)>,
}

/// So many values are remembered; then all are forgotten.
const MEMO_MAX: usize = 1_024;

impl<T, V> Default for Memo<T, V> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<T, V> Memo<T, V> {
    /// What was found of the value.
    pub fn get(&self, value: &Shared<T>) -> Option<&V> {
        self.known.get(&address(value)).map(|(_, found)| found)
    }

    /// As [`Memo::get`], to find more.
    pub fn get_mut(&mut self, value: &Shared<T>) -> Option<&mut V> {
        self.known.get_mut(&address(value)).map(|(_, found)| found)
    }

    /// Remembers what was found of the value.
    pub fn insert(&mut self, value: &Shared<T>, found: V) {
        if self.known.len() >= MEMO_MAX {
            self.known.clear();
        }
        self.known.insert(address(value), (value.clone(), found));
    }
}

fn address<T>(value: &Shared<T>) -> usize {
    Arc::as_ptr(&value.0).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_not_seen_by_others() {
        let first = Shared::new(vec![1]);
        let mut second = first.clone();
        assert!(first.is_same(&second));
        second.push(2);
        assert_eq!((&*first, &*second), (&vec![1], &vec![1, 2]));
        assert!(!first.is_same(&second) && first == Shared::new(vec![1]));
    }
    #[test]
    fn a_memo_knows_values_by_where_they_are() {
        let (a, equal) = (Shared::new(1), Shared::new(1));
        let mut memo = Memo::default();
        memo.insert(&a, "a");
        assert_eq!(
            (memo.get(&a), memo.get(&a.clone()), memo.get(&equal)),
            (Some(&"a"), Some(&"a"), None)
        );
        *memo.get_mut(&a).expect("it is known") = "b";
        assert_eq!(memo.get(&a), Some(&"b"));
        for i in 0..2 * MEMO_MAX {
            memo.insert(&Shared::new(i), "x");
        }
        assert!(memo.known.len() <= MEMO_MAX);
    }
}
