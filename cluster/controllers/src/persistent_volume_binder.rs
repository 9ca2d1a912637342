//! Persistent volumes: claims are bound to volumes, volumes are made for claims, and those whose
//! claims are gone are dealt with as they say.
//!
//! The keys are claims and volumes. A binding is written in four steps, each of which can be the
//! last one of a process: the volume names the claim, the claim names the volume, and the status of
//! each says so. Two claims that want one volume meet at its revision.
//!
//! Source: kubernetes 1.33, `pkg/controller/volume/persistentvolume`; its internal provisioners are
//! gone, here there is one, in `local`.

mod bind;
mod claim;
mod index;
mod local;
mod provision;
mod release;

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Pod, Time, volume};
use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::{Aspects, Cache, Delta, Index, Plan, Reconciler};

use self::index::{Claims, Volumes};
use crate::claim_users::{ClaimUsers, claims_of};

/// Binds, provisions and reclaims.
pub struct PersistentVolumeBinder;

impl Reconciler for PersistentVolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::PersistentVolume,
            Kind::PersistentVolumeClaim,
            Kind::StorageClass,
            Kind::Node,
            Kind::Pod,
        ]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Claims>::default(), Box::<Volumes>::default(), Box::<ClaimUsers>::default()]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        // Volumes of a pod do not change.
        if kind == Kind::Pod { Aspects::EXISTENCE } else { Aspects::ALL }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::PersistentVolume => of_volume(cache, delta).into_iter().collect(),
            Kind::PersistentVolumeClaim => of_claim(cache, delta).into_iter().collect(),
            Kind::StorageClass => of_class(cache, delta).into_iter().collect(),
            Kind::Node => of_node(cache, delta).into_iter().collect(),
            _ => of_pod(cache, delta),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        match key.kind {
            Kind::PersistentVolume => release::sync(cache, key, &mut plan),
            _ => claim::sync(cache, key, &mut plan),
        }
        plan
    }
}

/// Both states of a changed object.
fn states<T: api::ApiObject>(delta: &Delta) -> impl Iterator<Item = &T> {
    [&delta.old, &delta.new].into_iter().flatten().filter_map(Object::get)
}

fn claim_key(reference: &ObjectReference) -> Key {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (part(&reference.namespace), part(&reference.name));
    Key::new(Kind::PersistentVolumeClaim, &namespace, &name)
}

/// The volume, the claims that it names or that name it, and if it is free all that look for one of
/// its class.
fn of_volume(cache: &Cache, delta: &Delta) -> BTreeSet<Key> {
    let mut keys = BTreeSet::from([delta.key.clone()]);
    keys.extend(states::<PersistentVolume>(delta).filter_map(volume::claim_ref).map(claim_key));
    let claims = cache.index::<Claims>();
    keys.extend(claims.naming(&delta.key.name).map(|key| Key::clone(key)));
    let new = delta.new.as_ref().and_then(Object::get::<PersistentVolume>);
    if let Some(new) = new.filter(|new| volume::claim_ref(new).is_none()) {
        keys.extend(claims.unbound(Some(volume::class_of_volume(new))).map(|key| Key::clone(key)));
        if volume::class_of_volume(new).is_empty() {
            keys.extend(claims.unbound(None).map(|key| Key::clone(key)));
        }
    }
    keys
}

/// The claim, and the volumes that it names or that name it.
fn of_claim(cache: &Cache, delta: &Delta) -> BTreeSet<Key> {
    let mut keys = BTreeSet::from([delta.key.clone()]);
    let named = states::<PersistentVolumeClaim>(delta).map(volume::volume_name);
    keys.extend(
        named.filter(|n| !n.is_empty()).map(|name| Key::cluster(Kind::PersistentVolume, name)),
    );
    keys.extend(cache.index::<Volumes>().of_claim(&delta.key).map(|key| Key::clone(key)));
    keys
}

/// The claims that look for a volume of the class, or for a class if it may be the default one.
fn of_class(cache: &Cache, delta: &Delta) -> BTreeSet<Key> {
    let claims = cache.index::<Claims>();
    let mut keys: BTreeSet<Key> =
        claims.unbound(Some(&delta.key.name)).map(|key| Key::clone(key)).collect();
    if states::<StorageClass>(delta).any(|class| volume::is_default_class(&class.metadata)) {
        keys.extend(claims.unbound(None).map(|key| Key::clone(key)));
    }
    keys
}

/// The volumes of which something is told on the node; when it is gone, all that is tied to it.
fn of_node(cache: &Cache, delta: &Delta) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let node = |object: &'_ Option<Object>| object.as_ref().and_then(Object::share::<Node>);
    let (old, new) = (node(&delta.old), node(&delta.new));
    let told = |node| Option::map_or_else(node, BTreeMap::new, local::told);
    let (old, new) = (told(old.as_deref()), told(new.as_deref()));
    if old != new {
        let names = old.keys().chain(new.keys());
        keys.extend(names.map(|name| Key::cluster(Kind::PersistentVolume, name)));
    }
    if delta.new.is_none() {
        let volumes = cache.list::<PersistentVolume>();
        let tied = volumes.filter(|v| local::node_of(v) == Some(&*delta.key.name));
        keys.extend(
            tied.filter_map(|v| v.metadata.name.as_deref())
                .map(|name| Key::cluster(Kind::PersistentVolume, name)),
        );
        keys.extend(cache.index::<Claims>().all_unbound().map(|key| Key::clone(key)));
    }
    keys
}

/// The claims of a new pod that wait for one.
fn of_pod(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let new = delta.new.as_ref().and_then(Object::get::<Pod>).filter(|_| delta.old.is_none());
    let Some(pod) = new else { return Vec::new() };
    let keys = claims_of(pod).into_iter();
    keys.map(|name| Key::new(Kind::PersistentVolumeClaim, &delta.key.namespace, &name))
        .filter(|key| {
            let claim = cache.object(key).and_then(Object::get::<PersistentVolumeClaim>);
            claim.is_some_and(|claim| volume::volume_name(claim).is_empty())
        })
        .collect()
}

#[cfg(test)]
mod tests;
