//! How many nodes may be given up at a time: a fault that takes many nodes is more likely one of
//! the network than of the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Time, meta};
use k8s_openapi::api::core::v1::Node;
use machine::Cache;

use super::{condition, eviction_taint};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// One node in ten seconds.
const SPACING: Duration = Duration::from_secs(10);

/// One node in a hundred seconds, when most of a large zone is silent.
const SPACING_DISRUPTED: Duration = Duration::from_secs(100);

/// Above this percentage of silent nodes a zone is disrupted.
const DISRUPTED_PERCENT: usize = 55;

/// Up to this size, a disrupted zone evicts nothing.
const LARGE_ZONE: usize = 50;

/// Whether pods may be driven from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Now, or it was granted before.
    Granted,
    /// Other nodes come first; ask again after that time.
    Later(Duration),
    /// Not as long as so many nodes are silent.
    Denied,
}

/// Region and zone of a node.
pub(super) fn zone_of(node: &Node) -> (String, String) {
    let label = |key| meta::label(&node.metadata, key).unwrap_or_default().to_owned();
    (label(REGION), label(ZONE))
}

fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

fn counted(cache: &Cache) -> impl Iterator<Item = &Node> {
    let excluded = |n: &Node| meta::label(&n.metadata, EXCLUDED).is_some();
    cache.list::<Node>().filter(move |n| !excluded(n))
}

/// Whether not a single node of the cluster is ready.
pub(super) fn nobody_reports(cache: &Cache) -> bool {
    counted(cache).next().is_some() && !counted(cache).any(is_ready)
}

/// Whether pods may be driven from the node, which is not ready.
pub(super) fn may_evict(cache: &Cache, node: &Node, now: Time) -> Permission {
    let mut ready_of_zone: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for node in counted(cache) {
        let (ready, silent) = ready_of_zone.entry(zone_of(node)).or_default();
        *if is_ready(node) { ready } else { silent } += 1;
    }
    if !ready_of_zone.is_empty() && ready_of_zone.values().all(|(ready, _)| *ready == 0) {
        return Permission::Denied;
    }
    if eviction_taint(node).is_some() {
        return Permission::Granted;
    }
    let zone = zone_of(node);
    let (ready, silent) = ready_of_zone.get(&zone).copied().unwrap_or_default();
    let total = ready + silent;
    let disrupted = ready > 0 && silent > 2 && silent * 100 >= total * DISRUPTED_PERCENT;
    let spacing = match disrupted {
        false => SPACING,
        true if total > LARGE_ZONE => SPACING_DISRUPTED,
        true => return Permission::Denied,
    };
    let peers = || cache.list::<Node>().filter(|n| zone_of(n) == zone);
    let last = peers()
        .filter_map(|n| eviction_taint(n)?.time_added.as_ref())
        .map(|t| Time::from_meta(t).min(now))
        .max();
    if let Some(wait) = last.map(|t| (t + spacing).since(now)).filter(|w| !w.is_zero()) {
        return Permission::Later(wait);
    }
    // One node at a time, the one that was lost first: the others are asked again when it has
    // got its taint.
    let order = |n: &Node| {
        let lost = condition(n, "Ready").and_then(|c| c.last_transition_time.as_ref());
        (lost.map(Time::from_meta).unwrap_or_default(), n.metadata.name.clone())
    };
    let waiting = |n: &&Node| {
        condition(n, "Ready").is_some_and(|c| c.status != "True")
            && eviction_taint(n).is_none()
            && !meta::is_terminating(&n.metadata)
    };
    let first = peers().filter(waiting).map(order).min();
    if first.is_none_or(|first| first >= order(node)) {
        Permission::Granted
    } else {
        Permission::Later(spacing)
    }
}
