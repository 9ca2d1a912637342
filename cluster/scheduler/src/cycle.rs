//! One decision: filter, score, choose; the reference that [`crate::fast`] has to equal.
//!
//! Source: kubernetes 1.33, `schedule_one.go`, as a sequential walk: one of the outcomes that
//! its parallel one may have.

use std::collections::{BTreeMap, BTreeSet};

use api::Key;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::framework::{Enabled, Filtering, Score, Scoring, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::preemption::{self, Preemption};
use crate::profile::Profile;
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
    pub plugins: BTreeSet<&'static str>,
    /// How many rejections no eviction can change.
    pub unresolvable: usize,
    /// What came of looking for pods that could go.
    pub preemption: Preemption,
}

impl Diagnosis {
    /// Counts `nodes` that a plugin rejected.
    pub(crate) fn count(&mut self, rejection: &Rejection, nodes: usize) {
        for reason in &rejection.reasons {
            if let Some(count) = self.reasons.get_mut(reason) {
                *count += nodes;
            } else {
                self.reasons.insert(reason.clone(), nodes);
            }
        }
        self.unresolvable += if rejection.resolvable { 0 } else { nodes };
        self.plugins.insert(rejection.plugin);
    }

    /// The message of the `FailedScheduling` event and of the `PodScheduled` condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = unavailable(self.nodes, &self.reasons);
        match &self.preemption {
            Preemption::Untried | Preemption::Found(_) => {}
            Preemption::Ineligible(why) => message.push_str(&format!(" preemption: {why}")),
            Preemption::Hopeless(reasons) => {
                message.push_str(&format!(" preemption: {}", unavailable(self.nodes, reasons)));
            }
        }
        message
    }
}

fn unavailable(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

/// Why a plugin rejects a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) plugin: &'static str,
    pub(crate) reasons: Vec<String>,
    pub(crate) resolvable: bool,
}

impl Rejection {
    /// The plugin's verdict, if it is against the node.
    pub(crate) fn by(enabled: &Enabled, pod: &PodClass, node: &NodeInfo) -> Option<Self> {
        if enabled.filtering == Filtering::Never {
            return None;
        }
        match enabled.plugin.filter(pod, node) {
            Verdict::Fit => None,
            Verdict::Reject { reasons, resolvable } => {
                Some(Self { plugin: enabled.plugin.name(), reasons, resolvable })
            }
        }
    }
}

/// The pod that a decision is about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Namespace and name: a node that was cleared for the pod is tried first.
    pub key: &'a Key,
    /// What plugins look at.
    pub class: &'a PodClass,
    /// UID of its controller; empty if none.
    pub owner: &'a str,
    /// Whether it may displace pods of lower priority.
    pub preempts: bool,
}

