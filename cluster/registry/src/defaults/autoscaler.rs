//! Defaults of horizontal pod autoscalers.

use api::quantity::QuantityError;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};

use super::{canonical, drop_empty};

/// Percent of the requested CPU that pods shall use.
const CPU_PERCENT: i32 = 80;

pub(super) fn autoscaler(autoscaler: &mut HorizontalPodAutoscaler) -> Result<(), QuantityError> {
    let spec = autoscaler.spec.get_or_insert_default();
    spec.min_replicas.get_or_insert(1);
    drop_empty(&mut spec.metrics);
    for metric in spec.metrics.get_or_insert_with(|| vec![cpu(CPU_PERCENT)]) {
        if let Some(target) = target_of(metric) {
            target.value.as_mut().map(canonical).transpose()?;
            target.average_value.as_mut().map(canonical).transpose()?;
        }
    }
    if let Some(behavior) = &mut spec.behavior {
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        rules(up, &[("Pods", 4), ("Percent", 100)]);
        rules(behavior.scale_down.get_or_insert_default(), &[("Percent", 100)]);
    }
    let status = autoscaler.status.get_or_insert_default();
    drop_empty(&mut status.conditions);
    drop_empty(&mut status.current_metrics);
    Ok(())
}

/// The metric of which most autoscalers know nothing else: a share of the requested CPU.
pub(crate) fn cpu(percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn target_of(metric: &mut MetricSpec) -> Option<&mut MetricTarget> {
    if let Some(source) = &mut metric.resource {
        return Some(&mut source.target);
    }
    if let Some(source) = &mut metric.container_resource {
        return Some(&mut source.target);
    }
    if let Some(source) = &mut metric.pods {
        return Some(&mut source.target);
    }
    if let Some(source) = &mut metric.object {
        return Some(&mut source.target);
    }
    metric.external.as_mut().map(|source| &mut source.target)
}

fn rules(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    // The feature is alpha in 1.33, so that the field is not kept.
    rules.tolerance = None;
    rules.policies.get_or_insert_with(|| {
        let policy = |(kind, value): &(&str, i32)| HPAScalingPolicy {
            type_: (*kind).to_owned(),
            value: *value,
            period_seconds: 15,
        };
        policies.iter().map(policy).collect()
    });
}
