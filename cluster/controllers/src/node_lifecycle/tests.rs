use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, START, summary};

fn node(name: &str, ready: &str) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    if !ready.is_empty() {
        node["status"] = json!({"conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": START.to_meta()}]});
    }
    node
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"}})
}

fn key(name: &str) -> Key {
    Key::cluster(Kind::Node, name)
}

/// The key of the zone in which all these nodes are.
fn zone() -> Key {
    zones::turn_key("", "")
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn taints(fixture: &Fixture<NodeLifecycle>, name: &str) -> Vec<String> {
    let node = &fixture.store.objects[&key(name)];
    let taints = node.get::<Node>().unwrap().spec.clone().unwrap_or_default().taints;
    let mut shown: Vec<String> = taints
        .unwrap_or_default()
        .iter()
        .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
        .collect();
    shown.sort();
    shown
}

#[test]
fn silence_is_noticed_by_this_process_clock() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    fixture.put(node("a", "True"));
    fixture.put(node("other", "True"));
    fixture.put(lease("a"));
    fixture.advance(secs(30));
    assert_eq!(fixture.put(lease("a")), [key("a")]);
    fixture.advance(secs(39));
    let plan = fixture.reconcile(&key("a"));
    assert_eq!((summary(&plan), plan.revisit), (vec![], Some(secs(1))));
    fixture.advance(secs(1));
    let plan = fixture.reconcile(&key("a"));
    assert_eq!(summary(&plan), ["update nodes/a status"]);
    let told = plan.announcements[&0].done.as_ref().unwrap();
    assert_eq!(told.message, "Node a status is now: NodeNotReady");
    fixture.put(lease("other"));
    fixture.settle(&key("a"));
    fixture.settle(&zone());
    // Not in the very moment: others may have been lost with it.
    assert_eq!(taints(&fixture, "a"), ["unreachable:NoSchedule"]);
    assert_eq!(fixture.reconcile(&zone()).revisit, Some(secs(2)));
    fixture.advance(secs(2));
    fixture.settle(&zone());
    let stored = fixture.store.objects[&key("a")].get::<Node>().unwrap().clone();
    let ready = condition(&stored, "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
    let memory = condition(&stored, "MemoryPressure").unwrap();
    assert_eq!(memory.reason.as_deref(), Some("NodeStatusNeverUpdated"));
    assert_eq!(taints(&fixture, "a"), ["unreachable:NoExecute", "unreachable:NoSchedule"]);
    // It comes back.
    fixture.put(lease("a"));
    let mut back = api::codec::to_value(&fixture.store.objects[&key("a")]);
    back["status"]["conditions"][0]["status"] = "True".into();
    fixture.put(back);
    fixture.settle(&key("a"));
    assert_eq!(taints(&fixture, "a"), Vec::<String>::new());
}

#[test]
fn a_node_that_never_reported_has_longer() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    fixture.put(node("a", ""));
    fixture.advance(secs(59));
    assert_eq!(fixture.reconcile(&key("a")).revisit, Some(secs(1)));
    fixture.advance(secs(1));
    assert_eq!(summary(&fixture.reconcile(&key("a"))), ["update nodes/a status"]);
}

#[test]
fn conditions_become_taints() {
    let check = |change: fn(&mut Value), expected: &[&str]| {
        let mut fixture = Fixture::new(NodeLifecycle::new(55));
        fixture.put(node("other", "True"));
        let mut value = node("a", "True");
        change(&mut value);
        fixture.put(value);
        fixture.advance(secs(2));
        fixture.settle(&key("a"));
        fixture.settle(&zone());
        assert_eq!(taints(&fixture, "a"), expected);
    };
    check(|_| {}, &[]);
    check(|v| v["spec"]["unschedulable"] = true.into(), &["unschedulable:NoSchedule"]);
    check(
        |v| v["status"]["conditions"][0]["status"] = "False".into(),
        &["not-ready:NoExecute", "not-ready:NoSchedule"],
    );
    check(
        |v| {
            let pressure = json!({"type": "DiskPressure", "status": "True"});
            v["status"]["conditions"].as_array_mut().unwrap().push(pressure);
        },
        &["disk-pressure:NoSchedule"],
    );
    // Other people's taints stay, ours go when their reason has gone.
    check(
        |v| {
            v["spec"]["taints"] = json!([{"key": "mine", "effect": "NoExecute"},
                {"key": UNREACHABLE, "effect": "NoSchedule"}]);
        },
        &["mine:NoExecute"],
    );
    // What a node is registered with stays until it reports.
    check(
        |v| {
            v["status"] = Value::Null;
            v["spec"]["taints"] = json!([{"key": NOT_READY, "effect": "NoSchedule"}]);
        },
        &["not-ready:NoSchedule"],
    );
}

