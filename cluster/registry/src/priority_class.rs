//! The priority classes that every cluster has.
//!
//! Source: kubernetes 1.33, `pkg/apis/scheduling/types.go` and `pkg/apis/scheduling/v1/helpers.go`.

use api::{ApiObject, Key, Kind, Object, Status};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The highest value of a class that is not the system's.
pub const USER_VALUE_MAX: i32 = 1_000_000_000;

/// What the names of the system's classes start with, and no others.
pub(crate) const SYSTEM_PREFIX: &str = "system-";
/// The policy of classes that name none, and of pods without a class.
pub(crate) const PREEMPT: &str = "PreemptLowerPriority";

/// Name, value and description of the system's classes.
const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
];

/// The classes of the system, in the order in which they are created.
pub fn system_classes() -> impl Iterator<Item = Object> {
    SYSTEM.into_iter().map(|(name, value, description)| {
        let class = PriorityClass {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            value,
            description: Some(description.to_owned()),
            ..PriorityClass::default()
        };
        class.into_object()
    })
}

/// The value of the system's class of that name.
pub(crate) fn system_value(name: &str) -> Option<i32> {
    SYSTEM.into_iter().find(|(known, ..)| *known == name).map(|(_, value, _)| value)
}

/// Refuses to delete what the system cannot do without, whether it is there or not.
///
/// Source: kubernetes 1.33, `pkg/registry/scheduling/priorityclass/storage`.
///
/// # Errors
/// The key is that of a class of the system.
pub(crate) fn check_deletion(key: &Key) -> Result<(), Status> {
    if key.kind == Kind::PriorityClass && system_value(&key.name).is_some() {
        let why = "this is a system priority class and cannot be deleted";
        return Err(Status::forbidden(key.kind, &key.name, why));
    }
    Ok(())
}
