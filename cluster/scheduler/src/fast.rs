//! [`Fast`]: decides as [`crate::cycle::choose`] does, to the bit, without looking at each node
//! again for each pod.
//!
//! What a node is worth to a pod has three parts: whether it can take the pod, the scores that
//! look at the node alone, and the scores that compare it with the other nodes found. The first
//! two change only when the node does, so a `Ranking` keeps them for each class of pods. The
//! last depend on the traits of nodes alone, and nodes have few different traits: they are
//! worked out once for each group of nodes that share theirs.
//!
//! How other pods bear on a pod is a matter of domains, of which there are few, and of counts,
//! which change little with each pod: a `View` keeps them for each kin of pods. Where it shows
//! something, the nodes that are found are looked at one by one, through a `Lens`.
//!
//! What it would cost to clear a node changes only when the pods there do, unless others may keep
//! the pod from it: `Prices` are kept for each class, once one of its pods would displace others.
//! Where pods for which nodes were cleared matter by more than their load, the reference decides.

mod kept;
mod lens;
mod prices;
mod ranking;
mod view;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::cycle::{self, Choice, Diagnosis, Question, Rejection, Search, enough};
use crate::framework::{Score, Scoring};
use crate::node_info::NodeInfo;
use crate::pod_info::{ClassId, PodClass, PodInfo};
use crate::preemption;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::survey::{Refusal, Survey};
use kept::Kept;
use lens::Lens;
use prices::Prices;
use ranking::Ranking;
use view::{Subject, View};
use window::Window;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// So many rankings.
    rankings: usize,
    /// So many nodes in all rankings together, at about ten bytes each.
    nodes: usize,
    /// So many views.
    views: usize,
    /// So many counts in all views together, at about ten bytes each.
    counts: usize,
    /// So many classes of pods that displace others.
    prices: usize,
    /// So many nodes in their prices together, at about fifty bytes each.
    priced: usize,
}

const LIMITS: Limits = Limits {
    rankings: 2048,
    nodes: 8 << 20,
    views: 4096,
    counts: 4 << 20,
    prices: 512,
    priced: 1 << 20,
};

/// Of which kin and class a view is; without a class it tells refusals alone.
type ViewKey = (u64, Option<ClassId>);

/// Chooses nodes, and keeps what is worth keeping from one decision to the next.
#[derive(Clone, Debug)]
pub struct Fast {
    limits: Limits,
    rankings: Kept<ClassId, Ranking>,
    views: Kept<ViewKey, View>,
    prices: Kept<ClassId, Prices>,
    /// Counts of the view in use, by domain; zero between decisions.
    slots: Vec<Vec<i64>>,
}

impl Default for Fast {
    fn default() -> Self {
        Self {
            limits: LIMITS,
            rankings: Kept::default(),
            views: Kept::default(),
            prices: Kept::default(),
            slots: Vec::new(),
        }
    }
}

/// A node that can take the pod.
struct Found {
    at: usize,
    group: u16,
    score: i32,
}

impl Fast {
    /// Keeps what is to be kept by one of so many.
    pub(crate) fn one_of(count: usize) -> Self {
        let count = count.max(1);
        let Limits { rankings, nodes, views, counts, prices, priced } = LIMITS;
        let [rankings, nodes, views, counts, prices, priced] =
            [rankings, nodes, views, counts, prices, priced].map(|limit| limit / count);
        let limits = Limits { rankings, nodes, views, counts, prices, priced };
        Self { limits, ..Self::default() }
    }

