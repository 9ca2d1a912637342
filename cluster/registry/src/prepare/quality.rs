//! The quality-of-service class of a pod.
//!
//! Source: kubernetes 1.33, `pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What the class is computed from.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container requests all it may use, `BestEffort` when none asks for
/// anything, `Burstable` otherwise.
pub(super) fn class_of(spec: Option<&PodSpec>) -> &'static str {
    let Some(spec) = spec else { return "BestEffort" };
    let mut asks = false;
    let mut guaranteed = true;
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for resource in RESOURCES {
            let request = amount(container, resource, false);
            let limit = amount(container, resource, true);
            asks |= request > 0 || limit > 0;
            guaranteed &= limit > 0 && request == limit;
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(container: &Container, resource: &str, limit: bool) -> i128 {
    let list: Option<&BTreeMap<String, Quantity>> = container
        .resources
        .as_ref()
        .and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    let quantity = list.and_then(|l| l.get(resource));
    quantity.and_then(|q| Amount::parse(&q.0).ok()).map_or(0, Amount::nano)
}
