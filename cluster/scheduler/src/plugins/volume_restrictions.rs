use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Lets no two pods use a claim that only one may use.
pub struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, _node: &NodeInfo) -> Verdict {
        if !pod.volumes.is_taken() {
            return Verdict::Fit;
        }
        let reason = "node has pod using PersistentVolumeClaim with the same name and \
                      ReadWriteOncePod access mode";
        Verdict::Reject { reasons: vec![reason.to_owned()], resolvable: true }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::PodGone, ClusterEvent::Storage]
    }
}
