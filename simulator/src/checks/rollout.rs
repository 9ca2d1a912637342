//! Deployments: P32 to P35.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Request, Revision, Subresource, Time};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::brood::{Broods, Change, Life, Lives, PATIENCE, replicas};
use super::store::coordinates;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::plan::{Component, Fault, Outcome, Plan};
use crate::world::ProcessId;

/// The label by which the pods of one replica set are told from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// A deployment that collides more often than this does not get out of it.
const COLLISIONS_MAX: i32 = 16;
/// While two processes have acted within this time, neither knows all that was done.
const HANDOVER: Duration = Duration::from_secs(120);

/// How many pods there may and must be while a deployment rolls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    replicas: i64,
    /// With the surge, rounded up.
    most: i64,
    /// Available ones, unavailability rounded down.
    least: i64,
}

impl Bounds {
    /// The bounds of a rolling update; `None` for other strategies.
    fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()).is_some_and(|t| t != "RollingUpdate") {
            return None;
        }
        let replicas = i64::from(spec.replicas.unwrap_or(1).max(0));
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let resolve = |given: Option<&IntOrString>, up: i64| match given {
            Some(IntOrString::Int(n)) => i64::from(*n),
            Some(IntOrString::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                (replicas * percent + up) / 100
            }
            None => (replicas * 25 + up) / 100,
        };
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), 99);
        let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), 0);
        // With neither nothing could ever move: one may then be unavailable.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let least = (replicas - unavailable).max(0);
        Some(Self { replicas, most: replicas + surge, least })
    }
}

/// One replica set of a deployment, as far as numbers go.
#[derive(Clone)]
struct SetRow {
    key: Key,
    replicas: i64,
    /// Whether its controller has seen its present size.
    observed: bool,
    /// Available pods, as its controller reports them.
    available: i64,
}

/// The replica sets of each deployment, by UIDs.
#[derive(Clone, Default)]
struct Sets {
    of: BTreeMap<String, BTreeMap<String, SetRow>>,
    deployment_of: BTreeMap<String, (String, Key)>,
}

impl Sets {
    /// Takes in a write of a replica set; returns the UID of its deployment.
    fn committed(&mut self, old: Option<&Object>, new: Option<&Object>) -> Option<String> {
        let latest = new.or(old)?;
        let set = latest.get::<ReplicaSet>()?;
        let owner = oracle::controller(&set.metadata).map(str::to_owned);
        let gone = new.is_none() || owner.is_none();
        let known = self.deployment_of.get(latest.uid()).map(|(uid, _)| uid.clone());
        if let Some(before) = known.filter(|uid| gone || owner.as_ref() != Some(uid)) {
            self.deployment_of.remove(latest.uid());
            if let Some(sets) = self.of.get_mut(&before) {
                sets.remove(latest.uid());
            }
        }
        let deployment = owner.filter(|_| new.is_some())?;
        let owners = set.metadata.owner_references.iter().flatten();
        let name = owners.into_iter().find(|o| o.uid == deployment).map(|o| o.name.clone())?;
        let key = latest.key();
        let owner_key = Key::new(Kind::Deployment, &key.namespace, &name);
        let status = set.status.as_ref();
        let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
        let row = SetRow {
            key,
            replicas: replicas(latest).unwrap_or(0),
            observed: observed >= set.metadata.generation.unwrap_or(0),
            available: status.and_then(|s| s.available_replicas).unwrap_or(0).into(),
        };
        self.of.entry(deployment.clone()).or_default().insert(latest.uid().to_owned(), row);
        self.deployment_of.insert(latest.uid().to_owned(), (deployment.clone(), owner_key));
        Some(deployment)
    }

    fn rows(&self, deployment: &str) -> impl Iterator<Item = (&String, &SetRow)> {
        self.of.get(deployment).into_iter().flatten()
    }

    /// What the replica sets of a deployment ask for together.
    fn sum(&self, deployment: &str) -> i64 {
        self.rows(deployment).map(|(_, row)| row.replicas).sum()
    }

