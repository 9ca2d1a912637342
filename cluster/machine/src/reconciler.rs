//! [`Reconciler`]: a level-triggered controller as two pure functions.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, Key, Kind, Name, Reply, Request, Time};

use crate::{Aspects, Cache, Delta, Index, Record};

/// A level-triggered controller: pure, stateless, reads only the cache. So that copies of a
/// controller share theirs.
pub trait Reconciler: Send + Sync {
    /// The controller's name in logs, metrics and events.
    fn name(&self) -> &'static str;

    /// The kinds it reads. Nothing is reconciled before the cache has listed all of them.
    fn kinds(&self) -> &'static [Kind];

    /// Kinds whose changes it is told of besides, without reading them: it does not wait for their
    /// lists, and of the keys that a change affects those alone are looked at whose last attempt
    /// failed.
    fn hears_of(&self) -> &'static [Kind] {
        &[]
    }

    /// The indexes of the cache that it reads, empty. Reconcilers share those of one type.
    fn indexes(&self) -> Vec<Box<dyn Index>> {
        Vec::new()
    }

    /// In what the states before and after a change of that kind must differ for any key to be
    /// affected. It is not asked about other changes.
    fn heeds(&self, _kind: Kind) -> Aspects {
        Aspects::ALL
    }

    /// Which keys a change affects. Called after the cache applied the change, and before it
    /// applies another one: what was before can be told from the cache and the change.
    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key>;

    /// What should be written for `key`, given all that the cache knows at `now`.
    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan;

    /// As [`Self::reconcile`], which it is unless a reconciler remembers something of its keys.
    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, _memory: &mut Memory) -> Plan {
        self.reconcile(cache, key, now)
    }

    /// A write that notes in the object's status that the API refused `request`, if this
    /// controller has a condition for that. It is sent once for each failed attempt.
    fn note_refusal(
        &self,
        _cache: &Cache,
        _key: &Key,
        _request: &Request,
        _error: &ApiError,
        _now: Time,
    ) -> Option<Request> {
        None
    }
}

/// What is remembered of one key besides what the cache shows. It is lost with the process, so that
/// it may make a decision better, but none may rest on it alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Times and numbers, by what they mean to the reconciler. It keeps them few.
    pub notes: BTreeMap<&'static str, Vec<(Time, i64)>>,
    /// A name or some lines, whose meaning is the reconciler's; empty for none.
    pub text: Name,
    /// What the lists that the last plan asked for held, in the order in which they came. Whoever
    /// asks for lists takes them: a list that cannot be had is no failure.
    pub answers: Vec<Answer>,
}

/// The answer to a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When it came.
    pub at: Time,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub result: Result<Reply, ApiError>,
}

impl Memory {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.text.is_empty() && self.answers.is_empty()
    }

    /// The last note of that name.
    pub fn last(&self, name: &str) -> Option<(Time, i64)> {
        self.notes.get(name)?.last().copied()
    }
}

/// What a reconciler wants done about one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order of importance. They are sent in batches of 1, 2, 4, …; the rest is
    /// dropped and the key reconciled anew when one fails.
    pub requests: Vec<Request>,
    /// Look at the key again after this time even if nothing changes.
    pub revisit: Option<Duration>,
    /// Events for people.
    pub events: Vec<Record>,
    /// Events for people about the outcome of the write of that index in `requests`.
    pub announcements: BTreeMap<usize, Announcement>,
}

/// What people are told when a write is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announcement {
    /// Told when it was carried out.
    pub done: Option<Record>,
    /// Told when the API refused it; the refusal is appended to the message.
    pub refused: Option<Record>,
}

impl Plan {
    /// The plan of a key that is as it should be.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds a write.
    pub fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Adds a write whose outcome people are told.
    pub fn request_announced(&mut self, request: Request, announcement: Announcement) {
        self.announcements.insert(self.requests.len(), announcement);
        self.requests.push(request);
    }

    /// Asks to be called again after `delay`, or earlier if that was asked before.
    pub fn revisit_in(&mut self, delay: Duration) {
        self.revisit = Some(self.revisit.map_or(delay, |d| d.min(delay)));
    }
}
