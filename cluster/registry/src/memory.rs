//! [`Memory`]: a versioned key-value store in memory, with the semantics the API needs of etcd.
//!
//! It answers at once, so the simulator and tests decide when and whether an answer arrives. The
//! types of its methods are the vocabulary of every store: bytes where objects leave the process,
//! [`api::Object`] where they do not.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use api::{Ledger, Revision};
use bytes::Bytes;

/// A value as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<V = Bytes> {
    /// The key.
    pub key: String,
    /// The value.
    pub value: V,
    /// The revision of its last write.
    pub revision: Revision,
}

/// One write as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<V = Bytes, K = Arc<str>> {
    /// The key.
    pub key: K,
    /// The new value; `None` when the key was deleted.
    pub value: Option<V>,
    /// The revision of the write.
    pub revision: Revision,
}

/// One transaction: a write of one key, and of others with it, on condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<V = Bytes, K = Arc<str>> {
    /// The key that is written.
    pub key: K,
    /// The revision the key must have; zero when it must be absent.
    pub expected: Revision,
    /// The new value; `None` deletes the key.
    pub value: Option<V>,
    /// Claims that must be free and become taken. They are no keys: nothing lists or watches
    /// them.
    pub take: Vec<String>,
    /// Claims that become free.
    pub free: Vec<String>,
    /// Other keys that are written with it.
    pub besides: Vec<Beside<V, K>>,
}

/// Another key that a transaction writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside<V = Bytes, K = Arc<str>> {
    /// The key that is written.
    pub key: K,
    /// The revision that it must have.
    pub expected: Revision,
    /// The new value.
    pub value: V,
}

/// Why a transaction wrote nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal<V = Bytes> {
    /// The key has another revision; this is what it holds, and since when.
    Conflict(Option<(Revision, V)>),
    /// This claim is taken.
    Taken(String),
    /// A key that is written besides has another revision.
    Moved,
}

/// A page of a range, read at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<V = Bytes> {
    /// In order of their keys.
    pub records: Vec<Record<V>>,
    /// Whether keys follow that did not fit.
    pub more: bool,
    /// The revision that was read.
    pub revision: Revision,
}

/// The history that was asked for is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// History up to and including this revision is gone.
    pub through: Revision,
}

/// A write and what undoes it.
#[derive(Clone, Debug)]
struct Logged<V, K> {
    change: Change<V, K>,
    /// What the key held before.
    previous: Option<Held<V>>,
}

/// What a key holds.
#[derive(Clone, Debug)]
struct Held<V> {
    revision: Revision,
    value: V,
}

/// A versioned key-value store in memory.
///
/// Every successful [`Memory::commit`] raises the revision by one. Old versions are kept until
/// [`Memory::compact`]. Values and keys are cloned: they should be cheap to share.
#[derive(Clone, Debug)]
pub struct Memory<V = Bytes, K = Arc<str>> {
    revision: Revision,
    compacted: Revision,
    present: Ledger<K, Held<V>>,
    claims: BTreeSet<String>,
    /// All writes above `compacted`. The past is the present with these undone, so that
    /// forgetting it costs nothing but the writes that are forgotten.
    log: VecDeque<Logged<V, K>>,
}

impl<V, K: Ord + Hash + Clone> Default for Memory<V, K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V, K: Ord + Hash + Clone> Memory<V, K> {
    /// Makes an empty store, at revision 1 as etcd does.
    pub const fn new() -> Self {
        Self {
            revision: Revision(1),
            compacted: Revision(0),
            present: Ledger::new(),
            claims: BTreeSet::new(),
            log: VecDeque::new(),
        }
    }

