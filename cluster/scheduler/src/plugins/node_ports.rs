use crate::framework::{ClusterEvent, Plugin, Verdict};
use crate::rows::{NodeInfo, PodInfo};

/// Rejects nodes on which a host port of the pod is taken.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let taken = |wanted| node.host_ports.iter().any(|(port, _)| port.conflicts(wanted));
        if pod.host_ports.iter().any(taken) {
            return Verdict::Reject {
                reasons: vec![
                    "node(s) didn't have free ports for the requested pod ports".to_owned(),
                ],
                resolvable: true,
            };
        }
        Verdict::Fit
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodGone]
    }
}
