use crate::framework::{ClusterEvent, Plugin, Score, Verdict, normalize};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Rejects nodes with taints the pod does not tolerate, and prefers nodes with fewer
/// `PreferNoSchedule` taints that it does not tolerate.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let hard = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
        let untolerated = node.taints.iter().find(|t| hard(&t.effect) && !pod.tolerates(t));
        match untolerated {
            Some(taint) => Verdict::unresolvable(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            )),
            None => Verdict::Fit,
        }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaints]
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<Score> {
        let disliked = |node: &&NodeInfo| {
            let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
            Score::try_from(soft.filter(|t| !pod.tolerates(t)).count()).unwrap_or(Score::MAX)
        };
        let mut scores: Vec<Score> = nodes.iter().map(disliked).collect();
        normalize(&mut scores, true);
        scores
    }
}
