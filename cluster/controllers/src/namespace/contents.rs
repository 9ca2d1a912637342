//! What of a namespace's contents is being deleted, and what holds it up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Name, Object, meta};
use machine::{Cache, Index};

use super::ORDER;

/// The objects in namespaces that are being deleted or have finalizers: few, but in a namespace
/// that goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    namespaces: BTreeMap<Name, Namespace>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    terminating: BTreeMap<Kind, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Index for Contents {
    fn kinds(&self) -> &'static [Kind] {
        ORDER
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let of_note = |object: &&Object| {
            let meta = object.meta();
            meta::is_terminating(meta) || meta.finalizers.as_ref().is_some_and(|f| !f.is_empty())
        };
        let (old, new) = (old.filter(of_note), new.filter(of_note));
        if old.is_none() && new.is_none() {
            return;
        }
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        if let Some(old) = old {
            if meta::is_terminating(old.meta()) {
                discount(&mut namespace.terminating, &key.kind);
            }
            for finalizer in old.meta().finalizers.iter().flatten() {
                discount(&mut namespace.finalizers, finalizer);
            }
        }
        if let Some(new) = new {
            if meta::is_terminating(new.meta()) {
                *namespace.terminating.entry(key.kind).or_default() += 1;
            }
            for finalizer in new.meta().finalizers.iter().flatten() {
                *namespace.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        if namespace.terminating.is_empty() && namespace.finalizers.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }
}

impl Contents {
    /// How many objects of a kind in the namespace are being deleted.
    pub(super) fn terminating(cache: &Cache, kind: Kind, namespace: &str) -> usize {
        let namespace = cache.index::<Self>().namespaces.get(namespace);
        namespace.and_then(|n| n.terminating.get(&kind)).copied().unwrap_or(0)
    }

    /// The finalizers in the namespace, and how many objects have each.
    pub(super) fn finalizers<'a>(
        cache: &'a Cache,
        namespace: &str,
    ) -> impl Iterator<Item = (&'a str, usize)> {
        let namespace = cache.index::<Self>().namespaces.get(namespace);
        let finalizers = namespace.into_iter().flat_map(|n| &n.finalizers);
        finalizers.map(|(name, count)| (name.as_str(), *count))
    }
}

/// The namespaces that are being deleted: asked for whenever anything changes, and mostly none.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(BTreeSet<Name>);

impl Ending {
    /// Whether a namespace is being deleted.
    pub(super) fn contains(cache: &Cache, namespace: &str) -> bool {
        cache.index::<Self>().0.contains(namespace)
    }
}

impl Index for Ending {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Namespace]
    }

    fn update(&mut self, key: &Arc<Key>, _: Option<&Object>, new: Option<&Object>) {
        if new.is_some_and(|namespace| meta::is_terminating(namespace.meta())) {
            self.0.insert(key.name.clone());
        } else {
            self.0.remove(&key.name);
        }
    }
}

fn discount<K: Ord>(counts: &mut BTreeMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}
