//! [`Ranking`]: the nodes as one class of pods sees them, kept from decision to decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::window::{BLOCK, Window, bits, masks, nth_bit, place};
use crate::cycle::{Diagnosis, Rejection};
use crate::framework::{Filtering, Scoring};
use crate::pod_info::PodClass;
use crate::profile::Profile;
use crate::snapshot::{Change, Snapshot};

/// What `compare` is told of a node, for all plugins that compare, in the profile's order.
pub(super) type Traits = Arc<[i64]>;

/// The state of a node that was never looked at.
const UNKNOWN: u16 = u16::MAX;
/// Marks the number of a rejection, where else there is that of a group.
const REJECTED: u16 = 1 << 15;
/// With more groups or rejections than this a ranking is of no use.
const KINDS_MAX: usize = 1 << 12;
/// With more groups than this, blocks are not summed up.
const SUMMED_MAX: usize = 16;

/// The highest score among some nodes of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Top {
    /// How many nodes there are.
    pub(super) count: u32,
    /// The highest score among them.
    pub(super) score: i32,
    /// How many have that score.
    pub(super) ties: u32,
}

impl Top {
    fn take(&mut self, score: i32) {
        self.merge(Self { count: 1, score, ties: 1 });
    }

    fn merge(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 || other.score > self.score {
            (self.score, self.ties) = (other.score, 0);
        }
        if other.score == self.score {
            self.ties += other.ties;
        }
        self.count += other.count;
    }
}

/// For each node in order whether it can take a pod of the class, and its score, as far as that
/// does not depend on other nodes.
///
/// Nodes that changed are looked at again when a search comes to them, never before. Blocks of
/// 64 nodes are summed up by group: a search adds up sums of blocks and looks into those at its
/// ends.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    pub(super) class: Arc<PodClass>,
    /// The weighted sum of scores, by place in the order.
    scores: Vec<i32>,
    /// The number of the group, or of the rejection, by place in the order. A group are nodes that
    /// passed and have the same traits: they differ in the scores of plugins that look at each
    /// node alone, and in nothing else.
    states: Vec<u16>,
    /// Nodes to be looked at again, a bit each.
    dirty: Vec<u64>,
    /// Nodes that can take the pod, a bit each.
    feasible: Vec<u64>,
    /// Sums of blocks, `[block][group]`, for up to `summed` groups.
    tops: Vec<Top>,
    summed: usize,
    /// Blocks of which the sums are wrong.
    stale: Vec<bool>,
    /// By node: what its own properties make of it, as `states`.
    judged: Vec<u16>,
    /// The traits of each group.
    groups: Vec<Traits>,
    group_ids: BTreeMap<Traits, u16>,
    /// The traits of the node looked at last.
    measured: Measured,
    rejections: Vec<(Rejection, u32)>,
    /// The order and the changes that this has caught up with.
    epoch: u64,
    seen: u64,
    /// Whether there are more kinds of nodes than can be told apart.
    pub(super) overflown: bool,
}

impl Ranking {
    pub(super) fn new(class: Arc<PodClass>, snapshot: &Snapshot) -> Self {
        Self {
            class,
            scores: Vec::new(),
            states: Vec::new(),
            dirty: Vec::new(),
            feasible: Vec::new(),
            tops: Vec::new(),
            summed: 1,
            stale: Vec::new(),
            judged: Vec::new(),
            groups: Vec::new(),
            group_ids: BTreeMap::new(),
            measured: Measured::default(),
            rejections: Vec::new(),
            epoch: 0,
            seen: snapshot.changes().count(),
            overflown: false,
        }
    }

    /// How many nodes it holds.
    pub(super) const fn len(&self) -> usize {
        self.states.len()
    }

