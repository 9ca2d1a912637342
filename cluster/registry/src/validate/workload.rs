//! Replication controllers, replica sets and deployments.

use std::collections::BTreeMap;

use api::selector::Selector;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{pod, selector};
use crate::field::{Causes, Labels, Path};
use crate::operation::Options;
use crate::{meta, names};

pub(super) fn count(value: Option<i32>, path: &Path<'_>, field: &str, causes: &mut Causes) {
    causes.non_negative(&path.child(field), i64::from(value.unwrap_or(0)));
}

pub(super) fn replication_controller(
    rc: &ReplicationController,
    options: &Options,
    causes: &mut Causes,
) {
    let path = Path::new("spec");
    let Some(spec) = &rc.spec else { return causes.required(&path, "") };
    count(spec.min_ready_seconds, &path, "minReadySeconds", causes);
    let empty = BTreeMap::new();
    let wanted = spec.selector.as_ref().unwrap_or(&empty);
    if wanted.is_empty() {
        causes.required(&path.child("selector"), "");
    }
    count(spec.replicas, &path, "replicas", causes);
    let at = path.child("template");
    match &spec.template {
        None => causes.required(&at, ""),
        Some(pods) => {
            let wanted =
                if wanted.is_empty() { Selector::default() } else { Selector::of_map(wanted) };
            template(pods, &wanted, "ReplicationController", options, &at, causes);
        }
    }
}

pub(super) fn replica_set(set: &ReplicaSet, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &set.spec else { return causes.required(&path, "") };
    count(spec.replicas, &path, "replicas", causes);
    count(spec.min_ready_seconds, &path, "minReadySeconds", causes);
    let wanted = pod_selector(&spec.selector, &path.child("selector"), causes);
    let at = path.child("template");
    match &spec.template {
        None => causes.required(&at, ""),
        Some(pods) => template(pods, &wanted, "ReplicaSet", options, &at, causes),
    }
}

pub(super) fn deployment(deployment: &Deployment, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &deployment.spec else { return causes.required(&path, "") };
    count(spec.replicas, &path, "replicas", causes);
    let wanted = pod_selector(&spec.selector, &path.child("selector"), causes);
    let at = path.child("template");
    template(&spec.template, &wanted, "ReplicaSet", options, &at, causes);
    if let Some(how) = &spec.strategy {
        strategy(how, &path.child("strategy"), causes);
    }
    count(spec.min_ready_seconds, &path, "minReadySeconds", causes);
    count(spec.revision_history_limit, &path, "revisionHistoryLimit", causes);
    progress(spec, &path.child("progressDeadlineSeconds"), causes);
}

fn progress(spec: &DeploymentSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(seconds) = spec.progress_deadline_seconds else { return };
    causes.non_negative(path, i64::from(seconds));
    if seconds <= spec.min_ready_seconds.unwrap_or(0) {
        causes.invalid(path, seconds, "must be greater than minReadySeconds");
    }
}

/// Checks the selector of a workload, which must be there and select by something.
fn pod_selector(wanted: &LabelSelector, path: &Path<'_>, causes: &mut Causes) -> Selector {
    if selector::is_empty(wanted) {
        causes.required(path, "");
        return Selector::nothing();
    }
    selector::label_selector(wanted, path, causes);
    Selector::of_label_selector(wanted).unwrap_or_else(|_| {
        causes.invalid(path, wanted, "invalid label selector");
        Selector::default()
    })
}

pub(super) fn template(
    template: &PodTemplateSpec,
    wanted: &Selector,
    owner: &str,
    options: &Options,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let metadata = path.child("metadata");
    if !wanted.matches(labels) {
        let detail = "`selector` does not match template `labels`";
        causes.invalid(&metadata.child("labels"), Labels(labels), detail);
    }
    pods(template, options, path, causes);
    let Some(spec) = &template.spec else { return };
    let at = path.child("spec");
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| *p != "Always") {
        causes.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        causes.forbidden(&at.child("activeDeadlineSeconds"), &detail);
    }
    no_ephemeral_containers(template, path, causes);
}

/// Checks what holds for every template of pods.
pub(super) fn pods(
    template: &PodTemplateSpec,
    options: &Options,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let metadata = path.child("metadata");
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    meta::validate_labels(labels, &metadata.child("labels"), causes);
    let notes = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    meta::validate_annotations(notes, &metadata.child("annotations"), causes);
    if let Some(spec) = &template.spec {
        pod::spec(spec, None, options, &path.child("spec"), causes);
    }
}