    fn pods(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, _)| broods.size(uid)).sum()
    }

    /// How many pods there will be when all replica sets have what they ask for, if none of them
    /// gives up a pod meanwhile.
    fn pods_to_come(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, row)| broods.size(uid).max(row.replicas)).sum()
    }

    /// How many pods the replica sets have that they do not ask for.
    fn surplus(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, row)| (broods.size(uid) - row.replicas).max(0)).sum()
    }

    /// Whether some replica set reports more available pods than it has.
    fn boasts(&self, cluster: &dyn Cluster, deployment: &str, broods: &Broods) -> bool {
        self.rows(deployment).any(|(uid, row)| {
            let ready = |k: &&Key| oracle::pod(cluster.object(k)).is_some_and(oracle::is_ready);
            let ready = broods.of(uid).filter(ready).count();
            row.available > i64::try_from(ready).unwrap_or(i64::MAX)
        })
    }

    fn available(&self, cluster: &dyn Cluster, deployment: &str, broods: &Broods) -> i64 {
        let keys = self.rows(deployment).flat_map(|(uid, _)| broods.of(uid));
        let ready = keys.filter(|k| oracle::pod(cluster.object(k)).is_some_and(oracle::is_ready));
        i64::try_from(ready.count()).unwrap_or(i64::MAX)
    }
}

/// The deployment of that key and UID, if it is not going.
fn living<'a>(cluster: &'a dyn Cluster, key: &Key, uid: &str) -> Option<&'a Deployment> {
    let object = cluster.object(key).filter(|o| o.uid() == uid)?;
    object.get().filter(|d: &&Deployment| !oracle::is_going(&d.metadata))
}

/// Whether the deployment's controller has seen what is asked for now.
fn is_observed(deployment: &Deployment) -> bool {
    let observed = deployment.status.as_ref().and_then(|s| s.observed_generation);
    observed.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// What is asked of one deployment: the most lenient of what was asked since it last had it.
#[derive(Clone, Copy, Default)]
struct Promise {
    ceiling: i64,
    floor: i64,
}

/// A plan for the pods of a replica set.
#[derive(Clone)]
struct PodPlan {
    /// The pods that were not ready, as far as the process knew when it made the plan.
    unready: BTreeSet<Key>,
    /// How far it had seen pods then.
    seen: Revision,
    /// When the last of its calls was made.
    at: Time,
}

/// What controller managers knew of pods when they planned to make or to delete some of them.
///
/// A plan is carried out in batches, each after the answers to the last; meanwhile what counts is
/// what was known when the plan was made. It ends with the write of the status, or when a call is
/// refused or not answered.
#[derive(Clone, Default)]
struct PodPlans {
    /// By process and UID of the replica set.
    plans: BTreeMap<(Life, String), PodPlan>,
    /// Deletions that were asked for: of which plan, and whether the pod was known to be ready.
    asked: BTreeMap<Key, ((Life, String), bool)>,
    /// How far each controller manager has seen pods.
    seen: BTreeMap<ProcessId, Revision>,
}

impl PodPlans {
    /// Takes in what happened, before the broods do.
    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        broods: &Broods,
        lives: &Lives,
    ) {
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::ControllerManager => {
                let (kind, revision) = coordinates(event);
                if kind == Kind::Pod {
                    self.seen.insert(*to, revision);
                }
            }
            Occurrence::Called { by, request } if cluster.role(*by) == Role::ControllerManager => {
                self.called(cluster, *by, request, broods, lives);
            }
            Occurrence::Answered {
                by: Some(by),
                request: Request::Delete { key, .. },
                refusal,
            } => {
                let own = |asked: &((Life, String), bool)| asked.0.0.0 == *by;
                if self.asked.get(key).is_some_and(own)
                    && let Some((plan, _)) = self.asked.remove(key)
                    && refusal.is_some()
                {
                    self.plans.remove(&plan);
                }
            }
            Occurrence::Committed { key, new: None, .. } if key.kind == Kind::ReplicaSet => {
                let now = cluster.now();
                self.plans.retain(|_, plan| now.since(plan.at) <= PATIENCE);
            }
            _ => {}
        }
    }

    fn called(
        &mut self,
        cluster: &dyn Cluster,
        by: ProcessId,
        request: &Request,
        broods: &Broods,
        lives: &Lives,
    ) {
        match request {
            Request::Create(Object::Pod(pod)) => {
                if let Some(set) = oracle::controller(&pod.metadata) {
                    self.plan(cluster, lives.of(by), set, broods);
                }
            }
            Request::Delete {
                key, revision: None, grace_seconds: None, propagation: None, ..
            } if key.kind == Kind::Pod => {
                let pod = oracle::pod(cluster.object(key));
                let Some(set) = pod.and_then(|p| oracle::controller(&p.metadata)) else { return };
                let ready = !self.plan(cluster, lives.of(by), set, broods).unready.contains(key);
                self.asked.insert(key.clone(), ((lives.of(by), set.to_owned()), ready));
            }
            Request::Update { object: set, subresource: Some(Subresource::Status) }
                if set.kind() == Kind::ReplicaSet =>
            {
                self.plans.remove(&(lives.of(by), set.uid().to_owned()));
            }
            _ => {}
        }
    }

    /// The plan that a call of a process belongs to.
    fn plan(&mut self, cluster: &dyn Cluster, by: Life, set: &str, broods: &Broods) -> &PodPlan {
        let now = cluster.now();
        let make = || {
            let known = |key: &&Key| oracle::pod(cluster.known(by.0, key));
            let unready = |key: &&Key| known(key).is_some_and(|pod| !oracle::is_ready(pod));
            let unready = broods.of(set).filter(unready).cloned().collect();
            PodPlan { unready, seen: self.seen.get(&by.0).copied().unwrap_or_default(), at: now }
        };
        let plan = self.plans.entry((by, set.to_owned())).or_insert_with(make);
        if now.since(plan.at) > PATIENCE {
            *plan = make();
        }
        plan.at = now;
        plan
    }

    /// How far a process had seen pods when it made what it says of a replica set now.
    fn seen(&self, now: Time, by: Life, set: &str) -> Revision {
        let plan = self.plans.get(&(by, set.to_owned()));
        let plan = plan.filter(|plan| now.since(plan.at) <= PATIENCE).map(|plan| plan.seen);
        plan.or_else(|| self.seen.get(&by.0).copied()).unwrap_or_default()
    }

    /// Whether who has deleted the pod knew that it was ready.
    fn carried_out(&mut self, key: &Key) -> bool {
        self.asked.remove(key).is_none_or(|(_, ready)| ready)
    }
}

