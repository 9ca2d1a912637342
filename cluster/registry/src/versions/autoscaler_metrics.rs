//! Metrics and behaviours as `autoscaling/v1` writes them into annotations.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, CrossVersionObjectReference,
    ExternalMetricSource, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricSource, PodsMetricSource, ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

/// The use of CPU that the status has a field for.
pub(super) fn cpu_status(percent: i32) -> MetricStatus {
    MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: MetricValueStatus {
                average_utilization: Some(percent),
                ..MetricValueStatus::default()
            },
        }),
        ..MetricStatus::default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Some(Quantity(text.clone())),
        Value::Number(number) => Some(Quantity(number.to_string())),
        _ => None,
    }
}

/// A target, by the names that its fields have in the older version.
fn target(of: &Value, value: &str, average: &str) -> MetricTarget {
    let percent = number(&of["targetAverageUtilization"]);
    let (value, average) = (quantity(&of[value]), quantity(&of[average]));
    let type_ = match (&percent, &value, &average) {
        (Some(_), ..) => "Utilization",
        (None, Some(_), None) => "Value",
        _ => "AverageValue",
    };
    MetricTarget {
        type_: type_.to_owned(),
        average_utilization: percent,
        average_value: average,
        value,
    }
}

fn identifier(of: &Value, selector: &str) -> MetricIdentifier {
    MetricIdentifier {
        name: text(&of["metricName"]),
        selector: serde_json::from_value(of[selector].clone()).ok().flatten(),
    }
}

fn reference(of: &Value) -> CrossVersionObjectReference {
    CrossVersionObjectReference {
        api_version: of["apiVersion"].as_str().map(str::to_owned),
        kind: text(&of["kind"]),
        name: text(&of["name"]),
    }
}

/// Reads a metric.
pub(super) fn metric_of_json(json: &Value) -> MetricSpec {
    let part = |name: &str| json.get(name).filter(|part| part.is_object());
    MetricSpec {
        type_: text(&json["type"]),
        resource: part("resource").map(|of| ResourceMetricSource {
            name: text(&of["name"]),
            target: target(of, "targetValue", "targetAverageValue"),
        }),
        container_resource: part("containerResource").map(|of| ContainerResourceMetricSource {
            name: text(&of["name"]),
            container: text(&of["container"]),
            target: target(of, "targetValue", "targetAverageValue"),
        }),
        pods: part("pods").map(|of| PodsMetricSource {
            metric: identifier(of, "selector"),
            target: target(of, "targetValue", "targetAverageValue"),
        }),
        object: part("object").map(|of| ObjectMetricSource {
            described_object: reference(&of["target"]),
            metric: identifier(of, "selector"),
            target: target(of, "targetValue", "averageValue"),
        }),
        external: part("external").map(|of| ExternalMetricSource {
            metric: identifier(of, "metricSelector"),
            target: target(of, "targetValue", "targetAverageValue"),
        }),
    }
}

/// Fields that are there.
fn fields<const N: usize>(all: [(&str, Option<Value>); N]) -> Value {
    let there = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(Map::from_iter(there))
}

fn amount(quantity: Option<&Quantity>) -> Option<Value> {
    quantity.map(|quantity| json!(quantity.0))
}

fn selector(metric: &MetricIdentifier) -> Option<Value> {
    metric.selector.as_ref().and_then(|selector| serde_json::to_value(selector).ok())
}

/// Writes a metric.
pub(super) fn metric_to_json(metric: &MetricSpec) -> Value {
    let percent = |target: &MetricTarget| target.average_utilization.map(Value::from);
    fields([
        ("type", Some(json!(metric.type_))),
        (
            "resource",
            metric.resource.as_ref().map(|of| {
                fields([
                    ("name", Some(json!(of.name))),
                    ("targetAverageUtilization", percent(&of.target)),
                    ("targetAverageValue", amount(of.target.average_value.as_ref())),
                ])
            }),
        ),
        (
            "containerResource",
            metric.container_resource.as_ref().map(|of| {
                fields([
                    ("name", Some(json!(of.name))),
                    ("container", Some(json!(of.container))),
                    ("targetAverageUtilization", percent(&of.target)),
                    ("targetAverageValue", amount(of.target.average_value.as_ref())),
                ])
            }),
        ),
        (
            "pods",
            metric.pods.as_ref().map(|of| {
                fields([
                    ("metricName", Some(json!(of.metric.name))),
                    ("selector", selector(&of.metric)),
                    ("targetAverageValue", amount(of.target.average_value.as_ref())),
                ])
            }),
        ),
        (
            "object",
            metric.object.as_ref().map(|of| {
                fields([
                    ("target", serde_json::to_value(&of.described_object).ok()),
                    ("metricName", Some(json!(of.metric.name))),
                    ("selector", selector(&of.metric)),
                    ("targetValue", amount(of.target.value.as_ref())),
                    ("averageValue", amount(of.target.average_value.as_ref())),
                ])
            }),
        ),
        (
            "external",
            metric.external.as_ref().map(|of| {
                fields([
                    ("metricName", Some(json!(of.metric.name))),
                    ("metricSelector", selector(&of.metric)),
                    ("targetValue", amount(of.target.value.as_ref())),
                    ("targetAverageValue", amount(of.target.average_value.as_ref())),
                ])
            }),
        ),
    ])
}