#[test]
fn pods_of_a_silent_node_are_not_ready() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "nodeName": "a"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "x"}]}});
    let check = |other: &str, expected: &[&str]| {
        let mut fixture = Fixture::new(NodeLifecycle::new(55));
        fixture.put(node("a", "Unknown"));
        fixture.put(node("b", other));
        assert_eq!(fixture.put(pod.clone()), [key("a")]);
        let done = fixture.settle(&key("a"));
        let pods: Vec<&String> = done.iter().filter(|s| s.contains("pods")).collect();
        assert_eq!(pods, expected);
    };
    check("True", &["update pods/n/p status"]);
    // Nobody reports: the fault is here.
    check("Unknown", &[]);
}

/// How many of `total` nodes are given up when `silent` of them are, after each ten seconds.
fn check_rate(total: usize, silent: usize, expected: &[usize]) {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    let names: Vec<String> = (0..total).map(|i| format!("n{i:03}")).collect();
    for (i, name) in names.iter().enumerate() {
        fixture.put(node(name, if i < silent { "Unknown" } else { "True" }));
    }
    let mut seen = Vec::new();
    fixture.advance(secs(2));
    for _ in 0..expected.len() {
        for name in &names {
            fixture.put(lease(name));
            fixture.settle(&key(name));
        }
        fixture.settle(&zone());
        let given_up = |n: &&String| {
            let object = &fixture.store.objects[&key(n)];
            eviction_taint(object.get::<Node>().unwrap()).is_some()
        };
        seen.push(names.iter().filter(given_up).count());
        fixture.advance(secs(10));
    }
    assert_eq!(seen, expected, "{silent} of {total}");
}

#[test]
fn nodes_are_given_up_one_at_a_time() {
    check_rate(10, 2, &[1, 2, 2]);
    check_rate(10, 5, &[1, 2, 3, 4]);
    // Most of a small zone: nobody. All: nobody.
    check_rate(10, 6, &[0, 0]);
    check_rate(3, 3, &[0, 0]);
    check_rate(1, 1, &[0, 0]);
    // Two silent nodes are never most.
    check_rate(3, 2, &[1, 2]);
    // Most of a large zone: ten times slower.
    check_rate(51, 30, &[1, 1, 1]);
}

#[test]
fn a_change_concerns_its_zone_and_all_silent_nodes_when_nobody_reports() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    let silent = |name: &str, secs: u64| {
        let mut node = node(name, "Unknown");
        node["status"]["conditions"][0]["lastTransitionTime"] =
            json!((START + Duration::from_secs(secs)).to_meta());
        node
    };
    assert_eq!(fixture.put(node("a", "True")), [key("a")]);
    assert_eq!(fixture.put(silent("b", 1)), [key("b"), zone()]);
    assert_eq!(fixture.put(silent("c", 2)), [key("c"), zone()]);
    assert_eq!(fixture.put(silent("c", 2)), [key("c")]);
    // Then it is the turn of the next one.
    let mut given_up = silent("b", 1);
    given_up["spec"]["taints"] = json!([{"key": UNREACHABLE, "effect": "NoExecute"}]);
    assert_eq!(fixture.put(given_up.clone()), [key("b"), zone()]);
    assert_eq!(fixture.put(node("d", "True")), [key("d"), zone()]);
    // The last one that reports, and the first.
    assert_eq!(fixture.remove(&key("d")), [key("d"), zone()]);
    assert_eq!(fixture.put(node("a", "False")), [key("a"), key("b"), key("c"), zone()]);
    assert_eq!(fixture.put(node("a", "True")), [key("a"), key("b"), key("c"), zone()]);
    // Another zone.
    let mut elsewhere = silent("e", 0);
    elsewhere["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "z"});
    assert_eq!(fixture.put(elsewhere), [key("e"), zones::turn_key("", "z")]);
    assert_eq!(fixture.remove(&key("b")), [key("b"), zone()]);
}