/// Checks that a template has no containers that are added to running pods.
pub(super) fn no_ephemeral_containers(
    template: &PodTemplateSpec,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    if template.spec.as_ref().is_some_and(|s| s.ephemeral_containers.is_some()) {
        let at = path.child("spec");
        let detail = "ephemeral containers not allowed in pod template";
        causes.forbidden(&at.child("ephemeralContainers"), detail);
    }
}

fn strategy(strategy: &DeploymentStrategy, path: &Path<'_>, causes: &mut Causes) {
    match strategy.type_.as_deref().unwrap_or_default() {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                causes.forbidden(&path.child("rollingUpdate"), detail);
            }
        }
        "RollingUpdate" => match &strategy.rolling_update {
            Some(rolling) => rolling_update(rolling, &path.child("rollingUpdate"), causes),
            None => {
                let detail = "this should be defaulted and never be nil";
                causes.required(&path.child("rollingUpdate"), detail);
            }
        },
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            causes.not_supported(&path.child("type"), other, &supported);
        }
    }
}

fn rolling_update(rolling: &RollingUpdateDeployment, path: &Path<'_>, causes: &mut Causes) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    amount(unavailable, &path.child("maxUnavailable"), causes);
    amount(surge, &path.child("maxSurge"), causes);
    let at = path.child("maxUnavailable");
    if number(unavailable) == 0 && number(surge) == 0 {
        causes.invalid(&at, unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if matches!(unavailable, IntOrString::String(_)) && number(unavailable) > 100 {
        causes.invalid(&at, unavailable, "must not be greater than 100%");
    }
}

pub(super) fn amount(value: &IntOrString, path: &Path<'_>, causes: &mut Causes) {
    match value {
        IntOrString::Int(number) => causes.non_negative(path, i64::from(*number)),
        IntOrString::String(text) => {
            for message in names::percent(text) {
                causes.invalid(path, value, &message);
            }
        }
    }
}

/// The number, of pods or of percent.
pub(super) fn number(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => text.trim_end_matches('%').parse().unwrap_or(0),
    }
}

pub(super) fn deployment_status(new: &Deployment, old: &Deployment, causes: &mut Causes) {
    let path = Path::new("status");
    let Some(status) = &new.status else { return };
    let total = status.replicas.unwrap_or(0);
    let ready = status.ready_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    let generation = status.observed_generation.unwrap_or(0);
    causes.non_negative(&path.child("observedGeneration"), generation);
    for (field, value) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", status.unavailable_replicas.unwrap_or(0)),
    ] {
        causes.non_negative(&path.child(field), i64::from(value));
    }
    let over = "cannot be greater than status.replicas";
    for (field, value) in
        [("updatedReplicas", updated), ("readyReplicas", ready), ("availableReplicas", available)]
    {
        if value > total {
            causes.invalid(&path.child(field), value, over);
        }
    }
    if available > ready {
        let detail = "cannot be greater than readyReplicas";
        causes.invalid(&path.child("availableReplicas"), available, detail);
    }
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    if let Some(before) = before {
        let now = status.collision_count;
        if now.is_none_or(|now| now < before) {
            let value = now.map(|n| n.to_string()).unwrap_or_default();
            causes.invalid(&path.child("collisionCount"), value, "cannot be decremented");
        }
    }
}

/// The counts that replica sets and replication controllers report.
struct Counts {
    total: i32,
    labeled: i32,
    ready: i32,
    available: i32,
    generation: i64,
}

pub(super) fn replica_set_status(set: &ReplicaSet, causes: &mut Causes) {
    let Some(status) = &set.status else { return };
    let counts = Counts {
        total: status.replicas,
        labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        generation: status.observed_generation.unwrap_or(0),
    };
    check_counts(&counts, causes);
}

pub(super) fn replication_controller_status(rc: &ReplicationController, causes: &mut Causes) {
    let Some(status) = &rc.status else { return };
    let counts = Counts {
        total: status.replicas,
        labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        generation: status.observed_generation.unwrap_or(0),
    };
    check_counts(&counts, causes);
}

fn check_counts(counts: &Counts, causes: &mut Causes) {
    let path = Path::new("status");
    let list = [
        ("fullyLabeledReplicas", counts.labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ];
    causes.non_negative(&path.child("replicas"), i64::from(counts.total));
    for (field, value) in list {
        causes.non_negative(&path.child(field), i64::from(value));
    }
    causes.non_negative(&path.child("observedGeneration"), counts.generation);
    for (field, value) in list {
        if value > counts.total {
            let detail = "cannot be greater than status.replicas";
            causes.invalid(&path.child(field), value, detail);
        }
    }
    if counts.available > counts.ready {
        let detail = "cannot be greater than readyReplicas";
        causes.invalid(&path.child("availableReplicas"), counts.available, detail);
    }
}
