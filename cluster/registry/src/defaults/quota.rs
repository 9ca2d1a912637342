//! Defaults of resource quotas and limit ranges.

use api::quantity::QuantityError;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota};

use super::{canonical_list, drop_empty};

pub(super) fn resource_quota(quota: &mut ResourceQuota) -> Result<(), QuantityError> {
    let spec = quota.spec.get_or_insert_default();
    canonical_list(&mut spec.hard)?;
    drop_empty(&mut spec.scopes);
    for wanted in spec.scope_selector.iter_mut().flat_map(|s| s.match_expressions.iter_mut()) {
        wanted.iter_mut().for_each(|w| drop_empty(&mut w.values));
    }
    let status = quota.status.get_or_insert_default();
    canonical_list(&mut status.hard)?;
    canonical_list(&mut status.used)
}

pub(super) fn limit_range(range: &mut LimitRange) -> Result<(), QuantityError> {
    for item in &mut range.spec.get_or_insert_default().limits {
        if item.type_ == "Container" {
            of_containers(item);
        }
        for list in [
            &mut item.max,
            &mut item.min,
            &mut item.default,
            &mut item.default_request,
            &mut item.max_limit_request_ratio,
        ] {
            canonical_list(list)?;
        }
    }
    Ok(())
}

/// A container that says nothing gets as much as it may at most, and asks for as much as it gets,
/// or for as little as it must.
fn of_containers(item: &mut LimitRangeItem) {
    let default = item.default.get_or_insert_default();
    for (name, most) in item.max.iter().flatten() {
        default.entry(name.clone()).or_insert_with(|| most.clone());
    }
    let requests = item.default_request.get_or_insert_default();
    for (name, amount) in default.iter().chain(item.min.iter().flatten()) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}
