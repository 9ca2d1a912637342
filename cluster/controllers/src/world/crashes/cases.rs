//! Workloads, and the nodes that they run on.

use super::super::tests::{deployment, template};
use super::*;

fn service(world: &mut World, app: &str) {
    world.create(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": app, "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": app},
            "ports": [{"port": 80, "targetPort": 8080}]}}));
}

pub(super) fn at(kind: Kind, name: &str) -> Key {
    Key::new(kind, "default", name)
}

pub(super) fn scale(world: &mut World, key: &Key, replicas: i64) {
    world.edit(key, |v| v["spec"]["replicas"] = replicas.into());
}

/// Deletes the first pod of that label.
pub(super) fn delete_pod_of(world: &mut World, app: &str) {
    let of_app = |pod: &&Pod| {
        pod.metadata.labels.as_ref().and_then(|l| l.get("app")).is_some_and(|value| value == app)
    };
    let pod = world.active_pods().into_iter().find(of_app).cloned();
    let key = Object::Pod(pod.expect("it has some").into()).key();
    world.delete(&key, None);
}

fn roll_out(world: &mut World, image: &str) {
    world.edit(&at(Kind::Deployment, "web"), |v| v["spec"]["template"] = template("web", image));
}

/// Rolled out and, before that is over, rolled back, with a service before the pods.
pub(super) const ROLLOUTS: Case = Case {
    name: "rollouts",
    proofs: &[
        (
            "deployment-controller",
            "create replicasets/default/web-|update replicasets/default/web-",
        ),
        ("endpoint-controller", "create endpoints/default/web|update endpoints/default/web"),
        ("endpoint-slice-controller", "create endpointslices/default/web-"),
    ],
    nodes: 1,
    lasts: 90,
    script: |world, second| match second {
        5 => {
            service(world, "web");
            deployment(world, 2, json!(1), json!("25%"));
        }
        40 => roll_out(world, "v2"),
        44 => roll_out(world, "v1"),
        _ => {}
    },
};

/// Rolled out, so that history is cut, and scaled.
pub(super) const SCALINGS: Case = Case {
    name: "scalings",
    proofs: &[
        ("deployment-controller", "delete replicasets/default/web-"),
        ("replicaset-controller", "create pods/default/web-|delete pods/default/web-"),
    ],
    nodes: 1,
    lasts: 150,
    script: |world, second| {
        let web = at(Kind::Deployment, "web");
        match second {
            5 => {
                deployment(world, 1, json!(1), json!(0));
                world.edit(&web, |v| v["spec"]["revisionHistoryLimit"] = 0.into());
            }
            40 => roll_out(world, "v2"),
            80 => scale(world, &web, 3),
            115 => scale(world, &web, 1),
            _ => {}
        }
    },
};

pub(super) const REPLICATION: Case = Case {
    name: "replication controllers",
    proofs: &[("replication-controller", "create pods/default/six-|delete pods/default")],
    nodes: 2,
    lasts: 180,
    script: |world, second| {
        let six = at(Kind::ReplicationController, "six");
        match second {
            5 => {
                world.create(json!({"apiVersion": "v1", "kind": "ReplicationController",
                    "metadata": {"name": "six", "namespace": "default"},
                    "spec": {"replicas": 6, "selector": {"app": "six"},
                        "template": template("six", "v1")}}));
            }
            60 => delete_pod_of(world, "six"),
            120 => scale(world, &six, 2),
            _ => {}
        }
    },
};

