use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Rejects nodes that would have more volumes of a storage driver than they take.
///
/// Source: kubernetes 1.33, `nodevolumelimits/csi.go`, but for volumes that are attached without
/// a pod, and for those of cloud providers that are not described by a driver.
pub struct NodeVolumeLimits;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByLoad
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        if !pod.volumes.are_too_many(node) {
            return Verdict::Fit;
        }
        let reason = "node(s) exceed max volume count";
        Verdict::Reject { reasons: vec![reason.to_owned()], resolvable: true }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::Storage,
            ClusterEvent::VolumeLimits,
            ClusterEvent::ClaimsGone,
        ]
    }
}
