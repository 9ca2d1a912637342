//! Objects by their labels, for whoever selects them.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use api::{ApiObject, Key, Kind, Name, Object, meta};
use machine::{Cache, Index};

/// The labels of one object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The labelled objects of a type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labelled<T> {
    groups: Groups,
    of: PhantomData<T>,
}

impl<T: ApiObject + Send> Index for Labelled<T> {
    fn kinds(&self) -> &'static [Kind] {
        const { &[T::KIND] }
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        self.groups.change(key, old.and_then(labels_of), new.and_then(labels_of));
    }
}

impl<T: ApiObject + Send> Labelled<T> {
    /// Those in the namespace that have all of `wanted`, at least one label, by name.
    pub(crate) fn find<'a>(cache: &'a Cache, namespace: &str, wanted: &Labels) -> Vec<&'a T> {
        cache.index::<Self>().groups.find(cache, namespace, wanted)
    }
}

/// The labelled objects of a type that no controller owns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orphans<T> {
    groups: Groups,
    of: PhantomData<T>,
}

impl<T: ApiObject + Send> Index for Orphans<T> {
    fn kinds(&self) -> &'static [Kind] {
        const { &[T::KIND] }
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let orphaned = |object: &&Object| meta::controller_of(object.meta()).is_none();
        let (old, new) = (old.filter(orphaned), new.filter(orphaned));
        self.groups.change(key, old.and_then(labels_of), new.and_then(labels_of));
    }
}

impl<T: ApiObject + Send> Orphans<T> {
    /// Those in the namespace that have all of `wanted`, at least one label, by name.
    pub(crate) fn find<'a>(cache: &'a Cache, namespace: &str, wanted: &Labels) -> Vec<&'a T> {
        cache.index::<Self>().groups.find(cache, namespace, wanted)
    }
}

fn labels_of(object: &Object) -> Option<&Labels> {
    object.meta().labels.as_ref().filter(|labels| !labels.is_empty())
}

/// Keys by namespace and labels. Most objects share all their labels with others, so an object
/// costs one entry, however many labels it has.
#[derive(Clone, Debug, Default)]
struct Groups {
    namespaces: BTreeMap<Name, Namespace>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    groups: BTreeMap<Arc<Labels>, BTreeSet<Arc<Key>>>,
    /// Which groups have a label, by its key and value.
    with_label: BTreeMap<String, BTreeMap<String, BTreeSet<Arc<Labels>>>>,
}

impl Groups {
    fn change(&mut self, key: &Arc<Key>, old: Option<&Labels>, new: Option<&Labels>) {
        if old == new {
            return;
        }
        if let Some(labels) = old {
            self.remove(key, labels);
        }
        if let Some(labels) = new {
            self.insert(key, labels);
        }
    }

    fn insert(&mut self, key: &Arc<Key>, labels: &Labels) {
        let namespace = match self.namespaces.get_mut(&key.namespace) {
            Some(namespace) => namespace,
            None => self.namespaces.entry(key.namespace.clone()).or_default(),
        };
        if let Some(group) = namespace.groups.get_mut(labels) {
            group.insert(key.clone());
            return;
        }
        let shared = Arc::new(labels.clone());
        for (label, value) in labels {
            let values = namespace.with_label.entry(label.clone()).or_default();
            values.entry(value.clone()).or_default().insert(shared.clone());
        }
        namespace.groups.insert(shared, BTreeSet::from([key.clone()]));
    }

    fn remove(&mut self, key: &Arc<Key>, labels: &Labels) {
        let Some(namespace) = self.namespaces.get_mut(&key.namespace) else { return };
        let Some(group) = namespace.groups.get_mut(labels) else { return };
        group.remove(key);
        if !group.is_empty() {
            return;
        }
        namespace.groups.remove(labels);
        for (label, value) in labels {
            let Some(values) = namespace.with_label.get_mut(label) else { continue };
            let Some(groups) = values.get_mut(value) else { continue };
            groups.remove(labels);
            if groups.is_empty() {
                values.remove(value);
            }
            if values.is_empty() {
                namespace.with_label.remove(label);
            }
        }
        if namespace.groups.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }

    fn find<'a, T: ApiObject>(
        &'a self,
        cache: &'a Cache,
        namespace: &str,
        wanted: &Labels,
    ) -> Vec<&'a T> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        let with = |(label, value)| namespace.with_label.get(label)?.get::<String>(value);
        // The rarest label leaves the fewest groups to look at.
        let Some(fewest) = wanted.iter().map(with).min_by_key(|g| g.map_or(0, BTreeSet::len))
        else {
            return Vec::new();
        };
        let fits = |group: &&Arc<Labels>| wanted.iter().all(|(l, v)| group.get(l) == Some(v));
        let groups: Vec<&Arc<Labels>> = fewest.into_iter().flatten().filter(fits).collect();
        let mut keys: Vec<&Arc<Key>> =
            groups.iter().filter_map(|g| namespace.groups.get(*g)).flatten().collect();
        if groups.len() > 1 {
            keys.sort_unstable();
        }
        keys.into_iter().filter_map(|key| cache.object(key)?.get()).collect()
    }
}

#[cfg(test)]
mod tests {
    use api::Pod;
    use api::{Revision, Time, codec};
    use machine::WatchEvent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(name: u8, revision: usize, labels: &Labels, owned: bool) -> Object {
        let mut value = json!({"metadata": {"name": format!("p{name}"), "labels": labels,
            "namespace": format!("n{}", name % 2), "resourceVersion": revision.to_string()},
            "spec": {"containers": []}});
        if owned {
            value["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "X",
                "name": "x", "uid": "x", "controller": true}]);
        }
        codec::decode_value(Kind::Pod, &value).unwrap()
    }

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[ab]", "[12]", 0..3)
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_search_finds(
            changes in proptest::collection::vec(
                (0..6_u8, proptest::option::of((labels(), any::<bool>()))), 1..40),
            wanted in labels(),
        ) {
            let indexes: [Box<dyn Index>; 2] =
                [Box::<Labelled<Pod>>::default(), Box::<Orphans<Pod>>::default()];
            let mut cache = Cache::with_indexes(indexes);
            for (i, (name, change)) in changes.iter().enumerate() {
                let object = |(labels, owned): &(Labels, bool)| pod(*name, i + 1, labels, *owned);
                let key = Key::new(Kind::Pod, &format!("n{}", name % 2), &format!("p{name}"));
                let revision = Revision(u64::try_from(i).unwrap() + 1);
                let event = match change {
                    Some(state) => WatchEvent::Changed(object(state)),
                    None => WatchEvent::Deleted { key, revision },
                };
                cache.apply(Time(0), event);
            }
            for namespace in ["n0", "n1", "n2"] {
                let fits = |p: &&Pod| {
                    let labels = p.metadata.labels.clone().unwrap_or_default();
                    !wanted.is_empty() && wanted.iter().all(|(l, v)| labels.get(l) == Some(v))
                };
                let all: Vec<&Pod> = cache.list_in(namespace).filter(fits).collect();
                prop_assert_eq!(&Labelled::<Pod>::find(&cache, namespace, &wanted), &all);
                let orphans: Vec<&Pod> = all
                    .into_iter()
                    .filter(|p| p.metadata.owner_references.is_none())
                    .collect();
                prop_assert_eq!(Orphans::<Pod>::find(&cache, namespace, &wanted), orphans);
            }
        }
    }
}
