#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, summary};

fn owner(kind: &str, name: &str, uid: &str, blocks: bool) -> Value {
    let version = if kind == "Widget" { "example.com/v1" } else { "v1" };
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid,
        "blockOwnerDeletion": blocks})
}

fn config_map(name: &str, owners: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "n", "uid": name, "ownerReferences": owners}})
}

fn terminating(mut value: Value, finalizer: &str) -> Value {
    value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    value["metadata"]["finalizers"] = json!([finalizer]);
    value
}

fn key(name: &str) -> Key {
    Key::new(Kind::ConfigMap, "n", name)
}

/// Reconciles the object `child` among `objects`, with watches that are up to date.
fn check(objects: &[Value], child: &str, expected: &[&str]) {
    let mut fixture = Fixture::new(GarbageCollector);
    for object in objects {
        fixture.put(object.clone());
    }
    fixture.progress();
    assert_eq!(summary(&fixture.reconcile(&key(child))), expected, "{objects:#?}");
}

#[test]
fn only_what_lost_all_its_owners_goes() {
    let alive = config_map("alive", Value::Null);
    let of = |owners: Value| config_map("c", owners);
    let background = "delete configmaps/n/c Background";
    check(&[of(json!([owner("ConfigMap", "alive", "alive", true)])), alive.clone()], "c", &[]);
    check(&[of(json!([owner("ConfigMap", "gone", "gone", true)]))], "c", &[background]);
    // Another object of the owner's name.
    let renamed = of(json!([owner("ConfigMap", "alive", "before", true)]));
    check(&[renamed, alive.clone()], "c", &[background]);
    // One of two is gone: only the reference goes.
    let two = json!([
        owner("ConfigMap", "alive", "alive", true),
        owner("ConfigMap", "gone", "gone", true)
    ]);
    check(&[of(two), alive], "c", &["update configmaps/n/c"]);
    // Kinds that are not ours are left alone, as are owners that cannot be.
    check(&[of(json!([owner("Widget", "w", "w", true)]))], "c", &[]);
    check(&[of(json!([owner("Event", "e", "e", true)]))], "c", &[]);
    check(&[of(json!([]))], "c", &[]);
    check(&[of(json!([owner("Node", "a", "a", false)]))], "c", &[background]);
}

#[test]
fn an_owner_that_may_only_be_unknown_yet_is_waited_for() {
    let mut fixture = Fixture::new(GarbageCollector);
    let references = json!([owner("Secret", "s", "s", true)]);
    let keys = fixture.put(config_map("c", references));
    assert_eq!(summary(&fixture.reconcile(&keys[0])), ["read Secret"]);
    fixture.progress();
    assert_eq!(summary(&fixture.reconcile(&keys[0])), ["delete configmaps/n/c Background"]);
}

#[test]
fn owners_of_other_namespaces_do_not_count() {
    let mut other = config_map("o", Value::Null);
    other["metadata"]["namespace"] = "elsewhere".into();
    let child = config_map("c", json!([owner("ConfigMap", "o", "o", true)]));
    check(&[other, child], "c", &["delete configmaps/n/c Background"]);
}

#[test]
fn foreground_deletion_waits_for_what_blocks() {
    let dying = terminating(config_map("o", Value::Null), "foregroundDeletion");
    let blocking = config_map("c", json!([owner("ConfigMap", "o", "o", true)]));
    let other = config_map("c", json!([owner("ConfigMap", "o", "o", false)]));
    check(&[dying.clone(), blocking.clone()], "o", &[]);
    check(&[dying.clone(), blocking.clone()], "c", &["delete configmaps/n/c Background"]);
    check(&[dying.clone(), other], "o", &["update configmaps/n/o"]);
    // A child with children of its own waits for them in turn.
    let grandchild = config_map("g", json!([owner("ConfigMap", "c", "c", true)]));
    check(&[dying, blocking, grandchild], "c", &["delete configmaps/n/c Foreground"]);
}

#[test]
fn cycles_end() {
    let a = terminating(
        config_map("a", json!([owner("ConfigMap", "b", "b", true)])),
        "foregroundDeletion",
    );
    let b = config_map("b", json!([owner("ConfigMap", "a", "a", true)]));
    let mut fixture = Fixture::new(GarbageCollector);
    fixture.put(a);
    fixture.put(b);
    for _ in 0..10 {
        fixture.progress();
        for name in ["a", "b"] {
            if fixture.store.objects.contains_key(&key(name)) {
                fixture.settle(&key(name));
            }
        }
    }
    assert!(fixture.store.objects.is_empty(), "{:?}", fixture.store.objects.keys());
}

#[test]
fn orphans_forget_their_owner_first() {
    let dying = terminating(config_map("o", Value::Null), "orphan");
    let child = config_map("c", json!([owner("ConfigMap", "o", "o", true)]));
    let mut fixture = Fixture::new(GarbageCollector);
    fixture.put(dying);
    fixture.put(child);
    assert_eq!(
        fixture.settle(&key("o"))[..2],
        ["update configmaps/n/c".to_owned(), "read Namespace".to_owned()]
    );
    assert_eq!(fixture.store.objects.keys().collect::<Vec<_>>(), [&key("c")]);
    assert_eq!(fixture.store.objects[&key("c")].meta().owner_references, None);
}

