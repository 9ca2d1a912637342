use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Rejects every node but the one the pod names.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        if pod.node.is_empty() || pod.node == node.name {
            return Verdict::Fit;
        }
        Verdict::unresolvable("node(s) didn't match the requested node name")
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded]
    }
}
