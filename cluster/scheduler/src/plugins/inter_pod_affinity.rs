use crate::framework::{
    Attraction, ClusterEvent, Filtering, Plugin, Relating, SCORE_MAX, Score, Scoring, Verdict,
};
use crate::node_info::NodeInfo;
use crate::plugin_args::InterPodAffinityArgs;
use crate::survey::{Refusal, Survey};

/// Honours affinity and anti-affinity to other pods, required and preferred, of the pod and of
/// those that are there.
///
/// Source: kubernetes 1.33, `plugins/interpodaffinity`.
pub struct InterPodAffinity {
    /// What a required term of affinity of a pod that is there weighs for a new one, which is not
    /// bound by it.
    pub hard_weight: i64,
    /// Whether preferences of pods that are there do not count for a new one that has none.
    pub ignores_existing: bool,
}

impl InterPodAffinity {
    /// Makes the plugin; the arguments must be valid.
    pub fn new(args: &InterPodAffinityArgs) -> Self {
        Self {
            hard_weight: i64::from(args.hard_pod_affinity_weight),
            ignores_existing: args.ignore_preferred_terms_of_existing_pods,
        }
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByPods
    }

    fn filter_among(&self, survey: &Survey, node: &NodeInfo) -> Verdict {
        survey.affinity(node).map_or(Verdict::Fit, Refusal::verdict)
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::NodeGone,
            ClusterEvent::NodeLabels,
            ClusterEvent::PeerCame,
            ClusterEvent::PeerLeft,
            ClusterEvent::NamespaceLabels,
        ]
    }

    fn scoring(&self) -> Scoring {
        Scoring::ByPods
    }

    fn score_among(&self, survey: &Survey, nodes: &[u32]) -> Vec<Score> {
        survey.affinity_scores(nodes)
    }

    fn relate(&self, weight: i64, filters: bool, relating: &mut Relating) {
        let Self { hard_weight, ignores_existing } = *self;
        relating.affinity = Some(Attraction { hard_weight, ignores_existing, filters, weight });
    }
}

/// Scores by how much each node is liked: 0 for the least, 100 for the most.
#[expect(clippy::cast_possible_truncation, reason = "the result is at most 100")]
pub(crate) fn scaled(liked: &[i64]) -> Vec<Score> {
    let least = liked.iter().copied().min().unwrap_or(0);
    let range = liked.iter().copied().max().unwrap_or(0) - least;
    let score = |liked: i64| {
        if range == 0 {
            return 0;
        }
        (SCORE_MAX as f64 * ((liked - least) as f64 / range as f64)) as i64
    };
    liked.iter().map(|liked| score(*liked)).collect()
}
