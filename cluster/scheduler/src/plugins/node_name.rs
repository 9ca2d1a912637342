use crate::framework::{ClusterEvent, Plugin, Verdict};
use crate::rows::{NodeInfo, PodInfo};

/// Rejects every node but the one the pod names.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if pod.node.is_empty() || pod.node == node.name {
            return Verdict::Fit;
        }
        Verdict::unresolvable("node(s) didn't match the requested node name")
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded]
    }
}