    /// Chooses a node as [`cycle::choose`] does. All decisions must be about one profile and one
    /// snapshot.
    ///
    /// # Errors
    /// No node can take the pod.
    pub fn choose(
        &mut self,
        profile: &Profile,
        snapshot: &mut Snapshot,
        pod: &PodInfo,
        start: &mut usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Choice, Diagnosis> {
        snapshot.settle(&pod.kin, profile.relating.defaults());
        let snapshot = &*snapshot;
        let question = pod.question();
        let looks = pod.kin.terms.is_some()
            || !pod.kin.constraints.is_empty()
            || profile.relating.defaults().iter().any(|constraint| constraint.hard);
        if snapshot.nominations().bear(pod.class.priority, looks) {
            return cycle::choose(profile, snapshot, question, start, rng);
        }
        if pod.class_id.is_none()
            && let Some(choice) = self.choose_pinned(profile, snapshot, pod, start, rng)
        {
            return Ok(choice);
        }
        let Some(class) = pod.class_id.filter(|_| !snapshot.is_empty()) else {
            return cycle::choose(profile, snapshot, question, start, rng);
        };
        let limits = (self.limits.views, self.limits.counts);
        let view = view(&mut self.views, limits, profile, snapshot, pod, Some(class));
        let limits = (self.limits.rankings, self.limits.nodes);
        let ranking = ranking(&mut self.rankings, limits, class, &pod.class, snapshot);
        if view.overflown {
            return cycle::choose(profile, snapshot, question, start, rng);
        }
        view.load(&mut self.slots);
        let lens = (!view.is_empty()).then(|| view.lens(snapshot, &self.slots));
        let potential = Vec::new();
        let mut looking = Looking { profile, snapshot, pod: question, ranking, lens, potential };
        let result = looking.choose(start, rng);
        let potential = looking.potential;
        view.unload(&mut self.slots);
        match result {
            None => cycle::choose(profile, snapshot, question, start, rng),
            Some(Ok(choice)) => Ok(choice),
            Some(Err(mut diagnosis)) => {
                diagnosis.preemption = if view.refuses() {
                    let mut survey = Survey::of(&profile.relating, snapshot, question);
                    preemption::preempt(profile, snapshot, question, &mut survey, &potential, rng)
                } else {
                    let limits = (self.limits.prices, self.limits.priced);
                    let follow = |prices: &mut Prices| prices.follow(snapshot);
                    let prices =
                        self.prices.get(class, limits, Prices::default, follow, Prices::len);
                    prices.preempt(profile, snapshot, question, &potential, rng)
                };
                Err(diagnosis)
            }
        }
    }

    /// Chooses among the nodes that a pod names in its affinity, if that is possible without
    /// looking at the others.
    fn choose_pinned(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        pod: &PodInfo,
        start: &mut usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<Choice> {
        let names = pod.class.pinned().filter(|_| profile.pins)?;
        // So few that the reference, too, looks at all of them.
        let percentage = profile.percentage_of_nodes_to_score;
        if names.is_empty() || names.len() > enough(names.len(), percentage) {
            return None;
        }
        let limits = (self.limits.views, self.limits.counts);
        let view = view(&mut self.views, limits, profile, snapshot, pod, None);
        if view.overflown {
            return None;
        }
        view.load(&mut self.slots);
        let lens = view.lens(snapshot, &self.slots);
        let question = pod.question();
        let fits = |id: &u32| refusal(profile, snapshot, question, Some(&lens), *id).is_none();
        if let Some(id) = snapshot.nominated_node(&pod.key).filter(fits) {
            view.unload(&mut self.slots);
            return Some(cycle::pick_only(snapshot, &only(id), rng));
        }
        let ids = names.iter().filter_map(|name| snapshot.known(name));
        let mut placed: Vec<(usize, u32)> =
            ids.filter_map(|id| Some((snapshot.order().position(id)?, id))).collect();
        placed.sort_unstable();
        let evaluated = placed.len();
        placed.rotate_left(start.checked_rem(evaluated).unwrap_or(0));
        let feasible: Vec<u32> = placed.into_iter().map(|(_, id)| id).filter(fits).collect();
        view.unload(&mut self.slots);
        let search = Search { feasible, evaluated };
        let choice = match search.feasible.len() {
            0 => return None,
            1 => cycle::pick_only(snapshot, &search, rng),
            _ => {
                let survey = Survey::of(&profile.relating, snapshot, question);
                cycle::pick(profile, snapshot, question, &survey, &search, rng)?
            }
        };
        *start = (*start + evaluated) % snapshot.len();
        Some(choice)
    }
}

/// A search that found this node alone.
fn only(id: u32) -> Search {
    Search { feasible: vec![id], evaluated: 1 }
}

/// Why a node cannot take the pod, where pods for which it was cleared matter by their load alone.
fn refusal(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    lens: Option<&Lens>,
    id: u32,
) -> Option<Rejection> {
    let row = snapshot.row(id);
    let by_any = |row: &NodeInfo| {
        profile.plugins.iter().find_map(|enabled| Rejection::by(enabled, pod.class, row))
    };
    let joined = snapshot.nominations().join(pod.class.priority, Some(pod.key), row);
    joined
        .and_then(|row| by_any(&row))
        .or_else(|| by_any(row))
        .or_else(|| Some(Rejection::on_account_of_pods(lens?.refusal(id)?)))
}

/// A decision about a pod of a class that has a ranking.
struct Looking<'a> {
    profile: &'a Profile,
    snapshot: &'a Snapshot,
    pod: Question<'a>,
    ranking: &'a mut Ranking,
    /// `None` if other pods make no difference.
    lens: Option<Lens<'a>>,
    /// The nodes that refuse the pod for a reason that evictions may remove, in the order in which
    /// they were looked at, if no node can take it.
    potential: Vec<u32>,
}

impl Looking<'_> {
    /// Chooses a node, or tells why there is none. `None` if the ranking is of no use.
    fn choose(
        &mut self,
        start: &mut usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<Result<Choice, Diagnosis>> {
        let Self { profile, snapshot, pod, ref mut ranking, ref lens, .. } = *self;
        // A pod does not stand in its own way, though it does in that of others of its class.
        let mut own = None;
        if let Some(id) = snapshot.nominated_node(pod.key) {
            let Some(rejection) = refusal(profile, snapshot, pod, lens.as_ref(), id) else {
                return Some(Ok(cycle::pick_only(snapshot, &only(id), rng)));
            };
            own = snapshot.order().position(id);
            if let Some(at) = own {
                ranking.refuse(at, rejection);
            }
        }
        let first = *start % snapshot.len();
        let result = match lens {
            None => choose_alone(profile, snapshot, pod.class, ranking, start, rng),
            Some(lens) => choose_among(profile, snapshot, pod.class, ranking, lens, start, rng),
        };
        if let Some(Err(_)) = result {
            self.potential = self.potential(first);
        }
        if let Some(at) = own {
            self.ranking.look_again(at);
        }
        result
    }

    /// The potential nodes, if the first that was looked at is this.
    fn potential(&self, first: usize) -> Vec<u32> {
        let order = self.snapshot.order().settled();
        let resolvable = |at: &usize| {
            self.ranking.resolvable(*at).unwrap_or_else(|| {
                let refusal = self.lens.as_ref().and_then(|lens| lens.refusal(order[*at]));
                refusal.is_some_and(Refusal::resolvable)
            })
        };
        (first..order.len()).chain(0..first).filter(resolvable).map(|at| order[at]).collect()
    }
}

/// The view, current.
fn view<'a>(
    views: &'a mut Kept<ViewKey, View>,
    limits: (usize, usize),
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    class: Option<ClassId>,
) -> &'a mut View {
    let class_of = class.map(|_| &*pod.class);
    let subject = Subject { relating: &profile.relating, kin: &pod.kin, class: class_of };
    let make = || View::new(subject, snapshot);
    let follow = |view: &mut View| view.follow(subject, snapshot);
    views.get((pod.kin.id, class), limits, make, follow, View::len)
}

