//! Quotas, limit ranges, and where volumes come from.

use std::collections::BTreeMap;

use api::{ApiObject, Object};
use k8s_openapi::api::core::v1::{
    EphemeralVolumeSource, LimitRange, LimitRangeItem, LimitRangeSpec, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, PodTemplateSpec, ResourceQuota,
    ResourceQuotaSpec, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::named;
use crate::plan;

/// The class of all volumes.
pub(in crate::world) const CLASS: &str = "local";
/// What the volume of a pod, and the claim template of a stateful set, is called.
const VOLUME: &str = "data";

type Amounts = BTreeMap<String, String>;

fn quantities(amounts: &Amounts) -> Option<BTreeMap<String, Quantity>> {
    let amounts = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
    Some(amounts.collect::<BTreeMap<_, _>>()).filter(|amounts| !amounts.is_empty())
}

/// A resource quota.
pub(in crate::world) fn quota(quota: &plan::Quota) -> Object {
    ResourceQuota {
        metadata: named(&quota.name),
        spec: Some(ResourceQuotaSpec {
            hard: quantities(&quota.hard),
            ..ResourceQuotaSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A limit range of containers.
pub(in crate::world) fn limit_range(range: &plan::LimitRange) -> Object {
    let item = LimitRangeItem {
        type_: "Container".to_owned(),
        default: quantities(&range.default),
        default_request: quantities(&range.default_request),
        min: quantities(&range.min),
        max: quantities(&range.max),
        ..LimitRangeItem::default()
    };
    LimitRange { metadata: named(&range.name), spec: Some(LimitRangeSpec { limits: vec![item] }) }
        .into_object()
}

/// The class of folders that the cluster makes on the node of the first pod.
pub(in crate::world) fn storage_class() -> Object {
    StorageClass {
        metadata: ObjectMeta { name: Some(CLASS.to_owned()), ..ObjectMeta::default() },
        provisioner: api::volume::LOCAL_PROVISIONER.to_owned(),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
    .into_object()
}

fn claim(bytes: u64) -> PersistentVolumeClaimSpec {
    let storage = BTreeMap::from([("storage".to_owned(), Quantity(bytes.to_string()))]);
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: Some(CLASS.to_owned()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(storage),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}

/// Where the container sees its volume.
pub(super) fn mount() -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: "/data".to_owned(),
        ..VolumeMount::default()
    }
}

/// A volume that comes and goes with its pod.
pub(super) fn of_pod(bytes: u64) -> Volume {
    Volume {
        name: VOLUME.to_owned(),
        ephemeral: Some(EphemeralVolumeSource {
            volume_claim_template: Some(PersistentVolumeClaimTemplate {
                metadata: None,
                spec: claim(bytes),
            }),
        }),
        ..Volume::default()
    }
}

/// The claims that a stateful set makes for its pods.
pub(super) fn claim_templates(bytes: u64) -> Option<Vec<PersistentVolumeClaim>> {
    let template = PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(VOLUME.to_owned()), ..ObjectMeta::default() },
        spec: Some(claim(bytes)),
        status: None,
    };
    (bytes > 0).then(|| vec![template])
}

/// The pods of a stateful set have the volumes of their claims in the place of their own.
pub(in crate::world) fn with_claims(mut pods: PodTemplateSpec) -> PodTemplateSpec {
    if let Some(spec) = &mut pods.spec {
        spec.volumes = None;
    }
    pods
}
