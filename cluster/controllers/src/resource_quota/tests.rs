#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

mod properties;

use super::*;
use crate::fixture::{Fixture, summary};

fn quota(hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": hard}, "status": {}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running"}})
}

fn key() -> Key {
    Key::new(Kind::ResourceQuota, "n", "q")
}

fn used(fixture: &Fixture<ResourceQuotas>) -> Value {
    api::codec::to_value(fixture.store.get(&key()).unwrap())["status"]["used"].clone()
}

#[test]
fn it_reads_whatever_quotas_can_count() {
    let counted: BTreeSet<Kind> = Kind::stored().filter(|k| quota::is_counted(*k)).collect();
    assert_eq!(KINDS.iter().copied().collect::<BTreeSet<_>>(), counted);
}

#[test]
fn a_new_quota_is_counted_at_once() {
    let mut fixture = Fixture::new(ResourceQuotas);
    fixture.put(pod("a", "500m"));
    fixture.put(pod("b", "1"));
    let mut done = pod("done", "4");
    done["status"]["phase"] = "Succeeded".into();
    fixture.put(done);
    let hard = json!({"pods": "5", "requests.cpu": "2", "count/pods": "9", "secrets": "3",
        "count/secrets": "3", "requests.nobodys": "1", "limits.memory": "1Gi"});
    assert_eq!(fixture.put(quota(hard.clone())), [key()]);
    fixture.progress();
    let expected = ["update resourcequotas/n/q status", "read Pod", "read Secret"];
    assert_eq!(fixture.settle(&key()), expected);
    let expected = json!({"pods": "2", "requests.cpu": "1500m", "count/pods": "3",
        "secrets": "0", "count/secrets": "0", "limits.memory": "0"});
    assert_eq!(used(&fixture), expected);
    let status = api::codec::to_value(fixture.store.get(&key()).unwrap())["status"].clone();
    assert_eq!(status["hard"], hard);
}

#[test]
fn what_goes_is_given_back() {
    let mut fixture = Fixture::new(ResourceQuotas);
    for name in ["a", "b"] {
        assert!(fixture.put(pod(name, "1")).is_empty());
    }
    fixture.put(quota(json!({"pods": "5", "services.nodeports": "2"})));
    fixture.progress();
    fixture.settle(&key());
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
    // What comes is charged by the API server.
    assert!(fixture.put(service.clone()).is_empty());
    assert!(fixture.put(pod("c", "1")).is_empty());
    let mut ended = pod("a", "1");
    ended["status"]["phase"] = "Failed".into();
    assert_eq!(fixture.put(ended), [key()]);
    fixture.progress();
    fixture.settle(&key());
    assert_eq!(used(&fixture), json!({"pods": "2", "services.nodeports": "2"}));
    service["spec"]["ports"] = json!([{"port": 1}]);
    assert_eq!(fixture.put(service.clone()), [key()]);
    service["spec"]["ports"] = json!([{"port": 1}, {"port": 3}]);
    assert!(fixture.put(service).is_empty());
    assert_eq!(fixture.remove(&Key::new(Kind::Pod, "n", "b")), [key()]);
    fixture.progress();
    fixture.settle(&key());
    assert_eq!(used(&fixture)["pods"], "1");
    // Nothing here counts these.
    assert!(
        fixture
            .put(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "x", "namespace": "n"}}))
            .is_empty()
    );
    assert!(fixture.remove(&Key::new(Kind::Secret, "n", "x")).is_empty());
}

#[test]
fn pods_that_are_overdue_do_not_count() {
    let mut fixture = Fixture::new(ResourceQuotas);
    fixture.put(quota(json!({"pods": "5", "count/pods": "5"})));
    let mut stuck = pod("a", "1");
    let at = fixture.now().to_meta();
    stuck["metadata"]["deletionTimestamp"] = json!(at);
    stuck["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    fixture.put(pod("a", "1"));
    assert_eq!(fixture.put(stuck), [key()]);
    fixture.progress();
    fixture.settle(&key());
    assert_eq!(used(&fixture), json!({"pods": "1", "count/pods": "1"}));
    assert_eq!(fixture.reconcile(&key()).revisit, Some(Duration::from_secs(31)));
    fixture.advance(Duration::from_secs(31));
    fixture.settle(&key());
    assert_eq!(used(&fixture), json!({"pods": "0", "count/pods": "1"}));
    assert_eq!(fixture.reconcile(&key()), Plan::nothing());
}

#[test]
fn scopes_are_kept() {
    let mut fixture = Fixture::new(ResourceQuotas);
    let mut scoped = quota(json!({"pods": "5", "secrets": "2"}));
    scoped["spec"]["scopes"] = json!(["BestEffort"]);
    fixture.put(pod("a", "1"));
    fixture.put(pod("b", "0"));
    fixture.put(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "x", "namespace": "n"}}));
    fixture.put(scoped);
    fixture.progress();
    fixture.settle(&key());
    assert_eq!(used(&fixture), json!({"pods": "1", "secrets": "0"}));
}

/// A charge that the objects do not show yet is not undone.
#[test]
fn objects_must_be_as_new_as_the_quota() {
    let mut fixture = Fixture::new(ResourceQuotas);
    fixture.put(pod("a", "1"));
    fixture.put(quota(json!({"pods": "5"})));
    assert_eq!(summary(&fixture.reconcile(&key())), ["read Pod"]);
    fixture.progress();
    fixture.settle(&key());
    // Charges call for nothing.
    let mut charged = api::codec::to_value(fixture.store.get(&key()).unwrap());
    charged["status"]["used"]["pods"] = "2".into();
    assert!(fixture.put(charged).is_empty());
    assert_eq!(summary(&fixture.reconcile(&key())), ["read Pod"]);
    fixture.put(pod("b", "1"));
    // Nor is one passed over that the quota does not show yet.
    assert_eq!(summary(&fixture.reconcile(&key())), ["read ResourceQuota"]);
    fixture.progress();
    assert_eq!(fixture.reconcile(&key()), Plan::nothing());
}
