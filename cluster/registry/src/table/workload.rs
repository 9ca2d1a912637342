//! Cells of what makes pods.

use api::{Time, meta};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::text::{NONE, age, containers, labels, or, selector, since};
use super::{human_duration, name};

pub(super) fn deployment(deployment: &Deployment, now: Time) -> Vec<Value> {
    let spec = deployment.spec.as_ref();
    let status = deployment.status.as_ref();
    let ready = status.and_then(|s| s.ready_replicas).unwrap_or(0);
    let desired = spec.and_then(|s| s.replicas).unwrap_or(0);
    let [names, images] = of_template(spec.map(|s| &s.template));
    vec![
        name(&deployment.metadata),
        format!("{ready}/{desired}").into(),
        status.and_then(|s| s.updated_replicas).unwrap_or(0).into(),
        status.and_then(|s| s.available_replicas).unwrap_or(0).into(),
        age(&deployment.metadata, now),
        names,
        images,
        spec.map(|s| selector(&s.selector)).unwrap_or_default().into(),
    ]
}

pub(super) fn replica_set(set: &ReplicaSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let status = set.status.as_ref();
    let [names, images] = of_template(spec.and_then(|s| s.template.as_ref()));
    let selector = spec.map(|s| selector(&s.selector)).unwrap_or_default();
    vec![
        name(&set.metadata),
        spec.and_then(|s| s.replicas).unwrap_or(0).into(),
        status.map_or(0, |s| s.replicas).into(),
        status.and_then(|s| s.ready_replicas).unwrap_or(0).into(),
        age(&set.metadata, now),
        names,
        images,
        or(Some(&selector), NONE).into(),
    ]
}

pub(super) fn replication_controller(controller: &ReplicationController, now: Time) -> Vec<Value> {
    let spec = controller.spec.as_ref();
    let status = controller.status.as_ref();
    let [names, images] = of_template(spec.and_then(|s| s.template.as_ref()));
    vec![
        name(&controller.metadata),
        spec.and_then(|s| s.replicas).unwrap_or(0).into(),
        status.map_or(0, |s| s.replicas).into(),
        status.and_then(|s| s.ready_replicas).unwrap_or(0).into(),
        age(&controller.metadata, now),
        names,
        images,
        labels(spec.and_then(|s| s.selector.as_ref())).into(),
    ]
}

pub(super) fn disruption_budget(budget: &PodDisruptionBudget, now: Time) -> Vec<Value> {
    let amount = |value: Option<&IntOrString>| match value {
        Some(IntOrString::Int(number)) => number.to_string().into(),
        Some(IntOrString::String(text)) => text.as_str().into(),
        None => Value::from("N/A"),
    };
    let spec = budget.spec.as_ref();
    vec![
        name(&budget.metadata),
        amount(spec.and_then(|s| s.min_available.as_ref())),
        amount(spec.and_then(|s| s.max_unavailable.as_ref())),
        budget.status.as_ref().map_or(0, |s| s.disruptions_allowed).into(),
        age(&budget.metadata, now),
    ]
}

pub(super) fn daemon_set(set: &DaemonSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let status = set.status.clone().unwrap_or_default();
    let [names, images] = of_template(spec.map(|s| &s.template));
    let nodes = spec.and_then(|s| s.template.spec.as_ref()?.node_selector.as_ref());
    vec![
        name(&set.metadata),
        status.desired_number_scheduled.into(),
        status.current_number_scheduled.into(),
        status.number_ready.into(),
        status.updated_number_scheduled.unwrap_or(0).into(),
        status.number_available.unwrap_or(0).into(),
        labels(nodes).into(),
        age(&set.metadata, now),
        names,
        images,
        or(spec.map(|s| selector(&s.selector)).as_deref(), NONE).into(),
    ]
}

pub(super) fn stateful_set(set: &StatefulSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let desired = spec.and_then(|s| s.replicas).unwrap_or(0);
    let [names, images] = of_template(spec.map(|s| &s.template));
    vec![
        name(&set.metadata),
        format!("{ready}/{desired}").into(),
        age(&set.metadata, now),
        names,
        images,
    ]
}

pub(super) fn controller_revision(revision: &ControllerRevision, now: Time) -> Vec<Value> {
    let controller = meta::controller_of(&revision.metadata).map(|owner| {
        let kind = owner.kind.to_lowercase();
        match owner.api_version.split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
            None => format!("{kind}/{}", owner.name),
        }
    });
    vec![
        name(&revision.metadata),
        or(controller.as_deref(), NONE).into(),
        revision.revision.into(),
        age(&revision.metadata, now),
    ]
}

pub(super) fn job(job: &Job, now: Time) -> Vec<Value> {
    let spec = job.spec.as_ref();
    let status = job.status.as_ref();
    let succeeded = status.and_then(|s| s.succeeded).unwrap_or(0);
    let completions = match (spec.and_then(|s| s.completions), spec.and_then(|s| s.parallelism)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |of: fn(&JobStatus) -> Option<&MetaTime>| status.and_then(of).map(Time::from_meta);
    let start = time(|s| s.start_time.as_ref());
    let end = time(|s| s.completion_time.as_ref()).unwrap_or(now);
    let [names, images] = of_template(spec.map(|s| &s.template));
    let wanted = spec.and_then(|s| s.selector.as_ref()).map(selector).unwrap_or_default();
    vec![
        name(&job.metadata),
        state_of(job).into(),
        completions.into(),
        start.map(|start| human_duration(end.since(start))).unwrap_or_default().into(),
        age(&job.metadata, now),
        names,
        images,
        or(Some(&wanted), NONE).into(),
    ]
}

pub(super) fn cron_job(cron_job: &CronJob, now: Time) -> Vec<Value> {
    let spec = cron_job.spec.as_ref();
    let status = cron_job.status.as_ref();
    let last = status.and_then(|s| s.last_schedule_time.as_ref()).map(Time::from_meta);
    let suspended = match spec.and_then(|s| s.suspend) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let job = spec.and_then(|s| s.job_template.spec.as_ref());
    let [names, images] = of_template(job.map(|job| &job.template));
    let wanted = job.and_then(|job| job.selector.as_ref()).map(selector);
    vec![
        name(&cron_job.metadata),
        spec.map_or("", |s| s.schedule.as_str()).into(),
        spec.and_then(|s| s.time_zone.as_deref()).unwrap_or(NONE).into(),
        suspended.into(),
        status.and_then(|s| s.active.as_ref()).map_or(0, Vec::len).into(),
        last.map_or_else(|| NONE.to_owned(), |last| since(Some(last), now)).into(),
        age(&cron_job.metadata, now),
        names,
        images,
        or(wanted.as_deref(), NONE).into(),
    ]
}

fn state_of(job: &Job) -> &'static str {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(super) fn scale(scale: &Scale, now: Time) -> Vec<Value> {
    vec![
        name(&scale.metadata),
        scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0).into(),
        scale.status.as_ref().map_or(0, |s| s.replicas).into(),
        age(&scale.metadata, now),
    ]
}

fn of_template(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    containers(template.and_then(|t| t.spec.as_ref()).map_or(&[], |s| &s.containers))
}
