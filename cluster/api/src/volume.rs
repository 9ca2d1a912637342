//! Persistent volumes and claims: what they say, and which of them belong together.
//!
//! Source: kubernetes 1.33, `k8s.io/component-helpers/storage/volume` and
//! `pkg/controller/volume/persistentvolume`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, ObjectReference, PersistentVolume, PersistentVolumeClaim, Volume,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::quantity::{Bytes, Quantity};
use crate::selector::Selector;
use crate::{ApiObject, meta};

/// The provisioner of this repository: folders on the nodes.
pub const LOCAL_PROVISIONER: &str = "kprov.io/local";
/// The folder of a node in which the folders of provisioned volumes are.
pub const LOCAL_FOLDER: &str = "/var/lib/kprov-volumes";
/// What a node's annotation about a provisioned volume starts with; the volume's name follows.
pub const LOCAL_ANNOTATION: &str = "local-volume.kprov.io/";
/// The value of that annotation when the folder shall go.
pub const LOCAL_REMOVE: &str = "remove";
/// The value of that annotation when the folder is gone.
pub const LOCAL_REMOVED: &str = "removed";

/// Which class a claim or volume is of, before there was a field for it.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The binding of a claim is complete on both sides.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binder chose the partner; nobody else did.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who shall make a volume for a claim.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// As [`PROVISIONER`], as older provisioners read it.
pub const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node that the scheduler chose for the first pod of a claim.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Keeps a volume that is bound.
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
/// Keeps a claim that a pod uses.
pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";

/// The mode that only one pod at a time may use.
pub const READ_WRITE_ONCE_POD: &str = "ReadWriteOncePod";

/// Where the folder of a volume of [`LOCAL_PROVISIONER`] is.
pub fn local_path(volume: &str) -> String {
    format!("{LOCAL_FOLDER}/{volume}")
}

/// The class of a claim: `None` when it names none, empty when it wants none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    meta::annotation(&claim.metadata, CLASS_ANNOTATION)
        .or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The class of a volume, empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    meta::annotation(&volume.metadata, CLASS_ANNOTATION)
        .or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// Whether claims that name no class get this one.
pub fn is_default_class(class: &ObjectMeta) -> bool {
    let says = |key| meta::annotation(class, key) == Some("true");
    says(DEFAULT_CLASS) || says(DEFAULT_CLASS_BETA)
}

/// The default class: of several, the newest, then the first by name.
pub fn default_class<'a>(
    classes: impl Iterator<Item = &'a StorageClass>,
) -> Option<&'a StorageClass> {
    let age = |class: &StorageClass| {
        (std::cmp::Reverse(meta::created_at(&class.metadata)), class.metadata.name.clone())
    };
    classes.filter(|class| is_default_class(&class.metadata)).min_by_key(|class| age(class))
}

/// Whether volumes of the class are made or bound when a pod needs them, and not before.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The storage that a list of resources names; zero if it names none.
pub fn storage(list: Option<&BTreeMap<String, Text>>) -> Bytes {
    let amount = list.and_then(|list| Quantity::parse(&list.get("storage")?.0).ok());
    amount.map(Quantity::bytes).unwrap_or_default()
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Bytes {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    storage(resources.and_then(|r| r.requests.as_ref()))
}

/// How large a volume is.
pub fn capacity(volume: &PersistentVolume) -> Bytes {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// The phase of a volume, empty when it has none yet.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The phase of a claim, empty when it has none yet.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The volume that the claim names, empty for none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// The claim that a volume names.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The UID in a reference, empty for none.
pub fn uid_of(reference: &ObjectReference) -> &str {
    reference.uid.as_deref().unwrap_or_default()
}

/// The reference by which a volume names its claim.
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some(PersistentVolumeClaim::KIND.api_version().to_owned()),
        kind: Some(PersistentVolumeClaim::KIND.name().to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Whether the claim is bound to the volume that it names, on its side.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && meta::annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// Whether the volume names this claim: by UID, or before that is known by name.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = claim_ref(volume) else { return false };
    let uid = uid_of(reference);
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

/// Whether one is a block device and the other a file system.
pub fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |mode: Option<&String>| mode.map_or("Filesystem", String::as_str).to_owned();
    mode(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
        != mode(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

/// The access modes of a volume.
pub fn access_modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default()
}

/// Whether the volume can be accessed in all ways that the claim asks for.
pub fn serves_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| access_modes(volume).contains(mode))
}

/// Whether the volume can be had on a node with these labels.
pub fn fits_node(volume: &PersistentVolume, labels: Option<&BTreeMap<String, String>>) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity
        .and_then(|a| a.required.as_ref())
        .is_none_or(|wanted| wanted.node_selector_terms.iter().any(|term| matches(term, labels)))
}

/// Whether labels match a term; an empty one matches nothing, as do fields, which are not known.
fn matches(term: &NodeSelectorTerm, labels: Option<&BTreeMap<String, String>>) -> bool {
    if term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty()) {
        return false;
    }
    let Some(expressions) = term.match_expressions.as_ref().filter(|e| !e.is_empty()) else {
        return false;
    };
    let mut selector = Selector::default();
    expressions.iter().all(|e| {
        let values = e.values.as_deref().unwrap_or_default();
        selector.require(&e.key, &e.operator, values).is_ok()
    }) && selector.matches(labels)
}

