//! Keeps claims that pods use from being deleted.
//!
//! A kubelet starts no pod that uses a claim that is being deleted. So it is enough to know the pods
//! that had a node when the deletion began.
//!
//! Source: kubernetes 1.33, `pkg/controller/volume/pvcprotection`.

use api::volume::CLAIM_FINALIZER;
use api::{Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use machine::{Aspects, Cache, Delta, Index, Plan, Reconciler};

use crate::claim_users::{ClaimUsers, claims_of};
use crate::{ephemeral_volume, finalizer};

/// Gives claims a finalizer, and takes it away from those that shall go and that no pod uses.
pub struct PersistentVolumeClaimProtection;

impl Reconciler for PersistentVolumeClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim, Kind::Pod]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<ClaimUsers>::default()]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::META,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::PersistentVolumeClaim {
            return vec![delta.key.clone()];
        }
        let old = delta.old.as_ref().and_then(Object::get::<Pod>);
        let new = delta.new.as_ref().and_then(Object::get::<Pod>);
        // What a pod uses it uses until it is gone, or as good as that.
        let Some(old) = old.filter(|_| new.is_none_or(is_shut_down)) else { return Vec::new() };
        let claims = claims_of(old).into_iter();
        claims
            .map(|name| Key::new(Kind::PersistentVolumeClaim, &delta.key.namespace, &name))
            .filter(|key| cache.object(key).is_some_and(|o| meta::is_terminating(o.meta())))
            .collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(claim) = object.get::<PersistentVolumeClaim>() else { return plan };
        let held = finalizer::has(object.meta(), CLAIM_FINALIZER);
        match (meta::is_terminating(object.meta()), held) {
            (false, false) => plan.request(finalizer::added(object, CLAIM_FINALIZER)),
            (true, true) if ClaimUsers::find(cache, key).any(|pod| uses(pod, claim)) => {}
            (true, true) if cache.revision(Kind::Pod) < object.revision() => {
                plan.request(Request::ReadRevision(Kind::Pod));
            }
            (true, true) => plan.request(finalizer::removed(object, CLAIM_FINALIZER)),
            _ => {}
        }
        plan
    }
}

fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let named = volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    let by_name = named.into_iter().any(|v| Some(&v.claim_name) == claim.metadata.name.as_ref());
    let own = || !is_shut_down(pod) && ephemeral_volume::is_of(claim, pod);
    !pod.node().is_empty() && (by_name || own())
}

/// Whether all that is left of the pod is its entry in the API.
fn is_shut_down(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    meta::is_terminating(meta) && meta.deletion_grace_period_seconds == Some(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn key() -> Key {
        Key::new(Kind::PersistentVolumeClaim, "n", "c")
    }

    fn fixture() -> Fixture<PersistentVolumeClaimProtection> {
        let mut fixture = Fixture::new(PersistentVolumeClaimProtection);
        let time = fixture.now().to_meta();
        fixture.put(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "n", "finalizers": [CLAIM_FINALIZER],
                "deletionTimestamp": time}}));
        fixture
    }

    fn pod(node: Option<&str>) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"nodeName": node, "containers": [], "volumes":
                [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})
    }

    #[test]
    fn a_claim_waits_for_the_pods_that_use_it() {
        let mut fixture = fixture();
        fixture.progress();
        fixture.put(pod(Some("a")));
        assert_eq!(summary(&fixture.reconcile(&key())), [""; 0]);
        let affected = fixture.remove(&Key::new(Kind::Pod, "n", "p"));
        assert_eq!(affected, [key()]);
        assert_eq!(fixture.settle(&key()), ["update persistentvolumeclaims/n/c"]);
        assert!(fixture.store.get(&key()).is_none());
    }

    #[test]
    fn pods_without_a_node_do_not_keep_it() {
        let mut fixture = fixture();
        fixture.put(pod(None));
        assert_eq!(fixture.settle(&key()), ["update persistentvolumeclaims/n/c"]);
    }

    #[test]
    fn pods_that_are_not_known_yet_are_waited_for() {
        let mut fixture = fixture();
        assert_eq!(summary(&fixture.reconcile(&key())), ["read Pod"]);
        fixture.progress();
        assert_eq!(fixture.settle(&key()), ["update persistentvolumeclaims/n/c"]);
    }

    #[test]
    fn claims_without_protection_get_it() {
        let mut fixture = Fixture::new(PersistentVolumeClaimProtection);
        fixture.put(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "n"}}));
        assert_eq!(fixture.settle(&key()), ["update persistentvolumeclaims/n/c"]);
        let meta = fixture.store.objects[&key()].meta().clone();
        assert!(finalizer::has(&meta, CLAIM_FINALIZER));
    }

    #[test]
    fn a_pod_keeps_a_claim_of_its_own_until_it_is_shut_down() {
        let mut fixture = fixture();
        fixture.progress();
        let mut claim = api::codec::to_value(&fixture.store.objects[&key()]);
        claim["metadata"]["name"] = json!("p-v");
        claim["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod",
            "name": "p", "uid": "uid-p", "controller": true}]);
        let own = Key::new(Kind::PersistentVolumeClaim, "n", "p-v");
        let mut pod = pod(Some("a"));
        pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {}}]);
        fixture.put(pod.clone());
        fixture.put(claim);
        assert_eq!(summary(&fixture.reconcile(&own)), ["read Pod"; 0]);
        pod["metadata"]["deletionTimestamp"] = json!(fixture.now().to_meta());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        assert_eq!(fixture.put(pod), std::slice::from_ref(&own));
        assert_eq!(fixture.settle(&own), ["update persistentvolumeclaims/n/p-v"]);
    }
}
