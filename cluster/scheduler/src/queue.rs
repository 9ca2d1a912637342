//! Pods that wait for a node: ready to be tried, backing off, or unschedulable until something
//! changes.
//!
//! When no pod is ready, those are tried before their pause ends that back off for nothing but
//! having found no node: the scheduler has nothing better to do. Those of which the last attempt
//! failed for another reason wait: trying again at once seldom mends an API server.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/backend/queue`, with `SchedulerPopFromBackoffQ`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Time};
use machine::Backoff;

use crate::framework::ClusterEvent;

/// So many pods are tried before their pauses end in one second: without a bound a cluster in
/// which pods come and go all the time would have all that find no node tried each time.
const EARLY_MAX: u32 = 256;

/// How long a pod waits at most that waits for anything to happen. What an extender goes by may be
/// outside of the cluster, where nobody sees it change.
///
/// Source: kubernetes 1.33, `DefaultPodMaxInUnschedulablePodsDuration`.
const PATIENCE: Duration = Duration::from_secs(300);

type Place = (Reverse<i32>, Time, Key);

#[derive(Clone, Debug)]
struct Waiting {
    priority: i32,
    added: Time,
    attempts: u32,
    tried: Time,
    /// Whether the last attempt failed for another reason than that there is no node.
    failed: bool,
    state: State,
}

