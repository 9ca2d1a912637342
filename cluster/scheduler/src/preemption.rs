//! [`preempt`]: which pods have to go so that one of higher priority finds a place, and on which
//! node; nothing is done here.
//!
//! A node is tried without all its pods of lower priority. If the pod fits then, as many of them
//! as possible stay, the most important first: higher priority, then longer running. Those come
//! first of which the removal would violate a budget; budgets are honoured where that is possible
//! and no further, and so are groups of pods that are placed together.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/framework/preemption/preemption.go` and
//! `plugins/defaultpreemption/default_preemption.go`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::{Key, Name, Time};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::cycle::{self, Question, Rejection};
use crate::group::GroupName;
use crate::node_info::NodeInfo;
use crate::plugin_args::DefaultPreemptionArgs;
use crate::profile::Profile;
use crate::snapshot::{Placed, Snapshot};
use crate::survey::Survey;

mod candidates;
#[cfg(test)]
mod tests;

pub(crate) use candidates::{best, candidates};

const NEVER: &str = "not eligible due to preemptionPolicy=Never.";
const TERMINATING: &str = "not eligible due to a terminating pod on the nominated node.";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// What came of looking for pods that could go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Preemption {
    /// Nobody looked.
    #[default]
    Untried,
    /// The pod may displace none, and why.
    Ineligible(&'static str),
    /// No node can take the pod, whoever goes: how many nodes for each reason.
    Hopeless(BTreeMap<String, usize>),
    /// An extender could not be asked, and why: another attempt may succeed.
    Failed(String),
    /// A node can.
    Found(Box<Eviction>),
}

impl Preemption {
    /// No pod is in the way on any of so many nodes.
    pub(crate) fn not_helpful(nodes: usize) -> Self {
        Self::Hopeless(BTreeMap::from([(NOT_HELPFUL.to_owned(), nodes)]))
    }
}

/// The pods that have to leave a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The node's name.
    pub node: String,
    /// The pods, the most important first.
    pub victims: Vec<Victim>,
    /// For how many of them a budget is violated.
    pub violations: usize,
}

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Namespace and name.
    pub key: Key,
    /// UID; a pod of the same name made later is not meant.
    pub uid: String,
}

/// How many nodes are considered before one is chosen, of those on which the pod may find a
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// At least so many of a hundred.
    pub percentage: usize,
    /// At least so many.
    pub absolute: usize,
}

impl Default for Candidates {
    fn default() -> Self {
        Self::of(&DefaultPreemptionArgs::default())
    }
}

impl Candidates {
    /// What a configuration says, which must be valid.
    pub(crate) fn of(args: &DefaultPreemptionArgs) -> Self {
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        Self {
            percentage: count(args.min_candidate_nodes_percentage),
            absolute: count(args.min_candidate_nodes_absolute),
        }
    }

    /// How many of `nodes` are enough.
    fn enough(self, nodes: usize) -> usize {
        (nodes * self.percentage / 100).max(self.absolute).min(nodes)
    }
}

/// What it costs to clear a node; less is better. The order of the fields is that of their
/// importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Price {
    violations: usize,
    /// The highest priority among those that have to go.
    highest: i32,
    /// The sum of their priorities, counted from the lowest there is: else two pods of negative
    /// priority would be cheaper than one.
    sum: i64,
    victims: usize,
    /// Since when the first of those of the highest priority has run: better a late one.
    started: Reverse<Time>,
}

/// A node without the pods that have to go.
#[derive(Debug)]
pub(crate) struct Cleared<'a> {
    victims: Vec<&'a Placed>,
    violations: usize,
    /// Whether the price depends on how many pods budgets allow to go.
    pub(crate) budgeted: bool,
}

impl Cleared<'_> {
    /// What it costs.
    pub(crate) fn price(&self) -> Price {
        // The most important is first: its priority is the highest, and it has run longest.
        let first = self.victims.first().map(|first| first.standing).unwrap_or_default();
        let offset = |p: &&Placed| i64::from(p.standing.priority) - i64::from(i32::MIN);
        Price {
            violations: self.violations,
            highest: first.priority,
            sum: self.victims.iter().map(offset).sum(),
            victims: self.victims.len(),
            started: Reverse(first.started),
        }
    }

    fn eviction(&self, node: &str) -> Eviction {
        let victim = |p: &&Placed| Victim { key: p.key.clone(), uid: p.uid.to_string() };
        let victims = self.victims.iter().map(victim).collect();
        Eviction { node: node.to_owned(), victims, violations: self.violations }
    }
}

