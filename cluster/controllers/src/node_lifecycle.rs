//! Notices nodes that stopped reporting, and marks nodes with taints for their conditions.
//!
//! A node counts as alive as long as this process sees its lease renewed, by this process's
//! clock: timestamps written by other hosts are not compared with it.
//!
//! Source: kubernetes 1.33, `pkg/controller/nodelifecycle/node_lifecycle_controller.go`. One
//! difference: while no node of the whole cluster reports, the fault is most likely here, so pods
//! stay ready and services keep their endpoints.

mod zones;

use std::time::Duration;

use api::{ApiObject, Key, Kind, Name, Object, Pod, Request, Time, meta};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, PodCondition, Taint};
use machine::{Aspects, Cache, Delta, Index, Memory, Plan, Reconciler, Record, Regarding};

use self::zones::Turn;
use crate::{announce, ownership, pods};

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// A kubelet renews its lease every ten seconds; after four missed renewals it is not heard of
/// any more.
const GRACE: Duration = Duration::from_secs(40);

/// A node that never reported gets longer: it may be starting.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// Conditions that nobody vouches for when the kubelet is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions that keep new pods away when they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// Keeps conditions and taints of nodes in step with what is heard of them.
pub struct NodeLifecycle {
    unhealthy_zone_threshold_percent: u8,
}

impl NodeLifecycle {
    /// Makes a controller for which a zone is disrupted when at least that many of a hundred of
    /// its nodes are silent; above 100 none ever is.
    pub const fn new(unhealthy_zone_threshold_percent: u8) -> Self {
        Self { unhealthy_zone_threshold_percent }
    }
}

impl Reconciler for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Lease, Kind::Pod]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<zones::Zones>::default()]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::NODE | Aspects::READINESS,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::Node => zones::affected(cache, delta).into_iter().collect(),
            Kind::Lease if &*delta.key.namespace == LEASES => {
                vec![Key::cluster(Kind::Node, &delta.key.name)]
            }
            Kind::Pod => silent_node_of(cache, delta).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = self.reconcile(cache, key, now);
        if !zones::is_turn(key) {
            let node = cache.object(key).and_then(Object::get::<Node>);
            plan.events.extend(told_of(node, key, memory));
        }
        plan
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        if zones::is_turn(key) {
            return give_up_next(cache, key, self.unhealthy_zone_threshold_percent, now);
        }
        let mut plan = Plan::nothing();
        let Some(node) = cache.object(key).and_then(Object::get::<Node>) else { return plan };
        if meta::is_terminating(&node.metadata) {
            return plan;
        }
        if let Some(silent) = note_silence(cache, node, key, now, &mut plan) {
            let record = announce::normal(
                node,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", key.name),
            );
            let was_ready = condition(node, "Ready").is_some_and(|c| c.status == "True");
            let request = ownership::update_status(silent);
            if was_ready {
                plan.request_announced(request, announce::when_done(record));
            } else {
                plan.request(request);
            }
            return plan;
        }
        // While nobody reports, those that were given up are taken back.
        let nobody_reports = zones::nobody_reports(cache);
        let given_up = eviction_taint(node).is_some() && !nobody_reports;
        plan.requests.extend(tainted(node, given_up, now));
        let silent = condition(node, "Ready").is_some_and(|c| c.status == "Unknown");
        if silent && !nobody_reports {
            pods_not_ready(cache, &key.name, now, &mut plan);
        }
        plan
    }
}

/// What people are told of a node that this process has not known, or does not know any more:
/// once by each process that acts, as by Kubernetes. Remembered is the node's UID.
fn told_of(node: Option<&Node>, key: &Key, memory: &mut Memory) -> Option<Record> {
    let uid = node.and_then(|node| node.metadata.uid.as_deref()).unwrap_or_default();
    let (uid, reason, what) = match (memory.text.as_str(), uid) {
        ("", "") => return None,
        ("", uid) => (Name::from(uid), "RegisteredNode", ["Registered", "in"]),
        (_, "") => (std::mem::take(&mut memory.text), "RemovingNode", ["Removing", "from"]),
        // A node that was made anew meanwhile is the same one to Kubernetes.
        (before, uid) if before == uid => return None,
        (_, uid) => {
            memory.text = uid.into();
            return None;
        }
    };
    if node.is_some() {
        memory.text = uid.clone();
    }
    let ([event, place], name) = (what, &key.name);
    Some(Record {
        regarding: Regarding::object(key, &uid),
        warning: false,
        reason: Name::new_static(reason),
        message: format!("Node {name} event: {event} Node {name} {place} Controller"),
    })
}

/// Gives up the node of a zone whose turn it is.
///
/// Zones have keys of their own: while it is not known what became of a mark, no other node of
/// the zone gets one, whatever is heard of it meanwhile.
fn give_up_next(cache: &Cache, key: &Key, disrupted_percent: u8, now: Time) -> Plan {
    let mut plan = Plan::nothing();
    match zones::turn(cache, key, disrupted_percent, now) {
        Turn::Of(next) => {
            let node = cache.object(&next).and_then(Object::get::<Node>);
            plan.requests.extend(node.and_then(|node| tainted(node, true, now)));
        }
        Turn::Later(delay) => plan.revisit_in(delay),
        Turn::Nobody => {}
    }
    plan
}

