//! Controllers that keep a number of pods: P27 to P31.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Revision, Subresource, Time};

use super::brood::{Broods, Change, Life, Lives, PATIENCE, known_owner, replicas};
use super::store::coordinates;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::distribution::Distribution;
use crate::oracle;
use crate::plan::Plan;
use crate::span::Span;
use crate::world::ProcessId;

/// P27: when nothing is asked for and nothing goes wrong any more, the cluster comes to rest, and
/// what controllers report is what is there.
#[derive(Clone, Default)]
pub(super) struct ComesToRest;

/// What a status says, and what it should say.
struct Reported {
    key: Key,
    what: &'static str,
    says: i64,
    is: i64,
}

fn reports(cluster: &dyn Cluster) -> Vec<Reported> {
    let mut pods: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
        let owner = oracle::controller(&pod.metadata).filter(|_| oracle::is_active(pod));
        if let Some(owner) = owner {
            let (all, ready) = pods.entry(owner).or_default();
            *all += 1;
            *ready += i64::from(oracle::is_ready(pod));
        }
    }
    let mut reports = Vec::new();
    for kind in [Kind::ReplicaSet, Kind::ReplicationController] {
        for object in cluster.objects(kind) {
            let (all, ready) = pods.get(object.uid()).copied().unwrap_or_default();
            let (says_all, says_ready, observed) = match object {
                Object::ReplicaSet(set) => {
                    let status = set.status.clone().unwrap_or_default();
                    (status.replicas, status.ready_replicas, status.observed_generation)
                }
                Object::ReplicationController(rc) => {
                    let status = rc.status.clone().unwrap_or_default();
                    (status.replicas, status.ready_replicas, status.observed_generation)
                }
                _ => continue,
            };
            let generation = object.meta().generation.unwrap_or(0);
            let observed = observed.unwrap_or(0);
            let rows = [
                ("replicas", i64::from(says_all), all),
                ("ready replicas", i64::from(says_ready.unwrap_or(0)), ready),
                ("observed generation", observed, generation),
            ];
            reports.extend(rows.map(|(what, says, is)| Reported {
                key: object.key(),
                what,
                says,
                is,
            }));
        }
    }
    reports
}

impl Check for ComesToRest {
    fn property(&self) -> &'static str {
        "P27"
    }

    fn statement(&self) -> &'static str {
        "left alone, the cluster comes to rest, and what controllers report is what is there"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            let settings = &cluster.plan().settings;
            found.push(format!(
                "{} after the faults were healed the cluster still writes: it was never silent \
                 for {}",
                settings.settle, settings.quiet
            ));
            return;
        }
        for report in reports(cluster).into_iter().filter(|r| r.says != r.is) {
            let Reported { key, what, says, is } = report;
            found.push(format!("{key} reports {says} {what} at rest, and {is} is right"));
        }
    }
}

/// P28: at rest everybody has the pods that are asked for.
#[derive(Clone, Default)]
pub(super) struct RightNumber;

impl Check for RightNumber {
    fn property(&self) -> &'static str {
        "P28"
    }

    fn statement(&self) -> &'static str {
        "at rest replica sets and replication controllers have as many pods as they ask for"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
            let owner = oracle::controller(&pod.metadata).filter(|_| oracle::is_active(pod));
            if let Some(owner) = owner {
                *counts.entry(owner).or_default() += 1;
            }
        }
        for kind in [Kind::ReplicaSet, Kind::ReplicationController] {
            for object in cluster.objects(kind).filter(|o| !oracle::is_going(o.meta())) {
                let has = counts.get(object.uid()).copied().unwrap_or(0);
                let wanted = replicas(object).unwrap_or(0);
                if has != wanted {
                    let key = object.key();
                    found.push(format!("{key} has {has} pods at rest and asks for {wanted}"));
                }
            }
        }
    }
}

/// A creation or deletion of a pod that a controller manager has asked for.
#[derive(Clone)]
struct Asked {
    by: Life,
    at: Time,
    /// How many pods the owner was to have, as far as the asking process knew.
    limit: i64,
    /// How far the asking process had seen pods.
    seen: Revision,
}

impl Asked {
    /// Whether it is carried out now when the asking process takes it for lost, or may.
    fn is_late(&self, now: Time, last_asked: Option<&Time>) -> bool {
        now.since(self.at) > PATIENCE || last_asked.is_some_and(|last| *last > self.at)
    }
}

/// How many pods an owner has lately been known to want, and how far pods were seen then. A plan
/// is carried out in batches, each after the answers to the last: while that goes on, what counts
/// is what was known when the plan was made.
#[derive(Clone, Default)]
struct Lately(BTreeMap<(ProcessId, String), Vec<Known>>);

