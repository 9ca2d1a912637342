use super::resource::{Requests, Weighted};
use crate::framework::{Plugin, SCORE_MAX, Score, Scoring, share};
use crate::node_info::NodeInfo;
use crate::plugin_args::NodeResourcesBalancedAllocationArgs;
use crate::pod_info::PodClass;

/// Prefers nodes on which resources, CPU and memory if no others are named, would be used to the
/// same degree (`NodeResourcesBalancedAllocation`).
pub struct BalancedAllocation {
    resources: Vec<Weighted>,
}

/// Shares are integers in units of 10⁻⁶, so that every machine computes the same score.
const ONE: i64 = 1_000_000;

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
        let (mut count, mut sum, mut squares) = (0, 0, 0);
        let (mut least, mut most) = (ONE, 0);
        for resource in &self.resources {
            let Some(amounts) = resource.amounts(pod, node, Requests::AsMade) else { continue };
            let used = share(amounts.requested, ONE, amounts.allocatable).clamp(0, ONE);
            count += 1;
            sum += i128::from(used);
            squares += i128::from(used) * i128::from(used);
            (least, most) = (least.min(used), most.max(used));
        }
        let deviation = match count {
            0 | 1 => 0,
            // With two resources the standard deviation is half their distance.
            2 => (most - least) / 2,
            _ => {
                let variance = (count * squares - sum * sum) / (count * count);
                i64::try_from(variance.isqrt()).unwrap_or(ONE)
            }
        };
        share(ONE - deviation, SCORE_MAX, ONE)
    }
}
