//! Persistent volumes, claims, storage classes, and what nodes can do for storage drivers.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity as Amount;
use api::volume::{READ_WRITE_ONCE_POD, claim_phase, requested};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{affinity, selector, volume as pod_volume};
use crate::field::{Causes, Json, Path};
use crate::names;

const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", READ_WRITE_ONCE_POD];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const POSITIVE: &str = "must be greater than zero";
/// The parameters of a class: so many bytes, so many of them.
const PARAMETER_BYTES_MAX: usize = 256 << 10;
const PARAMETERS_MAX: usize = 512;
/// Bytes of the name of a driver.
const DRIVER_BYTES_MAX: usize = 63;
/// Bytes of the name that a driver has for a node.
const NODE_ID_BYTES_MAX: usize = 256;

pub(super) fn volume(volume: &PersistentVolume, causes: &mut Causes) {
    let path = Path::new("spec");
    let default = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&default);
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        causes.required(&path.child("accessModes"), "");
    }
    access_modes(modes, &path, causes);
    capacity(spec, &path.child("capacity"), causes);
    let reclaim = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
    let at = path.child("persistentVolumeReclaimPolicy");
    if !reclaim.is_empty() && !RECLAIM_POLICIES.contains(&reclaim) {
        causes.not_supported(&at, reclaim, &RECLAIM_POLICIES);
    }
    if let Some(affinity) = &spec.node_affinity {
        let required = path.child("nodeAffinity");
        let required = required.child("required");
        match &affinity.required {
            Some(wanted) => affinity::node_selector(wanted, &required, causes),
            None => causes.required(&required, "must specify required node constraints"),
        }
    }
    source(spec, &path, causes);
    let root = spec.host_path.as_ref().is_some_and(|host| is_root(&host.path));
    if root && reclaim == "Recycle" {
        causes.forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'");
    }
    class_name(spec.storage_class_name.as_deref(), &path, causes);
    volume_mode(spec.volume_mode.as_deref(), &path, causes);
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".")
}

