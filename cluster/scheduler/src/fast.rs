//! [`Fast`]: decides as [`crate::cycle::choose`] does, to the bit, without looking at each node
//! again for each pod.
//!
//! What a node is worth to a pod has three parts: whether it can take the pod, the scores that
//! look at the node alone, and the scores that compare it with the other nodes found. The first
//! two change only when the node does, so a `Ranking` keeps them for each class of pods. The
//! last depend on the traits of nodes alone, and nodes have few different traits: they are
//! worked out once for each group of nodes that share theirs.
//!
//! A pod's siblings are on some nodes and change with every pod. While they are few, their nodes
//! are taken out of the groups of the class's ranking and looked at one by one; when there are
//! many, the controller gets a ranking of its own, in which groups differ in their number too.
//!
//! What it would cost to clear a node for a pod changes only when the pods there do, so `Prices`
//! are kept for each class, too, once one of its pods looks for others to displace.

mod prices;
mod ranking;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::cycle::{self, Choice, Diagnosis, Nominated, Question, Search, enough};
use crate::framework::{Score, Scoring, Surroundings};
use crate::pod_info::{ClassId, PodClass, PodInfo};
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use prices::Prices;
use ranking::{Ranking, Traits};
use window::Window;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// So many rankings.
    rankings: usize,
    /// So many nodes in all rankings together, at about ten bytes each.
    nodes: usize,
    /// Siblings are on few nodes if they are on no more than this, and one for each 256 nodes.
    few: usize,
    /// So many nodes in the prices of all classes together, at some fifty bytes each.
    priced: usize,
}

const LIMITS: Limits = Limits { rankings: 2048, nodes: 8 << 20, few: 64, priced: 1 << 20 };

/// Of which class a ranking is, and of which controller, if that has its own.
type RankingKey = (ClassId, Option<u32>);

#[derive(Clone, Debug)]
struct Kept {
    ranking: Ranking,
    /// The number of the decision that used it last.
    used: u64,
}

/// Chooses nodes, and keeps what is worth keeping from one decision to the next.
#[derive(Clone, Debug)]
pub struct Fast {
    limits: Limits,
    rankings: BTreeMap<RankingKey, Kept>,
    /// Nodes in all rankings.
    nodes: usize,
    decisions: u64,
    prices: BTreeMap<ClassId, Prices>,
}

impl Default for Fast {
    fn default() -> Self {
        Self {
            limits: LIMITS,
            rankings: BTreeMap::new(),
            nodes: 0,
            decisions: 0,
            prices: BTreeMap::new(),
        }
    }
}

/// A node found that has siblings of the pod.
struct Crowded {
    at: usize,
    /// The number of its traits among those that are compared.
    kind: usize,
    score: i32,
}

impl Fast {
    /// Keeps what is to be kept by one of so many.
    pub(crate) fn one_of(count: usize) -> Self {
        let count = count.max(1);
        let limits =
            Limits { rankings: LIMITS.rankings / count, nodes: LIMITS.nodes / count, ..LIMITS };
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
        snapshot.settle(&pod.owner);
        let snapshot = &*snapshot;
        let question = pod.question();
        let refused = match cycle::choose_nominated(profile, snapshot, question, rng) {
            Nominated::Fits(choice) => return Ok(choice),
            Nominated::Refused(node, rejection) => Some((node, rejection)),
            Nominated::Nowhere => None,
        };
        if let Some(choice) = choose_pinned(profile, snapshot, question, start, rng) {
            return Ok(choice);
        }
        let Some(class) = pod.class_id.filter(|_| !snapshot.is_empty()) else {
            return cycle::choose_any(profile, snapshot, question, start, rng);
        };
        let total = snapshot.len();
        let owner = snapshot.owner_id(&pod.owner);
        let nodes = owner.map_or(0, |owner| snapshot.siblings_of(owner).nodes().len());
        let few = nodes <= self.limits.few + total / 256;
        let siblings_of = if few { None } else { owner };
        let ranking = self.ranking((class, siblings_of), &pod.class, snapshot);
        let wanted = enough(total, profile.percentage_of_nodes_to_score);
        // A pod does not stand in its own way, though it does in that of others of its class.
        let own = refused.as_ref().and_then(|(node, _)| snapshot.order().position(*node));
        if let (Some(at), Some((_, rejection))) = (own, refused) {
            ranking.refuse(at, rejection);
        }
        let (window, feasible) = ranking.search(profile, snapshot, *start % total, wanted);
        if let Some(at) = own {
            ranking.look_again(at);
        }
        if ranking.overflown {
            return cycle::choose_any(profile, snapshot, question, start, rng);
        }
        *start = (*start + window.evaluated) % total;
        let (at, score) = match feasible {
            0 => {
                let mut diagnosis = ranking.diagnosis();
                let potential = ranking.resolvable(snapshot, window.start);
                let prices = self.prices(class, snapshot);
                diagnosis.preemption = prices.preempt(profile, snapshot, question, &potential, rng);
                return Err(diagnosis);
            }
            1 => {
                // The reference draws here, too.
                let _: usize = rng.random_range(0..1);
                (ranking.first(window).expect("one is feasible"), 0)
            }
            _ => {
                let apart = if few { owner } else { None };
                pick(profile, snapshot, question, apart, ranking, window, rng)
            }
        };
        let node = snapshot.row(snapshot.order().settled()[at]).name.clone();
        Ok(Choice { node, score, feasible, evaluated: window.evaluated })
    }

