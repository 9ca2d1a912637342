//! One decision: filter, score, choose; the reference that [`crate::fast`] has to equal.
//!
//! Source: kubernetes 1.33, `schedule_one.go`, as a sequential walk: one of the outcomes that
//! its parallel one may have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use api::Key;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::framework::{Enabled, Filtering, Score, Scoring, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::preemption::{self, Preemption};
use crate::profile::Profile;
use crate::relations::{Kin, Presence};
use crate::snapshot::Snapshot;
use crate::survey::{Refusal, Survey};

/// Clusters smaller than this are always searched whole.
const NODES_MIN: usize = 100;

/// The plugin that looks at names of nodes before any node is looked at.
const NODE_AFFINITY: &str = "NodeAffinity";

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
    /// What came of looking for pods that could go.
    pub preemption: Preemption,
}

impl Diagnosis {
    /// No node was looked at.
    pub(crate) fn refused(plugin: &'static str, nodes: usize, why: String) -> Self {
        Self {
            nodes,
            plugins: BTreeSet::from([plugin]),
            unresolvable: nodes,
            refusal: Some(why),
            preemption: Preemption::not_helpful(nodes),
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
        let mut message = unavailable(self.nodes, &self.reasons, self.refusal.as_deref());
        match &self.preemption {
            Preemption::Untried | Preemption::Found(_) => {}
            Preemption::Ineligible(why) => message.push_str(&format!(" preemption: {why}")),
            Preemption::Failed(why) => message.push_str(&format!(" preemption: {why}")),
            Preemption::Hopeless(reasons) => {
                message
                    .push_str(&format!(" preemption: {}", unavailable(self.nodes, reasons, None)));
            }
        }
        message
    }
}

/// `refusal` is of the pod, not of any node.
fn unavailable(nodes: usize, reasons: &BTreeMap<String, usize>, refusal: Option<&str>) -> String {
    let mut reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    reasons.extend(refusal.map(str::to_owned));
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
    /// The plugin's verdict, if it is against the node; that of one that looks at other pods is
    /// not asked for.
    pub(crate) fn by(enabled: &Enabled, pod: &PodClass, node: &NodeInfo) -> Option<Self> {
        if enabled.filtering == Filtering::Never {
            return None;
        }
        Self::of(enabled, enabled.plugin.filter(pod, node))
    }

    /// The plugin's verdict, if it is against the node.
    pub(crate) fn among(
        enabled: &Enabled,
        pod: &PodClass,
        survey: &Survey,
        node: &NodeInfo,
    ) -> Option<Self> {
        match enabled.filtering {
            Filtering::ByPods => Self::of(enabled, enabled.plugin.filter_among(survey, node)),
            _ => Self::by(enabled, pod, node),
        }
    }

    fn of(enabled: &Enabled, verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Fit => None,
            Verdict::Reject { reasons, resolvable } => {
                Some(Self { plugin: enabled.plugin.name(), reasons, resolvable })
            }
        }
    }

    /// That of a node that the pod does not name, though it names some: it is not looked at.
    fn unnamed() -> Self {
        Self {
            plugin: NODE_AFFINITY,
            reasons: vec![format!("node(s) didn't satisfy plugin(s) [{NODE_AFFINITY}]")],
            resolvable: false,
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
    /// Namespace and name: a node that was cleared for the pod is tried first.
    pub key: &'a Key,
    /// What plugins look at, other pods aside.
    pub class: &'a PodClass,
    /// How it gets on with other pods.
    pub kin: &'a Kin,
    /// Whether it may displace pods of lower priority.
    pub preempts: bool,
}

/// The nodes among which one is looked for.
pub(crate) struct Field<'a> {
    /// Those, in order.
    pub(crate) nodes: Cow<'a, [u32]>,
    /// Whether they are those that the pod names, and no others are looked at.
    named: bool,
}

impl<'a> Field<'a> {
    /// That of a pod. A node that it names need not exist.
    ///
    /// # Errors
    /// Each of the pod's terms names nodes, but in two lists that have none in common.
    ///
    /// Source: kubernetes 1.33, `PreFilter` in `pkg/scheduler/framework/plugins/nodeaffinity`.
    pub(crate) fn of(
        profile: &Profile,
        snapshot: &'a Snapshot,
        pod: &PodClass,
    ) -> Result<Self, Diagnosis> {
        let nodes = snapshot.order().nodes();
        let Some(names) = pod.pinned().filter(|_| profile.pins) else {
            return Ok(Self { nodes, named: false });
        };
        if names.is_empty() {
            let why = "pod affinity terms conflict".to_owned();
            return Err(Diagnosis::refused(NODE_AFFINITY, snapshot.len(), why));
        }
        let is_named = |id: &u32| names.contains(snapshot.row(*id).name.as_str());
        Ok(Self { nodes: nodes.iter().copied().filter(is_named).collect(), named: true })
    }

