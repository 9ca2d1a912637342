//! [`Explanation`]: why a pod would go where it would go, and to no other node.

mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::Key;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::cycle::{
    Diagnosis, Field, Question, Rejection, Search, reject_with_nominated, scores_of, search,
};
use crate::framework::{Score, Scoring};
use crate::preemption::{self, Preemption};
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
    /// The node that the pod has, or is about to get. The explanation is of what would be decided
    /// now if it had none.
    pub node: Option<String>,
    /// The gates that hold the pod back. The explanation is of what would be decided without.
    pub gates: Vec<String>,
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
    /// How many nodes cannot for each cause, the most frequent first.
    pub causes: Vec<Cause>,
    /// Nodes that are left out of `feasible` and `rejected`.
    pub omitted: Omitted,
    /// The message of `FailedScheduling`, if no node can take the pod.
    pub message: Option<String>,
    /// The pods that would be displaced, if that would give the pod a place.
    pub displaced: Option<Displaced>,
    /// The extenders that would be asked, too, by their addresses. What they would say is not part
    /// of the explanation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extenders: Vec<String>,
}

/// The pods that would have to leave a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Displaced {
    /// The node's name.
    pub node: String,
    /// Namespaces and names of the pods, the most important first.
    pub pods: Vec<String>,
    /// For how many of them a budget would be violated.
    pub violations: usize,
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
    /// The other plugins that would reject it, if they were asked.
    pub also: Vec<Objection>,
}

/// A plugin's verdict against a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objection {
    /// The plugin's name.
    pub plugin: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// Why nodes cannot take the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The first plugin that rejects them.
    pub plugin: String,
    /// Why.
    pub reasons: Vec<String>,
    /// How many nodes.
    pub nodes: usize,
}

/// How many nodes are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Omitted {
    /// Of those that can take the pod.
    pub feasible: usize,
    /// Of those that cannot.
    pub rejected: usize,
}

/// Why no decision about a pod can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// There is none.
    #[error("the scheduler knows no such pod")]
    Unknown,
    /// It takes no place.
    #[error("the pod has finished")]
    Finished,
    /// Another scheduler decides about it.
    #[error("the pod is for the scheduler {scheduler:?}; this one has {}", .profiles.join(", "))]
    Elsewhere {
        /// `spec.schedulerName`.
        scheduler: String,
        /// The names of the profiles that there are.
        profiles: Vec<String>,
    },
}

impl Explanation {
    /// Leaves out all but so many nodes of either kind: the best of those that can take the pod,
    /// the first for each cause of those that cannot, and in any case the node that the pod has.
    pub fn shorten(&mut self, nodes_max: usize) {
        let node = self.node.clone();
        let own = |name: &str| node.as_deref() == Some(name);
        let (feasible, rejected) = (self.feasible.len(), self.rejected.len());
        self.feasible.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.node.cmp(&b.node)));
        let mut kept = 0;
        self.feasible.retain(|scored| {
            kept += 1;
            kept <= nodes_max || own(&scored.node)
        });
        let of_each = (nodes_max / self.causes.len().max(1)).max(1);
        let mut of_cause = BTreeMap::<(String, Vec<String>), usize>::new();
        let mut kept = 0;
        self.rejected.retain(|node| {
            let cause = (node.plugin.clone(), node.reasons.clone());
            let count = of_cause.entry(cause).or_default();
            *count += 1;
            let keep = *count <= of_each && kept < nodes_max;
            kept += usize::from(keep);
            keep || own(&node.node)
        });
        self.winners.truncate(nodes_max);
        self.causes.truncate(nodes_max);
        self.omitted.feasible += feasible - self.feasible.len();
        self.omitted.rejected += rejected - self.rejected.len();
    }
}

