//! [`of`]: what two runs of one plan must have in common at rest, whatever went wrong in between.
//!
//! Crashes of processes, watches that skip what lies in between, lost calls: none of them may
//! change where the cluster ends (P47, P48, P49). Names of pods, nodes they are on, revisions,
//! times and old replica sets may well differ, so they are not part of the description.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Pod};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Node, PodSpec, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Map, Value, json};

use crate::check::Cluster;
use crate::oracle;

/// The description, with keys in order: equal texts, equal ends.
pub fn of(cluster: &dyn Cluster) -> Value {
    let owners = Owners::read(cluster);
    json!({
        "namespaces": namespaces(cluster),
        "nodes": nodes(cluster),
        "deployments": deployments(cluster, &owners),
        "replicaSets": counted(cluster, &owners, Kind::ReplicaSet),
        "replicationControllers": counted(cluster, &owners, Kind::ReplicationController),
        "statefulSets": stateful_sets(cluster, &owners),
        "daemonSets": daemon_sets(cluster),
        "jobs": jobs(cluster),
        "budgets": budgets(cluster),
        "pods": bare_pods(cluster),
        "endpoints": endpoints(cluster, &owners),
    })
}

/// Who is behind a pod, under a name that does not differ from run to run.
struct Owners(BTreeMap<String, String>);

impl Owners {
    fn read(cluster: &dyn Cluster) -> Self {
        let mut owners = BTreeMap::new();
        for kind in [
            Kind::Deployment,
            Kind::ReplicationController,
            Kind::StatefulSet,
            Kind::DaemonSet,
            Kind::Job,
        ] {
            for object in cluster.objects(kind) {
                owners.insert(object.uid().to_owned(), object.key().to_string());
            }
        }
        for object in cluster.objects(Kind::ReplicaSet) {
            let deployment = oracle::controller(object.meta()).and_then(|uid| owners.get(uid));
            let name = deployment.cloned().unwrap_or_else(|| object.key().to_string());
            owners.insert(object.uid().to_owned(), name);
        }
        Self(owners)
    }

    fn of(&self, pod: &Pod) -> Option<&str> {
        self.0.get(oracle::controller(&pod.metadata)?).map(String::as_str)
    }
}

fn images(spec: Option<&PodSpec>) -> Vec<&str> {
    spec.iter().flat_map(|s| &s.containers).filter_map(|c| c.image.as_deref()).collect()
}

fn pods(cluster: &dyn Cluster) -> impl Iterator<Item = &Pod> {
    cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>)
}

/// Active pods of an owner, by images: all, and those that are ready.
fn active(cluster: &dyn Cluster, owners: &Owners, owner: &Key) -> Value {
    let name = owner.to_string();
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for pod in pods(cluster).filter(|p| oracle::is_active(p) && owners.of(p) == Some(&name)) {
        let (all, ready) = counts.entry(images(pod.spec.as_deref()).join(",")).or_default();
        *all += 1;
        *ready += u64::from(oracle::is_ready(pod));
    }
    let rows = counts.into_iter();
    Value::Object(rows.map(|(i, (all, ready))| (i, json!({"all": all, "ready": ready}))).collect())
}

fn namespaces(cluster: &dyn Cluster) -> Value {
    let rows = cluster.objects(Kind::Namespace);
    Value::Object(
        rows.map(|o| (o.key().name.to_string(), json!(oracle::is_going(o.meta())))).collect(),
    )
}

fn nodes(cluster: &dyn Cluster) -> Value {
    let rows = cluster.objects(Kind::Node).filter_map(|o| Some((o.key(), o.get::<Node>()?)));
    let row = |node: &Node| {
        let spec = node.spec.as_ref();
        let taints = spec.into_iter().flat_map(|s| s.taints.iter().flatten());
        let mut taints: Vec<String> = taints.map(|t| format!("{}:{}", t.key, t.effect)).collect();
        taints.sort();
        json!({
            "ready": oracle::readiness(node),
            "unschedulable": spec.and_then(|s| s.unschedulable) == Some(true),
            "taints": taints,
            "labels": node.metadata.labels,
        })
    };
    Value::Object(rows.map(|(key, node)| (key.name.to_string(), row(node))).collect())
}

fn deployments(cluster: &dyn Cluster, owners: &Owners) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(Kind::Deployment) {
        let Some(deployment) = object.get::<Deployment>() else { continue };
        let Some(spec) = &deployment.spec else { continue };
        let status = deployment.status.clone().unwrap_or_default();
        let key = object.key();
        let row = json!({
            "replicas": spec.replicas,
            "paused": spec.paused == Some(true),
            "images": images(spec.template.spec.as_ref()),
            "labels": deployment.metadata.labels,
            "status": {
                "replicas": status.replicas.unwrap_or(0),
                "updated": status.updated_replicas.unwrap_or(0),
                "ready": status.ready_replicas.unwrap_or(0),
                "available": status.available_replicas.unwrap_or(0),
                "observed": status.observed_generation == deployment.metadata.generation,
            },
            "pods": active(cluster, owners, &key),
        });
        all.insert(key.path(), row);
    }
    Value::Object(all)
}

