//! Versions of kinds that are spoken besides the one that is stored.
//!
//! Writes in such a version are turned into the stored one before anything else looks at them,
//! answers are turned back. What an older version has no fields for it keeps in annotations, so
//! that nothing is lost on the way.
//!
//! Source: kubernetes 1.33, `pkg/apis/autoscaling/v1/conversion.go` and `annotations.go`.

use std::sync::Arc;

use api::{ApiObject, Kind, Object, Status};
use k8s_openapi::api::autoscaling::v1;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

mod autoscaler_metrics;

use crate::defaults::cpu;
use autoscaler_metrics::{
    behavior_of_json, behavior_to_json, metric_of_json, metric_to_json, status_of_json,
    status_to_json,
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The object in the version in which its kind is stored.
///
/// # Errors
/// An annotation that stands for a field cannot be read.
pub(crate) fn to_stored(object: Object) -> Result<Object, Status> {
    match object {
        Object::HorizontalPodAutoscalerV1(o) => Ok(stored_autoscaler(&o)?.into_object()),
        other => Ok(other),
    }
}

/// A stored object in that version of its kind.
pub fn of_stored(served: Kind, object: &Object) -> Object {
    match (served, object) {
        (Kind::HorizontalPodAutoscalerV1, Object::HorizontalPodAutoscaler(o)) => {
            Object::HorizontalPodAutoscalerV1(Arc::new(old_autoscaler(o)))
        }
        (_, other) => other.clone(),
    }
}

/// Takes an annotation that stands for a field.
fn take(meta: &mut ObjectMeta, name: &str) -> Result<Option<Value>, Status> {
    let Some(text) = meta.annotations.as_mut().and_then(|a| a.remove(name)) else {
        return Ok(None);
    };
    if meta.annotations.as_ref().is_some_and(|a| a.is_empty()) {
        meta.annotations = None;
    }
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Status::bad_request(format!("annotation {name}: {error}")))
}

fn note(meta: &mut ObjectMeta, name: &str, value: &Value) {
    meta.annotations.get_or_insert_default().insert(name.to_owned(), value.to_string());
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn stored_autoscaler(old: &v1::HorizontalPodAutoscaler) -> Result<HorizontalPodAutoscaler, Status> {
    let mut metadata = old.metadata.clone();
    let spec = old.spec.clone().unwrap_or_default();
    let status = old.status.clone().unwrap_or_default();
    let mut metrics: Vec<MetricSpec> =
        items(take(&mut metadata, METRICS)?).iter().map(metric_of_json).collect();
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu));
    let current: Vec<MetricStatus> = match take(&mut metadata, CURRENT_METRICS)? {
        Some(all) => items(Some(all)).iter().map(status_of_json).collect(),
        None => {
            let percent = status.current_cpu_utilization_percentage;
            percent.map(autoscaler_metrics::cpu_status).into_iter().collect()
        }
    };
    let conditions = take(&mut metadata, CONDITIONS)?;
    let conditions = conditions.and_then(|value| serde_json::from_value(value).ok());
    let behavior = take(&mut metadata, BEHAVIOR)?;
    let target = spec.scale_target_ref;
    Ok(HorizontalPodAutoscaler {
        metadata,
        spec: Some(HorizontalPodAutoscalerSpec {
            behavior: behavior.as_ref().map(behavior_of_json),
            max_replicas: spec.max_replicas,
            metrics: (!metrics.is_empty()).then_some(metrics),
            min_replicas: spec.min_replicas,
            scale_target_ref: CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
        }),
        status: Some(HorizontalPodAutoscalerStatus {
            conditions,
            current_metrics: (!current.is_empty()).then_some(current),
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    })
}

fn old_autoscaler(new: &HorizontalPodAutoscaler) -> v1::HorizontalPodAutoscaler {
    let mut metadata = new.metadata.clone();
    let spec = new.spec.clone().unwrap_or_default();
    let status = new.status.clone().unwrap_or_default();
    let percent = |metric: &MetricSpec| {
        let source = metric.resource.as_ref().filter(|source| source.name == "cpu")?;
        source.target.average_utilization
    };
    let metrics = spec.metrics.unwrap_or_default();
    let others: Vec<Value> =
        metrics.iter().filter(|m| percent(m).is_none()).map(metric_to_json).collect();
    if !others.is_empty() {
        note(&mut metadata, METRICS, &Value::Array(others));
    }
    let current = status.current_metrics.unwrap_or_default();
    if !current.is_empty() {
        let all = current.iter().map(status_to_json).collect();
        note(&mut metadata, CURRENT_METRICS, &Value::Array(all));
    }
    if let Some(conditions) = status.conditions.filter(|all| !all.is_empty())
        && let Ok(value) = serde_json::to_value(conditions)
    {
        note(&mut metadata, CONDITIONS, &value);
    }
    if let Some(behavior) = &spec.behavior {
        note(&mut metadata, BEHAVIOR, &behavior_to_json(behavior));
    }
    let target = spec.scale_target_ref;
    v1::HorizontalPodAutoscaler {
        metadata,
        spec: Some(v1::HorizontalPodAutoscalerSpec {
            max_replicas: spec.max_replicas,
            min_replicas: spec.min_replicas,
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
            target_cpu_utilization_percentage: metrics.iter().find_map(percent),
        }),
        status: Some(v1::HorizontalPodAutoscalerStatus {
            current_cpu_utilization_percentage: current.iter().find_map(|status| {
                let source = status.resource.as_ref().filter(|source| source.name == "cpu")?;
                source.current.average_utilization
            }),
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    }
}
