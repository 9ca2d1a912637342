//! Who selects an object of given labels, found without asking every selector.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use api::{ApiObject, Key, Kind, Name, Object};
use machine::{Cache, Index};

use crate::labels::Labels;

/// A kind that selects others by their labels.
pub(crate) trait Selecting: ApiObject + Send {
    /// Labels that all it selects have, with these values; `None` when it selects nothing.
    fn required_labels(&self) -> Option<&Labels>;
}

/// No label is required.
pub(crate) static NO_LABELS: Labels = Labels::new();

/// The selectors of a type, by the labels that they require.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors<T> {
    /// By namespace, the keys of the required labels, and their values joined. Most selectors
    /// ask for the same few keys.
    namespaces: BTreeMap<Name, BTreeMap<Vec<String>, Owners>>,
    of: PhantomData<T>,
}

/// By the values of the required labels.
type Owners = BTreeMap<String, BTreeSet<Arc<Key>>>;

impl<T: Selecting> Index for Selectors<T> {
    fn kinds(&self) -> &'static [Kind] {
        const { &[T::KIND] }
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let old = old.and_then(Object::get::<T>).and_then(Selecting::required_labels);
        let new = new.and_then(Object::get::<T>).and_then(Selecting::required_labels);
        if old == new {
            return;
        }
        if let Some(labels) = old {
            self.remove(key, labels);
        }
        if let Some(labels) = new {
            let keys: Vec<String> = labels.keys().cloned().collect();
            let by_keys = self.namespaces.entry(key.namespace.clone()).or_default();
            let by_values = by_keys.entry(keys).or_default();
            let values = joined(labels.values());
            by_values.entry(values).or_default().insert(key.clone());
        }
    }
}

impl<T: Selecting> Selectors<T> {
    fn remove(&mut self, key: &Arc<Key>, labels: &Labels) {
        let keys: Vec<String> = labels.keys().cloned().collect();
        let values = joined(labels.values());
        let Some(by_keys) = self.namespaces.get_mut(&key.namespace) else { return };
        let Some(by_values) = by_keys.get_mut(&keys) else { return };
        let Some(owners) = by_values.get_mut(&values) else { return };
        owners.remove(key);
        if owners.is_empty() {
            by_values.remove(&values);
        }
        if by_values.is_empty() {
            by_keys.remove(&keys);
        }
        if by_keys.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }

    /// Whether there are any in the namespace.
    pub(crate) fn are_in(cache: &Cache, namespace: &str) -> bool {
        cache.index::<Self>().namespaces.contains_key(namespace)
    }

    /// Those in the namespace whose required labels are all among `labels`.
    pub(crate) fn find<'a>(
        cache: &'a Cache,
        namespace: &str,
        labels: Option<&Labels>,
    ) -> BTreeSet<&'a Arc<Key>> {
        let mut found = BTreeSet::new();
        let labels = labels.unwrap_or(&NO_LABELS);
        for (keys, by_values) in
            cache.index::<Self>().namespaces.get(namespace).into_iter().flatten()
        {
            if keys.iter().all(|key| labels.contains_key(key)) {
                let values = joined(keys.iter().filter_map(|key| labels.get(key)));
                found.extend(by_values.get(&values).into_iter().flatten());
            }
        }
        found
    }
}

/// The values in one text; no value of a label has a zero byte.
fn joined<'a>(values: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::new();
    for value in values {
        text.push_str(value);
        text.push('\0');
    }
    text
}

#[cfg(test)]
mod tests {
    use api::{Revision, Time, codec};
    use k8s_openapi::api::core::v1::Service;
    use machine::WatchEvent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[abc]", "[12]", 0..3)
    }

    proptest! {
        #[test]
        fn who_is_found_is_who_a_search_finds(
            changes in proptest::collection::vec(
                (0..6_u8, proptest::option::of(labels())), 1..40),
            of in labels(),
        ) {
            let index: Box<dyn Index> = Box::<Selectors<Service>>::default();
            let mut cache = Cache::with_indexes([index]);
            for (i, (name, change)) in changes.iter().enumerate() {
                let key = Key::new(Kind::Service, "n", &format!("s{name}"));
                let revision = Revision(u64::try_from(i).unwrap() + 1);
                let event = match change {
                    None => WatchEvent::Deleted { key, revision },
                    Some(selector) => {
                        let value = json!({"metadata": {"name": key.name, "namespace": "n",
                            "resourceVersion": revision.to_string()},
                            "spec": {"selector": selector}});
                        let object = codec::decode_value(Kind::Service, &value).unwrap();
                        WatchEvent::Changed(object)
                    }
                };
                cache.apply(Time(0), event);
            }
            let selects = |service: &&Service| {
                let required = service.required_labels();
                required.is_some_and(|r| r.iter().all(|(l, v)| of.get(l) == Some(v)))
            };
            let expected: Vec<&str> = cache
                .list_in::<Service>("n")
                .filter(selects)
                .filter_map(|s| s.metadata.name.as_deref())
                .collect();
            let found = Selectors::<Service>::find(&cache, "n", Some(&of));
            let found: Vec<&str> = found.into_iter().map(|key| &*key.name).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(Selectors::<Service>::find(&cache, "other", Some(&of)).is_empty());
            let any = cache.list_in::<Service>("n").any(|s| s.required_labels().is_some());
            prop_assert_eq!(Selectors::<Service>::are_in(&cache, "n"), any);
        }
    }
}
