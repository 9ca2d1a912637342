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
    let mut cache = Cache::with_indexes([]);
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
    assert_eq!(cache.owned::<api::Pod>("o1").count(), 2);

    assert!(cache.apply(Time(2), WatchEvent::Changed(pod("a", 2, "n2", "o1"))).is_empty());
    assert_eq!(cache.apply(Time(3), WatchEvent::Changed(pod("a", 6, "n2", "o2"))).len(), 1);
    assert_eq!((names(&cache, "n1"), names(&cache, "n2")), (vec!["b".into()], vec!["a".into()]));
    assert_eq!(cache.seen_at(&Key::new(Kind::Pod, "d", "a")), Some(Time(3)));

    let key = Key::new(Kind::Pod, "d", "a");
    let late = WatchEvent::Deleted { key: key.clone(), revision: Revision(5) };
    assert!(cache.apply(Time(4), late).is_empty());
    let delta = cache.apply(Time(5), WatchEvent::Deleted { key, revision: Revision(7) });
    assert!(delta[0].new.is_none());
    assert_eq!(cache.revision(Kind::Pod), Revision(7));

    let empty = WatchEvent::Replaced { kind: Kind::Pod, objects: vec![], revision: Revision(9) };
    assert_eq!(cache.apply(Time(6), empty).len(), 1);
    assert_eq!(names(&cache, "n1"), Vec::<String>::new());
}

fn owner(uid: &str, revision: u64) -> Object {
    let json = format!(
        r#"{{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{{"name":"o","namespace":"d",
        "resourceVersion":"{revision}","uid":"{uid}"}}}}"#
    );
    codec::decode_any(json.as_bytes()).unwrap()
}

fn deleted(kind: Kind, name: &str, revision: u64) -> WatchEvent {
    WatchEvent::Deleted { key: Key::new(kind, "d", name), revision: Revision(revision) }
}

#[test]
fn tombstones_stay_as_long_as_the_owner() {
    let mut cache = Cache::with_indexes([]);
    cache.apply(Time(1), WatchEvent::Changed(owner("o1", 1)));
    for (name, revision) in [("a", 2), ("b", 3), ("c", 4)] {
        cache.apply(Time(1), WatchEvent::Changed(pod(name, revision, "n", "o1")));
    }
    cache.apply(Time(2), deleted(Kind::Pod, "a", 5));
    assert_eq!(cache.tombstone("o1"), Revision(5));
    cache.apply(Time(2), deleted(Kind::Pod, "b", 6));
    assert_eq!(cache.tombstone("o1"), Revision(6));
    // With the owner, or with the last child if that is later.
    cache.apply(Time(3), deleted(Kind::ReplicaSet, "o", 7));
    assert_eq!(cache.tombstone("o1"), Revision(0));
    cache.apply(Time(4), deleted(Kind::Pod, "c", 8));
    assert_eq!(cache.tombstone("o1"), Revision(0));
    // An owner that this cache does not know yet, or one that was replaced unseen.
    cache.apply(Time(5), WatchEvent::Changed(pod("a", 10, "n", "o2")));
    cache.apply(Time(5), WatchEvent::Changed(pod("b", 11, "n", "o2")));
    cache.apply(Time(5), deleted(Kind::Pod, "a", 12));
    assert_eq!(cache.tombstone("o2"), Revision(12));
    cache.apply(Time(6), WatchEvent::Changed(owner("o2", 9)));
    cache.apply(Time(6), WatchEvent::Changed(owner("o3", 13)));
    assert_eq!(cache.tombstone("o2"), Revision(0));
}

