//! What holds at rest of everything that keeps pods: P27 and P28.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Pod};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Node;

use super::brood::replicas;
use super::quotas::{self, is_short_of_template};
use crate::check::{Check, Cluster, Occurrence};
use crate::oracle::{self, sets};

/// P27: when nothing is asked for and nothing goes wrong any more, the cluster comes to rest, and
/// what controllers report is what is there.
#[derive(Clone, Default)]
pub(super) struct ComesToRest;

/// What a status says, and what it should say.
struct Reported {
    key: Key,
    what: &'static str,
    says: i64,
    is: i64,
}

/// How many pods of one owner there are.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// In whatever state.
    all: i64,
    /// Neither ended nor going.
    active: i64,
    /// Ready and active.
    ready: i64,
    /// Running and ready, be it to go.
    running_ready: i64,
}

fn tallies(cluster: &dyn Cluster) -> BTreeMap<&str, Tally> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
        let Some(owner) = oracle::controller(&pod.metadata) else { continue };
        let tally = tallies.entry(owner).or_default();
        let (active, ready) = (oracle::is_active(pod), oracle::is_ready(pod));
        tally.all += 1;
        tally.active += i64::from(active);
        tally.ready += i64::from(active && ready);
        tally.running_ready += i64::from(oracle::phase(pod) == "Running" && ready);
    }
    tallies
}

/// Whether the latest state of the object was seen, as it reports.
fn observed(object: &Object, says: Option<i64>) -> (&'static str, i64, i64) {
    ("observed generation", says.unwrap_or(0), object.meta().generation.unwrap_or(0))
}

/// What daemon sets say of nodes: those that are to have a pod, those of them that do, and those
/// that have one and should not.
fn daemons(cluster: &dyn Cluster, set: &DaemonSet, uid: &str) -> [i64; 4] {
    let mut of_node: BTreeMap<&str, bool> = BTreeMap::new();
    let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
    for pod in pods.filter(|p| oracle::controller(&p.metadata) == Some(uid)) {
        if let Some(node) = sets::place_of_daemon(pod) {
            *of_node.entry(node).or_default() |= oracle::is_ready(pod);
        }
    }
    let [mut desired, mut current, mut misplaced, mut ready] = [0_i64; 4];
    for node in cluster.objects(Kind::Node).filter_map(Object::get::<Node>) {
        let has = of_node.get(node.metadata.name.as_deref().unwrap_or_default());
        if sets::daemon_fits(set, node).0 {
            desired += 1;
            current += i64::from(has.is_some());
            ready += i64::from(has == Some(&true));
        } else {
            misplaced += i64::from(has.is_some());
        }
    }
    [desired, current, misplaced, ready]
}

/// What the object reports and what is right; nothing for kinds that report nothing of pods.
fn rows(cluster: &dyn Cluster, object: &Object, tally: Tally) -> Vec<(&'static str, i64, i64)> {
    let of_replicas = |all: i32, ready: Option<i32>, generation: Option<i64>| {
        vec![
            ("replicas", i64::from(all), tally.active),
            ("ready replicas", i64::from(ready.unwrap_or(0)), tally.ready),
            observed(object, generation),
        ]
    };
    match object {
        Object::ReplicaSet(set) => {
            let status = set.status.clone().unwrap_or_default();
            of_replicas(status.replicas, status.ready_replicas, status.observed_generation)
        }
        Object::ReplicationController(rc) => {
            let status = rc.status.clone().unwrap_or_default();
            of_replicas(status.replicas, status.ready_replicas, status.observed_generation)
        }
        Object::StatefulSet(set) => {
            let status = set.status.clone().unwrap_or_default();
            let ready = i64::from(status.ready_replicas.unwrap_or(0));
            vec![
                ("replicas", i64::from(status.replicas), tally.all),
                ("ready replicas", ready, tally.running_ready),
                observed(object, status.observed_generation),
            ]
        }
        Object::DaemonSet(set) => {
            let status = set.status.clone().unwrap_or_default();
            let [desired, current, misplaced, ready] = daemons(cluster, set, object.uid());
            vec![
                ("wanted pods", i64::from(status.desired_number_scheduled), desired),
                ("present pods", i64::from(status.current_number_scheduled), current),
                ("misplaced pods", i64::from(status.number_misscheduled), misplaced),
                ("ready pods", i64::from(status.number_ready), ready),
                observed(object, status.observed_generation),
            ]
        }
        Object::Job(job) => {
            let active = job.status.as_ref().and_then(|s| s.active).unwrap_or(0);
            vec![("active pods", i64::from(active), tally.active)]
        }
        _ => Vec::new(),
    }
}