    /// Tells of the nodes that are not looked at.
    fn left_out(&self, snapshot: &Snapshot, mut rejected: impl FnMut(u32, Rejection)) {
        if !self.named {
            return;
        }
        let looked_at: BTreeSet<u32> = self.nodes.iter().copied().collect();
        for id in snapshot.order().nodes().iter().filter(|id| !looked_at.contains(id)) {
            rejected(*id, Rejection::unnamed());
        }
    }
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
    let field = Field::of(profile, snapshot, pod.class)?;
    let mut survey = Survey::of(&profile.relating, snapshot, pod);
    if let Some(id) = snapshot.nominated_node(pod.key)
        && reject_with_nominated(profile, snapshot, pod, &mut survey, snapshot.row(id)).is_none()
    {
        return Ok(pick_only(snapshot, &Search { feasible: vec![id], evaluated: 1 }, rng));
    }
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let mut potential = Vec::new();
    let search = search(profile, snapshot, pod, &field, &mut survey, *start, |id, rejection| {
        diagnosis.count(&rejection, 1);
        if rejection.resolvable {
            potential.push(id);
        }
    });
    *start = (*start + search.evaluated).checked_rem(snapshot.len()).unwrap_or(0);
    if let Some(choice) = pick(profile, snapshot, pod, &survey, &search, rng) {
        return Ok(choice);
    }
    diagnosis.preemption =
        preemption::preempt(profile, snapshot, pod, &mut survey, &potential, rng);
    Err(diagnosis)
}

/// Looks for nodes that can take the pod until there are enough, and tells which were rejected;
/// also of those that were not looked at because the pod names others.
pub(crate) fn search(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    field: &Field,
    survey: &mut Survey,
    start: usize,
    mut rejected: impl FnMut(u32, Rejection),
) -> Search {
    let order = &field.nodes;
    let wanted = enough(order.len(), profile.percentage_of_nodes_to_score);
    let mut search = Search { feasible: Vec::new(), evaluated: 0 };
    while search.evaluated < order.len() && search.feasible.len() < wanted {
        let id = order[(start + search.evaluated) % order.len()];
        search.evaluated += 1;
        match reject_with_nominated(profile, snapshot, pod, survey, snapshot.row(id)) {
            None => search.feasible.push(id),
            Some(rejection) => rejected(id, rejection),
        }
    }
    field.left_out(snapshot, rejected);
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

/// As [`pick`], where extenders have scored nodes, too: by the nodes' names.
pub(crate) fn pick_extended(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &Survey,
    search: &Search,
    extended: &BTreeMap<String, Score>,
    rng: &mut ChaCha8Rng,
) -> Option<Choice> {
    let feasible = &search.feasible;
    if feasible.len() < 2 {
        return pick(profile, snapshot, pod, survey, search, rng);
    }
    let mut scores = score(profile, snapshot, pod, survey, feasible);
    for (total, node) in scores.iter_mut().zip(feasible) {
        let extended = extended.get(&snapshot.row(*node).name).copied().unwrap_or(0);
        *total = total.saturating_add(extended);
    }
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

/// Why the first plugin that rejects a node does so; `node` and `survey` may differ from what the
/// snapshot has, in the pods on the node.
///
/// Pods for which the node was cleared count as if they were there already, unless their priority
/// is lower. They may never come, so the node must do without them, too.
pub(crate) fn reject_with_nominated(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
    node: &NodeInfo,
) -> Option<Rejection> {
    let nominations = snapshot.nominations();
    let ahead = || nominations.ahead(&node.name, pod.class.priority, Some(pod.key));
    if ahead().next().is_some() {
        let mut joined = node.clone();
        for nomination in ahead() {
            joined.add(&nomination.class.load);
            survey.count(&Presence::of(&nomination.kin), node, 1);
        }
        let rejection = reject(profile, pod.class, survey, &joined);
        for nomination in ahead() {
            survey.count(&Presence::of(&nomination.kin), node, -1);
        }
        if rejection.is_some() {
            return rejection;
        }
    }
    reject(profile, pod.class, survey, node)
}

/// Why the first plugin that rejects a node as it is does so.
pub(crate) fn reject(
    profile: &Profile,
    pod: &PodClass,
    survey: &Survey,
    node: &NodeInfo,
) -> Option<Rejection> {
    profile.plugins.iter().find_map(|enabled| Rejection::among(enabled, pod, survey, node))
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
