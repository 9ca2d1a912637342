//! Watching: a position in the log of one kind.

use std::sync::Arc;

use api::{Kind, Revision};
use bytes::Bytes;

use super::{Entry, Filter, Shelf, Window};

/// The type of a watch event that carries an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The object came into the selection.
    Added,
    /// The object changed and is still in the selection.
    Modified,
    /// The object left the selection; the event carries its last state in it.
    Deleted,
}

impl EventType {
    pub(super) const CLOSE: &'static [u8] = b"}\n";

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    const fn opening(self) -> &'static str {
        match self {
            Self::Added => r#"{"type":"ADDED","object":"#,
            Self::Modified => r#"{"type":"MODIFIED","object":"#,
            Self::Deleted => r#"{"type":"DELETED","object":"#,
        }
    }

    pub(super) fn open(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.opening().as_bytes());
    }

    /// The object within a whole event of this type.
    pub(super) fn object_of(self, frame: &Bytes) -> Bytes {
        frame.slice(self.opening().len()..frame.len() - Self::CLOSE.len())
    }
}

/// One write of one object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) revision: Revision,
    pub(super) path: Arc<str>,
    /// The new state, `None` after a deletion.
    pub(super) entry: Option<Arc<Entry>>,
    /// The state before, `None` for a creation.
    pub(super) previous: Option<Arc<Entry>>,
    /// The event to send of a deletion.
    pub(super) tombstone: Option<Bytes>,
}

impl Event {
    pub(super) fn size(&self) -> usize {
        // The previous state was counted by the event that made it.
        self.entry.as_ref().map_or(0, |e| e.size())
            + self.tombstone.as_ref().map_or(0, Bytes::len)
            + 120
    }

    /// What a watcher of the selection is told.
    fn seen_by(&self, filter: &Filter) -> Option<Item> {
        if !filter.in_namespace(&self.path) {
            return None;
        }
        let new = self.entry.as_ref().filter(|e| filter.matches(e));
        let old = self.previous.as_ref().filter(|e| filter.matches(e));
        let (event, frame) = match (old, new) {
            (None, None) => return None,
            (None, Some(new)) => (EventType::Added, new.frame(EventType::Added)),
            (Some(_), Some(new)) => (EventType::Modified, new.frame(EventType::Modified)),
            (Some(old), None) => {
                let frame = match &self.tombstone {
                    Some(frame) => frame.clone(),
                    None => old.frame_as(old.kind(), EventType::Deleted, self.revision),
                };
                (EventType::Deleted, frame)
            }
        };
        Some(Item { event, revision: self.revision, frame })
    }
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Item {
    /// What happened to the object, as seen through the selection.
    pub event: EventType,
    /// The revision of the write.
    pub revision: Revision,
    /// The whole event as one line of JSON, shared by all watchers that are told the same.
    pub frame: Bytes,
}

impl Item {
    /// The `ADDED` event by which a watch tells that an object was there before it began.
    pub fn initial(entry: &Entry) -> Self {
        Self {
            event: EventType::Added,
            revision: entry.revision(),
            frame: entry.frame(EventType::Added),
        }
    }

    /// The JSON of the object alone.
    pub fn json(&self) -> Bytes {
        self.event.object_of(&self.frame)
    }
}

/// The position of a watcher. It stays valid as long as the log reaches back to it.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    kind: Kind,
    generation: u64,
    /// Sequence number of the next event to look at.
    next: u64,
    /// Events up to this revision are not told.
    after: Revision,
}

/// What happened since the last call, as seen through a selection.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In the order of their revisions.
    pub items: Vec<Item>,
    /// Everything up to this revision has been told, with these items.
    pub revision: Revision,
    /// Whether to call again at once: the limit was reached.
    pub more: bool,
}

/// Why a watch cannot go on from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History before that revision is gone: the watcher must list again.
    #[error("too old resource version: {wanted} ({oldest})")]
    TooOld {
        /// The revision that was asked for.
        wanted: Revision,
        /// The oldest revision from which a watch can start.
        oldest: Revision,
    },
}

impl Window {
    /// A position from which all events after `revision` will be told.
    ///
    /// # Errors
    /// The log does not reach back so far.
    pub fn watch_after(&self, kind: Kind, revision: Revision) -> Result<Cursor, WatchError> {
        let shelf = self.shelf(kind);
        if revision < shelf.floor {
            return Err(WatchError::TooOld { wanted: revision, oldest: shelf.floor });
        }
        let skipped = shelf.log.partition_point(|e| e.revision <= revision);
        let next = shelf.dropped + to_u64(skipped);
        Ok(Cursor { kind, generation: self.generation, next, after: revision })
    }

    /// A position from which everything that the window does not yet hold will be told.
    pub fn watch_from_now(&self, kind: Kind) -> Cursor {
        let shelf = self.shelf(kind);
        let next = shelf.dropped + to_u64(shelf.log.len());
        Cursor { kind, generation: self.generation, next, after: self.revision }
    }

    /// Moves the cursor on by up to `limit` items.
    ///
    /// # Errors
    /// The watcher was too slow and its position fell off the log.
    pub fn read(
        &self,
        cursor: &mut Cursor,
        filter: &Filter,
        limit: usize,
    ) -> Result<Batch, WatchError> {
        let shelf = self.shelf(cursor.kind);
        if cursor.generation != self.generation || cursor.next < shelf.dropped {
            return Err(WatchError::TooOld { wanted: cursor.after, oldest: shelf.floor });
        }
        let start = usize::try_from(cursor.next - shelf.dropped).unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let mut looked = 0_usize;
        let mut more = false;
        for event in shelf.log.range(start.min(shelf.log.len())..) {
            if items.len() >= limit {
                more = true;
                break;
            }
            looked += 1;
            if event.revision <= cursor.after {
                continue;
            }
            items.extend(event.seen_by(filter));
        }
        cursor.next += to_u64(looked);
        let told = if more { last_revision(shelf, start + looked) } else { self.revision };
        cursor.after = cursor.after.max(told);
        Ok(Batch { items, revision: cursor.after, more })
    }
}

/// The revision that is wholly told when `next` is the index of the next event.
fn last_revision(shelf: &Shelf, next: usize) -> Revision {
    let at = |i: usize| shelf.log.get(i).map(|e| e.revision);
    let last = next.checked_sub(1).and_then(at).unwrap_or(shelf.floor);
    // Events of one transaction share their revision; it is told when the last of them is.
    match at(next) {
        Some(following) if following == last => Revision(last.0.saturating_sub(1)),
        _ => last,
    }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("a usize fits 64 bits")
}
