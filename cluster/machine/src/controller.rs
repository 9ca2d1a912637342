//! [`Controller`]: the one work queue for all reconcilers.
//!
//! It remembers which keys are dirty, sends a key's writes in growing batches, and does not
//! reconcile the key again until all are answered *and* the cache has seen their effect. A call
//! with an unknown outcome is followed by a consistent read of the revision, which the cache must
//! reach first: whatever was committed is then visible.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Key, Kind, Name, Reason, Reply, Request, Revision, Time};

use crate::contract::Calls;
use crate::{
    Announcement, Answer, ApiEffect, Backoff, Cache, CallId, Delta, Memory, Reconciler, Record,
    Report,
};

/// Failures of one key back off from a blink to five minutes. Kubernetes' own queue starts at
/// 5 ms and ends at 1,000 s; the end here is what an operator is willing to wait for.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(10), max: Duration::from_secs(300) };

/// No key has more writes under way at a time: with thousands of keys the API server, not the
/// controller, must decide the pace, and a failing plan must stop early.
const BATCH_MAX: usize = 128;

#[derive(Clone, Default)]
struct Work {
    in_flight: BTreeMap<CallId, Flight>,
    rest: VecDeque<Flight>,
    batch: usize,
    failed: bool,
    /// The attempt has failed; what is still under way only prepares the next one, for which the
    /// timer is set.
    retrying: bool,
    /// Notes the refusal that ended the attempt.
    note: Option<Request>,
    failures: u32,
    /// Kinds of which a consistent revision must be read before the key is looked at again.
    unsure: BTreeSet<Kind>,
    /// Revisions the cache must reach before the key is looked at again.
    barrier: BTreeMap<Kind, Revision>,
}

#[derive(Clone)]
enum Flight {
    Write { request: Request, announcement: Box<Announcement> },
    Note(Kind),
    Read(Kind),
}

/// One reconciler and its queue.
#[derive(Clone)]
pub struct Controller {
    /// Whether a key waits until the cache shows what was written for it. Without it what was
    /// answered is forgotten, and writes of unknown outcome are just retried: then a key may be
    /// reconciled on a state that lacks its own writes. Only reads that a plan asked for are
    /// waited for in any case.
    ///
    /// Source: kubernetes KEP-5647, which has a feature gate for each controller.
    pub read_your_writes: bool,
    /// Whether this process acts, or another may. What is left of a plan when an answer comes while
    /// it does not is dropped, and the key reconciled anew when it acts again.
    pub acts: bool,
    reconciler: Arc<dyn Reconciler>,
    /// The reconciler's name, as events carry it.
    component: Name,
    work: BTreeMap<Key, Work>,
    /// What the reconciler remembers.
    memories: BTreeMap<Key, Memory>,
    dirty: BTreeSet<Key>,
    calls: BTreeMap<CallId, Key>,
    waiting: BTreeMap<Kind, BTreeSet<(Revision, Key)>>,
    timers: BTreeSet<(Time, Key)>,
    timer_of: BTreeMap<Key, Time>,
    /// Keys that may have become ready since the last run.
    candidates: BTreeSet<Key>,
}

impl Controller {
    /// Makes an idle controller.
    pub fn new(reconciler: Box<dyn Reconciler>) -> Self {
        let component = Name::new_static(reconciler.name());
        Self {
            read_your_writes: true,
            acts: true,
            reconciler: reconciler.into(),
            component,
            work: BTreeMap::new(),
            memories: BTreeMap::new(),
            dirty: BTreeSet::new(),
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            candidates: BTreeSet::new(),
        }
    }

