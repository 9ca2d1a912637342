//! Horizontal pod autoscalers.

use api::quantity::Quantity as Amount;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{Causes, Path};
use crate::names;

/// No recommendation is remembered for longer.
const WINDOW_SECONDS_MAX: i32 = 3600;
/// No change is remembered for longer.
const PERIOD_SECONDS_MAX: i32 = 1800;
const SOURCES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(super) fn autoscaler(autoscaler: &HorizontalPodAutoscaler, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &autoscaler.spec else { return causes.required(&path, "") };
    replicas(spec, &path, causes);
    reference(&spec.scale_target_ref, &path.child("scaleTargetRef"), causes);
    let at = path.child("metrics");
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        source(metric, &at.index(i), causes);
    }
    if let Some(behavior) = &spec.behavior {
        let at = path.child("behavior");
        rules(behavior.scale_up.as_ref(), &at.child("scaleUp"), causes);
        rules(behavior.scale_down.as_ref(), &at.child("scaleDown"), causes);
    }
}

fn replicas(spec: &HorizontalPodAutoscalerSpec, path: &Path<'_>, causes: &mut Causes) {
    if let Some(min) = spec.min_replicas.filter(|min| *min < 1) {
        causes.invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    let at = path.child("maxReplicas");
    if spec.max_replicas < 1 {
        causes.invalid(&at, spec.max_replicas, "must be greater than 0");
    }
    if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        causes.invalid(&at, spec.max_replicas, detail);
    }
}

pub(super) fn status(autoscaler: &HorizontalPodAutoscaler, causes: &mut Causes) {
    let path = Path::new("status");
    let status = autoscaler.status.as_ref();
    let current = status.and_then(|s| s.current_replicas).unwrap_or(0);
    causes.non_negative(&path.child("currentReplicas"), i64::from(current));
    let desired = status.map_or(0, |s| s.desired_replicas);
    causes.non_negative(&path.child("desiredReplicas"), i64::from(desired));
}

fn reference(target: &CrossVersionObjectReference, path: &Path<'_>, causes: &mut Causes) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        let at = path.child(field);
        if value.is_empty() {
            causes.required(&at, "");
        } else {
            causes.invalid_each(&at, value, names::path_segment(value, false));
        }
    }
}

fn rules(rules: Option<&HPAScalingRules>, path: &Path<'_>, causes: &mut Causes) {
    let Some(rules) = rules else { return };
    let at = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(window) if window < 0 => {
            causes.invalid(&at, window, "must be greater than or equal to zero");
        }
        Some(window) if window > WINDOW_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            causes.invalid(&at, window, &detail);
        }
        _ => {}
    }
    if let Some(choice) = &rules.select_policy
        && !matches!(choice.as_str(), "Max" | "Min" | "Disabled")
    {
        causes.not_supported(&path.child("selectPolicy"), choice, &["Disabled", "Max", "Min"]);
    }
    let at = path.child("policies");
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        causes.required(&at, "must specify at least one Policy");
    }
    for (i, one) in policies.iter().enumerate() {
        policy(one, &at.index(i), causes);
    }
}

fn policy(policy: &HPAScalingPolicy, path: &Path<'_>, causes: &mut Causes) {
    if !matches!(policy.type_.as_str(), "Pods" | "Percent") {
        causes.not_supported(&path.child("type"), &policy.type_, &["Percent", "Pods"]);
    }
    if policy.value <= 0 {
        causes.invalid(&path.child("value"), policy.value, "must be greater than zero");
    }
    let (at, period) = (path.child("periodSeconds"), policy.period_seconds);
    if period <= 0 {
        causes.invalid(&at, period, "must be greater than zero");
    }
    if period > PERIOD_SECONDS_MAX {
        let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
        causes.invalid(&at, period, &detail);
    }
}

