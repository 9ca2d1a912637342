//! Keeps volumes that are bound from being deleted.
//!
//! Source: kubernetes 1.33, `pkg/controller/volume/pvprotection`.

use api::volume::{VOLUME_FINALIZER, volume_phase};
use api::{Key, Kind, Time, meta};
use k8s_openapi::api::core::v1::PersistentVolume;
use machine::{Cache, Delta, Plan, Reconciler};

use crate::finalizer;

/// Gives volumes a finalizer, and takes it away from those that shall go and are not bound.
pub struct PersistentVolumeProtection;

impl Reconciler for PersistentVolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolume]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        vec![delta.key.clone()]
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(volume) = object.get::<PersistentVolume>() else { return plan };
        let held = finalizer::has(object.meta(), VOLUME_FINALIZER);
        let goes = meta::is_terminating(object.meta());
        if goes && held && volume_phase(volume) != "Bound" {
            plan.request(finalizer::removed(object, VOLUME_FINALIZER));
        } else if !goes && !held {
            plan.request(finalizer::added(object, VOLUME_FINALIZER));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn check(phase: &str, goes: bool, held: bool, expected: &[&str], left: bool) {
        let mut fixture = Fixture::new(PersistentVolumeProtection);
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v"}, "spec": {}, "status": {"phase": phase}});
        if goes {
            volume["metadata"]["deletionTimestamp"] = json!(fixture.now().to_meta());
        }
        volume["metadata"]["finalizers"] =
            if held { json!(["other/x", VOLUME_FINALIZER]) } else { json!(["other/x"]) };
        fixture.put(volume);
        let key = Key::cluster(Kind::PersistentVolume, "v");
        assert_eq!(summary(&fixture.reconcile(&key)), expected, "{phase} {goes} {held}");
        fixture.settle(&key);
        assert_eq!(finalizer::has(fixture.store.objects[&key].meta(), VOLUME_FINALIZER), left);
    }

    #[test]
    fn bound_volumes_stay() {
        let update = &["update persistentvolumes/v"];
        check("Bound", true, true, &[], true);
        check("Released", true, true, update, false);
        check("Available", true, true, update, false);
        check("Available", false, true, &[], true);
        check("Available", false, false, update, true);
        check("Released", true, false, &[], false);
    }
}
