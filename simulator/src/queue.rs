//! [`Queue`]: the events to come, in one total order of time, priority and insertion.
//!
//! A radix heap: buckets by the highest bit in which an event's time differs from the time of
//! the last event taken. An event moves to a lower bucket a few times in its life, in sequence
//! through memory, instead of up and down a tree, so that a million pending events cost hardly
//! more than a thousand. It relies on nothing ever being scheduled in the past.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use api::Time;

/// Of two events of one time the one of the lower priority number goes first.
pub type Priority = u8;

/// Insertion numbers and priority in one word.
const PRIORITY_SHIFT: u32 = 56;
/// Buckets: one for each bit of a time, and one for the present.
const BUCKETS: usize = 65;

#[derive(Clone, Copy)]
struct Entry<E> {
    time: u64,
    /// Priority above, insertion number below.
    order: u64,
    event: E,
}

/// An event that is due now.
#[derive(Clone, Copy)]
struct Due<E> {
    order: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// The events to come.
#[derive(Clone)]
pub struct Queue<E> {
    /// `buckets[i]` for i > 0 holds times that differ from `now` in bit i - 1 and in none above.
    buckets: Vec<Vec<Entry<E>>>,
    /// Bit i is set when `buckets[i]` is not empty.
    filled: u128,
    /// Events of the time `now`.
    due: BinaryHeap<Reverse<Due<E>>>,
    now: u64,
    inserted: u64,
    len: usize,
}

impl<E: Copy> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Copy> Queue<E> {
    /// Makes an empty queue at time zero.
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            filled: 0,
            due: BinaryHeap::new(),
            now: 0,
            inserted: 0,
            len: 0,
        }
    }

    /// How many events are to come.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is to come.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an event; one in the past counts as one of the present.
    pub fn push(&mut self, time: Time, priority: Priority, event: E) {
        let time = time.0.max(self.now);
        let order = (u64::from(priority) << PRIORITY_SHIFT) | self.inserted;
        self.inserted += 1;
        self.len += 1;
        if time == self.now {
            self.due.push(Reverse(Due { order, event }));
        } else {
            self.place(Entry { time, order, event });
        }
    }

    fn place(&mut self, entry: Entry<E>) {
        let bucket = (u64::BITS - (entry.time ^ self.now).leading_zeros()) as usize;
        self.filled |= 1 << bucket;
        self.buckets[bucket].push(entry);
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        if self.due.is_empty() {
            self.advance()?;
        }
        let Reverse(due) = self.due.pop()?;
        self.len -= 1;
        Some((Time(self.now), due.event))
    }

    /// The time of the next event.
    pub fn next_time(&self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(Time(self.now));
        }
        let lowest = self.lowest()?;
        self.buckets[lowest].iter().map(|e| Time(e.time)).min()
    }

    /// The time of the last of the events that are such ones.
    pub fn latest(&self, is_one: impl Fn(&E) -> bool) -> Option<Time> {
        let due = self.due.iter().map(|Reverse(due)| (self.now, &due.event));
        let later = self.buckets.iter().flatten().map(|entry| (entry.time, &entry.event));
        let such = due.chain(later).filter(|(_, event)| is_one(event));
        such.map(|(time, _)| Time(time)).max()
    }

    fn lowest(&self) -> Option<usize> {
        (self.filled != 0).then(|| self.filled.trailing_zeros() as usize)
    }

    /// Moves the present to the time of the next event.
    fn advance(&mut self) -> Option<()> {
        let lowest = self.lowest()?;
        let mut entries = std::mem::take(&mut self.buckets[lowest]);
        self.filled &= !(1 << lowest);
        self.now = entries.iter().map(|e| e.time).min()?;
        for entry in entries.drain(..) {
            if entry.time == self.now {
                self.due.push(Reverse(Due { order: entry.order, event: entry.event }));
            } else {
                self.place(entry);
            }
        }
        // Keep the room: the bucket fills again.
        if self.buckets[lowest].is_empty() {
            self.buckets[lowest] = entries;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any mixture of adding and taking gives the order of a sorted set.
        #[test]
        fn order_is_time_then_priority_then_insertion(
            steps in prop::collection::vec(
                prop::option::of((prop_oneof![0_u64..4, 0_u64..5_000_000_000], 0_u8..3)), 1..300),
        ) {
            let mut queue = Queue::new();
            let mut model = BTreeSet::new();
            let (mut now, mut inserted) = (0, 0_u32);
            for step in steps {
                if let Some((delay, priority)) = step {
                    queue.push(Time(now + delay), priority, inserted);
                    model.insert((now + delay, priority, inserted));
                    inserted += 1;
                } else {
                    prop_assert_eq!(queue.next_time().map(|t| t.0), model.first().map(|e| e.0));
                    let expected = model.pop_first();
                    let found = queue.pop();
                    prop_assert_eq!(
                        found.map(|(t, e)| (t.0, e)), expected.map(|(t, _, e)| (t, e)));
                    now = found.map_or(now, |(t, _)| t.0);
                }
                prop_assert_eq!(queue.len(), model.len());
                let even = model.iter().filter(|(_, _, event)| event % 2 == 0);
                let latest = even.map(|(time, _, _)| *time).max();
                prop_assert_eq!(queue.latest(|event| event % 2 == 0).map(|t| t.0), latest);
            }
        }
    }
}
