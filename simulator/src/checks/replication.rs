//! Controllers that keep a number of pods: P29 to P31.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Revision, Table, Time};

use super::asked::{Asked, DISRUPTION, Disrupted, Known, Lately, Overshoot, Overshot};
use super::brood::{Broods, Change, Life, Lives, known_owner, replicas};
use super::store::coordinates;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::distribution::Distribution;
use crate::oracle;
use crate::oracle::surplus::Worth;
use crate::plan::{Plan, PlannedFault};
use crate::span::Span;
use crate::world::ProcessId;

/// P29: nobody makes more pods than are asked for, however old what it sees is and whatever
/// became of its calls.
///
/// Two cases are excused, for there nobody could know: a creation that is carried out after a
/// later one was asked for, or after nobody waits for its answer any more (its outcome was
/// unknown), and owners for which two processes (or two lives of one) have made pods.
#[derive(Clone)]
pub(super) struct NoOvershoot(Overshoot);

impl Default for NoOvershoot {
    fn default() -> Self {
        Self(Overshoot::new(Broods::default(), replicas))
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
        let overshot = self.0.observe(cluster, occurrence).filter(|o| o.one_life);
        let Some(Overshot { key, has, limit, .. }) = overshot else { return };
        found.push(format!("{key} is pod number {has} of a controller that asks for {limit}"));
    }
}

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

