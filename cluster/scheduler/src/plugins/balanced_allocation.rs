use crate::framework::{Plugin, SCORE_MAX, Score, Scoring, share};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Prefers nodes on which CPU and memory would be used to the same degree
/// (`NodeResourcesBalancedAllocation`).
pub struct BalancedAllocation;

/// Shares are integers in units of 10⁻⁶, so that every machine computes the same score.
const ONE: i64 = 1_000_000;

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
        let (used, wanted, all) = (&node.requested, &pod.load.requests, &node.allocatable);
        // A pod that asks for nothing cannot unbalance a node.
        if wanted.cpu.0 == 0 && wanted.memory.0 == 0 {
            return 0;
        }
        let used_share = |used: i64, wanted: i64, all: i64| {
            if all <= 0 {
                return ONE;
            }
            share(used.saturating_add(wanted), ONE, all).min(ONE)
        };
        let cpu = used_share(used.cpu.0, wanted.cpu.0, all.cpu.0);
        let memory = used_share(used.memory.0, wanted.memory.0, all.memory.0);
        // With two resources the standard deviation is half their distance.
        let deviation = cpu.abs_diff(memory).cast_signed() / 2;
        share(ONE - deviation, SCORE_MAX, ONE)
    }
}