#[test]
fn whoever_is_heard_of_late_waits_for_what_became_of_the_one_before() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    fixture.put(node("ready", "True"));
    fixture.put(node("b", "Unknown"));
    fixture.advance(secs(9));
    // The mark of b is on its way, and a turns out to have been lost with it: only the key that
    // waits for the outcome may give it up.
    assert_eq!(summary(&fixture.reconcile(&zone())), ["update nodes/b"]);
    assert_eq!(fixture.put(node("a", "Unknown")), [key("a"), zone()]);
    fixture.settle(&key("a"));
    assert_eq!(taints(&fixture, "a"), ["unreachable:NoSchedule"]);
    assert_eq!(taints(&fixture, "b"), Vec::<String>::new());
}

#[test]
fn a_list_that_changes_everything_concerns_all_silent_nodes() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    for name in ["a", "b", "c"] {
        fixture.put(node(name, "Unknown"));
    }
    let objects = ["d", "e"].map(|name| {
        let mut node = node(name, "True");
        node["metadata"]["resourceVersion"] = "9".into();
        api::codec::decode_value(Kind::Node, &node).unwrap()
    });
    let all: Vec<api::Object> = fixture.cache.objects(Kind::Node).cloned().chain(objects).collect();
    let revision = api::Revision(9);
    let list = machine::WatchEvent::Replaced { kind: Kind::Node, objects: all, revision };
    let keys = fixture.deliver_event(list);
    assert_eq!(keys[..5], ["a", "b", "c", "d", "e"].map(key));
    assert_eq!(keys[5..], [zone()]);
}

#[test]
fn a_node_whose_lease_is_being_renewed_is_heard_of_now() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    fixture.put(node("a", "True"));
    fixture.put(lease("a"));
    let lease_key = Key::new(Kind::Lease, "kube-node-lease", "a");
    let renewing = |fixture: &mut Fixture<NodeLifecycle>| {
        let revision = api::Revision(fixture.store.revision);
        let key = lease_key.clone();
        fixture.deliver_event(machine::WatchEvent::Renewing { key, revision })
    };
    assert_eq!(renewing(&mut fixture), [key("a")]);
    fixture.advance(secs(9999));
    assert_eq!(fixture.reconcile(&key("a")), Plan::nothing());
    // It is told of again: from now on silence counts.
    assert_eq!(fixture.put(lease("a")), [key("a")]);
    fixture.advance(secs(39));
    assert_eq!(fixture.reconcile(&key("a")).revisit, Some(secs(1)));
    fixture.advance(secs(1));
    assert_eq!(summary(&fixture.reconcile(&key("a"))), ["update nodes/a status"]);
}

#[test]
fn the_threshold_decides_which_zones_are_disrupted() {
    for (percent, expected) in [(61, 1), (60, 0), (55, 0), (101, 1)] {
        let mut fixture = Fixture::new(NodeLifecycle::new(percent));
        let names: Vec<String> = (0..10).map(|i| format!("n{i}")).collect();
        for (i, name) in names.iter().enumerate() {
            fixture.put(node(name, if i < 6 { "Unknown" } else { "True" }));
        }
        fixture.advance(secs(2));
        for name in &names {
            fixture.put(lease(name));
            fixture.settle(&key(name));
        }
        fixture.settle(&zone());
        let given_up = |n: &&String| taints(&fixture, n).iter().any(|t| t.ends_with(NO_EXECUTE));
        assert_eq!(names.iter().filter(given_up).count(), expected, "{percent}");
    }
}

#[test]
fn nodes_that_come_and_go_are_told_once() {
    let mut fixture = Fixture::new(NodeLifecycle::new(55));
    fixture.put(node("a", "True"));
    let told = |event: &str| [event.to_owned()];
    let registered = told("RegisteredNode Node a event: Registered Node a in Controller");
    assert_eq!(fixture.told(&key("a")), registered);
    fixture.advance(secs(5));
    fixture.put(node("a", "False"));
    assert_eq!(fixture.told(&key("a")), [""; 0]);
    // Zones are no nodes, and what was never there does not go.
    assert_eq!(fixture.told(&zone()), [""; 0]);
    assert_eq!(fixture.told(&key("b")), [""; 0]);
    fixture.remove(&key("a"));
    let removing = told("RemovingNode Node a event: Removing Node a from Controller");
    assert_eq!(fixture.told(&key("a")), removing);
    assert_eq!(fixture.told(&key("a")), [""; 0]);
    fixture.put(node("a", "True"));
    assert_eq!(fixture.told(&key("a")), registered);
}
