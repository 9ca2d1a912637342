//! One decision: filter, score, choose.
//!
//! Source: kubernetes 1.33, `schedule_one.go`, as a sequential walk: one of the outcomes that
//! its parallel one may have.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::framework::{Plugin, Score, Verdict};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Clusters smaller than this are always searched whole.
const NODES_MIN: usize = 100;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node's name.
    pub node: String,
    /// Its total score.
    pub score: Score,
    /// How many nodes could have taken the pod, among those looked at.
    pub feasible: usize,
    /// How many nodes were looked at.
    pub evaluated: usize,
}

/// Why no node can take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes were rejected for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// Names of the plugins that rejected a node.
    pub plugins: Vec<&'static str>,
    /// How many rejections no eviction can change.
    pub unresolvable: usize,
}

impl Diagnosis {
    /// The message of the `FailedScheduling` event and of the `PodScheduled` condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let all = self.nodes;
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        let mut message = format!("0/{all} nodes are available: {}.", reasons.join(", "));
        let resolvable = all - self.unresolvable;
        let mut hopes = Vec::new();
        if resolvable > 0 {
            hopes.push(format!("{resolvable} No preemption victims found for incoming pod"));
        }
        if self.unresolvable > 0 {
            hopes.push(format!("{} Preemption is not helpful for scheduling", self.unresolvable));
        }
        hopes.sort();
        message
            .push_str(&format!(" preemption: 0/{all} nodes are available: {}.", hopes.join(", ")));
        message
    }
}

/// How many feasible nodes are enough in a cluster of `nodes`.
pub fn enough(nodes: usize, percentage: Option<usize>) -> usize {
    if nodes < NODES_MIN {
        return nodes;
    }
    let adaptive = 50_usize.saturating_sub(nodes / 125).max(5);
    let percentage = percentage.filter(|p| *p > 0).unwrap_or(adaptive).min(100);
    (nodes * percentage / 100).max(NODES_MIN)
}

/// Chooses a node for `pod`, starting the search at `start` (an index into the snapshot's
/// order, moved on by the number of nodes looked at).
///
/// # Errors
/// No node can take the pod.
pub fn choose(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    pod: &PodInfo,
    percentage: Option<usize>,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Result<Choice, Diagnosis> {
    let total = snapshot.len();
    let mut diagnosis = Diagnosis { nodes: total, ..Diagnosis::default() };
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    let wanted = enough(total, percentage);
    let mut evaluated = 0;
    while evaluated < total && feasible.len() < wanted {
        let node = snapshot.at((*start + evaluated) % total);
        evaluated += 1;
        match filter(plugins, pod, node) {
            None => feasible.push(node),
            Some((plugin, reasons, resolvable)) => {
                for reason in reasons {
                    *diagnosis.reasons.entry(reason).or_default() += 1;
                }
                diagnosis.unresolvable += usize::from(!resolvable);
                if !diagnosis.plugins.contains(&plugin) {
                    diagnosis.plugins.push(plugin);
                }
            }
        }
    }
    *start = (*start + evaluated).checked_rem(total).unwrap_or(0);
    if feasible.is_empty() {
        return Err(diagnosis);
    }
    let scores =
        if feasible.len() == 1 { vec![0] } else { score(plugins, snapshot, pod, &feasible) };
    let best = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] == best).collect();
    let winner = ties[rng.random_range(0..ties.len())];
    Ok(Choice {
        node: feasible[winner].name.clone(),
        score: best,
        feasible: feasible.len(),
        evaluated,
    })
}

fn filter(
    plugins: &[Box<dyn Plugin>],
    pod: &PodInfo,
    node: &NodeInfo,
) -> Option<(&'static str, Vec<String>, bool)> {
    plugins.iter().find_map(|plugin| match plugin.filter(pod, node) {
        Verdict::Fit => None,
        Verdict::Reject { reasons, resolvable } => Some((plugin.name(), reasons, resolvable)),
    })
}

fn score(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    pod: &PodInfo,
    nodes: &[&NodeInfo],
) -> Vec<Score> {
    let mut total = vec![0; nodes.len()];
    for plugin in plugins.iter().filter(|p| p.weight() > 0) {
        for (sum, score) in total.iter_mut().zip(plugin.score(pod, nodes, snapshot)) {
            *sum += plugin.weight() * score;
        }
    }
    total
}
