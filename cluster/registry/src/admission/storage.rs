//! Storage: volumes and claims are protected while in use, claims get the default class, and grow
//! only if their class allows it.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/storage`.

use std::sync::Arc;

use api::volume::{CLAIM_FINALIZER, VOLUME_FINALIZER, claim_phase, class_of_claim, requested};
use api::{Key, Kind, Object, Status, volume};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::forbidden;
use crate::admit::Context;

/// Gives a new volume or claim the finalizer that a controller takes away when nobody uses it.
pub(super) fn protect(object: &mut Object) {
    let finalizer = match object.kind() {
        Kind::PersistentVolume => VOLUME_FINALIZER,
        Kind::PersistentVolumeClaim => CLAIM_FINALIZER,
        _ => return,
    };
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

/// Gives a claim that names no class the default one, if there is one.
pub(super) fn default_class(context: Context<'_>, object: &mut Object) {
    let Object::PersistentVolumeClaim(claim) = object else { return };
    if class_of_claim(claim).is_some() {
        return;
    }
    let classes = context.view.list(Kind::StorageClass, "");
    let class = volume::default_class(classes.iter().filter_map(Object::get::<StorageClass>));
    if let Some(name) = class.and_then(|class| class.metadata.name.clone()) {
        Arc::make_mut(claim).spec.get_or_insert_default().storage_class_name = Some(name);
    }
}

/// Refuses to let a claim grow whose class does not allow it.
pub(super) fn resize(context: Context<'_>, new: &Object, old: &Object) -> Result<(), Status> {
    let (Object::PersistentVolumeClaim(claim), Object::PersistentVolumeClaim(old)) = (new, old)
    else {
        return Ok(());
    };
    if requested(claim) <= requested(old) {
        return Ok(());
    }
    if claim_phase(old) != "Bound" {
        return Err(forbidden(new, "Only bound persistent volume claims can be expanded"));
    }
    if may_grow(context, claim, old) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that \
               provisions the pvc must support resize";
    Err(forbidden(new, why))
}

fn may_grow(
    context: Context<'_>,
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
) -> bool {
    let Some(name) = class_of_claim(new).filter(|name| !name.is_empty()) else { return false };
    let class = context.view.get(&Key::cluster(Kind::StorageClass, name));
    let class = class.as_ref().and_then(Object::get::<StorageClass>);
    class_of_claim(old) == Some(name)
        && class.is_some_and(|class| class.allow_volume_expansion == Some(true))
}
