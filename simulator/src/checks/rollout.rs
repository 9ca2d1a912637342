//! Deployments: P32 to P35.

mod losses;
mod numbers;
mod plans;

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Key, Kind, Object, Request, Table, Time};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use self::losses::Losses;
use self::numbers::{Bounds, SetRow, Sets, is_observed, living};
use self::plans::{DeploymentPlans, PodPlans, name_of, written};
use super::brood::{Broods, Change, Life, Lives, PATIENCE, replicas};
use super::quotas::is_short_of_template;
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

/// What is asked of one deployment: the most lenient of what was asked since it last had it.
#[derive(Clone, Copy, Default)]
struct Promise {
    ceiling: i64,
    floor: i64,
}

/// P32: a rollout keeps enough pods available and does not make too many.
///
/// A new number of replicas widens the bounds at once and narrows them when the pods are within
/// them and all controllers have seen it. What a deployment that shrinks has too many its replica
/// sets give up in proportion to their sizes, available or not: the floor is lower by so many until
/// enough are available again. When a pod is lost by another cause than the rollout the floor is
/// gone until enough are available again, those not counted that were to go before, and no replica
/// set reports more than it has. With `minReadySeconds` those count that have been ready for so
/// long by the clock of the world, and of those that are taken down only they are judged. A pod
/// that its controller did not know to be ready when it planned to delete it was not counted as
/// available either, and may go; the floor stays as it is, since whoever sees fewer available pods
/// than there are gives up fewer. Losses that no report had told when a deployment's controller
/// made the replica set smaller are excused, also when enough other pods have become available
/// meanwhile; and so are as many pods as that set got available without a report, since it was to
/// give up one that was not. So are handovers between leaders and calls that are carried out late.
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
    /// Since when pods are ready, where it matters for how long.
    ready_since: Table<Key, Time>,
    late_calls: bool,
}

/// How long pods of a deployment must be ready to be available.
fn min_ready(deployment: &Deployment) -> Duration {
    let seconds = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
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
            ready_since: Table::new(),
            late_calls: plan.faults.iter().any(|f| late(&f.fault)),
        }
    }

    fn one_acts(&self, now: Time) -> bool {
        self.acted.values().filter(|at| now.since(**at) < HANDOVER).count() <= 1
    }

    /// Notes since when a pod has been ready, or that it is no more; whether it had been for so
    /// long.
    fn follow(&mut self, now: Time, key: &Key, ready: bool, long: Duration) -> bool {
        if long.is_zero() {
            return true;
        }
        let since = if ready {
            let since = self.ready_since.get(key).copied().unwrap_or(now);
            self.ready_since.insert(key.clone(), since);
            Some(since)
        } else {
            self.ready_since.remove(key)
        };
        since.is_some_and(|since| now.since(since) >= long)
    }

    /// How many pods of a deployment have been ready for so long.
    fn available_for(&self, cluster: &dyn Cluster, uid: &str, long: Duration) -> i64 {
        if long.is_zero() {
            return self.sets.available(cluster, uid, &self.broods);
        }
        let since = |key: &Key| self.ready_since.get(key);
        let keys = self.sets.rows(uid).flat_map(|(uid, _)| self.broods.of(uid));
        let steady = keys.filter(|k| since(k).is_some_and(|at| cluster.now().since(*at) >= long));
        i64::try_from(steady.count()).unwrap_or(i64::MAX)
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
        if available == [false, true] {
            self.losses.gained.insert((*key).clone(), (set.clone(), *revision));
        }
        let long = living(cluster, &owner, &uid).map(min_ready).unwrap_or_default();
        let was_available = self.follow(cluster.now(), key, available[1], long);
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
                let left = self.available_for(cluster, &uid, long);
                if !managed {
                    if let Some(promise) = self.promises.get_mut(&uid) {
                        promise.floor = 0;
                    }
                    self.losses.lost.insert((*key).clone(), (set, *revision));
                } else if judged
                    && known_to_be_ready
                    && was_available
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
        if !available[1] {
            self.losses.gained.remove(*key);
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
            // What a quota has no room for holds it up, too.
            let mut held_up = is_short_of_template(
                cluster,
                &key.namespace,
                deployment.spec.as_ref().map(|s| &s.template),
            );
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
/// different times, and a write of one replica set does not exclude one of another. Excused is what
/// replica sets were given that it did not know of, unless it has given it itself in the same life,
/// and the bound of an older state of the deployment. So is all that is carried out when nobody
/// waits for the answer any more.
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
