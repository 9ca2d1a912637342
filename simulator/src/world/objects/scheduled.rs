//! Cron jobs and autoscalers.

use api::{ApiObject, Kind, Object};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};

use super::{app_label, named, pod_template};
use crate::plan::{self, Autoscaler, Concurrency, PodTemplate};

fn number(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A cron job of pods labelled `app=NAME`.
pub(in crate::world) fn cron_job(cron: &plan::CronJob, template: &PodTemplate) -> Object {
    let policy = match cron.concurrency {
        Concurrency::Allow => "Allow",
        Concurrency::Forbid => "Forbid",
        Concurrency::Replace => "Replace",
    };
    let job = JobSpec {
        completions: Some(number(cron.completions)),
        parallelism: Some(number(cron.parallelism)),
        backoff_limit: Some(number(cron.backoff_limit)),
        ttl_seconds_after_finished: cron.ttl_seconds.map(number),
        template: pod_template(template, app_label(&cron.name)),
        ..JobSpec::default()
    };
    CronJob {
        metadata: named(&cron.name),
        spec: Some(CronJobSpec {
            schedule: cron.schedule.clone(),
            concurrency_policy: Some(policy.to_owned()),
            suspend: Some(cron.suspended),
            starting_deadline_seconds: cron.deadline_seconds.map(i64::from),
            successful_jobs_history_limit: Some(number(cron.successful_kept)),
            failed_jobs_history_limit: Some(number(cron.failed_kept)),
            job_template: JobTemplateSpec { metadata: None, spec: Some(job) },
            ..CronJobSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// An autoscaler of the object of that kind and the autoscaler's name.
pub(in crate::world) fn autoscaler(autoscaler: &Autoscaler, target: Kind) -> Object {
    let metadata = named(&autoscaler.name);
    let scale_target_ref = CrossVersionObjectReference {
        api_version: Some(target.api_version().to_owned()),
        kind: target.name().to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let cpu = MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(number(autoscaler.cpu_percent)),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    HorizontalPodAutoscaler {
        metadata,
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref,
            min_replicas: Some(number(autoscaler.min_replicas)),
            max_replicas: number(autoscaler.max_replicas),
            metrics: Some(vec![cpu]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        status: None,
    }
    .into_object()
}