/// What a process knew when it made a call.
#[derive(Clone, Copy)]
struct Known {
    at: Time,
    limit: i64,
    seen: Revision,
}

/// Batches of one plan follow each other in less time than this.
const PLAN_MAX: Duration = Duration::from_secs(60);

impl Lately {
    /// Takes in what the process knows when it makes a call; returns what was known when the
    /// plans were made that the call may belong to.
    fn known(&mut self, by: ProcessId, uid: &str, now: Known) -> &[Known] {
        let known = self.0.entry((by, uid.to_owned())).or_default();
        known.retain(|k| now.at.since(k.at) < PLAN_MAX);
        if known.last().is_none_or(|last| last.limit != now.limit) {
            known.push(now);
        }
        known
    }
}

/// P29: nobody makes more pods than are asked for, however old what it sees is and whatever
/// became of its calls.
///
/// Two cases are excused, for there nobody could know: a creation that is carried out after a
/// later one was asked for, or after nobody waits for its answer any more (its outcome was
/// unknown), and owners for which two processes (or two lives of one) have made pods.
#[derive(Clone, Default)]
pub(super) struct NoOvershoot {
    broods: Broods,
    lives: Lives,
    asked: BTreeMap<Key, Asked>,
    last_asked: BTreeMap<String, Time>,
    late: BTreeMap<String, i64>,
    creators: BTreeMap<String, BTreeSet<Life>>,
    lately: Lately,
}

impl NoOvershoot {
    fn called(&mut self, cluster: &dyn Cluster, by: ProcessId, pod: &Pod) {
        let Some(uid) = oracle::controller(&pod.metadata) else { return };
        let Some(limit) = known_owner(cluster, by, pod).and_then(replicas) else { return };
        let meta = &pod.metadata;
        let key = Key::new(
            Kind::Pod,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let (at, seen) = (cluster.now(), Revision::default());
        let known = self.lately.known(by, uid, Known { at, limit, seen });
        let limit = known.iter().map(|k| k.limit).max().unwrap_or(limit);
        let life = self.lives.of(by);
        self.creators.entry(uid.to_owned()).or_default().insert(life);
        self.last_asked.insert(uid.to_owned(), at);
        self.asked.insert(key, Asked { by: life, at, limit, seen });
    }

    fn joined(&mut self, now: Time, key: &Key, uid: &str) -> Option<String> {
        let asked = self.asked.remove(key)?;
        if asked.is_late(now, self.last_asked.get(uid)) {
            *self.late.entry(uid.to_owned()).or_default() += 1;
            return None;
        }
        let alone = self.creators.get(uid).is_some_and(|c| c.len() == 1 && c.contains(&asked.by));
        let late = self.late.get(uid).copied().unwrap_or(0);
        let has = self.broods.size(uid);
        (alone && has > asked.limit + late).then(|| {
            format!("{key} is pod number {has} of a controller that asks for {}", asked.limit)
        })
    }
}

impl Check for NoOvershoot {
    fn property(&self) -> &'static str {
        "P29"
    }

    fn statement(&self) -> &'static str {
        "nobody makes more pods than are asked for, however old what it sees is"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        match occurrence {
            Occurrence::Called { by, request: Request::Create(Object::Pod(pod)) } => {
                self.called(cluster, *by, pod);
            }
            Occurrence::Committed { key, old, new, request, .. } => {
                let change = self.broods.committed(key, *old, *new);
                if let (Some(Change::Joined(uid)), Request::Create(_)) = (change, request) {
                    found.extend(self.joined(cluster.now(), key, &uid));
                }
            }
            Occurrence::Answered { request: Request::Create(object @ Object::Pod(_)), .. } => {
                self.asked.remove(&object.key());
            }
            _ => {}
        }
    }
}

/// Pods that a controller manager has said to disrupt. The mark and the deletion go out together,
/// so the store need not have the mark yet when the deletion is asked for.
#[derive(Clone, Default)]
struct Disrupted(BTreeSet<Key>);

impl Disrupted {
    /// Takes in what happened.
    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Called {
                by,
                request:
                    Request::Update {
                        object: object @ Object::Pod(pod),
                        subresource: Some(Subresource::Status),
                    },
            } if cluster.role(*by) == Role::ControllerManager
                && oracle::condition_is_true(pod, DISRUPTION) =>
            {
                self.0.insert(object.key());
            }
            Occurrence::Committed { key, new: None, .. } => {
                self.0.remove(*key);
            }
            _ => {}
        }
    }

    /// Whether the pod is to go for another reason than being surplus.
    fn contains(&self, key: &Key, pod: &Pod) -> bool {
        self.0.contains(key) || oracle::condition_is_true(pod, DISRUPTION)
    }
}

/// The condition of pods that are taken from their nodes.
const DISRUPTION: &str = "DisruptionTarget";