    /// The reconciler's name.
    pub fn name(&self) -> &'static str {
        self.reconciler.name()
    }

    /// The kinds the reconciler reads.
    pub fn kinds(&self) -> &'static [Kind] {
        self.reconciler.kinds()
    }

    /// How many keys wait to be reconciled.
    pub fn depth(&self) -> usize {
        self.dirty.len()
    }

    /// Earliest time at which a key is due.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Whether a run may find something to do.
    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Marks the keys that a change affects. `reads` tells whether the reconciler reads the kind:
    /// what it does not read can only help those who were refused something and wait.
    pub fn observe(&mut self, cache: &Cache, delta: &Delta, reads: bool) {
        for key in self.reconciler.keys_for(cache, delta) {
            if reads || self.work.get(&key).is_some_and(|work| work.failures > 0) {
                self.mark(key);
            }
        }
    }

    /// Notes that the watch of `kind` has come to `revision`: barriers up to it are down.
    pub fn advance(&mut self, kind: Kind, revision: Revision) {
        let Some(waiting) = self.waiting.get_mut(&kind) else { return };
        while waiting.first().is_some_and(|(r, _)| *r <= revision) {
            let (_, key) = waiting.pop_first().expect("the first was just seen");
            if let Some(work) = self.work.get_mut(&key)
                && work.barrier.get(&kind).is_some_and(|r| *r <= revision)
            {
                work.barrier.remove(&kind);
            }
            self.candidates.insert(key);
        }
    }

    /// Marks keys whose time has come.
    pub fn wake(&mut self, now: Time) {
        while self.timers.first().is_some_and(|(time, _)| *time <= now) {
            let (_, key) = self.timers.pop_first().expect("the first was just seen");
            self.timer_of.remove(&key);
            self.mark(key);
        }
    }

    /// Takes the answer to one of this controller's calls.
    pub fn reply(
        &mut self,
        cache: &Cache,
        now: Time,
        id: CallId,
        result: Result<Reply, ApiError>,
        calls: &mut Calls,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(key) = self.calls.remove(&id) else { return };
        let Some(flight) = self.work.get_mut(&key).and_then(|w| w.in_flight.remove(&id)) else {
            return;
        };
        let work = self.work.entry(key.clone()).or_default();
        match (flight, result) {
            (Flight::Write { request: request @ Request::List { .. }, .. }, result) => {
                let memory = self.memories.entry(key.clone()).or_default();
                memory.answers.push(Answer { at: now, request, result });
            }
            (Flight::Write { request, announcement }, Ok(reply)) => {
                if let Some(record) = announcement.done {
                    out.push(report(&self.component, now, record));
                }
                // Who asked how far the store is wants to see it.
                if self.read_your_writes || request.writes().is_none() {
                    let kind = concerns(&request, &key);
                    self.raise_barrier(cache, &key, kind, reply.revision());
                }
            }
            (Flight::Write { request, announcement }, Err(error)) => {
                if let Some(mut record) =
                    announcement.refused.filter(|_| is_refusal(&request, &error))
                {
                    record.message.push_str(&error.to_string());
                    out.push(report(&self.component, now, record));
                }
                if work.note.is_none() && is_refusal(&request, &error) {
                    work.note = self.reconciler.note_refusal(cache, &key, &request, &error, now);
                }
                work.failed = true;
                if self.read_your_writes && may_be_stale(&error) {
                    work.unsure.insert(concerns(&request, &key));
                }
            }
            (Flight::Note(kind) | Flight::Read(kind), Ok(reply)) => {
                if self.read_your_writes {
                    self.raise_barrier(cache, &key, kind, reply.revision());
                }
            }
            (Flight::Note(kind), Err(error)) => {
                if self.read_your_writes && may_be_stale(&error) {
                    work.unsure.insert(kind);
                }
            }
            (Flight::Read(kind), Err(_)) => {
                work.unsure.insert(kind);
                work.failed = true;
            }
        }
        self.proceed(now, key, calls, out);
    }

    /// Reconciles every dirty key that nothing holds back.
    pub fn run(&mut self, cache: &Cache, now: Time, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        for key in std::mem::take(&mut self.candidates) {
            if !self.dirty.contains(&key) {
                continue;
            }
            self.read_revisions(&key, calls, out);
            if self.is_free(&key) {
                self.dirty.remove(&key);
                self.reconcile(cache, now, &key, calls, out);
            }
        }
    }

    /// Asks how far the cache must come before it shows what became of the writes.
    fn read_revisions(&mut self, key: &Key, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        let Some(work) = self.work.get_mut(key).filter(|w| w.in_flight.is_empty()) else { return };
        for kind in std::mem::take(&mut work.unsure) {
            let id = calls.call(Request::ReadRevision(kind), out);
            work.in_flight.insert(id, Flight::Read(kind));
            self.calls.insert(id, key.clone());
        }
    }

    fn mark(&mut self, key: Key) {
        self.candidates.insert(key.clone());
        self.dirty.insert(key);
    }

    fn is_free(&self, key: &Key) -> bool {
        self.work
            .get(key)
            .is_none_or(|w| w.in_flight.is_empty() && w.barrier.is_empty() && w.unsure.is_empty())
    }

    fn reconcile(
        &mut self,
        cache: &Cache,
        now: Time,
        key: &Key,
        calls: &mut Calls,
        out: &mut Vec<ApiEffect>,
    ) {
        let mut memory = self.memories.remove(key).unwrap_or_default();
        let mut plan = self.reconciler.reconcile_with(cache, key, now, &mut memory);
        if !memory.is_empty() {
            self.memories.insert(key.clone(), memory);
        }
        for record in std::mem::take(&mut plan.events) {
            out.push(report(&self.component, now, record));
        }
        if let Some(delay) = plan.revisit {
            self.schedule(now + delay, key.clone());
        }
        if plan.requests.is_empty() {
            self.work.remove(key);
            return;
        }
        let work = self.work.entry(key.clone()).or_default();
        work.rest = std::mem::take(&mut plan.requests)
            .into_iter()
            .enumerate()
            .map(|(i, request)| Flight::Write {
                request,
                announcement: plan.announcements.remove(&i).unwrap_or_default().into(),
            })
            .collect();
        work.batch = 1;
        work.failed = false;
        work.retrying = false;
        self.send(key, calls, out);
    }

    fn send(&mut self, key: &Key, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        let Some(work) = self.work.get_mut(key) else { return };
        for flight in work.rest.drain(..work.batch.min(work.rest.len())) {
            let Flight::Write { request, .. } = &flight else { continue };
            let id = calls.call(request.clone(), out);
            work.in_flight.insert(id, flight);
            self.calls.insert(id, key.clone());
        }
        work.batch = (work.batch * 2).min(BATCH_MAX);
    }

    fn raise_barrier(&mut self, cache: &Cache, key: &Key, kind: Kind, revision: Revision) {
        if cache.revision(kind) >= revision {
            return;
        }
        let work = self.work.entry(key.clone()).or_default();
        let barrier = work.barrier.entry(kind).or_default();
        if revision > *barrier {
            *barrier = revision;
            self.waiting.entry(kind).or_default().insert((revision, key.clone()));
        }
    }

    /// After an answer: sends the next batch, or ends the attempt.
    fn proceed(&mut self, now: Time, key: Key, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        let Some(work) = self.work.get_mut(&key) else { return };
        if !self.acts {
            work.rest.clear();
            work.note = None;
        }
        if !work.in_flight.is_empty() {
            return;
        }
        if work.retrying && !work.failed {
            // The timer of the retry may have come while this was under way.
            self.candidates.insert(key);
            return;
        }
        if !work.failed {
            if work.rest.is_empty() {
                work.failures = 0;
                // Level-triggered: look once more when the effects are visible.
                self.mark(key);
            } else {
                self.send(&key, calls, out);
            }
            return;
        }
        work.rest.clear();
        work.failed = false;
        let again = std::mem::replace(&mut work.retrying, true);
        work.failures = work.failures.saturating_add(1);
        let delay = BACKOFF.delay(work.failures);
        let note = work.note.take();
        // A read that failed waits for the timer like everything else.
        if !again {
            self.read_revisions(&key, calls, out);
        }
        if let (Some(note), Some(work)) = (note, self.work.get_mut(&key)) {
            let kind = note.writes().unwrap_or(key.kind);
            let id = calls.call(note, out);
            work.in_flight.insert(id, Flight::Note(kind));
            self.calls.insert(id, key.clone());
        }
        self.dirty.remove(&key);
        self.schedule(now + delay, key);
    }

    fn schedule(&mut self, at: Time, key: Key) {
        match self.timer_of.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.timers.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.timer_of.insert(key.clone(), at);
        self.timers.insert((at, key));
    }
}