/// What controller managers knew when they began to carry out what they had planned for a
/// deployment. The replica sets are written in batches as well, each at most once in a plan; it
/// ends with the write of the deployment's status, or when a call is refused or not answered.
#[derive(Clone)]
struct DeploymentPlans<T>(BTreeMap<(Life, String), DeploymentPlan<T>>);

#[derive(Clone)]
struct DeploymentPlan<T> {
    knew: T,
    /// The replica sets that were written.
    written: BTreeSet<Key>,
    /// When the last of its calls was made.
    at: Time,
}

impl<T> Default for DeploymentPlans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> DeploymentPlans<T> {
    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>, lives: &Lives) {
        match occurrence {
            Occurrence::Called { by, request: Request::Update { object, .. } }
                if object.kind() == Kind::Deployment =>
            {
                self.0.remove(&(lives.of(*by), object.uid().to_owned()));
            }
            Occurrence::Answered { by: Some(by), request, refusal: Some(_) } => {
                let set = written(request).and_then(Object::get::<ReplicaSet>);
                if let Some(deployment) = set.and_then(|s| oracle::controller(&s.metadata)) {
                    self.0.remove(&(lives.of(*by), deployment.to_owned()));
                }
            }
            Occurrence::Committed { key, new: None, .. } if key.kind == Kind::Deployment => {
                let now = cluster.now();
                self.0.retain(|_, plan| now.since(plan.at) <= PATIENCE);
            }
            _ => {}
        }
    }

    /// What was known when the plan was made that a write of a replica set belongs to; `knows` says
    /// what is known now.
    fn knew(
        &mut self,
        now: Time,
        by: Life,
        deployment: &str,
        set: &Key,
        knows: impl FnOnce() -> T,
    ) -> &T {
        let new = || DeploymentPlan { knew: knows(), written: BTreeSet::new(), at: now };
        let plan = match self.0.entry((by, deployment.to_owned())) {
            Entry::Vacant(entry) => entry.insert(new()),
            Entry::Occupied(entry) => {
                let plan = entry.into_mut();
                if now.since(plan.at) > PATIENCE || plan.written.contains(set) {
                    *plan = new();
                }
                plan
            }
        };
        plan.written.insert(set.clone());
        plan.at = now;
        &plan.knew
    }
}

/// How far pods were seen, by UID of the replica set.
type Seen = BTreeMap<String, Revision>;

/// Reports of one replica set that are remembered.
const REPORTS_MAX: usize = 64;

/// Pods that were lost, and how much of that was known to a deployment's controller when it took
/// pods from a replica set: it counts what replica sets report, and those report what their
/// controller had seen of the pods.
#[derive(Clone, Default)]
struct Losses {
    /// How far pods were seen for a report, by the call that is under way.
    asked: BTreeMap<(ProcessId, Key, String), Revision>,
    /// The same for what was written, by revision of the report.
    reports: BTreeMap<String, BTreeMap<Revision, Revision>>,
    plans: DeploymentPlans<Seen>,
    /// What was known when a replica set was last made smaller, by its UID.
    shrunk: BTreeMap<String, Seen>,
    /// Pods that were available and are not any more: of which replica set, and since when.
    lost: BTreeMap<Key, (String, Revision)>,
}

