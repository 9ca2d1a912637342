//! Bugs of controllers.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApiError, ApiObject, Key, Kind, Object, Pod, Reply, Request, Revision, Status};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::{ApiEffect, ApiInput, Cache, CallId, WatchEvent};

use super::{Blunder, answered, watched};
use crate::oracle;
use crate::world::process::{Input, Running};

/// What the controllers of the process know.
fn cache(machine: &Running) -> Option<&Cache> {
    match machine {
        Running::ControllerManager(manager) => Some(manager.cache()),
        _ => None,
    }
}

/// A replica set is known by its name alone: when another one of that name turns up in a list, it
/// counts as the one before.
#[derive(Clone, Default)]
pub(super) struct RecreationUnnoticed {
    /// The UIDs under which replica sets are known that have others.
    known_as: BTreeMap<Key, String>,
}

impl RecreationUnnoticed {
    fn disguise(&self, object: &mut Object) {
        if let Some(uid) = self.known_as.get(&object.key()) {
            object.meta_mut().uid = Some(uid.clone());
        }
    }
}

impl Blunder for RecreationUnnoticed {
    fn hears(&mut self, machine: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(event)) = &mut input {
            match event {
                WatchEvent::Replaced { kind: Kind::ReplicaSet, objects, .. } => {
                    for object in objects {
                        let known = cache(machine).and_then(|c| c.object(&object.key()));
                        if let Some(known) = known.filter(|known| known.uid() != object.uid()) {
                            self.known_as.insert(object.key(), known.uid().to_owned());
                        }
                        self.disguise(object);
                    }
                }
                WatchEvent::Changed(object @ Object::ReplicaSet(_)) => self.disguise(object),
                WatchEvent::Deleted { key, .. } => {
                    self.known_as.remove(key);
                }
                _ => {}
            }
        }
        told.push(input);
    }
}

/// Endpoints that were written are not looked at again when they come by: if the pods changed
/// back before that, what they should be is still compared with what they were.
#[derive(Clone, Default)]
pub(super) struct StaleEndpointsCompared {
    /// Endpoints that were written and have not come by, and whether a pod's readiness has
    /// changed since.
    written: BTreeMap<Key, bool>,
}

impl StaleEndpointsCompared {
    fn pod_changed(&mut self, machine: &Running, pod: &Object) {
        let ready =
            |object: Option<&Object>| object.and_then(Object::get).is_some_and(oracle::is_ready);
        let key = pod.key();
        if ready(cache(machine).and_then(|c| c.object(&key))) != ready(Some(pod)) {
            let same = self.written.iter_mut().filter(|(k, _)| k.namespace == key.namespace);
            same.for_each(|(_, changed)| *changed = true);
        }
    }
}

impl Blunder for StaleEndpointsCompared {
    fn hears(&mut self, machine: &Running, input: Input, told: &mut Vec<Input>) {
        match &input {
            Input::Api(ApiInput::Watch(WatchEvent::Changed(pod @ Object::Pod(_)))) => {
                self.pod_changed(machine, pod);
            }
            Input::Api(ApiInput::Watch(WatchEvent::Changed(endpoints @ Object::Endpoints(_))))
                if self.written.remove(&endpoints.key()) == Some(true) =>
            {
                let revision = endpoints.revision();
                told.push(watched(WatchEvent::Progress { kind: Kind::Endpoints, revision }));
                return;
            }
            _ => {}
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        if let ApiEffect::Call { request: Request::Update { object, .. }, .. } = effect
            && object.kind() == Kind::Endpoints
        {
            self.written.insert(object.key(), false);
        }
    }
}

/// An owner that the cache does not have counts as gone, however old the cache is; and what is
/// collected is named by its name alone.
#[derive(Clone)]
pub(super) struct AbsenceBelieved;

impl Blunder for AbsenceBelieved {
    fn hears(&mut self, machine: &Running, input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(WatchEvent::Changed(object))) = &input {
            let (key, revision) = (object.key(), object.revision());
            for owner in object.meta().owner_references.iter().flatten() {
                let Some(kind) = Kind::of_manifest(&owner.api_version, &owner.kind) else {
                    continue;
                };
                let namespace = if kind.namespaced() { &*key.namespace } else { "" };
                let owner = Key::new(kind, namespace, &owner.name);
                if cache(machine).is_some_and(|c| c.object(&owner).is_none()) {
                    told.push(watched(WatchEvent::Progress { kind, revision }));
                }
            }
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        // Only the collector says what is to become of dependents.
        if let ApiEffect::Call {
            request: Request::Delete { uid, revision, propagation: Some(_), .. },
            ..
        } = effect
        {
            (*uid, *revision) = (None, None);
        }
    }
}

/// That the name of a replica set is taken is not counted, so the next name is the same.
#[derive(Clone, Default)]
pub(super) struct CollisionUnresolved {
    counts: BTreeMap<CallId, Key>,
}

impl Blunder for CollisionUnresolved {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Reply { id, result }) = &mut input
            && let Some(key) = self.counts.remove(id)
        {
            *result = Err(Status::already_exists(Kind::ReplicaSet, &key.name).into());
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { id, request: Request::Update { object, .. } } = effect else {
            return;
        };
        let key = object.key();
        let Object::Deployment(deployment) = object else { return };
        if deployment.status.as_ref().is_some_and(|s| s.collision_count.is_some()) {
            let mut uncounted = deployment.as_ref().clone();
            uncounted.status.get_or_insert_default().collision_count = None;
            *object = uncounted.into_object();
            self.counts.insert(*id, key);
        }
    }
}

