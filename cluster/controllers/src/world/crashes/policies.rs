//! Jobs with policies of failure and success, sets that start all pods at once, and daemon sets that
//! surge or wait for people.

use super::super::tests::template;
use super::cases::{at, delete_pod_of, job, scale};
use super::*;

/// The pods of a job that are there, running or not.
fn pods_of<'a>(world: &'a World, job: &'a str) -> impl Iterator<Item = &'a Pod> {
    let pods = world.store.kind(Kind::Pod).filter_map(Object::get::<Pod>);
    pods.filter(move |pod| pod.metadata.owner_references.iter().flatten().any(|o| o.name == job))
}

/// The pod's index; zero without one.
fn index_of(pod: &Pod) -> i64 {
    let index = meta::annotation(&pod.metadata, "batch.kubernetes.io/job-completion-index");
    index.and_then(|index| index.parse().ok()).unwrap_or(0)
}

/// Ends a pod of each of these jobs that has run for five seconds, if none waits to be counted; how
/// is for `status` to say, which may have it go on.
fn end(world: &mut World, jobs: &[&str], status: impl Fn(&World, &str, &Pod) -> Option<Value>) {
    let now = world.store.now;
    for job in jobs {
        let done = |pod: &Pod| matches!(pods::phase(pod), "Failed" | "Succeeded");
        if pods_of(world, job).any(|pod| done(pod) && pod.metadata.finalizers.is_some()) {
            continue;
        }
        let due = |pod: &&Pod| {
            let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
            pods::phase(pod) == "Running"
                && !meta::is_terminating(&pod.metadata)
                && started
                    .is_some_and(|at| now.since(Time::from_meta(at)) >= Duration::from_secs(5))
        };
        let mut due: Vec<Pod> = pods_of(world, job).filter(due).cloned().collect();
        due.sort_by_key(|pod| (index_of(pod), pod.metadata.name.clone()));
        let end = due.into_iter().find_map(|pod| Some((status(world, job, &pod)?, pod)));
        if let Some((status, pod)) = end {
            world.edit(&Object::Pod(pod.into()).key(), |v| {
                for (field, value) in status.as_object().expect("fields") {
                    v["status"][field] = value.clone();
                }
            });
        }
    }
}

/// That of a pod whose container ended with this code.
fn exited(code: i64) -> Option<Value> {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    Some(json!({"phase": phase, "containerStatuses":
        [{"name": "c", "state": {"terminated": {"exitCode": code}}}]}))
}

fn on_exit(action: &str, code: i64) -> Value {
    json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [code]}}]})
}

/// One that fails with its first pod, one whose disrupted pod does not count, and one that gives a
/// single index up.
pub(super) const FAILURE_POLICIES: Case = Case {
    name: "policies of failure",
    proofs: &[
        ("job-controller", "=PodFailurePolicy"),
        ("job-controller", "=\"failedIndexes\":\"1\""),
        ("job-controller", "=\"succeeded\":2,\"terminating\""),
    ],
    nodes: 2,
    lasts: 200,
    script: |world, second| {
        if second == 5 {
            let strict = on_exit("FailJob", 42);
            job(
                world,
                "strict",
                json!({"parallelism": 1, "podReplacementPolicy": "Failed",
                "podFailurePolicy": strict}),
            );
            let lenient = json!({"rules": [{"action": "Ignore", "onPodConditions":
                [{"type": "DisruptionTarget", "status": "True"}]}]});
            job(
                world,
                "lenient",
                json!({"parallelism": 1, "completions": 2, "backoffLimit": 0,
                "podReplacementPolicy": "Failed", "podFailurePolicy": lenient}),
            );
            job(
                world,
                "each",
                json!({"completionMode": "Indexed", "completions": 3,
                "parallelism": 3, "backoffLimitPerIndex": 5, "podReplacementPolicy": "Failed",
                "podFailurePolicy": on_exit("FailIndex", 7)}),
            );
        }
        end(world, &["strict", "lenient", "each"], |world, job, pod| {
            let none_failed = pods_of(world, job).all(|pod| pods::phase(pod) != "Failed");
            match job {
                "strict" => exited(42),
                "lenient" if none_failed => Some(json!({"phase": "Failed", "conditions":
                    [{"type": "DisruptionTarget", "status": "True"}]})),
                "each" if index_of(pod) == 1 => exited(7),
                _ => exited(0),
            }
        });
    },
};

