//! Which changes of objects may help pods that wait, and which are none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::relations::{Constraint, Identity, Kin, Presence, Term};
use crate::snapshot::Snapshot;

/// What pods may ask of a node in all.
pub(super) fn allocatable(node: &Node) -> Option<&BTreeMap<String, Quantity>> {
    node.status.as_ref()?.allocatable.as_ref()
}

/// A node's taints, and whether it is cordoned.
pub(super) fn taints(node: &Node) -> (Option<&Vec<Taint>>, Option<bool>) {
    node.spec.as_ref().map(|s| (s.taints.as_ref(), s.unschedulable)).unwrap_or_default()
}

/// How many volumes of each driver a node takes. Those of a driver that does not say are without
/// limit.
pub(super) fn limits(node: &CSINode) -> BTreeMap<String, usize> {
    let limit = |driver: &CSINodeDriver| {
        let count = driver.allocatable.as_ref()?.count?;
        Some((driver.name.clone(), usize::try_from(count).unwrap_or(0)))
    };
    node.spec.drivers.iter().filter_map(limit).collect()
}

/// Whether an unschedulable pod asks the same question as before: a change of its status alone
/// is no reason to try it again.
pub(super) fn same_question(a: &PodInfo, b: &PodInfo) -> bool {
    a.uid == b.uid
        && a.class.load.requests == b.class.load.requests
        && a.gated == b.gated
        && a.priority == b.priority
        && a.class.tolerations == b.class.tolerations
        && a.class.node_selector == b.class.node_selector
        && a.class.node_required == b.class.node_required
        && a.class.node_preferred == b.class.node_preferred
        && a.kin.id == b.kin.id
}

/// Whether a pod that came to a node, or left one, may be what a pod waits for.
pub(super) fn may_help(
    kin: &Kin,
    peer: &Presence,
    came: bool,
    snapshot: &Snapshot,
    profile: &Profile,
) -> bool {
    let group = |identity: &Identity| identity.group.as_ref().map(|group| group.name.clone());
    if came && group(&kin.identity).is_some_and(|own| group(&peer.identity) == Some(own)) {
        return true;
    }
    let namespaces = &snapshot.census().namespaces;
    let own = kin.terms.as_ref();
    let wanted = own.map(|terms| terms.affinity.as_slice()).unwrap_or_default();
    let is_wanted =
        || !wanted.is_empty() && wanted.iter().all(|t| t.matches(&peer.identity, namespaces));
    // Where the last one leaves that others wanted to be with, one may be the first again.
    if is_wanted() && (came || kin.likes_itself(namespaces)) {
        return true;
    }
    let unwanted = own.map(|terms| terms.anti_affinity.as_slice()).unwrap_or_default();
    let others = peer.terms.as_ref().map(|terms| terms.anti_affinity.as_slice());
    let in_the_way = || {
        unwanted.iter().any(|term| term.matches(&peer.identity, namespaces))
            || others.into_iter().flatten().any(|term| term.matches(&kin.identity, namespaces))
    };
    if !came && in_the_way() {
        return true;
    }
    // Domains become more alike by a pod in the emptiest as by one less in the fullest.
    let counts = |c: &Constraint| c.hard && c.counts(&peer.identity, &kin.identity.namespace);
    let defaults = profile.relating.defaults();
    if kin.constraints.is_empty() {
        return defaults.iter().any(|constraint| constraint.hard)
            && snapshot.census().constraints(kin, defaults).iter().any(counts);
    }
    kin.constraints.iter().any(counts)
}

/// Whether other labels of a namespace may be what a pod waits for.
pub(super) fn looks_at_namespace(kin: &Kin, namespace: &str) -> bool {
    // Terms of others may mean the pod by its namespace, its own any other.
    kin.identity.namespace == namespace
        || kin.terms.iter().flat_map(|terms| terms.all()).any(Term::by_namespace_labels)
}
