//! [`Scheduler`]: the machine around queue, snapshot and plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use api::{
    ApiError, Key, Kind, Name, Object, Patch, PatchKind, Pod, Reply, Request, Revision,
    Subresource, Time,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::CSINode;
use machine::{
    ApiEffect, ApiInput, Cache, CallId, Calls, Delta, LeaderElector, Machine, Record, Regarding,
    Report, RngTree, WatchEvent,
};
use serde_json::Value;

use self::chooser::Chooser;
use self::claims::Reservations;
use self::consultation::Consultation;
use self::groups::Groups;
use self::hints::{allocatable, limits, looks_at_namespace, may_help, same_question, taints};
use crate::attachments::Attaching;
use crate::cycle::{Choice, Diagnosis};
use crate::desk::{Desk, ProfileId};
use crate::explain::{Explanation, Unexplained, explain};
use crate::extender;
use crate::framework::ClusterEvent;
use crate::lean::Lean;
use crate::pod_info::{Classes, Load, PodInfo, Standing, takes_place};
use crate::preemption::{Preemption, Victim};
use crate::queue::Queue;
use crate::relations::Presence;
use crate::shadow::Shadow;
use crate::snapshot::Snapshot;
use campaign::Campaign;

mod binding;
mod campaign;
mod chooser;
mod claims;
mod consultation;
mod groups;
mod hints;
#[cfg(test)]
mod tests;
mod together;

/// Decisions of one step; more wait for the next, so that replies and watches get their turn.
const DECISIONS_MAX: usize = 256;

/// A decision that was taken, for those who want to follow along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub time: Time,
    /// About which pod.
    pub pod: Key,
    /// Where it goes, or why nowhere.
    pub result: Result<Choice, Diagnosis>,
}

#[derive(Clone)]
enum Flight {
    /// The pod's binding to a node, which a profile chose.
    Bind(Key, ProfileId),
    /// Its binding by an extender.
    Delegate { pod: Key, profile: ProfileId, extender: u32, node: String },
    /// Whether a binding with a lost answer was carried out; what is to be told if not.
    Check(Key, (ProfileId, String)),
    /// A question to an extender.
    Consult,
    /// The pod's condition, and the node that is cleared for it.
    Status(Key),
    /// As that, of a pod for which others are displaced.
    Nominate(Key),
    /// The condition of a pod that is displaced for another.
    Mark { by: Key, victim: Victim },
    /// The deletion of a pod that is displaced for another.
    Evict { by: Key, victim: Victim },
    /// Whether a deletion with a lost answer was carried out.
    CheckEviction { by: Key, victim: Victim },
    /// A claim or volume for a pod.
    Volume { pod: Key, written: Key },
}

/// Assigns pods to nodes.
#[derive(Clone)]
pub struct Scheduler {
    desk: Desk,
    elector: Option<LeaderElector>,
    cache: Cache,
    /// The nodes, and the pods that have or shall have a place.
    snapshot: Snapshot,
    classes: Classes,
    queue: Queue,
    /// Pods without a node, by key.
    pending: BTreeMap<Key, PodInfo>,
    /// Pods whose binding is under way: counted on their node already.
    assumed: BTreeSet<Key>,
    /// What is under way to clear nodes, by the pod that it is done for.
    campaigns: BTreeMap<Key, Campaign>,
    /// Those of which every call was answered, by what has to be seen before they end.
    campaigns_answered: BTreeSet<(Revision, Key)>,
    /// The decision of which an extender's answer is awaited, if there is one.
    consultation: Option<Box<Consultation>>,
    /// Pods that wait for their claims.
    reservations: Reservations,
    /// Those that are placed together.
    groups: Groups,
    /// What claims stand for, as far as nodes limit it.
    attaching: Attaching,
    calls: Calls,
    flights: BTreeMap<CallId, Flight>,
    chooser: Chooser,
    /// Whether the last step found this process leading and its cache complete.
    acts: bool,
    /// Decisions since they were last taken out, if they are kept.
    decisions: Option<Vec<Decision>>,
    /// Takes from objects what is of no use here, if that is asked for.
    lean: Option<Lean>,
}

