//! How many pods of each budget may be displaced.

use std::collections::{BTreeMap, BTreeSet};

use api::selector::Selector;
use api::{Name, disruption};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::relations::{Identity, Numbered};

/// One budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    selector: Selector,
    /// How many more of its pods may be displaced.
    pub(crate) allowed: i32,
    /// Names of the pods that were granted their eviction: they are counted already.
    pub(crate) disrupted: BTreeSet<String>,
}

/// The budgets by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budgets {
    namespaces: BTreeMap<Name, BTreeMap<Name, Budget>>,
    /// The budgets that pods of an identity count for, by the identity's number; most have none.
    of_identities: BTreeMap<u64, Vec<Name>>,
    epoch: u64,
}

impl Budgets {
    /// Takes a new or changed budget; `true` if it may be about other pods than before.
    pub(super) fn set(&mut self, budget: &PodDisruptionBudget) -> bool {
        let meta = &budget.metadata;
        let mut selector = disruption::selector(budget);
        // Unlike evictions, the scheduler takes the empty selector to select nothing.
        if selector.is_everything() {
            selector = Selector::nothing();
        }
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
        let budget = Budget {
            selector,
            allowed: status.map_or(0, |s| s.disruptions_allowed),
            disrupted: disrupted.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        };
        let namespace = meta.namespace.as_deref().unwrap_or_default().into();
        let name = meta.name.as_deref().unwrap_or_default().into();
        let there = self.namespaces.entry(namespace).or_default();
        let selector = budget.selector.clone();
        there.insert(name, budget).is_none_or(|before| before.selector != selector)
    }

    /// Forgets a budget; `false` if there was none.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let Some(there) = self.namespaces.get_mut(namespace) else { return false };
        let removed = there.remove(name).is_some();
        if there.is_empty() {
            self.namespaces.remove(namespace);
        }
        removed
    }

    /// Finds out anew for which budgets pods count.
    pub(super) fn meet_all<'a>(
        &mut self,
        identities: impl Iterator<Item = &'a Numbered<Identity>>,
    ) {
        self.epoch += 1;
        self.of_identities.clear();
        for identity in identities {
            self.meet(identity);
        }
    }

    /// Finds out for which budgets the pods of an identity count.
    pub(super) fn meet(&mut self, identity: &Numbered<Identity>) {
        let Some(there) = self.of(&identity.namespace) else { return };
        let labels = Some(&identity.labels).filter(|labels| !labels.is_empty());
        let selecting = there.iter().filter(|(_, budget)| budget.selector.matches(labels));
        let names: Vec<Name> = selecting.map(|(name, _)| name.clone()).collect();
        if labels.is_some() && !names.is_empty() {
            self.of_identities.insert(identity.id, names);
        }
    }

    /// Forgets an identity that no pod has any more.
    pub(super) fn forget(&mut self, identity: u64) {
        self.of_identities.remove(&identity);
    }

    /// Names of the budgets of its namespace that pods of an identity count for.
    pub(crate) fn of_identity(&self, identity: u64) -> &[Name] {
        self.of_identities.get(&identity).map(Vec::as_slice).unwrap_or_default()
    }

    /// The budgets of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<&BTreeMap<Name, Budget>> {
        self.namespaces.get(namespace)
    }

    /// How often it has changed which pods count for which budgets.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }
}
