use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Lets no two pods use a claim that only one may use, wherever they are, nor a disk on one node
/// that does not bear it.
pub struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByLoad
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        let in_use = |disk| node.disks.keys().any(|other| other.conflicts(disk));
        let reason = if pod.load.disks.iter().any(in_use) {
            "node(s) had no available disk"
        } else if pod.volumes.are_in_use(node) {
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
             access mode"
        } else {
            return Verdict::Fit;
        };
        Verdict::Reject { reasons: vec![reason.to_owned()], resolvable: true }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodGone, ClusterEvent::Storage]
    }
}
