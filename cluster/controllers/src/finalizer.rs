//! Finalizers that controllers give to objects and take away again.

use api::{Object, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether the object waits for that finalizer before it goes.
pub(crate) fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// The write that gives the object the finalizer.
pub(crate) fn added(object: &Object, finalizer: &str) -> Request {
    let mut object = object.clone();
    object.meta_mut().finalizers.get_or_insert_default().push(finalizer.to_owned());
    Request::Update { object, subresource: None }
}

/// The write that takes the finalizer away from the object.
pub(crate) fn removed(object: &Object, finalizer: &str) -> Request {
    let mut object = object.clone();
    let meta = object.meta_mut();
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|f| f != finalizer);
        if finalizers.is_empty() {
            meta.finalizers = None;
        }
    }
    Request::Update { object, subresource: None }
}
