//! Pods that give way to more important ones: P17, P18 and P24.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Name, Object, PatchBody, Pod, Request, Revision, Time};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use machine::WatchEvent;

use super::of_process::OfProcess;
use super::placement::asked_binding;
use super::store::coordinates;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, Amounts, company};
use crate::plan::{Plan, PodTemplate};
use crate::world::ProcessId;

/// The condition of a pod that is taken from its node, and why it is.
const DISRUPTION: &str = "DisruptionTarget";
const REASON: &str = "PreemptionByScheduler";
/// A pod that had others displaced for it more often than this never gets anywhere.
const PREEMPTIONS_MAX: usize = 16;

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

/// Whether the pod waits for a node and may displace others for it.
fn may_displace(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref());
    oracle::node_of(pod).is_none()
        && oracle::is_active(pod)
        && !oracle::is_gated(pod)
        && policy != Some("Never")
}

/// The node that was promised to a pod.
fn nominated(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
}

/// The node that a call promises to a pod.
fn promised<'a>(
    cluster: &dyn Cluster,
    occurrence: &Occurrence<'a>,
) -> Option<(ProcessId, &'a Key, &'a str)> {
    let Occurrence::Called { by, request: Request::Patch { key, patch, .. } } = occurrence else {
        return None;
    };
    let PatchBody::Json(body) = &patch.body else { return None };
    let node = body["status"]["nominatedNodeName"].as_str().filter(|node| !node.is_empty())?;
    (cluster.role(*by) == Role::Scheduler && key.kind == Kind::Pod).then_some((*by, key, node))
}

/// What the pods of a node ask for, but for some.
fn sum(cluster: &dyn Cluster, node: &str, but: impl Fn(&Key, &Pod) -> bool) -> Amounts {
    let mut sum = Amounts::default();
    for object in cluster.objects(Kind::Pod) {
        let Some(pod) = object.get::<Pod>() else { continue };
        let here = oracle::node_of(pod) == Some(node) && !oracle::has_ended(pod);
        if let Some(spec) = pod.spec.as_deref().filter(|_| here && !but(&object.key(), pod)) {
            sum.add(&oracle::requests(spec), 1);
        }
    }
    sum
}

fn node<'a>(cluster: &'a dyn Cluster, name: &str) -> Option<&'a Node> {
    cluster.object(&Key::cluster(Kind::Node, name))?.get()
}

/// Pods that one scheduler displaces in one moment.
#[derive(Clone, Default)]
struct Victims {
    at: Time,
    by: Option<ProcessId>,
    keys: BTreeSet<Key>,
}

/// P17: whoever gives way is less important than a pod that waits, is told why, and had to go.
///
/// That all victims together were needed is judged when they are displaced in the moment in which
/// their node is promised, and by resources alone. A pod that gives way is marked as the target of
/// a disruption before it is deleted.
///
/// Whether somebody waits is judged by what the scheduler was shown, too, and a little longer than
/// that: the mark goes out first, and the deletion when the mark has its answer. A node is promised
/// by what a scheduler knows of its pods: where others have bound some that it was not shown yet,
/// as when its watch is broken while it comes to lead, the promise is not judged.
#[derive(Clone, Default)]
pub(super) struct GivesWay {
    victims: Victims,
    /// Whether no pod can be more important than another.
    all_equal: bool,
    /// The priorities of pods that wait as each scheduler was shown them.
    shown: BTreeMap<ProcessId, BTreeMap<Key, i32>>,
    /// When each scheduler was shown that a pod waits no more, and its priority.
    lately: Vec<(ProcessId, Time, i32)>,
    /// How far the watch of pods of each scheduler has come.
    seen: OfProcess<Revision>,
    /// At which revision each writer last bound a pod to a node.
    bound: BTreeMap<Name, BTreeMap<Option<ProcessId>, Revision>>,
}

/// A mark has its answer within that time, or the deletion is given up.
const MARKED: Duration = Duration::from_secs(10);

impl GivesWay {
    pub(super) fn new(plan: &Plan) -> Self {
        let all_equal = plan.templates.iter().all(|t| t.priority == 0);
        Self { all_equal, ..Self::default() }
    }

