//! Which objects a controller owns: adoption of orphans that match its selector, and release of
//! those that stopped matching.

use std::collections::{BTreeMap, BTreeSet};

use api::selector::Selector;
use api::{ApiObject, Key, Object, Request, Subresource, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use machine::{Cache, Delta};

use crate::labels::{Labels, Orphans};
use crate::selectors::{NO_LABELS, Selecting, Selectors};

/// The selector of a workload. One that is empty or malformed matches nothing: the API refuses
/// both, and taking every pod of a namespace would be the worst way to meet one.
pub(crate) fn workload_selector(selector: &LabelSelector) -> Selector {
    match Selector::of_label_selector(selector) {
        Ok(selector) if !selector.is_everything() => selector,
        _ => Selector::nothing(),
    }
}

/// Labels that all that the selector of a workload matches have; `None` when it matches nothing,
/// none of them when it does not ask for certain values.
pub(crate) fn required_labels(selector: &LabelSelector) -> Option<&Labels> {
    match selector.match_labels.as_ref().filter(|labels| !labels.is_empty()) {
        Some(labels) => Some(labels),
        None if selector.match_expressions.as_ref().is_none_or(Vec::is_empty) => None,
        None => Some(&NO_LABELS),
    }
}

/// Whether a change of a dependent can be any business of the owners of a type: one of them is
/// its controller, or it is nobody's and some of its namespace select by labels. Most changes of
/// pods are no business of most types, which is cheaper to see than what has changed.
pub(crate) fn concerns<T: Selecting>(cache: &Cache, delta: &Delta) -> bool {
    let mut may_be_adopted = false;
    for meta in [&delta.old, &delta.new].into_iter().flatten().map(Object::meta) {
        match meta::controller_of(meta) {
            Some(owner) if owner.kind == T::KIND.name() => return true,
            Some(_) => {}
            None => may_be_adopted |= meta.labels.is_some(),
        }
    }
    may_be_adopted && Selectors::<T>::are_in(cache, &delta.key.namespace)
}

/// The owners of a type that a change of a dependent affects: of before, of now, and whoever may
/// adopt an orphan. `selector` gives that of an owner.
pub(crate) fn affected<T: Selecting>(
    cache: &Cache,
    delta: &Delta,
    selector: impl Fn(&T) -> Selector,
) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let namespace = &delta.key.namespace;
    for meta in [&delta.old, &delta.new].into_iter().flatten().map(Object::meta) {
        let owner = meta::controller_of(meta).filter(|o| o.kind == T::KIND.name());
        keys.extend(owner.map(|o| Key::new(T::KIND, namespace, &o.name)));
    }
    let orphan = delta.new.as_ref().map(Object::meta).filter(|m| meta::controller_of(m).is_none());
    // As in Kubernetes, what has no labels is not thought of.
    if let Some(orphan) = orphan.filter(|m| !meta::is_terminating(m) && m.labels.is_some()) {
        let labels = orphan.labels.as_ref();
        for key in Selectors::<T>::find(cache, namespace, labels) {
            let owner = cache.object(key).and_then(Object::get::<T>);
            if owner.is_some_and(|owner| selector(owner).matches(labels)) {
                keys.insert(Key::clone(key));
            }
        }
    }
    keys
}

/// The orphans of a type that have the labels that all that the owner selects have.
pub(crate) fn orphans<'a, D: ApiObject + Send, T: Selecting>(
    cache: &'a Cache,
    owner: &T,
) -> Vec<&'a D> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    match owner.required_labels() {
        None => Vec::new(),
        Some(labels) if labels.is_empty() => cache.list_in(namespace).collect(),
        Some(labels) => Orphans::find(cache, namespace, labels),
    }
}

/// The objects of a type that the owner controls or may adopt, by name.
pub(crate) fn candidates<'a, D: ApiObject + Send, T: Selecting>(
    cache: &'a Cache,
    owner: &T,
) -> impl Iterator<Item = &'a D> + use<'a, D, T> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let by_name: BTreeMap<Option<&str>, &D> = cache
        .owned::<D>(uid)
        .chain(orphans(cache, owner))
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .map(|object| (object.meta().name.as_deref(), object))
        .collect();
    by_name.into_values()
}

/// What a controller does about one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is owned and stays so.
    Keep,
    /// It is an orphan that matches: make it owned.
    Adopt,
    /// It is owned and matches no more: let it go.
    Release,
    /// It is none of the controller's business.
    Ignore,
}