#[test]
fn renewals_hold_until_the_object_is_told_of_again() {
    let key = Key::new(Kind::Pod, "d", "a");
    let renewing = |revision| WatchEvent::Renewing { key: key.clone(), revision };
    let mut cache = Cache::with_indexes([]);
    // Of what is not there, or has changed since, there is nothing to say.
    assert!(cache.apply(Time(1), renewing(Revision(1))).is_empty());
    cache.apply(Time(2), WatchEvent::Changed(pod("a", 3, "n", "o")));
    assert!(cache.apply(Time(3), renewing(Revision(2))).is_empty());
    assert!(!cache.is_renewing(&key));

    let deltas = cache.apply(Time(4), renewing(Revision(4)));
    assert_eq!(deltas.len(), 1);
    assert_eq!(deltas[0].old, deltas[0].new);
    assert!(cache.is_renewing(&key));
    assert_eq!(cache.revision(Kind::Pod), Revision(4));
    assert!(cache.apply(Time(5), renewing(Revision(5))).is_empty());
    // Old news ends nothing.
    cache.apply(Time(6), WatchEvent::Changed(pod("a", 3, "n", "o")));
    assert!(cache.is_renewing(&key));
    cache.apply(Time(7), WatchEvent::Changed(pod("a", 6, "n", "o")));
    assert!(!cache.is_renewing(&key));
    assert_eq!(cache.seen_at(&key), Some(Time(7)));

    // A list ends it even if nothing else is new, and says so.
    cache.apply(Time(8), renewing(Revision(8)));
    let list = |revision| WatchEvent::Replaced {
        kind: Kind::Pod,
        objects: vec![pod("a", 6, "n", "o")],
        revision: Revision(revision),
    };
    assert!(cache.apply(Time(9), list(7)).is_empty());
    assert!(cache.is_renewing(&key));
    assert_eq!(cache.apply(Time(10), list(9)).len(), 1);
    assert!(!cache.is_renewing(&key));
    assert_eq!(cache.seen_at(&key), Some(Time(10)));

    cache.apply(Time(11), renewing(Revision(10)));
    cache.apply(Time(12), deleted(Kind::Pod, "a", 11));
    cache.apply(Time(13), WatchEvent::Changed(pod("a", 12, "n", "o")));
    assert!(!cache.is_renewing(&key));
}

/// Counts the pods of each node.
#[derive(Clone, Debug, Default)]
struct PodCounts(BTreeMap<String, usize>);

impl Index for PodCounts {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod]
    }
    fn update(&mut self, _: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        for node in old.into_iter().filter_map(node_of) {
            *self.0.get_mut(node).unwrap() -= 1;
        }
        for node in new.into_iter().filter_map(node_of) {
            *self.0.entry(node.to_owned()).or_default() += 1;
        }
    }
}

#[test]
fn indexes_are_told_of_every_change_and_readers_see_each_as_it_happens() {
    let both: [Box<dyn Index>; 2] = [Box::<PodCounts>::default(), Box::<PodCounts>::default()];
    let mut cache = Cache::with_indexes(both);
    let count = |cache: &Cache, node: &str| cache.index::<PodCounts>().0.get(node).copied();
    cache.apply(Time(1), WatchEvent::Changed(pod("a", 1, "n1", "o")));
    cache.apply(Time(1), WatchEvent::Changed(pod("b", 2, "n1", "o")));
    cache.apply(Time(1), WatchEvent::Changed(pod("b", 3, "n2", "o")));
    assert_eq!((count(&cache, "n1"), count(&cache, "n2")), (Some(1), Some(1)));
    let list = WatchEvent::Replaced {
        kind: Kind::Pod,
        objects: vec![pod("c", 4, "n2", "o"), pod("d", 5, "n2", "o")],
        revision: Revision(6),
    };
    let mut seen = Vec::new();
    cache.apply_each(Time(2), list, |cache, delta| {
        seen.push((delta.key.name.to_string(), count(cache, "n1"), count(cache, "n2")));
    });
    let expected = [
        ("a", Some(0), Some(1)),
        ("b", Some(0), Some(0)),
        ("c", Some(0), Some(1)),
        ("d", Some(0), Some(2)),
    ];
    assert_eq!(seen, expected.map(|(name, a, b)| (name.to_owned(), a, b)));
}
