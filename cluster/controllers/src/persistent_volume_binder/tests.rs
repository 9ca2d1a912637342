#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod binding;
mod making;
mod properties;
mod releasing;

use api::codec;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, summary};

type Bench = Fixture<PersistentVolumeBinder>;

fn claim_at(name: &str) -> Key {
    Key::new(Kind::PersistentVolumeClaim, "n", name)
}

fn volume_at(name: &str) -> Key {
    Key::cluster(Kind::PersistentVolume, name)
}

/// The claim `c` for a gibibyte.
fn claim(spec: Value) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
    for (key, value) in spec.as_object().unwrap() {
        claim["spec"][key] = value.clone();
    }
    claim
}

/// The volume `v` of a gibibyte.
fn volume(spec: Value) -> Value {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/srv"}},
        "status": {"phase": "Available"}});
    for (key, value) in spec.as_object().unwrap() {
        volume["spec"][key] = value.clone();
    }
    volume
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"})
}

fn local() -> Value {
    class("local", "kprov.io/local", "WaitForFirstConsumer")
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
        "labels": {"kubernetes.io/hostname": format!("{name}.host")}}})
}

fn bench(objects: &[Value]) -> Bench {
    let mut bench = Fixture::new(PersistentVolumeBinder);
    for object in objects {
        bench.put(object.clone());
    }
    bench.progress();
    bench
}

fn value(bench: &Bench, key: &Key) -> Value {
    bench.store.get(key).map(codec::to_value).unwrap_or_default()
}

fn phase(bench: &Bench, key: &Key) -> String {
    value(bench, key)["status"]["phase"].as_str().unwrap_or("none").to_owned()
}

/// Goes on with claims and volumes until nothing is left to do; returns what was written.
fn settle(bench: &mut Bench) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..20 {
        let claims = bench.store.kind(Kind::PersistentVolumeClaim).map(Object::key);
        let volumes = bench.store.kind(Kind::PersistentVolume).map(Object::key);
        let keys: Vec<Key> = claims.chain(volumes).collect();
        let before = done.len();
        for key in keys {
            done.extend(bench.settle(&key));
        }
        if done.len() == before {
            done.retain(|what| !what.starts_with("read "));
            return done;
        }
    }
    panic!("no rest: {done:#?}");
}

/// The only event that looking at the claim brings.
fn event(bench: &Bench, key: &Key) -> String {
    let plan = bench.reconcile(key);
    let told: Vec<String> =
        plan.events.iter().map(|e| format!("{} {}", e.reason, e.message)).collect();
    told.join("; ")
}
