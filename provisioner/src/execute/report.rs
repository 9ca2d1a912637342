//! What came of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::GateError;
use crate::host::HostError;

/// Why a host was not brought to its desired state.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An operation on the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A unit did not become healthy.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The pods of a node did not go before its change.
    #[error("the node was not drained, and is as it was: {why}")]
    NotDrained {
        /// Why, in the API server's words.
        why: String,
    },
    /// Others failed first, and going on would have been unsafe.
    #[error("not reached: {because}")]
    NotReached {
        /// Why the run was stopped.
        because: String,
    },
}

impl ApplyError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Host(error) => error.advice(),
            Self::Gate(error) => error.advice(),
            Self::NotDrained { .. } => {
                "make room for its pods elsewhere, or leave --drain out: pods outlive a kubelet's \
                 restart"
                    .to_owned()
            }
            Self::NotReached { .. } => "apply again when the cause is gone".to_owned(),
        }
    }

    /// Whether the host itself is out of reach, rather than unwell.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Host(
                HostError::Lost { .. }
                    | HostError::Unreachable { .. }
                    | HostError::Handshake { .. }
            )
        )
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// By host; hosts without changes are not here.
    pub hosts: BTreeMap<String, Outcome>,
    /// Name and length of each phase, in order.
    pub phases: Vec<(String, Duration)>,
    /// The hook that ended the run, and how.
    pub hook_failure: Option<String>,
}

/// What was done on one host.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps begun that change something a user sees.
    pub steps: usize,
    /// Units started or restarted.
    pub restarted: Vec<String>,
    /// Notes from the host.
    pub notes: Vec<String>,
    /// Why it is not done.
    pub error: Option<ApplyError>,
}

impl Report {
    /// Whether every host is as it should be.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.hook_failure.is_none() && self.hosts.values().all(|outcome| outcome.error.is_none())
    }

    /// Whether nothing went wrong but that hosts were out of reach.
    #[must_use]
    pub fn is_success_but_for_lost(&self) -> bool {
        let fine = |error: &ApplyError| error.is_lost();
        self.hook_failure.is_none()
            && self.hosts.values().all(|outcome| outcome.error.as_ref().is_none_or(fine))
    }

    /// Hosts by how far they came: done, failed, not begun.
    #[must_use]
    pub fn split(&self) -> Progressed<'_> {
        let mut split = Progressed::default();
        for (host, outcome) in &self.hosts {
            match (&outcome.error, outcome.steps) {
                (None, _) => split.done.push(host),
                (Some(ApplyError::NotReached { .. } | ApplyError::NotDrained { .. }), 0) => {
                    split.not_begun.push(host)
                }
                (Some(_), _) => split.failed.push(host),
            }
        }
        split
    }

    /// Whether anything at all was changed on some host.
    #[must_use]
    pub fn changed_something(&self) -> bool {
        self.hosts.values().any(|outcome| outcome.steps > 0)
    }
}

/// Hosts by how far a run came with them, each list sorted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progressed<'a> {
    /// All of their changes are made.
    pub done: Vec<&'a str>,
    /// They failed, or the run ended between two of their stages.
    pub failed: Vec<&'a str>,
    /// Nothing was done.
    pub not_begun: Vec<&'a str>,
}

/// One phase's time, for machines.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: String,
    /// Its length in milliseconds.
    pub ms: u128,
}