impl Scheduler {
    /// The kinds that must be watched.
    pub const KINDS: &'static [Kind] = &[
        Kind::Node,
        Kind::Pod,
        Kind::Namespace,
        Kind::Service,
        Kind::ReplicationController,
        Kind::ReplicaSet,
        Kind::StatefulSet,
        Kind::PodDisruptionBudget,
        Kind::PersistentVolume,
        Kind::PersistentVolumeClaim,
        Kind::StorageClass,
        Kind::CsiNode,
    ];

    /// Makes a scheduler of these profiles; without an elector it always leads.
    pub fn new(desk: Desk, elector: Option<LeaderElector>, rng: &RngTree) -> Self {
        Self {
            queue: Queue::new(desk.backoff()),
            desk,
            elector,
            cache: Cache::default(),
            snapshot: Snapshot::default(),
            classes: Classes::default(),
            pending: BTreeMap::new(),
            assumed: BTreeSet::new(),
            campaigns: BTreeMap::new(),
            campaigns_answered: BTreeSet::new(),
            consultation: None,
            reservations: Reservations::default(),
            groups: Groups::default(),
            attaching: Attaching::default(),
            calls: Calls::default(),
            flights: BTreeMap::new(),
            chooser: Chooser::new(rng.rng("ties")),
            acts: false,
            decisions: None,
            lean: None,
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

    /// The profiles, each with what it keeps from decision to decision.
    pub const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// The nodes as this scheduler sees them.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Keeps decisions from now on, until [`Self::take_decisions`], or no longer.
    pub fn keep_decisions(&mut self, keep: bool) {
        self.decisions = keep.then(Vec::new);
    }

    /// Takes the decisions out that were kept.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.decisions.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps of pods and nodes that it hears of from now on only what decisions depend on, and equal
    /// specs once. That is for objects that nobody else in the process holds, too.
    pub fn keep_lean(&mut self) {
        self.lean.get_or_insert_default();
    }

    /// Compares one decision in so many with the reference from now on, or none any more. Such a
    /// decision takes the reference's time in addition to its own.
    pub fn compare_decisions(&mut self, one_in: Option<NonZeroU32>) {
        self.chooser.compare(one_in);
    }

    /// What comparing decisions with the reference has come to, if that is done.
    pub const fn shadow(&self) -> Option<&Shadow> {
        self.chooser.shadow.as_ref()
    }

    /// Explains the decision about a pod that would be taken now; one that has a node is
    /// thought away from it first.
    ///
    /// This takes the reference's way and time: a fraction of a second in a large cluster.
    ///
    /// # Errors
    /// There is no decision to be taken about that pod.
    pub fn explain(&self, pod: &Key) -> Result<Explanation, Unexplained> {
        let object = self.cache.object(pod).and_then(Object::get::<Pod>);
        let mut object = Pod::clone(object.ok_or(Unexplained::Unknown)?);
        // The node it is on shall not be the only one it can go to.
        let node = object.node_name.take();
        let info = PodInfo::of(&object, &mut Classes::default()).ok_or(Unexplained::Finished)?;
        let Some(profile) = self.desk.find(&info.scheduler) else {
            let profiles = self.desk.names().map(str::to_owned).collect();
            return Err(Unexplained::Elsewhere { scheduler: info.scheduler, profiles });
        };
        let info = match self.with_volumes(&info, profile, &BTreeSet::new()) {
            Ok(with_volumes) => with_volumes.unwrap_or(info),
            Err(diagnosis) => {
                return Ok(Explanation::refused(self.desk.profile(profile), pod, &diagnosis));
            }
        };
        let mut snapshot = std::borrow::Cow::Borrowed(&self.snapshot);
        let assumed = snapshot.pod(pod).map(|placed| placed.node.to_owned());
        if assumed.is_some() {
            snapshot.to_mut().remove_pod(pod);
        }
        let (profile, start) = (self.desk.profile(profile), self.chooser.start);
        let mut rng = self.chooser.rng.clone();
        let mut explanation = explain(profile, &snapshot, pod, info.question(), start, &mut rng);
        let extenders = self.desk.extenders();
        let url = |number: u32| extenders.get(number).config.url_prefix.clone();
        explanation.extenders = extenders.interested(&object).into_iter().map(url).collect();
        explanation.node = node.map(|node| node.to_string()).or(assumed);
        let gates = object.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
        explanation.gates = gates.map(|gate| gate.name.clone()).collect();
        Ok(explanation)
    }

    /// Gives leadership up.
    pub fn release(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        if let Some(elector) = &mut self.elector {
            elector.release(now, &mut self.calls, out);
        }
    }

    fn watch(&mut self, now: Time, event: WatchEvent) {
        // What follows from a change does not look at the cache.
        let mut cache = std::mem::take(&mut self.cache);
        let event = match &mut self.lean {
            Some(lean) => lean.event(&cache, event),
            None => event,
        };
        cache.apply_each(now, event, |_, delta| match delta.key.kind {
            Kind::Node => self.node_changed(now, &delta),
            Kind::Pod => self.pod_changed(now, &delta),
            Kind::Namespace => self.namespace_changed(now, &delta),
            Kind::PodDisruptionBudget => self.budget_changed(&delta),
            Kind::CsiNode => self.limits_changed(now, &delta),
            Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass => {
                self.attaching.changed(&delta);
                self.reservations.happened();
                self.queue.happened(ClusterEvent::Storage, now);
            }
            _ => self.selector_changed(now, &delta),
        });
        self.cache = cache;
    }

    fn node_changed(&mut self, now: Time, delta: &Delta) {
        let Some(node) = delta.new.as_ref().and_then(Object::get::<Node>) else {
            self.snapshot.remove_node(&delta.key.name);
            self.queue.happened(ClusterEvent::NodeGone, now);
            return;
        };
        self.snapshot.set_node(node);
        let Some(old) = delta.old.as_ref().and_then(Object::get::<Node>) else {
            self.queue.happened(ClusterEvent::NodeAdded, now);
            return;
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

    fn limits_changed(&mut self, now: Time, delta: &Delta) {
        let limits = delta.new.as_ref().and_then(Object::get::<CSINode>).map(limits);
        if self.snapshot.set_volume_limits(&delta.key.name, limits.unwrap_or_default()) {
            self.queue.happened(ClusterEvent::VolumeLimits, now);
        }
    }

    fn namespace_changed(&mut self, now: Time, delta: &Delta) {
        let labels = delta.new.as_ref().map(|object| object.meta().labels.clone());
        let labels = labels.map(Option::unwrap_or_default);
        let name = &*delta.key.name;
        if self.snapshot.census_mut().namespaces.set(name, labels.as_ref()) {
            let pending = &self.pending;
            self.queue.happened_to(ClusterEvent::NamespaceLabels, now, |key| {
                pending.get(key).is_some_and(|pod| looks_at_namespace(&pod.kin, name))
            });
        }
    }

    fn selector_changed(&mut self, now: Time, delta: &Delta) {
        if self.snapshot.census_mut().selectors.set(&delta.key, delta.new.as_ref()) {
            let (pending, namespace) = (&self.pending, &*delta.key.namespace);
            self.queue.happened_to(ClusterEvent::Selectors, now, |key| {
                pending.get(key).is_some_and(|pod| {
                    pod.kin.constraints.is_empty() && pod.kin.identity.namespace == namespace
                })
            });
        }
    }

    fn pod_changed(&mut self, now: Time, delta: &Delta) {
        match &delta.new {
            Some(Object::Pod(pod)) if takes_place(pod) => match pod.node_name.as_deref() {
                Some(node) => self.has_node(now, &delta.key, pod, node, delta.old.as_ref()),
                None => self.wants_node(now, pod),
            },
            ended => {
                let pod = ended.as_ref().and_then(Object::get::<Pod>);
                self.groups.ended(&delta.key, pod);
                self.leave(now, &delta.key);
            }
        }
    }

    fn has_node(&mut self, now: Time, key: &Key, pod: &Pod, node: &str, old: Option<&Object>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let placed = self.snapshot.pod(key).filter(|p| p.node == node && p.uid == uid);
        // Most news of a pod is its status.
        let standing = Standing::of(pod);
        let told = |old: &Pod| {
            old.node_name == pod.node_name
                && old.spec == pod.spec
                && old.metadata.labels == pod.metadata.labels
                && old.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
        };
        if placed.is_some() && old.and_then(Object::get::<Pod>).is_some_and(told) {
            self.snapshot.set_standing(key, standing);
            return;
        }
        let Some(spec) = &pod.spec else { return };
        let load = self.classes.load(pod, spec);
        let presence = self.classes.presence(pod, spec);
        // A pod that stays where it is and asks for the same frees nothing.
        let stays = placed.as_ref().is_some_and(|p| Arc::ptr_eq(p.load, &load) || *p.load == load);
        let before = placed.map(|p| p.presence).filter(|_| stays);
        self.assumed.remove(key);
        self.stop_waiting(now, key, false);
        self.queue.remove(key);
        self.withdraw(now, key, node);
        if before.as_ref() == Some(&presence) {
            self.snapshot.set_standing(key, standing);
            return;
        }
        if !stays {
            self.leave_node(now, key);
        }
        self.snapshot.add_pod(key, uid, &presence, &load, node);
        self.snapshot.set_standing(key, standing);
        if let Some(before) = before {
            self.peer_moved(now, ClusterEvent::PeerLeft, &before);
        }
        self.peer_moved(now, ClusterEvent::PeerCame, &presence);
    }

    fn wants_node(&mut self, now: Time, pod: &Pod) {
        let Some(info) = PodInfo::of(pod, &mut self.classes) else { return };
        let key = info.key.clone();
        let replaced = self.pending.get(&key).is_some_and(|p| p.uid != info.uid)
            || self.snapshot.pod(&key).is_some_and(|p| p.uid != info.uid);
        if replaced {
            self.leave(now, &key);
        }
        let going = api::meta::is_terminating(&pod.metadata);
        if self.assumed.contains(&key) && !(going && self.give_back(now, &key)) {
            return;
        }
        // Pods that name another scheduler are another scheduler's.
        let Some(profile) = self.desk.find(&info.scheduler) else { return };
        let held = info.gated && self.desk.profile(profile).gates;
        let ready = !held && !going;
        let unchanged = self.pending.get(&key).is_some_and(|p| same_question(p, &info));
        let priority = info.priority;
        if let Some(before) = self.pending.get(&key) {
            self.groups.leave_former(before, &info);
        }
        self.groups.join(&info, ready);
        self.pending.insert(key.clone(), info);
        if !ready {
            self.queue.remove(&key);
            self.withdraw(now, &key, "");
            return;
        }
        self.nominate_as_known(now, &key);
        if !unchanged {
            self.queue.add(key, priority, now);
        }
    }

    /// Takes back where a pod was assumed to be that waits for its claims or its group, and tells
    /// whether it did: once somebody is asked to bind it, the answer decides.
    fn give_back(&mut self, now: Time, key: &Key) -> bool {
        let in_group = self.groups.withdraw(key, true);
        if !self.reservations.forget(key) && !in_group {
            return false;
        }
        // Others of its group must know.
        self.reservations.happened();
        self.assumed.remove(key);
        self.leave_node(now, key);
        true
    }

    fn leave(&mut self, now: Time, key: &Key) {
        self.queue.remove(key);
        self.stop_waiting(now, key, true);
        self.assumed.remove(key);
        self.leave_node(now, key);
        self.withdraw(now, key, "");
    }

    /// A pod has no use for a node any more: it `left`, or has one.
    fn stop_waiting(&mut self, now: Time, key: &Key, left: bool) {
        self.reservations.forget(key);
        if self.groups.withdraw(key, left) {
            self.reservations.happened();
        }
        let Some(pod) = self.pending.remove(key) else { return };
        self.groups.part(&pod);
        if let Some(group) = &pod.kin.identity.group
            && self.campaigns.contains_key(key)
        {
            // Others of the group may wait for what is under way for it.
            self.wake_group(now, &group.name);
        }
    }

    fn budget_changed(&mut self, delta: &Delta) {
        match delta.new.as_ref().and_then(Object::get::<PodDisruptionBudget>) {
            Some(budget) => self.snapshot.set_budget(budget),
            None => self.snapshot.remove_budget(&delta.key.namespace, &delta.key.name),
        }
    }

    fn leave_node(&mut self, now: Time, key: &Key) {
        let Some(pod) = self.snapshot.pod(key) else { return };
        let (presence, load) = (pod.presence, Arc::clone(pod.load));
        self.snapshot.remove_pod(key);
        self.left(now, &presence, &load);
    }

    /// Lets the pods be tried again that may be helped by a pod that left a node.
    fn left(&mut self, now: Time, presence: &Presence, load: &Load) {
        self.queue.happened(ClusterEvent::PodGone, now);
        if !load.claims.is_empty() {
            self.queue.happened(ClusterEvent::ClaimsGone, now);
        }
        self.peer_moved(now, ClusterEvent::PeerLeft, presence);
    }

    /// Lets the pods be tried again that may be helped by a pod that came to a node or left it.
    fn peer_moved(&mut self, now: Time, event: ClusterEvent, peer: &Presence) {
        let (pending, snapshot, desk) = (&self.pending, &self.snapshot, &self.desk);
        self.queue.happened_to(event, now, |key| {
            pending.get(key).is_some_and(|pod| {
                let came = event == ClusterEvent::PeerCame;
                let profile = desk.find(&pod.scheduler).map(|id| desk.profile(id));
                profile.is_some_and(|profile| may_help(&pod.kin, peer, came, snapshot, profile))
            })
        });
    }

    fn decide(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        if self.snapshot.limits_volumes() {
            self.attaching.catch_up(&self.cache);
        }
        let mut decisions = 0;
        self.consult(now, out);
        while decisions < DECISIONS_MAX && self.consultation.is_none() {
            decisions += 1;
            let Some(key) = self.queue.pop(now) else { return };
            let found = self.pending.get(&key);
            let profile = found.and_then(|pod| self.desk.find(&pod.scheduler));
            let (Some(pod), Some(profile)) = (found, profile) else {
                self.queue.remove(&key);
                continue;
            };
            if let Some(campaign) = self.campaigns.get_mut(&key) {
                // What it has asked for is not yet seen: it would ask for more.
                campaign.woken = true;
                continue;
            }
            if pod.kin.identity.group.is_some()
                && let Some(more) = self.decide_together(now, &key, profile, out)
            {
                decisions += more;
                continue;
            }
            self.decide_alone(now, key, profile, out);
        }
    }

    fn decide_alone(&mut self, now: Time, key: Key, profile: ProfileId, out: &mut Vec<ApiEffect>) {
        let extended = !self.desk.extenders().is_empty();
        if extended && self.consult_about(now, &key, profile, out) {
            return;
        }
        let Some(pod) = self.pending.get(&key) else { return };
        let with_volumes = match self.with_volumes(pod, profile, &BTreeSet::new()) {
            Ok(pod) => pod,
            Err(diagnosis) => return self.refuse(now, &key, profile, diagnosis, out),
        };
        let pod = with_volumes.as_ref().unwrap_or(pod);
        let choice = self.chooser.choose(now, &mut self.desk, &mut self.snapshot, profile, pod);
        if let Some(decisions) = &mut self.decisions {
            decisions.push(Decision { time: now, pod: key.clone(), result: choice.clone() });
        }
        match choice {
            Ok(choice) => self.place_alone(now, key, profile, choice.node, with_volumes, out),
            Err(diagnosis) => self.reject(now, &key, profile, &diagnosis, out),
        }
    }

    /// Binds a pod to a node that was chosen; first its claims, if it has any.
    fn place_alone(
        &mut self,
        now: Time,
        key: Key,
        profile: ProfileId,
        node: String,
        with_volumes: Option<PodInfo>,
        out: &mut Vec<ApiEffect>,
    ) {
        self.assume(now, &key, &node);
        match with_volumes.filter(|pod| !pod.class.volumes.is_bound()) {
            Some(pod) => self.reserve(now, &pod, profile, node, out),
            None => self.bind(key, profile, node, out),
        }
    }

    /// Counts a pod on the node that it shall have.
    fn assume(&mut self, now: Time, key: &Key, node: &str) {
        let Some(pod) = self.pending.get(key) else { return };
        let presence = Presence::of(&pod.kin);
        self.snapshot.add_pod(key, &pod.uid, &presence, &pod.class.load, node);
        self.snapshot.set_standing(key, Standing::new(pod.priority));
        self.withdraw(now, key, node);
        self.assumed.insert(key.clone());
        self.peer_moved(now, ClusterEvent::PeerCame, &presence);
    }

    fn reject(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        diagnosis: &Diagnosis,
        out: &mut Vec<ApiEffect>,
    ) {
        let rejecting = self
            .desk
            .profile(profile)
            .plugins
            .iter()
            .map(|enabled| &enabled.plugin)
            .filter(|plugin| diagnosis.plugins.contains(plugin.name()));
        let mut events: BTreeSet<ClusterEvent> =
            rejecting.flat_map(|plugin| plugin.events().iter().copied()).collect();
        events.insert(ClusterEvent::NodeAdded);
        if diagnosis.plugins.contains(extender::NAME) {
            events.insert(ClusterEvent::Anything);
        }
        if let Preemption::Found(_) | Preemption::Ineligible(_) = diagnosis.preemption {
            // It waits for those who have to go.
            events.insert(ClusterEvent::PodGone);
        }
        let kin = self.pending.get(key).map_or(0, |pod| pod.kin.id);
        self.queue.unschedulable(key.clone(), events, kin);
        self.groups.kept.remove(key);
        let message = diagnosis.message();
        let Some(pod) = self.pending.get_mut(key) else { return };
        let (uid, nominated) = (pod.uid.clone(), pod.nominated.clone());
        let known = std::mem::replace(&mut pod.complaint, message.clone()) == message;
        let regarding = Regarding::object(key, &uid);
        let reason = Name::new_static("FailedScheduling");
        let record = Record { regarding, warning: true, reason, message: message.clone() };
        self.record(now, profile, record, out);
        let node = match &diagnosis.preemption {
            Preemption::Found(eviction) => eviction.node.as_str().into(),
            Preemption::Ineligible(_) | Preemption::Failed(_) => nominated.clone(),
            Preemption::Hopeless(_) | Preemption::Untried => Name::default(),
        };
        let condition = unscheduled(now, "Unschedulable", &message);
        let renominated = (node != nominated).then_some(&*node);
        let patch = (!known || renominated.is_some())
            .then(|| status_patch(key, &uid, renominated, Some(condition)));
        if let Preemption::Found(eviction) = &diagnosis.preemption {
            self.begin_campaign(now, key, profile, eviction, patch, out);
        } else {
            if let Some(request) = patch {
                let id = self.calls.call(request, out);
                self.flights.insert(id, Flight::Status(key.clone()));
            }
            if node.is_empty() {
                self.withdraw(now, key, "");
            }
        }
    }

    fn record(&self, now: Time, profile: ProfileId, record: Record, out: &mut Vec<ApiEffect>) {
        let (component, host) = (self.desk.component(profile).clone(), Name::default());
        out.push(ApiEffect::Record(Box::new(Report { time: now, component, host, record })));
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
            Some(Flight::Bind(key, profile)) => self.bound(now, key, profile, result, out),
            Some(Flight::Delegate { pod, profile, extender, node }) => {
                self.delegated(now, (pod, profile, extender, node), result, out);
            }
            Some(Flight::Consult) => self.consulted(id, result),
            Some(Flight::Check(key, why)) => self.checked(now, key, why, result, out),
            Some(Flight::Status(key)) => self.status_told(now, &key, &result),
            Some(Flight::Nominate(key)) => self.nominated(now, &key, &result),
            Some(Flight::Mark { by, victim }) => self.marked(now, by, victim, &result, out),
            Some(Flight::Evict { by, victim }) => self.evicted(now, by, victim, &result, out),
            Some(Flight::CheckEviction { by, victim }) => {
                self.eviction_checked(now, &by, &victim, &result, out);
            }
            Some(Flight::Volume { pod, written }) => {
                self.volume_written(now, &pod, written, result, out);
            }
        }
    }
}

/// The condition of a pod that has no node.
fn unscheduled(now: Time, reason: &str, message: &str) -> Value {
    serde_json::json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": now.to_meta(),
    })
}

