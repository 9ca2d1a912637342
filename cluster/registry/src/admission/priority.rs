//! Priority: pods take their priority from their class, and of classes one is the default.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/priority`.

use std::sync::Arc;

use api::{Key, Kind, Object, Status};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::forbidden;
use crate::admit::Context;
use crate::operation::View;
use crate::priority_class::PREEMPT;

/// What a pod takes from its class.
struct Priority {
    /// The class that the pod did not name, but gets.
    class: Option<String>,
    value: i32,
    policy: Option<String>,
}

/// Gives a new pod the priority of its class.
pub(super) fn create(context: Context<'_>, object: &mut Object) -> Result<(), Status> {
    let Object::Pod(pod) = &*object else { return Ok(()) };
    let Some(spec) = &pod.spec else { return Ok(()) };
    let priority = priority_of(context.view, spec).and_then(|p| check(spec, &p).map(|()| p));
    let Priority { class, value, policy } = priority.map_err(|why| forbidden(object, &why))?;
    if class.is_none() && spec.priority == Some(value) && spec.preemption_policy == policy {
        return Ok(());
    }
    if let Object::Pod(pod) = object {
        let spec = Arc::make_mut(pod).spec.get_or_insert_default();
        if class.is_some() {
            spec.priority_class_name = class;
        }
        spec.priority = Some(value);
        if policy.is_some() {
            spec.preemption_policy = policy;
        }
    }
    Ok(())
}

fn priority_of(view: &dyn View, spec: &PodSpec) -> Result<Priority, String> {
    let name = spec.priority_class_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(match default_class(view).as_ref().and_then(Object::get::<PriorityClass>) {
            Some(class) => Priority { class: class.metadata.name.clone(), ..of_class(class) },
            None => Priority { class: None, value: 0, policy: Some(PREEMPT.to_owned()) },
        });
    }
    let found = view.get(&Key::cluster(Kind::PriorityClass, name));
    let class = found.as_ref().and_then(Object::get::<PriorityClass>);
    class.map(of_class).ok_or_else(|| format!("no PriorityClass with name {name} was found"))
}

fn of_class(class: &PriorityClass) -> Priority {
    Priority { class: None, value: class.value, policy: class.preemption_policy.clone() }
}

/// The class of pods that name none; of several, which only a race can make, the one of the lowest
/// value. Classes are few, so they are looked through.
fn default_class(view: &dyn View) -> Option<Object> {
    let value_of = |object: &Object| {
        let class = object.get::<PriorityClass>()?;
        (class.global_default == Some(true)).then_some(class.value)
    };
    let classes = view.list(Kind::PriorityClass, "").into_iter();
    let defaults = classes.filter_map(|class| Some((value_of(&class)?, class)));
    defaults.min_by_key(|(value, _)| *value).map(|(_, class)| class)
}

fn check(spec: &PodSpec, priority: &Priority) -> Result<(), String> {
    let Priority { value, policy, .. } = priority;
    if let Some(given) = spec.priority.filter(|given| given != value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let (Some(given), Some(policy)) = (&spec.preemption_policy, policy)
        && given != policy
    {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    Ok(())
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

/// Refuses a default class beside another one; `old` is the class as it was, if it is there
/// already.
pub(super) fn only_default(
    context: Context<'_>,
    class: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if class.get::<PriorityClass>().is_none_or(|class| class.global_default != Some(true)) {
        return Ok(());
    }
    let Some(default) = default_class(context.view) else { return Ok(()) };
    let name = default.key().name;
    if old.is_some_and(|old| old.key().name == name) {
        return Ok(());
    }
    let why =
        format!("PriorityClass {name} is already marked as default. Only one default can exist");
    Err(forbidden(class, &why))
}