impl Losses {
    /// Takes in what happened, before the plans for pods do.
    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        sets: &Sets,
        pods: &PodPlans,
        lives: &Lives,
    ) {
        self.plans.observe(cluster, occurrence, lives);
        match occurrence {
            Occurrence::Called { by, request: Request::Update { object, subresource } }
                if cluster.role(*by) == Role::ControllerManager =>
            {
                let life = lives.of(*by);
                match (object.kind(), subresource) {
                    (Kind::ReplicaSet, Some(Subresource::Status)) => {
                        let seen = pods.seen(cluster.now(), life, object.uid());
                        self.asked.insert(name_of(*by, object), seen);
                    }
                    (Kind::ReplicaSet, None) => self.resizes(cluster, life, object, sets),
                    _ => {}
                }
            }
            Occurrence::Answered {
                by: Some(by), request: Request::Update { object, .. }, ..
            } => {
                self.asked.remove(&name_of(*by, object));
            }
            Occurrence::Committed { by, key, old, new, request, revision }
                if key.kind == Kind::ReplicaSet =>
            {
                self.reported(*by, request, *revision);
                if let (Some(old), None) = (old, new) {
                    self.forget(old);
                }
            }
            _ => {}
        }
    }

    /// A deployment's controller asks for another number of pods, or the like.
    fn resizes(&mut self, cluster: &dyn Cluster, by: Life, set: &Object, sets: &Sets) {
        let Some((deployment, _)) = sets.deployment_of.get(set.uid()) else { return };
        let key = set.key();
        let knew = self.plans.knew(cluster.now(), by, deployment, &key, || {
            let seen = |(uid, row): (&String, &SetRow)| {
                let known = cluster.known(by.0, &row.key).filter(|o| o.uid() == uid);
                let report = known
                    .and_then(|set| self.reports.get(uid)?.range(..=set.revision()).next_back());
                (uid.clone(), report.map(|(_, seen)| *seen).unwrap_or_default())
            };
            sets.rows(deployment).map(seen).collect()
        });
        if replicas(set) < cluster.known(by.0, &key).and_then(replicas) {
            self.shrunk.insert(set.uid().to_owned(), knew.clone());
        }
    }

    fn reported(&mut self, by: Option<ProcessId>, request: &Request, revision: Revision) {
        let Request::Update { object: set, subresource: Some(Subresource::Status) } = request
        else {
            return;
        };
        let Some(seen) = by.and_then(|by| self.asked.remove(&name_of(by, set))) else { return };
        let reports = self.reports.entry(set.uid().to_owned()).or_default();
        reports.insert(revision, seen);
        if reports.len() > REPORTS_MAX {
            reports.pop_first();
        }
    }

    /// Forgets a replica set that is gone.
    fn forget(&mut self, set: &Object) {
        let key = set.key();
        self.asked.retain(|(_, of, _), _| *of != key);
        self.reports.remove(set.uid());
        self.shrunk.remove(set.uid());
        self.lost.retain(|_, (of, _)| of != set.uid());
    }

    /// How many pods were lost without being known to be when a replica set was made smaller.
    fn unknown(&self, set: &str) -> i64 {
        let Some(seen) = self.shrunk.get(set) else { return 0 };
        let unknown = |(of, at): &&(String, Revision)| seen.get(of).is_some_and(|seen| at > seen);
        i64::try_from(self.lost.values().filter(unknown).count()).unwrap_or(i64::MAX)
    }
}

/// P32: a rollout keeps enough pods available and does not make too many.
///
/// A new number of replicas widens the bounds at once and narrows them when the pods are within
/// them and all controllers have seen it. What a deployment that shrinks has too many its replica
/// sets give up in proportion to their sizes, available or not: the floor is lower by so many until
/// enough are available again. When a pod is lost by another cause than the rollout the floor is
/// gone until enough are available again, those not counted that were to go before, and no replica
/// set reports more than it has. A pod that its controller did not know to be ready when it planned
/// to delete it was not counted as available either, and may go; the floor stays as it is, since
/// whoever sees fewer available pods than there are gives up fewer. Losses that no report had told
/// when a deployment's controller made the replica set smaller are excused, also when enough other
/// pods have become available meanwhile. So are handovers between leaders and calls that are
/// carried out late.
///
/// Source: kubernetes 1.33, `pkg/controller/deployment/sync.go`, `scale`.
#[derive(Clone)]
pub(super) struct RolloutBounds {
    broods: Broods,
    sets: Sets,
    promises: BTreeMap<String, Promise>,
    lives: Lives,
    pod_plans: PodPlans,
    losses: Losses,
    acted: BTreeMap<Life, Time>,
    late_calls: bool,
}

