use crate::framework::{Plugin, SCORE_MAX, Score};
use crate::rows::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Prefers nodes that already have the pod's images.
pub struct ImageLocality;

/// Below this the download is quick anyway; source: kubernetes 1.33, `imagelocality`.
const LEAST: i64 = 23 << 20;
/// Above this, for each container, more makes no difference.
const MOST: i64 = 1000 << 20;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<Score> {
        let total = i64::try_from(snapshot.len()).unwrap_or(i64::MAX).max(1);
        let spread: Vec<i64> = pod
            .images
            .iter()
            .map(|image| i64::try_from(snapshot.nodes_with_image(image)).unwrap_or(i64::MAX))
            .collect();
        let most = MOST.saturating_mul(i64::try_from(pod.images.len()).unwrap_or(1).max(1));
        let present = |node: &&NodeInfo| {
            let sum: i64 = pod
                .images
                .iter()
                .zip(&spread)
                // An image that only few nodes have attracts less, or they would drown in pods.
                .map(|(image, have)| {
                    let size = node.images.get(image).copied().unwrap_or(0);
                    let scaled = i128::from(size) * i128::from(*have) / i128::from(total);
                    i64::try_from(scaled).unwrap_or(i64::MAX)
                })
                .sum();
            let within = sum.clamp(LEAST, most) - LEAST;
            within.saturating_mul(SCORE_MAX) / (most - LEAST)
        };
        nodes.iter().map(present).collect()
    }
}
