//! When what an object describes is there.
//!
//! Source: `kubectl rollout status` and `kubectl wait` of Kubernetes 1.33.

use api::Kind;
use serde_json::Value;

/// How far a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It is as its manifest says, or there is nothing to wait for.
    Ready,
    /// It is on its way; how far.
    Waiting(String),
    /// It will not get there by itself; why.
    Failed(String),
}

/// Whether objects of the kind become ready some time after they were made.
#[must_use]
pub fn is_awaited(kind: Kind) -> bool {
    let kinds = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::Job, Kind::Pod];
    kinds.contains(&kind)
}

/// How far the object of `kind` is, as the API server has it.
#[must_use]
pub fn of(kind: Kind, object: &Value) -> Readiness {
    let status = &object["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let condition = |name: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|condition| condition["type"] == name)
    };
    let said = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
    let observed =
        number(&status["observedGeneration"]) >= number(&object["metadata"]["generation"]);
    let not_seen = || Readiness::Waiting("its controller has not seen it".to_owned());
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let counted = |have: i64, want: i64, what: &str| match have >= want {
        true => Readiness::Ready,
        false => Readiness::Waiting(format!("{have} of {want} {what}")),
    };
    match kind {
        Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet if !observed => not_seen(),
        Kind::Deployment => {
            let late = condition("Progressing")
                .filter(|condition| condition["reason"] == "ProgressDeadlineExceeded");
            if let Some(late) = late {
                return Readiness::Failed(said(late));
            }
            let old = number(&status["replicas"]) > number(&status["updatedReplicas"]);
            match counted(number(&status["updatedReplicas"]), replicas, "pods are new") {
                Readiness::Ready if old => Readiness::Waiting("old pods are left".to_owned()),
                Readiness::Ready => {
                    counted(number(&status["availableReplicas"]), replicas, "pods are available")
                }
                waiting => waiting,
            }
        }
        Kind::DaemonSet => {
            let wanted = number(&status["desiredNumberScheduled"]);
            match counted(number(&status["updatedNumberScheduled"]), wanted, "pods are new") {
                Readiness::Ready => {
                    counted(number(&status["numberAvailable"]), wanted, "pods are available")
                }
                waiting => waiting,
            }
        }
        Kind::StatefulSet => {
            let partition = number(&object["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
            let new = (replicas - partition).max(0);
            let by_hand = object["spec"]["updateStrategy"]["type"] == "OnDelete";
            let new = if by_hand { 0 } else { new };
            match counted(number(&status["updatedReplicas"]), new, "pods are new") {
                Readiness::Ready => {
                    counted(number(&status["readyReplicas"]), replicas, "pods are ready")
                }
                waiting => waiting,
            }
        }
        Kind::Job => {
            let is = |name| condition(name).filter(|condition| condition["status"] == "True");
            match (is("Failed"), is("Complete").or(is("Suspended"))) {
                (Some(failed), _) => Readiness::Failed(said(failed)),
                (None, Some(_)) => Readiness::Ready,
                (None, None) => Readiness::Waiting("it is not complete".to_owned()),
            }
        }
        Kind::Pod => match status["phase"].as_str() {
            Some("Succeeded") => Readiness::Ready,
            Some("Failed") => Readiness::Failed(said(status)),
            _ if condition("Ready").is_some_and(|condition| condition["status"] == "True") => {
                Readiness::Ready
            }
            phase => Readiness::Waiting(format!("it is {}", phase.unwrap_or("new"))),
        },
        _ => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: Kind, object: &Value, expected: &str) {
        let found = match of(kind, object) {
            Readiness::Ready => "ready".to_owned(),
            Readiness::Waiting(why) => format!("waiting: {why}"),
            Readiness::Failed(why) => format!("failed: {why}"),
        };
        assert_eq!(found, expected, "{object}");
    }

    #[test]
    fn a_deployment_is_ready_when_all_its_pods_are_new_and_available() {
        let with = |observed, replicas, updated, available| {
            json!({ "metadata": { "generation": 2 }, "spec": { "replicas": 3 }, "status": {
                "observedGeneration": observed, "replicas": replicas,
                "updatedReplicas": updated, "availableReplicas": available } })
        };
        let check = |object: Value, expected| check(Kind::Deployment, &object, expected);
        check(
            json!({ "metadata": { "generation": 1 } }),
            "waiting: its controller has not seen it",
        );
        check(with(1, 3, 3, 3), "waiting: its controller has not seen it");
        check(with(2, 3, 1, 3), "waiting: 1 of 3 pods are new");
        check(with(2, 4, 3, 3), "waiting: old pods are left");
        check(with(2, 3, 3, 2), "waiting: 2 of 3 pods are available");
        check(with(2, 3, 3, 3), "ready");
        let mut late = with(2, 3, 3, 2);
        late["status"]["conditions"] = json!([{ "type": "Progressing", "status": "False",
            "reason": "ProgressDeadlineExceeded", "message": "too slow" }]);
        check(late, "failed: too slow");
    }

    #[test]
    fn other_workloads_are_ready_by_their_own_counts() {
        let seen = json!({ "generation": 1 });
        let set = |status: Value| json!({ "metadata": seen, "spec": {}, "status": status });
        let daemon = |updated, available| {
            set(json!({ "observedGeneration": 1, "desiredNumberScheduled": 2,
                "updatedNumberScheduled": updated, "numberAvailable": available }))
        };
        check(Kind::DaemonSet, &daemon(1, 2), "waiting: 1 of 2 pods are new");
        check(Kind::DaemonSet, &daemon(2, 1), "waiting: 1 of 2 pods are available");
        check(Kind::DaemonSet, &daemon(2, 2), "ready");
        let stateful = |updated, ready| {
            set(json!({ "observedGeneration": 1, "updatedReplicas": updated,
                "readyReplicas": ready }))
        };
        check(Kind::StatefulSet, &stateful(0, 1), "waiting: 0 of 1 pods are new");
        check(Kind::StatefulSet, &stateful(1, 0), "waiting: 0 of 1 pods are ready");
        check(Kind::StatefulSet, &stateful(1, 1), "ready");
        let job = |kind: &str| {
            let condition = json!({ "type": kind, "status": "True", "message": "x" });
            json!({ "status": { "conditions": [condition] } })
        };
        check(Kind::Job, &json!({}), "waiting: it is not complete");
        check(Kind::Job, &job("Complete"), "ready");
        check(Kind::Job, &job("Failed"), "failed: x");
        check(Kind::Pod, &json!({ "status": { "phase": "Pending" } }), "waiting: it is Pending");
        check(Kind::Pod, &json!({ "status": { "phase": "Succeeded" } }), "ready");
        check(Kind::ConfigMap, &json!({}), "ready");
        assert!(is_awaited(Kind::Job) && !is_awaited(Kind::Service));
    }
}