/// An index that fails until its own limit is reached, and a limit of indexes that may.
pub(super) const INDEX_LIMITS: Case = Case {
    name: "limits of indexes",
    proofs: &[
        ("job-controller", "=FailedIndexes"),
        ("job-controller", "=MaxFailedIndexesExceeded"),
    ],
    nodes: 2,
    lasts: 300,
    script: |world, second| {
        if second == 5 {
            let limited = |most: Value| {
                json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
                    "backoffLimitPerIndex": 1, "maxFailedIndexes": most,
                    "podReplacementPolicy": "TerminatingOrFailed"})
            };
            job(world, "some", limited(json!(3)));
            job(world, "few", limited(json!(0)));
        }
        end(world, &["some", "few"], |_, job, pod| match (job, index_of(pod)) {
            (_, 1) => exited(1),
            // Those run on until the job ends them.
            ("few", _) => None,
            _ => exited(0),
        });
    },
};

/// A job that is done when its leader is, whatever the others do.
pub(super) const SUCCESS_POLICIES: Case = Case {
    name: "policies of success",
    proofs: &[("job-controller", "=SuccessCriteriaMet"), ("job-controller", "=\"succeeded\":1")],
    nodes: 2,
    lasts: 150,
    script: |world, second| {
        if second == 5 {
            job(
                world,
                "led",
                json!({"completionMode": "Indexed", "completions": 3,
                "parallelism": 3, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}),
            );
        }
        end(world, &["led"], |_, _, pod| if index_of(pod) == 0 { exited(0) } else { None });
    },
};

/// All pods at once: scaled, rolled out and scaled back.
pub(super) const PARALLEL_SETS: Case = Case {
    name: "parallel stateful sets",
    proofs: &[(
        "statefulset-controller",
        "create pods/default/db-0|create pods/default/db-2|delete pods/default/db-1",
    )],
    nodes: 2,
    lasts: 260,
    script: |world, second| {
        let db = at(Kind::StatefulSet, "db");
        match second {
            5 => {
                world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
                    "metadata": {"name": "db", "namespace": "default"},
                    "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "db"}},
                        "serviceName": "db", "podManagementPolicy": "Parallel",
                        "revisionHistoryLimit": 0, "updateStrategy":
                            {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
                        "persistentVolumeClaimRetentionPolicy":
                            {"whenDeleted": "Retain", "whenScaled": "Retain"},
                        "template": template("db", "v1")}}));
            }
            60 => world.edit(&db, |v| v["spec"]["template"] = template("db", "v2")),
            140 => scale(world, &db, 1),
            200 => delete_pod_of(world, "db"),
            _ => {}
        }
    },
};

fn daemons(world: &mut World, strategy: &Value) {
    world.create(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 1,
            "updateStrategy": strategy, "template": template("agent", "v1")}}));
}

fn new_daemons(world: &mut World, image: &str) {
    let agent = at(Kind::DaemonSet, "agent");
    world.edit(&agent, |v| v["spec"]["template"] = template("agent", image));
}

/// The new pod of a node is there before the old one goes.
pub(super) const SURGES: Case = Case {
    name: "daemon sets that surge",
    proofs: &[("daemonset-controller", "create pods/default/agent-|delete pods/default/agent-")],
    nodes: 2,
    lasts: 160,
    script: |world, second| match second {
        5 => daemons(
            world,
            &json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}),
        ),
        40 => new_daemons(world, "v2"),
        110 => world.add_node("node-7"),
        _ => {}
    },
};

/// A pod is new when somebody has deleted the old one.
pub(super) const ON_DELETE: Case = Case {
    name: "daemon sets that wait for people",
    proofs: &[("daemonset-controller", "create pods/default/agent-|create pods/default/agent-")],
    nodes: 2,
    lasts: 140,
    script: |world, second| match second {
        5 => daemons(world, &json!({"type": "OnDelete"})),
        40 => new_daemons(world, "v2"),
        // Of two nodes one keeps the old pod.
        80 => {
            let on_first = world.active_pods().into_iter().find(|pod| pod.node() == "node-0");
            let key = Object::Pod(on_first.expect("a daemon").clone().into()).key();
            world.delete(&key, None);
        }
        _ => {}
    },
};
