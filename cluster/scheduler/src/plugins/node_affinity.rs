use crate::framework::{
    ClusterEvent, Filtering, Plugin, Score, Scoring, Surroundings, Verdict, normalize,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

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
        let required = pod.node_required.as_ref();
        if pod.node_selector.matches(Some(&node.labels))
            && required.is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
        {
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

    fn traits(&self, pod: &PodClass, node: &NodeInfo, _: i64, out: &mut Vec<i64>) {
        let terms = pod.node_preferred.iter().filter(|(_, term)| term.matches(node));
        out.push(terms.map(|(weight, _)| Score::from(*weight)).sum());
    }

    fn compare(&self, pod: &PodClass, traits: &[&[i64]], _: &Surroundings) -> Vec<Score> {
        if pod.node_preferred.is_empty() {
            return Vec::new();
        }
        let mut scores: Vec<Score> = traits.iter().map(|liked| liked[0]).collect();
        normalize(&mut scores, false);
        scores
    }
}
