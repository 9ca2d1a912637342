use crate::framework::{ClusterEvent, Filtering, Plugin, Score, Scoring, Verdict, normalize};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
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

    fn filtering(&self) -> Filtering {
        Filtering::ByProperties
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        match pod.untolerated(node) {
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

    fn scoring(&self) -> Scoring {
        Scoring::Compared
    }

    fn traits(&self, pod: &PodClass, node: &NodeInfo, out: &mut Vec<i64>) {
        let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        let disliked = soft.filter(|t| !pod.tolerates(t)).count();
        out.push(Score::try_from(disliked).unwrap_or(Score::MAX));
    }

    fn compare(&self, _: &PodClass, traits: &[&[i64]], _: &Snapshot) -> Vec<Score> {
        let mut scores: Vec<Score> = traits.iter().map(|disliked| disliked[0]).collect();
        normalize(&mut scores, true);
        scores
    }
}
