//! Bugs of the controllers of jobs, daemon sets, stateful sets and budgets.

use std::collections::BTreeMap;

use api::{
    ApiObject, Key, Kind, Object, Patch, PatchKind, Pod, Request, Shared, Subresource, Time, codec,
};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodCondition;
use machine::{ApiEffect, ApiInput, WatchEvent};
use serde_json::{Value, json};

use super::{Blunder, objects, watched};
use crate::oracle::{self, sets};
use crate::world::process::{Input, Running};

/// The kind of a pod's controller.
fn owner_kind(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|o| o.controller == Some(true)).map(|o| o.kind.as_str())
}

/// Pods of owners of a kind get names that say nothing: that a name is taken protects from
/// nothing.
#[derive(Clone)]
pub(super) struct NamesDrawn {
    kind: &'static str,
    heard: u64,
}

impl NamesDrawn {
    pub(super) const fn of(kind: &'static str) -> Self {
        Self { kind, heard: 0 }
    }
}

impl Blunder for NamesDrawn {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        self.heard += 1;
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        if let ApiEffect::Call { id, request: Request::Create(object @ Object::Pod(_)) } = effect
            && object.get::<Pod>().and_then(owner_kind) == Some(self.kind)
        {
            let name = object.key().name;
            object.meta_mut().name = Some(format!("{name}-{}-{}", self.heard, id.0));
        }
    }
}

/// What is known of the pods of jobs is older than what is known of jobs: a pod is not known before it
/// runs. Names protect from nothing.
#[derive(Clone)]
pub(super) struct JobPodsDoubled(NamesDrawn);

impl JobPodsDoubled {
    pub(super) const fn new() -> Self {
        Self(NamesDrawn::of("Job"))
    }
}

impl Blunder for JobPodsDoubled {
    fn hears(&mut self, machine: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(WatchEvent::Changed(object @ Object::Pod(pod)))) = &input
            && owner_kind(pod) == Some("Job")
            && matches!(oracle::phase(pod), "" | "Pending")
        {
            let (kind, revision) = (Kind::Pod, object.revision());
            input = watched(WatchEvent::Progress { kind, revision });
        }
        self.0.hears(machine, input, told);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        self.0.says(effect);
    }
}

/// A status that was counted is written whatever has become of the budget meanwhile.
#[derive(Clone)]
pub(super) struct BudgetOverwritten;

impl Blunder for BudgetOverwritten {
    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { request, .. } = effect else { return };
        let Request::Update { object, subresource: Some(Subresource::Status) } = &*request else {
            return;
        };
        if object.kind() != Kind::PodDisruptionBudget {
            return;
        }
        // What is not there is taken away.
        let mut status = codec::to_value(object)["status"].take();
        if let Value::Object(status) = &mut status {
            status.entry("disruptedPods").or_insert(Value::Null);
        }
        let body = json!({"status": status});
        *request = Request::Patch {
            key: object.key(),
            subresource: Some(Subresource::Status),
            patch: Patch { kind: PatchKind::Merge, body: body.into() },
        };
    }
}

/// While a later pod is not ready, the end of an earlier one is not noticed.
#[derive(Clone)]
pub(super) struct EarlierPodForgotten;

impl Blunder for EarlierPodForgotten {
    fn hears(&mut self, machine: &Running, input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(event)) = &input
            && let Some(key) = ending(event)
            && is_before_ill(machine, &key)
        {
            return;
        }
        told.push(input);
    }
}

/// The pod that ends.
fn ending(event: &WatchEvent) -> Option<Key> {
    match event {
        WatchEvent::Deleted { key, .. } if key.kind == Kind::Pod => Some(key.clone()),
        WatchEvent::Changed(object @ Object::Pod(pod)) if !oracle::is_active(pod) => {
            Some(object.key())
        }
        _ => None,
    }
}