#[test]
fn who_is_concerned() {
    let mut fixture = Fixture::new(GarbageCollector);
    let owned = || config_map("c", json!([owner("ConfigMap", "o", "o", true)]));
    fixture.put(config_map("o", Value::Null));
    assert_eq!(fixture.put(owned()), [key("c")]);
    // Nothing that matters here has changed.
    assert_eq!(fixture.put(owned()), []);
    let dying = terminating(config_map("o", Value::Null), "foregroundDeletion");
    assert_eq!(fixture.put(dying), [key("c"), key("o")]);
    assert_eq!(fixture.remove(&key("c")), [key("o")]);
    fixture.put(owned());
    assert_eq!(fixture.remove(&key("o")), [key("c")]);
}

/// An owner that is in another namespace cannot be one, and whoever wrote that is told.
#[test]
fn owners_elsewhere_are_told_of() {
    let mut fixture = Fixture::new(GarbageCollector);
    let mut far = config_map("far", Value::Null);
    far["metadata"]["namespace"] = "m".into();
    fixture.put(far);
    fixture.put(config_map("c", json!([owner("ConfigMap", "far", "far", false)])));
    fixture.progress();
    let plan = fixture.reconcile(&key("c"));
    assert_eq!(summary(&plan), ["delete configmaps/n/c Background"]);
    let told = |plan: &Plan| {
        let events = plan.events.iter();
        events.map(|e| (e.warning, e.reason.clone(), e.message.clone())).collect::<Vec<_>>()
    };
    let expected = |namespace: &str| {
        let message = format!(
            "ownerRef [v1/ConfigMap, namespace: {namespace}, name: far, uid: far] does not exist \
             in namespace \"{namespace}\""
        );
        vec![(true, "OwnerRefInvalidNamespace".into(), message)]
    };
    assert_eq!(told(&plan), expected("n"));
    // What is in no namespace has no owner in one; it stays.
    let node = Key::cluster(Kind::Node, "x");
    fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x",
        "ownerReferences": [owner("ConfigMap", "far", "far", false)]}}));
    let plan = fixture.reconcile(&node);
    assert_eq!(summary(&plan), Vec::<String>::new());
    assert_eq!(told(&plan), expected(""));
    // One that is gone is nowhere.
    fixture.put(config_map("d", json!([owner("ConfigMap", "gone", "gone", false)])));
    fixture.progress();
    assert_eq!(told(&fixture.reconcile(&key("d"))), []);
}

#[test]
fn circles_of_owners_that_all_wait_go() {
    let of = |name: &str, owner_name: &str| {
        let owners = json!([owner("ConfigMap", owner_name, owner_name, true)]);
        terminating(config_map(name, owners), FOREGROUND)
    };
    let free = |name: &str| vec![format!("update configmaps/n/{name}")];
    let check = |objects: &[Value], name: &str, goes: bool| {
        let mut fixture = Fixture::new(GarbageCollector);
        objects.iter().for_each(|object| drop(fixture.put(object.clone())));
        fixture.progress();
        let expected = if goes { free(name) } else { Vec::new() };
        assert_eq!(summary(&fixture.reconcile(&key(name))), expected, "{name} of {objects:#?}");
    };
    // An object that owns itself, two and three that own each other.
    check(&[of("a", "a")], "a", true);
    check(&[of("a", "b"), of("b", "a")], "a", true);
    check(&[of("a", "c"), of("b", "a"), of("c", "b")], "b", true);
    // What hangs on a circle goes before it.
    let tail = config_map("t", json!([owner("ConfigMap", "a", "a", true)]));
    let circle = [of("a", "b"), of("b", "a"), tail.clone()];
    check(&circle, "a", false);
    // A chain is no circle.
    check(&[of("a", "x"), of("b", "a"), of("c", "b")], "a", false);
    check(&[of("a", "x"), of("b", "a"), of("c", "b")], "c", true);
}

#[test]
fn ten_thousand_owners_are_looked_at_once() {
    let owners: Vec<Value> =
        (0..10_000).map(|i| owner("ConfigMap", &format!("o{i}"), &format!("o{i}"), true)).collect();
    let mut fixture = Fixture::new(GarbageCollector);
    fixture.put(config_map("c", owners.clone().into()));
    for i in 0..5_000 {
        let mut other = config_map(&format!("o{i}"), Value::Null);
        other["metadata"]["namespace"] = "elsewhere".into();
        fixture.put(other);
    }
    fixture.progress();
    let plan = fixture.reconcile(&key("c"));
    assert_eq!(summary(&plan), ["delete configmaps/n/c Background"]);
    assert_eq!(plan.events.len(), EVENTS_MAX);
    // With one that is there the others are forgotten in one write.
    fixture.put(config_map("o9999", Value::Null));
    fixture.progress();
    let plan = fixture.reconcile(&key("c"));
    let [Request::Update { object, subresource: None }] = plan.requests.as_slice() else {
        panic!("{:?}", summary(&plan));
    };
    assert_eq!(object.meta().owner_references.as_ref().map(Vec::len), Some(1));
}
