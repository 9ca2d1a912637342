//! Pods that nobody else removes: those of vanished nodes, those that ended long ago, those that are
//! deleted before they got a node, and those that are deleted on a node of which somebody says that
//! it is out of service.
//!
//! Source: kubernetes 1.33, `pkg/controller/podgc/gc_controller.go`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiObject, Key, Kind, Object, Pod, Request, Subresource, Time, meta};
use k8s_openapi::api::core::v1::{Node, PodCondition};
use machine::{Cache, Delta, Index, Plan, Reconciler};

use crate::node_lifecycle::condition;
use crate::pods;

/// Ended pods that are kept for people to look at.
const TERMINATED_PODS_MAX: usize = 12_500;

/// Whoever marks a node with it vouches for it that the node does not run: its pods need not be
/// waited for.
///
/// Source: kubernetes 1.33, KEP-2268, non-graceful node shutdown.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A node that is missing may only be late in the watch.
const QUARANTINE: Duration = Duration::from_secs(40);

/// No more pods are deleted in one pass.
const BURST_MAX: usize = 500;

/// Removes pods that nobody else removes.
///
/// The keys are pods, and one node without a name for the pods that ended.
pub struct PodGc;

impl Reconciler for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod, Kind::Node]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Ended>::default()]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        let namespaced = |pod: &Pod| {
            let meta = &pod.metadata;
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            Key::new(Kind::Pod, namespace, meta.name.as_deref().unwrap_or_default())
        };
        match (delta.key.kind, &delta.new) {
            (Kind::Pod, Some(object)) => {
                let Some(pod) = object.get::<Pod>() else { return Vec::new() };
                let mut keys = Vec::new();
                let before = delta.old.as_ref().and_then(Object::get::<Pod>);
                // What becomes of its node is told by the node.
                let same = before.is_some_and(|before| {
                    before.node_name == pod.node_name
                        && meta::is_terminating(&before.metadata)
                            == meta::is_terminating(&pod.metadata)
                });
                if !same && (is_abandoned(cache, pod) || is_lost(cache, pod)) {
                    keys.push(delta.key.clone());
                }
                if pods::is_terminal(pod) {
                    keys.push(all_ended());
                }
                keys
            }
            (Kind::Node, None) => cache.pods_of_node(&delta.key.name).map(namespaced).collect(),
            (Kind::Node, Some(object)) => {
                let out = |object: &Object| object.get::<Node>().is_some_and(is_out_of_service);
                if !out(object) || delta.old.as_ref().is_some_and(out) {
                    return Vec::new();
                }
                let pods = cache.pods_of_node(&delta.key.name);
                pods.filter(|pod| meta::is_terminating(&pod.metadata)).map(namespaced).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        if key.kind == Kind::Node {
            delete_ended(cache, &mut plan);
            return plan;
        }
        let Some(pod) = cache.object(key).and_then(Object::get::<Pod>) else { return plan };
        if is_lost(cache, pod) {
            remove(pod, None, now, &mut plan);
            return plan;
        }
        if !is_abandoned(cache, pod) {
            return plan;
        }
        if pod.node().is_empty() {
            remove(pod, None, now, &mut plan);
            return plan;
        }
        let seen = cache.seen_at(key).unwrap_or(now);
        let due = seen + QUARANTINE;
        // While the reason is recorded the pod changes; that must not start the wait again.
        if now < due && disruption(pod).is_none() {
            plan.revisit_in(due.since(now));
            return plan;
        }
        remove(pod, Some("PodGC: node no longer exists"), now, &mut plan);
        plan
    }
}

/// Whether no kubelet is there to end the pod: its node is gone, or it is deleted before it got
/// one.
fn is_abandoned(cache: &Cache, pod: &Pod) -> bool {
    match pod.node() {
        "" => meta::is_terminating(&pod.metadata),
        node => cache.get::<Node>("", node).is_none(),
    }
}

/// Whether the pod is deleted on a node that will not end it.
fn is_lost(cache: &Cache, pod: &Pod) -> bool {
    meta::is_terminating(&pod.metadata)
        && cache.get::<Node>("", pod.node()).is_some_and(is_out_of_service)
}

/// Whether somebody says of a node that does not report, either, that it does not run.
fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let ready = condition(node, "Ready").is_some_and(|c| c.status == "True");
    !ready && taints.any(|t| t.key == OUT_OF_SERVICE)
}

/// The ended pods that nobody deleted, the oldest first.
#[derive(Clone, Debug, Default)]
struct Ended(BTreeSet<(Time, Arc<Key>)>);

impl Index for Ended {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let ended = |object: Option<&Object>| {
            let pod = object?.get::<Pod>().filter(|p| pods::is_terminal(p))?;
            let kept = !meta::is_terminating(&pod.metadata);
            kept.then(|| meta::created_at(&pod.metadata))
        };
        let (old, new) = (ended(old), ended(new));
        if old == new {
            return;
        }
        if let Some(created) = old {
            self.0.remove(&(created, key.clone()));
        }
        if let Some(created) = new {
            self.0.insert((created, key.clone()));
        }
    }
}

/// The key of the limit on ended pods.
fn all_ended() -> Key {
    Key::cluster(Kind::Node, "")
}

fn disruption(pod: &Pod) -> Option<&PodCondition> {
    pods::condition(pod, "DisruptionTarget").filter(|c| c.status == "True")
}

