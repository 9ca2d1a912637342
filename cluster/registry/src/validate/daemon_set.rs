//! Daemon sets, and the controller revisions that remember their templates.

use api::selector::Selector;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector;
use super::workload::{amount, count, number, template};
use crate::field::{Causes, Json, Path};
use crate::operation::Options;

pub(super) fn daemon_set(set: &DaemonSet, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &set.spec else { return causes.required(&path, "") };
    let at = path.child("selector");
    selector::label_selector(&spec.selector, &at, causes);
    let wanted = Selector::of_label_selector(&spec.selector).unwrap_or_default();
    if selector::is_empty(&spec.selector) {
        causes.invalid(&at, &spec.selector, "empty selector is invalid for daemonset");
    }
    template(&spec.template, &wanted, "DaemonSet", options, &path.child("template"), causes);
    count(spec.min_ready_seconds, &path, "minReadySeconds", causes);
    if let Some(how) = &spec.update_strategy {
        strategy(how, &path.child("updateStrategy"), causes);
    }
    count(spec.revision_history_limit, &path, "revisionHistoryLimit", causes);
}

fn strategy(strategy: &DaemonSetUpdateStrategy, path: &Path<'_>, causes: &mut Causes) {
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => match &strategy.rolling_update {
            Some(rolling) => rolling_update(rolling, &path.child("rollingUpdate"), causes),
            None => causes.required(&path.child("rollingUpdate"), ""),
        },
        _ => causes.not_supported(path, strategy, &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_update(rolling: &RollingUpdateDaemonSet, path: &Path<'_>, causes: &mut Causes) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let (of_unavailable, of_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    let both = [(unavailable, &of_unavailable), (surge, &of_surge)];
    for (value, at) in both {
        amount(value, at, causes);
    }
    for (value, at) in both {
        if matches!(value, IntOrString::String(_)) && number(value) > 100 {
            causes.invalid(at, value, "must not be greater than 100%");
        }
    }
    match (number(unavailable) != 0, number(surge) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            causes.invalid(&of_surge, surge, detail);
        }
        (false, false) => causes.required(&of_unavailable, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

pub(super) fn status(new: &DaemonSet, old: &DaemonSet, causes: &mut Causes) {
    let path = Path::new("status");
    let Some(status) = &new.status else { return };
    let collisions = status.collision_count;
    for (field, value) in [
        ("currentNumberScheduled", status.current_number_scheduled),
        ("numberMisscheduled", status.number_misscheduled),
        ("desiredNumberScheduled", status.desired_number_scheduled),
        ("numberReady", status.number_ready),
    ] {
        causes.non_negative(&path.child(field), i64::from(value));
    }
    let generation = status.observed_generation.unwrap_or(0);
    causes.non_negative(&path.child("observedGeneration"), generation);
    count(status.updated_number_scheduled, &path, "updatedNumberScheduled", causes);
    count(status.number_available, &path, "numberAvailable", causes);
    count(status.number_unavailable, &path, "numberUnavailable", causes);
    count(collisions, &path, "collisionCount", causes);
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    if before.is_some_and(|before| collisions.is_none_or(|now| now < before)) {
        let now = collisions.unwrap_or(0);
        causes.invalid(&path.child("collisionCount"), now, "cannot be decremented");
    }
}

pub(super) fn controller_revision(revision: &ControllerRevision, causes: &mut Causes) {
    if revision.data.is_none() {
        causes.required(&Path::new("data"), "data is mandatory");
    }
    causes.non_negative(&Path::new("revision"), revision.revision);
}

pub(super) fn controller_revision_update(
    new: &ControllerRevision,
    old: &ControllerRevision,
    causes: &mut Causes,
) {
    if new.data != old.data {
        causes.invalid(&Path::new("data"), Json(&new.data), "field is immutable");
    }
}
