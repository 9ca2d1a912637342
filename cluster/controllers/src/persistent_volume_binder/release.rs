//! What a volume needs next: its phase, and what becomes of it when its claim is gone.

use api::volume::{self as volumes, BOUND_BY_CONTROLLER, LOCAL_PROVISIONER, PROVISIONED_BY};
use api::{ApiObject, Key, Kind, Object, Request, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use machine::{Cache, Plan};

use super::{claim_key, local};
use crate::{announce, ownership};

pub(super) fn sync(cache: &Cache, key: &Key, plan: &mut Plan) {
    let Some(object) = cache.object(key) else { return local::forget(cache, key, plan) };
    let Some(volume) = object.get::<PersistentVolume>() else { return };
    let Some(reference) = volumes::claim_ref(volume) else {
        return set_phase(volume, "Available", "", plan);
    };
    let uid = volumes::uid_of(reference);
    if uid.is_empty() {
        // It is reserved, and not bound.
        return set_phase(volume, "Available", "", plan);
    }
    let claim = cache.object(&claim_key(reference)).and_then(Object::get::<PersistentVolumeClaim>);
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
        // The claim is older than the reference to it: it is known when the volume's last write is.
        // Data must not go because a watch is late.
        None if cache.revision(Kind::PersistentVolumeClaim) < object.revision() => {
            plan.request(Request::ReadRevision(Kind::PersistentVolumeClaim));
        }
        None => release(cache, object, volume, plan),
        // The claim's turn comes.
        Some(claim) if volumes::volume_name(claim).is_empty() => mismatch(volume, claim, plan),
        Some(claim) if volumes::volume_name(claim) == name => set_phase(volume, "Bound", "", plan),
        Some(_) => elsewhere(cache, object, volume, plan),
    }
}

fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if volumes::modes_differ(volume, claim) {
        let claim = claim.metadata.name.as_deref().unwrap_or_default();
        let why = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim:?} due to \
             incompatible volumeMode."
        );
        plan.events.push(announce::warning(volume, "VolumeMismatch", why));
    }
}

/// The claim is bound to another volume.
fn elsewhere(cache: &Cache, object: &Object, volume: &PersistentVolume, plan: &mut Plan) {
    let made = meta::annotation(&volume.metadata, PROVISIONED_BY).is_some();
    if made && policy(volume) == "Delete" {
        // It was made for this claim and nobody else.
        return release(cache, object, volume, plan);
    }
    let mut volume = volume.clone();
    let spec = volume.spec.get_or_insert_default();
    if meta::annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        if let Some(annotations) = &mut volume.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
    } else if let Some(reference) = &mut spec.claim_ref {
        // Whoever reserved it keeps it reserved.
        reference.uid = None;
    }
    plan.request(Request::Update { object: volume.into_object(), subresource: None });
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or_default()
}

/// The claim is gone.
fn release(cache: &Cache, object: &Object, volume: &PersistentVolume, plan: &mut Plan) {
    if !matches!(volumes::volume_phase(volume), "Released" | "Failed") {
        return set_phase(volume, "Released", "", plan);
    }
    if meta::is_terminating(&volume.metadata) {
        return;
    }
    match policy(volume) {
        "Recycle" => {
            let why = "No recycler plugin found for the volume!";
            fail(volume, "VolumeFailedRecycle", why, plan);
        }
        "Delete" => match meta::annotation(&volume.metadata, PROVISIONED_BY) {
            Some(LOCAL_PROVISIONER) => local::remove(cache, object, volume, plan),
            // Who made it deletes it.
            Some(_) => {}
            None => {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let why = format!(
                    "error getting deleter volume plugin for volume {name:?}: no deletable volume \
                     plugin matched"
                );
                fail(volume, "VolumeFailedDelete", &why, plan);
            }
        },
        _ => {}
    }
}

fn fail(volume: &PersistentVolume, reason: &str, why: &str, plan: &mut Plan) {
    set_phase(volume, "Failed", why, plan);
    if !plan.requests.is_empty() {
        plan.events.push(announce::warning(volume, reason, why.to_owned()));
    }
}

fn set_phase(volume: &PersistentVolume, phase: &str, message: &str, plan: &mut Plan) {
    let message = (!message.is_empty()).then(|| message.to_owned());
    let before = volume.status.clone().unwrap_or_default();
    if before.phase.as_deref() == Some(phase) && before.message == message {
        return;
    }
    let status = PersistentVolumeStatus { phase: Some(phase.to_owned()), message, ..before };
    let volume = PersistentVolume { status: Some(status), ..volume.clone() };
    plan.request(ownership::update_status(volume));
}
