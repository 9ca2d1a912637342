//! [`Cache`]: what a component knows of the API's objects, kept current by watches.

use std::any::{Any, TypeId};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api::key::order;
use api::{ApiObject, Key, Kind, Ledger, Name, Object, Pod, Revision, Table, Time, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::{Index, WatchEvent};

/// One change of the cache, after it was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The object that changed.
    pub key: Key,
    /// Its state before; `None` when it is new.
    pub old: Option<Object>,
    /// Its state now; `None` when it is gone. When it merely began or ceased to be renewed
    /// without each renewal being told, this is the state before.
    pub new: Option<Object>,
}

impl Delta {
    /// The object's present state, or its last one.
    pub fn latest(&self) -> &Object {
        self.new.as_ref().or(self.old.as_ref()).expect("a delta has a state before or after")
    }
}

/// A key among those of one kind and namespace, shared with all indexes.
#[derive(Clone, Debug)]
struct Named(Arc<Key>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0.name).hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0.name, &other.0.name)
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    key: Arc<Key>,
    object: Object,
    seen: Time,
}

/// The objects of one kind.
#[derive(Clone, Debug, Default)]
struct Shelf {
    /// By namespace and name.
    namespaces: BTreeMap<Name, Ledger<Named, Entry>>,
    /// Objects that are renewed without each renewal being told, since which revision.
    renewing: BTreeMap<Arc<Key>, Revision>,
    revision: Revision,
    /// When an object was last seen to go.
    lost: Revision,
    synced: bool,
}

impl Shelf {
    fn entry(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.namespaces.get(namespace)?.get(name)
    }

    fn entry_mut(&mut self, namespace: &str, name: &str) -> Option<&mut Entry> {
        self.namespaces.get_mut(namespace)?.get_mut(name)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.namespaces.values().flat_map(Ledger::values)
    }

    /// Adds an object that is not there.
    fn insert(&mut self, now: Time, object: Object) -> Arc<Key> {
        let (namespace, name) = names(&object);
        let known = self.namespaces.get_key_value(namespace).map(|(known, _)| known.clone());
        let key = Arc::new(Key {
            kind: object.kind(),
            namespace: known.unwrap_or_else(|| namespace.into()),
            name: name.into(),
        });
        let entry = Entry { key: key.clone(), object, seen: now };
        let room = self.namespaces.entry(key.namespace.clone()).or_default();
        room.insert(Named(key.clone()), entry);
        key
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let names = self.namespaces.get_mut(&key.namespace)?;
        let entry = names.remove(&*key.name)?;
        if names.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        if !self.renewing.is_empty() {
            self.renewing.remove(key);
        }
        Some(entry)
    }
}

/// The objects of the watched kinds; made by [`Cache::with_indexes`] with indexes by owner and by
/// node, and those that its readers ask for.
///
/// Iteration is in the order of namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    shelves: BTreeMap<Kind, Shelf>,
    /// Whether there are indexes by owner and by node.
    related: bool,
    children: BTreeMap<String, BTreeSet<Arc<Key>>>,
    /// In no order: many come and go for each time that they are asked for.
    pods_of_node: Table<Name, Vec<Arc<Key>>>,
    tombstones: BTreeMap<String, Revision>,
    /// With their types.
    indexes: Vec<(TypeId, Box<dyn Index>)>,
    /// Positions in `indexes`.
    indexes_of: BTreeMap<Kind, Vec<usize>>,
}

impl Cache {
    /// An empty cache with indexes by owner and by node, and these, each type of index once.
    pub fn with_indexes(indexes: impl IntoIterator<Item = Box<dyn Index>>) -> Self {
        let mut cache = Self { related: true, ..Self::default() };
        for index in indexes {
            let any: &dyn Any = &*index;
            let id = any.type_id();
            if cache.indexes.iter().all(|(known, _)| *known != id) {
                for kind in index.kinds() {
                    cache.indexes_of.entry(*kind).or_default().push(cache.indexes.len());
                }
                cache.indexes.push((id, index));
            }
        }
        cache
    }

