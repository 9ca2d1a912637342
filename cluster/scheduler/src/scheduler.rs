//! [`Scheduler`]: the machine around queue, snapshot and plugins.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApiError, Key, Kind, Object, Patch, PatchKind, Reply, Request, Subresource, Time};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use machine::{
    ApiEffect, ApiInput, Cache, CallId, Calls, Delta, LeaderElector, Machine, Record, Recorder,
    RngTree, WatchEvent,
};
use rand_chacha::ChaCha8Rng;

use crate::cycle::{Diagnosis, choose};
use crate::framework::{ClusterEvent, Plugin};
use crate::plugins::default_plugins;
use crate::queue::Queue;
use crate::rows::PodInfo;
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// Decisions of one step; more wait for the next, so that replies and watches get their turn.
const DECISIONS_MAX: usize = 256;

/// A named configuration of the scheduler.
pub struct Profile {
    /// Pods choose a profile by `spec.schedulerName`.
    pub name: String,
    /// The plugins, in the order in which they filter.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// Share of the nodes to look at, in percent; adaptive when absent.
    pub percentage_of_nodes_to_score: Option<usize>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            plugins: default_plugins(),
            percentage_of_nodes_to_score: None,
        }
    }
}

enum Flight {
    /// The pod's binding to a node.
    Bind(Key),
    /// Whether a binding with a lost answer was carried out.
    Check(Key),
    /// A condition; its answer changes nothing.
    Status,
}

/// Assigns pods to nodes.
pub struct Scheduler {
    profile: Profile,
    elector: Option<LeaderElector>,
    cache: Cache,
    snapshot: Snapshot,
    queue: Queue,
    /// Pods that have or shall have a place, by key.
    placed: BTreeMap<Key, PodInfo>,
    /// Pods without a node, by key.
    pending: BTreeMap<Key, PodInfo>,
    /// Pods whose binding is under way: counted on their node already.
    assumed: BTreeSet<Key>,
    calls: Calls,
    flights: BTreeMap<CallId, Flight>,
    recorder: Recorder,
    start: usize,
    rng: ChaCha8Rng,
    /// Whether the last step found this process leading and its cache complete.
    acts: bool,
}

impl Scheduler {
    /// The kinds that must be watched.
    pub const KINDS: &'static [Kind] = &[Kind::Node, Kind::Pod];

    /// Makes a scheduler; without an elector it always leads.
    pub fn new(profile: Profile, elector: Option<LeaderElector>, rng: &RngTree) -> Self {
        let recorder = Recorder::new(&profile.name, "");
        Self {
            profile,
            elector,
            cache: Cache::default(),
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            placed: BTreeMap::new(),
            pending: BTreeMap::new(),
            assumed: BTreeSet::new(),
            calls: Calls::default(),
            flights: BTreeMap::new(),
            recorder,
            start: 0,
            rng: rng.rng("ties"),
            acts: false,
        }
    }

    /// Whether this process leads at `now`.
    pub fn is_leader(&self, now: Time) -> bool {
        self.elector.as_ref().is_none_or(|e| e.is_leader(now))
    }

    /// How many pods wait for a node.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The nodes as this scheduler sees them.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Gives leadership up.
    pub fn release(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        if let Some(elector) = &mut self.elector {
            elector.release(now, &mut self.calls, out);
        }
    }

    fn watch(&mut self, now: Time, event: WatchEvent) {
        for delta in self.cache.apply(now, event) {
            match delta.key.kind {
                Kind::Node => self.node_changed(now, &delta),
                Kind::Pod => self.pod_changed(now, &delta),
                _ => {}
            }
        }
    }

