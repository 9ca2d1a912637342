//! Pods that wait for a node: ready to be tried, backing off, or unschedulable until something
//! changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Time};
use machine::Backoff;

use crate::framework::ClusterEvent;

/// Source: kubernetes 1.33, `podInitialBackoffSeconds`, `podMaxBackoffSeconds`.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) };

type Place = (Reverse<i32>, Time, Key);

#[derive(Clone, Debug)]
struct Waiting {
    priority: i32,
    added: Time,
    attempts: u32,
    tried: Time,
    state: State,
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

/// The scheduling queue: higher priority first, then whoever came first.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    pods: BTreeMap<Key, Waiting>,
    active: BTreeSet<Place>,
    backing_off: BTreeSet<(Time, Key)>,
    /// Unschedulable pods by what may help them: there are far fewer causes than pods.
    unschedulable: BTreeMap<Cause, BTreeSet<Key>>,
}

impl Queue {
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
        !self.active.is_empty()
    }

    /// When the next pod has backed off long enough.
    pub fn wake_at(&self) -> Option<Time> {
        self.backing_off.first().map(|(time, _)| *time)
    }

    /// Adds a pod that needs a node; a change of a waiting pod makes it worth another attempt.
    pub fn add(&mut self, key: Key, priority: i32, now: Time) {
        let mut waiting = self.take(&key).unwrap_or(Waiting {
            priority,
            added: now,
            attempts: 0,
            tried: Time::ZERO,
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
        while self.backing_off.first().is_some_and(|(time, _)| *time <= now) {
            let (_, key) = self.backing_off.pop_first()?;
            let mut waiting = self.pods.remove(&key)?;
            waiting.state = State::Active;
            self.put(key, waiting);
        }
        let (_, _, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.state = State::InFlight;
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.tried = now;
        Some(key)
    }

    /// Puts a popped pod aside until one of `events` happens, to one of its `kin` where that
    /// matters.
    pub fn unschedulable(&mut self, key: Key, events: BTreeSet<ClusterEvent>, kin: u64) {
        if let Some(mut waiting) = self.take(&key) {
            let kin = events.iter().any(|event| event.is_particular()).then_some(kin);
            waiting.state = State::Unschedulable((events, kin));
            self.put(key, waiting);
        }
    }

    /// Puts a popped pod back to be tried again after a pause: its binding failed.
    pub fn retry(&mut self, key: Key, now: Time) {
        if let Some(waiting) = self.take(&key) {
            self.ready(key, waiting, now);
        }
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
        let helped = self.unschedulable.extract_if(.., |(events, _), keys| {
            events.contains(&event) && keys.first().is_some_and(&mut helps)
        });
        for key in helped.flat_map(|(_, keys)| keys).collect::<Vec<_>>() {
            if let Some(waiting) = self.pods.remove(&key) {
                self.ready(key, waiting, now);
            }
        }
    }

    fn ready(&mut self, key: Key, mut waiting: Waiting, now: Time) {
        let due = waiting.tried + BACKOFF.delay(waiting.attempts);
        waiting.state =
            if waiting.attempts > 0 && due > now { State::BackingOff(due) } else { State::Active };
        self.put(key, waiting);
    }

    fn put(&mut self, key: Key, waiting: Waiting) {
        match &waiting.state {
            State::Active => {
                self.active.insert((Reverse(waiting.priority), waiting.added, key.clone()));
            }
            State::BackingOff(due) => {
                self.backing_off.insert((*due, key.clone()));
            }
            State::Unschedulable(cause) => {
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
                self.active.remove(&(Reverse(waiting.priority), waiting.added, key.clone()));
            }
            State::BackingOff(due) => {
                self.backing_off.remove(&(*due, key.clone()));
            }
            State::Unschedulable(cause) => {
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
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(api::Kind::Pod, "d", name)
    }

    #[test]
    fn priority_then_age_then_back_off_then_events() {
        let mut queue = Queue::default();
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
        assert_eq!(queue.wake_at(), Some(at(5)));
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
        let mut queue = Queue::default();
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
    fn a_particular_event_helps_those_of_a_kin() {
        let mut queue = Queue::default();
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
