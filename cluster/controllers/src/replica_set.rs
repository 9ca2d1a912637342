//! `ReplicaSet`: so many pods of one template.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use crate::labels::Labels;
use crate::ownership::{required_labels, workload_selector};
use crate::replicas::{Desired, Replicas, Replicated, count, seconds};
use crate::selectors::Selecting;

/// Keeps each replica set at its number of pods.
pub type ReplicaSets = Replicas<ReplicaSet>;

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn desired(&self) -> Desired<'_> {
        let spec = self.spec.as_ref();
        Desired {
            // Without a spec nothing is asked for.
            replicas: spec.map_or(0, |s| count(s.replicas)),
            selector: workload_selector(&spec.map(|s| s.selector.clone()).unwrap_or_default()),
            template: spec.and_then(|s| s.template.as_ref()),
            min_ready: seconds(spec.and_then(|s| s.min_ready_seconds)),
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

impl Selecting for ReplicaSet {
    fn required_labels(&self) -> Option<&Labels> {
        required_labels(&self.spec.as_ref()?.selector)
    }
}
