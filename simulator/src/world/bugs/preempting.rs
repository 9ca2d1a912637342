//! Bugs of schedulers that make pods give way to others.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApiObject, Key, Kind, Object, Patch, Pod, Request, Shared};
use k8s_openapi::api::core::v1::PodSchedulingGate;
use machine::{ApiEffect, ApiInput, CallId, WatchEvent};

use super::scheduling::ends_pod;
use super::{Blunder, watched};
use crate::oracle;
use crate::world::process::{Input, Program, Running};

/// Whether a pod has no node yet.
fn waits(object: &Object) -> bool {
    object.get::<Pod>().is_some_and(|pod| oracle::node_of(pod).is_none() && oracle::is_active(pod))
}

/// The schedulers share the pods, as if each pod named one of them: the first has those of positive
/// priority, the second all others. Of pods that wait a scheduler hears only when they are its own.
///
/// The first pauses between attempts: that a pod has ended, so that there is room, it hears after
/// what happens next.
#[derive(Clone)]
pub(super) struct OwnPodsOnly {
    urgent: bool,
    ends: Vec<Input>,
}

impl OwnPodsOnly {
    pub(super) fn of(program: Program) -> Self {
        Self { urgent: program == Program::Scheduler(0), ends: Vec::new() }
    }

    fn is_of_another(&self, object: &Object) -> bool {
        let spec = object.get::<Pod>().and_then(|pod| pod.spec.as_deref());
        let urgent = spec.and_then(|s| s.priority).unwrap_or(0) > 0;
        waits(object) && urgent != self.urgent
    }
}

impl Blunder for OwnPodsOnly {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        match &mut input {
            Input::Api(ApiInput::Watch(event)) if self.urgent && ends_pod(event) => {
                self.ends.push(input);
                return;
            }
            Input::Api(ApiInput::Watch(WatchEvent::Changed(object)))
                if self.is_of_another(object) =>
            {
                let (kind, revision) = (Kind::Pod, object.revision());
                input = watched(WatchEvent::Progress { kind, revision });
            }
            Input::Api(ApiInput::Watch(WatchEvent::Replaced { objects, .. })) => {
                objects.retain(|object| !self.is_of_another(object));
            }
            _ => {}
        }
        told.push(input);
        told.append(&mut self.ends);
    }
}

/// The node that a change of a pod promises to it.
fn promises(patch: &Patch) -> bool {
    let body = patch.body.json();
    body["status"]["nominatedNodeName"].as_str().is_some_and(|node| !node.is_empty())
}

/// A pod for which others give way is held back by a gate until they are gone and everything that
/// was asked for is answered. That is looked at when one of them ends, and never again.
#[derive(Clone, Default)]
pub(super) struct HeldBackForGood {
    /// Pods without a node that the machine was told of.
    waiting: BTreeMap<Key, Object>,
    /// Those that are held back, and whether the machine knows.
    held: BTreeMap<Key, bool>,
    /// Pods that give way.
    victims: BTreeSet<Key>,
    /// Calls by which they are made to, and by which nodes are promised.
    calls: BTreeSet<CallId>,
}

impl HeldBackForGood {
    /// The pod with a gate.
    fn gated(object: &Object) -> Object {
        let Some(pod) = object.get::<Pod>() else { return object.clone() };
        let mut spec = pod.spec.as_deref().cloned().unwrap_or_default();
        let gate = PodSchedulingGate { name: "preemption".to_owned() };
        spec.scheduling_gates.get_or_insert_default().push(gate);
        Pod { spec: Some(Shared::new(spec)), ..pod.clone() }.into_object()
    }

    /// Tells the machine of those that are held back from now on.
    fn hold(&mut self, told: &mut Vec<Input>) {
        for (key, known) in self.held.iter_mut().filter(|(_, known)| !**known) {
            if let Some(object) = self.waiting.get(key) {
                told.push(watched(WatchEvent::Changed(Self::gated(object))));
                *known = true;
            }
        }
    }

    /// Lets those go on that wait for nothing any more.
    fn release(&mut self, told: &mut Vec<Input>) {
        if !self.victims.is_empty() || !self.calls.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.held).into_keys() {
            if let Some(object) = self.waiting.get(&key) {
                told.push(watched(WatchEvent::Changed(object.clone())));
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
        self.held.remove(key);
    }
}

/// The pod that an event is about.
fn pod_of(event: &WatchEvent) -> Option<Key> {
    match event {
        WatchEvent::Changed(object @ Object::Pod(_)) => Some(object.key()),
        WatchEvent::Deleted { key, .. } if key.kind == Kind::Pod => Some(key.clone()),
        _ => None,
    }
}

impl Blunder for HeldBackForGood {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        self.hold(told);
        match &mut input {
            Input::Api(ApiInput::Reply { id, .. }) => {
                self.calls.remove(id);
                told.push(input);
            }
            Input::Api(ApiInput::Watch(event)) => {
                let Some(key) = pod_of(event) else {
                    told.push(input);
                    return;
                };
                let ends = ends_pod(event) && self.victims.remove(&key);
                match event {
                    WatchEvent::Changed(object) if waits(object) => {
                        self.waiting.insert(key.clone(), object.clone());
                        if self.held.contains_key(&key) {
                            *object = Self::gated(object);
                        }
                    }
                    _ => self.forget(&key),
                }
                told.push(input);
                if ends {
                    self.release(told);
                }
            }
            _ => told.push(input),
        }
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { id, request } = effect else { return };
        match request {
            Request::Patch { key, patch, .. } if key.kind == Kind::Pod => {
                if promises(patch) {
                    self.held.entry(key.clone()).or_default();
                }
                self.calls.insert(*id);
            }
            Request::Delete { key, .. } if key.kind == Kind::Pod => {
                self.victims.insert(key.clone());
                self.calls.insert(*id);
            }
            _ => {}
        }
    }
}
