//! [`Census`]: which pods are where, as far as other pods care.
//!
//! Pods of one [`Identity`] are one `Crowd`, and pods with the same [`Terms`] another: what a
//! pod wants of others is looked up for each crowd once, and a crowd tells on which nodes it is.
//! Whoever derived something from this catches up with the latest moves.

mod domains;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::Table;

use crate::relations::{Constraint, Identity, Kin, Namespaces, Numbered, Presence, Term, Terms};
use crate::snapshot::Log;
pub(crate) use domains::{Domains, GONE, KeyId, LACKING};
pub use selectors::Selectors;
pub(crate) use selectors::Sources;

/// The holder of pods without terms.
pub(crate) const NOBODY: u32 = u32::MAX;

/// How many pods of a crowd are on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Those that are not being deleted.
    pub staying: u32,
    /// Those that are being deleted.
    pub leaving: u32,
}

impl Heads {
    /// All of them.
    pub fn all(self) -> i64 {
        i64::from(self.staying) + i64::from(self.leaving)
    }

    fn of(&mut self, leaving: bool) -> &mut u32 {
        if leaving { &mut self.leaving } else { &mut self.staying }
    }
}

/// Pods that are alike, and on which nodes they are.
#[derive(Clone, Debug)]
pub(crate) struct Crowd<T> {
    /// What they have in common.
    pub(crate) of: Arc<Numbered<T>>,
    /// By node.
    pub(crate) on: BTreeMap<u32, Heads>,
}

/// A pod that came to a node or left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    /// The number of its identity's crowd.
    pub(crate) crowd: u32,
    /// The number of its terms' crowd, or [`NOBODY`].
    pub(crate) holder: u32,
    /// The node.
    pub(crate) node: u32,
    /// 1 if it came, -1 if it left.
    pub(crate) by: i8,
    /// Whether it is being deleted.
    pub(crate) leaving: bool,
    /// Whether the crowd's number means another identity from now on.
    pub(crate) new_crowd: bool,
    /// Whether the holder's number means other terms from now on.
    pub(crate) new_holder: bool,
}

/// Crowds by number; numbers are given again.
#[derive(Clone, Debug)]
pub(crate) struct Crowds<T> {
    list: Vec<Option<Crowd<T>>>,
    free: Vec<u32>,
    /// By the number of what they have in common.
    numbers: Table<u64, u32>,
    /// Where to find them: a tag, and the crowd.
    tags: BTreeSet<(u64, u32)>,
}

impl<T> Default for Crowds<T> {
    fn default() -> Self {
        Self { list: Vec::new(), free: Vec::new(), numbers: Table::new(), tags: BTreeSet::new() }
    }
}

/// The tag of crowds that may have to do with any.
const ANY: u64 = u64::MAX;

impl<T> Crowds<T> {
    /// All crowds, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Crowd<T>)> {
        (0_u32..).zip(&self.list).filter_map(|(number, crowd)| Some((number, crowd.as_ref()?)))
    }

    /// A crowd that there is.
    pub(crate) fn get(&self, number: u32) -> Option<&Crowd<T>> {
        self.list.get(number as usize)?.as_ref()
    }

    fn tagged(&self, tag: u64) -> impl Iterator<Item = u32> {
        let range: RangeInclusive<(u64, u32)> = (tag, 0)..=(tag, u32::MAX);
        self.tags.range(range).map(|(_, number)| *number)
    }

    /// The number of a crowd, and whether it is new.
    fn number(&mut self, of: &Arc<Numbered<T>>, tags: impl Iterator<Item = u64>) -> (u32, bool) {
        if let Some(number) = self.numbers.get(&of.id) {
            return (*number, false);
        }
        let crowd = Some(Crowd { of: Arc::clone(of), on: BTreeMap::new() });
        let number = if let Some(number) = self.free.pop() {
            self.list[number as usize] = crowd;
            number
        } else {
            self.list.push(crowd);
            u32::try_from(self.list.len() - 1).expect("fewer crowds than pods")
        };
        self.numbers.insert(of.id, number);
        self.tags.extend(tags.map(|tag| (tag, number)));
        (number, true)
    }

    fn add(&mut self, number: u32, node: u32, leaving: bool) {
        let crowd = self.list[number as usize].as_mut().expect("it was just numbered");
        *crowd.on.entry(node).or_default().of(leaving) += 1;
    }

    /// Counts a pod out; `true` if the crowd is gone with it.
    fn remove(&mut self, number: u32, node: u32, leaving: bool) -> bool {
        let crowd = self.list[number as usize].as_mut().expect("its pods are counted");
        if let Some(heads) = crowd.on.get_mut(&node) {
            *heads.of(leaving) -= 1;
            if *heads == Heads::default() {
                crowd.on.remove(&node);
            }
        }
        crowd.on.is_empty()
    }

    fn forget(&mut self, number: u32, tags: impl Iterator<Item = u64>) {
        for tag in tags {
            self.tags.remove(&(tag, number));
        }
        if let Some(crowd) = self.list[number as usize].take() {
            self.numbers.remove(&crowd.of.id);
            self.free.push(number);
        }
    }
}