    fn waits_no_more(&mut self, now: Time, to: ProcessId, key: &Key) {
        if let Some(priority) = self.shown.get_mut(&to).and_then(|shown| shown.remove(key)) {
            self.lately.retain(|(_, at, _)| now.since(*at) < MARKED);
            self.lately.push((to, now, priority));
        }
    }

    fn delivered(&mut self, now: Time, to: ProcessId, event: &WatchEvent) {
        match event {
            WatchEvent::Changed(object @ Object::Pod(pod)) if may_displace(pod) => {
                let shown = self.shown.entry(to).or_default();
                shown.insert(object.key(), priority(pod));
            }
            WatchEvent::Changed(object @ Object::Pod(_)) => {
                self.waits_no_more(now, to, &object.key());
            }
            WatchEvent::Deleted { key, .. } if key.kind == Kind::Pod => {
                self.waits_no_more(now, to, key);
            }
            WatchEvent::Replaced { kind: Kind::Pod, objects, .. } => {
                let waiting = objects.iter().filter_map(|o| Some((o.key(), o.get::<Pod>()?)));
                let waiting: BTreeMap<Key, i32> = waiting
                    .filter(|(_, pod)| may_displace(pod))
                    .map(|(key, pod)| (key, priority(pod)))
                    .collect();
                let known = self.shown.get(&to).into_iter().flat_map(BTreeMap::keys);
                let gone: Vec<Key> = known.filter(|k| !waiting.contains_key(k)).cloned().collect();
                gone.iter().for_each(|key| self.waits_no_more(now, to, key));
                self.shown.insert(to, waiting);
            }
            _ => {}
        }
    }

    /// Whether the scheduler has reason to believe that a pod waits that is more important.
    fn believes(&self, now: Time, by: ProcessId, least: i32) -> bool {
        let mut shown = self.shown.get(&by).into_iter().flat_map(BTreeMap::values);
        let mut lately = self.lately.iter();
        shown.any(|priority| *priority > least)
            || lately.any(|(of, at, p)| *of == by && now.since(*at) < MARKED && *p > least)
    }

    fn displaces(&mut self, cluster: &dyn Cluster, by: ProcessId, key: &Key) -> Option<String> {
        let victim = oracle::pod(cluster.object(key)).filter(|p| oracle::is_active(p))?;
        let now = cluster.now();
        if (self.victims.at, self.victims.by) != (now, Some(by)) {
            self.victims = Victims { at: now, by: Some(by), keys: BTreeSet::new() };
        }
        self.victims.keys.insert(key.clone());
        let waits = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
        let mut above = waits.filter(|p| may_displace(p) && priority(p) > priority(victim));
        (above.next().is_none() && !self.believes(now, by, priority(victim)))
            .then(|| format!("{key} is displaced, and no pod waits that is more important"))
    }

    fn binds(&mut self, by: Option<ProcessId>, old: Option<&Pod>, new: &Pod, at: Revision) {
        let Some(node) = &new.node_name else { return };
        if old.and_then(oracle::node_of) != Some(node) {
            self.bound.entry(node.clone()).or_default().insert(by, at);
        }
    }

    /// Whether others have bound pods to a node that the scheduler was not shown yet.
    fn is_behind(&mut self, by: ProcessId, node: &str) -> bool {
        let seen = *self.seen.of(by);
        let mut others = self.bound.get(node).into_iter().flatten();
        others.any(|(writer, at)| *writer != Some(by) && *at > seen)
    }

