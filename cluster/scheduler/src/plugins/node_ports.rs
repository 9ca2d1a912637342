use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Rejects nodes on which a host port of the pod is taken.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByLoad
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        let taken = |wanted| node.host_ports.keys().any(|port| port.conflicts(wanted));
        if pod.load.host_ports.iter().any(taken) {
            return Verdict::Reject {
                reasons: vec![
                    "node(s) didn't have free ports for the requested pod ports".to_owned(),
                ],
                resolvable: true,
            };
        }
        Verdict::Fit
    }

    fn fits(&self, pod: &PodClass, node: &NodeInfo) -> bool {
        pod.load.host_ports.is_empty() || self.filter(pod, node) == Verdict::Fit
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodGone]
    }
}