    fn node_changed(&mut self, now: Time, delta: &Delta) {
        let Some(node) = delta.new.as_ref().and_then(Object::get::<Node>) else {
            self.snapshot.remove_node(&delta.key.name);
            return;
        };
        self.snapshot.set_node(node);
        let Some(old) = delta.old.as_ref().and_then(Object::get::<Node>) else {
            self.queue.happened(ClusterEvent::NodeAdded, now);
            return;
        };
        let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
        let taints = |n: &Node| {
            n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable)).unwrap_or_default()
        };
        if allocatable(old) != allocatable(node) {
            self.queue.happened(ClusterEvent::NodeAllocatable, now);
        }
        if old.metadata.labels != node.metadata.labels {
            self.queue.happened(ClusterEvent::NodeLabels, now);
        }
        if taints(old) != taints(node) {
            self.queue.happened(ClusterEvent::NodeTaints, now);
        }
    }

    fn pod_changed(&mut self, now: Time, delta: &Delta) {
        let key = &delta.key;
        let info = match &delta.new {
            Some(Object::Pod(pod)) => PodInfo::of(pod),
            _ => None,
        };
        match info {
            None => self.leave(now, key),
            Some(info) if !info.node.is_empty() => {
                let before = self.placed.get(key);
                // A pod that stays where it is and asks for the same changes nothing.
                let same = before.is_some_and(|b| {
                    b.node == info.node && b.uid == info.uid && b.requests == info.requests
                });
                self.assumed.remove(key);
                self.pending.remove(key);
                self.queue.remove(key);
                if !same {
                    self.leave_node(now, key);
                    self.snapshot.add_pod(&info);
                }
                self.placed.insert(key.clone(), info);
            }
            Some(info) => self.wants_node(now, info, delta.new.as_ref()),
        }
    }

    fn wants_node(&mut self, now: Time, info: PodInfo, object: Option<&Object>) {
        let key = info.key.clone();
        let replaced = self.pending.get(&key).is_some_and(|p| p.uid != info.uid)
            || self.placed.get(&key).is_some_and(|p| p.uid != info.uid);
        if replaced {
            self.leave(now, &key);
        }
        let terminating = object.is_some_and(|o| api::meta::is_terminating(o.meta()));
        let ours = info.scheduler == self.profile.name && !info.gated && !terminating;
        if self.assumed.contains(&key) {
            return;
        }
        let unchanged = self.pending.get(&key).is_some_and(|p| same_question(p, &info));
        let priority = info.priority;
        self.pending.insert(key.clone(), info);
        if !ours {
            self.queue.remove(&key);
        } else if !unchanged {
            self.queue.add(key, priority, now);
        }
    }

    fn leave(&mut self, now: Time, key: &Key) {
        self.queue.remove(key);
        self.pending.remove(key);
        self.assumed.remove(key);
        self.leave_node(now, key);
    }

    fn leave_node(&mut self, now: Time, key: &Key) {
        if let Some(before) = self.placed.remove(key) {
            self.snapshot.remove_pod(&before);
            self.queue.happened(ClusterEvent::PodGone, now);
        }
    }

    fn decide(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        for _ in 0..DECISIONS_MAX {
            let Some(key) = self.queue.pop(now) else { return };
            let Some(pod) = self.pending.get(&key).cloned() else {
                self.queue.remove(&key);
                continue;
            };
            let choice = choose(
                &self.profile.plugins,
                &self.snapshot,
                &pod,
                self.profile.percentage_of_nodes_to_score,
                &mut self.start,
                &mut self.rng,
            );
            match choice {
                Ok(choice) => self.bind(pod, choice.node, out),
                Err(diagnosis) => self.reject(now, &pod, &diagnosis, out),
            }
        }
    }

    fn bind(&mut self, pod: PodInfo, node: String, out: &mut Vec<ApiEffect>) {
        let request =
            Request::Bind { pod: pod.key.clone(), uid: pod.uid.clone(), node: node.clone() };
        let id = self.calls.call(request, out);
        self.flights.insert(id, Flight::Bind(pod.key.clone()));
        let placed = PodInfo { node, ..pod };
        self.snapshot.add_pod(&placed);
        self.assumed.insert(placed.key.clone());
        self.placed.insert(placed.key.clone(), placed);
    }

    fn reject(
        &mut self,
        now: Time,
        pod: &PodInfo,
        diagnosis: &Diagnosis,
        out: &mut Vec<ApiEffect>,
    ) {
        let rejecting =
            self.profile.plugins.iter().filter(|p| diagnosis.plugins.contains(&p.name()));
        let mut events: BTreeSet<ClusterEvent> =
            rejecting.flat_map(|p| p.events().iter().copied()).collect();
        events.insert(ClusterEvent::NodeAdded);
        self.queue.unschedulable(pod.key.clone(), events);
        let message = diagnosis.message();
        self.record(now, pod, true, "FailedScheduling", &message, out);
        if pod.complaint == message {
            return;
        }
        if let Some(known) = self.pending.get_mut(&pod.key) {
            known.complaint.clone_from(&message);
        }
        let body = serde_json::json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": message, "lastTransitionTime": now.to_meta(),
            }]},
        });
        let request = Request::Patch {
            key: pod.key.clone(),
            subresource: Some(Subresource::Status),
            patch: Patch { kind: PatchKind::Strategic, body },
        };
        let id = self.calls.call(request, out);
        self.flights.insert(id, Flight::Status);
    }

    fn record(
        &mut self,
        now: Time,
        pod: &PodInfo,
        warning: bool,
        reason: &str,
        message: &str,
        out: &mut Vec<ApiEffect>,
    ) {
        let record = Record {
            regarding: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            },
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        out.push(ApiEffect::Record(self.recorder.write(now, &record)));
    }

    fn reply(
        &mut self,
        now: Time,
        id: CallId,
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match self.flights.remove(&id) {
            None => {
                if let Some(elector) = &mut self.elector {
                    elector.reply(now, id, result, &mut self.calls, out);
                }
            }
            Some(Flight::Bind(key)) => self.bound(now, key, &result, out),
            Some(Flight::Check(key)) => self.checked(now, key, result, out),
            Some(Flight::Status) => {}
        }
    }

    fn bound(
        &mut self,
        now: Time,
        key: Key,
        result: &Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            Ok(_) => {
                if let Some(pod) = self.placed.get(&key).cloned() {
                    let message = format!("Successfully assigned {} to {}", key.path(), pod.node);
                    self.record(now, &pod, false, "Scheduled", &message, out);
                }
            }
            Err(ApiError::Unreachable(_)) => self.forget(now, key),
            // It may have been carried out: only the store knows.
            Err(_) => self.check(key, out),
        }
    }

    fn check(&mut self, key: Key, out: &mut Vec<ApiEffect>) {
        if self.assumed.contains(&key) {
            let id = self.calls.call(Request::Get(key.clone()), out);
            self.flights.insert(id, Flight::Check(key));
        }
    }

    fn checked(
        &mut self,
        now: Time,
        key: Key,
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            Ok(Reply::Object(object)) => {
                let bound = object
                    .get::<k8s_openapi::api::core::v1::Pod>()
                    .and_then(|p| p.spec.as_ref()?.node_name.as_deref())
                    .is_some_and(|n| !n.is_empty());
                let same = self.placed.get(&key).is_some_and(|p| p.uid == object.uid());
                // Bound: the watch will say so. Another pod of that name: the watch, too.
                if !bound && same {
                    self.forget(now, key);
                }
            }
            Err(error) if error.code() == Some(404) => self.leave(now, &key),
            _ => self.check(key, out),
        }
    }

    /// Takes back an assumed placement and tries the pod again.
    fn forget(&mut self, now: Time, key: Key) {
        if self.assumed.remove(&key) {
            self.leave_node(now, &key);
            self.queue.retry(key, now);
        }
    }
}

