//! Questions about an object's metadata that every component asks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::{ApiObject, Time};

/// The owner reference with `controller: true`.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// Whether deletion has been asked for.
pub const fn is_terminating(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// When the object was created; the epoch when it was never stored.
pub fn created_at(meta: &ObjectMeta) -> Time {
    meta.creation_timestamp.as_ref().map(Time::from_meta).unwrap_or_default()
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The reference by which a child names `owner` as its controller.
pub fn controller_reference<T: ApiObject>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::KIND.api_version().to_owned(),
        kind: T::KIND.name().to_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether two states of an object's metadata differ in nothing but the version and what the server
/// notes of writers.
pub fn is_same_but_version(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    // All fields are named, so that one that is new is not forgotten.
    let ObjectMeta {
        annotations,
        creation_timestamp,
        deletion_grace_period_seconds,
        deletion_timestamp,
        finalizers,
        generate_name,
        generation,
        labels,
        managed_fields: _,
        name,
        namespace,
        owner_references,
        resource_version: _,
        self_link,
        uid,
    } = old;
    *deletion_timestamp == new.deletion_timestamp
        && *deletion_grace_period_seconds == new.deletion_grace_period_seconds
        && *generation == new.generation
        && *labels == new.labels
        && *annotations == new.annotations
        && *finalizers == new.finalizers
        && *owner_references == new.owner_references
        && *creation_timestamp == new.creation_timestamp
        && (uid, name, namespace) == (&new.uid, &new.name, &new.namespace)
        && (generate_name, self_link) == (&new.generate_name, &new.self_link)
}
