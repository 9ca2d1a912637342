//! Defaults of jobs.

use api::quantity::QuantityError;
use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::pod::template;
use super::{drop_empty, text};

/// Pods that may fail before the job has failed.
const BACKOFF_LIMIT: i32 = 6;

pub(super) fn job(job: &mut Job) -> Result<(), QuantityError> {
    let spec = job.spec.get_or_insert_default();
    numbers(spec);
    text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let policy = spec.pod_failure_policy.as_mut();
    let replacement = if policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    for rule in policy.into_iter().flat_map(|p| &mut p.rules) {
        drop_empty(&mut rule.on_pod_conditions);
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if pattern.status.is_empty() {
                "True".clone_into(&mut pattern.status);
            }
        }
    }
    spec.pod_replacement_policy.get_or_insert_with(|| replacement.to_owned());
    template(&mut spec.template)?;
    // A job that has no UID yet gets the labels with those that derive from it.
    if job.metadata.uid.is_some() && job.metadata.labels.is_none() {
        job.metadata.labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
    }
    job.status.get_or_insert_default();
    Ok(())
}

fn numbers(spec: &mut JobSpec) {
    if spec.parallelism.is_none() {
        spec.completions.get_or_insert(1);
    }
    spec.parallelism.get_or_insert(1);
    let each = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if each { i32::MAX } else { BACKOFF_LIMIT });
}