/// The writes for one owner that were asked for in one moment.
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

    /// Takes a write of a plan into account.
    fn writes(&mut self, now: Time, by: ProcessId, uid: &str) -> &Batch {
        let batch = self.batches.entry((self.lives.of(by), uid.to_owned())).or_default();
        if batch.at != now || batch.size == 0 {
            *batch = Batch { at: now, size: 0, before: batch.size };
        }
        batch.size += 1;
        batch
    }

    fn creates(&mut self, now: Time, by: ProcessId, pod: &Pod) -> Option<String> {
        let uid = oracle::controller(&pod.metadata)?;
        let apart = self.batches_are_apart;
        let Batch { size, before, .. } = *self.writes(now, by, uid);
        let slow = (2 * before).max(1);
        if size == BURST_MAX + 1 {
            return Some(format!(
                "more than {BURST_MAX} pods of controller {uid} are created at once"
            ));
        }
        (apart && size == slow + 1).then(|| {
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

/// Whom a write serves that is no creation of a pod: a stateful set, a daemon set or a job, whose
/// plans have other writes before the creations. All writes of a plan come in growing batches.
pub(super) fn served(cluster: &dyn Cluster, request: &Request) -> Option<String> {
    let object = match request {
        Request::Create(object) | Request::Update { object, .. } => object,
        Request::Delete { key, .. } => cluster.object(key)?,
        _ => return None,
    };
    match object.kind() {
        Kind::StatefulSet | Kind::DaemonSet | Kind::Job => Some(object.uid().to_owned()),
        Kind::Pod | Kind::ControllerRevision => {
            let mut owners = object.meta().owner_references.iter().flatten();
            let owner = owners.find(|o| o.controller == Some(true))?;
            let kinds = ["StatefulSet", "DaemonSet", "Job"];
            kinds.contains(&owner.kind.as_str()).then(|| owner.uid.clone())
        }
        _ => None,
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
        if let Some((by, key)) = occurrence.pod_given_up(cluster) {
            self.deletes(cluster, by, key);
        }
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
            Occurrence::Called { by, request } if cluster.role(*by) == Role::ControllerManager => {
                if let Some(uid) = served(cluster, request) {
                    self.writes(cluster.now(), *by, &uid);
                }
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
/// running, then not ready; then those whose end costs least, those beside most others of their
/// owner, and the youngest.
///
/// A controller plans once and deletes in batches, while pods change. Only pods whose standing has
/// not changed for long are compared. What depends on the other pods, and on the time, is judged of
/// the first that is deleted after a long while, when all others have stood for long, too; and ages
/// only where all clocks are right.
#[derive(Clone, Default)]
pub(super) struct LeastUsefulFirst {
    broods: Broods,
    standing: Table<Key, (Standing, Time)>,
    asked: BTreeSet<Key>,
    disrupted: Disrupted,
    /// When a pod was last given up, by UID of the owner.
    last_asked: BTreeMap<String, Time>,
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
        let now = cluster.now();
        let before = self.last_asked.insert(owner.uid().to_owned(), now);
        let victim = self.settled(now, key)?;
        let spared = self.broods.of(owner.uid()).find(|sibling| {
            !self.asked.contains(*sibling)
                && self.settled(now, sibling).is_some_and(|s| s < victim)
                && oracle::pod(cluster.known(by, sibling)).is_some_and(oracle::is_active)
        });
        if let Some(spared) = spared {
            return Some(format!(
                "{key} is deleted as surplus although {spared} has long been of less use"
            ));
        }
        let first = before.is_none_or(|at| now.since(at) > SETTLED);
        let spared = first.then(|| self.of_less_worth(cluster, by, owner, key))??;
        Some(format!("{key} is deleted as surplus although {spared} is worth less"))
    }

    /// The standing of a pod that has not changed for long.
    fn settled(&self, now: Time, key: &Key) -> Option<Standing> {
        let (standing, since) = self.standing.get(key)?;
        (now.since(*since) > SETTLED).then_some(*standing)
    }

    /// A pod of the owner, of the same standing as the other, that should have gone before it.
    fn of_less_worth(
        &self,
        cluster: &dyn Cluster,
        by: ProcessId,
        owner: &Object,
        key: &Key,
    ) -> Option<Key> {
        let now = cluster.now();
        let above = oracle::controller(owner.meta());
        let sets = cluster.all_known(by, owner.kind())?;
        let of_same = |set: &&Object| {
            set.uid() == owner.uid() || (above.is_some() && oracle::controller(set.meta()) == above)
        };
        let related: BTreeSet<&str> = sets.into_iter().filter(of_same).map(Object::uid).collect();
        let pods = cluster.all_known(by, Kind::Pod)?.into_iter();
        let pods: Vec<(Key, &Pod)> = pods
            .filter_map(|object| Some((object.key(), object.get::<Pod>()?)))
            .filter(|(_, pod)| {
                let owner = oracle::controller(&pod.metadata);
                oracle::is_active(pod) && owner.is_some_and(|uid| related.contains(uid))
            })
            .collect();
        if pods.iter().any(|(key, _)| self.settled(now, key).is_none()) {
            return None;
        }
        let mut company: BTreeMap<&str, usize> = BTreeMap::new();
        for node in pods.iter().filter_map(|(_, pod)| oracle::node_of(pod)) {
            *company.entry(node).or_default() += 1;
        }
        let skewed = |f: &PlannedFault| f.fault.skews().is_some();
        let clocks_are_right = !cluster.plan().faults.iter().any(skewed);
        let worth = |pod: &Pod| {
            let beside = oracle::node_of(pod).and_then(|node| company.get(node)).copied();
            let worth = Worth::of(pod, beside.unwrap_or(0), now);
            if clocks_are_right { worth } else { worth.of_any_age() }
        };
        let (_, victim) = pods.iter().find(|(k, _)| k == key)?;
        let standing = self.settled(now, key);
        let spared = pods.iter().find(|(other, pod)| {
            other != key
                && oracle::controller(&pod.metadata) == Some(owner.uid())
                && self.settled(now, other) == standing
                && worth(pod).goes_before(worth(victim))
        })?;
        Some(spared.0.clone())
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
        if let Some((by, key)) = occurrence.pod_given_up(cluster) {
            found.extend(self.deletes(cluster, by, key));
        }
        match occurrence {
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Pod => {
                self.broods.committed(key, *old, *new);
                let Some(pod) = oracle::pod(*new) else {
                    if let Some(owner) =
                        oracle::pod(*old).and_then(|p| oracle::controller(&p.metadata))
                        && self.broods.size(owner) == 0
                    {
                        self.last_asked.remove(owner);
                    }
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
