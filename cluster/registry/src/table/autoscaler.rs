//! Cells of autoscalers and of what they look at.

use std::collections::BTreeMap;

use api::Time;
use api::metrics::{NodeMetrics, PodMetrics};
use api::quantity::Quantity as Amount;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::name;
use super::text::{NONE, age};

const UNKNOWN: &str = "<unknown>";
/// Metrics that are shown; more are counted.
const SHOWN_MAX: usize = 2;

pub(super) fn autoscaler(autoscaler: &HorizontalPodAutoscaler, now: Time) -> Vec<Value> {
    let spec = autoscaler.spec.clone().unwrap_or_default();
    let status = autoscaler.status.clone().unwrap_or_default();
    let target = &spec.scale_target_ref;
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let current = status.current_metrics.as_deref().unwrap_or_default();
    vec![
        name(&autoscaler.metadata),
        format!("{}/{}", target.kind, target.name).into(),
        targets(metrics, current).into(),
        spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()).into(),
        spec.max_replicas.into(),
        status.current_replicas.unwrap_or(0).into(),
        age(&autoscaler.metadata, now),
    ]
}

pub(super) fn node_metrics(metrics: &NodeMetrics) -> Vec<Value> {
    measured(name(&metrics.metadata), &[&metrics.usage], &metrics.window)
}

pub(super) fn pod_metrics(metrics: &PodMetrics) -> Vec<Value> {
    let usage: Vec<_> = metrics.containers.iter().map(|c| &c.usage).collect();
    measured(name(&metrics.metadata), &usage, &metrics.window)
}

/// What all together use.
fn measured(name: Value, usage: &[&BTreeMap<String, Quantity>], window: &str) -> Vec<Value> {
    let sum = |resource: &str| {
        let amounts = usage.iter().filter_map(|u| Amount::parse(&u.get(resource)?.0).ok());
        amounts.reduce(Amount::plus).unwrap_or(Amount::whole(0)).to_string().into()
    };
    vec![name, sum("cpu"), sum("memory"), window.into()]
}

fn targets(metrics: &[MetricSpec], current: &[MetricStatus]) -> String {
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(SHOWN_MAX)
        .map(|(i, metric)| one(metric, current.get(i)))
        .collect();
    let shown = shown.join(", ");
    match metrics.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn one(metric: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match metric.type_.as_str() {
        "Resource" => {
            let Some(source) = &metric.resource else { return UNKNOWN.to_owned() };
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", source.name, of_resource(&source.target, current))
        }
        "ContainerResource" => {
            let Some(source) = &metric.container_resource else { return UNKNOWN.to_owned() };
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", source.name, of_resource(&source.target, current))
        }
        "Pods" => {
            let current = status.and_then(|s| s.pods.as_ref()).map(|s| &s.current);
            let average = current.and_then(|c| c.average_value.as_ref());
            let target = metric.pods.as_ref().and_then(|p| p.target.average_value.as_ref());
            format!("{}/{}", text(average), text(target))
        }
        "Object" => {
            let current = status.and_then(|s| s.object.as_ref()).map(|s| &s.current);
            of_value(metric.object.as_ref().map(|o| &o.target), current)
        }
        "External" => {
            let current = status.and_then(|s| s.external.as_ref()).map(|s| &s.current);
            of_value(metric.external.as_ref().map(|e| &e.target), current)
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn of_resource(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = &target.average_value {
        let average = current.and_then(|c| c.average_value.as_ref());
        return format!("{}/{}", text(average), wanted.0);
    }
    let share = current.and_then(|c| c.average_utilization);
    let share = share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{share}%"));
    let wanted = target.average_utilization;
    let wanted = wanted.map_or_else(|| "<auto>".to_owned(), |wanted| format!("{wanted}%"));
    format!("{share}/{wanted}")
}

fn of_value(target: Option<&MetricTarget>, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = target.and_then(|t| t.average_value.as_ref()) {
        let average = current.and_then(|c| c.average_value.as_ref());
        return format!("{}/{} (avg)", text(average), wanted.0);
    }
    let value = current.and_then(|c| c.value.as_ref());
    format!("{}/{}", text(value), text(target.and_then(|t| t.value.as_ref())))
}

fn text(value: Option<&Quantity>) -> &str {
    value.map_or(UNKNOWN, |value| value.0.as_str())
}
