use crate::framework::{ClusterEvent, Plugin, SCORE_MAX, Score, Verdict};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Rejects nodes without room (`NodeResourcesFit`) and prefers those with most of it left
/// (`LeastAllocated`).
pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let mut reasons = Vec::new();
        // More than can ever be freed is no case for eviction.
        let mut resolvable = true;
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.pods_max {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, wanted: i64, used: i64, all: i64| {
            if wanted > 0 && wanted > all - used {
                reasons.push(format!("Insufficient {name}"));
                resolvable &= wanted <= all;
            }
        };
        let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
        check("cpu", wanted.cpu.0, used.cpu.0, all.cpu.0);
        check("memory", wanted.memory.0, used.memory.0, all.memory.0);
        check(
            "ephemeral-storage",
            wanted.ephemeral_storage.0,
            used.ephemeral_storage.0,
            all.ephemeral_storage.0,
        );
        for (name, amount) in &wanted.extended {
            let of =
                |map: &std::collections::BTreeMap<String, i64>| map.get(name).copied().unwrap_or(0);
            check(name, *amount, of(&used.extended), of(&all.extended));
        }
        if reasons.is_empty() { Verdict::Fit } else { Verdict::Reject { reasons, resolvable } }
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeAllocatable, ClusterEvent::PodGone]
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<Score> {
        let free = |used: i64, wanted: i64, all: i64| {
            let left = all.saturating_sub(used.saturating_add(wanted)).max(0);
            if all <= 0 {
                return 0;
            }
            let share = i128::from(left) * i128::from(SCORE_MAX) / i128::from(all);
            Score::try_from(share).unwrap_or(SCORE_MAX)
        };
        let least_allocated = |node: &&NodeInfo| {
            let (used, wanted, all) = (&node.scored, &pod.scored, &node.allocatable);
            let cpu = free(used.cpu.0, wanted.cpu.0, all.cpu.0);
            let memory = free(used.memory.0, wanted.memory.0, all.memory.0);
            i64::midpoint(cpu, memory)
        };
        nodes.iter().map(least_allocated).collect()
    }
}