/// Rolled out twice, so that history is cut, while a node joins and another one goes.
pub(super) const DAEMONS: Case = Case {
    name: "daemon sets",
    proofs: &[(
        "daemonset-controller",
        "create controllerrevisions/default/agent-|create pods/default/agent-|delete pods/default/\
         agent-|delete controllerrevisions/default/agent-",
    )],
    nodes: 3,
    lasts: 220,
    script: |world, second| {
        let agent = at(Kind::DaemonSet, "agent");
        let image = |world: &mut World, image: &str| {
            world.edit(&agent, |v| v["spec"]["template"] = template("agent", image));
        };
        match second {
            5 => {
                world.create(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
                    "metadata": {"name": "agent", "namespace": "default"},
                    "spec": {"selector": {"matchLabels": {"app": "agent"}},
                        "revisionHistoryLimit": 1, "updateStrategy": {"type": "RollingUpdate",
                            "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                        "template": template("agent", "v1")}}));
            }
            40 => image(world, "v2"),
            80 => image(world, "v3"),
            120 => world.add_node("node-7"),
            160 => {
                world.kill_node("node-0");
                world.delete(&Key::cluster(Kind::Node, "node-0"), None);
            }
            _ => {}
        }
    },
};

/// The pods of this job run until they are ended.
const ENDLESS: &str = "endless";

#[expect(clippy::needless_pass_by_value, reason = "cases read better without borrows")]
pub(super) fn job(world: &mut World, name: &str, more: Value) {
    let labels = json!({"batch.kubernetes.io/controller-uid": name});
    let mut spec = json!({"parallelism": 2, "completions": 4, "backoffLimit": 6,
        "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    for (key, value) in more.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    world.create(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}));
}

/// Ends the pods of jobs that have run for five seconds: badly as long as the job has not counted
/// so many failures, and no pod waits to be counted as one. Of pods with an index those fail that
/// have the index 1.
fn end_pods(world: &mut World, failures: i64) {
    let now = world.store.now;
    let due = |pod: &&Pod| {
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
        pods::phase(pod) == "Running"
            && started.is_some_and(|at| now.since(Time::from_meta(at)) >= Duration::from_secs(5))
            && pod.metadata.owner_references.iter().flatten().any(|o| o.kind == "Job")
    };
    let mut due: Vec<Pod> = world.active_pods().into_iter().filter(due).cloned().collect();
    due.sort_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|t| Time::from_meta(&t)));
    for pod in due {
        let owner = pod.metadata.owner_references.iter().flatten().next().expect("a job");
        if owner.name == ENDLESS {
            continue;
        }
        let job = world.value(&at(Kind::Job, &owner.name));
        let failed = job["status"]["failed"].as_i64().unwrap_or(0);
        let uncounted = world.store.kind(Kind::Pod).filter_map(Object::get::<Pod>).filter(|p| {
            pods::phase(p) == "Failed"
                && p.metadata.finalizers.is_some()
                && p.metadata.owner_references == pod.metadata.owner_references
        });
        // What is counted and not yet released must not count twice.
        if uncounted.count() > 0 {
            continue;
        }
        let index = meta::annotation(&pod.metadata, "batch.kubernetes.io/job-completion-index");
        let fails = failed < failures && index.is_none_or(|index| index == "1");
        let phase = if fails { "Failed" } else { "Succeeded" };
        let key = Object::Pod(pod.clone().into()).key();
        world.edit(&key, |v| v["status"]["phase"] = phase.into());
    }
}

/// One that is done, one with an index for each pod, and one that goes by itself.
pub(super) const JOBS: Case = Case {
    name: "jobs that end",
    proofs: &[
        ("job-controller", "create pods/default/sum-|update jobs/default/sum status"),
        ("ttl-after-finished-controller", "delete jobs/default/short"),
    ],
    nodes: 2,
    lasts: 240,
    script: |world, second| {
        end_pods(world, 1);
        if second == 5 {
            job(world, "sum", json!({}));
            job(world, "each", json!({"completionMode": "Indexed"}));
            job(world, "short", json!({"completions": 1, "ttlSecondsAfterFinished": 60}));
        }
    },
};

/// Too many failures, too little time, and a pause.
pub(super) const FAILING_JOBS: Case = Case {
    name: "jobs that fail",
    proofs: &[("job-controller", "create pods/default/bad-|update jobs/default/bad status")],
    nodes: 2,
    lasts: 300,
    script: |world, second| {
        end_pods(world, 3);
        let paused = at(Kind::Job, "paused");
        match second {
            5 => {
                job(world, "bad", json!({"parallelism": 1, "backoffLimit": 1}));
                job(world, ENDLESS, json!({"activeDeadlineSeconds": 60}));
                job(world, "paused", json!({"suspend": true}));
            }
            60 => world.edit(&paused, |v| v["spec"]["suspend"] = false.into()),
            _ => {}
        }
    },
};

/// A job each minute, of which a few are kept.
pub(super) const CRON_JOBS: Case = Case {
    name: "cron jobs",
    proofs: &[("cronjob-controller", "create jobs/default/tick-|delete jobs/default/tick-")],
    nodes: 1,
    lasts: 400,
    script: |world, second| {
        let tick = at(Kind::CronJob, "tick");
        match second {
            5 => {
                world.create(json!({"apiVersion": "batch/v1", "kind": "CronJob",
                    "metadata": {"name": "tick", "namespace": "default"},
                    "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid",
                        "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
                        "jobTemplate": {"spec": {"template": {"spec":
                            {"containers": [{"name": "c"}]}}}}}}));
            }
            // Between two of its times.
            350 => world.edit(&tick, |v| v["spec"]["suspend"] = true.into()),
            _ => {}
        }
        // Each job ends 20 seconds after it was made, every third of them badly.
        let now = world.store.now;
        let due = |job: &&Object| {
            let running =
                codec::to_value(job)["status"]["conditions"].as_array().is_none_or(Vec::is_empty);
            running && now.since(meta::created_at(job.meta())) >= Duration::from_secs(20)
        };
        let due: Vec<Key> = world.store.kind(Kind::Job).filter(due).map(Object::key).collect();
        for key in due {
            let minute = fnv64(key.name.as_bytes());
            let end = if minute.is_multiple_of(3) { "Failed" } else { "Complete" };
            let at = json!(now.to_meta());
            world.edit(&key, |job| {
                job["status"] = json!({"startTime": at, "completionTime": at, "conditions":
                    [{"type": end, "status": "True", "lastTransitionTime": at}]});
            });
        }
    },
};

/// Up with the load, to the most, and down again.
pub(super) const AUTOSCALERS: Case = Case {
    name: "autoscalers",
    proofs: &[("horizontal-pod-autoscaler", "patch deployments/default/web scale")],
    nodes: 2,
    lasts: 330,
    script: |world, second| match second {
        5 => {
            let mut template = template("web", "v1");
            template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
            world.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                    "template": template, "strategy": {"type": "RollingUpdate",
                        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}}));
            world.load_milli = 100;
            // What was recommended before is forgotten with the process: it waits anew.
            let behavior = json!({
                "scaleDown": {"selectPolicy": "Max", "stabilizationWindowSeconds": 30,
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0,
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}});
            world.create(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"minReplicas": 1, "maxReplicas": 5, "behavior": behavior,
                    "scaleTargetRef":
                        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50}}}]}}));
        }
        60 => world.load_milli = 1_000,
        150 => world.load_milli = 110,
        _ => {}
    },
};