    /// Judges the node that is promised to a pod.
    fn promises(
        &self,
        cluster: &dyn Cluster,
        (by, key, name): (ProcessId, &Key, &str),
    ) -> Option<String> {
        let pod = oracle::pod(cluster.object(key))?;
        let (spec, allocatable) = (pod.spec.as_deref()?, oracle::allocatable(node(cluster, name)?));
        let asks = oracle::requests(spec);
        let fits = |but: &dyn Fn(&Key, &Pod) -> bool| {
            let mut all = sum(cluster, name, but);
            all.add(&asks, 1);
            all.beyond(&allocatable).is_none()
        };
        let below = |_: &Key, other: &Pod| priority(other) < priority(pod);
        if !fits(&below) {
            return Some(format!(
                "{key} is promised {name}, where it fits beside no more important"
            ));
        }
        let of_moment = (self.victims.at, self.victims.by) == (cluster.now(), Some(by));
        // Others may have had to go for another reason than room.
        let minds = cluster.plan().templates.iter().any(PodTemplate::minds_others);
        let pods = || cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
        let only_room = oracle::host_ports(spec).is_empty()
            && oracle::volumes::claims_of(pod).is_empty()
            && (!minds || company::is_indifferent(pod, pods()));
        if !of_moment || !only_room {
            return None;
        }
        let here =
            |key: &&Key| oracle::pod(cluster.object(key)).and_then(oracle::node_of) == Some(name);
        let victims: BTreeSet<&Key> = self.victims.keys.iter().filter(here).collect();
        let goes =
            |key: &Key, other: &Pod| victims.contains(key) || oracle::is_going(&other.metadata);
        let spared = victims.iter().find(|spared| fits(&|k, p| goes(k, p) && k != **spared))?;
        Some(format!("{spared} is displaced from {name} for {key}, which fits beside it"))
    }
}

impl Check for GivesWay {
    fn property(&self) -> &'static str {
        "P17"
    }

    fn statement(&self) -> &'static str {
        "pods give way to more important ones alone, no more of them than must, and are told why"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if let Some(promise @ (by, _, node)) = promised(cluster, occurrence)
            && !self.is_behind(by, node)
        {
            found.extend(self.promises(cluster, promise));
        }
        if let Occurrence::Committed { by, old, new: Some(new), revision, .. } = occurrence
            && let Some(pod) = new.get::<Pod>()
        {
            self.binds(*by, oracle::pod(*old), pod, *revision);
        }
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::Scheduler => {
                let (kind, revision) = coordinates(event);
                if kind == Kind::Pod {
                    *self.seen.of(*to) = revision;
                }
                if !self.all_equal {
                    self.delivered(cluster.now(), *to, event);
                }
            }
            Occurrence::Started(process) => {
                self.shown.remove(process);
                self.seen.forget(*process);
            }
            Occurrence::Called { by, request: Request::Delete { key, .. } }
                if key.kind == Kind::Pod && cluster.role(*by) == Role::Scheduler =>
            {
                found.extend(self.displaces(cluster, *by, key));
            }
            Occurrence::Committed { by: Some(by), request, key, old: Some(old), .. }
                if matches!(request, Request::Delete { .. })
                    && key.kind == Kind::Pod
                    && cluster.role(*by) == Role::Scheduler =>
            {
                let Some(pod) = old.get::<Pod>().filter(|p| oracle::is_active(p)) else { return };
                let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
                // A mark that somebody takes for an old one is taken back, but stays readable.
                let told = conditions.any(|c| {
                    c.type_ == DISRUPTION
                        && (c.reason.as_deref() == Some(REASON) || c.status == "False")
                });
                if !told {
                    found.push(format!("{key} gives way and is not told why"));
                }
            }
            _ => {}
        }
    }
}

/// P18: nobody less important takes the room that was made for a pod.
///
/// A scheduler that promises a pod another node, or none, needs not keep the first one, whenever
/// its word arrives. A pod that had its place before the promise is bound there all the same, when
/// its claims are bound: those who give way do so for both.
#[derive(Clone, Default)]
pub(super) struct RoomIsKept {
    /// Pods of which a scheduler has said so, until a write to them is carried out.
    released: BTreeSet<Key>,
    /// Claims that a scheduler asks to be bound, for pods that it has not bound yet.
    claims: BTreeSet<(ProcessId, Key)>,
    /// Who had a place on the node that a scheduler promised to a pod, and waited for claims.
    earlier: BTreeMap<(ProcessId, Key), BTreeSet<Key>>,
    /// The pods that each node is promised to, as stored.
    promised: BTreeMap<String, BTreeSet<Key>>,
}