/// P30: nobody deletes pods below the number that is asked for because what it sees is old, or
/// floods the API server.
///
/// What others take away meanwhile is nobody's fault: a loss that the deleting process had not
/// seen when it made its plan is excused. So is a deletion of its own that is carried out when it
/// does not wait for the answer any more.
#[derive(Clone)]
pub(super) struct NoUndershoot {
    broods: Broods,
    lives: Lives,
    disrupted: Disrupted,
    seen: BTreeMap<ProcessId, Revision>,
    asked: BTreeMap<Key, Asked>,
    last_asked: BTreeMap<String, Time>,
    /// Pods that left a brood: when, and by whose deletion of surplus.
    losses: BTreeMap<String, Vec<(Revision, Option<Life>)>>,
    batches: BTreeMap<(Life, String), Batch>,
    lately: Lately,
    /// Whether answers take time, so that two batches never fall into one moment.
    batches_are_apart: bool,
}

/// The creations that were asked for in one moment.
#[derive(Clone, Default)]
struct Batch {
    at: Time,
    size: usize,
    before: usize,
}

/// No more creations of one owner in one moment.
const BURST_MAX: usize = 500;
/// Losses that are remembered of one owner.
const LOSSES_MAX: usize = 4_096;

impl NoUndershoot {
    pub(super) fn new(plan: &Plan) -> Self {
        let network = &plan.settings.network;
        let no_time = |d: &Distribution| *d == Distribution::Constant(Span::ZERO);
        Self {
            broods: Broods::default(),
            lives: Lives::default(),
            disrupted: Disrupted::default(),
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_asked: BTreeMap::new(),
            losses: BTreeMap::new(),
            batches: BTreeMap::new(),
            lately: Lately::default(),
            batches_are_apart: !(no_time(&network.control_plane) && no_time(&network.service)),
        }
    }

    fn creates(&mut self, now: Time, by: ProcessId, pod: &Pod) -> Option<String> {
        let uid = oracle::controller(&pod.metadata)?;
        let batch = self.batches.entry((self.lives.of(by), uid.to_owned())).or_default();
        if batch.at != now || batch.size == 0 {
            *batch = Batch { at: now, size: 0, before: batch.size };
        }
        batch.size += 1;
        let slow = (2 * batch.before).max(1);
        if batch.size == BURST_MAX + 1 {
            return Some(format!(
                "more than {BURST_MAX} pods of controller {uid} are created at once"
            ));
        }
        (self.batches_are_apart && batch.size == slow + 1).then(|| {
            let before = batch.before;
            format!("more than {slow} pods of controller {uid} are created at once, after {before}")
        })
    }

    /// Notes the deletion of a surplus pod: of one that its controller, not the taint manager,
    /// the garbage collector or a dying namespace, wants to go.
    fn deletes(&mut self, cluster: &dyn Cluster, by: ProcessId, key: &Key) {
        let Some(pod) = oracle::pod(cluster.object(key)) else { return };
        let Some(uid) = oracle::controller(&pod.metadata) else { return };
        let Some(owner) = known_owner(cluster, by, pod) else { return };
        let namespace = cluster.known(by, &Key::cluster(Kind::Namespace, &key.namespace));
        let dying = |o: &Object| oracle::is_going(o.meta());
        if self.disrupted.contains(key, pod) || dying(owner) || namespace.is_some_and(dying) {
            return;
        }
        let Some(limit) = replicas(owner) else { return };
        let (at, seen) = (cluster.now(), self.seen.get(&by).copied().unwrap_or_default());
        let known = self.lately.known(by, uid, Known { at, limit, seen });
        let limit = known.iter().map(|k| k.limit).min().unwrap_or(limit);
        let seen = known.iter().map(|k| k.seen).min().unwrap_or(seen);
        self.last_asked.insert(uid.to_owned(), at);
        self.asked.insert(key.clone(), Asked { by: self.lives.of(by), at, limit, seen });
    }

    fn left(
        &mut self,
        now: Time,
        key: &Key,
        uid: &str,
        deleted: bool,
        at: Revision,
    ) -> Option<String> {
        let asked = self.asked.remove(key).filter(|_| deleted);
        let late = asked.as_ref().is_some_and(|a| a.is_late(now, self.last_asked.get(uid)));
        let by = asked.as_ref().filter(|_| !late).map(|a| a.by);
        let losses = self.losses.entry(uid.to_owned()).or_default();
        if losses.len() >= LOSSES_MAX {
            losses.drain(..LOSSES_MAX / 2);
        }
        losses.push((at, by));
        let asked = asked.filter(|_| !late)?;
        let unseen = losses.iter().filter(|(r, by)| *r > asked.seen && *by != Some(asked.by));
        let unseen = i64::try_from(unseen.count()).unwrap_or(i64::MAX);
        let has = self.broods.size(uid);
        (has.saturating_add(unseen) < asked.limit).then(|| {
            format!(
                "{key} was deleted as surplus of a controller that asks for {} pods, and {has} are \
                 left",
                asked.limit
            )
        })
    }
}