/// Whether an unschedulable pod asks the same question as before: a change of its status alone
/// is no reason to try it again.
fn same_question(a: &PodInfo, b: &PodInfo) -> bool {
    a.uid == b.uid
        && a.requests == b.requests
        && a.gated == b.gated
        && a.priority == b.priority
        && a.tolerations == b.tolerations
        && a.node_selector == b.node_selector
}

impl Machine for Scheduler {
    type Input = ApiInput;
    type Effect = ApiEffect;

    fn step(&mut self, now: Time, input: ApiInput, out: &mut Vec<ApiEffect>) {
        match input {
            ApiInput::Watch(event) => self.watch(now, event),
            ApiInput::Reply { id, result } => self.reply(now, id, result, out),
            ApiInput::Wake => {}
        }
        if let Some(elector) = &mut self.elector {
            elector.wake(now, &mut self.calls, out);
        }
        self.acts = self.is_leader(now) && self.cache.synced(Self::KINDS.iter().copied());
        if self.acts {
            self.decide(now, out);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        // A follower waits for leadership alone; its queue must not wake it.
        let queue = if !self.acts {
            None
        } else if self.queue.has_active() {
            Some(Time::ZERO)
        } else {
            self.queue.wake_at()
        };
        let elector = self.elector.as_ref().and_then(LeaderElector::wake_at);
        [queue, elector].into_iter().flatten().min()
    }
}
