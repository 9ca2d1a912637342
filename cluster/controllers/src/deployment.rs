//! `Deployment`: moves pods from one template to the next through replica sets.
//!
//! One pass decides on the replica sets first and reports last. Each object is written at most
//! once in a pass, so that no write of a plan invalidates the next one.
//!
//! Source: kubernetes 1.33, `pkg/controller/deployment`.

mod history;
mod progress;
mod rollback;
mod rollout;
pub(crate) mod sets;
pub(crate) mod strategy;

use api::selector::Selector;
use api::{ApiError, ApiObject, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use machine::{Cache, Delta, Index, Plan, Reconciler};

use self::sets::Sets;
use self::strategy::Strategy;
use crate::labels::{Labels, Orphans};
use crate::ownership::{self, Claim, required_labels, workload_selector};
use crate::selectors::{Selecting, Selectors};
use crate::{announce, pods};

/// The number that `kubectl rollout history` shows.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Keeps each deployment's replica sets as its template and strategy ask.
pub struct Deployments;

impl Reconciler for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Deployment, Kind::ReplicaSet, Kind::Pod]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Orphans<ReplicaSet>>::default(), Box::<Selectors<Deployment>>::default()]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.latest() {
            Object::Deployment(_) => vec![delta.key.clone()],
            Object::ReplicaSet(_) => of_replica_set(cache, delta),
            Object::Pod(_) => of_pod(cache, delta).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(deployment) = cache.get::<Deployment>(&key.namespace, &key.name) else {
            return plan;
        };
        let Some(pass) = Pass::new(cache, deployment, now, &mut plan) else { return plan };
        pass.run(&mut plan);
        plan
    }

    fn note_refusal(
        &self,
        cache: &Cache,
        key: &Key,
        request: &Request,
        error: &ApiError,
        now: Time,
    ) -> Option<Request> {
        let Request::Create(Object::ReplicaSet(set)) = request else { return None };
        let deployment = cache.get::<Deployment>(&key.namespace, &key.name)?;
        let name = set.metadata.name.as_deref().unwrap_or_default();
        progress::creation_refused(deployment, name, error, now)
    }
}

/// The deployments that a change of a replica set affects.
fn of_replica_set(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let selector = |deployment: &Deployment| {
        let spec = deployment.spec.as_ref();
        spec.map_or_else(Selector::nothing, |s| workload_selector(&s.selector))
    };
    ownership::affected(cache, delta, selector).into_iter().collect()
}

impl Selecting for Deployment {
    fn required_labels(&self) -> Option<&Labels> {
        required_labels(&self.spec.as_ref()?.selector)
    }
}

/// The deployment that waits for a pod to end before it makes new ones.
fn of_pod(cache: &Cache, delta: &Delta) -> Option<Key> {
    let ended = || delta.new.as_ref().is_none_or(|o| o.get().is_some_and(pods::is_terminal));
    let set = meta::controller_of(delta.latest().meta()).filter(|_| ended())?;
    let set = cache.get::<ReplicaSet>(&delta.key.namespace, &set.name)?;
    let owner = meta::controller_of(&set.metadata).filter(|o| o.kind == "Deployment")?;
    let key = Key::new(Kind::Deployment, &delta.key.namespace, &owner.name);
    let deployment = cache.object(&key)?.get::<Deployment>()?;
    Strategy::of(deployment.spec.as_ref()?).is_recreate().then_some(key)
}

/// One look at one deployment.
struct Pass<'a> {
    cache: &'a Cache,
    deployment: &'a Deployment,
    strategy: Strategy,
    replicas: i32,
    paused: bool,
    sets: Sets<'a>,
    /// The status to be reported, as far as it is known.
    status: DeploymentStatus,
    now: Time,
}

impl<'a> Pass<'a> {
    /// Collects the replica sets; `None` when they must be adopted or released first, or the
    /// deployment asks for nothing.
    fn new(
        cache: &'a Cache,
        deployment: &'a Deployment,
        now: Time,
        plan: &mut Plan,
    ) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let selector = workload_selector(&spec.selector);
        if spec.selector == k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector::default()
        {
            refuse_everything(deployment, plan);
            return None;
        }
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut owned = Vec::new();
        for set in ownership::candidates::<ReplicaSet, _>(cache, deployment) {
            match ownership::claim(&deployment.metadata, &selector, &set.metadata) {
                Claim::Keep => owned.push(set),
                Claim::Ignore => {}
                Claim::Adopt => {
                    plan.request(ownership::adopt(set, meta::controller_reference(deployment)));
                }
                Claim::Release => plan.request(ownership::release(set, uid)),
            }
        }
        if !plan.requests.is_empty() {
            return None;
        }
        Some(Self {
            cache,
            deployment,
            strategy: Strategy::of(spec),
            replicas: spec.replicas.unwrap_or(1).max(0),
            paused: spec.paused == Some(true),
            sets: Sets::new(&spec.template, owned),
            status: deployment.status.clone().unwrap_or_default(),
            now,
        })
    }

    fn run(mut self, plan: &mut Plan) {
        if meta::is_terminating(&self.deployment.metadata) {
            self.report_counts(plan);
            return;
        }
        self.note_pause();
        if let Some(revision) = rollback::wanted(self.deployment).filter(|_| !self.paused) {
            self.roll_back(revision, plan);
            return;
        }
        let scaled = self.paused || self.is_scaling();
        if scaled {
            self.renew_annotations();
            self.scale();
            if self.paused {
                self.clean_up(plan);
            }
            self.write(plan);
            self.report_counts(plan);
        } else if self.strategy.is_recreate() {
            self.recreate(plan);
        } else {
            self.roll(plan);
        }
    }

    /// Whether the number of replicas was changed since the replica sets were last scaled.
    fn is_scaling(&self) -> bool {
        self.sets.all().any(|set| {
            set.replicas > 0 && set.desired_annotation().is_some_and(|n| n != self.replicas)
        })
    }

    /// Writes the replica sets that changed.
    fn write(&mut self, plan: &mut Plan) {
        let deployment = self.deployment;
        for set in self.sets.all_mut() {
            let (before, after) = (set.original_replicas(), set.replicas);
            let Some(update) = set.take_update() else { continue };
            let name = update.metadata.name.clone().unwrap_or_default();
            let request = Request::Update { object: update.into_object(), subresource: None };
            if before == after {
                plan.request(request);
            } else {
                let record = scaled_record(deployment, &name, before, after);
                plan.request_announced(request, announce::when_done(record));
            }
        }
    }

    /// Whether pods of old templates may still run.
    fn old_pods_run(&self) -> bool {
        let old_uids = self.sets.old.iter().filter_map(|s| s.set.metadata.uid.as_deref());
        self.sets.old.iter().any(|s| s.actual() > 0)
            || old_uids
                .flat_map(|uid| self.cache.owned::<Pod>(uid))
                .any(|pod| !pods::is_terminal(pod))
    }
}

/// `Scaled up replica set X from A to B`.
fn scaled_record(deployment: &Deployment, name: &str, from: i32, to: i32) -> machine::Record {
    let direction = if to < from { "down" } else { "up" };
    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
    announce::normal(deployment, "ScalingReplicaSet", message)
}

/// A deployment that selects all pods is left alone.
fn refuse_everything(deployment: &Deployment, plan: &mut Plan) {
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.events.push(announce::warning(deployment, "SelectingAll", message.to_owned()));
        let mut deployment = deployment.clone();
        deployment.status = Some(DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            ..status
        });
        plan.request(ownership::update_status(deployment));
    }
}

#[cfg(test)]
mod tests;