impl Explanation {
    /// No node is looked at for the pod.
    pub(crate) fn refused(profile: &Profile, key: &Key, diagnosis: &Diagnosis) -> Self {
        Self {
            pod: key.path(),
            profile: profile.name.clone(),
            node: None,
            gates: Vec::new(),
            nodes: diagnosis.nodes,
            first: None,
            evaluated: 0,
            winners: Vec::new(),
            runner_up: None,
            feasible: Vec::new(),
            rejected: Vec::new(),
            causes: Vec::new(),
            omitted: Omitted::default(),
            displaced: None,
            extenders: Vec::new(),
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
    rng: &mut ChaCha8Rng,
) -> Explanation {
    let name_of = |id: u32| snapshot.row(id).name.clone();
    let field = match Field::of(profile, snapshot, pod.class) {
        Ok(field) => field,
        Err(diagnosis) => return Explanation::refused(profile, key, &diagnosis),
    };
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let (mut rejected, mut potential) = (Vec::new(), Vec::new());
    let mut causes = BTreeMap::<(&str, Vec<String>), usize>::new();
    let mut survey = Survey::of(&profile.relating, snapshot, pod);
    let cleared = snapshot.nominated_node(pod.key).filter(|id| {
        reject_with_nominated(profile, snapshot, pod, &mut survey, snapshot.row(*id)).is_none()
    });
    let mut refused = Vec::new();
    let found = match cleared {
        // Then no other is looked at.
        Some(id) => Search { feasible: vec![id], evaluated: 1 },
        None => search(profile, snapshot, pod, &field, &mut survey, start, |id, rejection| {
            diagnosis.count(&rejection, 1);
            *causes.entry((rejection.plugin, rejection.reasons.clone())).or_default() += 1;
            if rejection.resolvable {
                potential.push(id);
            }
            refused.push((id, rejection));
        }),
    };
    for (id, rejection) in refused {
        let also = profile
            .plugins
            .iter()
            .filter(|enabled| enabled.plugin.name() != rejection.plugin)
            .filter_map(|enabled| Rejection::among(enabled, pod.class, &survey, snapshot.row(id)))
            .map(|other| Objection { plugin: other.plugin.to_owned(), reasons: other.reasons })
            .collect();
        rejected.push(RejectedNode {
            node: name_of(id),
            plugin: rejection.plugin.to_owned(),
            reasons: rejection.reasons,
            resolvable: rejection.resolvable,
            also,
        });
    }
    let mut causes: Vec<Cause> = causes
        .into_iter()
        .map(|((plugin, reasons), nodes)| Cause { plugin: plugin.to_owned(), reasons, nodes })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.nodes));
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
    if feasible.is_empty() {
        diagnosis.preemption =
            preemption::preempt(profile, snapshot, pod, &mut survey, &potential, rng);
    }
    let best = feasible.iter().map(|node| node.total).max();
    let (winners, others): (Vec<_>, Vec<_>) =
        feasible.iter().partition(|node| Some(node.total) == best);
    let second = others.iter().map(|node| node.total).max();
    let runner_up = others.iter().find(|node| Some(node.total) == second);
    let order = &field.nodes;
    Explanation {
        pod: key.path(),
        profile: profile.name.clone(),
        node: None,
        gates: Vec::new(),
        nodes: snapshot.len(),
        first: start.checked_rem(order.len()).map(|at| name_of(order[at])),
        evaluated: found.evaluated,
        winners: winners.iter().map(|node| node.node.clone()).collect(),
        runner_up: runner_up.map(|node| node.node.clone()),
        message: feasible.is_empty().then(|| diagnosis.message()),
        displaced: displaced(&diagnosis.preemption),
        extenders: Vec::new(),
        feasible,
        rejected,
        causes,
        omitted: Omitted::default(),
    }
}

fn displaced(preemption: &Preemption) -> Option<Displaced> {
    let Preemption::Found(eviction) = preemption else { return None };
    Some(Displaced {
        node: eviction.node.clone(),
        pods: eviction.victims.iter().map(|victim| victim.key.path()).collect(),
        violations: eviction.violations,
    })
}