    /// The revision of the last write.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The number of keys that hold a value.
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether no key holds a value.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// The key as it is held here, the revision of its last write and its value.
    pub fn get_ref<Q>(&self, key: &Q) -> Option<(&K, Revision, &V)>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        self.present.get_key_value(key).map(|(key, held)| (key, held.revision, &held.value))
    }

    /// The keys from `from` on for as long as they are `within`, in order, with what they hold
    /// and the revision of their last write.
    pub fn iter_within<'a, Q, F>(
        &'a self,
        from: &Q,
        within: F,
    ) -> impl Iterator<Item = (&'a K, Revision, &'a V)> + use<'a, Q, F, V, K>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
        F: Fn(&K) -> bool + 'a,
    {
        self.present
            .iter_from(from)
            .take_while(move |(key, _)| within(key))
            .map(|(key, held)| (key, held.revision, &held.value))
    }

    /// All writes with revisions above `after`, in order.
    ///
    /// # Errors
    /// `after` lies in history that was compacted.
    pub fn changes(
        &self,
        after: Revision,
    ) -> Result<impl Iterator<Item = &Change<V, K>>, Compacted> {
        if after < self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        Ok(self.log_after(after).map(|logged| &logged.change))
    }

    /// As [`Memory::changes`], with what each key held before.
    ///
    /// # Errors
    /// `after` lies in history that was compacted.
    pub fn changes_and_before(
        &self,
        after: Revision,
    ) -> Result<impl Iterator<Item = (&Change<V, K>, Option<&V>)>, Compacted> {
        if after < self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        Ok(self.log_after(after).map(|logged| {
            let before = logged.previous.as_ref().map(|held| &held.value);
            (&logged.change, before)
        }))
    }

    /// The last write; `None` when it was compacted.
    pub fn last_change(&self) -> Option<&Change<V, K>> {
        self.log.back().map(|logged| &logged.change)
    }

    /// Forgets history: reads and watches from before `through` fail from now on. Revisions
    /// above the current one count as the current one. Takes time in proportion to the writes
    /// that are forgotten.
    pub fn compact(&mut self, through: Revision) {
        self.compacted = self.compacted.max(through.min(self.revision));
        while self.log.front().is_some_and(|l| l.change.revision <= self.compacted) {
            self.log.pop_front();
        }
    }

    fn log_after(&self, after: Revision) -> impl DoubleEndedIterator<Item = &Logged<V, K>> {
        let start = self.log.partition_point(|l| l.change.revision <= after);
        self.log.range(start..)
    }

    /// As [`Memory::iter_within`], but as it was at the revision `at`.
    ///
    /// # Errors
    /// `at` was compacted.
    pub fn past_within<'a, Q, F>(
        &'a self,
        from: &Q,
        within: F,
        at: Revision,
    ) -> Result<impl Iterator<Item = (&'a K, Revision, &'a V)> + use<'a, Q, F, V, K>, Compacted>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
        F: Fn(&K) -> bool + Copy + 'a,
    {
        if at < self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        let mut undone = self.undone(from, within, at).into_iter().peekable();
        let mut present = self.iter_within(from, within).peekable();
        Ok(std::iter::from_fn(move || {
            loop {
                let past = match (present.peek(), undone.peek()) {
                    (None, None) => return None,
                    (Some((key, ..)), Some((past, _))) => key >= past,
                    (present, _) => present.is_none(),
                };
                if !past {
                    return present.next();
                }
                let (key, held) = undone.next()?;
                present.next_if(|(now, ..)| *now == key);
                if let Some(held) = held {
                    return Some((key, held.revision, &held.value));
                }
            }
        }))
    }

    /// What keys held at a revision that have been written since.
    fn undone<'a, Q>(
        &'a self,
        from: &Q,
        within: impl Fn(&K) -> bool,
        at: Revision,
    ) -> BTreeMap<&'a K, Option<&'a Held<V>>>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        let mut undone = BTreeMap::new();
        for Logged { change, previous } in self.log_after(at) {
            if within(&change.key) && change.key.borrow() >= from {
                // The first write after the revision knows what was there.
                undone.entry(&change.key).or_insert(previous.as_ref());
            }
        }
        undone
    }
}

impl<V> Memory<V> {
    /// The keys that start with `prefix` and are not below `from`, in order, with what they hold
    /// and the revision of their last write.
    pub fn iter_from<'a>(
        &'a self,
        prefix: &'a str,
        from: &str,
    ) -> impl Iterator<Item = (&'a Arc<str>, Revision, &'a V)> {
        let from = if from > prefix { from } else { prefix };
        self.iter_within(from, move |key: &Arc<str>| key.starts_with(prefix))
    }
}

impl<V: Clone> Memory<V> {
    /// The value that `key` holds.
    pub fn get(&self, key: &str) -> Option<Record<V>> {
        let (_, revision, value) = self.get_ref(key)?;
        Some(Record { key: key.to_owned(), value: value.clone(), revision })
    }

