//! `ReplicaSet`: so many pods of one template.

use api::{ApiError, Key, Kind, Request, Time};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use machine::{Cache, Delta, Plan, Reconciler};

use crate::ownership::workload_selector;
use crate::replicas::{self, Desired, Replicated, count, seconds};

/// Keeps each replica set at its number of pods.
pub struct ReplicaSets;

impl Reconciler for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ReplicaSet, Kind::Pod]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        replicas::keys_for::<ReplicaSet>(cache, delta)
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        replicas::reconcile::<ReplicaSet>(cache, key, now)
    }

    fn note_refusal(
        &self,
        cache: &Cache,
        key: &Key,
        request: &Request,
        error: &ApiError,
        now: Time,
    ) -> Option<Request> {
        replicas::note_refusal::<ReplicaSet>(cache, key, request, error, now)
    }
}

impl Replicated for ReplicaSet {
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
