//! Cells of persistent volumes, claims and storage classes.

use std::collections::BTreeMap;

use api::{Time, meta, volume as storage};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::name;
use super::text::{age, or, text};

/// Shown of a field that is absent where it could be empty, too.
const UNSET: &str = "<unset>";

pub(super) fn volume(volume: &PersistentVolume, now: Time) -> Vec<Value> {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let claim = spec.claim_ref.as_ref().map(|claim| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(&claim.namespace), part(&claim.name))
    });
    let terminating = meta::is_terminating(&volume.metadata);
    let phase = if terminating { Some("Terminating") } else { status.phase.as_deref() };
    vec![
        name(&volume.metadata),
        amount(spec.capacity.as_ref()),
        modes(spec.access_modes.as_deref()),
        text(spec.persistent_volume_reclaim_policy.as_deref()),
        text(phase),
        claim.unwrap_or_default().into(),
        storage::class_of_volume(volume).into(),
        spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET).into(),
        text(status.reason.as_deref()),
        age(&volume.metadata, now),
        spec.volume_mode.as_deref().unwrap_or(UNSET).into(),
    ]
}

pub(super) fn claim(claim: &PersistentVolumeClaim, now: Time) -> Vec<Value> {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
    let terminating = meta::is_terminating(&claim.metadata);
    let phase = if terminating { Some("Terminating") } else { status.phase.as_deref() };
    vec![
        name(&claim.metadata),
        text(phase),
        text(spec.volume_name.as_deref()),
        if bound { amount(status.capacity.as_ref()) } else { "".into() },
        if bound { modes(status.access_modes.as_deref()) } else { "".into() },
        storage::class_of_claim(claim).unwrap_or_default().into(),
        spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET).into(),
        age(&claim.metadata, now),
        spec.volume_mode.as_deref().unwrap_or(UNSET).into(),
    ]
}

pub(super) fn class(class: &StorageClass, now: Time) -> Vec<Value> {
    let mut shown = class.metadata.name.clone().unwrap_or_default();
    if storage::is_default_class(&class.metadata) {
        shown.push_str(" (default)");
    }
    vec![
        shown.into(),
        class.provisioner.as_str().into(),
        or(class.reclaim_policy.as_deref(), "Delete").into(),
        or(class.volume_binding_mode.as_deref(), "Immediate").into(),
        class.allow_volume_expansion.unwrap_or(false).into(),
        age(&class.metadata, now),
    ]
}

fn amount(list: Option<&BTreeMap<String, Quantity>>) -> Value {
    list.and_then(|list| list.get("storage")).map_or("0", |amount| &amount.0).into()
}

/// The abbreviations of access modes, each once.
fn modes(modes: Option<&[String]>) -> Value {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |wanted: &str| modes.into_iter().flatten().any(|mode| mode == wanted);
    let shown: Vec<&str> =
        short.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect();
    shown.join(",").into()
}
