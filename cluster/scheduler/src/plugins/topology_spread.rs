use std::collections::BTreeMap;

use crate::framework::{Plugin, SCORE_MAX, Score};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Spreads the pods of one controller over nodes and zones: the cluster's default constraints
/// of `PodTopologySpread` (zone, then host name, both `ScheduleAnyway`).
pub struct TopologySpread;

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<Score> {
        if pod.owner.is_empty() {
            return Vec::new();
        }
        let siblings = |node: &NodeInfo| {
            let count = node.pods.values().filter(|owner| **owner == pod.owner).count();
            Score::try_from(count).unwrap_or(Score::MAX)
        };
        let mut by_zone: BTreeMap<&str, Score> = BTreeMap::new();
        for node in snapshot.nodes() {
            *by_zone.entry(node.zone()).or_default() += siblings(node);
        }
        // A zone holds many nodes: weigh its crowd as the average over as many as there are.
        let zones = Score::try_from(by_zone.len()).unwrap_or(1);
        let crowd = |node: &&NodeInfo| {
            let zone = by_zone.get(node.zone()).copied().unwrap_or(0);
            siblings(node) * SCORE_MAX + if zones > 1 { zone * SCORE_MAX / zones } else { 0 }
        };
        let raw: Vec<Score> = nodes.iter().map(crowd).collect();
        let (least, most) =
            raw.iter().fold((Score::MAX, 0), |(lo, hi), s| (lo.min(*s), hi.max(*s)));
        // Fewest siblings score 100; the fullest node still scores by how full it is.
        raw.into_iter()
            .map(|s| if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - s) / most })
            .collect()
    }
}
