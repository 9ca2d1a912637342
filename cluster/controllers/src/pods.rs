//! Questions about a pod's state, and the order in which surplus pods are deleted.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use api::{Pod, Time, meta};
use k8s_openapi::api::core::v1::PodCondition;

/// Lower values are deleted first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The condition of that type.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The phase; empty when it was never reported.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !meta::is_terminating(&pod.metadata)
}

/// Whether the pod's `Ready` condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When the pod became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Time> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(Time::from_meta).unwrap_or_default())
}

/// When the pod will have been ready for `min_ready`; `None` when it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready: Duration) -> Option<Time> {
    ready_since(pod).map(|since| since + min_ready)
}

/// The key by which surplus pods are ordered: the smallest is deleted first.
///
/// Unassigned before assigned, pending before running, unready before ready, cheap before dear,
/// crowded nodes before others, then the youngest, by powers of two of their age so that not
/// always the newest node loses.
///
/// Source: kubernetes 1.33, `pkg/controller/controller_utils.go`, `ActivePodsWithRanks`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeletionRank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowd: Reverse<usize>,
    ready_magnitude: i64,
    restarts: Reverse<i32>,
    age_magnitude: i64,
    uid: String,
}

/// Ranks `pod`; `crowd` counts the related pods on each node.
pub(crate) fn deletion_rank(pod: &Pod, crowd: &BTreeMap<&str, usize>, now: Time) -> DeletionRank {
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let ready = ready_since(pod);
    DeletionRank {
        assigned: !pod.node().is_empty(),
        phase: match phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        },
        ready: ready.is_some(),
        cost: meta::annotation(&pod.metadata, DELETION_COST)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        crowd: Reverse(crowd.get(pod.node()).copied().unwrap_or(0)),
        ready_magnitude: ready.map_or(0, |since| magnitude(since, now)),
        restarts: Reverse(
            containers.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0),
        ),
        age_magnitude: magnitude(meta::created_at(&pod.metadata), now),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

/// Power of two of the nanoseconds since `since`; -1 for none.
fn magnitude(since: Time, now: Time) -> i64 {
    now.0.checked_sub(since.0).and_then(u64::checked_ilog2).map_or(-1, i64::from)
}

#[cfg(test)]
mod tests {
    use api::{Kind, codec};
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready_secs: Option<i64>, extra: Value) -> Pod {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "1970-01-01T00:00:01Z"},
            "spec": {"containers": []},
            "status": {"phase": phase},
        });
        if !node.is_empty() {
            value["spec"]["nodeName"] = node.into();
        }
        if let Some(secs) = ready_secs {
            value["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                "lastTransitionTime": Time::from_secs(secs.unsigned_abs()).to_meta()}]);
        }
        if let Value::Object(fields) = extra {
            for (key, fields) in fields {
                for (name, field) in fields.as_object().unwrap() {
                    value[&key][name] = field.clone();
                }
            }
        }
        codec::decode_value(Kind::Pod, &value).unwrap().get::<Pod>().unwrap().clone()
    }

    #[test]
    fn surplus_pods_are_ranked() {
        let cost = |c: &str| json!({"metadata": {"annotations": {DELETION_COST: c}}});
        let restarts = json!({"status": {"containerStatuses":
            [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 7}]}});
        // In the order in which they must go.
        let order = [
            pod("unassigned", "", "Pending", None, Value::Null),
            pod("pending", "a", "Pending", None, Value::Null),
            pod("unknown", "a", "Unknown", None, Value::Null),
            pod("unready", "a", "Running", None, Value::Null),
            pod("cheap", "a", "Running", Some(10), cost("-5")),
            pod("crowded", "b", "Running", Some(10), Value::Null),
            pod("young", "a", "Running", Some(99), cost("nonsense")),
            pod("restarted", "a", "Running", Some(10), restarts),
            pod("old", "a", "Running", Some(10), Value::Null),
            pod("dear", "a", "Running", Some(99), cost("5")),
        ];
        let crowd = BTreeMap::from([("a", 1), ("b", 2)]);
        let mut ranked: Vec<&Pod> = order.iter().rev().collect();
        ranked.sort_by_cached_key(|p| deletion_rank(p, &crowd, Time::from_secs(100)));
        let names = |pods: Vec<&Pod>| -> Vec<String> {
            pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect()
        };
        assert_eq!(names(ranked), names(order.iter().collect()));
    }

    #[test]
    fn odd_pods_are_answered() {
        let empty = Pod::default();
        assert!(is_active(&empty) && !is_ready(&empty) && !is_terminal(&empty));
        assert_eq!(available_at(&empty, Duration::ZERO), None);
        let ready = pod("a", "n", "Running", Some(10), Value::Null);
        let after = available_at(&ready, Duration::from_secs(5));
        assert_eq!(after, Some(Time::from_secs(15)));
    }
}
