//! The status of jobs: whoever manages one must not take back what others rely on.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::job::is_indexed;
use super::job_policy::{count_indexes, intervals};
use crate::field::{Causes, Json, Path};

/// One side of a change.
struct Side<'a> {
    spec: &'a JobSpec,
    status: &'a JobStatus,
}

impl Side<'_> {
    fn is(&self, condition: &str) -> bool {
        let all = self.status.conditions.as_deref().unwrap_or_default();
        all.iter().any(|c| c.type_ == condition && c.status == "True")
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn completed_indexes(&self) -> &str {
        self.status.completed_indexes.as_deref().unwrap_or_default()
    }

    /// Whether the two differ in the condition.
    fn changes(&self, old: &Self, condition: &str) -> bool {
        self.is(condition) != old.is(condition)
    }
}

pub(super) fn update(new: &Job, old: &Job, causes: &mut Causes) {
    let Some(spec) = &new.spec else { return };
    let empty = JobStatus::default();
    let old = Side { spec, status: old.status.as_ref().unwrap_or(&empty) };
    let new = Side { spec, status: new.status.as_ref().unwrap_or(&empty) };
    let path = Path::new("status");
    counters(&new, &path, causes);
    conditions(&new, &old, &path, causes);
    times(&new, &old, &path, causes);
    finished(&new, &old, &path, causes);
    indexes(&new, &old, &path, causes);
    decreases(&new, &old, &path, causes);
}

fn counters(new: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let status = new.status;
    for (field, value) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        causes.non_negative(&path.child(field), i64::from(value.unwrap_or(0)));
    }
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let at = path.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for (field, list) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        let at = at.child(field);
        for (i, uid) in list.iter().flatten().enumerate() {
            if uid.is_empty() {
                causes.invalid(&at.index(i), uid, "must not be empty");
            } else if !seen.insert(uid) {
                causes.duplicate(&at.index(i), uid);
            }
        }
    }
}

