//! Deletes what nobody owns any more, and holds owners until what blocks them is gone.
//!
//! That an owner is gone is believed only when the watch of the owner's kind has come at least
//! as far as the child's last write: an owner that is merely not known yet is younger than that.
//!
//! Source: kubernetes 1.33, `pkg/controller/garbagecollector`.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Name, Object, Propagation, Request, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use machine::{Aspects, Cache, Delta, Plan, Reconciler, Record, Regarding};

/// The owner waits until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// The owner waits until its dependents forgot it.
const ORPHAN: &str = "orphan";

/// No more dependents are written in one pass.
const BURST_MAX: usize = 500;

/// Of no more of the owners of one object people are told in one pass.
const EVENTS_MAX: usize = 10;
/// So many objects that wait are looked at to find a circle.
const CIRCLE_MAX: usize = 1000;

/// What may own or be owned. Events are neither, and there are many of them.
const KINDS: &[Kind] = api::kinds_where!(|kind| kind.info().stored && !kind.is_record());

/// Deletes objects whose owners are gone.
pub struct GarbageCollector;

impl Reconciler for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::META,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        let old = delta.old.as_ref().map(Object::meta);
        let new = delta.new.as_ref().map(Object::meta);
        let same_uid = old.zip(new).is_none_or(|(old, new)| old.uid == new.uid);
        if let Some((old, new)) = old.zip(new)
            && same_uid
            && old.owner_references == new.owner_references
            && old.finalizers == new.finalizers
            && meta::is_terminating(old) == meta::is_terminating(new)
        {
            return Vec::new();
        }
        let mut keys = BTreeSet::new();
        if let Some(new) = new
            && (has_owners(new) || is_held(new))
        {
            keys.insert(delta.key.clone());
        }
        // Owners that wait for this object.
        for meta in [old, new].into_iter().flatten() {
            for owner in meta.owner_references.iter().flatten() {
                let key = key_of(owner, delta.key.kind, &delta.key.namespace);
                keys.extend(key.filter(|k| cache.object(k).is_some_and(|o| is_held(o.meta()))));
            }
        }
        // Objects that this one owns.
        let ends = new.is_none_or(meta::is_terminating);
        for uid in [old.filter(|_| ends || !same_uid), new.filter(|_| ends)].into_iter().flatten() {
            let uid = uid.uid.as_deref().unwrap_or_default();
            keys.extend(cache.owned_objects(uid).map(Object::key));
        }
        keys.into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: api::Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let meta = object.meta();
        if meta::is_terminating(meta) {
            if has_finalizer(meta, ORPHAN) {
                orphan_dependents(cache, object, &mut plan);
            } else if has_finalizer(meta, FOREGROUND) {
                wait_for_dependents(cache, object, &mut plan);
            }
        } else if has_owners(meta) {
            judge(cache, object, &mut plan);
        }
        plan
    }
}

fn has_owners(meta: &ObjectMeta) -> bool {
    meta.owner_references.as_ref().is_some_and(|o| !o.is_empty())
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == name)
}

/// Whether this controller must act before the object can go.
fn is_held(meta: &ObjectMeta) -> bool {
    meta::is_terminating(meta) && (has_finalizer(meta, FOREGROUND) || has_finalizer(meta, ORPHAN))
}

/// The key that a reference in an object of that kind and namespace names; `None` when no such
/// owner is known to us or is possible.
fn key_of(owner: &OwnerReference, child: Kind, namespace: &str) -> Option<Key> {
    let kind = Kind::of_manifest(&owner.api_version, &owner.kind).filter(|k| KINDS.contains(k))?;
    match (kind.namespaced(), child.namespaced()) {
        (false, _) => Some(Key::cluster(kind, &owner.name)),
        (true, true) => Some(Key::new(kind, namespace, &owner.name)),
        (true, false) => None,
    }
}

/// What is known of an owner.
enum Owner {
    /// It lives, or nothing can be known of it.
    Solid,
    /// It is gone.
    Gone,
    /// It waits for its dependents to go.
    Waiting,
    /// Whether it is gone will be known when the watch of its kind has come further.
    Unsure(Kind),
}

