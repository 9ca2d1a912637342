//! Volumes of pods and pod templates.

use std::collections::BTreeSet;

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, NFSVolumeSource,
    PersistentVolumeClaimTemplate, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::{container, storage};
use crate::field::{Causes, Path};
use crate::{meta, names};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// Fields of a pod that a file may show.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Shortest life of a projected token: ten minutes.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Checks the volumes and returns the names of those that are sound.
pub(super) fn all<'a>(
    volumes: &'a [Volume],
    path: &Path<'_>,
    causes: &mut Causes,
) -> BTreeSet<&'a str> {
    let mut sound = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let mut own = Causes::default();
        source(volume, &at, &mut own);
        if volume.name.is_empty() {
            own.required(&at.child("name"), "");
        } else {
            own.invalid_each(&at.child("name"), &volume.name, names::label(&volume.name));
        }
        if sound.contains(volume.name.as_str()) {
            own.duplicate(&at.child("name"), &volume.name);
        }
        if own.is_empty() {
            sound.insert(volume.name.as_str());
        }
        causes.extend(own);
    }
    sound
}

fn source(volume: &Volume, path: &Path<'_>, causes: &mut Causes) {
    let mut kinds = sources(volume).into_iter().filter(|(_, set)| *set).map(|(field, _)| field);
    let Some(kind) = kinds.next() else {
        return causes.required(path, "must specify a volume type");
    };
    for extra in kinds {
        causes.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    let at = path.child(kind);
    if let Some(dir) = &volume.empty_dir {
        let size = dir.size_limit.as_ref().and_then(|q| Amount::parse(&q.0).ok());
        if size.is_some_and(Amount::is_negative) {
            let detail = "SizeLimit field must be a valid resource quantity";
            causes.forbidden(&at.child("sizeLimit"), detail);
        }
    }
    if let Some(host) = &volume.host_path {
        host_path(host, &path.child("hostPath"), causes);
    }
    if let Some(secret) = &volume.secret {
        let at = path.child("secret");
        if secret.secret_name.as_deref().unwrap_or_default().is_empty() {
            causes.required(&at.child("secretName"), "");
        }
        files(secret.default_mode, secret.items.as_deref(), &at, causes);
    }
    if let Some(map) = &volume.config_map {
        let at = path.child("configMap");
        if map.name.is_empty() {
            causes.required(&at.child("name"), "");
        }
        files(map.default_mode, map.items.as_deref(), &at, causes);
    }
    if let Some(downward) = &volume.downward_api {
        let at = path.child("downwardAPI");
        mode(downward.default_mode, &at.child("defaultMode"), causes);
        for file in downward.items.iter().flatten() {
            downward_file(file, &at, causes);
        }
    }
    if let Some(projected) = &volume.projected {
        projection(projected, &path.child("projected"), causes);
    }
    if let Some(claim) = &volume.persistent_volume_claim
        && claim.claim_name.is_empty()
    {
        causes.required(&path.child("persistentVolumeClaim").child("claimName"), "");
    }
    if let Some(source) = &volume.ephemeral {
        let at = path.child("ephemeral");
        let at = at.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            Some(template) => claim_template(template, &at, causes),
            None => causes.required(&at, ""),
        }
    }
    if let Some(source) = &volume.nfs {
        nfs(source, &path.child("nfs"), causes);
    }
}

fn claim_template(template: &PersistentVolumeClaimTemplate, path: &Path<'_>, causes: &mut Causes) {
    if let Some(meta) = &template.metadata {
        let at = path.child("metadata");
        meta::validate_annotations(meta.annotations.as_ref(), &at.child("annotations"), causes);
        meta::validate_labels(meta.labels.as_ref(), &at.child("labels"), causes);
    }
    storage::claim_spec(&template.spec, &path.child("spec"), causes);
}

