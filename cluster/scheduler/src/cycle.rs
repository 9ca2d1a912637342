//! One decision: filter, score, choose; the reference that [`crate::fast`] has to equal.
//!
//! Source: kubernetes 1.33, `schedule_one.go`, as a sequential walk: one of the outcomes that
//! its parallel one may have.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::framework::{Enabled, Filtering, Score, Scoring, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::profile::Profile;
use crate::relations::Kin;
use crate::snapshot::Snapshot;
use crate::survey::{Refusal, Survey};

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
    /// Why the pod was refused before a node was looked at.
    pub refusal: Option<String>,
}

impl Diagnosis {
    /// No node was looked at.
    pub(crate) fn refused(plugin: &'static str, nodes: usize, why: String) -> Self {
        Self {
            nodes,
            plugins: BTreeSet::from([plugin]),
            unresolvable: nodes,
            refusal: Some(why),
            ..Self::default()
        }
    }

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
        let all = self.nodes;
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.extend(self.refusal.clone());
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

/// Why a plugin rejects a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) plugin: &'static str,
    pub(crate) reasons: Vec<String>,
    pub(crate) resolvable: bool,
}

impl Rejection {
    /// The plugin's verdict, if it is against the node; that of one that looks at other pods is
    /// not asked for.
    pub(crate) fn by(enabled: &Enabled, pod: &PodClass, node: &NodeInfo) -> Option<Self> {
        Self::of(enabled, enabled.plugin.filter(pod, node))
    }

    fn of(enabled: &Enabled, verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Fit => None,
            Verdict::Reject { reasons, resolvable } => {
                Some(Self { plugin: enabled.plugin.name(), reasons, resolvable })
            }
        }
    }

    /// A refusal on account of other pods.
    pub(crate) fn on_account_of_pods(refusal: Refusal) -> Self {
        Self {
            plugin: refusal.plugin(),
            reasons: vec![refusal.reason().to_owned()],
            resolvable: refusal.resolvable(),
        }
    }
}

/// The pod that a decision is about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What plugins look at, other pods aside.
    pub class: &'a PodClass,
    /// How it gets on with other pods.
    pub kin: &'a Kin,
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
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let survey = Survey::of(&profile.relating, snapshot, pod);
    let search = search(profile, snapshot, pod, &survey, *start, |_, rejection| {
        diagnosis.count(&rejection, 1);
    });
    *start = (*start + search.evaluated).checked_rem(snapshot.len()).unwrap_or(0);
    pick(profile, snapshot, pod, &survey, &search, rng).ok_or(diagnosis)
}

/// Looks for nodes that can take the pod until there are enough, and tells which were rejected.
pub(crate) fn search(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &Survey,
    start: usize,
    mut rejected: impl FnMut(u32, Rejection),
) -> Search {
    let order = snapshot.order().nodes();
    let wanted = enough(order.len(), profile.percentage_of_nodes_to_score);
    let mut search = Search { feasible: Vec::new(), evaluated: 0 };
    while search.evaluated < order.len() && search.feasible.len() < wanted {
        let id = order[(start + search.evaluated) % order.len()];
        search.evaluated += 1;
        match reject(profile, pod.class, survey, snapshot.row(id)) {
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
    survey: &Survey,
    search: &Search,
    rng: &mut ChaCha8Rng,
) -> Option<Choice> {
    let feasible = &search.feasible;
    let scores = match feasible.len() {
        0 => return None,
        1 => vec![0],
        _ => score(profile, snapshot, pod, survey, feasible),
    };
    Some(choice(snapshot, search, &scores, rng))
}

/// One of the nodes with the best score.
fn choice(snapshot: &Snapshot, search: &Search, scores: &[Score], rng: &mut ChaCha8Rng) -> Choice {
    let best = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] == best).collect();
    let winner = ties[rng.random_range(0..ties.len())];
    Choice {
        node: snapshot.row(search.feasible[winner]).name.clone(),
        score: best,
        feasible: search.feasible.len(),
        evaluated: search.evaluated,
    }
}

/// Picks the only node that was found.
pub(crate) fn pick_only(snapshot: &Snapshot, search: &Search, rng: &mut ChaCha8Rng) -> Choice {
    choice(snapshot, search, &[0], rng)
}

/// Why the first plugin that rejects a node does so.
pub(crate) fn reject(
    profile: &Profile,
    pod: &PodClass,
    survey: &Survey,
    node: &NodeInfo,
) -> Option<Rejection> {
    profile.plugins.iter().find_map(|enabled| match enabled.filtering {
        Filtering::ByPods => Rejection::of(enabled, enabled.plugin.filter_among(survey, node)),
        _ => Rejection::by(enabled, pod, node),
    })
}

fn score(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &Survey,
    nodes: &[u32],
) -> Vec<Score> {
    let mut total = vec![0; nodes.len()];
    for enabled in &profile.plugins {
        let scores = scores_of(enabled, snapshot, pod, survey, nodes);
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
    survey: &Survey,
    nodes: &[u32],
) -> Vec<Score> {
    let plugin = &enabled.plugin;
    match enabled.scoring {
        Scoring::Never => Vec::new(),
        Scoring::Alone => {
            nodes.iter().map(|node| plugin.score(pod.class, snapshot.row(*node))).collect()
        }
        Scoring::Compared => {
            let traits_of = |node: &u32| {
                let mut traits = Vec::new();
                plugin.traits(pod.class, snapshot.row(*node), &mut traits);
                traits
            };
            let traits: Vec<Vec<i64>> = nodes.iter().map(traits_of).collect();
            let traits: Vec<&[i64]> = traits.iter().map(Vec::as_slice).collect();
            plugin.compare(pod.class, &traits, snapshot)
        }
        Scoring::ByPods => plugin.score_among(survey, nodes),
    }
}
