use k8s_openapi::api::core::v1::Taint;

use crate::framework::{ClusterEvent, Filtering, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Rejects cordoned nodes, unless the pod tolerates the taint that cordoning sets.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        let taint = || Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if node.unschedulable && !pod.tolerates(&taint()) {
            return Verdict::unresolvable("node(s) were unschedulable");
        }
        Verdict::Fit
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaints]
    }
}
