//! Stateful sets.

use std::borrow::Cow;

use api::selector::Selector;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};

use super::selector;
use super::workload::{count, template};
use crate::field::{Causes, Path};
use crate::names;
use crate::operation::Options;

pub(super) fn stateful_set(set: &StatefulSet, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &set.spec else { return causes.required(&path, "") };
    let policy = spec.pod_management_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        causes.invalid(&path.child("podManagementPolicy"), policy, detail);
    }
    if let Some(how) = &spec.update_strategy {
        strategy(how, &path.child("updateStrategy"), causes);
    }
    retention(spec, &path.child("persistentVolumeClaimRetentionPolicy"), causes);
    count(spec.replicas, &path, "replicas", causes);
    count(spec.min_ready_seconds, &path, "minReadySeconds", causes);
    if let Some(ordinals) = &spec.ordinals {
        count(ordinals.start, &path.child("ordinals"), "start", causes);
    }
    if let Some(service) = &spec.service_name {
        causes.invalid_each(&path.child("serviceName"), service, names::label(service));
    }
    let at = path.child("selector");
    selector::label_selector(&spec.selector, &at, causes);
    let wanted = Selector::of_label_selector(&spec.selector).unwrap_or_default();
    if selector::is_empty(&spec.selector) {
        causes.invalid(&at, &spec.selector, "empty selector is invalid for statefulset");
    }
    let at = path.child("template");
    template(&with_claims(spec), &wanted, "StatefulSet", options, &at, causes);
}

/// The template with the volumes that its pods get from claims: they may be mounted.
fn with_claims(spec: &StatefulSetSpec) -> Cow<'_, PodTemplateSpec> {
    let Some(claims) = &spec.volume_claim_templates else { return Cow::Borrowed(&spec.template) };
    let mut template = spec.template.clone();
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    for name in claims.iter().filter_map(|claim| claim.metadata.name.as_ref()) {
        // A claim takes the place of the volume of its name.
        volumes.retain(|volume| volume.name != *name);
        volumes.push(Volume {
            name: name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    Cow::Owned(template)
}

fn strategy(strategy: &StatefulSetUpdateStrategy, path: &Path<'_>, causes: &mut Causes) {
    let rolling = strategy.rolling_update.as_ref();
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), rolling) {
        ("OnDelete", Some(rolling)) => {
            causes.invalid(&at, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("RollingUpdate", Some(rolling)) => count(rolling.partition, &at, "partition", causes),
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => causes.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn retention(spec: &StatefulSetSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(policy) = &spec.persistent_volume_claim_retention_policy else { return };
    for (field, value) in
        [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)]
    {
        let value = value.as_deref().unwrap_or_default();
        if !matches!(value, "Retain" | "Delete") {
            causes.not_supported(&path.child(field), value, &["Retain", "Delete"]);
        }
    }
}

pub(super) fn update(new: &StatefulSet, old: &StatefulSet, causes: &mut Causes) {
    // All but the fields that may change.
    let fixed = |set: &StatefulSet| {
        let spec = set.spec.clone().unwrap_or_default();
        (spec.selector, spec.service_name, spec.pod_management_policy, spec.volume_claim_templates)
    };
    if fixed(new) != fixed(old) {
        causes.forbidden(
            &Path::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        );
    }
}

pub(super) fn status(new: &StatefulSet, old: &StatefulSet, causes: &mut Causes) {
    let path = Path::new("status");
    let Some(status) = &new.status else { return };
    let replicas = status.replicas;
    let parts = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    causes.non_negative(&path.child("replicas"), i64::from(replicas));
    for (field, value) in parts {
        count(value, &path, field, causes);
    }
    let generation = status.observed_generation.unwrap_or(0);
    causes.non_negative(&path.child("observedGeneration"), generation);
    count(status.collision_count, &path, "collisionCount", causes);
    for (field, value) in parts {
        let value = value.unwrap_or(0);
        if value > replicas {
            causes.invalid(&path.child(field), value, "cannot be greater than status.replicas");
        }
    }
    let available = status.available_replicas.unwrap_or(0);
    if available > status.ready_replicas.unwrap_or(0) {
        let detail = "cannot be greater than status.readyReplicas";
        causes.invalid(&path.child("availableReplicas"), available, detail);
    }
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    let now = status.collision_count;
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        let now = now.unwrap_or(0);
        causes.invalid(&path.child("collisionCount"), now, "cannot be decremented");
    }
}
