use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::volumes::Conflict;

/// Keeps pods where the volumes of their claims are, can be given to them, or can be made.
pub struct VolumeBinding;

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        match pod.volumes.on(node) {
            Ok(_) => Verdict::Fit,
            Err(Conflict::Affinity) => {
                Verdict::unresolvable("node(s) had volume node affinity conflict")
            }
            Err(Conflict::Binding) => {
                Verdict::unresolvable("node(s) didn't find available persistent volumes to bind")
            }
            Err(Conflict::Missing) => Verdict::unresolvable(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            ),
        }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabels, ClusterEvent::Storage]
    }
}
