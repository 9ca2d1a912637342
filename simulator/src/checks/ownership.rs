//! Owners and what they own: P40.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, schedules};

/// The owner goes after all that blocks its deletion.
const FOREGROUND: &str = "foregroundDeletion";

fn waits_for_dependents(object: &Object) -> bool {
    let meta = object.meta();
    oracle::is_going(meta) && meta.finalizers.iter().flatten().any(|f| f == FOREGROUND)
}

/// Kinds that come and go by the clock, or that nobody collects.
const fn is_judged(kind: Kind) -> bool {
    !matches!(kind, Kind::Lease | Kind::Event)
}

/// The object that a reference means, if it is there: with that UID.
fn owner<'a>(
    cluster: &'a dyn Cluster,
    owned: &Key,
    reference: &OwnerReference,
) -> Option<&'a Object> {
    let kind = Kind::of_manifest(&reference.api_version, &reference.kind)?;
    let namespace = if kind.namespaced() { &*owned.namespace } else { "" };
    let key = Key::new(kind, namespace, &reference.name);
    cluster.object(&key).filter(|o| o.uid() == reference.uid)
}

fn references(object: &Object) -> impl Iterator<Item = &OwnerReference> {
    object.meta().owner_references.iter().flatten()
}

/// P40: what has an owner is not collected, what has lost all is, and owners wait for what they
/// promised to wait for.
#[derive(Clone, Default)]
pub(super) struct Collected {
    owned: BTreeMap<String, BTreeSet<Key>>,
}

impl Collected {
    fn index(&mut self, key: &Key, old: Option<&Object>, new: Option<&Object>) {
        let uids = |o: Option<&Object>| -> Vec<String> {
            o.into_iter().flat_map(references).map(|r| r.uid.clone()).collect()
        };
        let (before, after) = (uids(old), uids(new));
        if before == after {
            return;
        }
        for uid in before {
            if let Some(keys) = self.owned.get_mut(&uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(&uid);
                }
            }
        }
        for uid in after {
            self.owned.entry(uid).or_default().insert(key.clone());
        }
    }

    /// A dependent that the owner should have waited for.
    fn left_behind(&self, cluster: &dyn Cluster, owner: &Object) -> Option<&Key> {
        let uid = owner.uid();
        self.owned.get(uid)?.iter().find(|key| {
            cluster.object(key).is_some_and(|o| {
                references(o).any(|r| r.uid == uid && r.block_owner_deletion == Some(true))
            })
        })
    }
}

impl Check for Collected {
    fn property(&self) -> &'static str {
        "P40"
    }

    fn statement(&self) -> &'static str {
        "what has an owner is not collected, what has lost all is, and nothing hangs"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let Occurrence::Committed { by, key, old, new, request, .. } = occurrence else { return };
        self.index(key, *old, *new);
        let Some(old) = old else { return };
        // Only the garbage collector says what is to become of dependents, and who deletes jobs:
        // those that a cron job keeps no longer, at no certain revision, and those that have
        // finished when their time has come.
        let in_time = old.get().and_then(schedules::expires_at).is_some();
        let says = |request: &Request| {
            matches!(request, Request::Delete { propagation: Some(_), revision, .. }
                if revision.is_some() || key.kind != Kind::Job)
        };
        let collects = says(request)
            && !in_time
            && by.is_some_and(|by| cluster.role(by) == Role::ControllerManager);
        if collects && !oracle::is_going(old.meta()) {
            let alive = references(old)
                .filter_map(|r| owner(cluster, key, r))
                .find(|owner| !waits_for_dependents(owner));
            if let Some(alive) = alive {
                found.push(format!("{key} was collected although its owner {} lives", alive.key()));
            }
        }
        if waits_for_dependents(old)
            && !new.is_some_and(waits_for_dependents)
            && let Some(left) = self.left_behind(cluster, old)
        {
            found.push(format!("{key} went before {left}, for which it was to wait"));
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for kind in Kind::stored().filter(|k| is_judged(*k)) {
            for object in cluster.objects(kind) {
                let key = object.key();
                if oracle::is_going(object.meta()) {
                    let held = object.meta().finalizers.clone().unwrap_or_default();
                    let held = oracle::some_of(held);
                    found.push(format!(
                        "{key} is still being deleted at rest; it is held by {held}"
                    ));
                }
                let mut owners = references(object).peekable();
                let known = |r: &OwnerReference| {
                    Kind::of_manifest(&r.api_version, &r.kind).is_some_and(|k| k.info().stored)
                };
                if owners.peek().is_some()
                    && owners.all(|r| known(r) && owner(cluster, &key, r).is_none())
                {
                    found.push(format!("{key} has lost all its owners and is there at rest"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