impl RoomIsKept {
    fn follow(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Called { by, request } if cluster.role(*by) == Role::Scheduler => {
                self.called(cluster, *by, request);
                if let Some((by, key, node)) = promised(cluster, occurrence) {
                    let earlier = self.waiting_on(cluster, by, node);
                    self.earlier.insert((by, key.clone()), earlier);
                }
            }
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Pod => {
                self.released.remove(*key);
                let waits = new.and_then(Object::get::<Pod>).is_some_and(may_displace);
                if !waits {
                    self.earlier.retain(|(_, pod), _| pod != *key);
                }
                self.note_promise(key, oracle::pod(*old), oracle::pod(*new));
            }
            Occurrence::Crashed(process) | Occurrence::Started(process) => {
                self.claims.retain(|(by, _)| by != process);
                self.earlier.retain(|(by, _), _| by != process);
            }
            _ => {}
        }
    }

    fn note_promise(&mut self, key: &Key, old: Option<&Pod>, new: Option<&Pod>) {
        let (old, new) = (old.and_then(nominated), new.and_then(nominated));
        if old == new {
            return;
        }
        if let Some(node) = old
            && let Some(pods) = self.promised.get_mut(node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.promised.remove(node);
            }
        }
        if let Some(node) = new {
            self.promised.entry(node.to_owned()).or_default().insert(key.clone());
        }
    }

    fn called(&mut self, cluster: &dyn Cluster, by: ProcessId, request: &Request) {
        match request {
            Request::Patch { key, patch, .. }
                if key.kind == Kind::Pod
                    && patch.body.json()["status"].get("nominatedNodeName").is_some() =>
            {
                self.released.insert(key.clone());
                self.earlier.remove(&(by, key.clone()));
            }
            Request::Update { object, .. } => {
                let claim = match object {
                    Object::PersistentVolumeClaim(_) => Some(object.key()),
                    Object::PersistentVolume(volume) => claim_key(volume),
                    _ => None,
                };
                self.claims.extend(claim.map(|claim| (by, claim)));
            }
            Request::Bind { pod, .. } => {
                for claim in claims_of(cluster, pod) {
                    self.claims.remove(&(by, claim));
                }
            }
            _ => {}
        }
    }

    /// The pods that a scheduler counts on a node and does not bind yet, for their claims.
    fn waiting_on(&self, cluster: &dyn Cluster, by: ProcessId, node: &str) -> BTreeSet<Key> {
        let counted = cluster.placements(by).and_then(|mut nodes| nodes.remove(node));
        let waits = |pod: &Key| {
            claims_of(cluster, pod).into_iter().any(|claim| self.claims.contains(&(by, claim)))
        };
        counted.into_iter().flatten().filter(waits).collect()
    }
}

/// The claims of a pod.
fn claims_of(cluster: &dyn Cluster, pod: &Key) -> Vec<Key> {
    let claims = cluster.object(pod).and_then(Object::get::<Pod>).map(oracle::volumes::claims_of);
    let key =
        |(name, _): (String, bool)| Key::new(Kind::PersistentVolumeClaim, &pod.namespace, &name);
    claims.into_iter().flatten().map(key).collect()
}

/// The claim that a volume is for.
fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let (namespace, name) = (claim.namespace.as_deref()?, claim.name.as_deref()?);
    Some(Key::new(Kind::PersistentVolumeClaim, namespace, name))
}

impl Check for RoomIsKept {
    fn property(&self) -> &'static str {
        "P18"
    }

    fn statement(&self) -> &'static str {
        "the room that was made for a pod goes to nobody less important"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.follow(cluster, occurrence);
        let Some((by, key, pod, name)) = asked_binding(cluster, occurrence) else { return };
        let Some(promised) = self.promised.get(name) else { return };
        // The scheduler must have been shown the promise, or have made it itself: it keeps none
        // that somebody else made a moment ago.
        let Some(counted) = cluster.placements(by) else { return };
        // One that is about to be bound elsewhere needs the room no more.
        let waits = |pod: &Key| {
            !self.released.contains(pod) && !counted.values().any(|keys| keys.contains(pod))
        };
        let promised: Vec<&Pod> = promised
            .iter()
            .filter(|promised| waits(promised))
            .filter(|promised| {
                let earlier = self.earlier.get(&(by, (*promised).clone()));
                earlier.is_none_or(|pods| !pods.contains(key))
            })
            .filter_map(|promised| oracle::pod(cluster.object(promised)))
            .filter(|p| may_displace(p) && priority(p) > priority(pod))
            .collect();
        if promised.is_empty() {
            return;
        }
        let (Some(node), Some(spec)) = (node(cluster, name), pod.spec.as_deref()) else { return };
        let on_node = counted.get(name);
        let mut all =
            sum(cluster, name, |k, _| k == key || on_node.is_none_or(|keys| !keys.contains(k)));
        all.add(&oracle::requests(spec), 1);
        let free_of_promises = all.beyond(&oracle::allocatable(node)).is_none();
        for pod in &promised {
            if let Some(spec) = pod.spec.as_deref() {
                all.add(&oracle::requests(spec), 1);
            }
        }
        if free_of_promises && let Some((what, ..)) = all.beyond(&oracle::allocatable(node)) {
            let whose = promised[0].metadata.name.as_deref().unwrap_or_default();
            found.push(format!("{key} is bound to {name}, whose {what} was promised to {whose}"));
        }
    }
}