/// Looks for pods that could go so that `pod` finds a place. `potential` are the nodes that
/// refuse it for a reason that evictions may remove.
pub(crate) fn preempt(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
    potential: &[u32],
    rng: &mut ChaCha8Rng,
) -> Preemption {
    let candidates = match begin(profile, snapshot, pod, survey, potential.len()) {
        Ok(candidates) => candidates,
        Err(preemption) => return preemption,
    };
    let mut reasons = BTreeMap::new();
    let best = select(potential, candidates, rng, |node| {
        match try_node(profile, snapshot, pod, survey, node) {
            Ok(cleared) => Some(cleared.price()),
            Err(refusal) => {
                count(&mut reasons, refusal, 1);
                None
            }
        }
    });
    end(profile, snapshot, pod, survey, best, reasons, potential.len())
}

/// How many of so many potential nodes shall be considered; or what came of it, if none need be.
pub(crate) fn begin(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
    potential: usize,
) -> Result<usize, Preemption> {
    let Some(candidates) = profile.preemption.filter(|_| !snapshot.is_empty()) else {
        return Err(Preemption::Untried);
    };
    if let Some(why) = ineligible(profile, snapshot, pod, survey) {
        return Err(Preemption::Ineligible(why));
    }
    if potential == 0 || !snapshot.has_lower(pod.class.priority) {
        let mut reasons = BTreeMap::new();
        count(&mut reasons, vec![NO_VICTIMS.to_owned()], potential);
        return Err(hopeless(reasons, snapshot.len() - potential));
    }
    Ok(candidates.enough(potential))
}

/// What came of it, if the node with the best price is `best`.
pub(crate) fn end(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
    best: Option<u32>,
    reasons: BTreeMap<String, usize>,
    potential: usize,
) -> Preemption {
    let cleared =
        best.and_then(|node| Some((node, try_node(profile, snapshot, pod, survey, node).ok()?)));
    match cleared {
        Some((node, cleared)) => {
            Preemption::Found(Box::new(cleared.eviction(&snapshot.row(node).name)))
        }
        None => hopeless(reasons, snapshot.len() - potential),
    }
}

/// Counts so many nodes for each of the reasons.
pub(crate) fn count(reasons: &mut BTreeMap<String, usize>, why: Vec<String>, nodes: usize) {
    for reason in why {
        if nodes > 0 {
            *reasons.entry(reason).or_default() += nodes;
        }
    }
}

fn hopeless(mut reasons: BTreeMap<String, usize>, unresolvable: usize) -> Preemption {
    count(&mut reasons, vec![NOT_HELPFUL.to_owned()], unresolvable);
    Preemption::Hopeless(reasons)
}

/// Why a pod may displace none.
fn ineligible(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
) -> Option<&'static str> {
    if !pod.preempts {
        return Some(NEVER);
    }
    let node = snapshot.nominated_node(pod.key)?;
    let makes_room = |p: &Placed| p.standing.displaced && p.standing.priority < pod.class.priority;
    if !snapshot.pods_on(node).any(makes_room) {
        return None;
    }
    // Whom no eviction from that node helps looks for another.
    let refusal = cycle::reject_with_nominated(profile, snapshot, pod, survey, snapshot.row(node));
    refusal.is_none_or(|refusal| refusal.resolvable).then_some(TERMINATING)
}

/// The node with the best price, the first of several, among the first `enough` that have one,
/// from a random one on; more are looked at as long as each would violate a budget.
pub(crate) fn select(
    potential: &[u32],
    enough: usize,
    rng: &mut ChaCha8Rng,
    mut price: impl FnMut(u32) -> Option<Price>,
) -> Option<u32> {
    let offset = rng.random_range(0..potential.len());
    let (before, after) = potential.split_at(offset);
    let (mut found, mut harmless) = (0, false);
    let mut best: Option<(Price, u32)> = None;
    for node in after.iter().chain(before) {
        let Some(price) = price(*node) else { continue };
        found += 1;
        harmless |= price.violations == 0;
        if best.is_none_or(|(least, _)| price < least) {
            best = Some((price, *node));
        }
        if harmless && found >= enough {
            break;
        }
    }
    best.map(|(_, node)| node)
}

