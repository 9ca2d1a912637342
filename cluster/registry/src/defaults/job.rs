//! Defaults of jobs and cron jobs.

use api::quantity::QuantityError;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};

use super::pod::template;
use super::{drop_empty, text};

/// Pods that may fail before the job has failed.
const BACKOFF_LIMIT: i32 = 6;
/// Finished jobs that a cron job keeps: those that succeeded and those that failed.
const HISTORY: [i32; 2] = [3, 1];

pub(super) fn job(job: &mut Job) -> Result<(), QuantityError> {
    let spec = job.spec.get_or_insert_default();
    numbers(spec);
    text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    failure_policy(spec);
    let replacement =
        if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replacement.to_owned());
    template(&mut spec.template)?;
    // A job that has no UID yet gets the labels with those that derive from it.
    if job.metadata.uid.is_some() && job.metadata.labels.is_none() {
        job.metadata.labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
    }
    job.status.get_or_insert_default();
    Ok(())
}

/// A cron job. The jobs of its template get their defaults when they are made, their pods and
/// their failure policy have them here already.
pub(super) fn cron_job(cron_job: &mut CronJob) -> Result<(), QuantityError> {
    let spec = cron_job.spec.get_or_insert_default();
    text(&mut spec.concurrency_policy, "Allow");
    spec.suspend.get_or_insert(false);
    spec.successful_jobs_history_limit.get_or_insert(HISTORY[0]);
    spec.failed_jobs_history_limit.get_or_insert(HISTORY[1]);
    crate::meta::tidy(spec.job_template.metadata.get_or_insert_default());
    let job = spec.job_template.spec.get_or_insert_default();
    failure_policy(job);
    template(&mut job.template)?;
    let status = cron_job.status.get_or_insert_default();
    drop_empty(&mut status.active);
    Ok(())
}

fn failure_policy(spec: &mut JobSpec) {
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules) {
        drop_empty(&mut rule.on_pod_conditions);
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if pattern.status.is_empty() {
                "True".clone_into(&mut pattern.status);
            }
        }
    }
}

fn numbers(spec: &mut JobSpec) {
    if spec.parallelism.is_none() {
        spec.completions.get_or_insert(1);
    }
    spec.parallelism.get_or_insert(1);
    let each = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if each { i32::MAX } else { BACKOFF_LIMIT });
}
