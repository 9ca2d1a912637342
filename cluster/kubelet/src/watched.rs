//! What the API says of this node, kept current by watches: its pods, the node, the services.
//!
//! As [`machine::Cache`], for the three kinds that a kubelet watches and without indexes: there
//! may be a hundred thousand kubelets in one process, and every one hears of every service.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::slice;
use std::sync::Arc;

use api::{ApiObject, Key, Kind, Name, Object, Pod, Revision, sorted};
use foldhash::fast::FixedState;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::WatchEvent;

/// All objects of a kind, in the order of their hashes and then of namespace and name. A pod is
/// looked for a dozen times between its coming and its going, among a hundred others.
#[derive(Clone)]
pub(crate) struct Shelf<T> {
    objects: Vec<Held<T>>,
    synced: bool,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), synced: false }
    }
}

/// An object with its name beside it: looking for one touches no other memory.
#[derive(Clone)]
struct Held<T> {
    hash: u64,
    namespace: Name,
    name: Name,
    object: Arc<T>,
}

fn hash(namespace: &str, name: &str) -> u64 {
    FixedState::with_seed(0).hash_one((namespace, name))
}

/// One object before and after.
pub(crate) struct Change<T> {
    pub(crate) old: Option<Arc<T>>,
    pub(crate) new: Option<Arc<T>>,
}

/// What news changed.
pub(crate) enum News {
    Nothing,
    Pod(Change<Pod>),
    /// A complete list of pods.
    Pods,
    Node,
    /// A service; or, for the first time, all of them.
    Service {
        first: bool,
    },
}

fn revision(meta: &ObjectMeta) -> Revision {
    meta.resource_version.as_deref().and_then(Revision::parse).unwrap_or_default()
}

impl<T: ApiObject> Shelf<T> {
    /// Whether the first complete list has arrived.
    pub(crate) const fn synced(&self) -> bool {
        self.synced
    }

    /// All objects, in no order that may matter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.iter().map(|held| &held.object)
    }

    /// Where the object is, or belongs.
    fn find(&self, hash: u64, namespace: &str, name: &str) -> Result<usize, usize> {
        let guess = sorted::expected_at(hash, self.objects.len());
        sorted::search_from(&self.objects, guess, |held| {
            let hashes = held.hash.cmp(&hash);
            hashes.then_with(|| (&*held.namespace, &*held.name).cmp(&(namespace, name)))
        })
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        let at = self.find(hash(namespace, name), namespace, name).ok()?;
        Some(&self.objects[at].object)
    }

    /// Puts the object; old news changes nothing.
    fn put(&mut self, object: &Arc<T>) -> Option<Change<T>> {
        let meta = object.meta();
        let (namespace, name) = place(meta);
        let hash = hash(namespace, name);
        let found = self.find(hash, namespace, name);
        let new = Some(object.clone());
        match found {
            Ok(at) if revision(self.objects[at].object.meta()) >= revision(meta) => None,
            Ok(at) => {
                let old = std::mem::replace(&mut self.objects[at].object, object.clone());
                Some(Change { old: Some(old), new })
            }
            Err(at) => {
                let (namespace, name) = (namespace.into(), name.into());
                if self.objects.len() == self.objects.capacity() {
                    self.objects.reserve_exact(1 + self.objects.len() / 4);
                }
                self.objects.insert(at, Held { hash, namespace, name, object: object.clone() });
                Some(Change { old: None, new })
            }
        }
    }

    fn remove(&mut self, key: &Key, gone: Revision) -> Option<Change<T>> {
        let hash = hash(&key.namespace, &key.name);
        let at = self.find(hash, &key.namespace, &key.name).ok()?;
        if revision(self.objects[at].object.meta()) > gone {
            return None;
        }
        Some(Change { old: Some(self.objects.remove(at).object), new: None })
    }

    /// Takes a complete list. Returns whether it is the first, and whether anything changed.
    fn replace(&mut self, objects: &[Object], listed_at: Revision) -> (bool, bool) {
        let listed: BTreeSet<(&str, &str)> = objects.iter().map(|o| place(o.meta())).collect();
        let before = self.objects.len();
        // A stale list must not undo what the watch has already delivered.
        self.objects.retain(|Held { object, .. }| {
            listed.contains(&place(object.meta())) || revision(object.meta()) > listed_at
        });
        let mut changed = self.objects.len() != before;
        for object in objects.iter().filter_map(T::of) {
            changed |= self.put(object).is_some();
        }
        self.objects.shrink_to_fit();
        (!std::mem::replace(&mut self.synced, true), changed)
    }
}

