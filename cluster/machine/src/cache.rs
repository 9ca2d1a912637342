//! [`Cache`]: what a component knows of the API's objects, kept current by watches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use api::{ApiObject, Key, Kind, Object, Revision, Time, meta};

use crate::WatchEvent;

/// One change of the cache, after it was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The object that changed.
    pub key: Key,
    /// Its state before; `None` when it is new.
    pub old: Option<Object>,
    /// Its state now; `None` when it is gone.
    pub new: Option<Object>,
}

impl Delta {
    /// The object's present state, or its last one.
    pub fn latest(&self) -> &Object {
        self.new.as_ref().or(self.old.as_ref()).expect("a delta has a state before or after")
    }
}

#[derive(Clone, Debug)]
struct Entry {
    object: Object,
    seen: Time,
}

#[derive(Clone, Debug, Default)]
struct Shelf {
    objects: BTreeMap<(Arc<str>, Arc<str>), Entry>,
    revision: Revision,
    synced: bool,
}

/// The objects of the watched kinds, with indexes by owner and by node.
///
/// Iteration is in the order of namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    shelves: BTreeMap<Kind, Shelf>,
    children: BTreeMap<String, BTreeSet<Key>>,
    pods_of_node: BTreeMap<String, BTreeSet<Key>>,
    tombstones: BTreeMap<String, Revision>,
}

impl Cache {
    /// Whether the first complete list of each kind has arrived.
    pub fn synced(&self, kinds: impl IntoIterator<Item = Kind>) -> bool {
        kinds.into_iter().all(|k| self.shelves.get(&k).is_some_and(|s| s.synced))
    }

    /// How far the watch of `kind` has come.
    pub fn revision(&self, kind: Kind) -> Revision {
        self.shelves.get(&kind).map(|s| s.revision).unwrap_or_default()
    }

    /// The object of that key.
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.entry(key).map(|e| &e.object)
    }

    /// The typed object of that namespace and name.
    pub fn get<T: ApiObject>(&self, namespace: &str, name: &str) -> Option<&T> {
        self.object(&Key::new(T::KIND, namespace, name))?.get()
    }

    /// When this cache last saw the object change, by the clock of this component. Unlike
    /// timestamps in objects it is free of the skew between hosts.
    pub fn seen_at(&self, key: &Key) -> Option<Time> {
        self.entry(key).map(|e| e.seen)
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.shelves.get(&key.kind)?.objects.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All objects of a kind.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.shelves.get(&kind).into_iter().flat_map(|s| s.objects.values().map(|e| &e.object))
    }

    /// All objects of a type.
    pub fn list<T: ApiObject>(&self) -> impl Iterator<Item = &T> {
        self.objects(T::KIND).filter_map(Object::get)
    }

    /// All objects of a kind in a namespace.
    pub fn objects_in<'a>(
        &'a self,
        kind: Kind,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Object> {
        let namespace: Arc<str> = namespace.into();
        let start = (namespace.clone(), Arc::from(""));
        self.shelves
            .get(&kind)
            .into_iter()
            .flat_map(move |s| s.objects.range((Bound::Included(start.clone()), Bound::Unbounded)))
            .take_while(move |((ns, _), _)| *ns == namespace)
            .map(|(_, e)| &e.object)
    }

    /// All objects of a type in a namespace.
    pub fn list_in<'a, T: ApiObject>(&'a self, namespace: &str) -> impl Iterator<Item = &'a T> {
        self.objects_in(T::KIND, namespace).filter_map(Object::get)
    }

    /// Objects of a type that name `uid` among their owners.
    pub fn owned<'a, T: ApiObject>(&'a self, uid: &str) -> impl Iterator<Item = &'a T> {
        self.owned_objects(uid).filter_map(Object::get)
    }

    /// Objects of any kind that name `uid` among their owners.
    pub fn owned_objects<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Object> {
        self.children.get(uid).into_iter().flatten().filter_map(|key| self.object(key))
    }

    /// Pods bound to a node.
    pub fn pods_of_node<'a>(
        &'a self,
        node: &str,
    ) -> impl Iterator<Item = &'a k8s_openapi::api::core::v1::Pod> {
        self.pods_of_node.get(node).into_iter().flatten().filter_map(|key| self.object(key)?.get())
    }

    /// The revision at which this cache last saw a child of `uid` disappear; zero if never.
    /// It moves on with each loss, so names derived from it do not come back.
    pub fn tombstone(&self, uid: &str) -> Revision {
        self.tombstones.get(uid).copied().unwrap_or_default()
    }

    /// Applies news of a watch at `now` and returns what changed. Old news changes nothing.
    pub fn apply(&mut self, now: Time, event: WatchEvent) -> Vec<Delta> {
        match event {
            WatchEvent::Changed(object) => {
                self.advance(object.kind(), object.revision());
                self.put(now, object).into_iter().collect()
            }
            WatchEvent::Deleted { key, revision } => {
                self.advance(key.kind, revision);
                let newer = self.object(&key).is_some_and(|o| o.revision() > revision);
                if newer { Vec::new() } else { self.remove(&key, revision).into_iter().collect() }
            }
            WatchEvent::Replaced { kind, objects, revision } => {
                self.replace(now, kind, objects, revision)
            }
            WatchEvent::Progress { kind, revision } => {
                self.advance(kind, revision);
                Vec::new()
            }
        }
    }

    fn advance(&mut self, kind: Kind, revision: Revision) {
        let shelf = self.shelves.entry(kind).or_default();
        shelf.revision = shelf.revision.max(revision);
    }

    fn replace(
        &mut self,
        now: Time,
        kind: Kind,
        objects: Vec<Object>,
        revision: Revision,
    ) -> Vec<Delta> {
        let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let gone: Vec<Key> = self
            .objects(kind)
            .map(Object::key)
            .filter(|key| !listed.contains(key))
            // A stale list must not undo what the watch has already delivered.
            .filter(|key| self.object(key).is_some_and(|o| o.revision() <= revision))
            .collect();
        let mut deltas: Vec<Delta> =
            gone.iter().filter_map(|key| self.remove(key, revision)).collect();
        deltas.extend(objects.into_iter().filter_map(|object| self.put(now, object)));
        self.advance(kind, revision);
        self.shelves.entry(kind).or_default().synced = true;
        deltas
    }

    fn put(&mut self, now: Time, object: Object) -> Option<Delta> {
        let key = object.key();
        let old = self.object(&key).cloned();
        if old.as_ref().is_some_and(|o| o.revision() >= object.revision()) {
            return None;
        }
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        self.index(&key, &object);
        let shelf = self.shelves.entry(key.kind).or_default();
        shelf.objects.insert(
            (key.namespace.clone(), key.name.clone()),
            Entry { object: object.clone(), seen: now },
        );
        Some(Delta { key, old, new: Some(object) })
    }

    fn remove(&mut self, key: &Key, revision: Revision) -> Option<Delta> {
        let shelf = self.shelves.get_mut(&key.kind)?;
        let old = shelf.objects.remove(&(key.namespace.clone(), key.name.clone()))?.object;
        self.unindex(key, &old);
        if let Some(owner) = meta::controller_of(old.meta()) {
            let tombstone = self.tombstones.entry(owner.uid.clone()).or_default();
            *tombstone = revision.max(*tombstone);
        }
        // The tombstone of an owner is of no use once the owner itself is gone.
        self.tombstones.remove(old.uid());
        Some(Delta { key: key.clone(), old: Some(old), new: None })
    }

    fn index(&mut self, key: &Key, object: &Object) {
        for owner in object.meta().owner_references.iter().flatten() {
            self.children.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if let Some(node) = node_of(object) {
            self.pods_of_node.entry(node.to_owned()).or_default().insert(key.clone());
        }
    }

    fn unindex(&mut self, key: &Key, object: &Object) {
        for owner in object.meta().owner_references.iter().flatten() {
            discard(&mut self.children, &owner.uid, key);
        }
        if let Some(node) = node_of(object) {
            discard(&mut self.pods_of_node, node, key);
        }
    }
}

