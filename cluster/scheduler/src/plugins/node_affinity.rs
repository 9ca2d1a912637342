use crate::framework::{ClusterEvent, Filtering, Plugin, Score, Scoring, Verdict, normalize};
use crate::node_info::NodeInfo;
use crate::plugin_args::NodeAffinityArgs;
use crate::pod_info::{NodeTerm, PodClass};
use crate::snapshot::Snapshot;

/// Honours the pod's node selector and node affinity, required and preferred, and those that the
/// profile gives to all its pods.
pub struct NodeAffinity {
    /// Any term must match; `None` if there is none.
    required: Option<Vec<NodeTerm>>,
    preferred: Vec<(i32, NodeTerm)>,
}

impl NodeAffinity {
    /// Makes the plugin; the arguments must be valid.
    pub fn new(args: &NodeAffinityArgs) -> Self {
        let added = args.added_affinity.as_ref();
        let required = added
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|selector| {
                selector.node_selector_terms.iter().filter_map(NodeTerm::parse).collect()
            });
        let preferred = added
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|term| Some((term.weight, NodeTerm::parse(&term.preference)?)))
            .collect();
        Self { required, preferred }
    }
}

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
        let any = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(node));
        if !self.required.as_ref().is_none_or(any) {
            return Verdict::unresolvable("node(s) didn't match scheduler-enforced node affinity");
        }
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
        let terms = pod.node_preferred.iter().chain(&self.preferred);
        let liked = terms.filter(|(_, term)| term.matches(node));
        out.push(liked.map(|(weight, _)| Score::from(*weight)).sum());
    }

    fn compare(&self, pod: &PodClass, traits: &[&[i64]], _: &Snapshot) -> Vec<Score> {
        if pod.node_preferred.is_empty() && self.preferred.is_empty() {
            return Vec::new();
        }
        let mut scores: Vec<Score> = traits.iter().map(|liked| liked[0]).collect();
        normalize(&mut scores, false);
        scores
    }
}
