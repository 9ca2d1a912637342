//! What controller managers knew when they made the plans that they carry out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Request, Revision, Subresource, Time};
use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::check::{Cluster, Occurrence, Role};
use crate::checks::brood::{Broods, Life, Lives, PATIENCE};
use crate::checks::store::coordinates;
use crate::oracle;
use crate::world::ProcessId;

/// The name of a call among those of one process.
pub(super) fn name_of(by: ProcessId, object: &Object) -> (ProcessId, Key, String) {
    (by, object.key(), object.meta().resource_version.clone().unwrap_or_default())
}

/// The replica set that a request writes.
pub(super) const fn written(request: &Request) -> Option<&Object> {
    match request {
        Request::Create(object @ Object::ReplicaSet(_))
        | Request::Update { object: object @ Object::ReplicaSet(_), subresource: None } => {
            Some(object)
        }
        _ => None,
    }
}

/// A plan for the pods of a replica set.
#[derive(Clone)]
pub(super) struct PodPlan {
    /// The pods that were not ready, as far as the process knew when it made the plan.
    pub(super) unready: BTreeSet<Key>,
    /// How far it had seen pods then.
    pub(super) seen: Revision,
    /// When the last of its calls was made.
    pub(super) at: Time,
}

/// What controller managers knew of pods when they planned to make or to delete some of them.
///
/// A plan is carried out in batches, each after the answers to the last; meanwhile what counts is
/// what was known when the plan was made. It ends with the write of the status, or when a call is
/// refused or not answered.
#[derive(Clone, Default)]
pub(super) struct PodPlans {
    /// By process and UID of the replica set.
    pub(super) plans: BTreeMap<(Life, String), PodPlan>,
    /// Deletions that were asked for: of which plan, and whether the pod was known to be ready.
    pub(super) asked: BTreeMap<Key, ((Life, String), bool)>,
    /// How far each controller manager has seen pods.
    pub(super) seen: BTreeMap<ProcessId, Revision>,
}

impl PodPlans {
    /// Takes in what happened, before the broods do.
    pub(super) fn observe(
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

    pub(super) fn called(
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
    pub(super) fn plan(
        &mut self,
        cluster: &dyn Cluster,
        by: Life,
        set: &str,
        broods: &Broods,
    ) -> &PodPlan {
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
    pub(super) fn seen(&self, now: Time, by: Life, set: &str) -> Revision {
        let plan = self.plans.get(&(by, set.to_owned()));
        let plan = plan.filter(|plan| now.since(plan.at) <= PATIENCE).map(|plan| plan.seen);
        plan.or_else(|| self.seen.get(&by.0).copied()).unwrap_or_default()
    }

    /// Whether who has deleted the pod knew that it was ready.
    pub(super) fn carried_out(&mut self, key: &Key) -> bool {
        self.asked.remove(key).is_none_or(|(_, ready)| ready)
    }
}

/// What controller managers knew when they began to carry out what they had planned for a
/// deployment. The replica sets are written in batches as well, each at most once in a plan; it
/// ends with the write of the deployment's status, or when a call is refused or not answered.
#[derive(Clone)]
pub(super) struct DeploymentPlans<T>(BTreeMap<(Life, String), DeploymentPlan<T>>);

#[derive(Clone)]
pub(super) struct DeploymentPlan<T> {
    pub(super) knew: T,
    /// The replica sets that were written.
    pub(super) written: BTreeSet<Key>,
    /// When the last of its calls was made.
    pub(super) at: Time,
}

impl<T> Default for DeploymentPlans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> DeploymentPlans<T> {
    pub(super) fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        lives: &Lives,
    ) {
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
    pub(super) fn knew(
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
