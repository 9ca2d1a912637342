use crate::framework::{Plugin, SCORE_MAX, Score};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Prefers nodes on which CPU and memory would be used to the same degree
/// (`NodeResourcesBalancedAllocation`).
pub struct BalancedAllocation;

/// Shares are integers in units of 10⁻⁶, so that every machine computes the same score.
const ONE: i128 = 1_000_000;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<Score> {
        // A pod that asks for nothing cannot unbalance a node.
        if pod.requests.cpu.0 == 0 && pod.requests.memory.0 == 0 {
            return Vec::new();
        }
        let share = |used: i64, wanted: i64, all: i64| {
            if all <= 0 {
                return ONE;
            }
            ((i128::from(used) + i128::from(wanted)) * ONE / i128::from(all)).min(ONE)
        };
        let balance = |node: &&NodeInfo| {
            let (used, wanted, all) = (&node.requested, &pod.requests, &node.allocatable);
            let cpu = share(used.cpu.0, wanted.cpu.0, all.cpu.0);
            let memory = share(used.memory.0, wanted.memory.0, all.memory.0);
            // With two resources the standard deviation is half their distance.
            let deviation = (cpu - memory).abs() / 2;
            Score::try_from((ONE - deviation) * i128::from(SCORE_MAX) / ONE).unwrap_or(SCORE_MAX)
        };
        nodes.iter().map(balance).collect()
    }
}