fn node_of(object: &Object) -> Option<&str> {
    match object {
        Object::Pod(pod) => pod.spec.as_ref()?.node_name.as_deref(),
        _ => None,
    }
}

fn discard(index: &mut BTreeMap<String, BTreeSet<Key>>, name: &str, key: &Key) {
    if let Some(set) = index.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            index.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::codec;

    use super::*;

    fn pod(name: &str, revision: u64, node: &str, owner: &str) -> Object {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"d",
            "resourceVersion":"{revision}","uid":"u-{name}","ownerReferences":[{{"uid":"{owner}",
            "name":"o","kind":"ReplicaSet","apiVersion":"apps/v1","controller":true}}]}},
            "spec":{{"nodeName":"{node}","containers":[]}}}}"#
        );
        codec::decode_any(json.as_bytes()).unwrap()
    }

    #[test]
    fn indexes_follow_changes_and_old_news_is_ignored() {
        let mut cache = Cache::default();
        let names = |cache: &Cache, node: &str| {
            cache.pods_of_node(node).map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        let replaced = WatchEvent::Replaced {
            kind: Kind::Pod,
            objects: vec![pod("a", 3, "n1", "o1"), pod("b", 4, "n1", "o1")],
            revision: Revision(5),
        };
        assert_eq!(cache.apply(Time(1), replaced).len(), 2);
        assert!(cache.synced([Kind::Pod]) && !cache.synced([Kind::Node]));
        assert_eq!(names(&cache, "n1"), ["a", "b"]);
        assert_eq!(cache.owned::<k8s_openapi::api::core::v1::Pod>("o1").count(), 2);

        assert!(cache.apply(Time(2), WatchEvent::Changed(pod("a", 2, "n2", "o1"))).is_empty());
        assert_eq!(cache.apply(Time(3), WatchEvent::Changed(pod("a", 6, "n2", "o2"))).len(), 1);
        assert_eq!(
            (names(&cache, "n1"), names(&cache, "n2")),
            (vec!["b".into()], vec!["a".into()])
        );
        assert_eq!(cache.seen_at(&Key::new(Kind::Pod, "d", "a")), Some(Time(3)));

        let key = Key::new(Kind::Pod, "d", "a");
        let late = WatchEvent::Deleted { key: key.clone(), revision: Revision(5) };
        assert!(cache.apply(Time(4), late).is_empty());
        let delta = cache.apply(Time(5), WatchEvent::Deleted { key, revision: Revision(7) });
        assert!(delta[0].new.is_none());
        assert_eq!(cache.tombstone("o2"), Revision(7));
        assert_eq!(cache.revision(Kind::Pod), Revision(7));

        let empty =
            WatchEvent::Replaced { kind: Kind::Pod, objects: vec![], revision: Revision(9) };
        assert_eq!(cache.apply(Time(6), empty).len(), 1);
        assert_eq!(names(&cache, "n1"), Vec::<String>::new());
    }
}