fn place(meta: &ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Everything that is watched.
#[derive(Clone)]
pub(crate) struct Watched {
    node_name: Name,
    pub(crate) pods: Shelf<Pod>,
    /// The node of this kubelet, and no other.
    nodes: Shelf<Node>,
    pub(crate) services: Shelf<Service>,
}

impl Watched {
    /// Nothing is known yet.
    pub(crate) fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            pods: Shelf::default(),
            nodes: Shelf::default(),
            services: Shelf::default(),
        }
    }

    /// The node of this kubelet: asked for several times in each step.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.nodes.objects.first().map(|held| &held.object)
    }

    /// Whether it is known whether there is a node.
    pub(crate) const fn node_synced(&self) -> bool {
        self.nodes.synced
    }

    /// Applies news of a watch and says what changed.
    pub(crate) fn apply(&mut self, event: &WatchEvent) -> News {
        match event {
            WatchEvent::Changed(Object::Pod(pod)) => pod_news(self.pods.put(pod)),
            WatchEvent::Changed(Object::Node(node)) => {
                let own = node.metadata.name.as_deref() == Some(&*self.node_name);
                node_news(own && self.nodes.put(node).is_some())
            }
            WatchEvent::Changed(Object::Service(service)) => {
                service_news(false, self.services.put(service).is_some())
            }
            WatchEvent::Deleted { key, revision } => match key.kind {
                Kind::Pod => pod_news(self.pods.remove(key, *revision)),
                Kind::Node => node_news(self.nodes.remove(key, *revision).is_some()),
                Kind::Service => {
                    service_news(false, self.services.remove(key, *revision).is_some())
                }
                _ => News::Nothing,
            },
            WatchEvent::Replaced { kind, objects, revision } => match kind {
                Kind::Pod => {
                    self.pods.replace(objects, *revision);
                    News::Pods
                }
                Kind::Node => {
                    let own = |node: &&Object| place(node.meta()).1 == &*self.node_name;
                    let own = objects.iter().find(own);
                    node_news(self.nodes.replace(own.map_or(&[], slice::from_ref), *revision).1)
                }
                Kind::Service => {
                    let (first, changed) = self.services.replace(objects, *revision);
                    service_news(first, changed)
                }
                _ => News::Nothing,
            },
            WatchEvent::Changed(_) | WatchEvent::Renewing { .. } | WatchEvent::Progress { .. } => {
                News::Nothing
            }
        }
    }
}

fn pod_news(change: Option<Change<Pod>>) -> News {
    change.map_or(News::Nothing, News::Pod)
}

const fn node_news(changed: bool) -> News {
    if changed { News::Node } else { News::Nothing }
}

const fn service_news(first: bool, changed: bool) -> News {
    if first || changed { News::Service { first } } else { News::Nothing }
}

#[cfg(test)]
mod tests {
    use api::codec;

    use super::*;

    fn pod(name: &str, revision: u64) -> Object {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"d",
            "resourceVersion":"{revision}"}}}}"#
        );
        codec::decode_any(text.as_bytes()).unwrap()
    }

    fn names(watched: &Watched) -> Vec<String> {
        let names = watched.pods.iter().map(|p| p.metadata.name.clone().unwrap());
        BTreeSet::from_iter(names).into_iter().collect()
    }

    #[test]
    fn old_news_is_ignored_and_lists_replace_what_is_older() {
        let mut watched = Watched::new("n");
        let changed = |watched: &mut Watched, name: &str, revision: u64| {
            matches!(watched.apply(&WatchEvent::Changed(pod(name, revision))), News::Pod(_))
        };
        assert!(changed(&mut watched, "c", 7) && !watched.pods.synced());
        let list = vec![pod("b", 4), pod("a", 3)];
        let list = WatchEvent::Replaced { kind: Kind::Pod, objects: list, revision: Revision(5) };
        assert!(matches!(watched.apply(&list), News::Pods));
        assert!(watched.pods.synced());
        assert_eq!(names(&watched), ["a", "b", "c"]);
        assert!(!changed(&mut watched, "a", 3) && changed(&mut watched, "a", 8));
        let gone = |name: &str, revision: u64| WatchEvent::Deleted {
            key: Key::new(Kind::Pod, "d", name),
            revision: Revision(revision),
        };
        assert!(matches!(watched.apply(&gone("a", 6)), News::Nothing));
        let News::Pod(change) = watched.apply(&gone("a", 9)) else { panic!("it is gone") };
        assert!(change.new.is_none() && change.old.is_some());
        let list = WatchEvent::Replaced { kind: Kind::Pod, objects: vec![], revision: Revision(6) };
        watched.apply(&list);
        assert_eq!(names(&watched), ["c"]);
    }
}
