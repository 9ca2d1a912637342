//! [`Alarms`]: when somebody is looked at again.

use api::Time;

/// The times for which the queue holds an event that wakes one process or host.
///
/// What is wanted changes with nearly every step, and an event that was put into the queue stays
/// there. A time that comes later is kept here too, so that no second event is made for it.
#[derive(Clone, Default)]
pub(super) struct Alarms(
    /// The latest first: each was the earliest when it was set.
    Vec<Time>,
);

impl Alarms {
    /// Sees to it that something happens at `due` or before; says whether the queue needs an event
    /// for that.
    pub(super) fn set(&mut self, due: Time) -> bool {
        let needed = self.0.last().is_none_or(|first| due < *first);
        if needed {
            self.0.push(due);
        }
        needed
    }

    /// Takes an event that came at `now`; says whether it was set and not forgotten since.
    pub(super) fn ring(&mut self, now: Time) -> bool {
        let rings = self.0.last() == Some(&now);
        if rings {
            self.0.pop();
            if self.0.is_empty() {
                // There may be hundreds of thousands of them, nearly all of nodes that are idle.
                self.0 = Vec::new();
            }
        }
        rings
    }

    /// Forgets what was set: whoever was to be woken is not there any more.
    pub(super) fn forget(&mut self) {
        self.0 = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_needs_two_events() {
        let at = Time::from_secs;
        let mut alarms = Alarms::default();
        assert!(alarms.set(at(600)));
        assert!(alarms.set(at(1)));
        assert!(!alarms.set(at(1)) && !alarms.set(at(2)), "it is looked at before");
        assert!(alarms.ring(at(1)) && !alarms.ring(at(1)));
        assert!(!alarms.set(at(600)), "the event for it is still in the queue");
        assert!(alarms.ring(at(600)));
        assert!(alarms.set(at(700)));
    }

    #[test]
    fn what_was_forgotten_does_not_ring() {
        let at = Time::from_secs;
        let mut alarms = Alarms::default();
        assert!(alarms.set(at(5)));
        alarms.forget();
        assert!(alarms.set(at(9)));
        assert!(!alarms.ring(at(5)));
        assert!(alarms.ring(at(9)));
    }
}