fn conditions(new: &Side<'_>, old: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("conditions");
    let mut refuse = |detail: &str| causes.invalid_whole(&at, detail);
    let completes = new.changes(old, "Complete");
    let (complete, failed) = (new.is("Complete"), new.is("Failed"));
    let (target, met) = (new.is("FailureTarget"), new.is("SuccessCriteriaMet"));
    if complete && failed && (completes || new.changes(old, "Failed")) {
        refuse("cannot set Complete=True and Failed=true conditions");
    }
    if complete && target && (completes || new.changes(old, "FailureTarget")) {
        refuse("cannot set Complete=True and FailureTarget=true conditions");
    }
    let targets = new.changes(old, "Failed") || new.changes(old, "FailureTarget");
    if failed && !target && targets {
        refuse("cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if complete && !met && (completes || new.changes(old, "SuccessCriteriaMet")) {
        refuse("cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    if met && failed {
        refuse("cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && target {
        refuse("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if new.spec.success_policy.is_some() && !met && complete {
        refuse(
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        );
    }
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if old.is(condition) && !new.is(condition) {
            refuse(&format!("cannot disable the terminal {condition}=True condition"));
        }
    }
    if old.is("SuccessCriteriaMet") && !met {
        refuse("cannot disable the SuccessCriteriaMet=True condition");
    }
    if old.is("Complete") && !old.is("SuccessCriteriaMet") && met {
        refuse("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn times(new: &Side<'_>, old: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let (start, end) = (&new.status.start_time, &new.status.completion_time);
    let (started, ended) = (&old.status.start_time, &old.status.completion_time);
    let at = path.child("completionTime");
    if new.changes(old, "Complete") || end != ended {
        match end {
            Some(time) if !new.is("Complete") => {
                let detail = "cannot set completionTime when there is no Complete=True condition";
                causes.invalid(&at, time, detail);
            }
            None if new.is("Complete") => {
                causes.required(&at, "completionTime is required for Complete jobs");
            }
            _ => {}
        }
    }
    if let (Some(start), Some(end)) = (start, end)
        && end.0 < start.0
        && (new.status.start_time != *started || new.status.completion_time != *ended)
    {
        causes.invalid(&at, end, "completionTime cannot be set before startTime");
    }
    if let (Some(time), Some(before)) = (end, ended)
        && time != before
    {
        causes.invalid(&at, time, "completionTime cannot be mutated");
    }
    // A job that was suspended starts anew when it is resumed.
    let resumes = old.is("Suspended") && start.is_some();
    if started.is_some() && start != started && new.spec.suspend != Some(true) && !resumes {
        let detail = "startTime cannot be removed for unsuspended job";
        causes.required(&path.child("startTime"), detail);
    }
}

fn finished(new: &Side<'_>, old: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let (status, before) = (new.status, old.status);
    let changed = new.is_finished() != old.is_finished();
    let active = status.active.unwrap_or(0);
    let ready = status.ready.unwrap_or(0);
    let terminating = status.terminating.unwrap_or(0);
    if ready > active && (status.ready != before.ready || status.active != before.active) {
        causes.invalid(&path.child("ready"), ready, "cannot set more ready pods than active");
    }
    if !new.is_finished() {
        return;
    }
    if active > 0 && (changed || status.active != before.active) {
        let detail = "active>0 is invalid for finished job";
        causes.invalid(&path.child("active"), active, detail);
    }
    if terminating > 0 && (changed || status.terminating != before.terminating) {
        let detail = "terminating>0 is invalid for finished job";
        causes.invalid(&path.child("terminating"), terminating, detail);
    }
    // A suspended job that wants nothing is complete without having started.
    let started = status.start_time.is_some() || new.spec.suspend == Some(true);
    if !started && (changed || status.start_time != before.start_time) {
        causes.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let any = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if let Some(uncounted) = uncounted.filter(|u| any(&u.succeeded) || any(&u.failed))
        && (changed || status.uncounted_terminated_pods != before.uncounted_terminated_pods)
    {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        causes.invalid(&path.child("uncountedTerminatedPods"), Json(uncounted), detail);
    }
}

fn indexes(new: &Side<'_>, old: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let completed = new.completed_indexes();
    let failed = new.status.failed_indexes.as_deref();
    let completed_changed = completed != old.completed_indexes();
    let failed_changed = new.status.failed_indexes != old.status.failed_indexes;
    let at = path.child("completedIndexes");
    let failed_at = path.child("failedIndexes");
    if let Some(completions) = new.spec.completions {
        if completed_changed && let Err(why) = count_indexes(completed, completions) {
            let detail = format!("error parsing completedIndexes: {why}");
            causes.invalid(&at, completed, &detail);
        }
        if failed_changed
            && new.spec.backoff_limit_per_index.is_some()
            && let Some(text) = failed
            && let Err(why) = count_indexes(text, completions)
        {
            causes.invalid(&failed_at, text, &format!("error parsing failedIndexes: {why}"));
        }
        if (completed_changed || failed_changed)
            && let Some(text) = failed
            && let Some(index) = overlap(completed, text, completions)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            causes.invalid(&failed_at, text, &detail);
        }
    }
    if completed_changed && !completed.is_empty() && !is_indexed(new.spec) {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        causes.invalid(&at, completed, detail);
    }
    if failed_changed
        && new.spec.backoff_limit_per_index.is_none()
        && let Some(text) = failed
    {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        causes.invalid(&failed_at, text, detail);
    }
}

/// The first index that two rising lists have in common. What cannot be read is told elsewhere.
fn overlap(one: &str, other: &str, completions: i32) -> Option<i32> {
    let one = intervals(one, completions).unwrap_or_default();
    let other = intervals(other, completions).unwrap_or_default();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

fn decreases(new: &Side<'_>, old: &Side<'_>, path: &Path<'_>, causes: &mut Causes) {
    let (failed, before) = (new.status.failed.unwrap_or(0), old.status.failed.unwrap_or(0));
    if failed < before {
        causes.invalid(&path.child("failed"), failed, "cannot decrease the failed counter");
    }
    // Indexes beyond the completions are forgotten when a job is made smaller.
    let elastic = is_indexed(new.spec) && new.spec.completions == new.spec.parallelism;
    let succeeded = new.status.succeeded.unwrap_or(0);
    if !elastic && succeeded < old.status.succeeded.unwrap_or(0) {
        let detail = "cannot decrease the succeeded counter";
        causes.invalid(&path.child("succeeded"), succeeded, detail);
    }
}