/// The volumes that serve the claim, best first: of those that are free, those of the fewest access
/// modes, then the smallest, then by name. One that names the claim already is the only one.
///
/// `reserved` asks for no other than that one: the claim waits for a pod. `taken` tells of volumes
/// that were given away and do not show it yet.
pub fn candidates<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
    reserved: bool,
    taken: &dyn Fn(&str) -> bool,
) -> Vec<&'a PersistentVolume> {
    let wants = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = wants.map_or_else(Selector::default, |selector| {
        Selector::of_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
    });
    let size = requested(claim);
    let class = class_of_claim(claim).unwrap_or_default();
    let mut found: Vec<(usize, Bytes, &str, &'a PersistentVolume)> = Vec::new();
    for volume in volumes {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let bound = is_bound_to(volume, claim);
        if taken(name)
            || (claim_ref(volume).is_some() && !bound)
            || capacity(volume) < size
            || modes_differ(volume, claim)
            || meta::is_terminating(&volume.metadata)
            || !serves_modes(volume, claim)
        {
            continue;
        }
        if bound {
            return vec![volume];
        }
        if !reserved
            && volume_phase(volume) == "Available"
            && selector.matches(volume.metadata.labels.as_ref())
            && class_of_volume(volume) == class
        {
            found.push((access_modes(volume).len(), capacity(volume), name, volume));
        }
    }
    found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    found.into_iter().map(|(.., volume)| volume).collect()
}

/// The claim of a pod's volume: the one that it names, or the pod's own of a generic ephemeral
/// volume. `None` for volumes of other kinds.
pub fn claim_of(volume: &Volume, pod: &str) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral_claim(pod, &volume.name)),
        (None, None) => None,
    }
}

/// The name of the claim of a generic ephemeral volume.
pub fn ephemeral_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata":
            {"name": "c", "namespace": "n", "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}}}}))
        .unwrap();
        let more: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let (into, from) = (claim.spec.as_mut().unwrap(), more.spec.unwrap());
        into.storage_class_name = from.storage_class_name;
        into.selector = from.selector;
        into.volume_mode = from.volume_mode;
        claim
    }

    fn volume(name: &str, size: &str, change: &[(&str, Value)]) -> PersistentVolume {
        let mut value = json!({"metadata": {"name": name},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Available"}});
        for (pointer, new) in change {
            let mut at = &mut value;
            for part in pointer.split('/') {
                at = &mut at[part];
            }
            *at = new.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_smallest_that_serves_is_taken() {
        let volumes = [
            volume("small", "4Gi", &[]),
            volume(
                "wide",
                "5Gi",
                &[("spec/accessModes", json!(["ReadWriteOnce", "ReadOnlyMany"]))],
            ),
            volume("b", "8Gi", &[]),
            volume("a", "8Gi", &[]),
            volume("large", "9Gi", &[]),
        ];
        let best = |claim: &PersistentVolumeClaim, gone: &str| {
            let taken = |name: &str| name == gone;
            let found = candidates(claim, volumes.iter(), false, &taken);
            found.first().and_then(|v| v.metadata.name.clone())
        };
        assert_eq!(best(&claim(json!({})), "").as_deref(), Some("a"));
        assert_eq!(best(&claim(json!({})), "a").as_deref(), Some("b"));
        assert_eq!(best(&claim(json!({"storageClassName": "fast"})), ""), None);
        assert_eq!(best(&claim(json!({"volumeMode": "Block"})), ""), None);
        let labelled = json!({"selector": {"matchLabels": {"disk": "ssd"}}});
        assert_eq!(best(&claim(labelled), ""), None);
    }

    #[test]
    fn what_is_reserved_goes_to_whom_it_is_reserved_for() {
        let reserved = |uid: Option<&str>| {
            let mut reference = json!({"name": "c", "namespace": "n"});
            if let Some(uid) = uid {
                reference["uid"] = uid.into();
            }
            [
                volume("a", "5Gi", &[]),
                volume(
                    "mine",
                    "9Gi",
                    &[("spec/claimRef", reference), ("status/phase", json!("Pending"))],
                ),
            ]
        };
        let best = |volumes: &[PersistentVolume], reserved: bool| {
            let found = candidates(&claim(json!({})), volumes.iter(), reserved, &|_| false);
            found.iter().filter_map(|v| v.metadata.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(best(&reserved(None), false), ["mine"]);
        assert_eq!(best(&reserved(Some("u")), true), ["mine"]);
        assert_eq!(best(&reserved(Some("x")), false), ["a"]);
        assert_eq!(best(&reserved(Some("x")), true), [""; 0]);
    }

    #[test]
    fn volumes_of_other_nodes_do_not_serve() {
        let on = |host: &str| {
            let terms = json!([{"matchExpressions":
                [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]);
            volume(
                host,
                "5Gi",
                &[(
                    "spec/nodeAffinity",
                    json!({"required":
                {"nodeSelectorTerms": terms}}),
                )],
            )
        };
        let labels =
            |host: &str| BTreeMap::from([("kubernetes.io/hostname".to_owned(), host.to_owned())]);
        assert!(fits_node(&on("a"), Some(&labels("a"))));
        assert!(!fits_node(&on("a"), Some(&labels("b"))));
        assert!(!fits_node(&on("a"), None) && fits_node(&volume("x", "1", &[]), None));
    }

    #[test]
    fn the_newest_default_class_is_the_default() {
        let class = |name: &str, created: &str, default: &str| -> StorageClass {
            serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created,
                "annotations": {DEFAULT_CLASS: default}}, "provisioner": "p"}))
            .unwrap()
        };
        let classes = [
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("new", "2026-01-03T00:00:00Z", "false"),
        ];
        let found = default_class(classes.iter()).and_then(|c| c.metadata.name.clone());
        assert_eq!(found.as_deref(), Some("a"));
        assert_eq!(default_class(classes[3..].iter()), None);
    }
}
