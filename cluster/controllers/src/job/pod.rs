//! Questions about a pod of a job.

use std::cmp::Reverse;
use std::time::Duration;

use api::{Pod, Time, meta};
use k8s_openapi::api::core::v1::ContainerStatus;

use crate::pods;

/// The finalizer that keeps a pod until its end is counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and label that hold the completion index.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation that holds how often the index has failed.
pub(super) const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same, of the failures that the policy ignores.
pub(super) const IGNORED_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether the pod is kept until it is counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// The pod without the finalizer.
pub(super) fn untracked(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(finalizers) = &mut pod.metadata.finalizers {
        finalizers.retain(|f| f != TRACKING);
        if finalizers.is_empty() {
            pod.metadata.finalizers = None;
        }
    }
    pod
}

/// The pod with the finalizer.
pub(super) fn tracked(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    pod
}

/// The UID, empty if it was never stored.
pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the pod is being deleted and has not ended yet.
pub(super) fn is_ending(pod: &Pod) -> bool {
    meta::is_terminating(&pod.metadata) && !pods::is_terminal(pod)
}

/// The completion index that the pod works on.
pub(super) fn completion_index(pod: &Pod) -> Option<i32> {
    let text = meta::annotation(&pod.metadata, COMPLETION_INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// How often the index had failed before this pod: by failures that count, and that do not.
pub(super) fn failures_before(pod: &Pod) -> (i32, i32) {
    let number = |key: &str| {
        let text = meta::annotation(&pod.metadata, key);
        text.and_then(|t| t.parse().ok()).filter(|n| *n >= 0).unwrap_or(0)
    };
    (number(FAILURE_COUNT), number(IGNORED_COUNT))
}

/// How often containers of a pod that has not ended were restarted.
pub(super) fn restarts(pod: &Pod) -> i64 {
    if !matches!(pods::phase(pod), "Running" | "Pending") {
        return 0;
    }
    let Some(status) = &pod.status else { return 0 };
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().map(|c| i64::from(c.restart_count)).sum()
}

/// When the pod ended: by its containers, else since when it is not ready, else when it was
/// deleted.
///
/// Source: kubernetes 1.33, `pkg/controller/job/backoff_utils.go`, `getFinishedTime`.
pub(super) fn finish_time(pod: &Pod) -> Time {
    if let Some(time) = containers_end(pod) {
        return time;
    }
    let unready = pods::condition(pod, "Ready").filter(|c| c.status == "False");
    if let Some(time) = unready.and_then(|c| c.last_transition_time.as_ref()) {
        return Time::from_meta(time);
    }
    if let Some(time) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let grace = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        return Time(Time::from_meta(time).0.saturating_sub(grace));
    }
    meta::created_at(&pod.metadata)
}

/// When the last container ended; `None` unless all have.
fn containers_end(pod: &Pod) -> Option<Time> {
    let status = pod.status.as_ref()?;
    let end = |c: &ContainerStatus| {
        let ended = c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?;
        Some(Time::from_meta(ended))
    };
    // Init containers that go on beside the others end after them.
    let init = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let sidecar = |c: &&ContainerStatus| {
        init.iter().any(|i| i.name == c.name && i.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(sidecar);
    let mut latest = None;
    for container in status.container_statuses.iter().flatten().chain(sidecars) {
        latest = latest.max(Some(end(container)?));
    }
    latest
}

/// The order in which surplus pods go: those first that have come least far. One that is not
/// tracked any more was chosen before.
///
/// Source: kubernetes 1.33, `pkg/controller/controller_utils.go`, `ActivePods`.
pub(super) fn removal_order(pod: &Pod) -> impl Ord {
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let restarts = containers.into_iter().flatten().map(|c| c.restart_count).max();
    let phase = match pods::phase(pod) {
        "Running" => 2_u8,
        "Unknown" => 1,
        _ => 0,
    };
    let ready = pods::ready_since(pod);
    (
        (is_tracked(pod), !pod.node().is_empty(), phase, ready.is_some()),
        (Reverse(ready), Reverse(restarts.unwrap_or(0))),
        (Reverse(meta::created_at(&pod.metadata)), pod.metadata.name.clone()),
    )
}
