//! Jobs: what they ask for, and what of it may change.

use std::collections::BTreeMap;

use api::selector::Selector;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};

use super::{job_policy, selector, workload};
use crate::field::{Causes, Json, Labels, Path, quote};
use crate::names;
use crate::operation::Options;
use crate::prepare::{CONTROLLER_UID, JOB_NAME, LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME};

/// The text of `status.completedIndexes` must not grow without end.
const INDEXED_PARALLELISM_MAX: i32 = 100_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
/// Jobs with more completions have narrower limits when each index has its own.
const COMPLETIONS_SOFT_MAX: i32 = 100_000;
const HIGH_COMPLETIONS_MAX: i32 = 10_000;
/// Bytes of the name of who manages a job.
const MANAGED_BY_BYTES_MAX: usize = 63;
/// The characters of a path of HTTP, as the error names them.
const PATH_REGEX: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

/// Whether the job counts completions by index.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn job(job: &Job, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &job.spec else { return causes.required(&path, "") };
    generated_selector(job, spec, causes);
    job_spec(spec, options, &path, causes);
    let labels = labels_of(&spec.template);
    match &spec.selector {
        None => causes.required(&path.child("selector"), ""),
        Some(wanted) => {
            selector::label_selector(wanted, &path.child("selector"), causes);
            if Selector::of_label_selector(wanted).is_ok_and(|s| !s.matches(labels)) {
                let at = path.child("template");
                let at = at.child("metadata");
                let detail = "`selector` does not match template `labels`";
                causes.invalid(&at.child("labels"), Labels(labels), detail);
            }
        }
    }
    if let Some(completions) = spec.completions.filter(|c| is_indexed(spec) && *c > 0) {
        // Each pod is called after its index as a host, which not every name of a job allows.
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let host = format!("{name}-{}", completions - 1);
        if !names::label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            causes.invalid(&Path::new("metadata").child("name"), name, &detail);
        }
    }
}

fn labels_of(template: &PodTemplateSpec) -> Option<&BTreeMap<String, String>> {
    template.metadata.as_ref().and_then(|m| m.labels.as_ref())
}

/// Checks that nobody wrote something else where the server writes the identity of the job.
fn generated_selector(job: &Job, spec: &JobSpec, causes: &mut Causes) {
    let (Some(wanted), false) = (&spec.selector, spec.manual_selector == Some(true)) else {
        return;
    };
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if uid.is_empty() {
        causes.required(&Path::new("metadata").child("uid"), "");
    }
    let expected = [
        (LEGACY_CONTROLLER_UID, uid),
        (LEGACY_JOB_NAME, name),
        (CONTROLLER_UID, uid),
        (JOB_NAME, name),
    ];
    let path = Path::new("spec");
    let path = path.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let labels = labels_of(&spec.template);
    for (key, value) in expected {
        let detail = format!("must be '{value}'");
        match labels.and_then(|l| l.get(key)) {
            None => causes.required(&path.key(key), &detail),
            Some(found) if found != value => {
                causes.invalid(&path.key(key), Labels(labels), &detail);
            }
            Some(_) => {}
        }
    }
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if Selector::of_label_selector(wanted).is_ok_and(|s| !s.matches(Some(&expected))) {
        let at = Path::new("spec");
        causes.invalid(&at.child("selector"), wanted, "`selector` not auto-generated");
    }
}

/// What holds for a job whoever writes it: the server has not named its pods yet.
pub(super) fn job_spec(spec: &JobSpec, options: &Options, path: &Path<'_>, causes: &mut Causes) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        causes.non_negative(&path.child(field), value.unwrap_or(0));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let at = path.child("backoffLimitPerIndex");
        causes.required(&at, "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        managed_by(manager, &path.child("managedBy"), causes);
    }
    match spec.completion_mode.as_deref().unwrap_or("NonIndexed") {
        "Indexed" => indexed(spec, path, causes),
        "NonIndexed" => {}
        other => {
            let supported = ["NonIndexed", "Indexed"];
            causes.not_supported(&path.child("completionMode"), other, &supported);
        }
    }
    if spec.completion_mode.as_deref().unwrap_or("NonIndexed") == "NonIndexed" {
        let detail = "requires indexed completion mode";
        if let Some(limit) = spec.backoff_limit_per_index {
            causes.invalid(&path.child("backoffLimitPerIndex"), limit, detail);
        }
        if let Some(limit) = spec.max_failed_indexes {
            causes.invalid(&path.child("maxFailedIndexes"), limit, detail);
        }
    }
    job_policy::failure(spec, &path.child("podFailurePolicy"), causes);
    job_policy::success(spec, &path.child("successPolicy"), causes);
    job_policy::replacement(spec, &path.child("podReplacementPolicy"), causes);
    let at = path.child("template");
    workload::pods(&spec.template, options, &at, causes);
    workload::no_ephemeral_containers(&spec.template, &at, causes);
    restart_policy(spec, &at.child("spec").child("restartPolicy"), causes);
}

