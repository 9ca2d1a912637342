//! [`Prices`]: what it costs to clear each node for pods of a class that no other pod keeps from a
//! node, kept from decision to decision.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use crate::cycle::Question;
use crate::preemption::{self, Preemption, Price};
use crate::profile::Profile;
use crate::snapshot::{Change, Snapshot};
use crate::survey::Survey;

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// Nothing: it was never looked at, or has changed since.
    Nothing,
    /// It has pods of which the budgets change without it: it is looked at each time.
    Budgeted,
    /// It can be cleared at this price.
    Price(Price),
    /// It cannot, for the reasons of this number.
    Refusal(u32),
}

/// The prices of all nodes for the pods of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct Prices {
    /// By node.
    known: Vec<Known>,
    refusals: Vec<Vec<String>>,
    refusal_ids: BTreeMap<Vec<String>, u32>,
    /// The changes that this has caught up with.
    seen: u64,
    restandings_seen: u64,
    /// Which pods count for which budgets, as of this.
    budgets: u64,
}

impl Prices {
    /// How many nodes it holds.
    pub(super) const fn len(&self) -> usize {
        self.known.len()
    }

    /// Catches up with the snapshot.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.known.resize(snapshot.rows(), Known::Nothing);
        let (changes, restandings) = (snapshot.changes(), snapshot.restandings());
        let news = changes.since(self.seen).zip(restandings.since(self.restandings_seen));
        match news.filter(|_| self.budgets == snapshot.budgets().epoch()) {
            Some((changes, restandings)) => {
                let changed = changes.iter().map(|Change { node, .. }| node);
                for node in changed.chain(restandings) {
                    self.known[*node as usize] = Known::Nothing;
                }
            }
            None => self.known.fill(Known::Nothing),
        }
        self.seen = changes.count();
        self.restandings_seen = restandings.count();
        self.budgets = snapshot.budgets().epoch();
        // Names of resources are in reasons: there may come ever new ones.
        if self.refusals.len() > self.known.len() {
            self.known.fill(Known::Nothing);
            self.refusals.clear();
            self.refusal_ids.clear();
        }
    }

    /// As [`preemption::preempt`].
    pub(super) fn preempt(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        pod: Question,
        potential: &[u32],
        rng: &mut ChaCha8Rng,
    ) -> Preemption {
        // No other pod keeps it from a node, whoever is there.
        let mut survey = Survey::of_nobody(&profile.relating, snapshot, pod);
        let survey = &mut survey;
        let candidates = match preemption::begin(profile, snapshot, pod, survey, potential.len()) {
            Ok(candidates) => candidates,
            Err(preemption) => return preemption,
        };
        // The pod does not stand in its own way there, but it does in that of others.
        let own = snapshot.nominated_node(pod.key);
        let mut refused = Vec::new();
        let best = preemption::select(potential, candidates, rng, |node| {
            match self.price(profile, snapshot, pod, survey, node, own == Some(node)) {
                Ok(price) => Some(price),
                Err(refusal) => {
                    let refusal = refusal as usize;
                    if refused.len() <= refusal {
                        refused.resize(refusal + 1, 0);
                    }
                    refused[refusal] += 1;
                    None
                }
            }
        });
        let mut reasons = BTreeMap::new();
        for (why, nodes) in self.refusals.iter().zip(refused) {
            preemption::count(&mut reasons, why.clone(), nodes);
        }
        preemption::end(profile, snapshot, pod, survey, best, reasons, potential.len())
    }

    /// The price of a node, or the number of the reasons why it has none.
    fn price(
        &mut self,
        profile: &Profile,
        snapshot: &Snapshot,
        pod: Question,
        survey: &mut Survey,
        node: u32,
        own: bool,
    ) -> Result<Price, u32> {
        match self.known[node as usize] {
            Known::Price(price) if !own => return Ok(price),
            Known::Refusal(refusal) if !own => return Err(refusal),
            _ => {}
        }
        let (result, known) = match preemption::try_node(profile, snapshot, pod, survey, node) {
            Ok(cleared) => {
                let price = cleared.price();
                let budgeted = cleared.budgeted;
                (Ok(price), if budgeted { Known::Budgeted } else { Known::Price(price) })
            }
            Err(reasons) => {
                let refusal = self.refusal(reasons);
                (Err(refusal), Known::Refusal(refusal))
            }
        };
        self.known[node as usize] = if own { Known::Nothing } else { known };
        result
    }

    fn refusal(&mut self, reasons: Vec<String>) -> u32 {
        if let Some(id) = self.refusal_ids.get(&reasons) {
            return *id;
        }
        let id = u32::try_from(self.refusals.len()).expect("fewer refusals than nodes");
        self.refusals.push(reasons.clone());
        self.refusal_ids.insert(reasons, id);
        id
    }
}
