//! What namespaces may use: P55 and P56.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Request};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{
    LimitRange, PodSpec, PodTemplateSpec, ReplicationController, ResourceQuota,
};

use super::brood::replicas;
use crate::check::{Check, Cluster, Occurrence};
use crate::oracle::{self, limits};

/// The quotas of a namespace.
fn quotas<'a>(
    cluster: &'a dyn Cluster,
    namespace: &'a str,
) -> impl Iterator<Item = (Key, &'a ResourceQuota)> {
    let all = cluster.objects(Kind::ResourceQuota);
    let here = all.filter(move |o| o.meta().namespace.as_deref() == Some(namespace));
    here.filter_map(|o| Some((o.key(), o.get::<ResourceQuota>()?)))
}

/// How much is used of each resource that a quota limits: by all objects, or by those alone that
/// are not being deleted.
fn used<'a>(
    cluster: &dyn Cluster,
    namespace: &str,
    names: impl Iterator<Item = &'a str>,
    going_too: bool,
) -> BTreeMap<&'a str, i64> {
    let mut sums: BTreeMap<&str, i64> = names.map(|name| (name, 0)).collect();
    for kind in Kind::stored().filter(|kind| kind.namespaced()) {
        // Nothing of a quota but pods, claims and numbers of objects is counted here.
        let objects = cluster.objects(kind);
        for object in objects.filter(|o| o.meta().namespace.as_deref() == Some(namespace)) {
            if !going_too && oracle::is_going(object.meta()) {
                continue;
            }
            for (name, sum) in &mut sums {
                *sum = sum.saturating_add(limits::used_by(object, name));
            }
        }
    }
    sums
}

/// Whether a quota of the namespace has no room for a pod of that spec, as it says itself.
pub(super) fn is_short_of(cluster: &dyn Cluster, namespace: &str, spec: &PodSpec) -> bool {
    let pod = api::Pod { spec: Some(api::Shared::new(spec.clone())), ..api::Pod::default() };
    let pod = Object::Pod(pod.into());
    quotas(cluster, namespace).any(|(_, quota)| {
        let status = quota.status.as_ref();
        let hard = limits::amounts(status.and_then(|s| s.hard.as_ref()));
        let used = limits::amounts(status.and_then(|s| s.used.as_ref()));
        hard.iter().any(|(name, most)| {
            let more = limits::used_by(&pod, name);
            more > 0 && used.get(name).copied().unwrap_or(0).saturating_add(more) > *most
        })
    })
}

/// The same for the pods of a template.
pub(super) fn is_short_of_template(
    cluster: &dyn Cluster,
    namespace: &str,
    template: Option<&PodTemplateSpec>,
) -> bool {
    let spec = template.and_then(|t| t.spec.as_ref());
    spec.is_some_and(|spec| is_short_of(cluster, namespace, spec))
}

/// P55: of what a quota limits there is never more than it allows, at rest it says what is there,
/// and whoever is refused pods says so.
///
/// A quota that is lowered takes nothing away, so only what is made is judged: by the bounds that
/// the quota had taken notice of. What is going does not count, since a clock that is wrong takes it
/// for gone earlier than others.
#[derive(Clone, Default)]
pub(super) struct WithinQuotas;

impl WithinQuotas {
    fn made(cluster: &dyn Cluster, key: &Key, object: &Object, found: &mut Vec<String>) {
        for (quota, of) in quotas(cluster, &key.namespace) {
            let hard = limits::amounts(of.status.as_ref().and_then(|s| s.hard.as_ref()));
            let concerned: Vec<&str> =
                hard.keys().copied().filter(|name| limits::used_by(object, name) > 0).collect();
            if concerned.is_empty() {
                continue;
            }
            let used = used(cluster, &key.namespace, concerned.into_iter(), false);
            let beyond =
                used.iter().find(|(name, used)| hard.get(*name).is_some_and(|h| *used > h));
            if let Some((name, used)) = beyond {
                let most = hard.get(name).copied().unwrap_or(0);
                found.push(format!(
                    "with {key} there is {used} of {name}, of which {quota} allows {most}"
                ));
            }
        }
    }

