//! What a claim needs next.

use api::volume::{self as volumes, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE};
use api::{ApiObject, Key, Kind, Object, Request, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::{Cache, Plan, Record};

use super::index::Volumes;
use super::{bind, provision};
use crate::claim_users::ClaimUsers;
use crate::{announce, pods};

pub(super) fn sync(cache: &Cache, key: &Key, plan: &mut Plan) {
    let Some(object) = cache.object(key) else { return };
    let Some(claim) = object.get::<PersistentVolumeClaim>() else { return };
    if meta::annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        bound(cache, object, claim, plan);
    } else if volumes::volume_name(claim).is_empty() {
        unbound(cache, key, claim, plan);
    } else {
        named(cache, claim, plan);
    }
}

/// The claim asks for whatever fits.
fn unbound(cache: &Cache, key: &Key, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let name = volumes::class_of_claim(claim);
    let class = name.and_then(|name| cache.get::<StorageClass>("", name));
    let delayed = class.is_some_and(volumes::waits_for_consumer);
    let index = cache.index::<Volumes>();
    let candidates = index.of_claim(key).chain(index.free(name.unwrap_or_default()));
    let candidates = candidates.filter_map(|key| cache.object(key)?.get::<PersistentVolume>());
    // One that waits for a pod is given nothing but what the scheduler chose for it.
    let found = volumes::candidates(claim, candidates, delayed, &|_| false);
    if let Some(found) = found.first() {
        return bind::bind(found, claim, plan);
    }
    // Nothing is made for a claim that is going.
    if !meta::is_terminating(&claim.metadata) {
        let waits = delayed && meta::annotation(&claim.metadata, SELECTED_NODE).is_none();
        match name {
            _ if waits => plan.events.push(why_waiting(cache, key, claim)),
            Some(name) if !name.is_empty() => provision::provision(cache, claim, name, plan),
            None if give_class(cache, claim, plan) => {}
            _ => {
                let why = "no persistent volumes available for this claim and no storage class is \
                           set";
                plan.events.push(announce::normal(claim, "FailedBinding", why.to_owned()));
            }
        }
    }
    if plan.requests.is_empty() {
        bind::set_phase(claim, "Pending", plan);
    }
}

/// Gives a claim that is older than the default class that class.
fn give_class(cache: &Cache, claim: &PersistentVolumeClaim, plan: &mut Plan) -> bool {
    let Some(class) = volumes::default_class(cache.list::<StorageClass>()) else { return false };
    let mut claim = claim.clone();
    claim.spec.get_or_insert_default().storage_class_name.clone_from(&class.metadata.name);
    plan.request(Request::Update { object: claim.into_object(), subresource: None });
    true
}

fn why_waiting(cache: &Cache, key: &Key, claim: &PersistentVolumeClaim) -> Record {
    let waiting =
        ClaimUsers::find(cache, key).filter(|pod| pod.node().is_empty() && !pods::is_terminal(pod));
    let names: Vec<&str> = waiting.filter_map(|pod| pod.metadata.name.as_deref()).collect();
    match names.as_slice() {
        [] => {
            let why = "waiting for first consumer to be created before binding";
            announce::normal(claim, "WaitForFirstConsumer", why.to_owned())
        }
        [one] => {
            let why = format!("waiting for pod {one} to be scheduled");
            announce::normal(claim, "WaitForPodScheduled", why)
        }
        many => {
            let why = format!("waiting for pods {} to be scheduled", many.join(","));
            announce::normal(claim, "WaitForPodScheduled", why)
        }
    }
}

/// The claim asks for one volume.
fn named(cache: &Cache, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let name = volumes::volume_name(claim);
    let found = cache.get::<PersistentVolume>("", name);
    match found {
        Some(found) if volumes::claim_ref(found).is_none() => match why_not(found, claim) {
            None => return bind::bind(found, claim, plan),
            Some(why) => {
                let why = format!("Cannot bind to requested volume {name:?}: {why}");
                plan.events.push(announce::warning(claim, "VolumeMismatch", why));
            }
        },
        Some(found) if volumes::is_bound_to(found, claim) => {
            return bind::bind(found, claim, plan);
        }
        Some(_) if meta::annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_none() => {
            let why = format!("volume {name:?} already bound to a different claim.");
            plan.events.push(announce::warning(claim, "FailedBinding", why));
        }
        Some(_) | None => {}
    }
    bind::set_phase(claim, "Pending", plan);
}

fn why_not(found: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let class = volumes::class_of_claim(claim).unwrap_or_default();
    if volumes::capacity(found) < volumes::requested(claim) {
        Some("requested PV is too small")
    } else if volumes::class_of_volume(found) != class {
        Some("storageClassName does not match")
    } else if volumes::modes_differ(found, claim) {
        Some("incompatible volumeMode")
    } else if !volumes::serves_modes(found, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The claim had a volume.
fn bound(cache: &Cache, object: &Object, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let name = volumes::volume_name(claim);
    if name.is_empty() {
        let why = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", why, plan);
    }
    let Some(found) = cache.get::<PersistentVolume>("", name) else {
        // The volume is older than the binding: it is known when the claim's last write is.
        if cache.revision(Kind::PersistentVolume) < object.revision() {
            return plan.request(Request::ReadRevision(Kind::PersistentVolume));
        }
        let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", why, plan);
    };
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    match volumes::claim_ref(found) {
        Some(held) if volumes::uid_of(held) != uid => {
            let why = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", why, plan);
        }
        _ => bind::bind(found, claim, plan),
    }
}

fn lost(claim: &PersistentVolumeClaim, reason: &str, why: &str, plan: &mut Plan) {
    if volumes::claim_phase(claim) != "Lost" {
        plan.events.push(announce::warning(claim, reason, why.to_owned()));
    }
    bind::set_phase(claim, "Lost", plan);
}