/// The condition of that type.
pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The taint by which this controller drives pods away from the node, if it has one.
pub(crate) fn eviction_taint(node: &Node) -> Option<&Taint> {
    node.spec.as_ref()?.taints.iter().flatten().find(|t| is_eviction_taint(t))
}

fn is_eviction_taint(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// The node of a ready pod that nothing is heard of.
fn silent_node_of(cache: &Cache, delta: &Delta) -> Option<Key> {
    let pod = delta.new.as_ref()?.get::<Pod>()?;
    let before = delta.old.as_ref().and_then(Object::get::<Pod>);
    // One that was ready there before is known since the node fell silent.
    let known = |before: &Pod| before.node_name == pod.node_name && pods::is_ready(before);
    if !pods::is_ready(pod) || before.is_some_and(known) {
        return None;
    }
    let node = cache.get::<Node>("", pod.node())?;
    let silent = condition(node, "Ready").is_some_and(|c| c.status == "Unknown");
    silent.then(|| Key::cluster(Kind::Node, pod.node()))
}

/// The node with its conditions unknown, when it was silent for too long and does not say so
/// yet; else asks to be called again when it will have been.
fn note_silence(cache: &Cache, node: &Node, key: &Key, now: Time, plan: &mut Plan) -> Option<Node> {
    let lease = Key::new(Lease::KIND, LEASES, &key.name);
    if cache.is_renewing(&lease) {
        return None;
    }
    // A kubelet that comes back may post its status before it renews the lease.
    let heard = cache.seen_at(&lease).max(cache.seen_at(key))?;
    let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
    let due = heard + grace;
    if now < due {
        plan.revisit_in(due.since(now));
        return None;
    }
    let mut silent = node.clone();
    let conditions = silent.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.to_meta()),
            }),
            Some(old) if old.status != "Unknown" => {
                old.status = "Unknown".to_owned();
                old.reason = Some("NodeStatusUnknown".to_owned());
                old.message = Some("Kubelet stopped posting node status.".to_owned());
                old.last_transition_time = Some(now.to_meta());
            }
            Some(_) => {}
        }
    }
    (silent != *node).then_some(silent)
}

/// The write that gives the node the taints it should have, if it has others.
fn tainted(node: &Node, given_up: bool, now: Time) -> Option<Request> {
    let taints = taints_of(node, given_up, now);
    let present = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    (taints != present).then(|| {
        let mut node = node.clone();
        node.spec.get_or_insert_default().taints = Some(taints).filter(|t| !t.is_empty());
        Request::Update { object: node.into_object(), subresource: None }
    })
}

/// The taints the node should have: those of others as they are, and ours by its conditions.
fn taints_of(node: &Node, given_up: bool, now: Time) -> Vec<Taint> {
    let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let ready = condition(node, "Ready").map(|c| c.status.as_str());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        Some("False") => wanted.push((NOT_READY, NO_SCHEDULE)),
        Some("Unknown") => wanted.push((UNREACHABLE, NO_SCHEDULE)),
        _ => {}
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|c| c.status == "True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let eviction = match ready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    wanted.extend(eviction.filter(|_| given_up).map(|key| (key, NO_EXECUTE)));
    // A node that never reported keeps the taint it was registered with.
    let reported = ready.is_some();
    let managed = |t: &Taint| {
        is_eviction_taint(t)
            || t.effect == NO_SCHEDULE
                && (t.key == UNSCHEDULABLE
                    || PRESSURES.iter().any(|(_, key)| t.key == *key)
                    || reported && (t.key == NOT_READY || t.key == UNREACHABLE))
    };
    let is_wanted = |t: &Taint| wanted.contains(&(t.key.as_str(), t.effect.as_str()));
    let mut taints: Vec<Taint> =
        present.iter().filter(|t| !managed(t) || is_wanted(t)).cloned().collect();
    // Pods wait since the node was first marked, whatever the mark was.
    let since = eviction_taint(node).and_then(|t| t.time_added.clone());
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            let since = since.clone().filter(|_| effect == NO_EXECUTE);
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(since.unwrap_or_else(|| now.to_meta())),
            });
        }
    }
    taints
}

/// Says of the pods of a silent node that they are not ready, so that nothing is sent to them.
fn pods_not_ready(cache: &Cache, node: &str, now: Time, plan: &mut Plan) {
    for pod in cache.pods_of_node(node).filter(|p| pods::is_ready(p)) {
        let mut marked = pod.clone();
        let conditions = marked.status.get_or_insert_default().conditions.get_or_insert_default();
        for ready in conditions.iter_mut().filter(|c| c.type_ == "Ready") {
            *ready = PodCondition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                last_transition_time: Some(now.to_meta()),
                ..PodCondition::default()
            };
        }
        let record = announce::warning(pod, "NodeNotReady", "Node is not ready".to_owned());
        plan.request_announced(ownership::update_status(marked), announce::when_done(record));
    }
}

#[cfg(test)]
mod tests;
