use std::collections::BTreeMap;

use crate::framework::{
    ClusterEvent, Filtering, Plugin, Relating, SCORE_MAX, Score, Scoring, Spreading, Verdict,
};
use crate::node_info::NodeInfo;
use crate::plugin_args::{PodTopologySpreadArgs, SYSTEM_DEFAULTING};
use crate::relations::Constraint;
use crate::survey::{Refusal, Survey};

/// Keeps the numbers of pods that a spread constraint counts alike in all domains: rejects nodes
/// where they would differ too much, or prefers nodes of domains with few.
///
/// Source: kubernetes 1.33, `plugins/podtopologyspread`.
pub struct TopologySpread {
    /// The constraints of pods that have none; their selectors come from services and controllers.
    pub defaults: Vec<Constraint>,
    /// Whether the defaults are the system's: nodes without a zone are spread over, too.
    pub of_system: bool,
}

impl TopologySpread {
    /// Makes the plugin; the arguments must be valid.
    pub fn new(args: &PodTopologySpreadArgs) -> Self {
        if args.defaulting_type == SYSTEM_DEFAULTING {
            return Self { defaults: Constraint::of_system(), of_system: true };
        }
        let parse = |given| Constraint::parse(given, &BTreeMap::new());
        Self { defaults: args.default_constraints.iter().map(parse).collect(), of_system: false }
    }
}

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByPods
    }

    fn filter_among(&self, survey: &Survey, node: &NodeInfo) -> Verdict {
        survey.spread(node).map_or(Verdict::Fit, Refusal::verdict)
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::NodeGone,
            ClusterEvent::NodeLabels,
            ClusterEvent::NodeTaints,
            ClusterEvent::PeerCame,
            ClusterEvent::PeerLeft,
            ClusterEvent::Selectors,
        ]
    }

    fn scoring(&self) -> Scoring {
        Scoring::ByPods
    }

    fn score_among(&self, survey: &Survey, nodes: &[u32]) -> Vec<Score> {
        survey.spread_scores(nodes)
    }

    fn relate(&self, weight: i64, filters: bool, relating: &mut Relating) {
        let (defaults, lacking_allowed) = (self.defaults.clone(), self.of_system);
        relating.spread = Some(Spreading { defaults, lacking_allowed, filters, weight });
    }
}

/// What one pod in a domain weighs, by how many domains there are: the more, the fewer pods each
/// has, and the more a difference tells.
///
/// The logarithm is computed in software: its last bit may differ from one machine's to the next.
pub(crate) fn weight_of(domains: usize) -> f64 {
    libm::log(f64::from(u32::try_from(domains + 2).unwrap_or(u32::MAX)))
}

/// What so many pods in a domain weigh against its nodes; differences within the skew that is
/// allowed weigh less beside what is added.
pub(crate) fn of_count(pods: i64, weight: f64, max_skew: i64) -> f64 {
    pods as f64 * weight + (max_skew - 1) as f64
}

/// Scores by the weight of the pods around each node; `None` for nodes that lack a key.
pub(crate) fn spread_scores(weights: &[Option<f64>]) -> Vec<Score> {
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let rounded = |weight: f64| weight.round() as i64;
    let all: Vec<Option<i64>> = weights.iter().map(|weight| weight.map(rounded)).collect();
    let (least, most) =
        all.iter().flatten().fold((i64::MAX, 0), |(lo, hi), w| (lo.min(*w), hi.max(*w)));
    let score = |weight: Option<i64>| match weight {
        None => 0,
        Some(_) if most == 0 => SCORE_MAX,
        Some(weight) => SCORE_MAX * (most + least - weight) / most,
    };
    all.into_iter().map(score).collect()
}