impl Waiting {
    fn place(&self, key: &Key) -> Place {
        (Reverse(self.priority), self.added, key.clone())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Active,
    BackingOff(Time),
    /// Rejected by plugins that these events may satisfy.
    Unschedulable(Cause),
    /// Its binding is under way.
    InFlight,
}

/// Events that may help a pod, and the number of its kin, if that decides whether they do.
type Cause = (BTreeSet<ClusterEvent>, Option<u64>);

/// Whether every event may help.
fn any_helps((events, _): &Cause) -> bool {
    events.last() == Some(&ClusterEvent::Anything)
}

/// The scheduling queue: higher priority first, then whoever came first.
#[derive(Clone, Debug)]
pub struct Queue {
    backoff: Backoff,
    pods: BTreeMap<Key, Waiting>,
    active: BTreeSet<Place>,
    backing_off: BTreeSet<(Time, Key)>,
    /// Those of them that may be tried before their pause ends, by the second in which it does.
    early: BTreeSet<(u64, Place)>,
    /// In which second such pods were last tried, and how many.
    early_tried: (u64, u32),
    /// Unschedulable pods by what may help them: there are far fewer causes than pods.
    unschedulable: BTreeMap<Cause, BTreeSet<Key>>,
    /// Those of them that do not wait for events alone, by when they are tried again.
    impatient: BTreeSet<(Time, Key)>,
    /// How many events there were.
    happenings: u64,
}

impl Queue {
    /// Makes an empty queue, in which pods wait between attempts as `backoff` says.
    pub const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            pods: BTreeMap::new(),
            active: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            early: BTreeSet::new(),
            early_tried: (0, 0),
            unschedulable: BTreeMap::new(),
            impatient: BTreeSet::new(),
            happenings: 0,
        }
    }

    /// How many pods wait, in whatever state.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether a pod can be tried at once.
    pub fn has_active(&self) -> bool {
        !self.active.is_empty() || (!self.early.is_empty() && self.early_tried.1 < EARLY_MAX)
    }

    /// When the next pod can be tried, if none can be at once.
    pub fn wake_at(&self) -> Option<Time> {
        let due = self.backing_off.first().into_iter().chain(self.impatient.first());
        let due = due.map(|(time, _)| *time).min()?;
        if self.early.is_empty() {
            return Some(due);
        }
        Some(due.min(Time::from_secs(self.early_tried.0 + 1)))
    }

    /// How many events there were that may have helped pods: of one that is being decided about
    /// nobody asks whether it was helped.
    pub(crate) const fn happenings(&self) -> u64 {
        self.happenings
    }

    /// Whether the pod was taken out in its turn and not put back.
    pub(crate) fn is_popped(&self, key: &Key) -> bool {
        self.pods.get(key).is_some_and(|waiting| waiting.state == State::InFlight)
    }

    /// Adds a pod that needs a node; a change of a waiting pod makes it worth another attempt.
    pub fn add(&mut self, key: Key, priority: i32, now: Time) {
        let mut waiting = self.take(&key).unwrap_or(Waiting {
            priority,
            added: now,
            attempts: 0,
            tried: Time::ZERO,
            failed: false,
            state: State::Active,
        });
        waiting.priority = priority;
        if waiting.state == State::InFlight {
            self.pods.insert(key, waiting);
            return;
        }
        self.ready(key, waiting, now);
    }

    /// Forgets a pod: it has a node, or is gone.
    pub fn remove(&mut self, key: &Key) {
        self.take(key);
    }

    /// Takes the pod whose turn it is.
    pub fn pop(&mut self, now: Time) -> Option<Key> {
        while self.impatient.first().is_some_and(|(time, _)| *time <= now) {
            let (_, key) = self.impatient.first()?.clone();
            self.wake(&key, now);
        }
        while self.backing_off.first().is_some_and(|(time, _)| *time <= now) {
            let (_, key) = self.backing_off.first()?.clone();
            let mut waiting = self.take(&key)?;
            waiting.state = State::Active;
            self.put(key, waiting);
        }
        let key = match self.active.pop_first() {
            Some((_, _, key)) => key,
            None => self.pop_early(now)?,
        };
        let waiting = self.pods.get_mut(&key)?;
        waiting.state = State::InFlight;
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.tried = now;
        Some(key)
    }

    /// Takes the pod of which the pause ends first; of those of one second, by priority and age.
    fn pop_early(&mut self, now: Time) -> Option<Key> {
        let second = now.as_secs();
        if self.early_tried.0 != second {
            self.early_tried = (second, 0);
        }
        if self.early_tried.1 >= EARLY_MAX {
            return None;
        }
        let (_, (_, _, key)) = self.early.pop_first()?;
        self.early_tried.1 += 1;
        if let Some(Waiting { state: State::BackingOff(due), .. }) = self.pods.get(&key) {
            self.backing_off.remove(&(*due, key.clone()));
        }
        Some(key)
    }

    /// Puts a popped pod aside until one of `events` happens, to one of its `kin` where that
    /// matters.
    pub fn unschedulable(&mut self, key: Key, events: BTreeSet<ClusterEvent>, kin: u64) {
        if let Some(mut waiting) = self.take(&key) {
            let kin = events.iter().any(|event| event.is_particular()).then_some(kin);
            waiting.state = State::Unschedulable((events, kin));
            waiting.failed = false;
            self.put(key, waiting);
        }
    }

    /// Puts a popped pod back to be tried again after a pause: its binding failed.
    pub fn retry(&mut self, key: Key, now: Time) {
        if let Some(mut waiting) = self.take(&key) {
            waiting.failed = true;
            self.ready(key, waiting, now);
        }
    }

    /// Puts a popped pod back to be tried again: what it waited for has changed meanwhile.
    pub fn try_again(&mut self, key: Key, now: Time) {
        if let Some(mut waiting) = self.take(&key) {
            waiting.failed = false;
            self.ready(key, waiting, now);
        }
    }

    /// Takes a pod out of its turn, as if it were popped.
    pub fn begin(&mut self, key: &Key, now: Time) {
        if let Some(mut waiting) = self.take(key) {
            if waiting.state != State::InFlight {
                waiting.attempts = waiting.attempts.saturating_add(1);
                waiting.tried = now;
            }
            waiting.state = State::InFlight;
            self.put(key.clone(), waiting);
        }
    }

    /// Lets a pod be tried again that is put aside; others are as they were.
    pub fn wake(&mut self, key: &Key, now: Time) {
        let aside = |waiting: &Waiting| matches!(waiting.state, State::Unschedulable(_));
        if self.pods.get(key).is_some_and(aside)
            && let Some(waiting) = self.take(key)
        {
            self.ready(key.clone(), waiting, now);
        }
    }

    /// Before which others the pod is tried: those of lower priority, then those that came later.
    pub(crate) fn turn(&self, key: &Key) -> Option<impl Ord + use<>> {
        self.pods.get(key).map(|waiting| waiting.place(key))
    }

    /// Lets every pod that the event may help be tried again; the others cost nothing.
    pub fn happened(&mut self, event: ClusterEvent, now: Time) {
        self.happened_to(event, now, |_| true);
    }

    /// As [`Self::happened`], where not all pods that wait for such an event are helped: `helps`
    /// is asked about one of each kin.
    pub fn happened_to(
        &mut self,
        event: ClusterEvent,
        now: Time,
        mut helps: impl FnMut(&Key) -> bool,
    ) {
        self.happenings += 1;
        let helped = self.unschedulable.extract_if(.., |cause, keys| {
            any_helps(cause) || (cause.0.contains(&event) && keys.first().is_some_and(&mut helps))
        });
        for key in helped.flat_map(|(_, keys)| keys).collect::<Vec<_>>() {
            if let Some(waiting) = self.pods.remove(&key) {
                if !self.impatient.is_empty() {
                    self.impatient.remove(&(waiting.tried + PATIENCE, key.clone()));
                }
                self.ready(key, waiting, now);
            }
        }
    }

    fn ready(&mut self, key: Key, mut waiting: Waiting, now: Time) {
        let due = waiting.tried + self.backoff.delay(waiting.attempts);
        waiting.state =
            if waiting.attempts > 0 && due > now { State::BackingOff(due) } else { State::Active };
        self.put(key, waiting);
    }

    fn put(&mut self, key: Key, waiting: Waiting) {
        match &waiting.state {
            State::Active => {
                self.active.insert(waiting.place(&key));
            }
            State::BackingOff(due) => {
                self.backing_off.insert((*due, key.clone()));
                if !waiting.failed {
                    self.early.insert((due.as_secs(), waiting.place(&key)));
                }
            }
            State::Unschedulable(cause) => {
                if any_helps(cause) {
                    self.impatient.insert((waiting.tried + PATIENCE, key.clone()));
                }
                if let Some(keys) = self.unschedulable.get_mut(cause) {
                    keys.insert(key.clone());
                } else {
                    self.unschedulable.insert(cause.clone(), BTreeSet::from([key.clone()]));
                }
            }
            State::InFlight => {}
        }
        self.pods.insert(key, waiting);
    }

    fn take(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.pods.remove(key)?;
        match &waiting.state {
            State::Active => {
                self.active.remove(&waiting.place(key));
            }
            State::BackingOff(due) => {
                self.backing_off.remove(&(*due, key.clone()));
                self.early.remove(&(due.as_secs(), waiting.place(key)));
            }
            State::Unschedulable(cause) => {
                if any_helps(cause) {
                    self.impatient.remove(&(waiting.tried + PATIENCE, key.clone()));
                }
                if let Some(keys) = self.unschedulable.get_mut(cause) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.unschedulable.remove(cause);
                    }
                }
            }
            State::InFlight => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue() -> Queue {
        Queue::new(Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) })
    }

    fn key(name: &str) -> Key {
        Key::new(api::Kind::Pod, "d", name)
    }

    #[test]
    fn priority_then_age_then_back_off_then_events() {
        let mut queue = queue();
        let at = Time::from_secs;
        queue.add(key("low"), 0, at(1));
        queue.add(key("high"), 9, at(2));
        queue.add(key("late"), 0, at(3));
        assert_eq!(queue.pop(at(4)), Some(key("high")));
        assert_eq!(queue.pop(at(4)), Some(key("low")));
        assert_eq!(queue.pop(at(4)), Some(key("late")));
        assert_eq!(queue.pop(at(4)), None);

        queue.unschedulable(key("low"), BTreeSet::from([ClusterEvent::PodGone]), 0);
        queue.unschedulable(key("high"), BTreeSet::from([ClusterEvent::NodeAdded]), 0);
        queue.retry(key("late"), at(4));
        assert_eq!((queue.pop(at(4)), queue.wake_at()), (None, Some(at(5))));
        queue.happened(ClusterEvent::PodGone, at(6));
        assert_eq!(queue.pop(at(6)), Some(key("low")));
        assert_eq!(queue.pop(at(6)), Some(key("late")));
        assert_eq!((queue.pop(at(99)), queue.len()), (None, 3));
        queue.remove(&key("high"));
        queue.happened(ClusterEvent::NodeAdded, at(100));
        assert_eq!(queue.pop(at(200)), None);
        assert!(queue.unschedulable.is_empty());
    }

    #[test]
    fn an_event_helps_those_that_wait_for_it_alone() {
        let mut queue = queue();
        let at = Time::from_secs;
        let events = [
            BTreeSet::from([ClusterEvent::PodGone, ClusterEvent::NodeAdded]),
            BTreeSet::from([ClusterEvent::NodeLabels, ClusterEvent::NodeAdded]),
        ];
        for i in 0..6_u64 {
            queue.add(key(&i.to_string()), 0, at(i));
            let popped = queue.pop(at(i)).unwrap();
            queue.unschedulable(popped, events[usize::from(i % 2 == 1)].clone(), i);
        }
        queue.add(key("2"), 0, at(50));
        assert_eq!(queue.pop(at(50)), Some(key("2")));
        queue.happened(ClusterEvent::PodGone, at(60));
        assert_eq!([queue.pop(at(60)), queue.pop(at(60))], [Some(key("0")), Some(key("4"))]);
        assert_eq!(queue.pop(at(60)), None);
        queue.happened(ClusterEvent::NodeTaints, at(70));
        assert!(!queue.has_active());
        queue.happened(ClusterEvent::NodeAdded, at(70));
        assert_eq!(queue.pop(at(70)), Some(key("1")));
    }

    #[test]
    fn who_waits_for_anything_is_tried_again_in_time() {
        let mut queue = queue();
        let at = Time::from_secs;
        let anything = BTreeSet::from([ClusterEvent::NodeAdded, ClusterEvent::Anything]);
        queue.add(key("a"), 0, at(0));
        for event in [ClusterEvent::NodeTaints, ClusterEvent::PeerCame] {
            assert_eq!(queue.pop(at(10)), Some(key("a")));
            assert!(queue.is_popped(&key("a")));
            queue.unschedulable(key("a"), anything.clone(), 7);
            assert!(!queue.is_popped(&key("a")) && !queue.has_active());
            // Not even whether it may help is asked.
            queue.happened_to(event, at(10), |_| false);
            assert!(queue.has_active());
        }
        assert_eq!((queue.pop(at(20)), queue.happenings()), (Some(key("a")), 2));
        queue.unschedulable(key("a"), anything, 7);
        assert_eq!(queue.wake_at(), Some(at(320)));
        assert_eq!(queue.pop(at(319)), None);
        assert_eq!(queue.pop(at(320)), Some(key("a")));
        assert!(queue.impatient.is_empty() && queue.unschedulable.is_empty());
    }

    #[test]
    fn pauses_grow_from_the_first_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(3), max: Duration::from_secs(20) };
        let mut queue = Queue::new(backoff);
        let mut now = Time::from_secs(1000);
        queue.add(key("a"), 0, now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(queue.pop(now), Some(key("a")));
            queue.retry(key("a"), now);
            let due = queue.wake_at().unwrap();
            assert_eq!(queue.pop(now), None);
            pauses.push(due.since(now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [3, 6, 12, 20, 20, 20]);
    }

    #[test]
    fn nothing_is_tried_again_for_time_alone_and_nothing_is_lost_in_flight() {
        let mut queue = queue();
        let at = Time::from_secs;
        queue.add(key("a"), 0, at(1));
        assert_eq!(queue.pop(at(1)), Some(key("a")));
        queue.unschedulable(key("a"), BTreeSet::from([ClusterEvent::NodeAdded]), 0);
        assert_eq!((queue.wake_at(), queue.pop(at(1_000_000))), (None, None));
        // What happens while a binding is under way does not matter to it; when the binding fails
        // the pod is tried against all that has happened.
        queue.happened(ClusterEvent::NodeAdded, at(2_000_000));
        assert_eq!(queue.pop(at(2_000_000)), Some(key("a")));
        queue.happened(ClusterEvent::NodeAdded, at(2_000_001));
        queue.add(key("a"), 5, at(2_000_001));
        assert!(!queue.has_active());
        queue.retry(key("a"), at(2_000_002));
        assert_eq!(queue.pop(at(2_000_002)), Some(key("a")));
    }

    #[test]
    fn who_found_no_node_is_tried_before_its_pause_ends_when_nobody_else_waits() {
        let mut queue = queue();
        let at = Time::from_secs;
        let (late, sooner) = (at(1), Time(at(2).0 + 5));
        for (name, priority) in [("low", 0), ("high", 9), ("failed", 0), ("last", 99)] {
            queue.add(key(name), priority, at(0));
        }
        for (name, when) in [("last", sooner), ("high", late), ("failed", late), ("low", late)] {
            assert_eq!(queue.pop(when), Some(key(name)));
            if name == "failed" {
                queue.retry(key(name), when);
            } else {
                queue.unschedulable(key(name), BTreeSet::from([ClusterEvent::PodGone]), 0);
            }
        }
        assert!(!queue.has_active());
        queue.happened(ClusterEvent::PodGone, late);
        queue.add(key("new"), -1, late);
        // Who backs off does not go before who does not. Among those whose pauses end in the same
        // second priority decides, then age.
        let popped: Vec<Key> = std::iter::from_fn(|| queue.pop(late)).collect();
        assert_eq!(popped, ["new", "high", "low", "last"].map(key));
        assert_eq!((queue.has_active(), queue.wake_at()), (false, Some(at(2))));
        assert_eq!(queue.pop(at(2)), Some(key("failed")));
        // What is taken from there is there no more.
        assert!(queue.early.is_empty() && queue.backing_off.is_empty());
        queue.remove(&key("high"));
        queue.unschedulable(key("low"), BTreeSet::from([ClusterEvent::PodGone]), 0);
        queue.happened(ClusterEvent::PodGone, at(2));
        queue.remove(&key("low"));
        assert_eq!((queue.pop(at(2)), queue.early.len()), (None, 0));
    }

    #[test]
    fn so_many_are_tried_early_in_a_second() {
        let mut queue = queue();
        let (at, many) = (Time::from_secs, 2 * EARLY_MAX as usize + 3);
        for i in 0..many {
            queue.add(key(&format!("{i:04}")), 0, at(1));
        }
        while let Some(popped) = queue.pop(at(1)) {
            queue.unschedulable(popped, BTreeSet::from([ClusterEvent::PodGone]), 0);
        }
        // All are tried twice, so that their pauses are longer.
        queue.happened(ClusterEvent::PodGone, at(10));
        while let Some(popped) = queue.pop(at(10)) {
            queue.unschedulable(popped, BTreeSet::from([ClusterEvent::PodGone]), 0);
        }
        queue.happened(ClusterEvent::PodGone, Time(at(10).0 + 7));
        let mut early = Vec::new();
        for (now, wake) in [(Time(at(10).0 + 7), Some(at(11))), (at(11), Some(at(12)))] {
            assert!(now == at(11) || queue.has_active());
            early.push(std::iter::from_fn(|| queue.pop(now)).count());
            assert_eq!((queue.has_active(), queue.wake_at()), (false, wake));
        }
        // The others have waited long enough.
        early.push(std::iter::from_fn(|| queue.pop(at(12))).count());
        assert_eq!(early, [EARLY_MAX as usize, EARLY_MAX as usize, 3]);
        assert_eq!((queue.pop(at(99)), queue.wake_at()), (None, None));
    }

    #[test]
    fn a_particular_event_helps_those_of_a_kin() {
        let mut queue = queue();
        let at = Time::from_secs;
        for i in 0..6_u64 {
            queue.add(key(&i.to_string()), 0, at(i));
            let popped = queue.pop(at(i)).unwrap();
            queue.unschedulable(popped, BTreeSet::from([ClusterEvent::PeerLeft]), i % 2);
        }
        let mut asked = Vec::new();
        queue.happened_to(ClusterEvent::PeerCame, at(50), |_| true);
        queue.happened_to(ClusterEvent::PeerLeft, at(50), |key| {
            asked.push(key.name.to_string());
            *key.name == *"1"
        });
        assert_eq!(asked, ["0", "1"]);
        let helped: Vec<Key> = std::iter::from_fn(|| queue.pop(at(50))).collect();
        assert_eq!(helped, ["1", "3", "5"].map(key));
    }
}