fn source(metric: &MetricSpec, path: &Path<'_>, causes: &mut Causes) {
    if metric.type_.is_empty() {
        causes.required(&path.child("type"), "must specify a metric source type");
    }
    if !SOURCES.contains(&metric.type_.as_str()) {
        causes.not_supported(&path.child("type"), &metric.type_, SOURCES);
    }
    let given = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
    ];
    // Only the first one that is given is looked at.
    if let Some((_, field, _)) = given.iter().find(|(.., given)| *given) {
        content(metric, field, &path.child(field), causes);
    }
    let expected = given.iter().find(|(kind, ..)| *kind == metric.type_);
    if let Some((_, field, false)) = expected {
        let detail = "must populate information for the given metric source";
        causes.required(&path.child(field), detail);
    }
    let count = given.iter().filter(|(.., given)| *given).count();
    for (kind, field, _) in given.iter().filter(|(.., given)| *given && count != 1) {
        if *kind != metric.type_ {
            let detail = "must populate the given metric source only";
            causes.forbidden(&path.child(field), detail);
        }
    }
}

fn content(metric: &MetricSpec, field: &str, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("target");
    match field {
        "object" => {
            let Some(object) = &metric.object else { return };
            reference(&object.described_object, &path.child("describedObject"), causes);
            identifier(&object.metric, &path.child("metric"), causes);
            target(&object.target, &at, causes);
            one_value(&object.target, &at, causes);
        }
        "external" => {
            let Some(external) = &metric.external else { return };
            identifier(&external.metric, &path.child("metric"), causes);
            target(&external.target, &at, causes);
            one_value(&external.target, &at, causes);
            if external.target.value.is_some() && external.target.average_value.is_some() {
                let detail = "may not set both a target value for metric and a per-pod target";
                causes.forbidden(&at.child("value"), detail);
            }
        }
        "pods" => {
            let Some(pods) = &metric.pods else { return };
            identifier(&pods.metric, &path.child("metric"), causes);
            target(&pods.target, &at, causes);
            if !pods.target.average_value.as_ref().is_some_and(is_positive) {
                let detail = "must specify a positive target averageValue";
                causes.required(&at.child("averageValue"), detail);
            }
        }
        "resource" => {
            let Some(resource) = &metric.resource else { return };
            named(&resource.name, &path.child("name"), "must specify a resource name", causes);
            target(&resource.target, &at, causes);
            one_resource_value(&resource.target, &at, causes);
        }
        _ => {
            let Some(resource) = &metric.container_resource else { return };
            named(&resource.name, &path.child("name"), "must specify a resource name", causes);
            let at_container = path.child("container");
            named(&resource.container, &at_container, "must specify a container name", causes);
            target(&resource.target, &at, causes);
            one_resource_value(&resource.target, &at, causes);
        }
    }
}

fn named(name: &str, path: &Path<'_>, detail: &str, causes: &mut Causes) {
    if name.is_empty() {
        causes.required(path, detail);
    }
}

fn identifier(metric: &MetricIdentifier, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("name");
    if metric.name.is_empty() {
        causes.required(&at, "must specify a metric name");
    } else {
        causes.invalid_each(&at, &metric.name, names::path_segment(&metric.name, false));
    }
}

fn one_value(target: &MetricTarget, path: &Path<'_>, causes: &mut Causes) {
    if target.value.is_none() && target.average_value.is_none() {
        let detail = "must set either a target value for metric or a per-pod target";
        causes.required(&path.child("averageValue"), detail);
    }
}

fn one_resource_value(target: &MetricTarget, path: &Path<'_>, causes: &mut Causes) {
    match (&target.average_utilization, &target.average_value) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            causes.required(&path.child("averageUtilization"), detail);
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            causes.forbidden(&path.child("averageValue"), detail);
        }
        _ => {}
    }
}

fn target(target: &MetricTarget, path: &Path<'_>, causes: &mut Causes) {
    let kind = target.type_.as_str();
    if kind.is_empty() {
        causes.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        causes.invalid(&path.child("type"), kind, detail);
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(value) = value.as_ref().filter(|value| !is_positive(value)) {
            causes.invalid(&path.child(field), &value.0, "must be positive");
        }
    }
    if let Some(share) = target.average_utilization.filter(|share| *share < 1) {
        causes.invalid(&path.child("averageUtilization"), share, "must be greater than 0");
    }
}

fn is_positive(value: &Quantity) -> bool {
    Amount::parse(&value.0).is_ok_and(|amount| amount.nano() > 0)
}