    /// The index of that type.
    ///
    /// # Panics
    /// The cache was made without it.
    pub fn index<T: Index>(&self) -> &T {
        let found = self.indexes.iter().find(|(id, _)| *id == TypeId::of::<T>());
        let found = found.and_then(|(_, index)| {
            let any: &dyn Any = &**index;
            any.downcast_ref()
        });
        found.expect("who reads an index declares it")
    }

    /// Whether the first complete list of each kind has arrived.
    pub fn synced(&self, kinds: impl IntoIterator<Item = Kind>) -> bool {
        kinds.into_iter().all(|k| self.shelves.get(&k).is_some_and(|s| s.synced))
    }

    /// How far the watch of `kind` has come.
    pub fn revision(&self, kind: Kind) -> Revision {
        self.shelves.get(&kind).map(|s| s.revision).unwrap_or_default()
    }

    /// The revision at which this cache last saw an object of `kind` disappear; zero if never.
    pub fn last_loss(&self, kind: Kind) -> Revision {
        self.shelves.get(&kind).map(|s| s.lost).unwrap_or_default()
    }

    /// The object of that key.
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.entry(key).map(|e| &e.object)
    }

    /// The typed object of that namespace and name.
    pub fn get<T: ApiObject>(&self, namespace: &str, name: &str) -> Option<&T> {
        self.shelves.get(&T::KIND)?.entry(namespace, name)?.object.get()
    }

    /// When this cache last saw the object change, by the clock of this component. Unlike
    /// timestamps in objects it is free of the skew between hosts.
    pub fn seen_at(&self, key: &Key) -> Option<Time> {
        self.entry(key).map(|e| e.seen)
    }

    /// Whether the object is renewed on schedule without each renewal being told: then it counts
    /// as seen at this moment, whatever `seen_at` says.
    pub fn is_renewing(&self, key: &Key) -> bool {
        self.shelves.get(&key.kind).is_some_and(|s| s.renewing.contains_key(key))
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.shelves.get(&key.kind)?.entry(&key.namespace, &key.name)
    }

    /// All objects of a kind.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.shelves.get(&kind).into_iter().flat_map(Shelf::entries).map(|e| &e.object)
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
        let shelf = self.shelves.get(&kind);
        let names = shelf.and_then(|s| s.namespaces.get(namespace));
        names.into_iter().flat_map(Ledger::values).map(|e| &e.object)
    }

    /// How many objects of a kind are in a namespace.
    pub fn count_in(&self, kind: Kind, namespace: &str) -> usize {
        let shelf = self.shelves.get(&kind);
        shelf.and_then(|s| s.namespaces.get(namespace)).map_or(0, Ledger::len)
    }

    /// All objects of a type in a namespace.
    pub fn list_in<'a, T: ApiObject>(&'a self, namespace: &str) -> impl Iterator<Item = &'a T> {
        self.objects_in(T::KIND, namespace).filter_map(Object::get)
    }

    /// Objects of a type that name `uid` among their owners, in a cache with indexes.
    pub fn owned<'a, T: ApiObject>(&'a self, uid: &str) -> impl Iterator<Item = &'a T> {
        self.owned_objects(uid).filter_map(Object::get)
    }

    /// Objects of any kind that name `uid` among their owners.
    pub fn owned_objects<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Object> {
        self.children.get(uid).into_iter().flatten().filter_map(|key| self.object(key))
    }

    /// Pods bound to a node, in a cache with indexes.
    pub fn pods_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Pod> {
        let mut keys: Vec<&Arc<Key>> = self.pods_of_node.get(node).into_iter().flatten().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.object(key)?.get())
    }

    /// The revision at which this cache last saw a child of `uid` disappear; zero if never.
    /// It moves on with each loss, so names derived from it do not come back.
    pub fn tombstone(&self, uid: &str) -> Revision {
        self.tombstones.get(uid).copied().unwrap_or_default()
    }

    /// Applies news of a watch at `now` and returns what changed. Old news changes nothing.
    pub fn apply(&mut self, now: Time, event: WatchEvent) -> Vec<Delta> {
        let mut deltas = Vec::new();
        self.apply_each(now, event, |_, delta| deltas.push(delta));
        deltas
    }

    /// Applies news of a watch at `now` and tells of each change as soon as it, and none after
    /// it, is applied. Old news changes nothing.
    pub fn apply_each(&mut self, now: Time, event: WatchEvent, mut tell: impl FnMut(&Self, Delta)) {
        let delta = match event {
            WatchEvent::Changed(object) => {
                let revision = object.revision();
                self.advance(object.kind(), revision);
                self.put(now, object, revision)
            }
            WatchEvent::Deleted { key, revision } => {
                self.advance(key.kind, revision);
                let newer = self.object(&key).is_some_and(|o| o.revision() > revision);
                if newer { None } else { self.remove(&key, revision) }
            }
            WatchEvent::Renewing { key, revision } => {
                self.advance(key.kind, revision);
                self.renewing(now, &key, revision)
            }
            WatchEvent::Replaced { kind, objects, revision } => {
                return self.replace(now, kind, objects, revision, tell);
            }
            WatchEvent::Progress { kind, revision } => {
                self.advance(kind, revision);
                None
            }
        };
        if let Some(delta) = delta {
            tell(self, delta);
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
        mut tell: impl FnMut(&Self, Delta),
    ) {
        for key in self.not_listed(kind, &objects, revision) {
            if let Some(delta) = self.remove(&key, revision) {
                tell(self, delta);
            }
        }
        for object in objects {
            let written = object.revision();
            if let Some(delta) = self.put(now, object, written) {
                tell(self, delta);
            }
        }
        for delta in self.end_renewals(now, kind, revision) {
            tell(self, delta);
        }
        self.advance(kind, revision);
        self.shelves.entry(kind).or_default().synced = true;
    }

    /// What a complete list says is gone.
    fn not_listed(&self, kind: Kind, objects: &[Object], revision: Revision) -> Vec<Arc<Key>> {
        let Some(shelf) = self.shelves.get(&kind).filter(|s| !s.namespaces.is_empty()) else {
            return Vec::new();
        };
        let listed: BTreeSet<(&str, &str)> = objects.iter().map(names).collect();
        let gone = |e: &&Entry| {
            // A stale list must not undo what the watch has already delivered.
            !listed.contains(&(&*e.key.namespace, &*e.key.name)) && e.object.revision() <= revision
        };
        shelf.entries().filter(gone).map(|e| e.key.clone()).collect()
    }

    /// After a list nobody vouches for renewals that are not told.
    fn end_renewals(&mut self, now: Time, kind: Kind, revision: Revision) -> Vec<Delta> {
        let Some(shelf) = self.shelves.get_mut(&kind) else { return Vec::new() };
        let ended: Vec<Arc<Key>> = shelf
            .renewing
            .iter()
            .filter(|(_, r)| **r <= revision)
            .map(|(k, _)| k.clone())
            .collect();
        let mut deltas = Vec::new();
        for key in ended {
            shelf.renewing.remove(&key);
            let Some(entry) = shelf.entry_mut(&key.namespace, &key.name) else { continue };
            entry.seen = now;
            deltas.push(unchanged(entry));
        }
        deltas
    }

    fn renewing(&mut self, now: Time, key: &Key, revision: Revision) -> Option<Delta> {
        let shelf = self.shelves.get_mut(&key.kind)?;
        let entry = shelf.entry_mut(&key.namespace, &key.name)?;
        // What was told since ended it.
        if entry.object.revision() > revision {
            return None;
        }
        entry.seen = now;
        let (key, delta) = (entry.key.clone(), unchanged(entry));
        let again = shelf.renewing.insert(key, revision).is_some();
        (!again).then_some(delta)
    }

    /// Keeps the object, last written at `revision`, unless what is known of it is as new.
    fn put(&mut self, now: Time, object: Object, revision: Revision) -> Option<Delta> {
        let shelf = self.shelves.entry(object.kind()).or_default();
        let (namespace, name) = names(&object);
        let (key, old) = match shelf.entry_mut(namespace, name) {
            None => (shelf.insert(now, object.clone()), None),
            Some(entry) if entry.object.revision() >= revision => return None,
            Some(entry) => {
                entry.seen = now;
                let old = std::mem::replace(&mut entry.object, object.clone());
                (entry.key.clone(), Some(old))
            }
        };
        if !shelf.renewing.is_empty() {
            shelf.renewing.remove(&key);
        }
        if let Some(old) = old.as_ref().filter(|old| old.uid() != object.uid()) {
            self.tombstones.remove(old.uid());
        }
        self.reindex(&key, old.as_ref(), Some(&object));
        Some(Delta { key: Key::clone(&key), old, new: Some(object) })
    }

    fn remove(&mut self, key: &Key, revision: Revision) -> Option<Delta> {
        let shelf = self.shelves.get_mut(&key.kind)?;
        let Entry { key, object: old, .. } = shelf.remove(key)?;
        shelf.lost = shelf.lost.max(revision);
        self.reindex(&key, Some(&old), None);
        if !self.related {
            return Some(Delta { key: Key::clone(&key), old: Some(old), new: None });
        }
        if let Some(owner) = meta::controller_of(old.meta()) {
            // A tombstone is of use as long as there is somebody to make the loss good. When the
            // owner goes first, the last of its children takes the tombstone along.
            if self.children.contains_key(&owner.uid) || self.lives(owner, &key) {
                let tombstone = self.tombstones.entry(owner.uid.clone()).or_default();
                *tombstone = revision.max(*tombstone);
            } else {
                self.tombstones.remove(&owner.uid);
            }
        }
        self.tombstones.remove(old.uid());
        Some(Delta { key: Key::clone(&key), old: Some(old), new: None })
    }

    /// Whether the owner that `child` names is in the cache.
    fn lives(&self, owner: &OwnerReference, child: &Key) -> bool {
        let Some(kind) = Kind::of_manifest(&owner.api_version, &owner.kind) else { return false };
        let namespace = if kind.namespaced() { &*child.namespace } else { "" };
        let found = self.shelves.get(&kind).and_then(|s| s.entry(namespace, &owner.name));
        found.is_some_and(|e| e.object.uid() == owner.uid)
    }

    fn reindex(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        if !self.related {
            return;
        }
        if !uids_of_owners(old).eq(uids_of_owners(new)) {
            uids_of_owners(old).for_each(|uid| discard(&mut self.children, uid, key));
            uids_of_owners(new).for_each(|uid| include(&mut self.children, uid, key));
        }
        let (before, after) = (old.and_then(node_of), new.and_then(node_of));
        if before != after {
            before.into_iter().for_each(|node| self.leaves(node, key));
            after.into_iter().for_each(|node| self.comes(node, key));
        }
        for i in self.indexes_of.get(&key.kind).into_iter().flatten() {
            self.indexes[*i].1.update(key, old, new);
        }
    }

    fn comes(&mut self, node: &str, key: &Arc<Key>) {
        match self.pods_of_node.get_mut(node) {
            Some(pods) => pods.push(key.clone()),
            None => drop(self.pods_of_node.insert(node.into(), vec![key.clone()])),
        }
    }

    fn leaves(&mut self, node: &str, key: &Arc<Key>) {
        let Some(pods) = self.pods_of_node.get_mut(node) else { return };
        // The key of an object is one, so that it is found without a look at what it says.
        if let Some(at) = pods.iter().position(|pod| Arc::ptr_eq(pod, key)) {
            pods.swap_remove(at);
        }
        if pods.is_empty() {
            self.pods_of_node.remove(node);
        }
    }
}

/// Namespace and name of an object.
fn names(object: &Object) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn unchanged(entry: &Entry) -> Delta {
    let state = Some(entry.object.clone());
    Delta { key: Key::clone(&entry.key), old: state.clone(), new: state }
}

fn uids_of_owners(object: Option<&Object>) -> impl Iterator<Item = &str> {
    let owners = object.and_then(|o| o.meta().owner_references.as_deref()).unwrap_or_default();
    owners.iter().map(|o| o.uid.as_str())
}

fn node_of(object: &Object) -> Option<&str> {
    match object {
        Object::Pod(pod) => pod.node_name.as_deref(),
        _ => None,
    }
}

fn include(index: &mut BTreeMap<String, BTreeSet<Arc<Key>>>, name: &str, key: &Arc<Key>) {
    match index.get_mut(name) {
        Some(set) => set.insert(key.clone()),
        None => index.entry(name.to_owned()).or_default().insert(key.clone()),
    };
}

fn discard(index: &mut BTreeMap<String, BTreeSet<Arc<Key>>>, name: &str, key: &Arc<Key>) {
    if let Some(set) = index.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            index.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
