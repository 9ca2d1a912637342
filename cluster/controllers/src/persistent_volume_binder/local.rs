//! The provisioner of folders on nodes.
//!
//! A volume is an entry in the API: the kubelet of its node makes the folder when a pod first needs
//! it. When the volume shall go, the folder must go first, and only that kubelet can remove it. It
//! is told on its node, by an annotation with the name of the volume, and answers there: kubelets
//! watch their node and no volumes.

use std::collections::BTreeMap;

use api::volume::{
    BOUND_BY_CONTROLLER, LOCAL_ANNOTATION, LOCAL_PROVISIONER, LOCAL_REMOVE, LOCAL_REMOVED,
    PROVISIONED_BY, READ_WRITE_ONCE_POD, SELECTED_NODE, local_path, reference,
};
use api::{ApiObject, Key, Kind, Object, Request, meta};
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::{Cache, Plan};

use super::bind;
use crate::ownership;

/// The node on which the folder of a volume is.
const NODE: &str = "kprov.io/node";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Why there is no volume for a claim.
pub(super) enum Problem {
    /// The claim or its class asks for what folders are not.
    Unfit(String),
    /// The chosen node is no more.
    NodeGone(String),
}

/// The node of a volume of ours.
pub(super) fn node_of(volume: &PersistentVolume) -> Option<&str> {
    meta::annotation(&volume.metadata, NODE)
}

/// What is said of volumes on a node, by their names.
pub(super) fn told(node: &Node) -> BTreeMap<&str, &str> {
    let annotations = node.metadata.annotations.iter().flatten();
    annotations
        .filter_map(|(key, value)| Some((key.strip_prefix(LOCAL_ANNOTATION)?, value.as_str())))
        .collect()
}

/// The volume for a claim.
pub(super) fn volume(
    cache: &Cache,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> Result<PersistentVolume, Problem> {
    let wanted = claim.spec.clone().unwrap_or_default();
    let unfit = |why: &str| Err(Problem::Unfit(format!("{LOCAL_PROVISIONER}: {why}")));
    let Some(name) = meta::annotation(&claim.metadata, SELECTED_NODE) else {
        return unfit("storage classes must have volumeBindingMode WaitForFirstConsumer");
    };
    if wanted.selector.is_some() {
        return unfit("claim.spec.selector is not supported for dynamic provisioning");
    }
    if wanted.volume_mode.as_deref() == Some("Block") {
        return unfit("block volumes are not supported");
    }
    let once = ["ReadWriteOnce", READ_WRITE_ONCE_POD];
    if wanted.access_modes.iter().flatten().any(|mode| !once.contains(&mode.as_str())) {
        return unfit("only access modes ReadWriteOnce and ReadWriteOncePod are supported");
    }
    if wanted.data_source.is_some() || wanted.data_source_ref.is_some() {
        return unfit("data sources are not supported");
    }
    let Some(node) = cache.get::<Node>("", name) else {
        return Err(Problem::NodeGone(name.to_owned()));
    };
    let storage = wanted.resources.and_then(|r| r.requests?.remove("storage"));
    let own = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let mut made = PersistentVolume {
        spec: Some(PersistentVolumeSpec {
            access_modes: wanted.access_modes,
            capacity: storage.map(|amount| BTreeMap::from([("storage".to_owned(), amount)])),
            claim_ref: Some(reference(claim)),
            local: Some(LocalVolumeSource { path: local_path(&own), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(affinity(node, name)),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: wanted.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    };
    made.metadata.name = Some(own);
    for (key, value) in
        [(PROVISIONED_BY, LOCAL_PROVISIONER), (NODE, name), (BOUND_BY_CONTROLLER, "yes")]
    {
        bind::annotate(&mut made.metadata, key, value);
    }
    Ok(made)
}

fn affinity(node: &Node, name: &str) -> VolumeNodeAffinity {
    let host = meta::label(&node.metadata, HOSTNAME).unwrap_or(name).to_owned();
    let here = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![host]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![here]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}

/// Removes the folder and then the volume.
pub(super) fn remove(cache: &Cache, object: &Object, volume: &PersistentVolume, plan: &mut Plan) {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let node = node_of(volume).unwrap_or_default();
    let Some(found) = cache.get::<Node>("", node) else {
        if cache.revision(Kind::Node) < object.revision() {
            return plan.request(Request::ReadRevision(Kind::Node));
        }
        // The folder went with its node.
        return plan.request(ownership::delete(volume));
    };
    match told(found).get(name).copied() {
        Some(LOCAL_REMOVED) => plan.request(ownership::delete(volume)),
        Some(_) => {}
        None => {
            let mut found = found.clone();
            let key = format!("{LOCAL_ANNOTATION}{name}");
            bind::annotate(&mut found.metadata, &key, LOCAL_REMOVE);
            plan.request(Request::Update { object: found.into_object(), subresource: None });
        }
    }
}

/// Takes the answer of the kubelet away when the volume is gone.
pub(super) fn forget(cache: &Cache, volume: &Key, plan: &mut Plan) {
    for node in cache.list::<Node>() {
        if told(node).get(&*volume.name).copied() != Some(LOCAL_REMOVED) {
            continue;
        }
        let mut node = node.clone();
        if let Some(annotations) = &mut node.metadata.annotations {
            annotations.remove(&format!("{LOCAL_ANNOTATION}{}", volume.name));
        }
        plan.request(Request::Update { object: node.into_object(), subresource: None });
    }
}
