//! How many pods of each budget may be displaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::selector::Selector;
use api::{Name, disruption};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

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
    /// Lists of names that pods count for: many pods have the same.
    lists: BTreeSet<Arc<[Name]>>,
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
        let changed = there.insert(name, budget).is_none_or(|before| before.selector != selector);
        if changed {
            // What no pod has any more need not be kept.
            self.lists.retain(|list| Arc::strong_count(list) > 1);
        }
        changed
    }

    /// Forgets a budget; `false` if there was none.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let Some(there) = self.namespaces.get_mut(namespace) else { return false };
        let removed = there.remove(name).is_some();
        if there.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        removed
    }

    /// The budgets of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<&BTreeMap<Name, Budget>> {
        self.namespaces.get(namespace)
    }

    /// Names of the budgets that a pod of those labels counts for.
    pub(super) fn list(
        &mut self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<Arc<[Name]>> {
        let labels = labels.filter(|labels| !labels.is_empty())?;
        let budgets = self.namespaces.get(namespace)?.iter();
        let list: Vec<Name> = budgets
            .filter(|(_, budget)| budget.selector.matches(Some(labels)))
            .map(|(name, _)| name.clone())
            .collect();
        if list.is_empty() {
            return None;
        }
        if let Some(known) = self.lists.get(list.as_slice()) {
            return Some(Arc::clone(known));
        }
        let list: Arc<[Name]> = list.into();
        self.lists.insert(Arc::clone(&list));
        Some(list)
    }
}
