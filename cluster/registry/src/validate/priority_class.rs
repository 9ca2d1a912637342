//! Priority classes.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::field::{Causes, Path};
use crate::priority_class::{PREEMPT, SYSTEM_PREFIX, USER_VALUE_MAX, system_value};

/// What holds for a new class. An update is not held to it, so that one of the system's classes
/// can be made the default.
pub(super) fn create(class: &PriorityClass, causes: &mut Causes) {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if name.starts_with(SYSTEM_PREFIX) {
        if let Some(why) = why_not_the_systems(name, class) {
            let detail = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use \
                 only. error: {why}"
            );
            causes.forbidden(&Path::new("metadata").child("name"), &detail);
        }
    } else if class.value > USER_VALUE_MAX {
        let detail =
            format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
        causes.forbidden(&Path::new("value"), &detail);
    }
    if let Some(policy) = &class.preemption_policy {
        preemption_policy(policy, &Path::new("preemptionPolicy"), causes);
    }
}

fn why_not_the_systems(name: &str, class: &PriorityClass) -> Option<String> {
    let Some(value) = system_value(name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.value != value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    (class.global_default == Some(true))
        .then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

/// What holds between the old class and the new one.
pub(super) fn update(new: &PriorityClass, old: &PriorityClass, causes: &mut Causes) {
    if new.value != old.value {
        causes.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    let at = Path::new("preemptionPolicy");
    causes.immutable(&at, &new.preemption_policy, &old.preemption_policy);
}

/// Whether pods may displace others is one of two.
pub(super) fn preemption_policy(policy: &str, path: &Path<'_>, causes: &mut Causes) {
    const POLICIES: [&str; 2] = [PREEMPT, "Never"];
    if policy.is_empty() {
        causes.required(path, "");
    } else if !POLICIES.contains(&policy) {
        causes.not_supported(path, policy, &POLICIES);
    }
}
