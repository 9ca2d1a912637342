//! Defaults of persistent volumes, claims and storage classes.

use api::quantity::QuantityError;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;

use super::{canonical_list, drop_blank, drop_empty, drop_empty_map, text};

const MODE: &str = "Filesystem";

pub(super) fn volume(volume: &mut PersistentVolume) -> Result<(), QuantityError> {
    let spec = volume.spec.get_or_insert_default();
    text(&mut spec.persistent_volume_reclaim_policy, "Retain");
    spec.volume_mode.get_or_insert_with(|| MODE.to_owned());
    drop_blank(&mut spec.storage_class_name);
    drop_empty(&mut spec.access_modes);
    drop_empty(&mut spec.mount_options);
    canonical_list(&mut spec.capacity)?;
    if let Some(path) = &mut spec.host_path {
        path.type_.get_or_insert_default();
    }
    text(&mut volume.status.get_or_insert_default().phase, "Pending");
    Ok(())
}

pub(super) fn claim(claim: &mut PersistentVolumeClaim) -> Result<(), QuantityError> {
    claim_spec(claim.spec.get_or_insert_default())?;
    let status = claim.status.get_or_insert_default();
    text(&mut status.phase, "Pending");
    drop_empty(&mut status.access_modes);
    canonical_list(&mut status.capacity)
}

pub(super) fn claim_spec(spec: &mut PersistentVolumeClaimSpec) -> Result<(), QuantityError> {
    spec.volume_mode.get_or_insert_with(|| MODE.to_owned());
    drop_blank(&mut spec.volume_name);
    drop_empty(&mut spec.access_modes);
    let resources = spec.resources.get_or_insert_default();
    canonical_list(&mut resources.requests)?;
    canonical_list(&mut resources.limits)
}

pub(super) fn class(class: &mut StorageClass) {
    text(&mut class.reclaim_policy, "Delete");
    text(&mut class.volume_binding_mode, "Immediate");
    drop_empty(&mut class.mount_options);
    drop_empty(&mut class.allowed_topologies);
    drop_empty_map(&mut class.parameters);
}