impl Check for NoUndershoot {
    fn property(&self) -> &'static str {
        "P30"
    }

    fn statement(&self) -> &'static str {
        "nobody deletes pods that are asked for, or floods the API server"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        self.disrupted.observe(cluster, occurrence);
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::ControllerManager => {
                let (kind, revision) = coordinates(event);
                if kind == Kind::Pod {
                    self.seen.insert(*to, revision);
                }
            }
            Occurrence::Called { by, request: Request::Create(Object::Pod(pod)) } => {
                found.extend(self.creates(cluster.now(), *by, pod));
            }
            Occurrence::Called {
                by,
                request:
                    Request::Delete {
                        key, revision: None, grace_seconds: None, propagation: None, ..
                    },
            } if key.kind == Kind::Pod && cluster.role(*by) == Role::ControllerManager => {
                self.deletes(cluster, *by, key);
            }
            Occurrence::Committed { key, old, new, request, revision, .. } => {
                if let Some(Change::Left(uid)) = self.broods.committed(key, *old, *new) {
                    let deleted = matches!(request, Request::Delete { .. });
                    found.extend(self.left(cluster.now(), key, &uid, deleted, *revision));
                }
            }
            _ => {}
        }
    }
}

/// P31: of surplus pods those go first that are of least use: without a node, then not yet
/// running, then not ready.
///
/// A controller plans once and deletes in batches, while pods change. Only pods whose standing
/// has not changed for long are compared.
#[derive(Clone, Default)]
pub(super) struct LeastUsefulFirst {
    broods: Broods,
    standing: BTreeMap<Key, (Standing, Time)>,
    asked: BTreeSet<Key>,
    disrupted: Disrupted,
}

/// How useful a pod is: assigned, running, ready.
type Standing = (bool, bool, bool);

/// Longer than any plan takes to be carried out.
const SETTLED: Duration = Duration::from_secs(300);

fn standing(pod: &Pod) -> Standing {
    (oracle::node_of(pod).is_some(), oracle::phase(pod) == "Running", oracle::is_ready(pod))
}

impl LeastUsefulFirst {
    fn deletes(&mut self, cluster: &dyn Cluster, by: ProcessId, key: &Key) -> Option<String> {
        self.asked.insert(key.clone());
        let pod = oracle::pod(cluster.known(by, key)).filter(|p| oracle::is_active(p))?;
        if oracle::condition_is_true(pod, DISRUPTION)
            || self.disrupted.contains(key, oracle::pod(cluster.object(key))?)
        {
            return None;
        }
        let owner = known_owner(cluster, by, pod).filter(|o| !oracle::is_going(o.meta()))?;
        let namespace = cluster.known(by, &Key::cluster(Kind::Namespace, &key.namespace));
        if replicas(owner)? == 0 || namespace.is_some_and(|n| oracle::is_going(n.meta())) {
            return None;
        }
        let settled = |key: &Key| {
            let (standing, since) = self.standing.get(key)?;
            (cluster.now().since(*since) > SETTLED).then_some(*standing)
        };
        let victim = settled(key)?;
        let spared = self.broods.of(owner.uid()).find(|sibling| {
            !self.asked.contains(*sibling)
                && settled(sibling).is_some_and(|s| s < victim)
                && oracle::pod(cluster.known(by, sibling)).is_some_and(oracle::is_active)
        })?;
        Some(format!("{key} is deleted as surplus although {spared} has long been of less use"))
    }
}

impl Check for LeastUsefulFirst {
    fn property(&self) -> &'static str {
        "P31"
    }

    fn statement(&self) -> &'static str {
        "of surplus pods those go first that are of least use"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.disrupted.observe(cluster, occurrence);
        match occurrence {
            Occurrence::Called {
                by,
                request:
                    Request::Delete {
                        key, revision: None, grace_seconds: None, propagation: None, ..
                    },
            } if key.kind == Kind::Pod && cluster.role(*by) == Role::ControllerManager => {
                found.extend(self.deletes(cluster, *by, key));
            }
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Pod => {
                self.broods.committed(key, *old, *new);
                let Some(pod) = oracle::pod(*new) else {
                    self.standing.remove(*key);
                    self.asked.remove(*key);
                    return;
                };
                let now = standing(pod);
                if self.standing.get(*key).is_none_or(|(before, _)| *before != now) {
                    self.standing.insert((*key).clone(), (now, cluster.now()));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