fn access_modes(modes: &[String], path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("accessModes");
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        causes.not_supported(&at, mode, &ACCESS_MODES);
    }
    let known = || modes.iter().filter(|m| ACCESS_MODES.contains(&m.as_str()));
    let alone = known().any(|m| m == READ_WRITE_ONCE_POD);
    if alone && known().any(|m| m != READ_WRITE_ONCE_POD) {
        causes.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(spec: &PersistentVolumeSpec, path: &Path<'_>, causes: &mut Causes) {
    let Some(list) = spec.capacity.as_ref().filter(|list| !list.is_empty()) else {
        causes.required(path, "");
        return causes.not_supported(path, GoText("core.ResourceList(nil)"), &["storage"]);
    };
    if !list.contains_key("storage") || list.len() > 1 {
        causes.not_supported(path, Json(list), &["storage"]);
    }
    for (name, amount) in list {
        quantity(amount, &path.key(name), causes);
        positive(amount, &path.key(name), causes);
    }
}

/// A value that is shown as it is.
struct GoText(&'static str);

impl crate::field::Shown for GoText {
    fn shown(&self) -> String {
        self.0.to_owned()
    }
}

fn quantity(amount: &Quantity, path: &Path<'_>, causes: &mut Causes) {
    if let Ok(amount) = Amount::parse(&amount.0)
        && amount.is_negative()
    {
        causes.invalid(path, amount.value(), "must be a valid resource quantity");
    }
}

fn positive(amount: &Quantity, path: &Path<'_>, causes: &mut Causes) {
    if Amount::parse(&amount.0).is_ok_and(|a| a.is_negative() || a.is_zero()) {
        causes.invalid(path, &amount.0, POSITIVE);
    }
}

/// Checks that there is one source, and what the ones that nodes here can mount say.
fn source(spec: &PersistentVolumeSpec, path: &Path<'_>, causes: &mut Causes) {
    let mut kinds = sources(spec).into_iter().filter(|(_, set)| *set).map(|(field, _)| field);
    if kinds.next().is_none() {
        return causes.required(path, "must specify a volume type");
    }
    for extra in kinds {
        causes.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if let Some(host) = &spec.host_path {
        pod_volume::host_path(host, &path.child("hostPath"), causes);
    }
    if let Some(local) = &spec.local {
        let at = path.child("local");
        let at = at.child("path");
        if local.path.is_empty() {
            causes.required(&at, "");
        } else {
            pod_volume::no_backsteps(&local.path, &at, causes);
        }
        if spec.node_affinity.is_none() {
            let at = path.child("nodeAffinity");
            causes.required(&at, "Local volume requires node affinity");
        }
    }
    if let Some(nfs) = &spec.nfs {
        pod_volume::nfs(nfs, &path.child("nfs"), causes);
    }
    if let Some(csi) = &spec.csi {
        let at = path.child("csi");
        driver(&csi.driver, &at.child("driver"), causes);
        if csi.volume_handle.is_empty() {
            causes.required(&at.child("volumeHandle"), "");
        }
    }
}

/// Checks the name of a driver of volumes.
fn driver(name: &str, path: &Path<'_>, causes: &mut Causes) {
    if name.is_empty() {
        causes.required(path, "");
    }
    if name.len() > DRIVER_BYTES_MAX {
        causes.too_long(path, DRIVER_BYTES_MAX);
    }
    causes.invalid_each(path, name, names::subdomain(&name.to_lowercase()));
}

/// The sources by the names of their fields, in the order in which they are looked at, and whether
/// each is set.
fn sources(s: &PersistentVolumeSpec) -> [(&'static str, bool); 22] {
    [
        ("hostPath", s.host_path.is_some()),
        ("gcePersistentDisk", s.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", s.aws_elastic_block_store.is_some()),
        ("glusterfs", s.glusterfs.is_some()),
        ("flocker", s.flocker.is_some()),
        ("nfs", s.nfs.is_some()),
        ("rbd", s.rbd.is_some()),
        ("quobyte", s.quobyte.is_some()),
        ("cephfs", s.cephfs.is_some()),
        ("iscsi", s.iscsi.is_some()),
        ("cinder", s.cinder.is_some()),
        ("fc", s.fc.is_some()),
        ("flexVolume", s.flex_volume.is_some()),
        ("azureFile", s.azure_file.is_some()),
        ("vsphereVolume", s.vsphere_volume.is_some()),
        ("photonPersistentDisk", s.photon_persistent_disk.is_some()),
        ("portworxVolume", s.portworx_volume.is_some()),
        ("azureDisk", s.azure_disk.is_some()),
        ("scaleIO", s.scale_io.is_some()),
        ("local", s.local.is_some()),
        ("storageos", s.storageos.is_some()),
        ("csi", s.csi.is_some()),
    ]
}

fn class_name(name: Option<&str>, path: &Path<'_>, causes: &mut Causes) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        causes.invalid_each(&path.child("storageClassName"), name, names::subdomain(name));
    }
}

fn volume_mode(mode: Option<&str>, path: &Path<'_>, causes: &mut Causes) {
    if let Some(mode) = mode.filter(|mode| !VOLUME_MODES.contains(mode)) {
        causes.not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
}

pub(super) fn volume_update(new: &PersistentVolume, old: &PersistentVolume, causes: &mut Causes) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    if source_of(new) != source_of(old) {
        let at = Path::new("spec");
        let detail = "spec.persistentvolumesource is immutable after creation";
        causes.forbidden(&at.child("persistentvolumesource"), detail);
    }
    causes.immutable(&Path::new("volumeMode"), &new.volume_mode, &old.volume_mode);
    if old.node_affinity.is_some() && new.node_affinity != old.node_affinity {
        let detail = "field is immutable";
        causes.invalid(&Path::new("nodeAffinity"), Json(&new.node_affinity), detail);
    }
}

/// The volume's spec without all that is no source.
fn source_of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

pub(super) fn claim(claim: &PersistentVolumeClaim, causes: &mut Causes) {
    let default = PersistentVolumeClaimSpec::default();
    claim_spec(claim.spec.as_ref().unwrap_or(&default), &Path::new("spec"), causes);
}

/// Checks what a claim asks for, or the template of one.
pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, causes: &mut Causes) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        causes.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    if let Some(wanted) = &spec.selector {
        selector::label_selector(wanted, &path.child("selector"), causes);
    }
    access_modes(modes, path, causes);
    let at = path.child("resources");
    let at = at.key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|list| list.get("storage")) {
        None => causes.required(&at, ""),
        Some(amount) => {
            super::container::quantity_value("storage", amount, &at, causes);
            if Amount::parse(&amount.0).is_ok_and(Amount::is_zero) {
                causes.invalid(&at, &amount.0, POSITIVE);
            }
        }
    }
    class_name(spec.storage_class_name.as_deref(), path, causes);
    volume_mode(spec.volume_mode.as_deref(), path, causes);
    data_sources(spec, path, causes);
}

/// Checks from what a volume is to be filled. Whichever of the two fields was given, the server has
/// written the other one, too.
fn data_sources(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, causes: &mut Causes) {
    let plain = spec.data_source.as_ref().map(|s| Source {
        group: s.api_group.as_deref().unwrap_or_default(),
        kind: &s.kind,
        name: &s.name,
    });
    let of = spec.data_source_ref.as_ref().map(|s| Source {
        group: s.api_group.as_deref().unwrap_or_default(),
        kind: &s.kind,
        name: &s.name,
    });
    for (field, source) in [("dataSource", &plain), ("dataSourceRef", &of)] {
        if let Some(source) = source {
            source.check(&path.child(field), causes);
        }
    }
    if plain.is_some() && of.is_some() && plain != of {
        causes.invalid_whole(path, "must match dataSourceRef");
    }
}

/// What a volume is to be filled from.
#[derive(PartialEq)]
struct Source<'a> {
    group: &'a str,
    kind: &'a str,
    name: &'a str,
}

