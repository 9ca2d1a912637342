//! Room that quotas have again: who could make less than it should tries at once.
//!
//! Whoever is refused something waits longer with each attempt, up to some minutes. In a namespace
//! that is full a rollout would wait so long for each of its pods: the end of one makes room for the
//! next, but nothing that its controller looks at changes when the quota is counted anew. Kubernetes
//! 1.33 does wait, so that this is no copy.

use api::quota::Amounts;
use api::{ApiObject, Key, Kind, Object};
use k8s_openapi::api::core::v1::ResourceQuota;
use machine::{Cache, Delta};

/// What such a controller hears of.
pub(crate) const KINDS: &[Kind] = &[Kind::ResourceQuota];

/// The objects that are short of something and may get it now, if the change is one of a quota.
pub(crate) fn affected<T: ApiObject>(
    cache: &Cache,
    delta: &Delta,
    is_short: impl Fn(&T) -> bool,
) -> Option<Vec<Key>> {
    if delta.key.kind != Kind::ResourceQuota {
        return None;
    }
    if !has_more_room(delta) {
        return Some(Vec::new());
    }
    let short = cache.objects_in(T::KIND, &delta.key.namespace);
    let short = short.filter(|object| object.get::<T>().is_some_and(&is_short));
    Some(short.map(Object::key).collect())
}

/// Whether the quota allows more of something than before, or less is used of it.
fn has_more_room(delta: &Delta) -> bool {
    let quota = |object: &Option<Object>| object.as_ref().and_then(Object::share::<ResourceQuota>);
    let Some(old) = quota(&delta.old) else { return false };
    let Some(new) = quota(&delta.new) else { return true };
    let hard = |quota: &ResourceQuota| {
        Amounts::of_list(quota.status.as_ref().and_then(|s| s.hard.as_ref()))
    };
    let used = |quota: &ResourceQuota| {
        Amounts::of_list(quota.status.as_ref().and_then(|s| s.used.as_ref()))
    };
    let (before, after) = (hard(&old), hard(&new));
    after.beyond(&before).next().is_some()
        || before.names().any(|name| after.get(name).is_none())
        || used(&old).beyond(&used(&new)).next().is_some()
}

#[cfg(test)]
mod tests {
    use api::codec;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::{Value, json};

    use super::*;

    fn object(value: &Value) -> Object {
        codec::decode_any(&serde_json::to_vec(value).unwrap()).unwrap()
    }

    fn quota(hard: &Value, used: &Value) -> Object {
        object(&json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "n", "resourceVersion": "7"},
            "status": {"hard": hard, "used": used}}))
    }

    #[test]
    fn more_room_is_noticed() {
        let before = quota(&json!({"pods": "2", "cpu": "1"}), &json!({"pods": "2", "cpu": "900m"}));
        for (hard, used, expected) in [
            (json!({"pods": "2", "cpu": "1"}), json!({"pods": "2", "cpu": "900m"}), false),
            (json!({"pods": "1", "cpu": "1"}), json!({"pods": "3", "cpu": "1"}), false),
            (json!({"pods": "3", "cpu": "1"}), json!({"pods": "2", "cpu": "900m"}), true),
            (json!({"pods": "2", "cpu": "1"}), json!({"pods": "2", "cpu": "800m"}), true),
            (json!({"pods": "2"}), json!({"pods": "2"}), true),
        ] {
            let key = before.key();
            let delta = Delta { key, old: Some(before.clone()), new: Some(quota(&hard, &used)) };
            assert_eq!(has_more_room(&delta), expected, "{hard} {used}");
        }
        let delta = |old, new| Delta { key: before.key(), old, new };
        assert!(has_more_room(&delta(Some(before.clone()), None)));
        assert!(!has_more_room(&delta(None, Some(before.clone()))));
    }

    #[test]
    fn who_is_short_in_that_namespace_is_told() {
        let mut cache = Cache::default();
        for (namespace, name, replicas) in [("n", "a", 1), ("n", "b", 2), ("m", "c", 2)] {
            let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": name, "namespace": namespace, "resourceVersion": "5"},
                "spec": {"replicas": replicas, "selector": {}}});
            let event = machine::WatchEvent::Changed(object(&set));
            cache.apply(crate::fixture::START, event);
        }
        let is_short = |set: &ReplicaSet| set.spec.as_ref().unwrap().replicas == Some(2);
        let old = quota(&json!({"pods": "2"}), &json!({"pods": "2"}));
        let new = quota(&json!({"pods": "2"}), &json!({"pods": "1"}));
        let delta = |old: &Object, new: &Object| {
            let (old, new) = (Some(old.clone()), Some(new.clone()));
            Delta { key: new.as_ref().unwrap().key(), old, new }
        };
        let told = affected(&cache, &delta(&old, &new), is_short);
        assert_eq!(told, Some(vec![Key::new(Kind::ReplicaSet, "n", "b")]));
        assert_eq!(affected(&cache, &delta(&new, &old), is_short), Some(Vec::new()));
        let set = cache.object(&Key::new(Kind::ReplicaSet, "n", "b")).unwrap();
        assert_eq!(affected(&cache, &delta(set, set), is_short), None);
    }
}
