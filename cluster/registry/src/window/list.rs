//! Listing: pages of one kind, now or at a revision that the log still reaches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use api::{Kind, Revision};

use super::{Entry, Filter, Window};

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// Up to so many objects; any number when zero.
    pub limit: usize,
    /// Only objects whose path follows this one.
    pub after: Option<String>,
    /// As it was at this revision; now when absent.
    pub at: Option<Revision>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// In the order of their paths.
    pub entries: Vec<Arc<Entry>>,
    /// The revision at which the list is this.
    pub revision: Revision,
    /// Whether objects follow that did not fit.
    pub more: bool,
    /// How many objects follow, when the selection is the whole namespace.
    pub remaining: Option<usize>,
}

/// The revision that was asked for can no longer be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The oldest revision that can be.
    pub oldest: Revision,
}

impl Window {
    /// Lists the objects of a kind that match.
    ///
    /// # Errors
    /// The log does not reach back to the revision asked for.
    pub fn list(
        &self,
        kind: Kind,
        filter: &Filter,
        page: &PageRequest,
    ) -> Result<Listing, Expired> {
        let shelf = self.shelf(kind);
        let at = page.at.unwrap_or(self.revision);
        if at < shelf.floor {
            return Err(Expired { oldest: shelf.floor });
        }
        let undone = self.undone(kind, at);
        let range = bounds(filter, page.after.as_deref());
        let now = shelf.objects.range::<str, _>((range.0.as_bound(), range.1.as_bound()));
        let now = now.filter(|(path, _)| !undone.contains_key(*path)).map(|(_, entry)| entry);
        let then = undone.range::<str, _>((range.0.as_bound(), range.1.as_bound()));
        let then = then.filter_map(|(_, entry)| entry.as_ref());

        let mut listing =
            Listing { entries: Vec::new(), revision: at, more: false, remaining: None };
        let mut following = 0_usize;
        for entry in merged(now, then) {
            if !filter.matches(entry) {
                continue;
            }
            if page.limit > 0 && listing.entries.len() == page.limit {
                listing.more = true;
                if !filter.is_everything() {
                    break;
                }
                following += 1;
            } else {
                listing.entries.push(entry.clone());
            }
        }
        listing.remaining = (listing.more && filter.is_everything()).then_some(following);
        Ok(listing)
    }

    /// What the objects were at `at` that changed since.
    fn undone(&self, kind: Kind, at: Revision) -> BTreeMap<Arc<str>, Option<Arc<Entry>>> {
        let log = &self.shelf(kind).log;
        let mut undone = BTreeMap::new();
        for event in log.range(log.partition_point(|e| e.revision <= at)..) {
            undone.entry(event.path.clone()).or_insert_with(|| event.previous.clone());
        }
        undone
    }
}

/// The range of paths that can match.
fn bounds(filter: &Filter, after: Option<&str>) -> (Bound<String>, Bound<String>) {
    let (mut start, end) = if filter.namespace.is_empty() {
        (Bound::Unbounded, Bound::Unbounded)
    } else {
        // '0' follows '/'.
        let namespace = &filter.namespace;
        (Bound::Included(format!("{namespace}/")), Bound::Excluded(format!("{namespace}0")))
    };
    if let Some(after) = after {
        let within = match &end {
            Bound::Excluded(end) => after < end.as_str(),
            _ => true,
        };
        let beyond = match &start {
            Bound::Included(start) => after >= start.as_str(),
            _ => true,
        };
        if beyond {
            // A range must not start behind its end: then nothing is left of it.
            let last = match &end {
                Bound::Excluded(end) if !within => end.clone(),
                _ => after.to_owned(),
            };
            start = if within { Bound::Excluded(last) } else { Bound::Included(last) };
        }
    }
    (start, end)
}

/// A bound of borrowed text.
trait AsBound {
    fn as_bound(&self) -> Bound<&str>;
}

impl AsBound for Bound<String> {
    fn as_bound(&self) -> Bound<&str> {
        match self {
            Self::Included(text) => Bound::Included(text),
            Self::Excluded(text) => Bound::Excluded(text),
            Self::Unbounded => Bound::Unbounded,
        }
    }
}

/// Both sequences, which are in the order of paths, as one.
fn merged<'a>(
    left: impl Iterator<Item = &'a Arc<Entry>>,
    right: impl Iterator<Item = &'a Arc<Entry>>,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let mut left = left.peekable();
    let mut right = right.peekable();
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(l), Some(r)) if r.path() < l.path() => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    })
}