/// Reads what is used. Only resources are ever measured here.
pub(super) fn status_of_json(json: &Value) -> MetricStatus {
    let part = |name: &str| json.get(name).filter(|part| part.is_object());
    let current = |of: &Value| MetricValueStatus {
        average_utilization: number(&of["currentAverageUtilization"]),
        average_value: quantity(&of["currentAverageValue"]),
        value: None,
    };
    MetricStatus {
        type_: text(&json["type"]),
        resource: part("resource")
            .map(|of| ResourceMetricStatus { name: text(&of["name"]), current: current(of) }),
        container_resource: part("containerResource").map(|of| ContainerResourceMetricStatus {
            name: text(&of["name"]),
            container: text(&of["container"]),
            current: current(of),
        }),
        ..MetricStatus::default()
    }
}

/// Writes what is used.
pub(super) fn status_to_json(status: &MetricStatus) -> Value {
    let percent = |current: &MetricValueStatus| current.average_utilization.map(Value::from);
    fields([
        ("type", Some(json!(status.type_))),
        (
            "resource",
            status.resource.as_ref().map(|of| {
                fields([
                    ("name", Some(json!(of.name))),
                    ("currentAverageUtilization", percent(&of.current)),
                    ("currentAverageValue", amount(of.current.average_value.as_ref())),
                ])
            }),
        ),
        (
            "containerResource",
            status.container_resource.as_ref().map(|of| {
                fields([
                    ("name", Some(json!(of.name))),
                    ("container", Some(json!(of.container))),
                    ("currentAverageUtilization", percent(&of.current)),
                    ("currentAverageValue", amount(of.current.average_value.as_ref())),
                ])
            }),
        ),
    ])
}

/// Reads a behaviour, whose fields begin with capital letters there.
pub(super) fn behavior_of_json(json: &Value) -> HorizontalPodAutoscalerBehavior {
    let rules = |json: &Value| {
        json.as_object()?;
        let policies = json["Policies"].as_array().map(|all| {
            let policy = |json: &Value| HPAScalingPolicy {
                type_: text(&json["Type"]),
                value: number(&json["Value"]).unwrap_or(0),
                period_seconds: number(&json["PeriodSeconds"]).unwrap_or(0),
            };
            all.iter().map(policy).collect()
        });
        Some(HPAScalingRules {
            policies,
            select_policy: json["SelectPolicy"].as_str().map(str::to_owned),
            stabilization_window_seconds: number(&json["StabilizationWindowSeconds"]),
            tolerance: None,
        })
    };
    HorizontalPodAutoscalerBehavior {
        scale_up: rules(&json["ScaleUp"]),
        scale_down: rules(&json["ScaleDown"]),
    }
}

/// Writes a behaviour.
pub(super) fn behavior_to_json(behavior: &HorizontalPodAutoscalerBehavior) -> Value {
    let rules = |rules: &Option<HPAScalingRules>| {
        let Some(rules) = rules else { return Value::Null };
        let policies: Option<Vec<Value>> = rules.policies.as_ref().map(|all| {
            let policy = |p: &HPAScalingPolicy| {
                json!({"Type": p.type_, "Value": p.value, "PeriodSeconds": p.period_seconds})
            };
            all.iter().map(policy).collect()
        });
        json!({"StabilizationWindowSeconds": rules.stabilization_window_seconds,
            "SelectPolicy": rules.select_policy, "Policies": policies})
    };
    json!({"ScaleUp": rules(&behavior.scale_up), "ScaleDown": rules(&behavior.scale_down)})
}