/// Changes a condition of a pod, or which node is cleared for it, or both: the empty name is none.
fn status_patch(key: &Key, uid: &str, node: Option<&str>, condition: Option<Value>) -> Request {
    let mut status = serde_json::Map::new();
    if let Some(condition) = condition {
        status.insert("conditions".to_owned(), Value::Array(vec![condition]));
    }
    if let Some(node) = node {
        let name = if node.is_empty() { Value::Null } else { node.into() };
        status.insert("nominatedNodeName".to_owned(), name);
    }
    let body = serde_json::json!({"metadata": {"uid": uid}, "status": status});
    Request::Patch {
        key: key.clone(),
        subresource: Some(Subresource::Status),
        patch: Patch { kind: PatchKind::Strategic, body: body.into() },
    }
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
        self.end_campaigns(now);
        if let Some(elector) = &mut self.elector {
            elector.wake(now, &mut self.calls, out);
        }
        self.acts = self.is_leader(now) && self.cache.synced(Self::KINDS.iter().copied());
        if self.acts {
            self.decide(now, out);
            self.proceed(now, out);
        } else {
            // Another process may lead by now and decide otherwise.
            self.end_consultation(now);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        // A follower waits for leadership alone; its queue must not wake it.
        let consultation = self.consultation.as_ref().map(|awaited| awaited.deadline);
        let queue = if !self.acts {
            None
        } else if self.queue.has_active() && consultation.is_none() {
            Some(Time::ZERO)
        } else {
            // Whose turn it is waits for an extender's answer, too.
            let turn = consultation.or_else(|| self.queue.wake_at());
            [self.reservations.wake_at(), self.groups.wake_at(), turn].into_iter().flatten().min()
        };
        let elector = self.elector.as_ref().and_then(LeaderElector::wake_at);
        [queue, elector].into_iter().flatten().min()
    }
}