/// Decides about `candidate` for the owner of that metadata.
///
/// Source: kubernetes 1.33, `pkg/controller/controller_ref_manager.go`.
pub(crate) fn claim(owner: &ObjectMeta, selector: &Selector, candidate: &ObjectMeta) -> Claim {
    let matches = selector.matches(candidate.labels.as_ref());
    match meta::controller_of(candidate) {
        Some(reference) if owner.uid.as_ref() != Some(&reference.uid) => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        // The garbage collector decides about what a dying owner leaves behind.
        Some(_) if meta::is_terminating(owner) => Claim::Keep,
        Some(_) => Claim::Release,
        None if !matches || meta::is_terminating(owner) || meta::is_terminating(candidate) => {
            Claim::Ignore
        }
        None => Claim::Adopt,
    }
}

/// The write that makes `reference` the controller of `object`.
pub(crate) fn adopt<T: ApiObject>(object: &T, reference: OwnerReference) -> Request {
    let mut object = object.clone();
    let owners = object.meta_mut().owner_references.get_or_insert_default();
    owners.retain(|o| o.uid != reference.uid);
    owners.push(reference);
    Request::Update { object: object.into_object(), subresource: None }
}

/// The write that removes the owner of that UID from `object`.
pub(crate) fn release<T: ApiObject>(object: &T, owner_uid: &str) -> Request {
    let mut object = object.clone();
    let owners = object.meta_mut().owner_references.get_or_insert_default();
    owners.retain(|o| o.uid != owner_uid);
    if owners.is_empty() {
        object.meta_mut().owner_references = None;
    }
    Request::Update { object: object.into_object(), subresource: None }
}

/// The write of an object's status.
pub(crate) fn update_status<T: ApiObject>(object: T) -> Request {
    Request::Update { object: object.into_object(), subresource: Some(Subresource::Status) }
}

/// The deletion of exactly this object, with the kind's default grace and propagation.
pub(crate) fn delete<T: ApiObject>(object: &T) -> Request {
    let meta = object.meta();
    Request::Delete {
        key: api::Key::new(
            T::KIND,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        uid: meta.uid.clone(),
        revision: None,
        grace_seconds: None,
        propagation: None,
    }
}

#[cfg(test)]
mod tests {
    use api::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn claims() {
        let check = |owner: serde_json::Value, pod: serde_json::Value, expected: Claim| {
            let owner: ObjectMeta = serde_json::from_value(owner).unwrap();
            let pod: ObjectMeta = serde_json::from_value(pod).unwrap();
            let selector = Selector::parse("a=b").unwrap();
            assert_eq!(claim(&owner, &selector, &pod), expected, "{pod:?}");
        };
        let owned = |uid: &str, label: &str| {
            json!({"labels": {"a": label}, "ownerReferences": [{"apiVersion": "apps/v1",
                "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]})
        };
        let alive = json!({"uid": "u"});
        let dying = json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(alive.clone(), owned("u", "b"), Claim::Keep);
        check(alive.clone(), owned("u", "c"), Claim::Release);
        check(dying.clone(), owned("u", "c"), Claim::Keep);
        check(alive.clone(), owned("other", "b"), Claim::Ignore);
        check(alive.clone(), json!({"labels": {"a": "b"}}), Claim::Adopt);
        check(dying, json!({"labels": {"a": "b"}}), Claim::Ignore);
        check(alive.clone(), json!({}), Claim::Ignore);
        let going = json!({"labels": {"a": "b"}, "deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(alive, going, Claim::Ignore);
    }

    #[test]
    fn empty_and_malformed_selectors_match_nothing() {
        let labels = Some(std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert!(!workload_selector(&LabelSelector::default()).matches(labels.as_ref()));
        let odd: LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "?"}]}))
                .unwrap();
        assert!(!workload_selector(&odd).matches(labels.as_ref()));
    }

    #[test]
    fn the_last_owner_leaves_no_empty_list() {
        let mut pod = Pod::default();
        pod.metadata.owner_references =
            Some(vec![OwnerReference { uid: "u".into(), ..OwnerReference::default() }]);
        let Request::Update { object, .. } = release(&pod, "u") else { panic!("an update") };
        assert_eq!(object.meta().owner_references, None);
    }
}