impl RolloutBounds {
    pub(super) fn new(plan: &Plan) -> Self {
        let late = |fault: &Fault| {
            matches!(
                fault,
                Fault::CallTimeout {
                    component: Component::ControllerManager(_),
                    outcome: Outcome::CarriedOutLate,
                    ..
                }
            )
        };
        Self {
            broods: Broods::default(),
            sets: Sets::default(),
            promises: BTreeMap::new(),
            lives: Lives::default(),
            pod_plans: PodPlans::default(),
            losses: Losses::default(),
            acted: BTreeMap::new(),
            late_calls: plan.faults.iter().any(|f| late(&f.fault)),
        }
    }

    fn one_acts(&self, now: Time) -> bool {
        self.acted.values().filter(|at| now.since(**at) < HANDOVER).count() <= 1
    }

    /// Widens the bounds for a new state of the deployment, or narrows them when it is reached.
    fn adjust(&mut self, cluster: &dyn Cluster, uid: &str, key: &Key) {
        let Some(deployment) = living(cluster, key, uid) else {
            self.promises.remove(uid);
            return;
        };
        let Some(bounds) = Bounds::of(deployment) else {
            self.promises.remove(uid);
            return;
        };
        let (sets, broods) = (&self.sets, &self.broods);
        let promise = self.promises.entry(uid.to_owned()).or_default();
        promise.ceiling = promise.ceiling.max(bounds.most);
        promise.floor = promise.floor.min(bounds.least);
        let seen = is_observed(deployment) && sets.rows(uid).all(|(_, row)| row.observed);
        if !seen {
            let to_give_up = sets.pods_to_come(uid, broods) - bounds.most;
            if to_give_up > 0 && promise.floor > 0 {
                let left = sets.available(cluster, uid, broods) - to_give_up;
                promise.floor = promise.floor.min(left.max(0));
            }
            return;
        }
        if sets.sum(uid) > bounds.most || sets.pods(uid, broods) > bounds.most {
            return;
        }
        promise.ceiling = bounds.most;
        if promise.floor < bounds.least
            && sets.available(cluster, uid, broods) - sets.surplus(uid, broods) >= bounds.least
            && !sets.boasts(cluster, uid, broods)
        {
            promise.floor = bounds.least;
        }
    }

    fn pod_committed(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let Occurrence::Committed { by, key, old, new, request, revision } = occurrence else {
            return;
        };
        let change = self.broods.committed(key, *old, *new);
        let deleted = matches!(request, Request::Delete { .. }) || new.is_none();
        let known_to_be_ready = !deleted || self.pod_plans.carried_out(key);
        let pods = [*old, *new].map(oracle::pod);
        let set = match &change {
            Some(Change::Joined(uid) | Change::Left(uid)) => uid.clone(),
            None => match pods[1].and_then(|p| oracle::controller(&p.metadata)) {
                Some(uid) => uid.to_owned(),
                None => return,
            },
        };
        let Some((uid, owner)) = self.sets.deployment_of.get(&set).cloned() else { return };
        let available =
            pods.map(|p| p.is_some_and(|p| oracle::is_active(p) && oracle::is_ready(p)));
        if available[1] {
            self.losses.lost.remove(*key);
        }
        if change.is_none() && available[0] == available[1] {
            return;
        }
        let judged = !self.late_calls && self.one_acts(cluster.now());
        let Some(promise) = self.promises.get(&uid).copied() else { return };
        match (&change, living(cluster, &owner, &uid)) {
            (Some(Change::Joined(_)), Some(_)) if matches!(request, Request::Create(_)) => {
                let pods = self.sets.pods(&uid, &self.broods);
                if judged && pods > promise.ceiling {
                    found.push(format!(
                        "{key} is pod number {pods} of {owner}, which may have {}",
                        promise.ceiling
                    ));
                }
            }
            (_, Some(_)) if available == [true, false] => {
                let managed = by.is_some_and(|by| cluster.role(by) == Role::ControllerManager)
                    && matches!(request, Request::Delete { grace_seconds: None, .. })
                    && !pods[0].is_some_and(|p| oracle::condition_is_true(p, "DisruptionTarget"));
                let left = self.sets.available(cluster, &uid, &self.broods);
                if !managed {
                    if let Some(promise) = self.promises.get_mut(&uid) {
                        promise.floor = 0;
                    }
                    self.losses.lost.insert((*key).clone(), (set, *revision));
                } else if judged
                    && known_to_be_ready
                    && left.saturating_add(self.losses.unknown(&set)) < promise.floor
                {
                    found.push(format!(
                        "{key} is taken down and leaves {left} available pods of {owner}, which \
                         must have {}",
                        promise.floor
                    ));
                }
            }
            _ => {}
        }
        self.adjust(cluster, &uid, &owner);
    }
}

