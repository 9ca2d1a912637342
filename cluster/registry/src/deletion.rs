//! Deletion: at once, gracefully, or after the finalizers.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/registry/rest/delete.go`,
//! `…/generic/registry/store.go` and the namespace and pod registries.

use std::sync::Arc;
use std::time::Duration;

use api::{Object, Pod, Propagation, Status, Time};

use crate::allocate;
use crate::meta::{FOREGROUND, ORPHAN};
use crate::operation::{Claims, DeleteOptions, Mutation, Stamp};
use crate::strategy;

/// Deletes the object, or starts to.
///
/// # Errors
/// A precondition that does not hold.
pub(crate) fn delete(
    current: &Object,
    options: &DeleteOptions,
    stamp: Stamp,
) -> Result<Mutation, Status> {
    check_preconditions(current, options)?;
    if let Object::Namespace(namespace) = current {
        let pending = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        if current.meta().deletion_timestamp.is_none() {
            return Ok(terminate_namespace(current, options, stamp.now));
        }
        if pending.is_some_and(|f| !f.is_empty()) {
            return Ok(Mutation::Unchanged(current.clone()));
        }
    }
    let mut object = current.clone();
    let step = match current {
        Object::Pod(pod) => begin_graceful(pod, &mut object, options, stamp.now),
        _ => Step::Now,
    };
    if matches!(step, Step::Pending) {
        return Ok(Mutation::Unchanged(current.clone()));
    }
    let finalizers = finalizers_for(current, options);
    let pending = !finalizers.is_empty();
    let finalizers = pending.then_some(finalizers);
    if object.meta().finalizers != finalizers {
        object.meta_mut().finalizers = finalizers;
    }
    match step {
        Step::Graceful { seconds } if seconds > 0 || pending => Ok(put(object, current)),
        Step::Now if pending => {
            mark(&mut object, stamp.now);
            Ok(put(object, current))
        }
        _ => Ok(remove(object)),
    }
}

/// What a deletion does next.
enum Step {
    /// The object is on its way already.
    Pending,
    /// The object has this long to end.
    Graceful { seconds: i64 },
    /// Nothing keeps the object, finalizers apart.
    Now,
}

/// Refuses to delete another object, or another state of it, than was meant.
pub(crate) fn check_preconditions(current: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let kind = current.kind();
    let name = current.meta().name.as_deref().unwrap_or_default();
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current.uid()) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The \
             object might have been deleted and then recreated",
            current.uid()
        );
        return Err(Status::conflict(kind, name, &why));
    }
    if let Some(revision) = options.revision.filter(|r| *r != current.revision()) {
        let why = format!(
            "the ResourceVersion in the precondition ({revision}) does not match the \
             ResourceVersion in record ({}). The object might have been modified",
            current.revision()
        );
        return Err(Status::conflict(kind, name, &why));
    }
    Ok(())
}

/// A namespace is first marked; its content goes next, and the namespace last.
fn terminate_namespace(current: &Object, options: &DeleteOptions, now: Time) -> Mutation {
    let mut object = current.clone();
    let finalizers = finalizers_for(current, options);
    let meta = object.meta_mut();
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    meta.deletion_timestamp = Some(now.to_meta());
    if let Object::Namespace(o) = &mut object {
        let namespace = Arc::make_mut(o);
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }
    put(object, current)
}

