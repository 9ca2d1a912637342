//! Cells of resource quotas.

use api::Time;
use api::quantity::Quantity;
use api::quota::Amounts;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;

use super::name;
use super::text::age;

pub(super) fn resource_quota(quota: &ResourceQuota, now: Time) -> Vec<Value> {
    let status = quota.status.as_ref();
    let hard = Amounts::of_list(status.and_then(|s| s.hard.as_ref()));
    let used = Amounts::of_list(status.and_then(|s| s.used.as_ref()));
    let column = |limits: bool| -> Value {
        let shown = |(name, most): (&str, Quantity)| {
            let used = used.get(name).unwrap_or(Quantity::whole(0));
            format!("{name}: {used}/{most}")
        };
        let wanted = |(name, _): &(&str, Quantity)| name.starts_with("limits.") == limits;
        hard.iter().filter(wanted).map(shown).collect::<Vec<_>>().join(", ").into()
    };
    vec![name(&quota.metadata), column(false), column(true), age(&quota.metadata, now)]
}
