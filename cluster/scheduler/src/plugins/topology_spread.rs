use crate::framework::{Plugin, SCORE_MAX, Score, Scoring, Surroundings};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

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

    fn scoring(&self) -> Scoring {
        Scoring::Compared
    }

    /// How many siblings are on the node, and its zone.
    fn traits(&self, pod: &PodClass, node: &NodeInfo, siblings: i64, out: &mut Vec<i64>) {
        if pod.owned {
            out.extend([siblings, i64::from(node.zone_id)]);
        }
    }

    fn compare(&self, pod: &PodClass, traits: &[&[i64]], around: &Surroundings) -> Vec<Score> {
        if !pod.owned {
            return Vec::new();
        }
        // A zone holds many nodes: weigh its crowd as the average over as many as there are.
        let zones = i64::try_from(around.crowd.zones).unwrap_or(i64::MAX);
        let crowd = |traits: &&[i64]| {
            let zone = || u32::try_from(traits[1]).map_or(0, |zone| around.crowd.in_zone(zone));
            traits[0] * SCORE_MAX + if zones > 1 { zone() * SCORE_MAX / zones } else { 0 }
        };
        let raw: Vec<Score> = traits.iter().map(crowd).collect();
        let (least, most) =
            raw.iter().fold((Score::MAX, 0), |(lo, hi), s| (lo.min(*s), hi.max(*s)));
        // Fewest siblings score 100; the fullest node still scores by how full it is.
        raw.into_iter()
            .map(|s| if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - s) / most })
            .collect()
    }
}