    /// The ranking, current but for nodes that are looked at when a search comes to them.
    fn ranking(
        &mut self,
        key: RankingKey,
        class: &Arc<PodClass>,
        snapshot: &Snapshot,
    ) -> &mut Ranking {
        self.decisions += 1;
        let known = self.rankings.get(&key).map(|kept| kept.ranking.len());
        let more = snapshot.len().saturating_sub(known.unwrap_or(0));
        let full = known.is_none() && self.rankings.len() >= self.limits.rankings;
        if full || self.nodes + more > self.limits.nodes {
            self.forget_old(key);
        }
        if known.is_none() {
            // Most nodes have no siblings: they are to the controller what they are to the class.
            let base = key.1.and_then(|owner| Some((owner, self.rankings.get(&(key.0, None))?)));
            let ranking = match base {
                Some((owner, base)) => base.ranking.of_owner(owner),
                None => Ranking::new(Arc::clone(class), key.1, snapshot),
            };
            self.nodes += ranking.len();
            self.rankings.insert(key, Kept { ranking, used: 0 });
        }
        let kept = self.rankings.get_mut(&key).expect("it was there, or is now");
        kept.used = self.decisions;
        self.nodes -= kept.ranking.len();
        kept.ranking.follow(snapshot);
        self.nodes += kept.ranking.len();
        if known.is_none() {
            kept.ranking.recount(snapshot);
        }
        &mut kept.ranking
    }

    /// The prices of a class, current but for nodes that are looked at when somebody asks.
    fn prices(&mut self, class: ClassId, snapshot: &Snapshot) -> &mut Prices {
        let priced = self.prices.values().map(Prices::len).sum::<usize>();
        if !self.prices.contains_key(&class) && priced + snapshot.rows() > self.limits.priced {
            // Pods that displace others are few, and come in rows.
            self.prices.clear();
        }
        let prices = self.prices.entry(class).or_default();
        prices.follow(snapshot);
        prices
    }

    /// Forgets the half of the rankings that was not used for longest, but not that of `key`.
    fn forget_old(&mut self, key: RankingKey) {
        let mut used: Vec<u64> = self.rankings.values().map(|kept| kept.used).collect();
        used.sort_unstable();
        let Some(median) = used.get(used.len() / 2).copied() else { return };
        self.rankings.retain(|k, kept| *k == key || kept.used > median);
        self.nodes = self.rankings.values().map(|kept| kept.ranking.len()).sum();
    }
}

/// Chooses among the nodes that a pod names in its affinity, if that is possible without
/// looking at the others.
fn choose_pinned(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    start: &mut usize,
    rng: &mut ChaCha8Rng,
) -> Option<Choice> {
    let names = pod.class.pinned().filter(|_| profile.pins)?;
    let total = snapshot.len();
    // Fewer than enough: the reference, too, would look at every node, and start the next
    // search where it started this.
    if names.len() >= enough(total, profile.percentage_of_nodes_to_score) {
        return None;
    }
    let first = *start % total;
    let ids = names.iter().filter_map(|name| snapshot.known(name));
    let mut found: Vec<(usize, u32)> = ids
        .filter(|id| cycle::reject(profile, snapshot, pod, snapshot.row(*id)).is_none())
        .filter_map(|id| Some((snapshot.order().position(id)?, id)))
        .map(|(at, id)| ((at + total - first) % total, id))
        .collect();
    found.sort_unstable();
    let feasible = found.into_iter().map(|(_, id)| id).collect();
    let search = Search { feasible, evaluated: total };
    let choice = cycle::pick(profile, snapshot, pod, &search, rng)?;
    *start = first;
    Some(choice)
}

