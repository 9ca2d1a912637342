//! What pods use, and the scopes that they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, PodAffinityTerm, PodSpec, ResourceRequirements, ScopedResourceSelectorRequirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::Amounts;
use crate::quantity::Quantity;
use crate::selector::Selector;
use crate::{Pod, Time};

/// What a pod uses that has a name of its own.
const RESOURCES: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What each container has to ask for where it is limited.
const REQUIRED: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// What a node has at hand, and pods may ask for without naming anybody's domain.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const REQUESTS: &str = "requests.";
const HUGE_PAGES: &str = "hugepages-";

/// Whether the name is one of somebody's own resources.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with(REQUESTS)
}

/// Whether pods use the resource.
pub(super) fn is_used(resource: &str) -> bool {
    let requested = resource.strip_prefix(REQUESTS);
    RESOURCES.contains(&resource)
        || requested.unwrap_or(resource).starts_with(HUGE_PAGES)
        || requested.is_some_and(is_extended)
}

/// Adds what a pod uses for as long as it counts.
pub(super) fn add(pod: &Pod, now: Time, used: &mut Amounts) {
    if !counts(pod, now) {
        return;
    }
    let Some(spec) = &pod.spec else { return };
    let (requests, limits) = requests_and_limits(spec);
    used.add(&charged(&requests, &limits));
}

/// Whether a pod uses anything but its place in the store: it has not ended, and is not long
/// overdue to end. Whoever lost its node is not kept from starting another.
pub fn counts(pod: &Pod, now: Time) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !matches!(phase, Some("Failed" | "Succeeded")) && overdue_at(pod).is_none_or(|at| now <= at)
}

/// When a pod that is being deleted should have ended.
pub fn overdue_at(pod: &Pod) -> Option<Time> {
    let since = Time::from_meta(pod.metadata.deletion_timestamp.as_ref()?);
    let grace = pod.metadata.deletion_grace_period_seconds?;
    Some(since + Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
}

/// The requests and the limits of a pod: the sums of its containers, or the largest step of its
/// initialisation, plus its overhead.
///
/// Source: kubernetes 1.33, `k8s.io/component-helpers/resource`.
pub fn requests_and_limits(spec: &PodSpec) -> (Amounts, Amounts) {
    let overhead = Amounts::of_list(spec.overhead.as_ref());
    let mut requests = total(spec, |r| r.requests.as_ref());
    requests.add(&overhead);
    let mut limits = total(spec, |r| r.limits.as_ref());
    limits.add_to_present(&overhead);
    (requests, limits)
}

/// One of the two lists of a container.
type List = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Text>>;

fn amounts(container: &Container, list: List) -> Amounts {
    Amounts::of_list(container.resources.as_ref().and_then(list))
}

fn total(spec: &PodSpec, list: List) -> Amounts {
    let (mut sum, mut sidecars, mut peak) = Default::default();
    for container in &spec.containers {
        Amounts::add(&mut sum, &amounts(container, list));
    }
    for container in spec.init_containers.iter().flatten() {
        let mut step = amounts(container, list);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&step);
            Amounts::add(&mut sidecars, &step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        Amounts::raise_to(&mut peak, &step);
    }
    sum.raise_to(&peak);
    sum
}

/// What is charged for requests and limits, by the names of quotas.
fn charged(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::default();
    used.set("pods", Quantity::whole(1));
    for (name, amount) in requests.iter() {
        let plain = COMPUTE.contains(&name) || name.starts_with(HUGE_PAGES);
        if plain {
            used.set(name, amount);
        }
        if plain || is_extended(name) {
            used.set(&format!("{REQUESTS}{name}"), amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(name)) {
        used.set(&format!("limits.{name}"), amount);
    }
    used
}

/// What containers of the pod do not say although it is limited: the names of the containers by
/// the resource.
pub fn missing<'a>(
    pod: &'a Pod,
    limited: &BTreeSet<&'a str>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let Some(spec) = &pod.spec else { return missing };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let requests = amounts(container, |r| r.requests.as_ref());
        let said = charged(&requests, &amounts(container, |r| r.limits.as_ref()));
        for resource in limited.iter().filter(|name| REQUIRED.contains(name)) {
            if said.get(resource).is_none() {
                missing.entry(resource).or_default().insert(&container.name);
            }
        }
    }
    missing
}

/// Whether the pod is in a scope.
pub(super) fn is_in(pod: &Pod, scope: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ends = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => asks_for_nothing(spec),
        "NotBestEffort" => !asks_for_nothing(spec),
        "PriorityClass" => spec.priority_class_name.as_ref().is_some_and(|name| !name.is_empty()),
        "CrossNamespacePodAffinity" => looks_across_namespaces(spec),
        _ => false,
    }
}

/// Whether the pod meets a requirement on its scope.
pub(super) fn is_selected(pod: &Pod, wanted: &ScopedResourceSelectorRequirement) -> bool {
    let scope = wanted.scope_name.as_str();
    if scope != "PriorityClass" || wanted.operator == "Exists" {
        return is_in(pod, scope);
    }
    let mut selector = Selector::default();
    let values = wanted.values.as_deref().unwrap_or_default();
    if selector.require(scope, &wanted.operator, values).is_err() {
        return false;
    }
    let class = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_ref());
    let class = class.filter(|name| !name.is_empty());
    let labels = class.map(|name| BTreeMap::from([(scope.to_owned(), name.clone())]));
    selector.matches(labels.as_ref())
}

/// Whether the class of its quality of service is `BestEffort`.
fn asks_for_nothing(spec: &PodSpec) -> bool {
    let lists: [List; 2] = [|r| r.requests.as_ref(), |r| r.limits.as_ref()];
    let none = |container: &Container| {
        lists.iter().all(|list| {
            let asked = amounts(container, *list);
            ["cpu", "memory"].iter().all(|name| asked.get(name).is_none_or(|q| q.nano() <= 0))
        })
    };
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(none)
}

fn looks_across_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let across = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|list| !list.is_empty())
            || term.namespace_selector.is_some()
    };
    let together = affinity.pod_affinity.as_ref().map(|a| {
        (
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let apart = affinity.pod_anti_affinity.as_ref().map(|a| {
        (
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    [together, apart].into_iter().flatten().any(|(required, preferred)| {
        required.iter().flatten().any(across)
            || preferred.iter().flatten().any(|weighted| across(&weighted.pod_affinity_term))
    })
}