pub(super) fn nfs(source: &NFSVolumeSource, path: &Path<'_>, causes: &mut Causes) {
    for (field, value) in [("server", &source.server), ("path", &source.path)] {
        if value.is_empty() {
            causes.required(&path.child(field), "");
        }
    }
    if !source.path.is_empty() && !source.path.starts_with('/') {
        causes.invalid(&path.child("path"), &source.path, "must be an absolute path");
    }
}

/// The sources by the names of their fields, in the order of these, and whether each is set.
fn sources(v: &Volume) -> [(&'static str, bool); 30] {
    [
        ("awsElasticBlockStore", v.aws_elastic_block_store.is_some()),
        ("azureDisk", v.azure_disk.is_some()),
        ("azureFile", v.azure_file.is_some()),
        ("cephfs", v.cephfs.is_some()),
        ("cinder", v.cinder.is_some()),
        ("configMap", v.config_map.is_some()),
        ("csi", v.csi.is_some()),
        ("downwardAPI", v.downward_api.is_some()),
        ("emptyDir", v.empty_dir.is_some()),
        ("ephemeral", v.ephemeral.is_some()),
        ("fc", v.fc.is_some()),
        ("flexVolume", v.flex_volume.is_some()),
        ("flocker", v.flocker.is_some()),
        ("gcePersistentDisk", v.gce_persistent_disk.is_some()),
        ("gitRepo", v.git_repo.is_some()),
        ("glusterfs", v.glusterfs.is_some()),
        ("hostPath", v.host_path.is_some()),
        ("image", v.image.is_some()),
        ("iscsi", v.iscsi.is_some()),
        ("nfs", v.nfs.is_some()),
        ("persistentVolumeClaim", v.persistent_volume_claim.is_some()),
        ("photonPersistentDisk", v.photon_persistent_disk.is_some()),
        ("portworxVolume", v.portworx_volume.is_some()),
        ("projected", v.projected.is_some()),
        ("quobyte", v.quobyte.is_some()),
        ("rbd", v.rbd.is_some()),
        ("scaleIO", v.scale_io.is_some()),
        ("secret", v.secret.is_some()),
        ("storageos", v.storageos.is_some()),
        ("vsphereVolume", v.vsphere_volume.is_some()),
    ]
}

pub(super) fn host_path(host: &HostPathVolumeSource, path: &Path<'_>, causes: &mut Causes) {
    if host.path.is_empty() {
        causes.required(&path.child("path"), "");
    } else {
        no_backsteps(&host.path, &path.child("path"), causes);
    }
    let kind = host.type_.as_deref().unwrap_or_default();
    if !HOST_PATH_TYPES.contains(&kind) {
        causes.not_supported(&path.child("type"), kind, &HOST_PATH_TYPES);
    }
}

pub(super) fn no_backsteps(text: &str, path: &Path<'_>, causes: &mut Causes) {
    if text.split('/').any(|part| part == "..") {
        causes.invalid(path, text, "must not contain '..'");
    }
}

/// Checks a path that must stay below where it starts.
pub(super) fn descending_path(text: &str, path: &Path<'_>, causes: &mut Causes) {
    if text.starts_with('/') {
        causes.invalid(path, text, "must be a relative path");
    }
    no_backsteps(text, path, causes);
}

/// Checks the path of a file that the kubelet writes.
fn file_path(text: &str, path: &Path<'_>, causes: &mut Causes) {
    if text.is_empty() {
        return causes.required(path, "");
    }
    descending_path(text, path, causes);
    if text.starts_with("..") && !text.starts_with("../") {
        causes.invalid(path, text, "must not start with '..'");
    }
}

fn mode(mode: Option<i32>, path: &Path<'_>, causes: &mut Causes) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        causes.invalid(path, mode, MODE);
    }
}