/// The room on a node that was promised to a pod.
#[derive(Clone)]
struct Room {
    node: String,
    since: Time,
    /// Pods that came there later and had to go again.
    given_away: usize,
}

/// P24: a pod for which others give way gets a node in the end, or they stop giving way.
///
/// They do not stop when it is promised one node after the other, or when those give way who have
/// only come to its node after that was promised: so its room is given away again and again.
#[derive(Clone, Default)]
pub(super) struct PreemptionEnds {
    /// How often a node was promised to a pod, by UID.
    promises: BTreeMap<String, usize>,
    rooms: BTreeMap<Key, Room>,
}

impl PreemptionEnds {
    /// Notes what is promised to a pod.
    fn promised(&mut self, now: Time, key: &Key, pod: Option<&Pod>) {
        match pod.filter(|pod| may_displace(pod)).and_then(nominated) {
            None => {
                self.rooms.remove(key);
            }
            Some(node) => {
                if self.rooms.get(key).is_none_or(|room| room.node != node) {
                    let room = Room { node: node.to_owned(), since: now, given_away: 0 };
                    self.rooms.insert(key.clone(), room);
                }
            }
        }
    }

    /// A pod gives way.
    fn gives_way(&mut self, victim: &Pod, found: &mut Vec<String>) {
        let node = oracle::node_of(victim);
        let came = api::meta::created_at(&victim.metadata);
        let rooms = self.rooms.iter_mut().filter(|(_, room)| node == Some(&room.node));
        for (key, room) in rooms.filter(|(_, room)| came > room.since) {
            room.given_away += 1;
            if room.given_away == PREEMPTIONS_MAX + 1 {
                let node = &room.node;
                found.push(format!(
                    "the room on {node} that {key} was promised is given away again \
                                    and again"
                ));
            }
        }
    }
}

impl Check for PreemptionEnds {
    fn property(&self) -> &'static str {
        "P24"
    }

    fn statement(&self) -> &'static str {
        "a pod for which others give way gets a node, or they stop giving way"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if let Some((_, key, node)) = promised(cluster, occurrence)
            && let Some(object) = cluster.object(key)
        {
            let promises = self.promises.entry(object.uid().to_owned()).or_default();
            *promises += 1;
            if *promises == PREEMPTIONS_MAX + 1 {
                found.push(format!("{key} is promised a node again and again, {node} at last"));
            }
        }
        match occurrence {
            Occurrence::Called { by, request: Request::Delete { key, .. } }
                if key.kind == Kind::Pod && cluster.role(*by) == Role::Scheduler =>
            {
                if let Some(victim) = oracle::pod(cluster.object(key)) {
                    self.gives_way(victim, found);
                }
            }
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Pod => {
                self.promised(cluster.now(), key, oracle::pod(*new));
                if let (Some(old), None) = (old, new) {
                    self.promises.remove(old.uid());
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::Pod) {
            let Some(pod) = object.get::<Pod>().filter(|p| may_displace(p)) else { continue };
            let Some(node) = nominated(pod).filter(|name| node(cluster, name).is_some()) else {
                continue;
            };
            found.push(format!(
                "{} still waits at rest for {node}, which it was promised",
                object.key()
            ));
        }
    }
}

#[cfg(test)]
mod tests;
