//! Bugs of schedulers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{ApiError, Key, Kind, Name, Object, Pod, Request, Subresource, Time, meta};
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use machine::{ApiEffect, ApiInput, CallId, WatchEvent};

use super::{Blunder, answered, objects, watched};
use crate::oracle;
use crate::world::process::{Input, Running};

/// A binding whose answer was lost counts as one that never got to the server: what it has
/// assumed is forgotten.
#[derive(Clone, Default)]
pub(super) struct UnknownBindingForgotten {
    bindings: BTreeSet<CallId>,
}

impl Blunder for UnknownBindingForgotten {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        told.push(match input {
            Input::Api(ApiInput::Reply { id, result: Err(ApiError::Unknown(message)) })
                if self.bindings.contains(&id) =>
            {
                answered(id, Err(ApiError::Unreachable(message)))
            }
            other => other,
        });
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        if let ApiEffect::Call { id, request: Request::Bind { .. } } = effect {
            self.bindings.insert(*id);
        }
    }
}

/// A change of a node that comes while a binding to it is under way does not touch what was found
/// out about the node before: the result is stored after it has been invalidated, and is used
/// until the node changes again.
#[derive(Clone, Default)]
pub(super) struct StaleFeasibility {
    bindings: BTreeMap<CallId, String>,
    /// What was told of nodes.
    told: BTreeMap<Name, NodeSpec>,
    /// What was not.
    missed: BTreeMap<Name, NodeSpec>,
}

impl StaleFeasibility {
    /// Makes the node look as it did before what was missed.
    fn outdate(&mut self, name: Name, node: &mut Node) {
        let spec = node.spec.clone().unwrap_or_default();
        let binds = self.bindings.values().any(|bound| *bound == *name);
        match self.told.get(&name) {
            Some(told) if *told != spec && (binds || self.missed.get(&name) == Some(&spec)) => {
                node.spec = Some(told.clone());
                self.missed.insert(name, spec);
            }
            _ => {
                self.missed.remove(&name);
                self.told.insert(name, spec);
            }
        }
    }
}

impl Blunder for StaleFeasibility {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        match &mut input {
            Input::Api(ApiInput::Reply { id, .. }) => {
                self.bindings.remove(id);
            }
            Input::Api(ApiInput::Watch(WatchEvent::Changed(object))) => {
                let name = object.key().name;
                if let Object::Node(node) = object {
                    self.outdate(name, Arc::make_mut(node));
                }
            }
            _ => {}
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        if let ApiEffect::Call { id, request: Request::Bind { node, .. } } = effect {
            self.bindings.insert(*id, node.clone());
        }
    }
}

/// A pod that is on its way to its end looks like one that stays.
#[derive(Clone)]
pub(super) struct EndingPodsCounted;

impl Blunder for EndingPodsCounted {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            let bound = object.get::<Pod>().is_some_and(|pod| oracle::node_of(pod).is_some());
            if bound && oracle::is_going(object.meta()) {
                object.meta_mut().deletion_timestamp = None;
            }
        }
        told.push(input);
    }
}

/// The verdict that no node has room for a pod, with the write that tells of it under way.
fn verdict(effect: &ApiEffect) -> Option<(CallId, &Key)> {
    match effect {
        ApiEffect::Call {
            id,
            request: Request::Patch { key, subresource: Some(Subresource::Status), .. },
        } if key.kind == Kind::Pod => Some((*id, key)),
        _ => None,
    }
}

/// Whether a pod leaves its node.
pub(super) fn ends_pod(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Changed(object) => object.get().is_some_and(oracle::has_ended),
        WatchEvent::Deleted { key, .. } => key.kind == Kind::Pod,
        _ => false,
    }
}

/// While it says of a pod that no node has room for it, no pod's end is noticed.
#[derive(Clone, Default)]
pub(super) struct EventLostInCycle {
    verdicts: BTreeSet<CallId>,
}

impl Blunder for EventLostInCycle {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        match &input {
            Input::Api(ApiInput::Reply { id, .. }) => {
                self.verdicts.remove(id);
            }
            Input::Api(ApiInput::Watch(event)) if !self.verdicts.is_empty() && ends_pod(event) => {
                return;
            }
            _ => {}
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        self.verdicts.extend(verdict(effect).map(|(id, _)| id));
    }
}

/// Every change of a node, be it a heartbeat, brings unschedulable pods back to their place in the
/// queue at once, and as long as they are there no pod behind them gets its turn.
#[derive(Clone, Default)]
pub(super) struct RetriesBlockQueue {
    /// Pods without a node that the machine was told of.
    waiting: BTreeMap<Key, Object>,
    /// Those of them that no node had room for.
    unschedulable: BTreeSet<Key>,
    /// Pods whose turn does not come.
    blocked: BTreeMap<Key, Object>,
}

/// The place of a pod in the queue: smaller is earlier.
fn place(pod: &Object) -> (Reverse<i32>, Time) {
    let priority = pod.get::<Pod>().and_then(|p| p.spec.as_ref()?.priority).unwrap_or(0);
    (Reverse(priority), meta::created_at(pod.meta()))
}

fn waits(pod: &Pod) -> bool {
    oracle::node_of(pod).is_none() && oracle::is_active(pod)
}

impl RetriesBlockQueue {
    fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
        self.unschedulable.remove(key);
        self.blocked.remove(key);
    }

    fn is_blocked(&self, pod: &Object) -> bool {
        let mut heads = self.unschedulable.iter().filter_map(|key| self.waiting.get(key));
        heads.any(|head| place(head) < place(pod))
    }

    /// Lets those have their turn that nobody is before any more.
    fn unblock(&mut self, told: &mut Vec<Input>) {
        for (key, pod) in std::mem::take(&mut self.blocked) {
            if self.is_blocked(&pod) {
                self.blocked.insert(key, pod);
            } else {
                told.push(watched(WatchEvent::Changed(pod.clone())));
                self.waiting.insert(key, pod);
            }
        }
    }

    /// A pod that comes anew has no back-off to wait for.
    fn retry(&self, told: &mut Vec<Input>) {
        for pod in self.unschedulable.iter().filter_map(|key| self.waiting.get(key)) {
            let (key, revision) = (pod.key(), pod.revision());
            told.push(watched(WatchEvent::Deleted { key, revision }));
            told.push(watched(WatchEvent::Changed(pod.clone())));
        }
    }
}

impl Blunder for RetriesBlockQueue {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        let Input::Api(ApiInput::Watch(event)) = &input else {
            told.push(input);
            return;
        };
        match event {
            WatchEvent::Changed(object @ Object::Pod(pod)) if waits(pod) => {
                let key = object.key();
                if !self.waiting.contains_key(&key) && self.is_blocked(object) {
                    self.blocked.insert(key, object.clone());
                    return;
                }
                self.waiting.insert(key, object.clone());
                told.push(input);
            }
            WatchEvent::Changed(object @ Object::Pod(_)) => {
                self.forget(&object.key());
                told.push(input);
                self.unblock(told);
            }
            WatchEvent::Deleted { key, .. } if key.kind == Kind::Pod => {
                self.forget(key);
                told.push(input);
                self.unblock(told);
            }
            WatchEvent::Changed(Object::Node(_)) => {
                told.push(input);
                self.retry(told);
            }
            _ => told.push(input),
        }
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        self.unschedulable.extend(verdict(effect).map(|(_, key)| key.clone()));
    }
}