    /// Up to `limit` (zero: any number of) records whose keys start with `prefix` and are not
    /// below `from`, as they were at the revision `at`, or now.
    ///
    /// # Errors
    /// `at` was compacted.
    pub fn range(
        &self,
        prefix: &str,
        from: &str,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page<V>, Compacted> {
        let at = at.unwrap_or(self.revision);
        let from = if from > prefix { from } else { prefix };
        let past = self.past_within(from, |key: &Arc<str>| key.starts_with(prefix), at)?;
        let mut page = Page { records: Vec::new(), more: false, revision: at };
        for (key, revision, value) in past {
            if limit > 0 && page.records.len() == limit {
                page.more = true;
                break;
            }
            page.records.push(Record { key: key.to_string(), value: value.clone(), revision });
        }
        Ok(page)
    }
}

impl<V: Clone, K: Ord + Hash + Clone> Memory<V, K> {
    /// Carries out one transaction, wholly or not at all.
    ///
    /// # Errors
    /// The key, or one besides, has another revision than expected, or a claim to take is taken.
    pub fn commit(&mut self, commit: Commit<V, K>) -> Result<Revision, Refusal<V>> {
        let held = self.present.get_key_value(&commit.key);
        if held.map_or(Revision(0), |(_, held)| held.revision) != commit.expected {
            return Err(Refusal::Conflict(held.map(|(_, h)| (h.revision, h.value.clone()))));
        }
        // The key as it is held: then its name is in memory once.
        let known = held.map(|(key, _)| key.clone());
        if let Some(claim) = commit.take.iter().find(|c| self.claims.contains(*c)) {
            return Err(Refusal::Taken(claim.clone()));
        }
        let revision_of = |key: &K| self.present.get(key).map(|held| held.revision);
        if commit.besides.iter().any(|b| revision_of(&b.key) != Some(b.expected)) {
            return Err(Refusal::Moved);
        }
        self.claims.extend(commit.take);
        for claim in &commit.free {
            self.claims.remove(claim);
        }
        let revision = Revision(self.revision.0 + 1);
        self.revision = revision;
        let key = known.unwrap_or(commit.key);
        let previous = match commit.value.clone() {
            Some(value) => self.present.insert(key.clone(), Held { revision, value }),
            None => match self.present.remove(&key) {
                // Deleting what is not there only raises the revision.
                None => return Ok(revision),
                previous => previous,
            },
        };
        let change = Change { key, value: commit.value, revision };
        self.log.push_back(Logged { change, previous });
        for Beside { key, value, .. } in commit.besides {
            let held = Held { revision, value: value.clone() };
            let previous = self.present.insert(key.clone(), held);
            let change = Change { key, value: Some(value), revision };
            self.log.push_back(Logged { change, previous });
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &str, expected: u64, value: &str) -> Commit {
        Commit {
            key: key.into(),
            expected: Revision(expected),
            value: Some(Bytes::from(value.to_owned())),
            take: Vec::new(),
            free: Vec::new(),
            besides: Vec::new(),
        }
    }

    #[test]
    fn keys_besides_are_written_with_the_key_or_not_at_all() {
        let mut store = Memory::new();
        store.commit(put("q", 0, "1")).unwrap();
        let beside = |expected, value: &str| Beside {
            key: "q".into(),
            expected: Revision(expected),
            value: Bytes::from(value.to_owned()),
        };
        let with = |key: &str, beside| Commit { besides: vec![beside], ..put(key, 0, "x") };
        assert_eq!(store.commit(with("a", beside(2, "2"))), Ok(Revision(3)));
        assert_eq!(store.commit(with("b", beside(2, "3"))), Err(Refusal::Moved));
        assert_eq!(store.get("b"), None);
        let held = store.get("q").unwrap();
        assert_eq!((held.revision, &held.value[..]), (Revision(3), &b"2"[..]));
        let told: Vec<_> = store.changes(Revision(2)).unwrap().map(|c| &*c.key).collect();
        assert_eq!(told, ["a", "q"]);
        let before = store.range("", "", 0, Some(Revision(2))).unwrap();
        assert_eq!(before.records.len(), 1);
        assert_eq!(before.records[0].value, Bytes::from("1"));
    }

    #[test]
    fn of_two_writers_with_the_same_expectation_one_wins() {
        let mut store = Memory::new();
        assert_eq!(store.commit(put("a", 0, "1")), Ok(Revision(2)));
        assert_eq!(store.commit(put("a", 2, "2")), Ok(Revision(3)));
        let Err(Refusal::Conflict(Some(current))) = store.commit(put("a", 2, "3")) else {
            panic!("the second writer must lose")
        };
        assert_eq!((&current.1[..], current.0), (&b"2"[..], Revision(3)));
        assert_eq!(store.revision(), Revision(3));
    }

    #[test]
    fn claims_are_unique_until_freed() {
        let mut store = Memory::new();
        let claim = |key: &str| Commit { take: vec!["c".to_owned()], ..put(key, 0, "x") };
        store.commit(claim("a")).unwrap();
        assert_eq!(store.commit(claim("b")), Err(Refusal::Taken("c".to_owned())));
        let free = Commit { value: None, free: vec!["c".to_owned()], ..put("a", 2, "") };
        store.commit(free).unwrap();
        store.commit(claim("b")).unwrap();
        assert_eq!(store.get("a"), None);
    }

    #[test]
    fn old_revisions_can_be_read_until_compacted() {
        let mut store = Memory::new();
        store.commit(put("p/a", 0, "1")).unwrap();
        store.commit(put("p/b", 0, "1")).unwrap();
        store.commit(Commit { value: None, ..put("p/a", 2, "") }).unwrap();
        let keys = |page: Page| page.records.into_iter().map(|r| r.key).collect::<Vec<_>>();
        assert_eq!(keys(store.range("p/", "", 0, Some(Revision(3))).unwrap()), ["p/a", "p/b"]);
        assert_eq!(keys(store.range("p/", "", 0, None).unwrap()), ["p/b"]);
        let first = store.range("p/", "", 1, Some(Revision(3))).unwrap();
        assert!(first.more);
        assert_eq!(keys(store.range("p/", "p/a\0", 1, Some(Revision(3))).unwrap()), ["p/b"]);
        store.compact(Revision(4));
        assert!(store.range("p/", "", 0, Some(Revision(3))).is_err());
        assert!(store.changes(Revision(3)).is_err());
        assert_eq!(store.changes(Revision(4)).unwrap().count(), 0);
        assert_eq!(keys(store.range("p/", "", 0, None).unwrap()), ["p/b"]);
    }

    #[test]
    fn what_a_commit_wrote_can_be_borrowed() {
        let mut store = Memory::new();
        store.commit(put("p/a", 0, "1")).unwrap();
        store.commit(put("q/a", 0, "2")).unwrap();
        let value = Bytes::from("2");
        assert_eq!(store.get_ref("q/a"), Some((&"q/a".into(), Revision(3), &value)));
        let last = store.last_change().unwrap();
        assert_eq!((&*last.key, last.value.as_ref()), ("q/a", Some(&value)));
        let found: Vec<_> = store.iter_from("p/", "").map(|(k, r, _)| (&**k, r)).collect();
        assert_eq!(found, [("p/a", Revision(2))]);
        store.compact(Revision(3));
        assert_eq!(store.last_change(), None);
        assert_eq!(store.len(), 2);
    }

    proptest! {
        /// Every revision that was not compacted can be read as it was, in pages of any size.
        #[test]
        fn the_past_is_read_as_it_was(
            writes in prop::collection::vec((0_u8..6, prop::bool::weighted(0.3), 0_u64..12), 1..50),
            limit in 0_usize..4,
        ) {
            let mut store = Memory::new();
            let mut past = BTreeMap::new();
            for (key, delete, back) in writes {
                let key = format!("{}/{key}", ["a", "b"][usize::from(key % 2)]);
                let expected = store.get(&key).map_or(0, |r| r.revision.0);
                let mut commit = put(&key, expected, &store.revision().to_string());
                if delete {
                    commit.value = None;
                }
                store.commit(commit).unwrap();
                past.insert(store.revision(), store.range("", "", 0, None).unwrap().records);
                if back > 6 {
                    store.compact(Revision(store.revision().0 - back.min(store.revision().0)));
                }
            }
            for (at, records) in past {
                let (mut read, mut from) = (Vec::new(), String::new());
                loop {
                    let Ok(page) = store.range("a/", &from, limit, Some(at)) else {
                        prop_assert!(store.changes(at).is_err());
                        break;
                    };
                    prop_assert!(limit == 0 || page.records.len() <= limit);
                    let last = page.records.last().map(|r| format!("{}\0", r.key));
                    read.extend(page.records);
                    if !page.more {
                        let there = records.into_iter().filter(|r| r.key.starts_with("a/"));
                        prop_assert_eq!(read, there.collect::<Vec<_>>());
                        break;
                    }
                    from = last.expect("a page that is not the last has a record");
                }
            }
        }

        /// Revisions strictly increase, and replaying the changes gives the state.
        #[test]
        fn replayed_changes_are_the_state(
            writes in prop::collection::vec((0_u8..5, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let mut store = Memory::new();
            for (key, stale, delete) in writes {
                let key = format!("k{key}");
                let now = store.get(&key).map_or(0, |r| r.revision.0);
                let before = store.revision();
                let mut commit = put(&key, if stale { now + 1 } else { now }, "v");
                if delete {
                    commit.value = None;
                }
                match store.commit(commit) {
                    Ok(revision) => prop_assert!(!stale && revision > before),
                    Err(_) => prop_assert!(stale && store.revision() == before),
                }
            }
            let mut replayed = BTreeMap::new();
            let mut last = Revision(0);
            let mut values: BTreeMap<String, Bytes> = BTreeMap::new();
            for (change, before) in store.changes_and_before(Revision(0)).unwrap() {
                prop_assert!(change.revision > last);
                last = change.revision;
                let held = values.remove(&*change.key);
                prop_assert_eq!(held.as_ref(), before);
                match &change.value {
                    Some(value) => {
                        values.insert(change.key.to_string(), value.clone());
                        replayed.insert(change.key.to_string(), change.revision)
                    }
                    None => replayed.remove(&*change.key),
                };
            }
            let page = store.range("", "", 0, None).unwrap();
            let state: BTreeMap<_, _> =
                page.records.into_iter().map(|r| (r.key, r.revision)).collect();
            prop_assert_eq!(state, replayed);
        }
    }
}
