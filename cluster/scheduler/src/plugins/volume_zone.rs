use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Keeps pods in the zones of the volumes that their claims are bound to.
pub struct VolumeZone;

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        if pod.volumes.is_in_zone(node) {
            return Verdict::Fit;
        }
        Verdict::unresolvable("node(s) had no available volume zone")
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabels, ClusterEvent::Storage]
    }
}