/// The ranking, current but for nodes that are looked at when a search comes to them.
fn ranking<'a>(
    rankings: &'a mut Kept<ClassId, Ranking>,
    limits: (usize, usize),
    class: ClassId,
    of: &Arc<PodClass>,
    snapshot: &Snapshot,
) -> &'a mut Ranking {
    let make = || Ranking::new(Arc::clone(of), snapshot);
    rankings.get(class, limits, make, |ranking| ranking.follow(snapshot), Ranking::len)
}

/// Chooses where other pods make no difference; `None` if the ranking is of no use.
fn choose_alone(
    profile: &Profile,
    snapshot: &Snapshot,
    class: &PodClass,
    ranking: &mut Ranking,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Option<Result<Choice, Diagnosis>> {
    let total = snapshot.len();
    let wanted = enough(total, profile.percentage_of_nodes_to_score);
    let (window, feasible) = ranking.search(profile, snapshot, *start % total, wanted);
    if ranking.overflown {
        return None;
    }
    *start = (*start + window.evaluated) % total;
    let (at, score) = match feasible {
        0 => return Some(Err(ranking.diagnosis())),
        1 => {
            // The reference draws here, too.
            let _: usize = rng.random_range(0..1);
            (ranking.first(window).expect("one is feasible"), 0)
        }
        _ => pick(profile, snapshot, class, ranking, window, rng),
    };
    let node = snapshot.row(snapshot.order().settled()[at]).name.clone();
    Some(Ok(Choice { node, score, feasible, evaluated: window.evaluated }))
}

/// Chooses where other pods make a difference; `None` if the ranking is of no use.
fn choose_among(
    profile: &Profile,
    snapshot: &Snapshot,
    class: &PodClass,
    ranking: &mut Ranking,
    lens: &Lens,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Option<Result<Choice, Diagnosis>> {
    let total = snapshot.len();
    let wanted = enough(total, profile.percentage_of_nodes_to_score);
    let order = snapshot.order().settled();
    let mut found = Vec::with_capacity(wanted);
    let mut refused = [0; Refusal::ALL.len()];
    let take = |at: usize, group: u16, score: i32| match lens.refusal(order[at]) {
        None => {
            found.push(Found { at, group, score });
            true
        }
        Some(refusal) => {
            refused[refusal as usize] += 1;
            false
        }
    };
    let (window, feasible) = ranking.search_among(profile, snapshot, *start % total, wanted, take);
    if ranking.overflown {
        return None;
    }
    *start = (*start + window.evaluated) % total;
    if feasible == 0 {
        let mut diagnosis = ranking.diagnosis();
        for (refusal, nodes) in Refusal::ALL.into_iter().zip(refused).filter(|(_, n)| *n > 0) {
            diagnosis.count(&Rejection::on_account_of_pods(refusal), nodes);
        }
        return Some(Err(diagnosis));
    }
    let totals = match feasible {
        1 => vec![0],
        _ => totals(profile, snapshot, class, ranking, lens, &found),
    };
    let best = totals.iter().copied().max().expect("some node is feasible");
    let ties = totals.iter().filter(|total| **total == best).count();
    let nth = rng.random_range(0..ties);
    let is_best = found.iter().zip(&totals).filter(|(_, total)| **total == best);
    let at = is_best.map(|(found, _)| found.at).nth(nth).expect("it is one of the ties");
    let node = snapshot.row(order[at]).name.clone();
    Some(Ok(Choice { node, score: best, feasible, evaluated: window.evaluated }))
}

/// The scores of the nodes that were found.
fn totals(
    profile: &Profile,
    snapshot: &Snapshot,
    class: &PodClass,
    ranking: &Ranking,
    lens: &Lens,
    found: &[Found],
) -> Vec<Score> {
    let mut present = vec![false; ranking.groups()];
    for node in found {
        present[node.group as usize] = true;
    }
    let groups: Vec<usize> = (0..present.len()).filter(|group| present[*group]).collect();
    let compared: Vec<&[i64]> = groups.iter().map(|group| ranking.traits(*group)).collect();
    let scores = compare(profile, snapshot, class, &compared, ranking.ends());
    let mut of_group = vec![0; present.len()];
    for (group, score) in groups.into_iter().zip(scores) {
        of_group[group] = score;
    }
    let total = |node: &Found| of_group[node.group as usize] + Score::from(node.score);
    let mut totals: Vec<Score> = found.iter().map(total).collect();
    let order = snapshot.order().settled();
    let nodes: Vec<u32> = found.iter().map(|node| order[node.at]).collect();
    let relating = &profile.relating;
    let spread = relating.spread.as_ref().map_or(0, |spread| spread.weight);
    let affinity = relating.affinity.as_ref().map_or(0, |affinity| affinity.weight);
    for (weight, scores) in
        [(spread, lens.spread_scores(&nodes)), (affinity, lens.affinity_scores(&nodes))]
    {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}

/// One of the best of several feasible nodes of a window: its place, and its score.
fn pick(
    profile: &Profile,
    snapshot: &Snapshot,
    class: &PodClass,
    ranking: &mut Ranking,
    window: Window,
    rng: &mut ChaCha8Rng,
) -> (usize, Score) {
    let tops = ranking.tops(window);
    let present: Vec<usize> = (0..tops.len()).filter(|group| tops[*group].count > 0).collect();
    let compared: Vec<&[i64]> = present.iter().map(|group| ranking.traits(*group)).collect();
    let scores = compare(profile, snapshot, class, &compared, ranking.ends());
    let totals = present.iter().zip(&scores);
    let totals = totals.map(|(group, score)| Score::from(tops[*group].score) + score);
    let best = totals.max().expect("some node is feasible");
    let mut best_of_group = vec![None; tops.len()];
    let mut ties = 0;
    for (group, score) in present.iter().zip(&scores) {
        if Score::from(tops[*group].score) + score == best {
            best_of_group[*group] = Some(tops[*group].score);
            ties += tops[*group].ties as usize;
        }
    }
    let nth = rng.random_range(0..ties);
    (ranking.nth_best(window, &best_of_group, nth), best)
}

/// The weighted sum of the scores that compare nodes, for nodes with these traits; `ends` tells
/// where those of each plugin end.
fn compare(
    profile: &Profile,
    snapshot: &Snapshot,
    class: &PodClass,
    compared: &[&[i64]],
    ends: &[usize],
) -> Vec<Score> {
    let mut sums = vec![0; compared.len()];
    let mut traits: Vec<&[i64]> = Vec::with_capacity(compared.len());
    let plugins = profile.plugins.iter().filter(|e| e.scoring == Scoring::Compared);
    let mut first = 0;
    for (enabled, end) in plugins.zip(ends) {
        traits.clear();
        traits.extend(compared.iter().map(|traits| &traits[first..*end]));
        first = *end;
        let scores = enabled.plugin.compare(class, &traits, snapshot);
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += enabled.weight * score;
        }
    }
    sums
}
