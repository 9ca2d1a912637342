use serde::{Deserialize, Serialize};

use crate::framework::{
    ClusterEvent, Filtering, Plugin, SCORE_MAX, Score, Scoring, Verdict, share,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// Which nodes with room are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FitStrategy {
    /// Those with most of it left: pods spread out.
    #[default]
    LeastAllocated,
    /// Those with least of it left: pods fill node after node.
    MostAllocated,
}

/// Rejects nodes without room (`NodeResourcesFit`) and prefers by how much would be left.
pub struct Fit {
    /// Which nodes with room are preferred.
    pub strategy: FitStrategy,
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
        for_each_shortage(pod, node, |name, wanted, all| {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= wanted <= all;
        });
        if reasons.is_empty() { Verdict::Fit } else { Verdict::Reject { reasons, resolvable } }
    }

    fn fits(&self, pod: &PodClass, node: &NodeInfo) -> bool {
        let mut fits = node.pods < node.pods_max;
        for_each_shortage(pod, node, |_, _, _| fits = false);
        fits
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeAllocatable, ClusterEvent::PodGone]
    }

    fn scoring(&self) -> Scoring {
        Scoring::Alone
    }

    fn score(&self, pod: &PodClass, node: &NodeInfo) -> Score {
        let (used, wanted, all) = (&node.scored, &pod.load.scored, &node.allocatable);
        let preferred = |used: i64, wanted: i64, all: i64| {
            if all <= 0 {
                return 0;
            }
            let asked = used.saturating_add(wanted);
            let part = match self.strategy {
                FitStrategy::LeastAllocated => all.saturating_sub(asked).max(0),
                FitStrategy::MostAllocated => asked.min(all),
            };
            share(part, SCORE_MAX, all)
        };
        let cpu = preferred(used.cpu.0, wanted.cpu.0, all.cpu.0);
        let memory = preferred(used.memory.0, wanted.memory.0, all.memory.0);
        i64::midpoint(cpu, memory)
    }
}

/// Calls `shortage` with name, amount wanted and amount allocatable of all that is not there.
fn for_each_shortage(pod: &PodClass, node: &NodeInfo, mut shortage: impl FnMut(&str, i64, i64)) {
    let (wanted, used, all) = (&pod.load.requests, &node.requested, &node.allocatable);
    let mut check = |name: &str, wanted: i64, used: i64, all: i64| {
        if wanted > 0 && wanted > all - used {
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
    for (name, amount) in &wanted.extended {
        let used = used.extended.get(name).copied().unwrap_or(0);
        let all = all.extended.get(name).copied().unwrap_or(0);
        check(name, *amount, used, all);
    }
}
