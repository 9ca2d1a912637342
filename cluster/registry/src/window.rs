//! [`Window`]: the recent history and present state of all objects, as bytes ready to serve.
//!
//! It is fed by the store's first listing and then by the store's watch, one stream over all
//! kinds, so it knows when it has reached a revision: what it answers is consistent. Each object
//! is kept once, as the JSON that is served, with only the fields parsed that selectors need.
//!
//! The window does not wait, sleep or send: readers hold a [`Cursor`] and ask again when the
//! revision has moved.

mod cursor;
mod entry;
mod fields;
mod list;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::{Key, Kind, Revision};
use bytes::Bytes;

pub use cursor::{Batch, Cursor, EventType, Item, WatchError};
pub use entry::{Entry, PREFIX, parse_store_key, store_key, with_revision};
pub use fields::Filter;
pub use list::{Expired, Listing, PageRequest};

use crate::memory::{Change, Record};
use cursor::Event;

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events kept of a kind; more when the kind has more objects.
    pub events: usize,
    /// Bytes of events kept of a kind; more when the kind's objects are larger together.
    pub bytes: usize,
}

impl Default for Limits {
    /// Enough for a client that reconnects within seconds, small enough to be idle in.
    fn default() -> Self {
        Self { events: 4096, bytes: 2 << 20 }
    }
}

/// A record that is no object and therefore not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record {key} is no object: {why}")]
pub struct BadRecord {
    /// The record's key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// The objects of one kind and their latest events.
#[derive(Debug, Default)]
struct Shelf {
    /// By `namespace/name` (or name), which is the order of the store and of lists.
    objects: BTreeMap<Arc<str>, Arc<Entry>>,
    object_bytes: usize,
    log: VecDeque<Event>,
    log_bytes: usize,
    /// Number of events that fell off the log: the sequence number of its first.
    dropped: u64,
    /// All events above this revision are in the log.
    floor: Revision,
}

/// The recent history and present state of all objects.
#[derive(Debug)]
pub struct Window {
    /// One a stored kind, at the index of the kind.
    shelves: Vec<Shelf>,
    revision: Revision,
    /// Counts the times that history was lost; cursors from before are void.
    generation: u64,
    limits: Limits,
}

impl Window {
    /// Makes a window that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        let shelves = Kind::ALL.iter().map(|_| Shelf::default()).collect();
        Self { shelves, revision: Revision(0), generation: 0, limits }
    }

    /// The revision up to which the window has seen every write.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The number of objects of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.shelf(kind).objects.len()
    }

    /// The object, as served.
    pub fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.shelf(key.kind).objects.get(key.path().as_str())
    }

    /// Starts anew from a listing at `revision`, voiding all cursors and history. Returns the
    /// records that cannot be served.
    pub fn replace(
        &mut self,
        records: impl IntoIterator<Item = Record>,
        revision: Revision,
    ) -> Vec<BadRecord> {
        self.generation += 1;
        self.revision = revision;
        for shelf in &mut self.shelves {
            *shelf = Shelf { floor: revision, ..Shelf::default() };
        }
        let mut bad = Vec::new();
        for record in records {
            let Some((kind, path)) = parse_store_key(&record.key) else { continue };
            match Entry::new(kind, path, &record.value, record.revision, true) {
                Ok(entry) => {
                    let shelf = &mut self.shelves[kind as usize];
                    shelf.object_bytes += entry.size();
                    shelf.objects.insert(entry.path().clone(), Arc::new(entry));
                }
                Err(why) => bad.push(BadRecord { key: record.key, why }),
            }
        }
        bad
    }

    /// Takes in one write. Writes come in the order of their revisions; one that was seen
    /// before is ignored. Returns the kind that changed, `None` when no object did.
    ///
    /// # Errors
    /// The new value is no object: the object then counts as deleted.
    pub fn apply(&mut self, change: &Change) -> Result<Option<Kind>, BadRecord> {
        if change.revision < self.revision {
            return Ok(None);
        }
        self.revision = change.revision;
        let Some((kind, path)) = parse_store_key(&change.key) else { return Ok(None) };
        let shelf = &mut self.shelves[kind as usize];
        if shelf.objects.get(path).is_some_and(|e| e.revision() >= change.revision) {
            return Ok(None);
        }
        let fresh = !shelf.objects.contains_key(path);
        let (entry, error) = match &change.value {
            None => (None, None),
            Some(value) => match Entry::new(kind, path, value, change.revision, fresh) {
                Ok(entry) => (Some(entry), None),
                Err(why) => (None, Some(BadRecord { key: change.key.to_string(), why })),
            },
        };
        let changed = shelf.put(kind, path, entry, change.revision);
        shelf.trim(self.limits);
        match error {
            Some(error) => Err(error),
            None => Ok(changed.then_some(kind)),
        }
    }

    /// Learns that every write up to `revision` was seen.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn shelf(&self, kind: Kind) -> &Shelf {
        &self.shelves[kind as usize]
    }
}

impl Shelf {
    /// Stores or removes an object and logs it. Returns whether anything changed.
    fn put(&mut self, kind: Kind, path: &str, entry: Option<Entry>, revision: Revision) -> bool {
        let (key, previous) = match self.objects.remove_entry(path) {
            Some((key, previous)) => (key, Some(previous)),
            None => (Arc::from(path), None),
        };
        if entry.is_none() && previous.is_none() {
            return false;
        }
        let entry = entry.map(Arc::new);
        self.object_bytes -= previous.as_ref().map_or(0, |e| e.size());
        if let Some(entry) = &entry {
            self.object_bytes += entry.size();
            self.objects.insert(key.clone(), entry.clone());
        }
        let tombstone = match (&entry, &previous) {
            (None, Some(last)) => Some(last.frame_as(kind, EventType::Deleted, revision)),
            _ => None,
        };
        let event = Event { revision, path: key, entry, previous, tombstone };
        self.log_bytes += event.size();
        self.log.push_back(event);
        true
    }

    fn trim(&mut self, limits: Limits) {
        let events = limits.events.max(self.objects.len().saturating_mul(2));
        let bytes = limits.bytes.max(self.object_bytes);
        while self.log.len() > events || (self.log_bytes > bytes && self.log.len() > 1) {
            let Some(event) = self.log.pop_front() else { break };
            self.log_bytes -= event.size();
            self.floor = event.revision;
            self.dropped += 1;
        }
    }
}

/// The bytes of an object as they are stored: canonical JSON without a `resourceVersion`.
pub fn stored_bytes(object: &api::Object) -> Bytes {
    let mut object = object.clone();
    if object.meta().resource_version.is_some() {
        object.meta_mut().resource_version = None;
    }
    Bytes::from(api::codec::encode(&object))
}