    /// Replica sets and the like with fewer pods than they ask for, because there is no room.
    fn refused(cluster: &dyn Cluster, found: &mut Vec<String>) {
        let mut active: BTreeMap<&str, i64> = BTreeMap::new();
        for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<api::Pod>) {
            if let Some(owner) =
                oracle::controller(&pod.metadata).filter(|_| oracle::is_active(pod))
            {
                *active.entry(owner).or_default() += 1;
            }
        }
        for kind in [Kind::ReplicaSet, Kind::ReplicationController] {
            for object in cluster.objects(kind).filter(|o| !oracle::is_going(o.meta())) {
                let has = active.get(object.uid()).copied().unwrap_or(0);
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                let short = is_short_of_template(cluster, namespace, template(object));
                let wanted = replicas(object).unwrap_or(0);
                if has < wanted && short && !says_that_it_failed(object) {
                    found.push(format!(
                        "{} has {has} of {wanted} pods since its namespace has no room, and does \
                         not say so",
                        object.key()
                    ));
                }
            }
        }
    }
}

/// The template of a replica set or replication controller.
pub(super) fn template(object: &Object) -> Option<&PodTemplateSpec> {
    match object {
        Object::ReplicaSet(set) => set.spec.as_ref()?.template.as_ref(),
        Object::ReplicationController(rc) => rc.spec.as_ref()?.template.as_ref(),
        _ => None,
    }
}

fn says_that_it_failed(object: &Object) -> bool {
    let is_it = |kind: &str, status: &str, reason: Option<&String>| {
        kind == "ReplicaFailure"
            && status == "True"
            && reason.is_some_and(|reason| reason == "FailedCreate")
    };
    if let Some(set) = object.get::<ReplicaSet>() {
        let mut all = set.status.iter().flat_map(|s| s.conditions.iter().flatten());
        return all.any(|c| is_it(&c.type_, &c.status, c.reason.as_ref()));
    }
    object.get::<ReplicationController>().is_some_and(|rc| {
        let mut all = rc.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.any(|c| is_it(&c.type_, &c.status, c.reason.as_ref()))
    })
}

impl Check for WithinQuotas {
    fn property(&self) -> &'static str {
        "P55"
    }

    fn statement(&self) -> &'static str {
        "of what a quota limits nothing is made beyond it, and who is refused pods says so"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if let Occurrence::Committed {
            key,
            old: None,
            new: Some(object),
            request: Request::Create(_),
            ..
        } = occurrence
        {
            Self::made(cluster, key, object, found);
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::ResourceQuota) {
            let Some(quota) = object.get::<ResourceQuota>() else { continue };
            let key = object.key();
            let hard = limits::amounts(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
            let status = quota.status.as_ref();
            if limits::amounts(status.and_then(|s| s.hard.as_ref())) != hard {
                found.push(format!("{key} has not taken notice of what it allows at rest"));
            }
            let says = limits::amounts(status.and_then(|s| s.used.as_ref()));
            let is = used(cluster, &key.namespace, hard.keys().copied(), true);
            for (name, is) in is {
                let says = says.get(name).copied().unwrap_or(0);
                if says != is {
                    found.push(format!("{key} says that {says} of {name} is used, and {is} is"));
                }
            }
        }
        Self::refused(cluster, found);
    }
}

/// P56: every container of a namespace with a limit range is as the limit range wants it.
///
/// Judged when a pod is made, by the limit ranges of that moment.
#[derive(Clone, Default)]
pub(super) struct WithinRanges;

impl Check for WithinRanges {
    fn property(&self) -> &'static str {
        "P56"
    }

    fn statement(&self) -> &'static str {
        "containers have the defaults and keep the bounds of the limit ranges of their namespace"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let Occurrence::Committed { key, old: None, new: Some(Object::Pod(pod)), .. } = occurrence
        else {
            return;
        };
        let ranges = cluster.objects(Kind::LimitRange).filter_map(Object::get::<LimitRange>);
        for range in ranges.filter(|r| r.metadata.namespace.as_deref() == Some(&*key.namespace)) {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            for container in containers {
                if let Err(why) = limits::range_allows(range, container) {
                    found.push(format!("{key} was made although of {} {why}", container.name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
