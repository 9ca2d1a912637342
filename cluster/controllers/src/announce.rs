//! Events about objects and about the outcome of writes.

use api::ApiObject;
use k8s_openapi::api::core::v1::ObjectReference;
use machine::{Announcement, Record};

/// A `v1.ObjectReference` to a typed object.
pub(crate) fn reference<T: ApiObject>(object: &T) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(T::KIND.api_version().to_owned()),
        kind: Some(T::KIND.name().to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// A normal event about the object.
pub(crate) fn normal<T: ApiObject>(object: &T, reason: &str, message: String) -> Record {
    Record { regarding: reference(object), warning: false, reason: reason.to_owned(), message }
}

/// A warning about the object.
pub(crate) fn warning<T: ApiObject>(object: &T, reason: &str, message: String) -> Record {
    Record { warning: true, ..normal(object, reason, message) }
}

/// Tells of a write once it is carried out.
pub(crate) const fn when_done(record: Record) -> Announcement {
    Announcement { done: Some(record), refused: None }
}
