//! The flow of one write: defaults, admission, preparation, allocation, validation.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/registry/generic/registry/store.go` and
//! `k8s.io/apiserver/pkg/registry/rest`.

use std::sync::Arc;

use api::{Key, Kind, Object, Pod, Shared, Status, Subresource};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{PodSpec, Service};

mod bind;
mod patched;

use crate::operation::{Caller, Mutation, Operation, Options, Stamp, View};
use crate::{
    admission, allocate, defaults, deletion, evict, meta, prepare, priority_class, scale, strategy,
    validate, versions,
};

/// What every step of one write may look at.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) view: &'a dyn View,
    pub(crate) caller: &'a Caller,
    pub(crate) options: &'a Options,
    pub(crate) stamp: Stamp,
}

/// Decides one write: what must be stored, or why it is refused.
///
/// `current` is the object at [`Operation::key`] as committed. The object of a
/// [`Mutation::Put`] carries the revision it was derived from, or none when it is new; the store
/// replaces it by its own. Answers to `/scale` are made with [`scale::of`].
///
/// # Errors
/// The refusal, as Kubernetes words it.
pub fn admit(
    operation: &Operation,
    current: Option<&Object>,
    view: &dyn View,
    caller: &Caller,
    options: &Options,
    stamp: Stamp,
) -> Result<Mutation, Status> {
    let context = Context { view, caller, options, stamp };
    let kind = operation.kind();
    if !kind.info().stored {
        return Err(Status::no_route());
    }
    match operation {
        Operation::Create { object } => {
            create(context, versions::to_stored(object.clone())?, current)
        }
        Operation::Update { key, object, subresource } => {
            let object = versions::to_stored(object.clone())?;
            update(context, &stored(key), object, *subresource, current)
        }
        Operation::Patch { key, subresource, patch, strict } => {
            let served = key.kind;
            let key = &stored(key);
            let current = found(key, current)?;
            check_served(served, *subresource)?;
            let shown = (served != key.kind).then(|| versions::of_stored(served, current));
            let object =
                patched::patched(shown.as_ref().unwrap_or(current), *subresource, patch, *strict)?;
            let object = versions::to_stored(object)?;
            update(context, key, object, *subresource, Some(current))
        }
        Operation::Delete { key, options } => {
            priority_class::check_deletion(key)?;
            let current = found(&stored(key), current)?;
            admission::delete(context, current)?;
            deletion::delete(current, options, stamp)
        }
        Operation::Bind { pod, binding } => bind::bind(context, found(pod, current)?, binding),
        Operation::Disrupt { pod, options } => {
            evict::mark(found(pod, current)?, options, stamp.now)
        }
    }
}

/// The key under which an object is stored, whatever version it is called by.
fn stored(key: &Key) -> Key {
    Key { kind: key.kind.stored_as(), ..key.clone() }
}

fn found<'a>(key: &Key, current: Option<&'a Object>) -> Result<&'a Object, Status> {
    current.ok_or_else(|| Status::not_found(key.kind, &key.name))
}

fn check_served(kind: Kind, subresource: Option<Subresource>) -> Result<(), Status> {
    match subresource {
        Some(subresource) if !strategy::serves(kind, subresource) => Err(Status::no_route()),
        _ => Ok(()),
    }
}

fn create(
    context: Context<'_>,
    mut object: Object,
    current: Option<&Object>,
) -> Result<Mutation, Status> {
    let kind = object.kind();
    admission::namespace_exists(context, &object)?;
    let limited = admission::limit_ranger::concerns(context, &object);
    let known = spec_of_pod(&object).filter(|_| !limited);
    let made = known.and_then(|spec| context.view.made_of(spec));
    match (&mut object, &made) {
        (Object::Pod(pod), Some(made)) => {
            let pod = Arc::make_mut(pod);
            meta::tidy(&mut pod.metadata);
            pod.spec = Some(made.clone());
        }
        _ => defaults::apply(&mut object)?,
    }
    if limited {
        admission::limit_ranger::create(context, &mut object);
    }
    prepare::for_create(&mut object, context.caller, context.stamp.now);
    meta::fill_for_create(&mut object, context.view, context.stamp)?;
    prepare::with_identity(&mut object);
    // A generated name is part of what other defaults derive from.
    if object.meta().generate_name.is_some() && kind == Kind::Namespace {
        defaults::apply(&mut object)?;
    }
    admission::create(context, &mut object, made.is_some())?;
    allocate_for(context, &mut object, None)?;
    let name = object.meta().name.as_deref().unwrap_or_default();
    let known = made.is_some_and(|made| spec_of_pod(&object).is_some_and(|s| s.is_same(&made)));
    validate::create(&object, known, context.options).into_result(kind, name)?;
    admission::check(context, &object, None)?;
    if let Some(current) = current {
        let mut status = Status::already_exists(kind, name);
        if current.meta().deletion_timestamp.is_some() {
            status.message.insert_str(0, "object is being deleted: ");
        }
        return Err(status);
    }
    let charges = admission::quota::charge(context, &object, None)?;
    let claims = allocate::claims(&object, None);
    Ok(Mutation::Put { object, claims, charges })
}