impl Source<'_> {
    fn check(&self, path: &Path<'_>, causes: &mut Causes) {
        for (part, value) in [("name", self.name), ("kind", self.kind)] {
            if value.is_empty() {
                causes.required(&path.child(part), "");
            }
        }
        if self.group.is_empty() {
            // Nothing else of the core group can be copied.
            if self.kind != "PersistentVolumeClaim" {
                causes.invalid(path, self.kind, "");
            }
        } else {
            causes.invalid_each(&path.child("apiGroup"), self.group, names::subdomain(self.group));
        }
    }
}

pub(super) fn claim_update(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    causes: &mut Causes,
) {
    let (Some(spec), Some(before)) = (&new.spec, &old.spec) else { return };
    let mut fixed = spec.clone();
    let mut allowed = before.clone();
    if before.volume_name.is_none() {
        allowed.volume_name.clone_from(&fixed.volume_name);
    }
    // Claims from before there was a default class may get one.
    if before.storage_class_name.is_none() && api::volume::class_of_claim(old).is_none() {
        allowed.storage_class_name.clone_from(&fixed.storage_class_name);
    }
    if claim_phase(old) == "Bound" {
        let amount = before.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
        let requests = fixed.resources.as_mut().and_then(|r| r.requests.as_mut());
        if let (Some(requests), Some(amount)) = (requests, amount) {
            requests.insert("storage".to_owned(), amount.clone());
        }
    }
    let path = Path::new("spec");
    if fixed != allowed {
        causes.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims",
        );
    }
    let at = path.child("resources");
    let at = at.child("requests");
    let status = old.status.as_ref().and_then(|s| s.capacity.as_ref());
    if requested(new) < requested(old) && requested(new) <= api::volume::storage(status) {
        causes.forbidden(&at.child("storage"), "field can not be less than status.capacity");
    }
    causes.immutable(&Path::new("volumeMode"), &spec.volume_mode, &before.volume_mode);
}

pub(super) fn claim_status(claim: &PersistentVolumeClaim, causes: &mut Causes) {
    let path = Path::new("status");
    let path = path.child("capacity");
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    for (name, amount) in capacity.into_iter().flatten() {
        quantity(amount, &path.key(name), causes);
    }
}