fn class(world: &mut World) {
    world.create(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local"}, "provisioner": "kprov.io/local", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer"}));
}

fn claim_spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}}})
}

/// Scaled, rolled out and scaled back, with claims that go with what is scaled away.
pub(super) const STATEFUL_SETS: Case = Case {
    name: "stateful sets",
    proofs: &[
        (
            "statefulset-controller",
            "create persistentvolumeclaims/default/data-db-0|create pods/default/db-0|create \
             pods/default/db-1|delete pods/default/db-1",
        ),
        ("persistentvolume-controller", "create persistentvolumes/pvc-|delete persistentvolumes/"),
        // Each lets go what it has held.
        (
            "persistentvolumeclaim-protection-controller",
            "delete persistentvolumeclaims/default/data-db-1|update persistentvolumeclaims/default/\
             data-db-1",
        ),
        (
            "persistentvolume-protection-controller",
            "delete persistentvolumes/pvc-|update persistentvolumes/pvc-",
        ),
    ],
    nodes: 2,
    lasts: 300,
    script: |world, second| {
        let db = at(Kind::StatefulSet, "db");
        match second {
            5 => {
                class(world);
                world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
                    "metadata": {"name": "db", "namespace": "default"},
                    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "db"}},
                        "serviceName": "db", "podManagementPolicy": "OrderedReady",
                        "revisionHistoryLimit": 0, "updateStrategy":
                            {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                        "persistentVolumeClaimRetentionPolicy":
                            {"whenDeleted": "Retain", "whenScaled": "Delete"},
                        "volumeClaimTemplates":
                            [{"metadata": {"name": "data"}, "spec": claim_spec()}],
                        "template": template("db", "v1")}}));
            }
            60 => scale(world, &db, 2),
            120 => {
                world.edit(&db, |v| v["spec"]["template"] = template("db", "v2"));
            }
            200 => scale(world, &db, 1),
            _ => {}
        }
    },
};

