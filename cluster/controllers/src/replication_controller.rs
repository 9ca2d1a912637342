//! `ReplicationController`: the ancestor of replica sets, with a selector of equalities.

use api::selector::Selector;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use crate::labels::Labels;
use crate::replicas::{Desired, Replicas, Replicated, count, seconds};
use crate::selectors::Selecting;

/// Keeps each replication controller at its number of pods.
pub type ReplicationControllers = Replicas<ReplicationController>;

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn desired(&self) -> Desired<'_> {
        let spec = self.spec.as_ref();
        let template = spec.and_then(|s| s.template.as_ref());
        Desired {
            replicas: spec.map_or(0, |s| count(s.replicas)),
            selector: self.required_labels().map_or(Selector::nothing(), Selector::of_map),
            template,
            min_ready: seconds(spec.and_then(|s| s.min_ready_seconds)),
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        let Some(status) = self.status.clone() else { return ReplicaSetStatus::default() };
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|c| c.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        }
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        self.status = Some(ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|c| c.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        });
    }
}

impl Selecting for ReplicationController {
    fn required_labels(&self) -> Option<&Labels> {
        let spec = self.spec.as_ref()?;
        let template = spec.template.as_ref();
        spec.selector
            .as_ref()
            .filter(|labels| !labels.is_empty())
            .or_else(|| template.and_then(|t| t.metadata.as_ref()?.labels.as_ref()))
            .filter(|labels| !labels.is_empty())
    }
}