/// One of the best of several feasible nodes of a window: its place, and its score.
fn pick(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    apart: Option<u32>,
    ranking: &mut Ranking,
    window: Window,
    rng: &mut ChaCha8Rng,
) -> (usize, Score) {
    let (crowded, kinds) = set_apart(profile, snapshot, apart, ranking, window);
    let tops = ranking.tops(window);
    let present: Vec<usize> = (0..tops.len()).filter(|group| tops[*group].count > 0).collect();
    let of_present = present.iter().map(|group| ranking.traits(*group));
    let compared: Vec<&[i64]> = of_present.chain(kinds.iter().map(|kind| &**kind)).collect();
    let scores = compare(profile, snapshot, pod, &compared, ranking.ends());
    let (of_groups, of_kinds) = scores.split_at(present.len());
    let total_of = |c: &Crowded| of_kinds[c.kind] + Score::from(c.score);

    let totals = present.iter().zip(of_groups);
    let totals = totals.map(|(group, score)| Score::from(tops[*group].score) + score);
    let best = totals.chain(crowded.iter().map(total_of)).max().expect("some node is feasible");
    let mut best_of_group = vec![None; tops.len()];
    let mut ties = 0;
    for (group, score) in present.iter().zip(of_groups) {
        if Score::from(tops[*group].score) + score == best {
            best_of_group[*group] = Some(tops[*group].score);
            ties += tops[*group].ties as usize;
        }
    }
    let crowded_best: Vec<usize> =
        crowded.iter().filter(|c| total_of(c) == best).map(|c| c.at).collect();
    ties += crowded_best.len();
    let nth = rng.random_range(0..ties);
    let at = ranking.nth_best(window, &best_of_group, &crowded_best, nth);
    for node in crowded {
        ranking.set_back(node.at);
    }
    (at, best)
}

/// Sets the feasible nodes of the window that have siblings apart; gives them, and the different
/// traits that they have.
fn set_apart(
    profile: &Profile,
    snapshot: &Snapshot,
    owner: Option<u32>,
    ranking: &mut Ranking,
    window: Window,
) -> (Vec<Crowded>, Vec<Traits>) {
    let (mut crowded, mut kinds) = (Vec::new(), Vec::new());
    let mut known: BTreeMap<(u16, u32), usize> = BTreeMap::new();
    let siblings = owner.map(|owner| snapshot.siblings_of(owner).nodes());
    for (node, count) in siblings.into_iter().flatten() {
        let Some(at) = snapshot.order().position(*node) else { continue };
        if !window.contains(at) {
            continue;
        }
        let Some((passed, score)) = ranking.set_apart(at) else { continue };
        let kind = *known.entry((passed, *count)).or_insert_with(|| {
            kinds.push(ranking.measure(profile, snapshot, *node, *count));
            kinds.len() - 1
        });
        crowded.push(Crowded { at, kind, score });
    }
    (crowded, kinds)
}

/// The weighted sum of the scores that compare nodes, for nodes with these traits; `ends` tells
/// where those of each plugin end.
fn compare(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    compared: &[&[i64]],
    ends: &[usize],
) -> Vec<Score> {
    let around = Surroundings { snapshot, crowd: snapshot.crowd(pod.owner) };
    let mut sums = vec![0; compared.len()];
    let mut traits: Vec<&[i64]> = Vec::with_capacity(compared.len());
    let plugins = profile.plugins.iter().filter(|e| e.scoring == Scoring::Compared);
    let mut first = 0;
    for (enabled, end) in plugins.zip(ends) {
        traits.clear();
        traits.extend(compared.iter().map(|traits| &traits[first..*end]));
        first = *end;
        for (sum, score) in sums.iter_mut().zip(enabled.plugin.compare(pod.class, &traits, &around))
        {
            *sum += enabled.weight * score;
        }
    }
    sums
}