pub(super) fn class(class: &StorageClass, causes: &mut Causes) {
    let at = Path::new("provisioner");
    if class.provisioner.is_empty() {
        causes.required(&at, "");
    } else {
        let messages = names::qualified_name(&class.provisioner.to_lowercase());
        causes.invalid_each(&at, &class.provisioner, messages);
    }
    parameters(class, &Path::new("parameters"), causes);
    let policy = class.reclaim_policy.as_deref().unwrap_or_default();
    if !policy.is_empty() && !["Delete", "Retain"].contains(&policy) {
        causes.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let at = Path::new("volumeBindingMode");
    let modes = ["Immediate", "WaitForFirstConsumer"];
    match class.volume_binding_mode.as_deref() {
        None => causes.required(&at, ""),
        Some(mode) if !modes.contains(&mode) => causes.not_supported(&at, mode, &modes),
        Some(_) => {}
    }
    let at = Path::new("allowedTopologies");
    let mut seen = Vec::new();
    for (i, term) in class.allowed_topologies.iter().flatten().enumerate() {
        let at = at.index(i);
        let meant = topology(term, &at, causes);
        if seen.contains(&meant) {
            causes.duplicate(&at.child("matchLabelExpressions"), "");
        }
        seen.push(meant);
    }
}

fn parameters(class: &StorageClass, path: &Path<'_>, causes: &mut Causes) {
    let Some(list) = &class.parameters else { return };
    if list.len() > PARAMETERS_MAX {
        return causes.too_many(path, list.len(), PARAMETERS_MAX);
    }
    if list.keys().any(String::is_empty) {
        causes.invalid(path, "", "field can not be empty.");
    }
    let bytes: usize = list.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > PARAMETER_BYTES_MAX {
        causes.too_long(path, PARAMETER_BYTES_MAX);
    }
}

/// Checks a term; returns what it means, however it is written.
fn topology<'a>(
    term: &'a TopologySelectorTerm,
    path: &Path<'_>,
    causes: &mut Causes,
) -> BTreeMap<&'a String, BTreeSet<&'a String>> {
    let mut meant = BTreeMap::new();
    for (i, label) in term.match_label_expressions.iter().flatten().enumerate() {
        let at = path.child("matchLabelExpressions");
        let at = at.index(i);
        let of_values = at.child("values");
        if label.values.is_empty() {
            causes.required(&of_values, "");
        }
        let mut values = BTreeSet::new();
        for (i, value) in label.values.iter().enumerate() {
            if !values.insert(value) {
                causes.duplicate(&of_values.index(i), value);
            }
        }
        causes.invalid_each(&at.child("key"), &label.key, names::qualified_name(&label.key));
        if meant.insert(&label.key, values).is_some() {
            causes.duplicate(&at.child("key"), &label.key);
        }
    }
    meant
}

pub(super) fn class_update(new: &StorageClass, old: &StorageClass, causes: &mut Causes) {
    for (field, changed) in [
        ("parameters", new.parameters != old.parameters),
        ("provisioner", new.provisioner != old.provisioner),
        ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
    ] {
        if changed {
            let detail = format!("updates to {field} are forbidden.");
            causes.forbidden(&Path::new(field), &detail);
        }
    }
    let at = Path::new("volumeBindingMode");
    causes.immutable(&at, &new.volume_binding_mode, &old.volume_binding_mode);
}

/// Source: kubernetes 1.33, `ValidateCSINode`.
pub(super) fn csi_node(node: &CSINode, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("drivers");
    let mut seen = BTreeSet::new();
    for (i, driver) in node.spec.drivers.iter().enumerate() {
        let path = path.index(i);
        self::driver(&driver.name, &path.child("name"), causes);
        let at = path.child("nodeID");
        if driver.node_id.is_empty() {
            causes.required(&at, "");
        }
        if driver.node_id.len() > NODE_ID_BYTES_MAX {
            let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            causes.invalid(&at, driver.node_id.as_str(), &detail);
        }
        if let Some(count) = driver.allocatable.as_ref().and_then(|all| all.count) {
            let at = path.child("allocatable");
            causes.non_negative(&at.child("count"), count.into());
        }
        if !seen.insert(&driver.name) {
            causes.duplicate(&path.child("name"), &driver.name);
        }
        topology_keys(driver, &path, causes);
    }
}

/// Kubernetes tells of all of them at the driver itself.
fn topology_keys(driver: &CSINodeDriver, path: &Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        if key.is_empty() {
            causes.required(path, "");
        }
        if !seen.insert(key) {
            causes.duplicate(path, key);
        }
        causes.invalid_each(path, key, names::qualified_name(key));
    }
}

/// A driver may come and go, and does not change while it is there.
pub(super) fn csi_node_update(new: &CSINode, old: &CSINode, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("drivers");
    for before in &old.spec.drivers {
        let same = new.spec.drivers.iter().filter(|driver| driver.name == before.name);
        for driver in same.filter(|driver| *driver != before) {
            causes.invalid(&path, Json(driver), "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;

    use super::*;
    use crate::schema::{Field, Message, Shape};

    #[test]
    fn every_source_is_known() {
        let spec = Message::of_kind(Kind::PersistentVolume).field("spec").unwrap();
        let spec = spec.message().unwrap();
        let inline = spec.fields.iter().filter(|f| f.shape == Shape::Inline);
        let source = inline.filter_map(Field::message).flat_map(|m| m.fields);
        let mut expected: Vec<&str> = source.map(|f| f.name).collect();
        expected.sort_unstable();
        let mut known = sources(&PersistentVolumeSpec::default()).map(|(name, _)| name);
        known.sort_unstable();
        assert_eq!(known, *expected);
    }
}
