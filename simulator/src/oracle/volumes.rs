//! What the Kubernetes API documents of claims and volumes.
//!
//! Source: kubernetes.io/docs/concepts/storage: "Persistent Volumes", "Ephemeral Volumes", and
//! kubernetes.io/docs/concepts/workloads/controllers/statefulset.

use api::Pod;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};

use super::term_matches;

/// Where a claim has the node that a scheduler has chosen.
const CHOSEN: &str = "volume.kubernetes.io/selected-node";

/// The claims of a pod by name, and whether each is made for this pod alone.
pub fn claims_of(pod: &Pod) -> Vec<(String, bool)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        volume.ephemeral.as_ref()?;
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        Some((format!("{pod}-{}", volume.name), true))
    };
    volumes.filter_map(claim).collect()
}

/// The volume of a claim, if it has one.
pub fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The node that a scheduler has chosen for the first pod of the claim.
pub fn chosen_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(CHOSEN).map(String::as_str)
}

/// Whether the claim says that it has its volume.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

/// The UID of the claim that has a volume.
pub fn claim_of(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()
}

/// Whether the volume goes when its claim has gone.
pub fn goes_with_claim(volume: &PersistentVolume) -> bool {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy == Some("Delete")
}

/// Whether pods on the node can have the volume.
pub fn is_reached_from(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Whether the claim is one that the stateful set makes for its pods.
pub fn is_of_set(set: &StatefulSet, claim: &str) -> bool {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    templates.filter_map(|t| t.metadata.name.as_deref()).any(|template| {
        let rest = claim.strip_prefix(template).and_then(|rest| rest.strip_prefix('-'));
        let ordinal = rest.and_then(|rest| rest.strip_prefix(name)?.strip_prefix('-'));
        ordinal.is_some_and(|o| !o.is_empty() && o.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Whether claims stay when pods of the stateful set are scaled away.
pub fn keeps_claims(set: &StatefulSet) -> bool {
    let policy =
        set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|p| p.when_scaled.as_deref()) != Some("Delete")
}