/// Deletes the oldest ended pods beyond the limit.
fn delete_ended(cache: &Cache, plan: &mut Plan) {
    let Ended(ended) = cache.index();
    let surplus = ended.len().saturating_sub(TERMINATED_PODS_MAX);
    for (_, key) in ended.iter().take(surplus.min(BURST_MAX)) {
        if let Some(pod) = cache.object(key).and_then(Object::get::<Pod>) {
            plan.request(delete_now(pod));
        }
    }
}

/// Deletes the pod at once: no kubelet will confirm its end. A pod that had not ended is marked
/// failed first, so that whoever counts on it knows.
fn remove(pod: &Pod, disrupted: Option<&str>, now: Time, plan: &mut Plan) {
    if !pods::is_terminal(pod) {
        let mut failed = pod.clone();
        let status = failed.status.get_or_insert_default();
        status.phase = Some("Failed".to_owned());
        if let Some(message) = disrupted {
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|c| c.type_ != "DisruptionTarget");
            conditions.push(PodCondition {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: Some("DeletionByPodGC".to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(now.to_meta()),
                ..PodCondition::default()
            });
        }
        plan.request(Request::Update {
            object: failed.into_object(),
            subresource: Some(Subresource::Status),
        });
    }
    plan.request(delete_now(pod));
}

fn delete_now(pod: &Pod) -> Request {
    let meta = &pod.metadata;
    Request::Delete {
        key: Key::new(
            Kind::Pod,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        uid: meta.uid.clone(),
        revision: None,
        grace_seconds: Some(0),
        propagation: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn pod(name: &str, node: &str, phase: &str, terminating: bool) -> serde_json::Value {
        let mut value = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
        if terminating {
            value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        value
    }

    fn check(pod: serde_json::Value, after_secs: u64, expected: &[&str]) {
        let mut fixture = Fixture::new(PodGc);
        fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "alive"}}));
        fixture.put(pod);
        fixture.advance(Duration::from_secs(after_secs));
        let key = Key::new(Kind::Pod, "n", "p");
        assert_eq!(summary(&fixture.reconcile(&key)), expected);
    }

    #[test]
    fn what_nobody_else_removes() {
        check(pod("p", "alive", "Running", true), 99, &[]);
        check(pod("p", "gone", "Running", false), 39, &[]);
        check(
            pod("p", "gone", "Running", false),
            40,
            &["update pods/n/p status", "delete pods/n/p grace 0"],
        );
        check(pod("p", "gone", "Succeeded", false), 40, &["delete pods/n/p grace 0"]);
        check(
            pod("p", "", "Pending", true),
            0,
            &["update pods/n/p status", "delete pods/n/p grace 0"],
        );
        check(pod("p", "", "Pending", false), 99, &[]);
    }

    #[test]
    fn pods_of_nodes_that_are_out_of_service_are_not_waited_for() {
        let mut fixture = Fixture::new(PodGc);
        let node = |ready: &str, taints: serde_json::Value| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
                "spec": {"taints": taints},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let out = json!([{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}]);
        fixture.put(node("Unknown", json!([])));
        fixture.put(pod("p", "a", "Running", true));
        fixture.put(pod("stays", "a", "Running", false));
        let key = Key::new(Kind::Pod, "n", "p");
        assert_eq!(summary(&fixture.reconcile(&key)), Vec::<String>::new());
        assert_eq!(fixture.put(node("Unknown", out.clone())), std::slice::from_ref(&key));
        assert!(fixture.put(node("Unknown", out.clone())).is_empty(), "that is known");
        assert_eq!(
            summary(&fixture.reconcile(&key)),
            ["update pods/n/p status", "delete pods/n/p grace 0"]
        );
        // One that reports runs.
        fixture.put(node("True", out.clone()));
        assert_eq!(summary(&fixture.reconcile(&key)), Vec::<String>::new());
        assert_eq!(fixture.put(node("False", out)), std::slice::from_ref(&key));
        assert_eq!(fixture.put(pod("p", "a", "Succeeded", true)), [all_ended()], "as before");
        let late = Key::new(Kind::Pod, "n", "late");
        assert_eq!(fixture.put(pod("late", "a", "Running", true)), [late]);
        assert_eq!(summary(&fixture.reconcile(&key)), ["delete pods/n/p grace 0"]);
    }

    #[test]
    fn a_vanished_node_concerns_its_pods() {
        let mut fixture = Fixture::new(PodGc);
        fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}));
        fixture.put(pod("p", "a", "Running", false));
        let keys = fixture.remove(&Key::cluster(Kind::Node, "a"));
        assert_eq!(keys, [Key::new(Kind::Pod, "n", "p")]);
        assert!(fixture.reconcile(&keys[0]).revisit.is_some());
    }

    #[test]
    fn the_oldest_ended_pods_go_when_there_are_too_many() {
        let mut fixture = Fixture::new(PodGc);
        fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}));
        let mut ended = |name: &str, created_secs: u64, terminating: bool| {
            let mut pod = pod(name, "a", "Failed", terminating);
            pod["metadata"]["creationTimestamp"] = json!(Time::from_secs(created_secs).to_meta());
            assert_eq!(fixture.put(pod), [all_ended()]);
        };
        for i in 0..TERMINATED_PODS_MAX {
            ended(&format!("p{i:05}"), 1_000, false);
        }
        ended("gone", 1, true);
        ended("young", 2_000, false);
        ended("old", 999, false);
        assert_eq!(
            summary(&fixture.reconcile(&all_ended())),
            ["delete pods/n/old grace 0", "delete pods/n/p00000 grace 0"]
        );
        fixture.settle(&all_ended());
        assert_eq!(fixture.cache.count_in(Kind::Pod, "n"), TERMINATED_PODS_MAX + 1);
    }
}