fn files(
    default_mode: Option<i32>,
    items: Option<&[KeyToPath]>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    mode(default_mode, &path.child("defaultMode"), causes);
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = path.child("items");
        let at = at.index(i);
        if item.key.is_empty() {
            causes.required(&at.child("key"), "");
        }
        file_path(&item.path, &at.child("path"), causes);
        mode(item.mode, &at.child("mode"), causes);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path<'_>, causes: &mut Causes) {
    file_path(&file.path, &path.child("path"), causes);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(_), Some(_)) => causes.invalid(
            path,
            "resource",
            "fieldRef and resourceFieldRef can not be specified simultaneously",
        ),
        (Some(field), None) => {
            container::field_ref(field, &FILE_FIELDS, &path.child("fieldRef"), causes);
        }
        (None, Some(resource)) => {
            container::resource_ref(resource, true, &path.child("resourceFieldRef"), causes);
        }
        (None, None) => {
            causes.required(path, "one of fieldRef and resourceFieldRef is required");
        }
    }
    mode(file.mode, &path.child("mode"), causes);
}

fn projection(projected: &ProjectedVolumeSource, path: &Path<'_>, causes: &mut Causes) {
    mode(projected.default_mode, &path.child("defaultMode"), causes);
    let mut seen = BTreeSet::new();
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = path.child("sources");
        let at = at.index(i);
        for place in projected_source(source, &at, causes) {
            if !place.is_empty() && !seen.insert(place) {
                causes.invalid(path, place, "conflicting duplicate paths");
            }
        }
    }
}

/// Checks one source and returns the paths it fills.
fn projected_source<'a>(
    source: &'a VolumeProjection,
    path: &Path<'_>,
    causes: &mut Causes,
) -> Vec<&'a str> {
    let mut places: Vec<&str> = Vec::new();
    let mut count = 0;
    if let Some(secret) = &source.secret {
        count += 1;
        let at = path.child("secret");
        if secret.name.is_empty() {
            causes.required(&at.child("name"), "");
        }
        files(None, secret.items.as_deref(), &at, causes);
        places.extend(secret.items.iter().flatten().map(|item| item.path.as_str()));
    }
    if let Some(map) = &source.config_map {
        count += 1;
        let at = path.child("configMap");
        if map.name.is_empty() {
            causes.required(&at.child("name"), "");
        }
        files(None, map.items.as_deref(), &at, causes);
        places.extend(map.items.iter().flatten().map(|item| item.path.as_str()));
    }
    if let Some(downward) = &source.downward_api {
        count += 1;
        for file in downward.items.iter().flatten() {
            downward_file(file, &path.child("downwardAPI"), causes);
            places.push(&file.path);
        }
    }
    if let Some(token) = &source.service_account_token {
        count += 1;
        let at = path.child("serviceAccountToken");
        let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS_MIN);
        if seconds < TOKEN_SECONDS_MIN {
            let detail = "may not specify a duration less than 10 minutes";
            causes.invalid(&at.child("expirationSeconds"), seconds, detail);
        } else if seconds > 1 << 32 {
            let detail = "may not specify a duration larger than 2^32 seconds";
            causes.invalid(&at.child("expirationSeconds"), seconds, detail);
        }
        file_path(&token.path, &at.child("path"), causes);
        places.push(&token.path);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        count += 1;
        places.push(&bundle.path);
    }
    if count > 1 {
        causes.forbidden(path, "may not specify more than 1 volume type");
    }
    places
}

#[cfg(test)]
mod tests {
    use api::Kind;

    use super::*;
    use crate::schema::{Field, Message, Shape};

    #[test]
    fn every_source_is_known() {
        let inner = |message: &'static Message, name: &str| message.field(name)?.message();
        let spec = inner(Message::of_kind(Kind::Pod), "spec").unwrap();
        let volume = inner(spec, "volumes").unwrap();
        let inline = volume.fields.iter().filter(|f| f.shape == Shape::Inline);
        let source = inline.filter_map(Field::message).flat_map(|m| m.fields);
        let mut expected: Vec<&str> = source.map(|f| f.name).collect();
        expected.sort_unstable();
        assert_eq!(sources(&Volume::default()).map(|(name, _)| name), *expected);
    }
}
