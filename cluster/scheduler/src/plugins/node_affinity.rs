use crate::framework::{ClusterEvent, Plugin, Score, Verdict, normalize};
use crate::rows::{NodeInfo, PodInfo};
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

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
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

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<Score> {
        if pod.node_preferred.is_empty() {
            return Vec::new();
        }
        let liked = |node: &&NodeInfo| {
            let terms = pod.node_preferred.iter().filter(|(_, term)| term.matches(node));
            terms.map(|(weight, _)| Score::from(*weight)).sum()
        };
        let mut scores: Vec<Score> = nodes.iter().map(liked).collect();
        normalize(&mut scores, false);
        scores
    }
}
