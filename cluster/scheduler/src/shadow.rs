//! [`Shadow`]: takes decisions a second time, by the reference, to see that both ways agree.
//!
//! [`crate::fast`] is meant to decide as [`crate::cycle::choose`] does, to the bit. Whoever wants
//! to see that it does, on the cluster that is there and not on one made up for a test, lets one
//! decision in so many be compared. No decision changes by it.

use std::fmt;
use std::num::NonZeroU32;

use api::{Key, Time};
use rand_chacha::ChaCha8Rng;

use crate::cycle::{self, Choice, Diagnosis, Question};
use crate::preemption::Preemption;
use crate::profile::Profile;
use crate::snapshot::Snapshot;

/// Differences that are kept: the first is one too many, and the others seldom tell more.
const KEPT_MAX: usize = 16;

/// A decision in which the two ways differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// When.
    pub time: Time,
    /// About which pod.
    pub pod: Key,
    /// What the reference decides.
    pub expected: Result<Choice, Diagnosis>,
    /// What was decided.
    pub found: Result<Choice, Diagnosis>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |result: &Result<Choice, Diagnosis>| match result {
            Ok(choice) => format!(
                "to {} (score {}, {} of {} nodes can take it)",
                choice.node, choice.score, choice.feasible, choice.evaluated
            ),
            Err(diagnosis) => match &diagnosis.preemption {
                Preemption::Found(eviction) => format!(
                    "nowhere until {} pods have left {} ({})",
                    eviction.victims.len(),
                    eviction.node,
                    diagnosis.message()
                ),
                _ => format!("nowhere ({})", diagnosis.message()),
            },
        };
        let Self { pod, expected, found, .. } = self;
        if expected == found {
            return write!(
                f,
                "{pod} goes {} by both ways, but they leave the next decision another beginning",
                words(found)
            );
        }
        write!(f, "{pod} goes {}, by the reference {}", words(found), words(expected))
    }
}

/// What the reference decides, and what the next decision would begin with.
pub(crate) struct Expected {
    result: Result<Choice, Diagnosis>,
    start: usize,
    rng: ChaCha8Rng,
}

/// Compares one decision in so many with the reference.
#[derive(Clone, Debug)]
pub struct Shadow {
    one_in: NonZeroU32,
    decisions: u64,
    compared: u64,
    different: u64,
    differences: Vec<Difference>,
}

impl Shadow {
    pub(crate) const fn new(one_in: NonZeroU32) -> Self {
        Self { one_in, decisions: 0, compared: 0, different: 0, differences: Vec::new() }
    }

    /// How many decisions were compared.
    pub const fn compared(&self) -> u64 {
        self.compared
    }

    /// How many of them differed.
    pub const fn different(&self) -> u64 {
        self.different
    }

    /// The first of the decisions that differed.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// What the reference decides, if this decision is one of those that are compared.
    pub(crate) fn expect(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        pod: Question,
        mut start: usize,
        rng: &ChaCha8Rng,
    ) -> Option<Expected> {
        let turn = self.decisions.is_multiple_of(u64::from(self.one_in.get()));
        self.decisions += 1;
        turn.then(|| {
            let mut rng = rng.clone();
            let result = cycle::choose(profile, snapshot, pod, &mut start, &mut rng);
            Expected { result, start, rng }
        })
    }

    /// Compares a decision, and where it leaves the next one, with what was expected.
    pub(crate) fn compare(
        &mut self,
        time: Time,
        pod: &Key,
        expected: Expected,
        found: &Result<Choice, Diagnosis>,
        (start, rng): (usize, &ChaCha8Rng),
    ) {
        self.compared += 1;
        let same = expected.result == *found && expected.start == start && expected.rng == *rng;
        self.different += u64::from(!same);
        if !same && self.differences.len() < KEPT_MAX {
            self.differences.push(Difference {
                time,
                pod: pod.clone(),
                expected: expected.result,
                found: found.clone(),
            });
        }
    }
}