fn indexed(spec: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(completions) = spec.completions else {
        return causes.required(&path.child("completions"), "when completion mode is Indexed");
    };
    let at = path.child("parallelism");
    let parallelism = spec.parallelism.unwrap_or(0);
    if parallelism > INDEXED_PARALLELISM_MAX {
        let detail = format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is \
             Indexed"
        );
        causes.invalid(&at, parallelism, &detail);
    }
    let failed = path.child("maxFailedIndexes");
    if let Some(max) = spec.max_failed_indexes {
        if max > completions {
            causes.invalid(&failed, max, "must be less than or equal to completions");
        }
        if max > FAILED_INDEXES_MAX {
            let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
            causes.invalid(&failed, max, &detail);
        }
    }
    if completions > COMPLETIONS_SOFT_MAX && spec.backoff_limit_per_index.is_some() {
        let detail = format!(
            "must be less than or equal to {HIGH_COMPLETIONS_MAX} when completions are above \
             {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
        );
        if spec.max_failed_indexes.is_none() {
            let detail =
                format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            causes.required(&failed, &detail);
        }
        if parallelism > HIGH_COMPLETIONS_MAX {
            causes.invalid(&at, parallelism, &detail);
        }
        if let Some(max) = spec.max_failed_indexes.filter(|max| *max > HIGH_COMPLETIONS_MAX) {
            causes.invalid(&failed, max, &detail);
        }
    }
}

fn managed_by(manager: &str, path: &Path<'_>, causes: &mut Causes) {
    match manager.split_once('/') {
        _ if manager.is_empty() => causes.required(path, ""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            causes.invalid_each(path, host, names::subdomain(host));
            let legal = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !rest.chars().all(legal) {
                let detail = format!("Invalid path (regex used for validation is '{PATH_REGEX}')");
                causes.invalid(path, rest, &detail);
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            causes.invalid(path, manager, detail);
        }
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        causes.too_long(path, MANAGED_BY_BYTES_MAX);
    }
}

fn restart_policy(spec: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    match policy.unwrap_or_default() {
        "" | "Always" => {
            causes.required(path, "valid values: \"OnFailure\", \"Never\"");
        }
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail =
                format!("only {} is supported when podFailurePolicy is specified", quote("Never"));
            causes.invalid(path, "OnFailure", &detail);
        }
        "OnFailure" | "Never" => {}
        other => causes.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

/// What holds between the old job and the new one.
pub(super) fn update(new: &Job, old: &Job, causes: &mut Causes) {
    let path = Path::new("spec");
    let (Some(spec), Some(before)) = (&new.spec, &old.spec) else { return };
    completions(spec, before, &path.child("completions"), causes);
    causes.immutable(&path.child("selector"), &spec.selector, &before.selector);
    let started = old.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let may_move = before.suspend == Some(true) && !started;
    let movable = may_move.then(|| with_placement_of(&before.template, &spec.template));
    let before_template = movable.as_ref().unwrap_or(&before.template);
    if spec.template != *before_template {
        causes.invalid(&path.child("template"), Json(&spec.template), "field is immutable");
    }
    causes.immutable(&path.child("completionMode"), &spec.completion_mode, &before.completion_mode);
    if spec.pod_failure_policy != before.pod_failure_policy {
        let at = path.child("podFailurePolicy");
        causes.invalid(&at, Json(&spec.pod_failure_policy), "field is immutable");
    }
    causes.immutable(
        &path.child("backoffLimitPerIndex"),
        &spec.backoff_limit_per_index,
        &before.backoff_limit_per_index,
    );
    causes.immutable(&path.child("managedBy"), &spec.managed_by, &before.managed_by);
    if spec.success_policy != before.success_policy {
        let at = path.child("successPolicy");
        causes.invalid(&at, Json(&spec.success_policy), "field is immutable");
    }
}

fn completions(new: &JobSpec, old: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    match new.completions {
        _ if !is_indexed(new) => causes.immutable(path, &new.completions, &old.completions),
        Some(wanted) if new.completions != old.completions && new.parallelism != Some(wanted) => {
            causes.invalid(path, wanted, "can only be modified in tandem with spec.parallelism");
        }
        _ => {}
    }
}

/// The old template with all of the new one that says on which nodes pods may run: until a job
/// has started, whoever queues it may change that.
fn with_placement_of(old: &PodTemplateSpec, new: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = old.clone();
    if let (Some(spec), Some(new)) = (&mut template.spec, &new.spec) {
        let wanted = new.affinity.as_ref().and_then(|a| a.node_affinity.clone());
        match (&mut spec.affinity, &new.affinity) {
            (Some(affinity), _) => affinity.node_affinity = wanted,
            (none, Some(_)) => {
                *none = Some(Affinity { node_affinity: wanted, ..Affinity::default() });
            }
            (None, None) => {}
        }
        if new.affinity.is_none() && spec.affinity == Some(Affinity::default()) {
            spec.affinity = None;
        }
        spec.node_selector.clone_from(&new.node_selector);
        spec.tolerations.clone_from(&new.tolerations);
        spec.scheduling_gates.clone_from(&new.scheduling_gates);
    }
    if let Some(new) = &new.metadata {
        let metadata = template.metadata.get_or_insert_default();
        metadata.annotations.clone_from(&new.annotations);
        metadata.labels.clone_from(&new.labels);
    }
    template
}

#[cfg(test)]
mod tests;