/// The nodes that a search found.
#[derive(Debug)]
pub(crate) struct Search {
    /// Those that can take the pod, in order.
    pub(crate) feasible: Vec<u32>,
    /// How many nodes were looked at.
    pub(crate) evaluated: usize,
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

/// Chooses a node, starting the search at `start` (an index into the snapshot's order, moved on
/// by the number of nodes looked at).
///
/// # Errors
/// No node can take the pod.
pub fn choose(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Result<Choice, Diagnosis> {
    match choose_nominated(profile, snapshot, pod, rng) {
        Nominated::Fits(choice) => Ok(choice),
        Nominated::Refused(..) | Nominated::Nowhere => {
            choose_any(profile, snapshot, pod, start, rng)
        }
    }
}

/// What is to be said of the node that was cleared for a pod.
pub(crate) enum Nominated {
    /// It takes the pod.
    Fits(Choice),
    /// It does not, and why.
    Refused(u32, Rejection),
    /// There is none.
    Nowhere,
}

/// Tries the node that was cleared for the pod: most likely no other can take it.
pub(crate) fn choose_nominated(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    rng: &mut ChaCha8Rng,
) -> Nominated {
    let Some(id) = snapshot.nominated_node(pod.key) else { return Nominated::Nowhere };
    if let Some(rejection) = reject(profile, snapshot, pod, snapshot.row(id)) {
        return Nominated::Refused(id, rejection);
    }
    let search = Search { feasible: vec![id], evaluated: 1 };
    pick(profile, snapshot, pod, &search, rng).map_or(Nominated::Nowhere, Nominated::Fits)
}

/// As [`choose`], without regard to the node that was cleared for the pod.
pub(crate) fn choose_any(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Result<Choice, Diagnosis> {
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let mut potential = Vec::new();
    let search = search(profile, snapshot, pod, *start, |id, rejection| {
        diagnosis.count(&rejection, 1);
        if rejection.resolvable {
            potential.push(id);
        }
    });
    *start = (*start + search.evaluated).checked_rem(snapshot.len()).unwrap_or(0);
    if let Some(choice) = pick(profile, snapshot, pod, &search, rng) {
        return Ok(choice);
    }
    diagnosis.preemption = preemption::preempt(profile, snapshot, pod, &potential, rng);
    Err(diagnosis)
}

/// Looks for nodes that can take the pod until there are enough, and tells which were rejected.
pub(crate) fn search(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    start: usize,
    mut rejected: impl FnMut(u32, Rejection),
) -> Search {
    let order = snapshot.order().nodes();
    let wanted = enough(order.len(), profile.percentage_of_nodes_to_score);
    let mut search = Search { feasible: Vec::new(), evaluated: 0 };
    while search.evaluated < order.len() && search.feasible.len() < wanted {
        let id = order[(start + search.evaluated) % order.len()];
        search.evaluated += 1;
        match reject(profile, snapshot, pod, snapshot.row(id)) {
            None => search.feasible.push(id),
            Some(rejection) => rejected(id, rejection),
        }
    }
    search
}

/// Picks one of the best of the nodes that were found.
pub(crate) fn pick(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    search: &Search,
    rng: &mut ChaCha8Rng,
) -> Option<Choice> {
    let feasible = &search.feasible;
    let scores = match feasible.len() {
        0 => return None,
        1 => vec![0],
        _ => score(profile, snapshot, pod, feasible),
    };
    let best = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] == best).collect();
    let winner = ties[rng.random_range(0..ties.len())];
    Some(Choice {
        node: snapshot.row(feasible[winner]).name.clone(),
        score: best,
        feasible: feasible.len(),
        evaluated: search.evaluated,
    })
}

/// Why the first plugin that rejects a node does so; `node` may differ from what the snapshot
/// has, in the pods on it.
///
/// Pods for which the node was cleared count as if they were there already, unless their priority
/// is lower. They may never come, so the node must do without them, too.
pub(crate) fn reject(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    node: &NodeInfo,
) -> Option<Rejection> {
    let by_any = |node: &NodeInfo| {
        profile.plugins.iter().find_map(|enabled| Rejection::by(enabled, pod.class, node))
    };
    let joined = snapshot.nominations().join(pod.class.priority, Some(pod.key), node);
    joined.and_then(|node| by_any(&node)).or_else(|| by_any(node))
}

fn score(profile: &Profile, snapshot: &Snapshot, pod: Question, nodes: &[u32]) -> Vec<Score> {
    let mut total = vec![0; nodes.len()];
    for enabled in &profile.plugins {
        let scores = scores_of(enabled, snapshot, pod, nodes);
        for (sum, score) in total.iter_mut().zip(scores) {
            *sum += enabled.weight * score;
        }
    }
    total
}

/// One plugin's scores (`[nodes]`, same order), without its weight; none if it has no opinion.
pub(crate) fn scores_of(
    enabled: &Enabled,
    snapshot: &Snapshot,
    pod: Question,
    nodes: &[u32],
) -> Vec<Score> {
    let plugin = &enabled.plugin;
    match enabled.scoring {
        Scoring::Never => Vec::new(),
        Scoring::Alone => {
            nodes.iter().map(|node| plugin.score(pod.class, snapshot.row(*node))).collect()
        }
        Scoring::Compared => {
            let siblings = snapshot.siblings(pod.owner);
            let traits_of = |node: &u32| {
                let mut traits = Vec::new();
                let here = siblings.map_or(0, |s| i64::from(s.on(*node)));
                plugin.traits(pod.class, snapshot.row(*node), here, &mut traits);
                traits
            };
            let traits: Vec<Vec<i64>> = nodes.iter().map(traits_of).collect();
            let traits: Vec<&[i64]> = traits.iter().map(Vec::as_slice).collect();
            let around = Surroundings { snapshot, crowd: snapshot.crowd(pod.owner) };
            plugin.compare(pod.class, &traits, &around)
        }
    }
}
