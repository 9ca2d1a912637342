//! [`Memory`]: a versioned key-value store in memory, with the semantics the API needs of etcd.
//!
//! It answers at once, so the simulator and tests decide when and whether an answer arrives. The
//! types of its methods are the vocabulary of every store.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use api::Revision;
use bytes::Bytes;

/// A value as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision of its last write.
    pub revision: Revision,
}

/// One write as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The new value; `None` when the key was deleted.
    pub value: Option<Bytes>,
    /// The revision of the write.
    pub revision: Revision,
}

/// One transaction: a write of one key, on condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The key that is written.
    pub key: String,
    /// The revision the key must have; zero when it must be absent.
    pub expected: Revision,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    /// Keys that must be absent and are created, holding the name of `key`.
    pub take: Vec<String>,
    /// Keys that are deleted.
    pub free: Vec<String>,
}

/// Why a transaction wrote nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key has another revision; this is what it holds.
    Conflict(Option<Record>),
    /// This key was to be taken and exists.
    Taken(String),
}

/// A page of a range, read at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order of their keys.
    pub records: Vec<Record>,
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

/// A versioned key-value store in memory.
///
/// Every successful [`Memory::commit`] raises the revision by one. Old versions are kept until
/// [`Memory::compact`].
#[derive(Clone, Debug)]
pub struct Memory {
    revision: Revision,
    compacted: Revision,
    /// All versions of a key since the last compaction, oldest first.
    versions: BTreeMap<String, Vec<(Revision, Option<Bytes>)>>,
    log: VecDeque<Change>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Makes an empty store, at revision 1 as etcd does.
    pub const fn new() -> Self {
        Self {
            revision: Revision(1),
            compacted: Revision(0),
            versions: BTreeMap::new(),
            log: VecDeque::new(),
        }
    }

    /// The revision of the last write.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The value that `key` holds.
    pub fn get(&self, key: &str) -> Option<Record> {
        let (revision, value) = self.versions.get(key)?.last()?;
        let value = value.clone()?;
        Some(Record { key: key.to_owned(), value, revision: *revision })
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
    ) -> Result<Page, Compacted> {
        let at = at.unwrap_or(self.revision);
        if at < self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        let start = if from > prefix { from } else { prefix };
        let mut page = Page { records: Vec::new(), more: false, revision: at };
        for (key, versions) in
            self.versions.range::<str, _>((Bound::Included(start), Bound::Unbounded))
        {
            if !key.starts_with(prefix) {
                break;
            }
            let Some((revision, Some(value))) = versions.iter().rfind(|(r, _)| *r <= at) else {
                continue;
            };
            if limit > 0 && page.records.len() == limit {
                page.more = true;
                break;
            }
            page.records.push(Record {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            });
        }
        Ok(page)
    }

    /// Carries out one transaction, wholly or not at all.
    ///
    /// # Errors
    /// The key has another revision than expected, or a key to take exists.
    pub fn commit(&mut self, commit: Commit) -> Result<Revision, Refusal> {
        let current = self.get(&commit.key);
        if current.as_ref().map_or(Revision(0), |r| r.revision) != commit.expected {
            return Err(Refusal::Conflict(current));
        }
        if let Some(key) = commit.take.iter().find(|k| self.get(k).is_some()) {
            return Err(Refusal::Taken(key.clone()));
        }
        self.revision = Revision(self.revision.0 + 1);
        for key in commit.take {
            self.put(key, Some(Bytes::from(commit.key.clone())));
        }
        for key in commit.free {
            if self.get(&key).is_some() {
                self.put(key, None);
            }
        }
        if commit.value.is_some() || current.is_some() {
            self.put(commit.key, commit.value);
        }
        Ok(self.revision)
    }

    fn put(&mut self, key: String, value: Option<Bytes>) {
        self.log.push_back(Change {
            key: key.clone(),
            value: value.clone(),
            revision: self.revision,
        });
        self.versions.entry(key).or_default().push((self.revision, value));
    }

    /// All writes with revisions above `after`, in order.
    ///
    /// # Errors
    /// `after` lies in history that was compacted.
    pub fn changes(&self, after: Revision) -> Result<impl Iterator<Item = &Change>, Compacted> {
        if after < self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        let start = self.log.partition_point(|c| c.revision <= after);
        Ok(self.log.range(start..))
    }

    /// Forgets history: reads and watches from before `through` fail from now on. Revisions
    /// above the current one count as the current one.
    pub fn compact(&mut self, through: Revision) {
        let through = through.min(self.revision);
        if through <= self.compacted {
            return;
        }
        self.compacted = through;
        self.versions.retain(|_, versions| {
            let newest_kept = versions.iter().rposition(|(r, _)| *r <= through).unwrap_or(0);
            versions.drain(..newest_kept);
            !matches!(versions.as_slice(), [(revision, None)] if *revision <= through)
        });
        let start = self.log.partition_point(|c| c.revision <= through);
        self.log.drain(..start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &str, expected: u64, value: &str) -> Commit {
        Commit {
            key: key.to_owned(),
            expected: Revision(expected),
            value: Some(Bytes::from(value.to_owned())),
            take: Vec::new(),
            free: Vec::new(),
        }
    }

    #[test]
    fn of_two_writers_with_the_same_expectation_one_wins() {
        let mut store = Memory::new();
        assert_eq!(store.commit(put("a", 0, "1")), Ok(Revision(2)));
        assert_eq!(store.commit(put("a", 2, "2")), Ok(Revision(3)));
        let Err(Refusal::Conflict(Some(current))) = store.commit(put("a", 2, "3")) else {
            panic!("the second writer must lose")
        };
        assert_eq!((&current.value[..], current.revision), (&b"2"[..], Revision(3)));
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

    proptest! {
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
            for change in store.changes(Revision(0)).unwrap() {
                prop_assert!(change.revision > last);
                last = change.revision;
                match &change.value {
                    Some(_) => replayed.insert(change.key.clone(), change.revision),
                    None => replayed.remove(&change.key),
                };
            }
            let page = store.range("", "", 0, None).unwrap();
            let state: BTreeMap<_, _> =
                page.records.into_iter().map(|r| (r.key, r.revision)).collect();
            prop_assert_eq!(state, replayed);
        }
    }
}
