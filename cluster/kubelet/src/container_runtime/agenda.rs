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

impl Entry {
    const fn key(&self) -> (Time, u64) {
        (self.at, self.order)
    }
}

/// Everything planned, in order: most nodes have a handful, and an idle one nothing.
///
/// Ends of containers, many and far away, are apart from what is due soon: who plans an answer
/// looks at the few others that are owed, and not at the memory of an hour to come.
#[derive(Clone, Default)]
pub(super) struct Agenda {
    /// All but the ends of containers.
    soon: VecDeque<Entry>,
    /// The ends of containers.
    ends: VecDeque<Entry>,
    next_order: u64,
    /// How many of them are stops.
    stops: u32,
}

/// Adds to a queue that is in order; mostly it is the last.
fn insert(queue: &mut VecDeque<Entry>, entry: Entry) {
    let key = entry.key();
    let place = match queue.back() {
        Some(last) if last.key() > key => queue.partition_point(|e| e.key() < key),
        _ => queue.len(),
    };
    queue.insert(place, entry);
}

impl Agenda {
    pub(super) fn add(&mut self, at: Time, due: Due) {
        let order = self.next_order;
        self.next_order += 1;
        self.stops += u32::from(due.is_stop());
        let queue = if matches!(due, Due::Exit { .. }) { &mut self.ends } else { &mut self.soon };
        insert(queue, Entry { at, order, due });
    }

    pub(super) fn first(&self) -> Option<Time> {
        [&self.soon, &self.ends].into_iter().filter_map(VecDeque::front).map(|e| e.at).min()
    }

    /// The containers that are to end by themselves after `time`.
    pub(super) fn exits_after(&self, time: Time) -> impl Iterator<Item = u32> {
        self.ends.iter().rev().take_while(move |e| e.at > time).filter_map(|e| match e.due {
            Due::Exit { container } => Some(container),
            Due::Connected | Due::Reply { .. } => None,
        })
    }

    /// Whether somebody waits for an answer that comes after `time`, other than to a probe.
    pub(super) fn owes_after(&self, time: Time) -> bool {
        let mut later = self.soon.iter().rev().take_while(|e| e.at > time);
        later.any(|e| match &e.due {
            Due::Reply { to: Some(_), action } => !matches!(**action, Action::Probe(_)),
            Due::Reply { to: None, .. } | Due::Connected | Due::Exit { .. } => false,
        })
    }

    /// Takes what comes first, if its time has come.
    pub(super) fn pop(&mut self, now: Time) -> Option<(Time, Due)> {
        let ends_first = match (self.soon.front(), self.ends.front()) {
            (Some(soon), Some(end)) => end.key() < soon.key(),
            (soon, _) => soon.is_none(),
        };
        let nothing_else = ends_first || self.ends.is_empty();
        let queue = if ends_first { &mut self.ends } else { &mut self.soon };
        let entry = queue.pop_front_if(|e| e.at <= now)?;
        if queue.is_empty() && nothing_else {
            // An idle node keeps no memory of a busy hour.
            *queue = VecDeque::new();
        }
        self.stops -= u32::from(entry.due.is_stop());
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
        let (waiting, others) = std::mem::take(&mut self.soon).into_iter().partition(waits);
        self.soon = others;
        for entry in waiting {
            insert(&mut self.soon, Entry { at: entry.at.min(at), ..entry });
        }
    }

    /// Whoever asked is gone.
    pub(super) fn forget_callers(&mut self) {
        self.soon.retain(|e| !matches!(e.due, Due::Connected));
        for entry in &mut self.soon {
            if let Due::Reply { to, .. } = &mut entry.due {
                *to = None;
            }
        }
    }
}
