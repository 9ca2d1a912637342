//! What may change in a pod once it exists: very little.

mod gates;

use api::Pod;
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, Toleration};
use serde_json::Value;

use crate::field::{Causes, Path};
use crate::names;

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
    to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative)";
/// Differences that are shown of a refused change.
const SHOWN_MAX: usize = 20;

pub(super) fn pod(new: &Pod, old: &Pod, causes: &mut Causes) {
    if new.spec == old.spec && new.node_name == old.node_name {
        return;
    }
    let path = Path::new("spec");
    let [new, old] = [new, old].map(|pod| pod.whole_spec().unwrap_or_default());
    let [new, old] = [&*new, &*old];
    let init = |s: &PodSpec| s.init_containers.as_ref().map_or(0, Vec::len);
    for (field, added) in [
        ("containers", new.containers.len() != old.containers.len()),
        ("initContainers", init(new) != init(old)),
    ] {
        if added {
            let detail = "pod updates may not add or remove containers";
            return causes.forbidden(&path.child(field), detail);
        }
    }
    if !deadline(new, old, &path.child("activeDeadlineSeconds"), causes) {
        return;
    }
    gates::only_removed(new, old, &path.child("schedulingGates"), causes);
    tolerations(new, old, &path.child("tolerations"), causes);
    let mut expected = new.clone();
    overlay_mutable(&mut expected, old);
    gates::overlay_mutable(&mut expected, old, &path, causes);
    if expected != *old {
        let detail = format!("{ONLY}\n{}", difference(old, &expected));
        causes.forbidden(&path, &detail);
    }
}

/// A deadline may be set and brought forward. Returns whether the rest is worth checking.
fn deadline(new: &PodSpec, old: &PodSpec, path: &Path<'_>, causes: &mut Causes) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            causes.invalid(path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if new > old => {
            causes.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            causes.invalid(path, None::<i64>, detail);
            true
        }
        _ => true,
    }
}

fn tolerations(new: &PodSpec, old: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    let timeless = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    let now: Vec<Toleration> = new.tolerations.iter().flatten().map(timeless).collect();
    if !old.tolerations.iter().flatten().map(timeless).all(|t| now.contains(&t)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        causes.forbidden(path, detail);
    }
}

/// Sets in `spec` what may change to what it was.
fn overlay_mutable(spec: &mut PodSpec, old: &PodSpec) {
    for (new, old) in spec.containers.iter_mut().zip(&old.containers) {
        new.image.clone_from(&old.image);
    }
    let init = old.init_containers.iter().flatten();
    for (new, old) in spec.init_containers.iter_mut().flatten().zip(init) {
        new.image.clone_from(&old.image);
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    spec.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
}

/// The fields that differ, one a line: what was there, then what was sent.
fn difference(old: &PodSpec, new: &PodSpec) -> String {
    let old = serde_json::to_value(old).unwrap_or_default();
    let new = serde_json::to_value(new).unwrap_or_default();
    let mut lines = Vec::new();
    collect("spec", &old, &new, &mut lines);
    lines.truncate(SHOWN_MAX);
    lines.join("\n")
}

fn collect(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new || lines.len() >= SHOWN_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let side =
                    |m: &serde_json::Map<String, Value>| m.get(key).cloned().unwrap_or_default();
                collect(&format!("{path}.{key}"), &side(a), &side(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                collect(&format!("{path}[{i}]"), a, b, lines);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    lines.push(format!("{sign} {path}: {value}"));
                }
            }
        }
    }
}

/// Checks what the kubelet reports.
pub(super) fn status(new: &Pod, old: &Pod, causes: &mut Causes) {
    let path = Path::new("status");
    let (Some(new_status), Some(old_status)) = (&new.status, &old.status) else { return };
    if let Some(node) = &new_status.nominated_node_name {
        causes.invalid_each(&path.child("nominatedNodeName"), node, names::subdomain(node));
    }
    let policy = old.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    let lists =
        (new_status.container_statuses.as_deref(), old_status.container_statuses.as_deref());
    transitions(lists, policy, &path.child("containerStatuses"), causes);
    let mut seen = std::collections::BTreeSet::new();
    for (i, ip) in new_status.pod_ips.iter().flatten().enumerate() {
        let at = path.child("podIPs");
        let at = at.index(i);
        if names::ip(&ip.ip).is_none() {
            causes.invalid(&at, &ip.ip, names::NO_IP);
        }
        if !seen.insert(&ip.ip) {
            causes.duplicate(&at, ip);
        }
    }
}

/// A container that will not be restarted stays terminated.
fn transitions(
    (new, old): (Option<&[ContainerStatus]>, Option<&[ContainerStatus]>),
    policy: Option<&str>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    if matches!(policy, None | Some("Always")) {
        return;
    }
    for before in old.into_iter().flatten() {
        let Some(end) = before.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        if end.exit_code != 0 && policy == Some("OnFailure") {
            continue;
        }
        let runs = |s: &ContainerStatus| {
            s.name == before.name && s.state.as_ref().is_none_or(|s| s.terminated.is_none())
        };
        if let Some(i) = new.into_iter().flatten().position(runs) {
            let at = path.index(i);
            let at = at.child("state");
            causes.forbidden(&at, "may not be transitioned to non-terminated state");
        }
    }
}