/// Which pods are where, and what else decides how pods get on with each other.
#[derive(Clone, Debug, Default)]
pub struct Census {
    crowds: Crowds<Identity>,
    holders: Crowds<Terms>,
    moves: Log<Move>,
    /// Labels of namespaces.
    pub namespaces: Namespaces,
    /// By what pods without constraints spread.
    pub selectors: Selectors,
    pub(crate) domains: Domains,
}

impl Census {
    /// Counts a pod in on one of `nodes` nodes; gives the numbers of its crowds.
    pub(crate) fn add(&mut self, pod: &Presence, node: u32, nodes: usize) -> (u32, u32) {
        let (crowd, new_crowd) = self.crowds.number(&pod.identity, pod.identity.tags());
        self.crowds.add(crowd, node, pod.leaving);
        let (mut holder, mut new_holder) = (NOBODY, false);
        if let Some(terms) = &pod.terms {
            (holder, new_holder) = self.holders.number(terms, handles(terms).into_iter());
            self.holders.add(holder, node, pod.leaving);
        }
        let leaving = pod.leaving;
        let moved = Move { crowd, holder, node, by: 1, leaving, new_crowd, new_holder };
        self.moves.push(moved, nodes);
        (crowd, holder)
    }

    /// Counts a pod out.
    pub(crate) fn remove(&mut self, mut moved: Move, nodes: usize) {
        (moved.by, moved.new_crowd, moved.new_holder) = (-1, false, false);
        if self.crowds.remove(moved.crowd, moved.node, moved.leaving) {
            let identity = self.crowds.get(moved.crowd).map(|crowd| Arc::clone(&crowd.of));
            self.crowds.forget(moved.crowd, identity.iter().flat_map(|identity| identity.tags()));
        }
        if moved.holder != NOBODY && self.holders.remove(moved.holder, moved.node, moved.leaving) {
            let tags = self.holders.get(moved.holder).map(|crowd| handles(&crowd.of));
            self.holders.forget(moved.holder, tags.into_iter().flatten());
        }
        self.moves.push(moved, nodes);
    }

    /// Pods by what selectors see of them.
    pub(crate) const fn crowds(&self) -> &Crowds<Identity> {
        &self.crowds
    }

    /// Pods by their terms.
    pub(crate) const fn holders(&self) -> &Crowds<Terms> {
        &self.holders
    }

    /// Who came and left, in order.
    pub(crate) const fn moves(&self) -> &Log<Move> {
        &self.moves
    }

    /// The crowds among which are all that one of the terms means.
    pub(crate) fn crowds_of_terms<'a>(
        &self,
        terms: impl Iterator<Item = &'a Term>,
    ) -> Option<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for term in terms {
            found.extend(term.handles()?.into_iter().flat_map(|tag| self.crowds.tagged(tag)));
        }
        Some(found)
    }

    /// The crowds among which are all that one of the constraints of a pod of `namespace` counts.
    pub(crate) fn crowds_of_constraints<'a>(
        &self,
        constraints: impl Iterator<Item = &'a Constraint>,
        namespace: &str,
    ) -> BTreeSet<u32> {
        let handles = constraints.map(|c| crate::relations::handle(namespace, &c.selector));
        handles.flat_map(|tag| self.crowds.tagged(tag)).collect()
    }

    /// The holders among which are all that have a term that means such a pod.
    pub(crate) fn holders_for(&self, pod: &Identity) -> BTreeSet<u32> {
        pod.tags().chain([ANY]).flat_map(|tag| self.holders.tagged(tag)).collect()
    }

    /// The constraints of a pod: its own, or those of `defaults` that have a selector then.
    pub(crate) fn constraints(&self, kin: &Kin, defaults: &[Constraint]) -> Vec<Constraint> {
        if !kin.constraints.is_empty() {
            return kin.constraints.clone();
        }
        if defaults.is_empty() {
            return Vec::new();
        }
        let selector = self.selectors.of(kin);
        if selector.is_everything() {
            return Vec::new();
        }
        let with = |c: &Constraint| Constraint { selector: selector.clone(), ..c.clone() };
        defaults.iter().map(with).collect()
    }
}

/// The tags of all pods that the terms mean.
fn handles(terms: &Terms) -> BTreeSet<u64> {
    let of = |term: &Term| term.handles().unwrap_or_else(|| vec![ANY]);
    terms.all().flat_map(of).collect()
}
