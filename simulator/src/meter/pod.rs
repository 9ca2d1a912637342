//! What a pod's object tells the meter.

use api::Pod;

/// Where a pod is: every one is in exactly one place, or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Without a node.
    Pending,
    /// On a node, and not running yet.
    Bound,
    /// Its containers run.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

impl Place {
    pub(super) const ALL: [Self; 5] =
        [Self::Pending, Self::Bound, Self::Running, Self::Succeeded, Self::Failed];

    /// As it is called in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Bound => "bound",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    pub(super) fn of(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        match phase.unwrap_or_default() {
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ if pod.node().is_empty() => Self::Pending,
            "Running" => Self::Running,
            _ => Self::Bound,
        }
    }

    /// Whether the pod may still run.
    pub(super) const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Bound | Self::Running)
    }
}

/// Whether somebody other than its user or owner takes the pod from its node, and it is going:
/// the taint manager, the pod garbage collector and preemption mark it so before they delete it,
/// the kubelet when it fails it.
///
/// Source: kubernetes 1.33, KEP-3329, condition `DisruptionTarget`.
pub(super) fn is_evicted(pod: &Pod) -> bool {
    (pod.metadata.deletion_timestamp.is_some() || Place::of(pod) == Place::Failed)
        && is_disruption_target(pod)
}

/// Whether the pod is marked to be taken from its node.
pub(super) fn is_disruption_target(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "DisruptionTarget" && c.status == "True")
}