/// Replica sets and replication controllers that nobody owns.
fn counted(cluster: &dyn Cluster, owners: &Owners, kind: Kind) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(kind).filter(|o| oracle::controller(o.meta()).is_none()) {
        let (wanted, has) = match object {
            Object::ReplicaSet(set) => {
                let status = set.status.as_ref().map(|s| (s.replicas, s.ready_replicas));
                (set.spec.as_ref().and_then(|s| s.replicas), status)
            }
            Object::ReplicationController(rc) => {
                let status = rc.status.as_ref().map(|s| (s.replicas, s.ready_replicas));
                (rc.spec.as_ref().and_then(|s| s.replicas), status)
            }
            _ => continue,
        };
        let key = object.key();
        let (replicas, ready) = has.unwrap_or_default();
        let row = json!({
            "replicas": wanted,
            "status": {"replicas": replicas, "ready": ready.unwrap_or(0)},
            "pods": active(cluster, owners, &key),
        });
        all.insert(key.path(), row);
    }
    Value::Object(all)
}

fn stateful_sets(cluster: &dyn Cluster, owners: &Owners) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(Kind::StatefulSet) {
        let Some(set) = object.get::<StatefulSet>() else { continue };
        let Some(spec) = &set.spec else { continue };
        let status = set.status.clone().unwrap_or_default();
        let key = object.key();
        let row = json!({
            "replicas": spec.replicas,
            "images": images(spec.template.spec.as_ref()),
            "status": {
                "replicas": status.replicas,
                "ready": status.ready_replicas.unwrap_or(0),
                "updated": status.updated_replicas.unwrap_or(0),
                "observed": status.observed_generation == set.metadata.generation,
            },
            "pods": active(cluster, owners, &key),
        });
        all.insert(key.path(), row);
    }
    Value::Object(all)
}

/// Daemon sets with the images on each node.
fn daemon_sets(cluster: &dyn Cluster) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(Kind::DaemonSet) {
        let Some(set) = object.get::<DaemonSet>() else { continue };
        let status = set.status.clone().unwrap_or_default();
        let of_set = |pod: &&Pod| {
            oracle::is_active(pod) && oracle::controller(&pod.metadata) == Some(object.uid())
        };
        let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pod in pods(cluster).filter(of_set) {
            let node = oracle::sets::place_of_daemon(pod).unwrap_or("no node");
            nodes.entry(node).or_default().extend(images(pod.spec.as_deref()));
        }
        let row = json!({
            "nodes": nodes,
            "status": {
                "desired": status.desired_number_scheduled,
                "current": status.current_number_scheduled,
                "ready": status.number_ready,
                "updated": status.updated_number_scheduled.unwrap_or(0),
            },
        });
        all.insert(object.key().path(), row);
    }
    Value::Object(all)
}

/// How jobs ended. How many of their pods failed before may differ.
fn jobs(cluster: &dyn Cluster) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(Kind::Job) {
        let Some(job) = object.get::<Job>() else { continue };
        let end = oracle::sets::end_of(job).map(|(end, _)| end);
        let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        let succeeded = (end == Some("Complete")).then_some(succeeded);
        all.insert(object.key().path(), json!({"end": end, "succeeded": succeeded}));
    }
    Value::Object(all)
}

fn budgets(cluster: &dyn Cluster) -> Value {
    let mut all = Map::new();
    for object in cluster.objects(Kind::PodDisruptionBudget) {
        let Some(budget) = object.get::<PodDisruptionBudget>() else { continue };
        let status = budget.status.clone().unwrap_or_default();
        let row = json!({
            "healthy": status.current_healthy,
            "desired": status.desired_healthy,
            "allowed": status.disruptions_allowed,
        });
        all.insert(object.key().path(), row);
    }
    Value::Object(all)
}

/// Pods that nobody owns, by name.
fn bare_pods(cluster: &dyn Cluster) -> Value {
    let bare = pods(cluster).filter(|p| oracle::controller(&p.metadata).is_none());
    let row = |pod: &Pod| {
        json!({
            "phase": oracle::phase(pod),
            "bound": oracle::node_of(pod).is_some(),
            "ready": oracle::is_ready(pod),
            "going": oracle::is_going(&pod.metadata),
        })
    };
    let path = |pod: &Pod| {
        let meta = &pod.metadata;
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        Key::new(Kind::Pod, &of(&meta.namespace), &of(&meta.name)).path()
    };
    Value::Object(bare.map(|pod| (path(pod), row(pod))).collect())
}

/// How many addresses of each owner's pods stand behind each service.
fn endpoints(cluster: &dyn Cluster, owners: &Owners) -> Value {
    let mut of_ip: BTreeMap<&str, &str> = BTreeMap::new();
    for pod in pods(cluster) {
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
        // The last one to have an address is not the one that has it.
        if let Some(ip) = ip.filter(|_| !oracle::has_ended(pod)) {
            of_ip.insert(ip, owners.of(pod).unwrap_or("bare pods"));
        }
    }
    let mut all = Map::new();
    for object in cluster.objects(Kind::Service) {
        let key = object.key();
        if object.get::<Service>().is_none() {
            continue;
        }
        let endpoints = Key::new(Kind::Endpoints, &key.namespace, &key.name);
        let endpoints = cluster.object(&endpoints).and_then(Object::get::<Endpoints>);
        let subsets = endpoints.into_iter().flat_map(|e| e.subsets.iter().flatten());
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for address in subsets.flat_map(|s| s.addresses.iter().flatten()) {
            let owner = of_ip.get(address.ip.as_str()).copied().unwrap_or("nobody");
            *counts.entry(owner).or_default() += 1;
        }
        all.insert(key.path(), json!(counts));
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests;