impl Check for RolloutBounds {
    fn property(&self) -> &'static str {
        "P32"
    }

    fn statement(&self) -> &'static str {
        "a rollout keeps enough pods available and does not make too many"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        self.losses.observe(cluster, occurrence, &self.sets, &self.pod_plans, &self.lives);
        self.pod_plans.observe(cluster, occurrence, &self.broods, &self.lives);
        match occurrence {
            Occurrence::Called { by, request }
                if request.writes() == Some(Kind::Pod)
                    && cluster.role(*by) == Role::ControllerManager =>
            {
                self.acted.insert(self.lives.of(*by), cluster.now());
            }
            Occurrence::Committed { key, old, new, .. } => match key.kind {
                Kind::Pod => self.pod_committed(cluster, occurrence, found),
                Kind::ReplicaSet => {
                    if let Some(uid) = self.sets.committed(*old, *new)
                        && let Some(uid_of_set) = new.map(Object::uid)
                        && let Some((_, owner)) = self.sets.deployment_of.get(uid_of_set).cloned()
                    {
                        self.adjust(cluster, &uid, &owner);
                    }
                }
                Kind::Deployment => {
                    let uid = new.or(*old).map(Object::uid).unwrap_or_default();
                    self.adjust(cluster, uid, key);
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// A pod template without what tells replica sets apart.
fn plain(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    serde_json::to_value(template).unwrap_or_default()
}

fn template_of(set: &ReplicaSet) -> Option<Value> {
    set.spec.as_ref()?.template.as_ref().map(plain)
}

/// The replica sets of a deployment that are not going.
fn sets_of<'a>(cluster: &'a dyn Cluster, deployment: &'a str) -> Vec<&'a ReplicaSet> {
    let all = cluster.objects(Kind::ReplicaSet).filter_map(Object::get::<ReplicaSet>);
    all.filter(|s| {
        oracle::controller(&s.metadata) == Some(deployment) && !oracle::is_going(&s.metadata)
    })
    .collect()
}

fn deployments(cluster: &dyn Cluster) -> impl Iterator<Item = (Key, &Deployment)> {
    let all = cluster.objects(Kind::Deployment);
    let all = all.filter_map(|o| Some((o.key(), o.get::<Deployment>()?)));
    all.filter(|(_, d)| !oracle::is_going(&d.metadata))
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().is_some_and(|s| s.paused == Some(true))
}

/// P33: every template of a deployment has one replica set.
#[derive(Clone, Default)]
pub(super) struct OneSetPerTemplate {
    sets: Sets,
}

impl Check for OneSetPerTemplate {
    fn property(&self) -> &'static str {
        "P33"
    }

    fn statement(&self) -> &'static str {
        "every template of a deployment has one replica set, and collisions end"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let Occurrence::Committed { key, old, new, request, .. } = occurrence else { return };
        if key.kind != Kind::ReplicaSet {
            return;
        }
        let deployment = self.sets.committed(*old, *new);
        let (Some(deployment), Request::Create(_), Some(new)) = (deployment, request, new) else {
            return;
        };
        let template = new.get().and_then(template_of);
        let twin = self.sets.rows(&deployment).find(|(uid, row)| {
            let other = cluster.object(&row.key).and_then(Object::get::<ReplicaSet>);
            let other = other.filter(|s| !oracle::is_going(&s.metadata));
            *uid != new.uid() && other.is_some_and(|s| template_of(s) == template)
        });
        if let Some((_, twin)) = twin {
            found.push(format!("{key} was made for a template that {} has", twin.key));
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for (key, deployment) in deployments(cluster) {
            let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
            let template = deployment.spec.as_ref().map(|s| plain(&s.template));
            let sets = sets_of(cluster, uid);
            let own = sets.iter().filter(|s| template_of(s) == template).count();
            if own > 1 || (own == 0 && !is_paused(deployment)) {
                found.push(format!("{key} has {own} replica sets with its template at rest"));
            }
            let status = deployment.status.as_ref();
            let collisions = status.and_then(|s| s.collision_count).unwrap_or(0);
            if collisions > COLLISIONS_MAX {
                found.push(format!("{key} has counted {collisions} collisions"));
            }
        }
    }
}

/// P34: a rollout, also one back to an older template, ends with pods of that template alone,
/// unless pods that do not get ready hold it up.
#[derive(Clone, Default)]
pub(super) struct RolloutEnds;

impl Check for RolloutEnds {
    fn property(&self) -> &'static str {
        "P34"
    }

    fn statement(&self) -> &'static str {
        "a rollout ends with pods of the wanted template alone"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let mut broods = Broods::default();
        for object in cluster.objects(Kind::Pod) {
            broods.committed(&object.key(), None, Some(object));
        }
        for (key, deployment) in deployments(cluster).filter(|(_, d)| !is_paused(d)) {
            let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
            let template = deployment.spec.as_ref().map(|s| plain(&s.template));
            let mut old = Vec::new();
            let mut held_up = false;
            for set in sets_of(cluster, uid) {
                for pod in broods.of(set.metadata.uid.as_deref().unwrap_or_default()) {
                    let ready = oracle::pod(cluster.object(pod)).is_some_and(oracle::is_ready);
                    held_up |= !ready;
                    if template_of(set) != template {
                        old.push(pod);
                    }
                }
            }
            let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = deployment.status.clone().unwrap_or_default();
            let updated = status.updated_replicas.unwrap_or(0);
            if !held_up && !old.is_empty() {
                let old = oracle::some_of(old);
                found.push(format!("{key} has pods of an older template at rest: {old}"));
            } else if !held_up && updated != wanted {
                found.push(format!("{key} reports {updated} updated pods at rest, of {wanted}"));
            }
        }
    }
}

