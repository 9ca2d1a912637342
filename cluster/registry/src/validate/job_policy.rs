//! The policies of a job: which failures of pods count, which successes suffice, and when pods
//! are replaced.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement as ExitCodes,
    PodFailurePolicyOnPodConditionsPattern as Pattern, PodFailurePolicyRule, SuccessPolicyRule,
};

use super::job::is_indexed;
use crate::field::{Causes, Json, Path, quote};
use crate::names;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
/// Rules of one policy.
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
/// Bytes of a list of indexes that must succeed.
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;

/// `valid values: ["A" "B"]`, as Go prints a list.
fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| quote(v)).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

/// Checks that the value is there and is one of those that exist.
fn one_of(value: &str, values: &[&str], path: &Path<'_>, causes: &mut Causes) {
    if value.is_empty() {
        causes.required(path, &valid_values(values));
    } else if !values.contains(&value) {
        causes.not_supported(path, value, values);
    }
}

pub(super) fn failure(spec: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let rules = path.child("rules");
    if policy.rules.len() > RULES_MAX {
        causes.too_many(&rules, policy.rules.len(), RULES_MAX);
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(spec, rule, &rules.index(i), causes);
    }
}

fn failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, path: &Path<'_>, causes: &mut Causes) {
    let action = path.child("action");
    if rule.action == "FailIndex" {
        if spec.backoff_limit_per_index.is_none() {
            let detail = "requires the backoffLimitPerIndex to be set";
            causes.invalid(&action, rule.action.as_str(), detail);
        }
    } else {
        one_of(&rule.action, ACTIONS, &action, causes);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(spec, codes, &path.child("onExitCodes"), causes);
    }
    pod_conditions(patterns, &path.child("onPodConditions"), causes);
    match (&rule.on_exit_codes, patterns) {
        (Some(_), [_, ..]) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            causes.invalid_whole(path, detail);
        }
        (None, []) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            causes.invalid_whole(path, detail);
        }
        _ => {}
    }
}

fn pod_conditions(patterns: &[Pattern], path: &Path<'_>, causes: &mut Causes) {
    if patterns.len() > PATTERNS_MAX {
        causes.too_many(path, patterns.len(), PATTERNS_MAX);
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        let kind = &pattern.type_;
        causes.invalid_each(&at.child("type"), kind, names::qualified_name(kind));
        one_of(&pattern.status, STATUSES, &at.child("status"), causes);
    }
}

fn exit_codes(spec: &JobSpec, codes: &ExitCodes, path: &Path<'_>, causes: &mut Causes) {
    one_of(&codes.operator, OPERATORS, &path.child("operator"), causes);
    if let Some(name) = &codes.container_name {
        let pods = spec.template.spec.as_ref();
        let init = pods.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
        let mut all = pods.map_or(&[][..], |s| &s.containers).iter().chain(init);
        if !all.any(|c| c.name == *name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            causes.invalid(&path.child("containerName"), name, detail);
        }
    }
    let at = path.child("values");
    let values = codes.values.as_slice();
    if values.is_empty() {
        causes.invalid(&at, values, "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        causes.too_many(&at, values.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            causes.invalid(&at.index(i), *value, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            causes.duplicate(&at.index(i), *value);
        }
    }
    if !values.is_sorted() {
        causes.invalid(&at, values, "must be ordered");
    }
}

pub(super) fn replacement(spec: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(policy) = spec.pod_replacement_policy.as_deref() else { return };
    let supported: &[&str] = match spec.pod_failure_policy {
        // What a pod died of is known only when it has ended.
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    if !supported.contains(&policy) {
        causes.not_supported(path, policy, supported);
    }
}

pub(super) fn success(spec: &JobSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(policy) = &spec.success_policy else { return };
    if !is_indexed(spec) {
        return causes.invalid(path, Json(policy), "requires indexed completion mode");
    }
    let rules = path.child("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        causes.required(&rules, detail);
    }
    if policy.rules.len() > RULES_MAX {
        causes.too_many(&rules, policy.rules.len(), RULES_MAX);
    }
    // Without completions the job is refused anyway.
    let Some(completions) = spec.completions else { return };
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(rule, completions, &rules.index(i), causes);
    }
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, path: &Path<'_>, causes: &mut Causes) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        causes.required(path, detail);
    }
    let mut total = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if text.len() > SUCCEEDED_INDEXES_BYTES_MAX {
            causes.too_long(&at, SUCCEEDED_INDEXES_BYTES_MAX);
        }
        match count_indexes(text, completions) {
            Ok(count) => total = count,
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                causes.invalid(&at, text, &detail);
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    causes.non_negative(&at, i64::from(count));
    if count > completions {
        let detail = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        causes.invalid(&at, count, &detail);
    }
    if rule.succeeded_indexes.is_some() && count > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified \
             succeededIndexes field)"
        );
        causes.invalid(&at, count, &detail);
    }
}

/// How many indexes a text such as `1,3-5,7` lists.
///
/// # Errors
/// Why the text is no rising list of indexes below `completions`.
pub(super) fn count_indexes(text: &str, completions: i32) -> Result<i32, String> {
    let mut total = 0;
    let mut last: Option<i32> = None;
    for (first, end) in intervals(text, completions)? {
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The intervals of a list of indexes, both ends included.
pub(super) fn intervals(text: &str, completions: i32) -> Result<Vec<(i32, i32)>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|part| interval(part, completions)).collect()
}

fn interval(part: &str, completions: i32) -> Result<(i32, i32), String> {
    let limits: Vec<&str> = part.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most \
             two parts separated by '-'",
            quote(part)
        ));
    }
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {}", quote(text))),
        Ok(index) => i32::try_from(index)
            .ok()
            .filter(|index| *index < completions)
            .ok_or_else(|| format!("too large index: {}", quote(text))),
    };
    let first = index(limits[0])?;
    match limits.get(1) {
        None => Ok((first, first)),
        Some(end) => {
            let end = index(end)?;
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Ok((first, end))
        }
    }
}
