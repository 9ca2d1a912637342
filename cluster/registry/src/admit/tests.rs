//! The whole flow on a small store.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Patch, PatchKind, Status, Subresource, Time, codec};
use serde_json::{Value, json};

mod admission;
mod affinity;
mod autoscalers;
mod bad_input;
mod cron_jobs;
mod crud;
mod daemon_sets;
mod deletion;
mod disruption;
mod fields;
mod gates;
mod jobs;
mod limit_ranges;
mod patches;
mod pods;
mod priority;
mod properties;
mod quotas;
mod services;
mod stateful_sets;
mod storage;

use crate::operation::{
    Caller, DeleteOptions, Mutation, Operation, Options, PodBinding, Stamp, View,
};

/// Objects and a revision: what the shells have, without the waiting.
pub(super) struct World {
    pub(super) objects: BTreeMap<Key, Object>,
    pub(super) revision: u64,
    pub(super) caller: Caller,
    pub(super) options: Options,
    pub(super) now: Time,
}

impl View for World {
    fn get(&self, key: &Key) -> Option<Object> {
        self.objects.get(key).cloned()
    }

    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object> {
        let wanted =
            |k: &&Key| k.kind == kind && (namespace.is_empty() || &*k.namespace == namespace);
        self.objects.keys().filter(wanted).map(|k| self.objects[k].clone()).collect()
    }
}

impl World {
    /// A world with the default namespace and its account.
    pub(super) fn new() -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            revision: 100,
            caller: Caller {
                name: "admin".to_owned(),
                groups: vec!["system:masters".to_owned()],
                ..Caller::default()
            },
            options: Options::default(),
            now: Time::from_secs(1_700_000_000),
        };
        world
            .create(json!({"kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": "default"}}))
            .unwrap();
        world
            .create(json!({"kind": "ServiceAccount", "apiVersion": "v1",
            "metadata": {"name": "default", "namespace": "default"}}))
            .unwrap();
        world
    }

    pub(super) fn stamp(&self) -> Stamp {
        let mut entropy = [7; 16];
        entropy[..8].copy_from_slice(&self.revision.to_be_bytes());
        Stamp { now: self.now, entropy }
    }

    pub(super) fn decide(&self, operation: &Operation) -> Result<Mutation, Status> {
        let current = operation.key().and_then(|key| self.get(&key));
        let caller = &self.caller;
        super::admit(operation, current.as_ref(), self, caller, &self.options, self.stamp())
    }

    /// Carries the operation out and returns what is stored, as JSON (`null` once removed).
    pub(super) fn run(&mut self, operation: &Operation) -> Result<Value, Status> {
        self.revision += 1;
        match self.decide(operation)? {
            Mutation::Put { mut object, charges, .. } => {
                for mut quota in charges {
                    assert_eq!(quota.revision(), self.objects[&quota.key()].revision());
                    quota.meta_mut().resource_version = Some(self.revision.to_string());
                    self.objects.insert(quota.key(), quota);
                }
                object.meta_mut().resource_version = Some(self.revision.to_string());
                let value = codec::to_value(&object);
                self.objects.insert(object.key(), object);
                Ok(value)
            }
            Mutation::Remove { last, .. } => {
                self.objects.remove(&last.key());
                Ok(Value::Null)
            }
            Mutation::Unchanged(object) => Ok(codec::to_value(&object)),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "manifests are made where they are used")]
    pub(super) fn create(&mut self, value: Value) -> Result<Value, Status> {
        self.run(&Operation::Create { object: object(&value) })
    }

    pub(super) fn update(
        &mut self,
        value: &Value,
        subresource: Option<Subresource>,
    ) -> Result<Value, Status> {
        let object = object(value);
        self.run(&Operation::Update { key: object.key(), object, subresource })
    }

    pub(super) fn patch(&mut self, key: &Key, body: Value) -> Result<Value, Status> {
        self.patch_at(key, None, body)
    }

    pub(super) fn patch_at(
        &mut self,
        key: &Key,
        subresource: Option<Subresource>,
        body: Value,
    ) -> Result<Value, Status> {
        let patch = Patch { kind: PatchKind::Merge, body: body.into() };
        self.run(&Operation::Patch { key: key.clone(), subresource, patch, strict: true })
    }

    pub(super) fn delete(&mut self, key: &Key, options: DeleteOptions) -> Result<Value, Status> {
        self.run(&Operation::Delete { key: key.clone(), options })
    }

    pub(super) fn bind(&mut self, pod: &str, node: &str) -> Result<Value, Status> {
        let binding = PodBinding { node: node.to_owned(), ..PodBinding::default() };
        self.run(&Operation::Bind { pod: key(Kind::Pod, pod), binding })
    }
}

pub(super) fn object(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

/// The key of an object in the default namespace, or of a cluster-scoped one.
pub(super) fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, if kind.namespaced() { "default" } else { "" }, name)
}

pub(super) fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "nginx"}]}})
}

pub(super) fn deployment(name: &str) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "a", "image": "nginx:1.27"}]}}}})
}

pub(super) fn daemon_set(name: &str) -> Value {
    with(deployment(name), "/kind", json!("DaemonSet"))
}

pub(super) fn stateful_set(name: &str) -> Value {
    with(deployment(name), "/kind", json!("StatefulSet"))
}

pub(super) fn service(name: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}})
}

pub(super) fn volume(name: &str) -> Value {
    json!({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/srv/x"}}})
}

pub(super) fn claim(name: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
}

/// Sets the value at a JSON pointer, making the objects on the way.
pub(super) fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for part in pointer.trim_start_matches('/').split('/') {
        at = match part.parse::<usize>() {
            Ok(i) if at.is_array() => &mut at[i],
            _ => &mut at[part],
        };
    }
    *at = new;
}

/// A manifest with one change.
pub(super) fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    set(&mut value, pointer, new);
    value
}
