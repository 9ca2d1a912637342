//! What the Kubernetes API documents of resource quotas and limit ranges.
//!
//! Source: kubernetes.io/docs/concepts/policy: "Resource Quotas" and "Limit Ranges".

use std::collections::BTreeMap;

use api::quantity::Quantity as Amount;
use api::{Object, Pod};
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type Quantities = BTreeMap<String, Quantity>;

fn parsed(name: &str, quantity: &Quantity) -> Option<i64> {
    let amount = Amount::parse(&quantity.0).ok()?;
    Some(if name.ends_with("cpu") { amount.milli() } else { amount.value() })
}

/// Amounts by resource: CPU in thousandths, everything else in whole units.
pub fn amounts(list: Option<&Quantities>) -> BTreeMap<&str, i64> {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, amount)| Some((name.as_str(), parsed(name, amount)?))).collect()
}

/// How much of a limited resource an object uses, in the units of [`amounts`].
///
/// Pods that have ended use nothing but a place among the objects; those that are going are
/// counted here until they are gone.
pub fn used_by(object: &Object, resource: &str) -> i64 {
    if let Some(counted) = resource.strip_prefix("count/") {
        return i64::from(counted == object.kind().group_resource());
    }
    match (object, resource) {
        (Object::Pod(pod), _) => used_by_pod(pod, resource),
        (Object::PersistentVolumeClaim(_), "persistentvolumeclaims")
        | (Object::Service(_), "services")
        | (Object::ReplicationController(_), "replicationcontrollers")
        | (Object::ConfigMap(_), "configmaps")
        | (Object::Secret(_), "secrets")
        | (Object::ResourceQuota(_), "resourcequotas") => 1,
        (Object::PersistentVolumeClaim(claim), "requests.storage") => {
            let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
            let requests = resources.and_then(|r| r.requests.as_ref());
            requests.and_then(|r| parsed("storage", r.get("storage")?)).unwrap_or(0)
        }
        _ => 0,
    }
}

fn used_by_pod(pod: &Pod, resource: &str) -> i64 {
    let Some(spec) = pod.spec.as_ref().filter(|_| !super::has_ended(pod)) else { return 0 };
    match resource {
        "pods" => 1,
        "cpu" | "requests.cpu" => super::requests(spec).of("cpu"),
        "memory" | "requests.memory" => super::requests(spec).of("memory"),
        "limits.cpu" => super::limits_of(spec).of("cpu"),
        "limits.memory" => super::limits_of(spec).of("memory"),
        _ => 0,
    }
}

/// Why a limit range does not allow a container as it is.
///
/// # Errors
/// The words for what is missing, too much or too little.
pub fn range_allows(range: &LimitRange, container: &Container) -> Result<(), String> {
    let items = range.spec.iter().flat_map(|s| &s.limits);
    items.filter(|item| item.type_ == "Container").try_for_each(|item| item_allows(item, container))
}

fn item_allows(item: &LimitRangeItem, container: &Container) -> Result<(), String> {
    let resources = container.resources.as_ref();
    let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
    let limits = amounts(resources.and_then(|r| r.limits.as_ref()));
    for name in item.default_request.iter().flatten().map(|(name, _)| name.as_str()) {
        if !requests.contains_key(name) {
            return Err(format!("it requests no {name}, for which there is a default"));
        }
    }
    for name in item.default.iter().flatten().map(|(name, _)| name.as_str()) {
        if !limits.contains_key(name) {
            return Err(format!("it has no limit of {name}, for which there is a default"));
        }
    }
    for (name, least) in amounts(item.min.as_ref()) {
        if requests.get(name).is_none_or(|amount| *amount < least) {
            return Err(format!("it requests less {name} than it must"));
        }
    }
    for (name, most) in amounts(item.max.as_ref()) {
        let above = |list: &BTreeMap<&str, i64>| list.get(name).is_some_and(|a| *a > most);
        if above(&requests) || !limits.contains_key(name) || above(&limits) {
            return Err(format!("it may have more {name} than is allowed"));
        }
    }
    Ok(())
}
