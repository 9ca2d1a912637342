use super::resource::{Amounts, Requests, Weighted};
use crate::framework::{Plugin, SCORE_MAX, Score, Scoring};
use crate::node_info::NodeInfo;
use crate::plugin_args::NodeResourcesBalancedAllocationArgs;
use crate::pod_info::PodClass;

/// Prefers nodes on which resources, CPU and memory if no others are named, would be used to the
/// same degree (`NodeResourcesBalancedAllocation`).
///
/// It reckons with 64-bit floating-point numbers in the order in which Kubernetes does, so that
/// scores at the edge of a whole number are the same. Each of these operations is rounded exactly
/// (IEEE 754), by every machine alike.
///
/// Source: kubernetes 1.33, `balancedResourceScorer` in `plugins/noderesources`.
pub struct BalancedAllocation {
    resources: Vec<Weighted>,
}

impl BalancedAllocation {
    /// Makes the plugin; the arguments must be valid.
    pub fn new(args: &NodeResourcesBalancedAllocationArgs) -> Self {
        Self { resources: Weighted::list(&args.resources) }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn scoring(&self) -> Scoring {
        Scoring::Alone
    }

    fn score(&self, pod: &PodClass, node: &NodeInfo) -> Score {
        let wanted = Requests::AsMade.of_pod(&pod.load);
        // A pod that asks for nothing cannot unbalance a node.
        if self.resources.iter().all(|resource| resource.of(wanted) == 0) {
            return 0;
        }
        let used = || {
            let amounts = |r: &Weighted| r.amounts(pod, node, Requests::AsMade);
            self.resources.iter().filter_map(amounts).map(fraction)
        };
        let deviation = match (used().count(), used().next(), used().nth(1)) {
            // With two resources the standard deviation is half their distance.
            (2, Some(one), Some(other)) => ((one - other) / 2.0).abs(),
            (0 | 1, ..) => 0.0,
            (count, ..) => standard_deviation(count, used),
        };
        scored(deviation)
    }
}

/// How much of a resource would be used, up to all of it.
#[expect(clippy::cast_precision_loss, reason = "Kubernetes reckons so, too")]
fn fraction(amounts: Amounts) -> f64 {
    (amounts.requested as f64 / amounts.allocatable as f64).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "there are few resources")]
fn standard_deviation<I: Iterator<Item = f64>>(count: usize, used: impl Fn() -> I) -> f64 {
    // Added up in order, from zero on: a sum in another order can differ in its last bit.
    let mean = used().fold(0.0, |sum, used| sum + used) / count as f64;
    let squares = used().fold(0.0, |sum, used| sum + (used - mean) * (used - mean));
    (squares / count as f64).sqrt()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "0..=100")]
fn scored(deviation: f64) -> Score {
    ((1.0 - deviation) * SCORE_MAX as f64) as Score
}
