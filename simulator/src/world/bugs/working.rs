//! Bugs of controllers that make, choose or count wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Object, Patch, PatchKind, Pod, Request, Subresource};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use machine::{ApiEffect, ApiInput, WatchEvent};
use serde_json::json;

use super::{Blunder, objects};
use crate::oracle;
use crate::world::process::{Input, Running};

/// The objects of some kinds as they were last told.
#[derive(Clone)]
struct Told {
    kinds: &'static [Kind],
    objects: BTreeMap<Key, Object>,
}

impl Told {
    const fn of(kinds: &'static [Kind]) -> Self {
        Self { kinds, objects: BTreeMap::new() }
    }

    fn hears(&mut self, input: &Input) {
        let Input::Api(ApiInput::Watch(event)) = input else { return };
        if !self.kinds.contains(&event.kind()) {
            return;
        }
        match event {
            WatchEvent::Changed(object) => {
                self.objects.insert(object.key(), object.clone());
            }
            WatchEvent::Deleted { key, .. } => {
                self.objects.remove(key);
            }
            WatchEvent::Replaced { kind, objects, .. } => {
                self.objects.retain(|key, _| key.kind != *kind);
                self.objects.extend(objects.iter().map(|o| (o.key(), o.clone())));
            }
            WatchEvent::Progress { .. } | WatchEvent::Renewing { .. } => {}
        }
    }
}

/// Of surplus pods those that are of most use go first.
#[derive(Clone)]
pub(super) struct RanksReversed {
    pods: Told,
    given_up: BTreeSet<Key>,
}

impl RanksReversed {
    pub(super) const fn new() -> Self {
        Self { pods: Told::of(&[Kind::Pod]), given_up: BTreeSet::new() }
    }

    /// The pod of the same replica set that should be the last to go.
    fn most_useful_beside(&self, victim: &Key) -> Option<&Object> {
        let owner = oracle::controller(self.pods.objects.get(victim)?.meta())?;
        let pods = self.pods.objects.values().filter_map(|o| Some((o, o.get::<Pod>()?)));
        let own = pods.filter(|(object, pod)| {
            oracle::controller(&pod.metadata) == Some(owner)
                && oracle::is_active(pod)
                && !self.given_up.contains(&object.key())
        });
        let use_of = |pod: &Pod| (oracle::is_ready(pod), oracle::node_of(pod).is_some());
        own.max_by_key(|(_, pod)| use_of(pod)).map(|(object, _)| object)
    }
}

impl Blunder for RanksReversed {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        self.pods.hears(&input);
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { request, .. } = effect else { return };
        if let Request::Delete { key, uid, revision: None, grace_seconds: None, propagation: None } =
            request
            && key.kind == Kind::Pod
            && let Some(object) = self.most_useful_beside(key)
        {
            *key = object.key();
            *uid = Some(object.uid().to_owned());
            self.given_up.insert(key.clone());
        }
    }
}

/// A replica set that grows is given all that its deployment asks for, whatever the others have.
#[derive(Clone)]
pub(super) struct ScaledToTheFull {
    known: Told,
}

impl ScaledToTheFull {
    pub(super) const fn new() -> Self {
        Self { known: Told::of(&[Kind::Deployment, Kind::ReplicaSet]) }
    }

    /// How many pods the deployment of a replica set asks for.
    fn all(&self, set: &ReplicaSet) -> Option<i32> {
        let owner = oracle::controller(&set.metadata)?;
        let deployment = self.known.objects.values().find(|o| o.uid() == owner)?;
        deployment.get::<Deployment>()?.spec.as_ref()?.replicas
    }
}

fn replicas(set: &ReplicaSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

impl Blunder for ScaledToTheFull {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        self.known.hears(&input);
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { request: Request::Update { object, subresource: None }, .. } = effect
        else {
            return;
        };
        let key = object.key();
        let Object::ReplicaSet(set) = object else { return };
        let before = self.known.objects.get(&key).and_then(Object::get::<ReplicaSet>);
        let grows = before.is_some_and(|before| replicas(set) > replicas(before));
        if let Some(all) = self.all(set).filter(|_| grows)
            && let Some(spec) = &mut Arc::make_mut(set).spec
        {
            spec.replicas = Some(all);
        }
    }
}

/// Jobs of cron jobs get names that say nothing of their time.
#[derive(Clone)]
pub(super) struct CronJobsDoubled;

impl Blunder for CronJobsDoubled {
    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { id, request: Request::Create(object @ Object::Job(_)) } = effect
        else {
            return;
        };
        let mut owners = object.meta().owner_references.iter().flatten();
        if owners.any(|o| o.kind == "CronJob") {
            let name = object.key().name;
            object.meta_mut().name = Some(format!("{name}-{}", id.0));
        }
    }
}

/// That a replication controller has a pod is not seen: whoever selects the pod takes it.
#[derive(Clone)]
pub(super) struct OwnersUnseen;

impl Blunder for OwnersUnseen {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input).iter_mut().filter(|o| o.kind() == Kind::Pod) {
            if let Some(owners) = &mut object.meta_mut().owner_references {
                owners.retain(|o| o.kind != "ReplicationController");
            }
        }
        told.push(input);
    }
}

/// The pods that a rollout adds for a while count as pods that are wanted: as soon as an
/// autoscaler looks, it asks for as many as there are.
#[derive(Clone)]
pub(super) struct SurgeCounted {
    deployments: Told,
}

impl SurgeCounted {
    pub(super) const fn new() -> Self {
        Self { deployments: Told::of(&[Kind::Deployment]) }
    }
}

impl Blunder for SurgeCounted {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        self.deployments.hears(&input);
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { request, .. } = effect else { return };
        let Request::Update { object, subresource: Some(Subresource::Status) } = &*request else {
            return;
        };
        let key = object.key();
        let Object::HorizontalPodAutoscaler(autoscaler) = object else { return };
        let Some(spec) = &autoscaler.spec else { return };
        let scaled = Key::new(Kind::Deployment, &key.namespace, &spec.scale_target_ref.name);
        let deployment = self.deployments.objects.get(&scaled).and_then(Object::get::<Deployment>);
        let Some(deployment) = deployment else { return };
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let has = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let has = has.min(spec.max_replicas);
        if has > wanted {
            *request = Request::Patch {
                key: scaled,
                subresource: Some(Subresource::Scale),
                patch: Patch {
                    kind: PatchKind::Merge,
                    body: json!({"spec": {"replicas": has}}).into(),
                },
            };
        }
    }
}

/// How long a job is kept is counted from its start.
#[derive(Clone)]
pub(super) struct KeptFromStart;

impl Blunder for KeptFromStart {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            let Object::Job(job) = object else { continue };
            let Some(status) = &mut Arc::make_mut(job).status else { continue };
            let start = status.start_time.clone();
            let ends = ["Complete", "Failed"];
            let conditions = status.conditions.iter_mut().flatten();
            for condition in conditions.filter(|c| ends.contains(&c.type_.as_str())) {
                condition.last_transition_time.clone_from(&start);
            }
        }
        told.push(input);
    }
}
