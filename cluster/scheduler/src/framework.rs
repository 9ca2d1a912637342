//! The extension points: what a plugin is asked, when, and what its answers mean.
//!
//! For every pod the cycle asks each plugin once for `pre_filter`, then for `filter` node by
//! node until a plugin rejects, then for `score` on every node that passed, and once for
//! `normalize` over all those scores.

use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// A plugin's opinion of a node: 0 (worst) to 100 (best) after normalisation.
pub type Score = i64;

/// The best score of one plugin.
pub const SCORE_MAX: Score = 100;

/// Whether a node can take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As far as this plugin is concerned, yes.
    Fit,
    /// No.
    Reject {
        /// Why, as `FailedScheduling` counts it; several reasons for several shortages.
        reasons: Vec<String>,
        /// Whether evicting pods from the node could help.
        resolvable: bool,
    },
}

impl Verdict {
    /// A rejection that no eviction can change.
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self::Reject { reasons: vec![reason.into()], resolvable: false }
    }
}

/// What can change in the cluster that might let a rejected pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterEvent {
    /// A node joined.
    NodeAdded,
    /// A node's allocatable resources changed.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints, or whether it is cordoned, changed.
    NodeTaints,
    /// A pod left a node, or asks for less.
    PodGone,
}

/// A scheduling plugin. All methods are pure.
pub trait Plugin: Send {
    /// The name in configurations and diagnoses.
    fn name(&self) -> &'static str;

    /// The weight of its scores; zero if it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// The only nodes that can be right for this pod, if that is known beforehand.
    fn pre_filter(&self, _pod: &PodInfo) -> Option<Vec<String>> {
        None
    }

    /// Whether `node` can take `pod`.
    fn filter(&self, _pod: &PodInfo, _node: &NodeInfo) -> Verdict {
        Verdict::Fit
    }

    /// The events after which a pod that this plugin rejected is worth another attempt.
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }

    /// Scores of the nodes that passed (`[nodes]`, same order), each 0..=100.
    fn score(&self, _pod: &PodInfo, _nodes: &[&NodeInfo], _snapshot: &Snapshot) -> Vec<Score> {
        Vec::new()
    }
}

/// Scales scores so that the highest becomes 100; all zero stay zero (or become 100 when
/// `reverse`).
pub fn normalize(scores: &mut [Score], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if most == 0 { 0 } else { *score * SCORE_MAX / most };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
