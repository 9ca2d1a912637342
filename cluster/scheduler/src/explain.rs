//! [`Explanation`]: why a pod would go where it would go, and to no other node.

use api::Key;
use serde::{Deserialize, Serialize};

use crate::cycle::{Diagnosis, Question, scores_of, search};
use crate::framework::{Score, Scoring};
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::survey::Survey;

/// One decision in full, as it would be taken now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace and name of the pod.
    pub pod: String,
    /// The profile.
    pub profile: String,
    /// How many nodes there are.
    pub nodes: usize,
    /// The first node that is looked at.
    pub first: Option<String>,
    /// How many nodes are looked at until enough can take the pod.
    pub evaluated: usize,
    /// The nodes with the best score, in order; one of them is drawn.
    pub winners: Vec<String>,
    /// The best of the others.
    pub runner_up: Option<String>,
    /// The nodes that can take the pod, in the order in which they are looked at.
    pub feasible: Vec<ScoredNode>,
    /// The nodes that cannot, in the same order.
    pub rejected: Vec<RejectedNode>,
    /// The message of `FailedScheduling`, if no node can take the pod.
    pub message: Option<String>,
}

/// A node that can take the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoredNode {
    /// The node's name.
    pub node: String,
    /// The sum of the weighted scores.
    pub total: Score,
    /// The scores of the plugins that have an opinion, in the profile's order. They are shown
    /// for a node that is the only one, too, though they do not count then.
    pub scores: Vec<PluginScore>,
}

/// What one plugin thinks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginScore {
    /// The plugin's name.
    pub plugin: String,
    /// What it measured of the node, if it scores by comparing nodes.
    pub traits: Vec<i64>,
    /// Its score, 0..=100.
    pub raw: Score,
    /// Its score times its weight.
    pub weighted: Score,
}

/// A node that cannot take the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedNode {
    /// The node's name.
    pub node: String,
    /// The first plugin that rejects it.
    pub plugin: String,
    /// Why.
    pub reasons: Vec<String>,
    /// Whether evicting pods from the node could help.
    pub resolvable: bool,
}

impl Explanation {
    /// No node is looked at for the pod.
    pub(crate) fn refused(profile: &Profile, key: &Key, diagnosis: &Diagnosis) -> Self {
        Self {
            pod: key.path(),
            profile: profile.name.clone(),
            nodes: diagnosis.nodes,
            first: None,
            evaluated: 0,
            winners: Vec::new(),
            runner_up: None,
            feasible: Vec::new(),
            rejected: Vec::new(),
            message: Some(diagnosis.message()),
        }
    }
}

/// Explains the decision about a pod on which the search starts at `start`.
pub(crate) fn explain(
    profile: &Profile,
    snapshot: &Snapshot,
    key: &Key,
    pod: Question,
    start: usize,
) -> Explanation {
    let name_of = |id: u32| snapshot.row(id).name.clone();
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let mut rejected = Vec::new();
    let survey = Survey::of(&profile.relating, snapshot, pod);
    let found = search(profile, snapshot, pod, &survey, start, |id, rejection| {
        diagnosis.count(&rejection, 1);
        rejected.push(RejectedNode {
            node: name_of(id),
            plugin: rejection.plugin.to_owned(),
            reasons: rejection.reasons,
            resolvable: rejection.resolvable,
        });
    });
    let mut feasible: Vec<ScoredNode> = found
        .feasible
        .iter()
        .map(|id| ScoredNode { node: name_of(*id), total: 0, scores: Vec::new() })
        .collect();
    for enabled in &profile.plugins {
        let scores = scores_of(enabled, snapshot, pod, &survey, &found.feasible);
        for ((node, raw), id) in feasible.iter_mut().zip(scores).zip(&found.feasible) {
            let mut traits = Vec::new();
            if enabled.scoring == Scoring::Compared {
                enabled.plugin.traits(pod.class, snapshot.row(*id), &mut traits);
            }
            let weighted = enabled.weight * raw;
            // One node has nothing to win against: its scores do not count.
            node.total += if found.feasible.len() > 1 { weighted } else { 0 };
            let plugin = enabled.plugin.name().to_owned();
            node.scores.push(PluginScore { plugin, traits, raw, weighted });
        }
    }
    let best = feasible.iter().map(|node| node.total).max();
    let (winners, others): (Vec<_>, Vec<_>) =
        feasible.iter().partition(|node| Some(node.total) == best);
    let second = others.iter().map(|node| node.total).max();
    let runner_up = others.iter().find(|node| Some(node.total) == second);
    let order = snapshot.order().nodes();
    Explanation {
        pod: key.path(),
        profile: profile.name.clone(),
        nodes: snapshot.len(),
        first: start.checked_rem(order.len()).map(|at| name_of(order[at])),
        evaluated: found.evaluated,
        winners: winners.iter().map(|node| node.node.clone()).collect(),
        runner_up: runner_up.map(|node| node.node.clone()),
        message: feasible.is_empty().then(|| diagnosis.message()),
        feasible,
        rejected,
    }
}