/// Tells people what a controller saw.
fn report(component: &Name, time: Time, record: Record) -> ApiEffect {
    let (component, host) = (component.clone(), Name::default());
    ApiEffect::Record(Box::new(Report { time, component, host, record }))
}

/// The kind whose watch shows what became of the request.
fn concerns(request: &Request, key: &Key) -> Kind {
    match request {
        Request::ReadRevision(kind) => *kind,
        other => other.writes().unwrap_or(key.kind),
    }
}

/// Whether the plan may have been made from an old state, or the write carried out all the same.
fn may_be_stale(error: &ApiError) -> bool {
    match error {
        ApiError::Unknown(_) => true,
        ApiError::Unreachable(_) => false,
        // The cache is behind the store: the plan was made from an old state.
        ApiError::Status(status) => matches!(
            status.reason,
            Reason::AlreadyExists
                | Reason::Conflict
                | Reason::NotFound
                | Reason::Timeout
                | Reason::ServerTimeout
                | Reason::InternalError
        ),
    }
}

/// Whether people should hear of the error: races and overload pass by themselves, and what is
/// gone already did not have to be deleted.
fn is_refusal(request: &Request, error: &ApiError) -> bool {
    let ApiError::Status(status) = error else { return false };
    if matches!(request, Request::Delete { .. }) && status.reason == Reason::NotFound {
        return false;
    }
    !matches!(
        status.reason,
        Reason::AlreadyExists
            | Reason::Conflict
            | Reason::Timeout
            | Reason::ServerTimeout
            | Reason::TooManyRequests
            | Reason::ServiceUnavailable
    ) && !status.causes.iter().any(|c| c.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use api::Status;

    use super::*;

    #[test]
    fn people_hear_of_what_does_not_pass_by_itself() {
        let deletion = Request::Delete {
            key: Key::new(Kind::Pod, "d", "a"),
            uid: None,
            revision: None,
            grace_seconds: None,
            propagation: None,
        };
        let forbidden = ApiError::from(Status::forbidden(Kind::Pod, "a", "exceeded quota"));
        let gone = ApiError::from(Status::not_found(Kind::Pod, "a"));
        let lost = ApiError::Unknown("lost".to_owned());
        // Where a pod shall be made, it is its namespace that is not there.
        let creation = Request::Create(api::Object::Pod(api::Pod::default().into()));
        for (request, error, expected) in [
            (&deletion, &forbidden, true),
            (&deletion, &gone, false),
            (&deletion, &lost, false),
            (&creation, &forbidden, true),
            (&creation, &gone, true),
            (&creation, &lost, false),
        ] {
            assert_eq!(is_refusal(request, error), expected, "{request:?} {error}");
        }
    }
}
