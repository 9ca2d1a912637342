//! Events about objects and about the outcome of writes.

use api::{ApiObject, Key, Revision};
use k8s_openapi::api::core::v1::ObjectReference;
use machine::{Announcement, Record, Regarding};

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

fn regarding<T: ApiObject>(object: &T) -> Regarding {
    let meta = object.meta();
    let text = |text: &'_ Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let key = Key::new(T::KIND, &text(&meta.namespace), &text(&meta.name));
    Regarding {
        revision: meta.resource_version.as_deref().and_then(Revision::parse),
        ..Regarding::object(&key, meta.uid.as_deref().unwrap_or_default())
    }
}

/// A normal event about the object.
pub(crate) fn normal<T: ApiObject>(object: &T, reason: &str, message: String) -> Record {
    Record { regarding: regarding(object), warning: false, reason: reason.into(), message }
}

/// A warning about the object.
pub(crate) fn warning<T: ApiObject>(object: &T, reason: &str, message: String) -> Record {
    Record { warning: true, ..normal(object, reason, message) }
}

/// Tells of a write if it is refused; why is appended to the message.
pub(crate) const fn when_refused(record: Record) -> Announcement {
    Announcement { done: None, refused: Some(record) }
}

/// Tells of a write once it is carried out.
pub(crate) const fn when_done(record: Record) -> Announcement {
    Announcement { done: Some(record), refused: None }
}
