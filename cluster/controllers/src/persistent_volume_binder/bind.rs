//! The writes of a binding, and the status of a claim.

use api::volume::{BIND_COMPLETED, BOUND_BY_CONTROLLER};
use api::{ApiObject, Request, meta, volume};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::Plan;

use crate::ownership;

const YES: &str = "yes";

/// Makes volume and claim name each other, or finishes what was begun.
pub(super) fn bind(found: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let held = volume::claim_ref(found);
    if held.is_none_or(|held| volume::uid_of(held) != uid) {
        let mut found = found.clone();
        if held.is_none() {
            annotate(&mut found.metadata, BOUND_BY_CONTROLLER, YES);
        }
        found.spec.get_or_insert_default().claim_ref = Some(volume::reference(claim));
        plan.request(Request::Update { object: found.into_object(), subresource: None });
    }
    let unnamed = volume::volume_name(claim).is_empty();
    if unnamed || meta::annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        let mut claim = claim.clone();
        if unnamed {
            annotate(&mut claim.metadata, BOUND_BY_CONTROLLER, YES);
            claim.spec.get_or_insert_default().volume_name.clone_from(&found.metadata.name);
        }
        annotate(&mut claim.metadata, BIND_COMPLETED, YES);
        plan.request(Request::Update { object: claim.into_object(), subresource: None });
    }
    if plan.requests.is_empty() {
        set_status(claim, bound_status(found, claim), plan);
    }
}

pub(super) fn annotate(meta: &mut ObjectMeta, key: &str, value: &str) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

fn bound_status(
    found: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> PersistentVolumeClaimStatus {
    let before = claim.status.clone().unwrap_or_default();
    let spec = found.spec.as_ref();
    let modes = spec.and_then(|s| s.access_modes.clone());
    // Once bound, the size is the business of whoever makes the volume larger.
    let settled = volume::claim_phase(claim) == "Bound" && before.capacity.is_some();
    let capacity =
        if settled { before.capacity.clone() } else { spec.and_then(|s| s.capacity.clone()) };
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: modes,
        capacity,
        ..before
    }
}

/// Says that the claim has no volume yet, or none any more.
pub(super) fn set_phase(claim: &PersistentVolumeClaim, phase: &str, plan: &mut Plan) {
    let status = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        access_modes: None,
        capacity: None,
        ..claim.status.clone().unwrap_or_default()
    };
    set_status(claim, status, plan);
}

fn set_status(claim: &PersistentVolumeClaim, status: PersistentVolumeClaimStatus, plan: &mut Plan) {
    if claim.status.as_ref() != Some(&status) {
        let claim = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        plan.request(ownership::update_status(claim));
    }
}
