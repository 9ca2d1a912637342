//! `metav1.Condition`, which newer kinds share.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::field::{Causes, Path};
use crate::names;

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Checks each condition, and that there is one of a type.
pub(super) fn conditions(list: &[Condition], path: &Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(condition.type_.as_str()) {
            causes.duplicate(&at.child("type"), &condition.type_);
        }
        self::condition(condition, &at, causes);
    }
}

fn condition(condition: &Condition, path: &Path<'_>, causes: &mut Causes) {
    let Condition { type_, status, reason, message, .. } = condition;
    causes.invalid_each(&path.child("type"), type_, names::qualified_name(type_));
    let supported = ["False", "True", "Unknown"];
    if !supported.contains(&status.as_str()) {
        causes.not_supported(&path.child("status"), status, &supported);
    }
    if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
        let detail = "must be greater than or equal to zero";
        causes.invalid(&path.child("observedGeneration"), generation, detail);
    }
    let at = path.child("reason");
    if reason.is_empty() {
        causes.required(&at, "must be set");
    } else {
        causes.invalid_each(&at, reason, names::condition_reason(reason));
        if reason.len() > REASON_BYTES_MAX {
            causes.too_long(&at, REASON_BYTES_MAX);
        }
    }
    if message.len() > MESSAGE_BYTES_MAX {
        causes.too_long(&path.child("message"), MESSAGE_BYTES_MAX);
    }
}
