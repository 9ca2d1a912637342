//! What the Kubernetes API documents of daemon sets, stateful sets, jobs and budgets.
//!
//! Source: kubernetes.io/docs/concepts/workloads: "DaemonSet", "StatefulSets", "Jobs",
//! "Disruptions", and kubernetes.io/docs/tasks/run-application/configure-pdb.

use std::collections::BTreeSet;

use api::{Pod, Time};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels_allow, tolerates};

/// The field by which a daemon is tied to its node.
const NODE_NAME: &str = "metadata.name";
/// The finalizer of a pod whose end is not counted yet.
const TRACKED: &str = "batch.kubernetes.io/job-tracking";
/// Where a pod of an indexed job says which one it is.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What daemons tolerate whatever their template says.
const DAEMONS_TOLERATE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// A number of pods, or a share of them, rounded up.
pub fn share(value: &IntOrString, of: i64) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            (percent * of + 99) / 100
        }
    }
}

// --- daemon sets ---------------------------------------------------------------------------

/// The node that a daemon is on, or is tied to.
pub fn place_of_daemon(pod: &Pod) -> Option<&str> {
    if let Some(node) = super::node_of(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut ties = fields.filter(|f| f.key == NODE_NAME && f.operator == "In");
    ties.next()?.values.as_deref()?.first().map(String::as_str)
}

/// Whether a node shall get a pod of the daemon set, and whether one that it has may stay.
pub fn daemon_fits(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let Some(spec) = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()) else {
        return (false, false);
    };
    if labels_allow(spec, node).is_err() {
        return (false, false);
    }
    let always = |taint: &Taint| {
        DAEMONS_TOLERATE.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    let own: &[Toleration] = spec.tolerations.as_deref().unwrap_or_default();
    let suffers = |t: &&Taint| !always(t) && !own.iter().any(|toleration| tolerates(toleration, t));
    let taints = || node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(suffers);
    let stays = !taints().any(|t| t.effect == "NoExecute");
    (stays && !taints().any(|t| t.effect == "NoSchedule"), stays)
}

/// How many pods of a daemon set may be beside those that they replace, and how many nodes may be
/// without one, while it rolls over so many nodes.
pub fn daemon_bounds(set: &DaemonSet, nodes: i64) -> (i64, i64) {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()).is_some_and(|t| t != "RollingUpdate") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |v| share(v, nodes));
    let missing = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |v| share(v, nodes));
    (surge, missing)
}

// --- stateful sets -------------------------------------------------------------------------

/// The ordinal of a pod of the stateful set.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let prefix = set.metadata.name.as_deref()?;
    let rest = pod.metadata.name.as_deref()?.strip_prefix(prefix)?.strip_prefix('-')?;
    rest.parse().ok()
}

/// The ordinals that shall have a pod: the first, and the one after the last.
pub fn ordinals(set: &StatefulSet) -> (i64, i64) {
    let Some(spec) = &set.spec else { return (0, 0) };
    let first = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let first = i64::from(first);
    (first, first + i64::from(spec.replicas.unwrap_or(1)))
}

/// The first ordinal that rollouts replace.
pub fn partition(set: &StatefulSet) -> i64 {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    rolling.and_then(|r| r.partition).unwrap_or(0).into()
}

/// Whether pods wait for each other.
pub fn is_ordered(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
    policy != Some("Parallel")
}

// --- jobs ----------------------------------------------------------------------------------

/// Whether the end of a pod of a job is still to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKED)
}

/// The index that a pod of a job is to complete.
pub fn completion_index(pod: &Pod) -> Option<i64> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// The indexes in a list such as `1,3-5`.
pub fn indexes(text: &str) -> BTreeSet<i64> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            indexes.extend(first..=last);
        }
    }
    indexes
}

/// The condition by which the job has ended, `Complete` or `Failed`, with its reason.
pub fn end_of(job: &Job) -> Option<(&str, &str)> {
    let mut conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let end = conditions
        .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some((&end.type_, end.reason.as_deref().unwrap_or_default()))
}

// --- budgets -------------------------------------------------------------------------------

/// How long an evicted pod is believed to be about to go.
pub const EVICTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Whether an eviction that was granted at a time still counts.
pub fn is_still_believed(granted: Time, now: Time) -> bool {
    now.since(granted) < EVICTION_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_indexes_are_read() {
        assert_eq!(indexes("1,3-5,7").into_iter().collect::<Vec<_>>(), [1, 3, 4, 5, 7]);
        assert_eq!(indexes(""), BTreeSet::new());
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!(share(&IntOrString::Int(3), 10), 3);
        assert_eq!(share(&IntOrString::String("34%".to_owned()), 10), 4);
        assert_eq!(share(&IntOrString::String("0%".to_owned()), 10), 0);
    }
}
