use crate::framework::{ClusterEvent, Filtering, Plugin, Score, Scoring, Verdict, normalize};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::snapshot::Snapshot;

/// Honours the pod's node selector and node affinity, required and preferred.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        if pod.allows(node) {
            return Verdict::Fit;
        }
        Verdict::unresolvable("node(s) didn't match Pod's node affinity/selector")
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabels]
    }

    fn scoring(&self) -> Scoring {
        Scoring::Compared
    }

    fn traits(&self, pod: &PodClass, node: &NodeInfo, out: &mut Vec<i64>) {
        let terms = pod.node_preferred.iter().filter(|(_, term)| term.matches(node));
        out.push(terms.map(|(weight, _)| Score::from(*weight)).sum());
    }

    fn compare(&self, pod: &PodClass, traits: &[&[i64]], _: &Snapshot) -> Vec<Score> {
        if pod.node_preferred.is_empty() {
            return Vec::new();
        }
        let mut scores: Vec<Score> = traits.iter().map(|liked| liked[0]).collect();
        normalize(&mut scores, false);
        scores
    }
}
