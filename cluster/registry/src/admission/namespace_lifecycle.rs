//! NamespaceLifecycle: objects live only in namespaces that exist and stay.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use api::{Cause, Key, Kind, Object, Status};
use k8s_openapi::api::core::v1::Namespace;

use super::forbidden;
use crate::admit::Context;

/// Namespaces that nobody may delete.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn create(context: Context<'_>, object: &Object) -> Result<(), Status> {
    let name = object.meta().namespace.as_deref().unwrap_or_default();
    if !object.kind().namespaced() || name.is_empty() {
        return Ok(());
    }
    let Some(found) = context.view.get(&Key::cluster(Kind::Namespace, name)) else {
        return Err(Status::not_found(Kind::Namespace, name));
    };
    let Some(namespace) = found.get::<Namespace>() else { return Ok(()) };
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase != Some("Terminating") && namespace.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = forbidden(object, &why);
    status.causes = vec![Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_owned(),
    }];
    Err(status)
}

pub(super) fn delete(object: &Object) -> Result<(), Status> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    if object.kind() == Kind::Namespace && IMMORTAL.contains(&name) {
        return Err(forbidden(object, "this namespace may not be deleted"));
    }
    Ok(())
}