fn classify(cache: &Cache, object: &Object, owner: &OwnerReference) -> Owner {
    let key = object.key();
    let Some(owner_key) = key_of(owner, key.kind, &key.namespace) else { return Owner::Solid };
    match cache.object(&owner_key).filter(|o| o.uid() == owner.uid) {
        Some(found) if meta::is_terminating(found.meta()) => {
            if has_finalizer(found.meta(), FOREGROUND) { Owner::Waiting } else { Owner::Solid }
        }
        Some(_) => Owner::Solid,
        None if cache.revision(owner_key.kind) < object.revision() => Owner::Unsure(owner_key.kind),
        None => Owner::Gone,
    }
}

/// Those of the owners that are in a namespace that the object is not in: such owners cannot be.
/// Of the kinds of owners that are gone all objects are looked at, once.
fn elsewhere<'a>(
    cache: &Cache,
    object: &Object,
    owners: &[(&'a OwnerReference, Owner)],
) -> Vec<&'a OwnerReference> {
    let kind_of = |owner: &OwnerReference| {
        let kind = Kind::of_manifest(&owner.api_version, &owner.kind)?;
        (KINDS.contains(&kind) && kind.namespaced()).then_some(kind)
    };
    let mut gone: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
    for (owner, state) in owners {
        if let Some(kind) = kind_of(owner).filter(|_| matches!(state, Owner::Gone)) {
            gone.entry(kind).or_default().insert(&owner.uid);
        }
    }
    let mut found = BTreeSet::new();
    for (kind, uids) in &gone {
        found.extend(cache.objects(*kind).map(Object::uid).filter(|uid| uids.contains(uid)));
    }
    let is_elsewhere = |owner: &&OwnerReference| match kind_of(owner) {
        Some(_) if !object.kind().namespaced() => true,
        Some(_) => found.contains(owner.uid.as_str()),
        None => false,
    };
    owners.iter().map(|(owner, _)| *owner).filter(is_elsewhere).collect()
}

fn invalid_namespace(object: &Object, owner: &OwnerReference) -> Record {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    Record {
        regarding: Regarding::object(&object.key(), object.uid()),
        warning: true,
        reason: Name::new_static("OwnerRefInvalidNamespace"),
        message: format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] \
             does not exist in namespace {namespace:?}"
        ),
    }
}

/// Deletes the object if it has lost all its owners; removes references to lost ones if it has
/// others.
fn judge(cache: &Cache, object: &Object, plan: &mut Plan) {
    let references = object.meta().owner_references.iter().flatten();
    let owners: Vec<(&OwnerReference, Owner)> =
        references.map(|owner| (owner, classify(cache, object, owner))).collect();
    let strangers = elsewhere(cache, object, &owners);
    let told = strangers.into_iter().take(EVENTS_MAX);
    plan.events.extend(told.map(|owner| invalid_namespace(object, owner)));
    let (mut solid, mut lost, mut waiting) = (false, BTreeSet::new(), BTreeSet::new());
    let mut unsure = BTreeSet::new();
    for (owner, state) in owners {
        match state {
            Owner::Solid => solid = true,
            Owner::Gone => drop(lost.insert(owner.uid.as_str())),
            Owner::Waiting => drop(waiting.insert(owner.uid.as_str())),
            Owner::Unsure(kind) => drop(unsure.insert(kind)),
        }
    }
    if !unsure.is_empty() {
        for kind in unsure {
            plan.request(Request::ReadRevision(kind));
        }
    } else if solid {
        if !lost.is_empty() || !waiting.is_empty() {
            let dropped = |o: &OwnerReference| {
                lost.contains(o.uid.as_str()) || waiting.contains(o.uid.as_str())
            };
            plan.request(without_owners(object, dropped));
        }
    } else if !waiting.is_empty() && cache.owned_objects(object.uid()).next().is_some() {
        // In a cycle everybody would wait for everybody: this object waits for the others, and
        // they do not wait for it.
        let cycle = cache.owned_objects(object.uid()).any(|o| is_held(o.meta()));
        if cycle && blocks(object) {
            plan.request(unblocking(object));
        } else {
            plan.request(delete(object, Propagation::Foreground));
        }
    } else {
        let meta = object.meta();
        let propagation = if has_finalizer(meta, ORPHAN) {
            Propagation::Orphan
        } else if has_finalizer(meta, FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        plan.request(delete(object, propagation));
    }
}

fn blocks(object: &Object) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners.into_iter().any(|o| o.block_owner_deletion == Some(true))
}