fn reports(cluster: &dyn Cluster) -> Vec<Reported> {
    let tallies = tallies(cluster);
    let kinds = [
        Kind::ReplicaSet,
        Kind::ReplicationController,
        Kind::StatefulSet,
        Kind::DaemonSet,
        Kind::Job,
    ];
    let objects = kinds.into_iter().flat_map(|kind| cluster.objects(kind));
    let mut reports = Vec::new();
    // What a dying owner leaves behind is the collector's business.
    for object in objects.filter(|o| !oracle::is_going(o.meta())) {
        let tally = tallies.get(object.uid()).copied().unwrap_or_default();
        let key = object.key();
        let rows = rows(cluster, object, tally).into_iter();
        reports.extend(rows.map(|(what, says, is)| Reported { key: key.clone(), what, says, is }));
    }
    reports
}

impl Check for ComesToRest {
    fn property(&self) -> &'static str {
        "P27"
    }

    fn statement(&self) -> &'static str {
        "left alone, the cluster comes to rest, and what controllers report is what is there"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            let settings = &cluster.plan().settings;
            found.push(format!(
                "{} after the faults were healed the cluster still writes: it was never silent \
                 for {}",
                settings.settle, settings.quiet
            ));
            return;
        }
        for report in reports(cluster).into_iter().filter(|r| r.says != r.is) {
            let Reported { key, what, says, is } = report;
            found.push(format!("{key} reports {says} {what} at rest, and {is} is right"));
        }
    }
}

/// P28: at rest everybody has the pods that are asked for, unless a quota has no room for them.
#[derive(Clone, Default)]
pub(super) struct RightNumber;

impl Check for RightNumber {
    fn property(&self) -> &'static str {
        "P28"
    }

    fn statement(&self) -> &'static str {
        "at rest everybody has as many pods as they ask for"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let tallies = tallies(cluster);
        for kind in [Kind::ReplicaSet, Kind::ReplicationController] {
            for object in cluster.objects(kind).filter(|o| !oracle::is_going(o.meta())) {
                let has = tallies.get(object.uid()).map_or(0, |tally| tally.active);
                let wanted = replicas(object).unwrap_or(0);
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                let refused = || is_short_of_template(cluster, namespace, quotas::template(object));
                if has > wanted || has < wanted && !refused() {
                    let key = object.key();
                    found.push(format!("{key} has {has} pods at rest and asks for {wanted}"));
                }
            }
        }
        found.extend(ordinals_missing_or_too_many(cluster));
    }
}

/// Stateful sets have a pod for each ordinal; in order, up to the first pod that is not ready.
fn ordinals_missing_or_too_many(cluster: &dyn Cluster) -> Vec<String> {
    let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
        if let Some(owner) = oracle::controller(&pod.metadata).filter(|_| oracle::is_active(pod)) {
            pods.entry(owner).or_default().push(pod);
        }
    }
    let mut found = Vec::new();
    for object in cluster.objects(Kind::StatefulSet).filter(|o| !oracle::is_going(o.meta())) {
        let Some(set) = object.get::<StatefulSet>() else { continue };
        let of_set = pods.get(object.uid()).into_iter().flatten();
        let numbered: BTreeMap<i64, &Pod> =
            of_set.filter_map(|pod| Some((sets::ordinal(set, pod)?, *pod))).collect();
        let (first, end) = sets::ordinals(set);
        let unready = |ordinal: &i64| numbered.get(ordinal).is_none_or(|p| !oracle::is_ready(p));
        let stuck = (first..end).find(unready).filter(|_| sets::is_ordered(set));
        if let Some(missing) = (first..end).find(|i| !numbered.contains_key(i))
            && stuck.is_none_or(|stuck| stuck >= missing)
            && !is_short_of_template(
                cluster,
                object.meta().namespace.as_deref().unwrap_or_default(),
                set.spec.as_ref().map(|s| &s.template),
            )
        {
            found.push(format!("{} has no pod {missing} at rest", object.key()));
        }
        let mut surplus = numbered.keys().filter(|i| **i < first || **i >= end);
        if let Some(surplus) = surplus.next().filter(|_| stuck.is_none()) {
            found.push(format!(
                "{} has a pod {surplus} at rest that it does not ask for",
                object.key()
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests;
