//! What is still to happen on a node, in the order in which it will.

use std::collections::VecDeque;

use crate::RuntimeError;
use crate::runtime::ProbeOutcome;
use api::Time;
use machine::CallId;

/// What a request comes to when its time is over. Containers and images are named by number.
#[derive(Clone)]
pub(super) enum Action {
    Fail(RuntimeError),
    /// A container that was made and cannot be started.
    FailStart(u32, RuntimeError),
    Start(u32),
    Inspect(Option<u32>),
    Stop {
        container: u32,
        exit_code: i32,
    },
    Remove(Option<u32>),
    RemovePod(Box<[u32]>, Box<str>),
    List,
    Facts,
    Probe(ProbeOutcome),
    InspectImage(u32),
    Pull(u32),
    Network(Box<str>),
    MakeFolder(Box<str>),
    RemoveFolder(Box<str>),
}

/// Something that will happen.
#[derive(Clone)]
pub(super) enum Due {
    Connected,
    /// A container ends by itself, if it still runs.
    Exit {
        container: u32,
    },
    /// The answer to a request, or to nobody.
    Reply {
        to: Option<CallId>,
        action: Box<Action>,
    },
}

impl Due {
    fn is_stop(&self) -> bool {
        matches!(self, Self::Reply { action, .. } if matches!(**action, Action::Stop { .. }))
    }
}

#[derive(Clone)]
struct Entry {
    at: Time,
    /// Breaks ties: what was planned first happens first.
    order: u64,
    due: Due,
}

/// Everything planned, in order: most nodes have a handful, and an idle one nothing. What is added
/// is due soon or long after all else, and a queue moves little for either.
#[derive(Clone, Default)]
pub(super) struct Agenda {
    entries: VecDeque<Entry>,
    next_order: u64,
    /// How many of them are stops.
    stops: u32,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Time, due: Due) {
        let order = self.next_order;
        self.next_order += 1;
        self.stops += u32::from(due.is_stop());
        self.insert(Entry { at, order, due });
    }

    fn insert(&mut self, entry: Entry) {
        let key = (entry.at, entry.order);
        // The end of a container, the most frequent of what is far away, is mostly the last.
        let is_last = self.entries.back().is_none_or(|e| (e.at, e.order) < key);
        let place = if is_last {
            self.entries.len()
        } else {
            self.entries.partition_point(|e| (e.at, e.order) < key)
        };
        self.entries.insert(place, entry);
    }

    pub(super) fn first(&self) -> Option<Time> {
        self.entries.front().map(|e| e.at)
    }

    /// The containers that are to end by themselves after `time`.
    pub(super) fn exits_after(&self, time: Time) -> impl Iterator<Item = u32> {
        self.entries.iter().rev().take_while(move |e| e.at > time).filter_map(|e| match e.due {
            Due::Exit { container } => Some(container),
            Due::Connected | Due::Reply { .. } => None,
        })
    }

    /// Whether somebody waits for an answer that comes after `time`, other than to a probe.
    pub(super) fn owes_after(&self, time: Time) -> bool {
        let mut later = self.entries.iter().rev().take_while(|e| e.at > time);
        later.any(|e| match &e.due {
            Due::Reply { to: Some(_), action } => !matches!(**action, Action::Probe(_)),
            Due::Reply { to: None, .. } | Due::Connected | Due::Exit { .. } => false,
        })
    }

    /// Takes what comes first, if its time has come.
    pub(super) fn pop(&mut self, now: Time) -> Option<(Time, Due)> {
        let entry = self.entries.pop_front_if(|e| e.at <= now)?;
        self.stops -= u32::from(entry.due.is_stop());
        if self.entries.is_empty() {
            // An idle node keeps no memory of a busy hour.
            self.entries = VecDeque::new();
        }
        Some((entry.at, entry.due))
    }

    /// A container ended: whoever waits for that need wait no longer.
    pub(super) fn hasten_stops(&mut self, at: Time, number: u32) {
        if self.stops == 0 {
            return;
        }
        let waits = |entry: &Entry| match &entry.due {
            Due::Reply { action, .. } => {
                matches!(**action, Action::Stop { container, .. } if container == number)
            }
            Due::Connected | Due::Exit { .. } => false,
        };
        let (waiting, others) = std::mem::take(&mut self.entries).into_iter().partition(waits);
        self.entries = others;
        for entry in waiting {
            self.insert(Entry { at: entry.at.min(at), ..entry });
        }
    }

    /// Whoever asked is gone.
    pub(super) fn forget_callers(&mut self) {
        self.entries.retain(|e| !matches!(e.due, Due::Connected));
        for entry in &mut self.entries {
            if let Due::Reply { to, .. } = &mut entry.due {
                *to = None;
            }
        }
    }
}
