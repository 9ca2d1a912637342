//! Cron jobs: their schedules, and the template of their jobs.

use api::cron::{self, Schedule};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

use super::job;
use crate::field::{Causes, Path};
use crate::operation::Options;

/// The names of jobs are those of their cron jobs and eleven more characters, and a name of a job
/// is the value of a label.
const NAME_BYTES_MAX: usize = 63 - 11;
/// Bytes of a part of the name of a time zone.
const ZONE_PART_BYTES_MAX: usize = 14;

pub(super) fn create(cron_job: &CronJob, causes: &mut Causes) {
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    if let Some(spec) = &cron_job.spec {
        time_zone(spec, causes);
    }
    if name.len() > NAME_BYTES_MAX {
        let detail = format!("must be no more than {NAME_BYTES_MAX} characters");
        causes.invalid(&Path::new("metadata").child("name"), name, &detail);
    }
}

pub(super) fn update(new: &CronJob, old: &CronJob, causes: &mut Causes) {
    let Some(spec) = &new.spec else { return };
    let before = old.spec.as_ref().and_then(|s| s.time_zone.as_ref());
    if spec.time_zone.as_ref() != before {
        time_zone(spec, causes);
    }
}

pub(super) fn cron_job(cron_job: &CronJob, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &cron_job.spec else { return causes.required(&path, "") };
    schedule(&spec.schedule, &path.child("schedule"), causes);
    let deadline = spec.starting_deadline_seconds.unwrap_or(0);
    causes.non_negative(&path.child("startingDeadlineSeconds"), deadline);
    let at = path.child("concurrencyPolicy");
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "Allow" | "Forbid" | "Replace" => {}
        "" => causes.required(&at, ""),
        other => causes.not_supported(&at, other, &["Allow", "Forbid", "Replace"]),
    }
    template(spec, &path.child("jobTemplate").child("spec"), options, causes);
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        causes.non_negative(&path.child(field), i64::from(limit.unwrap_or(0)));
    }
}

fn schedule(text: &str, path: &Path<'_>, causes: &mut Causes) {
    if text.is_empty() {
        return causes.required(path, "");
    }
    if let Err(error) = Schedule::parse(text, None) {
        causes.invalid(path, text, &error.to_string());
    }
    if text.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        causes.invalid(path, text, detail);
    }
}

fn time_zone(spec: &CronJobSpec, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("timeZone");
    let Some(name) = spec.time_zone.as_deref() else { return };
    if name.is_empty() {
        return causes.invalid(&path, name, "timeZone must be nil or non-empty string");
    }
    if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in \
                      https://www.iana.org/time-zones";
        causes.invalid(&path, name, detail);
    }
    if name != "Local" && (!name.split('/').all(is_zone_part) || cron::zone(name).is_none()) {
        causes.invalid(&path, name, &format!("unknown time zone {name}"));
    }
}

/// Whether the text may be a part of the name of a time zone, which are told apart by slashes.
fn is_zone_part(part: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    (1..=ZONE_PART_BYTES_MAX).contains(&part.len())
        && !matches!(part, "." | "..")
        && !part.starts_with('-')
        && part.bytes().all(legal)
}

fn template(spec: &CronJobSpec, path: &Path<'_>, options: &Options, causes: &mut Causes) {
    let Some(job) = &spec.job_template.spec else { return causes.required(path, "") };
    job::job_spec(job, options, path, causes);
    // Each job gets a selector of its own.
    if let Some(selector) = &job.selector {
        causes.invalid(&path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        causes.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}