/// What a controller manager knew of a deployment when it planned a write of a replica set.
#[derive(Clone, Default)]
struct Knew {
    /// When it asked for it.
    at: Time,
    /// The most pods that the deployment may have.
    most: i64,
    /// What its replica sets ask for, by UID.
    replicas: BTreeMap<String, i64>,
}

/// P35: what the replica sets of a deployment ask for adds up to no more than it may have, also
/// when it is scaled in the middle of a rollout.
///
/// Judged by what the asking process knew when it made its plan: watches of different kinds come at
/// different times, and a write of one replica set does not exclude one of another. Excused is what replica sets were
/// given that it did not know of, unless it has given it itself in the same life, and the bound of
/// an older state of the deployment. So is all that is carried out when nobody waits for the answer
/// any more.
#[derive(Clone, Default)]
pub(super) struct SharesAddUp {
    sets: Sets,
    ceilings: BTreeMap<String, i64>,
    lives: Lives,
    plans: DeploymentPlans<Knew>,
    /// Writes under way, by process, replica set and the revision that they replace.
    asked: BTreeMap<(ProcessId, Key, String), Knew>,
    /// Who last made a replica set larger, if it waited for the answer.
    givers: BTreeMap<String, Option<Life>>,
}

/// The name of a call among those of one process.
fn name_of(by: ProcessId, object: &Object) -> (ProcessId, Key, String) {
    (by, object.key(), object.meta().resource_version.clone().unwrap_or_default())
}

/// The replica set that a request writes.
const fn written(request: &Request) -> Option<&Object> {
    match request {
        Request::Create(object @ Object::ReplicaSet(_))
        | Request::Update { object: object @ Object::ReplicaSet(_), subresource: None } => {
            Some(object)
        }
        _ => None,
    }
}

impl SharesAddUp {
    /// As for [`Promise`]: widened at once, narrowed when it is seen and kept.
    fn adjust(&mut self, cluster: &dyn Cluster, uid: &str, key: &Key) -> Option<i64> {
        let Some(deployment) = living(cluster, key, uid) else {
            self.ceilings.remove(uid);
            return None;
        };
        let most = Bounds::of(deployment)?.most;
        let ceiling = self.ceilings.entry(uid.to_owned()).or_default();
        *ceiling = most.max(*ceiling);
        if is_observed(deployment) && self.sets.sum(uid) <= most {
            *ceiling = most;
        }
        Some(*ceiling)
    }

