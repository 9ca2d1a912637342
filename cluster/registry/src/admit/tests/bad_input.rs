//! What makes no sense: what of it is refused, and in which words, and what is let through for the
//! controllers to come to terms with.

use super::crud::minimal;
use super::*;

fn made(kind: Kind, changes: &[(&str, Value)]) -> Result<Value, Status> {
    let mut manifest = minimal(kind);
    for (pointer, new) in changes {
        set(&mut manifest, pointer, new.clone());
    }
    World::new().create(manifest)
}

/// As in Kubernetes 1.33, which lets through what is merely pointless.
#[test]
fn what_is_let_through() {
    let lets = |kind: Kind, changes: &[(&str, Value)]| {
        let made = made(kind, changes);
        assert!(made.is_ok(), "{kind} {changes:?}: {}", made.unwrap_err().message);
    };
    // A day that never comes, a time that is over at once, a pace of seconds.
    lets(Kind::CronJob, &[("/spec/schedule", json!("0 0 31 2 *"))]);
    lets(Kind::CronJob, &[("/spec/startingDeadlineSeconds", json!(0))]);
    lets(Kind::CronJob, &[("/spec/startingDeadlineSeconds", json!(i64::MAX))]);
    lets(Kind::CronJob, &[("/spec/schedule", json!("@every 1s"))]);
    lets(Kind::CronJob, &[("/spec/successfulJobsHistoryLimit", json!(0))]);
    lets(Kind::Job, &[("/spec/parallelism", json!(0))]);
    lets(Kind::Job, &[("/spec/completions", json!(0))]);
    lets(Kind::Job, &[("/spec/completions", json!(i32::MAX))]);
    lets(Kind::Job, &[("/spec/backoffLimit", json!(0))]);
    lets(Kind::Job, &[("/spec/activeDeadlineSeconds", json!(i64::MAX))]);
    let indexed = |max: i32| {
        [
            ("/spec/completionMode", json!("Indexed")),
            ("/spec/completions", json!(5)),
            ("/spec/backoffLimitPerIndex", json!(0)),
            ("/spec/maxFailedIndexes", json!(max)),
        ]
    };
    lets(Kind::Job, &indexed(0));
    lets(Kind::Deployment, &[("/spec/replicas", json!(i32::MAX))]);
    let bounds = json!({"maxSurge": "0%", "maxUnavailable": "1%"});
    lets(Kind::Deployment, &[("/spec/strategy/rollingUpdate", bounds)]);
    lets(Kind::Deployment, &[("/spec/progressDeadlineSeconds", json!(1))]);
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": i32::MAX}});
    lets(Kind::StatefulSet, &[("/spec/updateStrategy", partition)]);
    lets(Kind::StatefulSet, &[("/spec/ordinals", json!({"start": i32::MAX}))]);
    lets(Kind::StatefulSet, &[("/spec/revisionHistoryLimit", json!(-1))]);
    lets(Kind::HorizontalPodAutoscaler, &[("/spec/maxReplicas", json!(i32::MAX))]);
    let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "no"});
    lets(Kind::HorizontalPodAutoscaler, &[("/spec/scaleTargetRef", target)]);
    lets(Kind::PodDisruptionBudget, &[("/spec", json!({}))]);
    lets(Kind::PodDisruptionBudget, &[("/spec/minAvailable", json!(i32::MAX))]);
    let hard = json!({"cpu": "8Ei", "memory": "1n", "requests.example.com/gpu": "8E",
        "count/gadgets.example.com": "0"});
    lets(Kind::ResourceQuota, &[("/spec/hard", hard)]);
    lets(Kind::Service, &[("/spec/ports/0/targetPort", json!("no-such-port"))]);
    lets(Kind::PersistentVolumeClaim, &[("/spec/storageClassName", json!("no-such-class"))]);
    let nowhere = json!({"required": {"nodeSelectorTerms":
        [{"matchExpressions": [{"key": "no", "operator": "In", "values": ["such"]}]}]}});
    lets(Kind::PersistentVolume, &[("/spec/nodeAffinity", nowhere)]);
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "X", "name": name, "uid": name});
    let owners: Vec<Value> = (0..10_000).map(|i| owner(&i.to_string())).collect();
    lets(Kind::ConfigMap, &[("/metadata/ownerReferences", owners.into())]);
    let itself = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    lets(
        Kind::ClusterRole,
        &[("/metadata/labels", json!({"a": "b"})), ("/aggregationRule", itself)],
    );
}

#[test]
fn what_is_refused() {
    let refuses = |kind: Kind, pointer: &str, new: Value, expected: &str| {
        let error = made(kind, &[(pointer, new.clone())]).unwrap_err();
        let (_, why) = error.message.split_once(" is invalid: ").unwrap_or(("", &error.message));
        assert_eq!(why, expected, "{kind} {pointer} {new}");
    };
    let negative =
        |field: &str| format!("{field}: Invalid value: -1: must be greater than or equal to 0");
    for (kind, field) in [
        (Kind::CronJob, "startingDeadlineSeconds"),
        (Kind::CronJob, "successfulJobsHistoryLimit"),
        (Kind::CronJob, "failedJobsHistoryLimit"),
        (Kind::Job, "parallelism"),
        (Kind::Job, "backoffLimit"),
        (Kind::Job, "activeDeadlineSeconds"),
        (Kind::Job, "ttlSecondsAfterFinished"),
        (Kind::Deployment, "replicas"),
        (Kind::Deployment, "minReadySeconds"),
        (Kind::Deployment, "revisionHistoryLimit"),
        (Kind::StatefulSet, "replicas"),
        (Kind::DaemonSet, "minReadySeconds"),
        (Kind::PodDisruptionBudget, "minAvailable"),
        (Kind::PodDisruptionBudget, "maxUnavailable"),
    ] {
        let pointer = format!("/spec/{field}");
        refuses(kind, &pointer, json!(-1), &negative(&format!("spec.{field}")));
    }
    refuses(Kind::CronJob, "/spec/schedule", json!(""), "spec.schedule: Required value");
    refuses(
        Kind::CronJob,
        "/spec/timeZone",
        json!("Mars/Olympus"),
        "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
    );
}