/// Clears a node for the pod; the survey is as before in the end.
///
/// # Errors
/// Why the pod cannot go there even so.
pub(crate) fn try_node<'a>(
    profile: &Profile,
    snapshot: &'a Snapshot,
    pod: Question,
    survey: &mut Survey,
    node: u32,
) -> Result<Cleared<'a>, Vec<String>> {
    let is_lower = |p: &&Placed| p.standing.priority < pod.class.priority;
    let mut lower: Vec<&Placed> = snapshot.pods_on(node).filter(is_lower).collect();
    if lower.is_empty() {
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    let mut trial = Trial { snapshot, survey, row: snapshot.row(node).clone() };
    for placed in &lower {
        trial.remove(placed);
    }
    if let Some(rejection) = trial.reject(profile, pod) {
        for placed in &lower {
            trial.add(placed);
        }
        return Err(rejection.reasons);
    }
    lower.sort_unstable_by(|a, b| importance(a).cmp(&importance(b)));
    let budgets_of = |p: &Placed| snapshot.budgets().of_identity(snapshot.identity(p).id);
    let grouped = |p: &Placed| profile.coscheduling.is_some() && group_of(snapshot, p).is_some();
    let budgeted = lower.iter().any(|p| !budgets_of(p).is_empty() || grouped(p));
    let mut victims = Vec::new();
    let (violating, harmless): (Vec<_>, Vec<_>) =
        violates(profile, snapshot, &lower).partition(|(_, v)| *v);
    let mut violations = 0;
    for (placed, violates) in violating.into_iter().chain(harmless) {
        trial.add(placed);
        if trial.reject(profile, pod).is_some() {
            trial.remove(placed);
            victims.push(placed);
            violations += usize::from(violates);
        }
    }
    for placed in &victims {
        trial.add(placed);
    }
    victims.sort_unstable_by(|a, b| importance(a).cmp(&importance(b)));
    if victims.is_empty() {
        // It was refused before and is not now, though nothing has changed.
        let name = &snapshot.row(node).name;
        return Err(vec![format!("expected at least one victim pod on node \"{name}\"")]);
    }
    Ok(Cleared { victims, violations, budgeted })
}

/// A node as it would be without some of its pods.
struct Trial<'a, 's, 't> {
    snapshot: &'a Snapshot,
    survey: &'t mut Survey<'s>,
    row: NodeInfo,
}

impl Trial<'_, '_, '_> {
    fn remove(&mut self, placed: &Placed) {
        self.row.remove(&placed.load);
        self.survey.count(&self.snapshot.presence(placed), &self.row, -1);
    }

    fn add(&mut self, placed: &Placed) {
        self.row.add(&placed.load);
        self.survey.count(&self.snapshot.presence(placed), &self.row, 1);
    }

    fn reject(&mut self, profile: &Profile, pod: Question) -> Option<Rejection> {
        cycle::reject_with_nominated(profile, self.snapshot, pod, self.survey, &self.row)
    }
}

/// Puts the most important pods first; of equally important ones, by name.
fn importance(placed: &Placed) -> impl Ord + '_ {
    (Reverse(placed.standing.priority), placed.standing.started, &placed.key)
}

/// The group of a pod, and how many of it have to stay together.
fn group_of<'a>(snapshot: &'a Snapshot, placed: &Placed) -> Option<(&'a GroupName, usize)> {
    let group = snapshot.identity(placed).group.as_ref()?;
    Some((&group.name, *group.min_available.as_ref().ok()?))
}

/// Tells of each pod whether a budget would be violated if it went, and those before it, or a
/// group torn apart that is whole.
fn violates<'a, 'b>(
    profile: &'b Profile,
    snapshot: &'b Snapshot,
    pods: &'b [&'a Placed],
) -> impl Iterator<Item = (&'a Placed, bool)> + 'b {
    let mut gone: BTreeMap<(&Name, &Name), i32> = BTreeMap::new();
    let mut lost: BTreeMap<&GroupName, usize> = BTreeMap::new();
    pods.iter().map(move |placed| {
        let mut violated = false;
        let budgets = snapshot.budgets().of(&placed.key.namespace);
        let identity = snapshot.identity(placed).id;
        for name in snapshot.budgets().of_identity(identity) {
            let Some(budget) = budgets.and_then(|budgets| budgets.get(name)) else { continue };
            if budget.disrupted.contains(&*placed.key.name) {
                continue;
            }
            let gone = gone.entry((&placed.key.namespace, name)).or_default();
            *gone += 1;
            violated |= *gone > budget.allowed;
        }
        let grouped = profile.coscheduling.is_some() && !placed.leaving;
        if let Some((group, min)) = group_of(snapshot, placed).filter(|_| grouped) {
            let lost = lost.entry(group).or_default();
            *lost += 1;
            let there = snapshot.placed_of(group);
            violated |= there >= min && there < min + *lost;
        }
        (*placed, violated)
    })
}
