//! Persistent volumes and claims.

use api::Time;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
    TypedLocalObjectReference, TypedObjectReference,
};

const PENDING: &str = "Pending";

pub(super) fn new_volume(volume: &mut PersistentVolume, now: Time) {
    volume.status = Some(PersistentVolumeStatus {
        phase: Some(PENDING.to_owned()),
        last_phase_transition_time: Some(now.to_meta()),
        ..PersistentVolumeStatus::default()
    });
    // The feature behind this field is off by default in 1.33.
    volume.spec.get_or_insert_default().volume_attributes_class_name = None;
}

pub(super) fn new_claim(claim: &mut PersistentVolumeClaim) {
    claim.status = Some(PersistentVolumeClaimStatus {
        phase: Some(PENDING.to_owned()),
        ..PersistentVolumeClaimStatus::default()
    });
    let spec = claim.spec.get_or_insert_default();
    spec.volume_attributes_class_name = None;
    // Two fields for the same: clients may write and read either.
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_ref().is_none_or(String::is_empty) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

/// Dates a phase that came without a date of its own.
pub(super) fn date_phase(new: &mut PersistentVolume, old: &PersistentVolume, now: Time) {
    let old = old.status.clone().unwrap_or_default();
    let status = new.status.get_or_insert_default();
    let dated = status.last_phase_transition_time.is_some()
        && status.last_phase_transition_time != old.last_phase_transition_time;
    if status.phase != old.phase && !dated {
        status.last_phase_transition_time = Some(now.to_meta());
    }
}
