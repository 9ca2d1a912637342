//! Priority: the built-in priority classes.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/priority`.

use std::sync::Arc;

use api::{Object, Status};
use k8s_openapi::api::core::v1::PodSpec;

use super::forbidden;

const PREEMPT: &str = "PreemptLowerPriority";

/// The value of a priority class; the classes of the system are the only ones.
fn value_of(class: &str) -> Option<i32> {
    match class {
        "" => Some(0),
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    }
}

pub(super) fn create(object: &mut Object) -> Result<(), Status> {
    let Object::Pod(pod) = &*object else { return Ok(()) };
    let Some(spec) = &pod.spec else { return Ok(()) };
    let value = check(spec).map_err(|why| forbidden(object, &why))?;
    if spec.priority == Some(value) && spec.preemption_policy.is_some() {
        return Ok(());
    }
    if let Object::Pod(pod) = object {
        let spec = Arc::make_mut(pod).spec.get_or_insert_default();
        spec.priority = Some(value);
        spec.preemption_policy = Some(PREEMPT.to_owned());
    }
    Ok(())
}

fn check(spec: &PodSpec) -> Result<i32, String> {
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    let value =
        value_of(class).ok_or_else(|| format!("no PriorityClass with name {class} was found"))?;
    if let Some(given) = spec.priority.filter(|p| *p != value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let Some(given) = spec.preemption_policy.as_deref().filter(|p| *p != PREEMPT) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {PREEMPT} from the given PriorityClass name"
        ));
    }
    Ok(value)
}

/// Callers that do not know what was computed keep it.
pub(super) fn update(new: &mut Object, old: &Object) {
    let (Object::Pod(new), Object::Pod(old)) = (new, old) else { return };
    let Some(old) = &old.spec else { return };
    let stays = |spec: &PodSpec| {
        (spec.priority.is_some() || old.priority.is_none())
            && (spec.preemption_policy.is_some() || old.preemption_policy.is_none())
    };
    if new.spec.as_deref().is_some_and(stays) {
        return;
    }
    let spec = Arc::make_mut(new).spec.get_or_insert_default();
    if spec.priority.is_none() {
        spec.priority = old.priority;
    }
    if spec.preemption_policy.is_none() {
        spec.preemption_policy.clone_from(&old.preemption_policy);
    }
}
