use crate::framework::{Plugin, SCORE_MAX, Score, Scoring, share};
use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
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

    fn scoring(&self) -> Scoring {
        Scoring::Compared
    }

    /// The sizes of the pod's images, zero for those that the node lacks. How far an image has
    /// spread is for `compare`: it changes with every node that pulls it.
    fn traits(&self, pod: &PodClass, node: &NodeInfo, out: &mut Vec<i64>) {
        out.extend(pod.images.iter().map(|image| node.images.get(image).copied().unwrap_or(0)));
    }

    fn compare(&self, pod: &PodClass, traits: &[&[i64]], all: &Snapshot) -> Vec<Score> {
        let total = i64::try_from(all.len()).unwrap_or(i64::MAX).max(1);
        let spread: Vec<i64> = pod
            .images
            .iter()
            .map(|image| all.nodes_with_image(image))
            .map(|nodes| i64::try_from(nodes).unwrap_or(i64::MAX))
            .collect();
        let most = MOST.saturating_mul(i64::try_from(pod.images.len()).unwrap_or(1).max(1));
        let present = |sizes: &&[i64]| {
            // An image that only few nodes have attracts less, or they would drown in pods.
            let scaled = sizes.iter().zip(&spread).map(|(size, have)| share(*size, *have, total));
            let sum = scaled.fold(0, i64::saturating_add);
            let within = sum.clamp(LEAST, most) - LEAST;
            within.saturating_mul(SCORE_MAX) / (most - LEAST)
        };
        traits.iter().map(present).collect()
    }
}
