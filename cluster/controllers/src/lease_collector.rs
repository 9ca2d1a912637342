//! Deletes the leases of API servers that are gone for good.
//!
//! An API server that stops gives its lease up; one that dies leaves it behind.
//!
//! Source: kubernetes 1.33, `pkg/controlplane/controller/apiserverleasegc`.

use std::time::Duration;

use api::{Key, Kind, Object, Request, Time, meta};
use k8s_openapi::api::coordination::v1::Lease;
use machine::{Cache, Delta, Plan, Reconciler};

const NAMESPACE: &str = "kube-system";
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");

/// Deletes leases of API servers that were not renewed in time.
pub struct LeaseCollector;

impl Reconciler for LeaseCollector {
    fn name(&self) -> &'static str {
        "apiserver-lease-garbage-collector"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Lease]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let ours = delta.new.as_ref().and_then(Object::get::<Lease>).is_some_and(is_identity);
        if ours { vec![delta.key.clone()] } else { Vec::new() }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(lease) = object.get::<Lease>().filter(|lease| is_identity(lease)) else {
            return plan;
        };
        // By our own clock, too: the holder's may be slow.
        let end = end(lease)
            .map(|(renewed, lasts)| renewed.max(cache.seen_at(key).unwrap_or_default()) + lasts);
        match end {
            Some(end) if end >= now => plan.revisit_in((end + Duration::from_secs(1)).since(now)),
            // At this very revision: one that was just renewed stays.
            _ => plan.request(Request::Delete {
                key: key.clone(),
                uid: lease.metadata.uid.clone(),
                revision: Some(object.revision()),
                grace_seconds: None,
                propagation: None,
            }),
        }
        plan
    }
}

fn is_identity(lease: &Lease) -> bool {
    lease.metadata.namespace.as_deref() == Some(NAMESPACE)
        && meta::label(&lease.metadata, IDENTITY.0) == Some(IDENTITY.1)
}

/// When the lease was renewed and for how long; `None` when nobody wrote that.
fn end(lease: &Lease) -> Option<(Time, Duration)> {
    let spec = lease.spec.as_ref()?;
    let seconds = u64::try_from(spec.lease_duration_seconds?).unwrap_or(0);
    Some((Time::from_micro(spec.renew_time.as_ref()?), Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn lease(namespace: &str, renewed: Option<Time>) -> Value {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "apiserver-x", "namespace": namespace,
                "labels": {IDENTITY.0: IDENTITY.1}},
            "spec": {"leaseDurationSeconds": 30, "renewTime": renewed.map(Time::to_micro)}})
    }

    const GONE: [&str; 1] = ["delete leases/kube-system/apiserver-x"];

    #[test]
    fn leases_that_nobody_renews_go() {
        let mut fixture = Fixture::new(LeaseCollector);
        let keys = fixture.put(lease(NAMESPACE, Some(fixture.now())));
        let plan = fixture.reconcile(&keys[0]);
        assert_eq!((plan.requests.len(), plan.revisit), (0, Some(Duration::from_secs(31))));
        fixture.advance(Duration::from_secs(20));
        fixture.put(lease(NAMESPACE, Some(fixture.now())));
        fixture.advance(Duration::from_secs(30));
        assert_eq!(fixture.reconcile(&keys[0]).requests, []);
        fixture.advance(Duration::from_secs(1));
        assert_eq!(summary(&fixture.reconcile(&keys[0])), GONE);
    }

    #[test]
    fn a_slow_clock_does_not_end_a_lease_and_an_empty_lease_goes() {
        let mut fixture = Fixture::new(LeaseCollector);
        let keys = fixture.put(lease(NAMESPACE, Some(Time::from_secs(1))));
        assert_eq!(fixture.reconcile(&keys[0]).requests, []);
        fixture.put(lease(NAMESPACE, None));
        assert_eq!(summary(&fixture.reconcile(&keys[0])), GONE);
        assert!(fixture.put(lease("default", None)).is_empty());
        let mut other = lease(NAMESPACE, None);
        other["metadata"]["labels"] = Value::Null;
        assert!(fixture.put(other).is_empty());
    }
}