    /// Catches up with the snapshot, which must be settled.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let (epoch, kept) = snapshot.order().epoch();
        if self.epoch != epoch {
            let kept = if self.epoch + 1 == epoch { kept } else { 0 };
            self.reorder(kept, snapshot.order().settled().len());
            self.epoch = epoch;
        }
        if self.judged.len() < snapshot.rows() {
            self.judged.resize(snapshot.rows(), UNKNOWN);
        }
        let changes = snapshot.changes();
        if let Some(news) = changes.since(self.seen) {
            for Change { node, own } in news.iter().copied() {
                if own {
                    self.judged[node as usize] = UNKNOWN;
                }
                if let Some(at) = snapshot.order().position(node) {
                    let (block, bit) = place(at);
                    self.dirty[block] |= bit;
                }
            }
        } else {
            self.judged.fill(UNKNOWN);
            for (block, mask) in masks(0, self.len()) {
                self.dirty[block] |= mask;
            }
        }
        self.seen = changes.count();
    }

    /// The first nodes from `start` on that are enough, and how many of them are feasible.
    pub(super) fn search(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        start: usize,
        wanted: usize,
    ) -> (Window, usize) {
        let total = self.len();
        let mut left = wanted;
        for (from, to) in [(start, total), (0, start)] {
            for (block, mask) in masks(from, to) {
                if self.dirty[block] != 0 {
                    self.refresh(profile, snapshot, block);
                }
                let found = self.feasible[block] & mask;
                let count = found.count_ones() as usize;
                if count >= left {
                    let last = block * BLOCK + nth_bit(found, left - 1);
                    let evaluated = (last + total - start) % total + 1;
                    return (Window { start, evaluated, total }, wanted);
                }
                left -= count;
            }
        }
        (Window { start, evaluated: total, total }, wanted - left)
    }

    /// As [`Self::search`], but of the nodes that can take the pod those alone count that `take`
    /// accepts: it is told their place, group and score.
    pub(super) fn search_among(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        start: usize,
        wanted: usize,
        mut take: impl FnMut(usize, u16, i32) -> bool,
    ) -> (Window, usize) {
        let total = self.len();
        let mut left = wanted;
        for (from, to) in [(start, total), (0, start)] {
            for (block, mask) in masks(from, to) {
                if self.dirty[block] != 0 {
                    self.refresh(profile, snapshot, block);
                }
                for at in bits(block, self.feasible[block] & mask) {
                    left -= usize::from(take(at, self.states[at], self.scores[at]));
                    if left == 0 {
                        let evaluated = (at + total - start) % total + 1;
                        return (Window { start, evaluated, total }, wanted);
                    }
                }
            }
        }
        (Window { start, evaluated: total, total }, wanted - left)
    }

    /// The first feasible node of a window.
    pub(super) fn first(&self, window: Window) -> Option<usize> {
        window.masks().find_map(|(block, mask)| {
            let found = self.feasible[block] & mask;
            (found != 0).then(|| block * BLOCK + nth_bit(found, 0))
        })
    }

    /// The tops of the feasible nodes of a window by group.
    pub(super) fn tops(&mut self, window: Window) -> Vec<Top> {
        let mut tops = vec![Top::default(); self.groups.len()];
        for (block, mask) in window.masks() {
            let counted = self.feasible[block] & mask;
            if counted == 0 {
                continue;
            }
            if self.is_summed(block, counted) {
                self.sum_up(block);
                let sums = &self.tops[block * self.summed..][..self.summed];
                for (top, sum) in tops.iter_mut().zip(sums) {
                    top.merge(*sum);
                }
            } else {
                for at in bits(block, counted) {
                    tops[self.states[at] as usize].take(self.scores[at]);
                }
            }
        }
        tops
    }

    /// The place of the `nth` of the nodes of a window that are best: those of a group whose
    /// score is `best` of that group.
    pub(super) fn nth_best(
        &mut self,
        window: Window,
        best: &[Option<i32>],
        mut nth: usize,
    ) -> usize {
        for (block, mask) in window.masks() {
            let found = self.feasible[block] & mask;
            if found == 0 {
                continue;
            }
            if self.is_summed(block, found) {
                self.sum_up(block);
                let sums = &self.tops[block * self.summed..][..self.summed];
                let is_best = |(top, best): &(&Top, &Option<i32>)| Some(top.score) == **best;
                let ties: u32 = sums.iter().zip(best).filter(is_best).map(|(t, _)| t.ties).sum();
                if nth >= ties as usize {
                    nth -= ties as usize;
                    continue;
                }
            }
            for at in bits(block, found) {
                let is_best = best[self.states[at] as usize] == Some(self.scores[at]);
                if is_best && nth == 0 {
                    return at;
                }
                nth -= usize::from(is_best);
            }
        }
        unreachable!("the caller counted the ties")
    }

    /// How many groups there are.
    pub(super) const fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The traits of a group.
    pub(super) fn traits(&self, group: usize) -> &[i64] {
        &self.groups[group]
    }

    /// Where the traits of each plugin that compares end.
    pub(super) fn ends(&self) -> &[usize] {
        &self.measured.ends
    }

    /// Why no node can take the pod, when that is so.
    pub(super) fn diagnosis(&self) -> Diagnosis {
        let mut diagnosis = Diagnosis { nodes: self.len(), ..Diagnosis::default() };
        for (rejection, nodes) in self.rejections.iter().filter(|(_, nodes)| *nodes > 0) {
            diagnosis.count(rejection, *nodes as usize);
        }
        diagnosis
    }

    fn is_summed(&self, block: usize, counted: u64) -> bool {
        self.summed > 0 && counted == self.feasible[block]
    }

    fn sum_up(&mut self, block: usize) {
        if !self.stale[block] {
            return;
        }
        let tops = &mut self.tops[block * self.summed..][..self.summed];
        tops.fill(Top::default());
        for at in bits(block, self.feasible[block]) {
            tops[self.states[at] as usize].take(self.scores[at]);
        }
        self.stale[block] = false;
    }

    fn reorder(&mut self, kept: usize, total: usize) {
        for at in kept..self.len() {
            self.release(self.states[at]);
        }
        self.states.truncate(kept);
        self.states.resize(total, UNKNOWN);
        self.scores.resize(total, 0);
        let blocks = total.div_ceil(BLOCK);
        for bitmap in [&mut self.dirty, &mut self.feasible] {
            bitmap.resize(blocks, 0);
        }
        self.stale.resize(blocks, true);
        self.tops.resize(blocks * self.summed, Top::default());
        // The last block may have had bits of nodes that are no longer there.
        for (block, mask) in masks(kept, blocks * BLOCK) {
            self.dirty[block] &= !mask;
            self.feasible[block] &= !mask;
            self.stale[block] = true;
        }
        for (block, mask) in masks(kept, total) {
            self.dirty[block] |= mask;
        }
    }

    fn refresh(&mut self, profile: &Profile, snapshot: &Snapshot, block: usize) {
        for at in bits(block, self.dirty[block]) {
            let before = (self.states[at], self.scores[at]);
            let node = snapshot.order().settled()[at];
            let (state, score) = self.judge(profile, snapshot, node).unwrap_or_else(|| {
                self.overflown = true;
                (UNKNOWN, 0)
            });
            self.hold(state);
            self.release(before.0);
            (self.states[at], self.scores[at]) = (state, score);
            let bit = place(at).1;
            if state & REJECTED == 0 {
                self.feasible[block] |= bit;
            } else {
                self.feasible[block] &= !bit;
            }
            self.stale[block] |= before != (state, score);
        }
        self.dirty[block] = 0;
    }

    /// State and score of a node; `None` if there are too many kinds of nodes.
    fn judge(&mut self, profile: &Profile, snapshot: &Snapshot, node: u32) -> Option<(u16, i32)> {
        let mut state = self.judged[node as usize];
        if state == UNKNOWN {
            state = self.judge_properties(profile, snapshot, node)?;
            self.judged[node as usize] = state;
        }
        if state & REJECTED != 0 {
            return Some((state, 0));
        }
        let row = snapshot.row(node);
        let mut score = 0;
        for enabled in &profile.plugins {
            if enabled.filtering == Filtering::ByLoad && !enabled.plugin.fits(&self.class, row) {
                let rejection = Rejection::by(enabled, &self.class, row)?;
                return Some((self.rejection(rejection)?, 0));
            }
            if enabled.scoring == Scoring::Alone {
                score += enabled.weight * enabled.plugin.score(&self.class, row);
            }
        }
        Some((state, i32::try_from(score).ok()?))
    }

    fn judge_properties(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        node: u32,
    ) -> Option<u16> {
        let row = snapshot.row(node);
        for enabled in &profile.plugins {
            if enabled.filtering == Filtering::ByProperties
                && let Some(rejection) = Rejection::by(enabled, &self.class, row)
            {
                return self.rejection(rejection);
            }
        }
        self.measured.of(profile, snapshot, &self.class, node);
        if let Some(id) = self.group_ids.get(self.measured.traits.as_slice()) {
            return Some(*id);
        }
        let traits: Traits = self.measured.traits.as_slice().into();
        let id = number(self.groups.len())?;
        self.groups.push(Arc::clone(&traits));
        self.group_ids.insert(traits, id);
        self.make_room();
        Some(id)
    }

    /// Makes room for sums of all groups, or gives sums up.
    fn make_room(&mut self) {
        if self.summed == 0 || self.groups.len() <= self.summed {
            return;
        }
        let summed = self.groups.len().next_power_of_two();
        self.summed = if summed > SUMMED_MAX { 0 } else { summed };
        self.tops.clear();
        self.tops.resize(self.stale.len() * self.summed, Top::default());
        self.stale.fill(true);
    }

    fn rejection(&mut self, rejection: Rejection) -> Option<u16> {
        let known = self.rejections.iter().position(|(r, _)| *r == rejection);
        let id = number(known.unwrap_or(self.rejections.len()))?;
        if known.is_none() {
            self.rejections.push((rejection, 0));
        }
        Some(id | REJECTED)
    }

    fn hold(&mut self, state: u16) {
        if state != UNKNOWN && state & REJECTED != 0 {
            self.rejections[(state & !REJECTED) as usize].1 += 1;
        }
    }

    fn release(&mut self, state: u16) {
        if state != UNKNOWN && state & REJECTED != 0 {
            self.rejections[(state & !REJECTED) as usize].1 -= 1;
        }
    }
}

/// The traits of one node; kept to spare allocations.
#[derive(Clone, Debug, Default)]
struct Measured {
    traits: Vec<i64>,
    /// Where those of each plugin end: the same for all nodes of a class.
    ends: Vec<usize>,
}

impl Measured {
    fn of(&mut self, profile: &Profile, snapshot: &Snapshot, class: &PodClass, node: u32) {
        self.traits.clear();
        self.ends.clear();
        for enabled in profile.plugins.iter().filter(|e| e.scoring == Scoring::Compared) {
            let row = snapshot.row(node);
            enabled.plugin.traits(class, row, &mut self.traits);
            self.ends.push(self.traits.len());
        }
    }
}

fn number(index: usize) -> Option<u16> {
    u16::try_from(index).ok().filter(|_| index < KINDS_MAX)
}
