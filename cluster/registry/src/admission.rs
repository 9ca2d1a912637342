//! The admission plugins that are always on, each a pure function over the same view.
//!
//! They run in Kubernetes' order: NamespaceLifecycle, LimitRanger, ServiceAccount, NodeRestriction,
//! TaintNodesByCondition, Priority, DefaultTolerationSeconds, StorageObjectInUseProtection, the
//! certificate plugins, DefaultStorageClass, PersistentVolumeClaimResize, RBAC's check against
//! escalation, and, when all else is known to be right, ResourceQuota.

use api::{Object, Status, Subresource};

pub(crate) mod certificates;
mod escalation;
pub(crate) mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
pub(crate) mod quota;
mod service_account;
mod storage;
mod tolerations;

use crate::Caller;
use crate::admit::Context;

/// Refuses an object whose namespace does not exist or is going.
pub(crate) fn namespace_exists(context: Context<'_>, object: &Object) -> Result<(), Status> {
    namespace_lifecycle::create(context, object)
}

/// Completes and checks an object that is created; the spec of a pod may be `known` to have its
/// priority.
pub(crate) fn create(context: Context<'_>, object: &mut Object, known: bool) -> Result<(), Status> {
    service_account::create(context, object)?;
    node_restriction::create(context, object)?;
    tolerations::taint_new_node(object);
    if !known {
        priority::create(context, object)?;
    }
    tolerations::tolerate(object);
    storage::protect(object);
    certificates::create(object)?;
    storage::default_class(context, object);
    escalation::check(context, object, None)
}

/// Completes and checks an object that is updated.
pub(crate) fn update(
    context: Context<'_>,
    new: &mut Object,
    old: &Object,
    subresource: Option<Subresource>,
) -> Result<(), Status> {
    node_restriction::update(context, new, old, subresource)?;
    certificates::update(context, new, old, subresource)?;
    escalation::check(context, new, Some(old))?;
    if subresource.is_none() {
        storage::resize(context, new, old)?;
        priority::update(new, old);
        tolerations::tolerate(new);
    }
    Ok(())
}

/// Checks an object that is complete and valid, and is to take the place of `old`.
pub(crate) fn check(
    context: Context<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    limit_ranger::check(context, object, old)?;
    priority::only_default(context, object, old)
}

/// Checks a deletion.
pub(crate) fn delete(context: Context<'_>, object: &Object) -> Result<(), Status> {
    namespace_lifecycle::delete(object)?;
    node_restriction::delete(context, object)
}

/// Checks the eviction of a pod.
pub(crate) fn evict(caller: &Caller, pod: &Object) -> Result<(), Status> {
    node_restriction::evict(caller, pod)
}

/// Checks the assignment of a pod to a node.
pub(crate) fn bind(context: Context<'_>, pod: &str) -> Result<(), Status> {
    node_restriction::bind(context, pod)
}

/// Refuses with the name the object has or will get.
fn forbidden(object: &Object, why: &str) -> Status {
    let meta = object.meta();
    let name = meta.name.as_deref().filter(|n| !n.is_empty());
    let name = name.or(meta.generate_name.as_deref()).unwrap_or_default();
    Status::forbidden(object.kind(), name, why)
}
