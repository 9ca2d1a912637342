//! Defaults of volumes.

use api::quantity::QuantityError;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, EmptyDirVolumeSource, Volume};

use super::container::{field_ref, resource_ref};
use super::{canonical, drop_blank, drop_empty, drop_false, storage};

/// Mode of files of config maps, secrets and projections: 0644.
const FILE_MODE: i32 = 0o644;
/// Lifetime of a projected service account token.
const TOKEN_SECONDS: i64 = 3600;

/// Whether no source is set.
fn is_bare(volume: &Volume) -> bool {
    *volume == Volume { name: volume.name.clone(), ..Volume::default() }
}

pub(super) fn volume(volume: &mut Volume) -> Result<(), QuantityError> {
    if is_bare(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(dir) = &mut volume.empty_dir {
        drop_blank(&mut dir.medium);
        dir.size_limit.as_mut().map(canonical).transpose()?;
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
        drop_empty(&mut secret.items);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(FILE_MODE);
        drop_empty(&mut map.items);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().try_for_each(downward_file)?;
    }
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(claim) = &mut volume.persistent_volume_claim {
        drop_false(&mut claim.read_only);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut())
    {
        storage::claim_spec(&mut template.spec)?;
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
                drop_blank(&mut token.audience);
            }
            if let Some(downward) = &mut source.downward_api {
                downward.items.iter_mut().flatten().try_for_each(downward_file)?;
            }
        }
    }
    Ok(())
}

fn downward_file(file: &mut DownwardAPIVolumeFile) -> Result<(), QuantityError> {
    file.field_ref.as_mut().into_iter().for_each(field_ref);
    file.resource_field_ref.as_mut().map(resource_ref).transpose()?;
    Ok(())
}