fn spec_of_pod(object: &Object) -> Option<&Shared<PodSpec>> {
    object.get::<Pod>()?.spec.as_ref()
}

fn allocate_for(
    context: Context<'_>,
    object: &mut Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let Object::Service(service) = object else { return Ok(()) };
    let service = Arc::make_mut(service);
    let old = old.and_then(Object::get::<Service>);
    allocate::service(service, old, context.view, context.options, context.stamp)
}

fn update(
    context: Context<'_>,
    key: &Key,
    object: Object,
    subresource: Option<Subresource>,
    current: Option<&Object>,
) -> Result<Mutation, Status> {
    check_served(key.kind, subresource)?;
    check_address(key, &object)?;
    let Some(current) = current else {
        if subresource.is_none() && strategy::of(key.kind).create_on_update {
            return create_by_update(context, key, object);
        }
        return Err(Status::not_found(key.kind, &key.name));
    };
    let mut new = match subresource {
        Some(Subresource::Scale) => scaled(current, &object)?,
        _ if object.kind() == key.kind => object,
        _ => return Err(Status::bad_request(wrong_kind(key.kind, object.kind()))),
    };
    meta::check_preconditions(&new, current)?;
    defaults::apply_to_update(&mut new, current)?;
    meta::carry_over(new.meta_mut(), current.meta());
    prepare::for_update(&mut new, current, subresource, context.stamp);
    admission::update(context, &mut new, current, subresource)?;
    if subresource.is_none() {
        allocate_for(context, &mut new, Some(current))?;
    }
    if strategy::of(key.kind).generation && strategy::desired_state_changed(&new, current) {
        let generation = current.meta().generation.unwrap_or(0);
        new.meta_mut().generation = Some(generation + 1);
    }
    let mut causes = meta::validate_update(new.meta(), current.meta());
    causes.extend(validate::update(&new, current, subresource, context.options));
    causes.into_result(key.kind, &key.name)?;
    if subresource.is_none() {
        admission::check(context, &new, Some(current))?;
    }
    if new == *current {
        return Ok(Mutation::Unchanged(new));
    }
    if let Some(removal) = deletion::after_update(new.clone(), current) {
        return Ok(removal);
    }
    if subresource.is_some() {
        return Ok(Mutation::put(new));
    }
    let charges = admission::quota::charge(context, &new, Some(current))?;
    let claims = allocate::claims(&new, Some(current));
    Ok(Mutation::Put { object: new, claims, charges })
}

fn create_by_update(
    context: Context<'_>,
    key: &Key,
    mut object: Object,
) -> Result<Mutation, Status> {
    if object.kind() != key.kind {
        return Err(Status::bad_request(wrong_kind(key.kind, object.kind())));
    }
    let meta = object.meta_mut();
    if !matches!(meta.resource_version.as_deref(), None | Some("" | "0")) || meta.uid.is_some() {
        // The caller has read the object: it has been deleted since.
        return Err(Status::not_found(key.kind, &key.name));
    }
    meta.name = Some(key.name.to_string());
    if key.kind.namespaced() {
        meta.namespace = Some(key.namespace.to_string());
    }
    create(context, object, None)
}

fn wrong_kind(path: Kind, body: Kind) -> String {
    format!("{body} in version {:?} cannot be handled as a {path}", body.info().version)
}

/// The name and namespace in the object must be those of the path.
fn check_address(key: &Key, object: &Object) -> Result<(), Status> {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    if name != &*key.name {
        if name.is_empty() {
            return Err(Status::bad_request("name must be provided"));
        }
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() && namespace != &*key.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the \
             request ({})",
            key.namespace
        )));
    }
    Ok(())
}

/// The current object with the replica count of a `Scale`.
fn scaled(current: &Object, object: &Object) -> Result<Object, Status> {
    let Some(scale) = object.get::<Scale>().filter(|_| scale::can(current.kind())) else {
        return Err(Status::bad_request("wrong object passed to Scale update"));
    };
    let name = current.key().name;
    validate::scale(scale).into_result(Kind::Scale, &name)?;
    let mut new = scale::apply(current, scale);
    let meta = new.meta_mut();
    meta.resource_version.clone_from(&scale.metadata.resource_version);
    if scale.metadata.uid.is_some() {
        meta.uid.clone_from(&scale.metadata.uid);
    }
    Ok(new)
}

#[cfg(test)]
mod tests;
