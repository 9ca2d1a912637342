use std::collections::BTreeSet;

use super::resource::{Amounts, Requests, Weighted};
use crate::framework::{
    ClusterEvent, Filtering, Plugin, SCORE_MAX, Score, Scoring, Verdict, share,
};
use crate::node_info::NodeInfo;
use crate::plugin_args::{
    MOST_ALLOCATED, NodeResourcesFitArgs, REQUESTED_TO_CAPACITY_RATIO, ScoringStrategy,
};
use crate::pod_info::PodClass;

/// Rejects nodes without room (`NodeResourcesFit`) and prefers by how much would be left.
pub struct Fit {
    strategy: Strategy,
    resources: Vec<Weighted>,
    /// Extended resources of which a node needs to have none.
    ignored: BTreeSet<String>,
    /// What the names of such resources begin with, up to the slash.
    ignored_groups: BTreeSet<String>,
}

/// Which nodes with room are preferred.
enum Strategy {
    /// Those with most of it left: pods spread out.
    Least,
    /// Those with least of it left: pods fill node after node.
    Most,
    /// By a function of how much is asked for: scores 0..=100 at percentages, with straight
    /// lines between them.
    Ratio(Vec<(i64, Score)>),
}

/// The scores of a shape go up to ten.
const SHAPE_SCORE_MAX: i64 = 10;

impl Strategy {
    fn of(args: &ScoringStrategy) -> Self {
        match args.kind.as_str() {
            MOST_ALLOCATED => Self::Most,
            REQUESTED_TO_CAPACITY_RATIO => {
                let ratio = args.requested_to_capacity_ratio.as_ref();
                let points = ratio.map(|ratio| ratio.shape.as_slice()).unwrap_or_default();
                let scale = SCORE_MAX / SHAPE_SCORE_MAX;
                let point = |p: &crate::plugin_args::ShapePoint| {
                    (i64::from(p.utilization), Score::from(p.score) * scale)
                };
                Self::Ratio(points.iter().map(point).collect())
            }
            _ => Self::Least,
        }
    }

    /// What one resource of a node is worth.
    fn score(&self, amounts: Amounts) -> Score {
        let Amounts { requested, allocatable } = amounts;
        match self {
            Self::Least => {
                share(allocatable.saturating_sub(requested).max(0), SCORE_MAX, allocatable)
            }
            // Pods that ask for nothing count for something, and can sum up to more than there is.
            Self::Most => share(requested.min(allocatable), SCORE_MAX, allocatable),
            Self::Ratio(shape) => at(shape, share(requested.min(allocatable), 100, allocatable)),
        }
    }
}

/// The value of a function of straight lines; before the first point and behind the last it is
/// level.
fn at(shape: &[(i64, Score)], x: i64) -> Score {
    let Some(next) = shape.iter().position(|(at, _)| x <= *at) else {
        return shape.last().map_or(0, |(_, score)| *score);
    };
    let (x1, y1) = shape[next];
    match next.checked_sub(1).map(|before| shape[before]) {
        Some((x0, y0)) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        None => y1,
    }
}

impl Fit {
    /// Makes the plugin; the arguments must be valid.
    pub fn new(args: &NodeResourcesFitArgs) -> Self {
        Self {
            strategy: Strategy::of(&args.scoring_strategy),
            resources: Weighted::list(&args.scoring_strategy.resources),
            ignored: args.ignored_resources.iter().cloned().collect(),
            ignored_groups: args.ignored_resource_groups.iter().cloned().collect(),
        }
    }

    fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map_or(name, |(group, _)| group);
        self.ignored.contains(name) || self.ignored_groups.contains(group)
    }

    /// Calls `shortage` with name, amount wanted and amount allocatable of all that is not there.
    fn for_each_shortage(
        &self,
        pod: &PodClass,
        node: &NodeInfo,
        mut shortage: impl FnMut(&str, i64, i64),
    ) {
        let (wanted, used, all) = (&pod.load.requests, &node.requested, &node.allocatable);
        let mut check = |name: &str, wanted: i64, used: i64, all: i64| {
            if wanted > 0 && wanted > all.saturating_sub(used) {
                shortage(name, wanted, all);
            }
        };
        check("cpu", wanted.cpu.0, used.cpu.0, all.cpu.0);
        check("memory", wanted.memory.0, used.memory.0, all.memory.0);
        check(
            "ephemeral-storage",
            wanted.ephemeral_storage.0,
            used.ephemeral_storage.0,
            all.ephemeral_storage.0,
        );
        for (name, amount) in wanted.extended.iter().filter(|(name, _)| !self.ignores(name)) {
            let used = used.extended.get(name).copied().unwrap_or(0);
            let all = all.extended.get(name).copied().unwrap_or(0);
            check(name, *amount, used, all);
        }
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn filtering(&self) -> Filtering {
        Filtering::ByLoad
    }

    fn filter(&self, pod: &PodClass, node: &NodeInfo) -> Verdict {
        let mut reasons = Vec::new();
        // More than can ever be freed is no case for eviction.
        let mut resolvable = true;
        if node.pods >= node.pods_max {
            reasons.push("Too many pods".to_owned());
        }
        self.for_each_shortage(pod, node, |name, wanted, all| {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= wanted <= all;
        });
        if reasons.is_empty() { Verdict::Fit } else { Verdict::Reject { reasons, resolvable } }
    }

    fn fits(&self, pod: &PodClass, node: &NodeInfo) -> bool {
        let mut fits = node.pods < node.pods_max;
        self.for_each_shortage(pod, node, |_, _, _| fits = false);
        fits
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeAllocatable, ClusterEvent::PodGone]
    }

    fn scoring(&self) -> Scoring {
        Scoring::Alone
    }

    /// The mean of what the resources are worth, by their weights.
    ///
    /// Source: kubernetes 1.33, `pkg/scheduler/framework/plugins/noderesources`.
    fn score(&self, pod: &PodClass, node: &NodeInfo) -> Score {
        let (mut sum, mut weights) = (0, 0);
        for resource in &self.resources {
            let Some(amounts) = resource.amounts(pod, node, Requests::WithFloor) else { continue };
            let score = self.strategy.score(amounts);
            // By a function, a resource that is worth nothing does not count at all.
            if score > 0 || !matches!(self.strategy, Strategy::Ratio(_)) {
                sum += score * resource.weight;
                weights += resource.weight;
            }
        }
        match self.strategy {
            _ if weights == 0 => 0,
            // Rounded, where the others are cut off.
            Strategy::Ratio(_) => (2 * sum + weights) / (2 * weights),
            _ => sum / weights,
        }
    }
}