fn unblocking(object: &Object) -> Request {
    let mut object = object.clone();
    for owner in object.meta_mut().owner_references.iter_mut().flatten() {
        owner.block_owner_deletion = Some(false);
    }
    Request::Update { object, subresource: None }
}

fn without_owners(object: &Object, dropped: impl Fn(&OwnerReference) -> bool) -> Request {
    let mut object = object.clone();
    let meta = object.meta_mut();
    if let Some(owners) = &mut meta.owner_references {
        owners.retain(|o| !dropped(o));
        if owners.is_empty() {
            meta.owner_references = None;
        }
    }
    Request::Update { object, subresource: None }
}

fn without_finalizer(object: &Object, name: &str) -> Request {
    let mut object = object.clone();
    let meta = object.meta_mut();
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|f| f != name);
        if finalizers.is_empty() {
            meta.finalizers = None;
        }
    }
    Request::Update { object, subresource: None }
}

/// Deletes the object unless it changed: it may have been given a new owner.
fn delete(object: &Object, propagation: Propagation) -> Request {
    Request::Delete {
        key: object.key(),
        uid: Some(object.uid().to_owned()),
        revision: Some(object.revision()),
        grace_seconds: None,
        propagation: Some(propagation),
    }
}

/// What the object owns: of its own namespace, if it has one.
fn dependents<'a>(cache: &'a Cache, owner: &'a Object) -> impl Iterator<Item = &'a Object> {
    let namespace = owner.meta().namespace.as_deref().filter(|n| !n.is_empty());
    cache
        .owned_objects(owner.uid())
        .filter(move |o| namespace.is_none() || o.meta().namespace.as_deref() == namespace)
}

fn orphan_dependents(cache: &Cache, owner: &Object, plan: &mut Plan) {
    for dependent in dependents(cache, owner).take(BURST_MAX) {
        plan.request(without_owners(dependent, |o| o.uid == owner.uid()));
    }
    finish(cache, owner, ORPHAN, plan);
}

/// The objects that keep the owner from going.
fn blocking<'a>(cache: &'a Cache, owner: &'a Object) -> impl Iterator<Item = &'a Object> {
    dependents(cache, owner).filter(|o| {
        let mut owners = o.meta().owner_references.iter().flatten();
        owners.any(|r| r.uid == owner.uid() && r.block_owner_deletion == Some(true))
    })
}

fn wait_for_dependents(cache: &Cache, owner: &Object, plan: &mut Plan) {
    // Its dependents are judged under keys of their own.
    if blocking(cache, owner).all(|dependent| waits_for(cache, dependent, owner)) {
        finish(cache, owner, FOREGROUND, plan);
    }
}

/// Whether the dependent waits for its owner in turn, itself or through others: in a circle nobody
/// can be the first, and all may go. (In Kubernetes they stay for ever.)
fn waits_for(cache: &Cache, dependent: &Object, owner: &Object) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![dependent]);
    while let Some(object) = next.pop() {
        if object.uid() == owner.uid() {
            return true;
        }
        let waits = meta::is_terminating(object.meta()) && has_finalizer(object.meta(), FOREGROUND);
        if waits && seen.len() < CIRCLE_MAX && seen.insert(object.uid()) {
            next.extend(blocking(cache, object));
        }
    }
    false
}

/// Lets the owner go when all watches have come as far as its deletion: then no dependent is
/// unknown.
fn finish(cache: &Cache, owner: &Object, finalizer: &str, plan: &mut Plan) {
    if !plan.requests.is_empty() {
        return;
    }
    for kind in KINDS.iter().filter(|k| cache.revision(**k) < owner.revision()) {
        plan.request(Request::ReadRevision(*kind));
    }
    if plan.requests.is_empty() {
        plan.request(without_finalizer(owner, finalizer));
    }
}

#[cfg(test)]
mod tests;