fn begin_graceful(pod: &Pod, object: &mut Object, options: &DeleteOptions, now: Time) -> Step {
    let old = &pod.metadata;
    let wanted = options.grace_seconds.map(|s| if s < 0 { 1 } else { s });
    let Some(deadline) = &old.deletion_timestamp else {
        let seconds = grace_of(pod, wanted);
        let meta = object.meta_mut();
        let span = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        meta.deletion_timestamp = Some((now + span).to_meta());
        meta.deletion_grace_period_seconds = Some(seconds);
        if let Some(generation) = meta.generation.filter(|g| *g > 0) {
            meta.generation = Some(generation + 1);
        }
        return Step::Graceful { seconds };
    };
    let before = old.deletion_grace_period_seconds.unwrap_or(0);
    match wanted {
        _ if before == 0 => Step::Now,
        // The time can only become shorter.
        Some(seconds) if seconds < before => {
            let start = Time::from_meta(deadline).0.saturating_sub(nanos(before));
            let meta = object.meta_mut();
            meta.deletion_timestamp = Some(Time(start.saturating_add(nanos(seconds))).to_meta());
            meta.deletion_grace_period_seconds = Some(seconds);
            Step::Graceful { seconds }
        }
        _ => Step::Pending,
    }
}

fn nanos(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000)
}

/// Seconds the pod has to end: none when nothing runs.
fn grace_of(pod: &Pod, wanted: Option<i64>) -> i64 {
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if pod.node_name.is_none() || matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let own = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(0);
    let seconds = wanted.unwrap_or(own);
    if seconds < 0 { 1 } else { seconds }
}

/// The finalizers of the object once its dependents have been thought of.
fn finalizers_for(current: &Object, options: &DeleteOptions) -> Vec<String> {
    let had = current.meta().finalizers.clone().unwrap_or_default();
    let default = strategy::of(current.kind()).propagation;
    let has = |name: &str| had.iter().any(|f| f == name);
    let orphan = match (default, options.propagation) {
        (None, _) => false,
        (Some(_), Some(wanted)) => wanted == Propagation::Orphan,
        (Some(_), None) if has(ORPHAN) => true,
        (Some(_), None) if has(FOREGROUND) => false,
        (Some(default), None) => default == Propagation::Orphan,
    };
    let foreground = match (default, options.propagation) {
        (None, _) => false,
        (Some(_), Some(wanted)) => wanted == Propagation::Foreground,
        (Some(_), None) => has(FOREGROUND) && !has(ORPHAN),
    };
    let own = |f: &String| f != ORPHAN && f != FOREGROUND;
    let mut kept: Vec<String> = had.iter().filter(|f| own(f)).cloned().collect();
    kept.extend(orphan.then(|| ORPHAN.to_owned()));
    kept.extend(foreground.then(|| FOREGROUND.to_owned()));
    // The order of finalizers that stay means nothing; leave it alone.
    let same = kept.len() == had.len() && kept.iter().all(|f| had.contains(f));
    if same { had } else { kept }
}

/// Marks an object that waits for its finalizers.
fn mark(object: &mut Object, now: Time) {
    let meta = object.meta_mut();
    if meta.deletion_grace_period_seconds.is_none()
        && let Some(generation) = meta.generation.filter(|g| *g > 0)
    {
        meta.generation = Some(generation + 1);
    }
    let later = |t: &_| Time::from_meta(t) > now;
    if meta.deletion_timestamp.as_ref().is_none_or(later) {
        meta.deletion_timestamp = Some(now.to_meta());
    }
    meta.deletion_grace_period_seconds = Some(0);
}

fn put(object: Object, current: &Object) -> Mutation {
    if object == *current {
        return Mutation::Unchanged(object);
    }
    Mutation::put(object)
}

fn remove(last: Object) -> Mutation {
    let free = allocate::keys(&last).into_iter().collect();
    Mutation::Remove { last, claims: Claims { take: Vec::new(), free } }
}

/// What an accepted update does: an object that waited for its last finalizer goes.
pub(crate) fn after_update(new: Object, old: &Object) -> Option<Mutation> {
    let (meta, old) = (new.meta(), old.meta());
    let waiting =
        old.deletion_timestamp.is_some() && old.deletion_grace_period_seconds.unwrap_or(0) == 0;
    if !waiting || meta.finalizers.as_ref().is_some_and(|f| !f.is_empty()) {
        return None;
    }
    if let Object::Namespace(namespace) = &new {
        let pending = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        if pending.is_some_and(|f| !f.is_empty()) {
            return None;
        }
    }
    Some(remove(new))
}
