//! Deletes pods that do not tolerate their node's `NoExecute` taints, or not any longer.
//!
//! How long a pod has waited is counted from what the API stores, so that it does not start anew
//! with each controller manager.
//!
//! Source: kubernetes 1.33, `pkg/controller/tainteviction/taint_eviction.go`.

use std::time::Duration;

use api::hash::fnv64;
use api::{ApiObject, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::{Node, PodCondition, Taint, Toleration};
use machine::{Aspects, Cache, Delta, Memory, Plan, Reconciler, Record};

use crate::node_lifecycle::NO_EXECUTE;
use crate::{announce, ownership, pods};

/// What is remembered of a node: which of its pods shall go, and when.
const SCHEDULED: &str = "scheduled";

/// No more pods are evicted in one pass.
const BURST_MAX: usize = 500;

/// Evicts pods from tainted nodes. The keys are nodes.
pub struct TaintEviction;

impl Reconciler for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Pod]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::SPEC | Aspects::NODE,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::Node {
            let node = |o: &'_ Option<Object>| o.as_ref().and_then(Object::share::<Node>);
            let (old, new) = (node(&delta.old), node(&delta.new));
            let taints = |node| Option::into_iter(node).flat_map(evicting);
            let changed = !taints(old.as_deref()).eq(taints(new.as_deref()));
            return if changed { vec![delta.key.clone()] } else { Vec::new() };
        }
        let pod = delta.new.as_ref().and_then(Object::get::<Pod>);
        let before = delta.old.as_ref().and_then(Object::get::<Pod>);
        if before.zip(pod).is_some_and(|(before, now)| is_as_tolerant(before, now)) {
            return Vec::new();
        }
        let node = pod.and_then(|p| cache.get::<Node>("", p.node()));
        node.filter(|n| evicting(n).next().is_some())
            .and_then(|n| n.metadata.name.as_deref())
            .map(|name| Key::cluster(Kind::Node, name))
            .into_iter()
            .collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        let before = memory.notes.remove(SCHEDULED).unwrap_or_default();
        let Some(node) = cache.object(key).and_then(Object::get::<Node>) else { return plan };
        let taints: Vec<&Taint> = evicting(node).collect();
        if taints.is_empty() && before.is_empty() {
            return plan;
        }
        if taints.iter().any(|t| t.time_added.is_none()) {
            // Without it nobody could say how long pods have tolerated the taint.
            plan.request(stamped(node, now));
            memory.notes.insert(SCHEDULED, before);
            return plan;
        }
        let mut scheduled = Vec::new();
        for pod in cache.pods_of_node(&key.name) {
            if meta::is_terminating(&pod.metadata) || pods::is_terminal(pod) {
                continue;
            }
            match deadline(pod, &taints) {
                None => {
                    let id = id_of(pod);
                    if before.iter().any(|(_, scheduled)| *scheduled == id) {
                        plan.events.push(cancelled(pod));
                    }
                }
                Some(due) if due > now => {
                    scheduled.push((due, id_of(pod)));
                    plan.revisit_in(due.since(now));
                }
                Some(_) if plan.requests.len() >= BURST_MAX => {}
                Some(_) => evict(pod, now, &mut plan),
            }
        }
        if !scheduled.is_empty() {
            memory.notes.insert(SCHEDULED, scheduled);
        }
        plan
    }
}

/// Whether the taints of its node mean the same to a pod as before, seen without a look at them.
fn is_as_tolerant(before: &Pod, now: &Pod) -> bool {
    let same_spec = before.spec.as_ref().zip(now.spec.as_ref()).is_some_and(|(a, b)| a.is_same(b));
    same_spec && before.node_name == now.node_name
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|t| t.effect == NO_EXECUTE)
}

fn stamped(node: &Node, now: Time) -> Request {
    let mut node = node.clone();
    for taint in node.spec.get_or_insert_default().taints.iter_mut().flatten() {
        if taint.effect == NO_EXECUTE && taint.time_added.is_none() {
            taint.time_added = Some(now.to_meta());
        }
    }
    Request::Update { object: node.into_object(), subresource: None }
}

/// When the pod must go; `None` when it may stay as long as these taints.
fn deadline(pod: &Pod, taints: &[&Taint]) -> Option<Time> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let arrived = pods::condition(pod, "PodScheduled")
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or_else(|| meta::created_at(&pod.metadata), Time::from_meta);
    let mut due: Option<Time> = None;
    for taint in taints {
        let at = match tolerations.iter().find(|t| tolerates(t, taint)) {
            None => Time::ZERO,
            Some(Toleration { toleration_seconds: None, .. }) => continue,
            Some(Toleration { toleration_seconds: Some(secs), .. }) => {
                let added = taint.time_added.as_ref().map(Time::from_meta).unwrap_or_default();
                let secs = u64::try_from(*secs).unwrap_or(0);
                // Stored times are cut to the second; a pod must not go early for that.
                let cut = u64::from(secs > 0);
                added.max(arrived) + Duration::from_secs(secs.saturating_add(cut))
            }
        };
        due = Some(due.map_or(at, |d| d.min(at)));
    }
    due
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// What tells a pod from others of its node in what is remembered.
fn id_of(pod: &Pod) -> i64 {
    fnv64(pod.metadata.uid.as_deref().unwrap_or_default().as_bytes()).cast_signed()
}

