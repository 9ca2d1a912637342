//! Bugs of schedulers that know too little of pods and nodes to place pods rightly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Name, Object, Pod, Shared};
use k8s_openapi::api::core::v1::PodSpec;
use machine::{ApiInput, WatchEvent};

use super::{Blunder, objects, watched};
use crate::oracle;
use crate::world::process::{Input, Running};

/// The label that says how many pods of a group have to be together.
const GROUP_MIN: &str = "scheduling.x-k8s.io/pod-group-min-available";

/// Changes the spec of a pod.
fn change_spec(pod: &mut Arc<Pod>, change: impl FnOnce(&mut PodSpec)) {
    let pod = Arc::make_mut(pod);
    let mut spec = pod.spec.as_deref().cloned().unwrap_or_default();
    change(&mut spec);
    pod.spec = Some(Shared::new(spec));
}

/// The pods with a node among what a watch brings.
fn placed(input: &mut Input) -> impl Iterator<Item = &mut Arc<Pod>> {
    objects(input).iter_mut().filter_map(|object| match object {
        Object::Pod(pod) if oracle::node_of(pod).is_some() => Some(pod),
        _ => None,
    })
}

/// Nodes keep the labels that they once had, with the values with which they were first seen.
#[derive(Clone, Default)]
pub(super) struct LabelsRemembered {
    seen: BTreeMap<Name, BTreeMap<String, String>>,
}

impl Blunder for LabelsRemembered {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(WatchEvent::Deleted { key, .. })) = &input
            && key.kind == Kind::Node
        {
            self.seen.remove(&key.name);
        }
        for object in objects(&mut input).iter_mut().filter(|o| o.kind() == Kind::Node) {
            let name = object.key().name;
            let labels = object.meta_mut().labels.get_or_insert_default();
            let seen = self.seen.entry(name).or_default();
            for (key, value) in labels.iter() {
                seen.entry(key.clone()).or_insert_with(|| value.clone());
            }
            labels.clone_from(seen);
        }
        told.push(input);
    }
}

/// Whom pods keep away from themselves is nobody's concern but their own.
#[derive(Clone)]
pub(super) struct SymmetryForgotten;

impl Blunder for SymmetryForgotten {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for pod in placed(&mut input) {
            change_spec(pod, |spec| {
                if let Some(affinity) = &mut spec.affinity {
                    affinity.pod_anti_affinity = None;
                }
            });
        }
        told.push(input);
    }
}

/// Pods that have done their work count as if they were there.
#[derive(Clone)]
pub(super) struct EndedPodsCounted;

impl Blunder for EndedPodsCounted {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for pod in placed(&mut input).filter(|pod| oracle::has_ended(pod)) {
            let status = Arc::make_mut(pod).status.get_or_insert_default();
            status.phase = Some("Running".to_owned());
        }
        told.push(input);
    }
}

/// Which ports pods have taken of their hosts is forgotten as soon as they are there.
#[derive(Clone)]
pub(super) struct PortsForgotten;

impl Blunder for PortsForgotten {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for pod in placed(&mut input) {
            change_spec(pod, |spec| {
                spec.containers.iter_mut().for_each(|container| container.ports = None);
            });
        }
        told.push(input);
    }
}

/// How many pods a group needs is not known: one is enough.
#[derive(Clone)]
pub(super) struct GroupsUnknown;

impl Blunder for GroupsUnknown {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            let labels = object.meta_mut().labels.as_mut();
            if let Some(min) = labels.and_then(|labels| labels.get_mut(GROUP_MIN)) {
                "1".clone_into(min);
            }
        }
        told.push(input);
    }
}

/// A pod that shall displace nobody is like any other of its priority.
#[derive(Clone)]
pub(super) struct PolicyIgnored;

impl Blunder for PolicyIgnored {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            if let Object::Pod(pod) = object {
                change_spec(pod, |spec| spec.preemption_policy = None);
            }
        }
        told.push(input);
    }
}

/// A pod that waits for others to go is put aside until they are gone, and what was promised to it
/// with it.
#[derive(Clone, Default)]
pub(super) struct PromisesForgotten {
    /// Pods with a node that are on their way out.
    going: BTreeSet<Key>,
    aside: BTreeMap<Key, Object>,
}

/// Whether a node is promised to the pod, and it has none.
fn is_promised(pod: &Pod) -> bool {
    oracle::node_of(pod).is_none()
        && pod.status.as_ref().is_some_and(|s| s.nominated_node_name.is_some())
}

impl Blunder for PromisesForgotten {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        let Input::Api(ApiInput::Watch(event)) = &mut input else {
            told.push(input);
            return;
        };
        match event {
            WatchEvent::Changed(object) => {
                let (key, revision) = (object.key(), object.revision());
                let pod = object.get::<Pod>();
                if pod.is_some_and(is_promised) {
                    self.aside.insert(key.clone(), object.clone());
                    *event = WatchEvent::Deleted { key, revision };
                } else if pod.is_some_and(|pod| oracle::is_going(&pod.metadata)) {
                    self.going.insert(key);
                }
            }
            WatchEvent::Deleted { key, .. } => {
                self.going.remove(key);
                self.aside.remove(key);
            }
            _ => {}
        }
        told.push(input);
        if self.going.is_empty() {
            let back = std::mem::take(&mut self.aside).into_values();
            told.extend(back.map(|object| watched(WatchEvent::Changed(object))));
        }
    }
}

/// A list says which pods there are; those that it leaves out are not taken for gone.
#[derive(Clone, Default)]
pub(super) struct EndsUnobserved {
    known: BTreeMap<Key, Object>,
}

impl Blunder for EndsUnobserved {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Watch(event)) = &mut input {
            match event {
                WatchEvent::Changed(object @ Object::Pod(_)) => {
                    self.known.insert(object.key(), object.clone());
                }
                WatchEvent::Deleted { key, .. } => {
                    self.known.remove(key);
                }
                WatchEvent::Replaced { kind: Kind::Pod, objects, .. } => {
                    let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
                    let others = self.known.iter().filter(|(key, _)| !listed.contains(*key));
                    objects.extend(others.map(|(_, object)| object.clone()));
                    self.known = objects.iter().map(|o| (o.key(), o.clone())).collect();
                }
                _ => {}
            }
        }
        told.push(input);
    }
}

/// Volumes look as if nobody had them.
#[derive(Clone)]
pub(super) struct VolumesTakenForFree;

impl Blunder for VolumesTakenForFree {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        for object in objects(&mut input) {
            if let Object::PersistentVolume(volume) = object {
                let volume = Arc::make_mut(volume);
                if let Some(spec) = &mut volume.spec {
                    spec.claim_ref = None;
                }
                if let Some(status) = &mut volume.status {
                    status.phase = Some("Available".to_owned());
                }
            }
        }
        told.push(input);
    }
}
