//! Generic ephemeral volumes: claims that come and go with their pod.
//!
//! Source: kubernetes 1.33, `pkg/controller/volume/ephemeral`.

use api::{ApiObject, Key, Kind, Object, Pod, Request, Time, meta, volume};
use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaim};
use machine::{Announcement, Aspects, Cache, Delta, Index, Plan, Reconciler};

use crate::announce;
use crate::claim_users::ClaimUsers;

const FAILED: &str = "FailedBinding";

/// Makes the claims of pods. The keys are pods.
pub struct EphemeralVolumes;

impl Reconciler for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod, Kind::PersistentVolumeClaim]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<ClaimUsers>::default()]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        // Volumes of a pod do not change.
        if kind == Kind::Pod { Aspects::EXISTENCE } else { Aspects::ALL }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::Pod {
            let pod = delta.new.as_ref().and_then(Object::get::<Pod>);
            let new = pod.filter(|pod| delta.old.is_none() && own(pod).next().is_some());
            return new.map(|_| delta.key.clone()).into_iter().collect();
        }
        if delta.new.is_some() {
            return Vec::new();
        }
        let users = ClaimUsers::find(cache, &delta.key).filter(|pod| own(pod).next().is_some());
        let key = |name: &str| Key::new(Kind::Pod, &delta.key.namespace, name);
        users.filter_map(|pod| Some(key(pod.metadata.name.as_deref()?))).collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(pod) = object.get::<Pod>() else { return plan };
        if meta::is_terminating(&pod.metadata) {
            return plan;
        }
        // A claim that was made for this pod is younger than it.
        for (name, source) in own(pod) {
            match cache.get::<PersistentVolumeClaim>(&key.namespace, &name.claim) {
                Some(claim) if is_of(claim, pod) => {}
                Some(_) => {
                    let (namespace, pod_name) = (&key.namespace, &key.name);
                    let why = format!(
                        "ephemeral volume {}: PVC {namespace}/{} was not created for pod \
                         {namespace}/{pod_name} (pod is not owner)",
                        name.volume, name.claim
                    );
                    plan.events.push(announce::warning(pod, FAILED, why));
                }
                None => {
                    let why =
                        format!("ephemeral volume {}: create PVC {}: ", name.volume, name.claim);
                    let refused = Some(announce::warning(pod, FAILED, why));
                    let claim = claim(pod, name.claim, source);
                    let announcement = Announcement { done: None, refused };
                    plan.request_announced(Request::Create(claim.into_object()), announcement);
                }
            }
        }
        plan
    }
}

/// How a volume and its claim are called.
struct Names<'a> {
    volume: &'a str,
    claim: String,
}

/// The ephemeral volumes of a pod.
fn own(pod: &Pod) -> impl Iterator<Item = (Names<'_>, &EphemeralVolumeSource)> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes.iter().filter_map(move |v| {
        let claim = volume::ephemeral_claim(name, &v.name);
        Some((Names { volume: &v.name, claim }, v.ephemeral.as_ref()?))
    })
}

/// Whether the claim was made for the pod.
pub(crate) fn is_of(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owner = meta::controller_of(&claim.metadata);
    owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

fn claim(pod: &Pod, name: String, source: &EphemeralVolumeSource) -> PersistentVolumeClaim {
    let template = source.volume_claim_template.clone().unwrap_or_default();
    let mut claim =
        PersistentVolumeClaim { spec: Some(template.spec), ..PersistentVolumeClaim::default() };
    let wanted = template.metadata.unwrap_or_default();
    claim.metadata.name = Some(name);
    claim.metadata.namespace.clone_from(&pod.metadata.namespace);
    claim.metadata.labels = wanted.labels;
    claim.metadata.annotations = wanted.annotations;
    claim.metadata.owner_references = Some(vec![meta::controller_reference(pod)]);
    claim
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn fixture() -> (Fixture<EphemeralVolumes>, Key) {
        let mut fixture = Fixture::new(EphemeralVolumes);
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec":
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let keys = fixture.put(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [], "volumes":
                [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]}}));
        assert_eq!(keys, [Key::new(Kind::Pod, "n", "p")]);
        (fixture, keys[0].clone())
    }

    #[test]
    fn pods_own_the_claims_of_their_templates() {
        let (mut fixture, key) = fixture();
        assert_eq!(fixture.settle(&key), ["create persistentvolumeclaims/n/p-v"]);
        let at = Key::new(Kind::PersistentVolumeClaim, "n", "p-v");
        let claim = api::codec::to_value(&fixture.store.objects[&at]);
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(
            claim["metadata"]["ownerReferences"],
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p",
                "controller": true, "blockOwnerDeletion": true}])
        );
        // One that is deleted is made good.
        assert_eq!(fixture.remove(&at), std::slice::from_ref(&key));
        assert_eq!(fixture.settle(&key), ["create persistentvolumeclaims/n/p-v"]);
    }

    #[test]
    fn claims_of_others_are_left_alone() {
        let (mut fixture, key) = fixture();
        fixture.put(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "p-v", "namespace": "n"}}));
        let plan = fixture.reconcile(&key);
        assert_eq!(summary(&plan), [""; 0]);
        assert_eq!(plan.events[0].reason, "FailedBinding");
        assert_eq!(
            plan.events[0].message,
            "ephemeral volume v: PVC n/p-v was not created for pod n/p (pod is not owner)"
        );
    }
}