/// A pod with a volume of its own, and one that is gone again.
pub(super) const EPHEMERAL_VOLUMES: Case = Case {
    name: "ephemeral volumes",
    proofs: &[("ephemeral_volume", "create persistentvolumeclaims/default/stays-own")],
    nodes: 2,
    lasts: 120,
    script: |world, second| match second {
        5 => {
            class(world);
            for name in ["stays", "goes"] {
                let template = json!({"metadata": {}, "spec": claim_spec()});
                world.create(json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"containers": [{"name": "c"}], "volumes":
                        [{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]}}));
            }
        }
        60 => world.delete(&at(Kind::Pod, "goes"), None),
        _ => {}
    },
};

/// Owners that go before, after and without what they own.
pub(super) const OWNERS: Case = Case {
    name: "owners",
    proofs: &[(
        "garbage-collector-controller",
        "delete pods/default/foreground-|update replicasets/default/foreground",
    )],
    nodes: 2,
    lasts: 180,
    script: |world, second| {
        use api::Propagation::{Background, Foreground, Orphan};
        let owners = [("background", Background), ("foreground", Foreground), ("orphan", Orphan)];
        for (name, propagation) in owners {
            match second {
                5 => {
                    world.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                        "metadata": {"name": name, "namespace": "default"},
                        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                            "template": template(name, "v1")}}));
                }
                60 => world.delete(&at(Kind::ReplicaSet, name), Some(propagation)),
                _ => {}
            }
        }
    },
};

/// A budget beside a workload that grows, and a note of an eviction that never came.
pub(super) const BUDGETS: Case = Case {
    name: "budgets",
    proofs: &[("disruption-controller", "update poddisruptionbudgets/default/web status")],
    nodes: 2,
    lasts: 240,
    script: |world, second| {
        let web = at(Kind::Deployment, "web");
        match second {
            5 => {
                deployment(world, 3, json!(1), json!(1));
                world.create(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                    "metadata": {"name": "web", "namespace": "default"},
                    "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}));
            }
            30 => {
                let pod = Object::Pod(world.active_pods()[0].clone().into());
                let (name, now) = (pod.key().name, json!(world.store.now.to_meta()));
                world.edit(&at(Kind::PodDisruptionBudget, "web"), |v| {
                    v["status"]["disruptedPods"] = json!({&*name: now});
                });
                // A mark that nobody follows up, too.
                world.edit(&pod.key(), |v| {
                    let conditions = v["status"]["conditions"].as_array_mut().expect("some");
                    conditions.push(json!({"type": "DisruptionTarget", "status": "True",
                        "reason": "EvictionByEvictionAPI", "lastTransitionTime": now}));
                });
            }
            200 => scale(world, &web, 5),
            _ => {}
        }
    },
};

/// A node falls silent and comes back, another one is taken away with its pods.
pub(super) const LOST_NODES: Case = Case {
    name: "lost nodes",
    proofs: &[
        ("node-controller", "update nodes/node-0 status"),
        ("taint-eviction-controller", "TaintManagerEviction"),
        ("pod-garbage-collector-controller", "delete pods/default/web-|grace 0"),
        ("node-ipam-controller", "=\"podCIDR\":\"range/24\""),
    ],
    nodes: 3,
    lasts: 330,
    script: |world, second| match second {
        5 => {
            let mut template = template("web", "v1");
            for toleration in template["spec"]["tolerations"].as_array_mut().expect("two") {
                toleration["tolerationSeconds"] = 20.into();
            }
            world.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": 6, "selector": {"matchLabels": {"app": "web"}},
                    "template": template}}));
            service(world, "web");
        }
        40 => world.kill_node("node-0"),
        200 => world.revive_node("node-0"),
        230 => {
            world.kill_node("node-1");
            world.delete(&Key::cluster(Kind::Node, "node-1"), None);
        }
        _ => {}
    },
};