/// A pod that was to go later may stay after all.
fn cancelled(pod: &Pod) -> Record {
    let message = format!("Cancelling deletion of Pod {}", path_of(pod));
    announce::normal(pod, "TaintManagerEviction", message)
}

fn path_of(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default())
}

fn evict(pod: &Pod, now: Time, plan: &mut Plan) {
    if pods::condition(pod, "DisruptionTarget").is_none_or(|c| c.status != "True") {
        let mut marked = pod.clone();
        let conditions = marked.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("DeletionByTaintManager".to_owned()),
            message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
            last_transition_time: Some(now.to_meta()),
            ..PodCondition::default()
        });
        plan.request(ownership::update_status(marked));
    }
    let message = format!("Marking for deletion Pod {}", path_of(pod));
    let record = announce::normal(pod, "TaintManagerEviction", message);
    plan.request_announced(ownership::delete(pod), announce::when_done(record));
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn check(tolerations: Value, taints: Value, after_secs: u64, evicted: bool) {
        let mut fixture = Fixture::new(TaintEviction);
        fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "spec": {"taints": taints}}));
        fixture.put(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "p"},
            "spec": {"containers": [], "nodeName": "a", "tolerations": tolerations}}));
        fixture.advance(Duration::from_secs(after_secs));
        let plan = fixture.reconcile(&Key::cluster(Kind::Node, "a"));
        let expected: &[&str] =
            if evicted { &["update pods/n/p status", "delete pods/n/p"] } else { &[] };
        assert_eq!(summary(&plan), expected, "{tolerations} {taints} after {after_secs}");
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let added = crate::fixture::START.to_meta();
        let taint = json!([{"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": added}]);
        let tolerate = |secs: i64| {
            json!([{"key": "k", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": secs}])
        };
        check(json!([]), taint.clone(), 0, true);
        check(json!([{"operator": "Exists"}]), taint.clone(), 9999, false);
        check(json!([{"key": "k", "value": "v"}]), taint.clone(), 9999, false);
        check(json!([{"key": "k", "value": "w"}]), taint.clone(), 0, true);
        check(json!([{"key": "k", "operator": "?"}]), taint.clone(), 0, true);
        check(tolerate(300), taint.clone(), 300, false);
        check(tolerate(300), taint.clone(), 301, true);
        check(tolerate(0), taint.clone(), 0, true);
        check(tolerate(-5), taint, 0, true);
        let harmless = json!([{"key": "k", "effect": "NoSchedule"}]);
        check(json!([]), harmless, 9999, false);
    }

    #[test]
    fn a_deletion_that_is_called_off_is_told_once() {
        let mut fixture = Fixture::new(TaintEviction);
        let node = |taints: Value| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
                "spec": {"taints": taints}})
        };
        let added = crate::fixture::START.to_meta();
        let taint = json!([{"key": "k", "effect": "NoExecute", "timeAdded": added}]);
        let pod = |name: &str, seconds: Option<i64>| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"containers": [], "nodeName": "a", "tolerations": [{"key": "k",
                    "operator": "Exists", "tolerationSeconds": seconds}]}})
        };
        let key = Key::cluster(Kind::Node, "a");
        fixture.put(node(taint.clone()));
        fixture.put(pod("p", Some(300)));
        fixture.put(pod("q", Some(300)));
        fixture.put(pod("r", None));
        assert_eq!(fixture.told(&key), [""; 0]);
        // One comes to tolerate it, then the taint goes.
        fixture.put(pod("q", None));
        let cancelled =
            |name: &str| format!("TaintManagerEviction Cancelling deletion of Pod n/{name}");
        assert_eq!(fixture.told(&key), [cancelled("q")]);
        fixture.put(node(json!([])));
        assert_eq!(fixture.told(&key), [cancelled("p")]);
        assert_eq!(fixture.told(&key), [""; 0]);
        // Where nothing was to be done, nothing is called off.
        fixture.put(node(taint));
        fixture.advance(Duration::from_secs(1000));
        assert_eq!(fixture.told(&key), [""; 0]);
        fixture.put(node(json!([])));
        assert_eq!(fixture.told(&key), [""; 0]);
    }

    #[test]
    fn an_unstamped_taint_is_stamped_first() {
        let mut fixture = Fixture::new(TaintEviction);
        fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let key = Key::cluster(Kind::Node, "a");
        assert_eq!(summary(&fixture.reconcile(&key)), ["update nodes/a"]);
        fixture.settle(&key);
        assert_eq!(summary(&fixture.reconcile(&key)), Vec::<String>::new());
    }
}