/// Whether it is a pod of a stateful set that has a later one that is not ready.
fn is_before_ill(machine: &Running, key: &Key) -> bool {
    let Running::ControllerManager(manager) = machine else { return false };
    let cache = manager.cache();
    let find = || {
        let pod = cache.object(key)?.get::<Pod>()?;
        let owner =
            pod.metadata.owner_references.iter().flatten().find(|o| o.kind == "StatefulSet")?;
        let set = cache.get::<StatefulSet>(&key.namespace, &owner.name)?;
        let ordinal = sets::ordinal(set, pod)?;
        let later = cache.list_in::<Pod>(&key.namespace).filter(|other| {
            let mine = oracle::controller(&other.metadata) == Some(&owner.uid);
            mine && sets::ordinal(set, other).is_some_and(|i| i > ordinal)
        });
        Some(later.into_iter().any(|other| !oracle::is_ready(other)))
    };
    find().unwrap_or(false)
}

/// A job that is to run one pod at a time, as it is when nobody says anything, runs a thousand.
#[derive(Clone)]
pub(super) struct ParallelismUnlimited;

impl Blunder for ParallelismUnlimited {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            let Some(job) = object.get::<Job>() else { continue };
            let mut job = job.clone();
            if let Some(spec) = job.spec.as_mut().filter(|s| s.parallelism == Some(1)) {
                spec.parallelism = Some(1_000);
                spec.completions = None;
                *object = job.into_object();
            }
        }
        told.push(input);
    }
}

/// Nobody sees a pod of a replica set become ready: it looks as if it always were, since a time
/// that its node has written. Before it is, that is a time yet to come.
#[derive(Clone)]
pub(super) struct NodeTimeBelieved;

/// After the end of every run.
const YET_TO_COME: Time = Time::from_secs(4_102_444_800);

impl Blunder for NodeTimeBelieved {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            let Some(pod) = object.get::<Pod>().filter(|pod| owner_kind(pod) == Some("ReplicaSet"))
            else {
                continue;
            };
            if !oracle::is_active(pod) || oracle::is_ready(pod) {
                continue;
            }
            let mut status = pod.status.as_deref().cloned().unwrap_or_default();
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|condition| condition.type_ != "Ready");
            conditions.push(PodCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(YET_TO_COME.to_meta()),
                ..PodCondition::default()
            });
            *object = Pod { status: Some(Shared::new(status)), ..pod.clone() }.into_object();
        }
        told.push(input);
    }
}

/// What was ready when this life began is not counted in the status of stateful sets.
#[derive(Clone, Default)]
pub(super) struct CountOfThisLife {
    /// How many pods of each owner were ready in the first list of this life, by its UID.
    before: Option<BTreeMap<String, i32>>,
    /// What was to be written: to the controller it looks as if it had been.
    right: BTreeMap<Key, StatefulSetStatus>,
}

impl Blunder for CountOfThisLife {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(WatchEvent::Replaced {
            kind: Kind::Pod, objects, ..
        })) = &input
            && self.before.is_none()
        {
            let mut before: BTreeMap<String, i32> = BTreeMap::new();
            let ready =
                objects.iter().filter_map(Object::get::<Pod>).filter(|p| oracle::is_ready(p));
            for owner in ready.filter_map(|pod| oracle::controller(&pod.metadata)) {
                *before.entry(owner.to_owned()).or_default() += 1;
            }
            self.before = Some(before);
        }
        for object in objects(&mut input) {
            if let Some(status) = self.right.get(&object.key())
                && let Some(set) = object.get::<StatefulSet>()
            {
                let set = StatefulSet { status: Some(status.clone()), ..set.clone() };
                *object = set.into_object();
            }
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call {
            request: Request::Update { object, subresource: Some(Subresource::Status) },
            ..
        } = effect
        else {
            return;
        };
        let missed = self.before.as_ref().and_then(|before| before.get(object.uid()));
        let (Some(missed), Some(set)) = (missed, object.get::<StatefulSet>()) else { return };
        let Some(status) = &set.status else { return };
        self.right.insert(object.key(), status.clone());
        let fewer = |n: Option<i32>| n.map(|n| (n - missed).max(0));
        let status = StatefulSetStatus {
            ready_replicas: fewer(status.ready_replicas),
            available_replicas: fewer(status.available_replicas),
            ..status.clone()
        };
        *object = StatefulSet { status: Some(status), ..set.clone() }.into_object();
    }
}