/// The name of a node that there is not.
const PHANTOM: &str = "phantom";

/// Nobody asks whether any node reports at all: to the controllers it looks as if there were
/// always one that does.
#[derive(Clone, Default)]
pub(super) struct SilenceOfAllBelieved {
    seen: bool,
}

fn is_ready(node: &Node) -> bool {
    oracle::readiness(node) == "True"
}

fn phantom(revision: Revision) -> [Object; 2] {
    let meta = |namespace: Option<&str>| ObjectMeta {
        name: Some(PHANTOM.to_owned()),
        namespace: namespace.map(str::to_owned),
        uid: Some(PHANTOM.to_owned()),
        resource_version: Some(revision.to_string()),
        ..ObjectMeta::default()
    };
    let ready = NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        ..NodeCondition::default()
    };
    let node = Node {
        metadata: meta(None),
        spec: Some(NodeSpec {
            pod_cidr: Some("10.255.255.192/26".to_owned()),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus { conditions: Some(vec![ready]), ..NodeStatus::default() }),
    };
    let lease = Lease { metadata: meta(Some("kube-node-lease")), spec: None };
    [node.into_object(), lease.into_object()]
}

impl SilenceOfAllBelieved {
    fn appears(&mut self, revision: Revision, told: &mut Vec<Input>) {
        self.seen = true;
        for object in phantom(revision) {
            let key = object.key();
            told.push(watched(WatchEvent::Changed(object)));
            if key.kind == Kind::Lease {
                told.push(watched(WatchEvent::Renewing { key, revision }));
            }
        }
    }

    fn vanishes(&mut self, revision: Revision, told: &mut Vec<Input>) {
        self.seen = false;
        for object in phantom(revision) {
            let key = object.key();
            told.push(watched(WatchEvent::Deleted { key, revision }));
        }
    }
}

impl Blunder for SilenceOfAllBelieved {
    fn hears(&mut self, machine: &Running, input: Input, told: &mut Vec<Input>) {
        let Input::Api(ApiInput::Watch(WatchEvent::Changed(object @ Object::Node(node)))) = &input
        else {
            told.push(input);
            return;
        };
        let (ready, revision) = (is_ready(node), object.revision());
        let of_others = |n: &&Node| n.metadata.name != node.metadata.name;
        let others =
            cache(machine).is_some_and(|c| c.list::<Node>().filter(of_others).any(is_ready));
        if !ready && !others {
            self.appears(revision, told);
        }
        told.push(input);
        if ready && self.seen {
            self.vanishes(revision, told);
        }
    }
}

/// A creation whose answer was lost is taken for one that was carried out: its pod will come by.
#[derive(Clone, Default)]
pub(super) struct UnknownCreationAwaited {
    creations: BTreeMap<CallId, Key>,
    awaited: BTreeMap<Key, CallId>,
}

impl Blunder for UnknownCreationAwaited {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        match &input {
            Input::Api(ApiInput::Reply { id, result }) => {
                if let Some(key) = self.creations.remove(id)
                    && matches!(result, Err(ApiError::Unknown(_)))
                {
                    self.awaited.insert(key, *id);
                    return;
                }
                told.push(input);
            }
            Input::Api(ApiInput::Watch(WatchEvent::Changed(pod @ Object::Pod(_)))) => {
                let (key, revision) = (pod.key(), pod.revision());
                told.push(input);
                if let Some(id) = self.awaited.remove(&key) {
                    told.push(answered(id, Ok(Reply::Done(revision))));
                }
            }
            _ => told.push(input),
        }
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        if let ApiEffect::Call { id, request: Request::Create(pod @ Object::Pod(_)) } = effect {
            self.creations.insert(*id, pod.key());
        }
    }
}

/// A list says what there is; what it leaves out is not taken for gone.
#[derive(Clone)]
pub(super) struct DeletionUnobserved;

impl Blunder for DeletionUnobserved {
    fn hears(&mut self, machine: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(WatchEvent::Replaced {
            kind: Kind::Pod, objects, ..
        })) = &mut input
        {
            let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
            let known = cache(machine).into_iter().flat_map(|c| c.objects(Pod::KIND));
            objects.extend(known.filter(|o| !listed.contains(&o.key())).cloned());
        }
        told.push(input);
    }
}