    /// Notes what a process knew when it asks for a write.
    fn called(&mut self, cluster: &dyn Cluster, by: ProcessId, object: &Object) {
        let Some(set) = object.get::<ReplicaSet>() else { return };
        let Some(uid) = oracle::controller(&set.metadata) else { return };
        let owners = set.metadata.owner_references.iter().flatten();
        let Some(name) = owners.into_iter().find(|o| o.uid == uid).map(|o| &o.name) else { return };
        let key = Key::new(Kind::Deployment, &object.key().namespace, name);
        let now = cluster.now();
        let knew = self.plans.knew(now, self.lives.of(by), uid, &object.key(), || {
            let deployment = cluster.known(by, &key).filter(|o| o.uid() == uid);
            let most = deployment.and_then(Object::get).and_then(Bounds::of).map_or(0, |b| b.most);
            let known = |row: &SetRow| cluster.known(by, &row.key).and_then(replicas).unwrap_or(0);
            let sets = self.sets.rows(uid).map(|(uid, row)| (uid.clone(), known(row)));
            Knew { at: now, most, replicas: sets.collect() }
        });
        self.asked.insert(name_of(by, object), Knew { at: now, ..knew.clone() });
    }

    /// What replica sets other than `own` ask for more than the asking process could know.
    fn unknown(&self, deployment: &str, own: &str, by: Life, knew: &Knew) -> i64 {
        let others = self
            .sets
            .rows(deployment)
            .filter(|(uid, _)| uid.as_str() != own && self.givers.get(*uid) != Some(&Some(by)));
        let known = |uid: &str| knew.replicas.get(uid).copied().unwrap_or(0);
        others.map(|(uid, row)| (row.replicas - known(uid)).max(0)).sum()
    }

    /// Judges that a process has made a replica set larger.
    fn grew(
        &mut self,
        cluster: &dyn Cluster,
        by: ProcessId,
        set: &Object,
        knew: &Knew,
        ceiling: i64,
    ) -> Option<String> {
        let (deployment, owner) = self.sets.deployment_of.get(set.uid())?;
        let life = self.lives.of(by);
        let waited_for = cluster.now().since(knew.at) <= PATIENCE;
        let unknown = self.unknown(deployment, set.uid(), life, knew);
        let may_have = ceiling.max(knew.most) + unknown;
        let sum = self.sets.sum(deployment);
        let found = (waited_for && sum > may_have).then(|| {
            let key = set.key();
            format!(
                "with {key}, the replica sets of {owner} ask for {sum} pods, and it may have \
                 {may_have}"
            )
        });
        self.givers.insert(set.uid().to_owned(), waited_for.then_some(life));
        found
    }
}

impl Check for SharesAddUp {
    fn property(&self) -> &'static str {
        "P35"
    }

    fn statement(&self) -> &'static str {
        "what the replica sets of a deployment ask for adds up to no more than it may have"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        self.plans.observe(cluster, occurrence, &self.lives);
        match occurrence {
            Occurrence::Called { by, request } if cluster.role(*by) == Role::ControllerManager => {
                if let Some(object) = written(request) {
                    self.called(cluster, *by, object);
                }
            }
            Occurrence::Answered { by: Some(by), request, .. } => {
                if let Some(object) = written(request) {
                    self.asked.remove(&name_of(*by, object));
                }
            }
            Occurrence::Committed { key, old, new, .. } if key.kind == Kind::Deployment => {
                let uid = new.or(*old).map(Object::uid).unwrap_or_default();
                self.adjust(cluster, uid, key);
            }
            Occurrence::Committed { by, key, old, new, request, .. }
                if key.kind == Kind::ReplicaSet =>
            {
                let call = by.zip(written(request)).map(|(by, object)| name_of(by, object));
                let knew = call.and_then(|call| self.asked.remove(&call)).unwrap_or_default();
                let (Some(uid), Some(new)) = (self.sets.committed(*old, *new), new) else {
                    self.givers.remove(old.map(Object::uid).unwrap_or_default());
                    return;
                };
                let Some((_, owner)) = self.sets.deployment_of.get(new.uid()).cloned() else {
                    return;
                };
                let Some(ceiling) = self.adjust(cluster, &uid, &owner) else { return };
                let grew = replicas(new) > old.and_then(replicas);
                // What users do to replica sets is their business.
                if let Some(by) = by.filter(|_| grew) {
                    found.extend(self.grew(cluster, by, new, &knew, ceiling));
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for (key, deployment) in deployments(cluster) {
            let Some(bounds) = Bounds::of(deployment) else { continue };
            let sum = self.sets.sum(deployment.metadata.uid.as_deref().unwrap_or_default());
            let none = is_paused(deployment) && sum == 0;
            if !none && (sum < bounds.least || sum > bounds.most) {
                found.push(format!(
                    "the replica sets of {key} ask for {sum} pods at rest; it asks for {}, and \
                     may have {} to {}",
                    bounds.replicas, bounds.least, bounds.most
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
