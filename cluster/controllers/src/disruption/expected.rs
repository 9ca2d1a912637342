//! How many pods a budget covers, and how many of them must stay healthy.

use std::collections::BTreeMap;

use api::{Kind, Pod, meta};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machine::Cache;

/// What a budget asks of its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// How many pods there are to be.
    pub(super) pods: i32,
    /// How many of them must stay healthy.
    pub(super) desired: i32,
    /// Whether there are pods without a controller, which a share or `maxUnavailable` cannot
    /// account for.
    pub(super) unmanaged: bool,
}

/// Works out what the budget asks of these pods, which are all it selects.
///
/// # Errors
/// Why nobody can tell, in Kubernetes' words.
pub(super) fn expected(
    cache: &Cache,
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
) -> Result<Expected, String> {
    let Some(spec) = &budget.spec else { return Ok(Expected::default()) };
    if let Some(most) = &spec.max_unavailable {
        let mut expected = scale(cache, pods)?;
        let unavailable = scaled(most, expected.pods)?;
        expected.desired = expected.pods.saturating_sub(unavailable).max(0);
        return Ok(expected);
    }
    match &spec.min_available {
        None => Ok(Expected::default()),
        Some(IntOrString::Int(least)) => Ok(Expected {
            pods: i32::try_from(pods.len()).unwrap_or(i32::MAX),
            desired: *least,
            unmanaged: false,
        }),
        Some(least) => {
            let mut expected = scale(cache, pods)?;
            expected.desired = scaled(least, expected.pods)?;
            Ok(expected)
        }
    }
}

/// The replicas that the controllers of the pods ask for, together.
fn scale(cache: &Cache, pods: &[&Pod]) -> Result<Expected, String> {
    // By the UID of a pod's controller: what scales it, by UID.
    let mut known: BTreeMap<&str, (&str, i32)> = BTreeMap::new();
    let mut unmanaged = false;
    for pod in pods {
        let Some(owner) = meta::controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if known.contains_key(owner.uid.as_str()) {
            continue;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = scale_of(cache, namespace, owner)?.ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            format!("found no controllers for pod {name:?}")
        })?;
        known.insert(&owner.uid, found);
    }
    // The replica sets of a deployment share its scale.
    let scales: BTreeMap<&str, i32> = known.into_values().collect();
    let sum = scales.into_values().fold(0, i32::saturating_add);
    Ok(Expected { pods: sum, desired: 0, unmanaged })
}

/// What determines the number of an owner's pods, by UID, and that number; `None` when the owner
/// is gone.
fn scale_of<'a>(
    cache: &'a Cache,
    namespace: &str,
    owner: &OwnerReference,
) -> Result<Option<(&'a str, i32)>, String> {
    let (group, _) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    Ok(match (group, owner.kind.as_str()) {
        ("", "ReplicationController") => {
            let found = cache.get::<ReplicationController>(namespace, &owner.name);
            found.and_then(|o| {
                let replicas = o.spec.as_ref().and_then(|s| s.replicas);
                of_uid(o.metadata.uid.as_deref(), owner, replicas)
            })
        }
        ("apps" | "extensions", "ReplicaSet") => {
            let found = cache.get::<ReplicaSet>(namespace, &owner.name);
            found.and_then(|o| {
                let replicas = o.spec.as_ref().and_then(|s| s.replicas);
                let own = of_uid(o.metadata.uid.as_deref(), owner, replicas)?;
                let above = meta::controller_of(&o.metadata).filter(|o| o.kind == "Deployment");
                Some(above.and_then(|d| deployment(cache, namespace, d)).unwrap_or(own))
            })
        }
        ("apps" | "extensions", "Deployment") => deployment(cache, namespace, owner),
        ("apps" | "extensions", "StatefulSet") => {
            let found = cache.get::<StatefulSet>(namespace, &owner.name);
            found.and_then(|o| {
                let replicas = o.spec.as_ref().and_then(|s| s.replicas);
                of_uid(o.metadata.uid.as_deref(), owner, replicas)
            })
        }
        _ => return other(owner),
    })
}

fn deployment<'a>(
    cache: &'a Cache,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<(&'a str, i32)> {
    let found = cache.get::<Deployment>(namespace, &owner.name)?;
    let replicas = found.spec.as_ref().and_then(|s| s.replicas);
    of_uid(found.metadata.uid.as_deref(), owner, replicas)
}

/// The scale of an object, if it is the owner that is meant and not one of the same name.
fn of_uid<'a>(
    uid: Option<&'a str>,
    owner: &OwnerReference,
    replicas: Option<i32>,
) -> Option<(&'a str, i32)> {
    uid.filter(|uid| *uid == owner.uid).map(|uid| (uid, replicas.unwrap_or(1)))
}

/// Owners that no number of pods can be asked of.
fn other<T>(owner: &OwnerReference) -> Result<Option<T>, String> {
    let (version, kind) = (&owner.api_version, &owner.kind);
    match Kind::of_manifest(version, kind) {
        None => Err(format!("no matches for kind {kind:?} in version {version:?}")),
        Some(kind) if kind.info().subresources.contains(&"scale") => Ok(None),
        Some(kind) => {
            Err(format!("{} does not implement the scale subresource", kind.group_resource()))
        }
    }
}

/// A number of pods, or a share of `total` rounded up.
fn scaled(value: &IntOrString, total: i32) -> Result<i32, String> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent: Option<i64> = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    let Some(percent) = percent else {
        return Err(
            "invalid value for IntOrString: invalid type: string is not a percentage".to_owned()
        );
    };
    let hundredths = percent.saturating_mul(i64::from(total));
    let share = hundredths.saturating_add(99) / 100;
    Ok(i32::try_from(share.max(0)).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        let check = |value: IntOrString, total: i32, expected: Option<i32>| {
            assert_eq!(scaled(&value, total).ok(), expected, "{value:?} of {total}");
        };
        let share = |text: &str| IntOrString::String(text.to_owned());
        check(IntOrString::Int(7), 3, Some(7));
        check(share("50%"), 4, Some(2));
        check(share("50%"), 5, Some(3));
        check(share("1%"), 5, Some(1));
        check(share("0%"), 5, Some(0));
        check(share("100%"), i32::MAX, Some(i32::MAX));
        check(share("30%"), 0, Some(0));
        check(share("30"), 5, None);
        check(share("x%"), 5, None);
    }
}
