//! Properties of all controllers together. The numbers (P27 …) are those of the catalogue of
//! properties in the design.

#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod upkeep;

use super::*;

const TOLERATIONS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn template(app: &str, image: &str) -> Value {
    let tolerations: Vec<Value> = TOLERATIONS
        .iter()
        .map(|key| {
            json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300})
        })
        .collect();
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image}], "tolerations": tolerations}})
}

pub(super) fn deployment(
    world: &mut World,
    replicas: i32,
    surge: Value,
    unavailable: Value,
) -> Key {
    world.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": template("web", "v1"), "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate":
                {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
}

fn service(world: &mut World) {
    world.create(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}]}}));
}

fn images(world: &World) -> Vec<String> {
    let mut images: Vec<String> = world
        .active_pods()
        .iter()
        .map(|p| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
        .collect();
    images.sort();
    images
}

/// Ready addresses of the service, as Endpoints and as slices say.
fn ready_addresses(world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let endpoints = world.value(&Key::new(Kind::Endpoints, "default", "web"));
    let array = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let old = array(&endpoints["subsets"])
        .iter()
        .flat_map(|s| array(&s["addresses"]))
        .map(|a| text(&a["ip"]))
        .collect();
    let new = world
        .store
        .kind(Kind::EndpointSlice)
        .map(codec::to_value)
        .flat_map(|s| array(&s["endpoints"]))
        .filter(|e| e["conditions"]["ready"] == true)
        .map(|e| text(&e["addresses"][0]))
        .collect();
    (old, new)
}

/// P42: the ready addresses are those of the ready pods.
fn assert_endpoints(world: &World) {
    let expected: BTreeSet<String> = world
        .active_pods()
        .iter()
        .filter(|p| pods::is_ready(p))
        .map(|p| p.status.as_ref().unwrap().pod_ip.clone().unwrap())
        .collect();
    assert_eq!(ready_addresses(world), (expected.clone(), expected));
}

/// P41, and no more pods than surge allows: 4 + 1.
fn never_too_many(world: &World) {
    assert!(world.active_pods().len() <= 5, "surge exceeded: {:#?}", world.log);
    for object in world.store.objects.values() {
        let owners = object.meta().owner_references.iter().flatten();
        assert!(owners.filter(|o| o.controller == Some(true)).count() <= 1);
    }
}

/// P32 for four replicas with a surge of one and one unavailable.
fn within_bounds(world: &World) {
    never_too_many(world);
    let available = world.active_pods().iter().filter(|p| pods::is_ready(p)).count();
    assert!(available >= 3, "{available} available: {:#?}", world.log);
}

fn rollout(seed: u64, loss_percent: u32) -> World {
    let mut world = World::new(seed, 3, loss_percent);
    world.run_secs(5);
    world.check = never_too_many;
    let key = deployment(&mut world, 4, json!(1), json!("25%"));
    service(&mut world);
    world.settle();
    assert_eq!(images(&world), ["v1"; 4], "seed {seed}");
    assert_endpoints(&world);

    world.check = within_bounds;
    world.edit(&key, |v| v["spec"]["template"] = template("web", "v2"));
    world.settle();
    assert_eq!(images(&world), ["v2"; 4], "seed {seed}");
    assert_endpoints(&world);
    let status = world.value(&key)["status"].clone();
    assert_eq!(status["updatedReplicas"], 4, "{status}");
    assert_eq!(status["availableReplicas"], 4, "{status}");
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(
        world.value(&key)["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );

    // Back again (P34), and changed once more before it is over: the first set is reused.
    world.edit(&key, |v| v["spec"]["template"] = template("web", "v1"));
    world.run_secs(3);
    world.edit(&key, |v| v["spec"]["template"] = template("web", "v3"));
    world.run_secs(4);
    world.edit(&key, |v| v["spec"]["template"] = template("web", "v1"));
    world.settle();
    assert_eq!(images(&world), ["v1"; 4], "seed {seed}");
    // P33: one set a template.
    assert_eq!(world.count(Kind::ReplicaSet, "default"), 3);
    assert_endpoints(&world);
    world
}

/// Never two pods of a daemon set on one node, however late its controller sees what it did.
fn one_daemon_a_node(world: &World) {
    let pods = world.active_pods();
    let nodes: BTreeSet<&str> = pods.iter().filter_map(|pod| nodes::target(pod)).collect();
    assert_eq!(nodes.len(), pods.len(), "two on one node: {:#?}", world.log);
}

/// The same, and no more than one of four unavailable.
fn three_daemons(world: &World) {
    one_daemon_a_node(world);
    let available = world.active_pods().iter().filter(|p| pods::is_ready(p)).count();
    assert!(available >= 3, "{available} available: {:#?}", world.log);
}

#[test]
fn daemons_keep_their_bounds() {
    for seed in 0..12 {
        let mut world = World::new(seed, 4, if seed < 6 { 0 } else { 15 });
        world.run_secs(5);
        world.check = one_daemon_a_node;
        let key = world.create(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 1,
                "updateStrategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "template": template("agent", "v1")}}));
        world.settle();
        assert_eq!(images(&world), ["v1"; 4], "seed {seed}");
        world.check = three_daemons;
        for image in ["v2", "v3"] {
            world.edit(&key, |v| v["spec"]["template"] = template("agent", image));
            world.settle();
            assert_eq!(images(&world), [image; 4], "seed {seed}");
        }
        // Today's revision and one of those before.
        assert_eq!(world.count(Kind::ControllerRevision, "default"), 2);
        let status = world.value(&key)["status"].clone();
        assert_eq!(status["updatedNumberScheduled"], 4, "{status}");
        assert_eq!(status["numberAvailable"], 4, "{status}");
        assert_eq!(status["observedGeneration"], 3, "{status}");
        // A node that is lost keeps its pod, and a new one gets one.
        world.check = one_daemon_a_node;
        world.kill_node("node-0");
        world.add_node("node-4");
        world.run_secs(600);
        assert_eq!(images(&world), ["v3"; 5], "seed {seed}");
        world.revive_node("node-0");
        // Nothing is left of a daemon set that is deleted.
        world.delete(&key, Some(api::Propagation::Background));
        world.settle();
        assert_eq!(world.count(Kind::Pod, "default"), 0, "seed {seed}");
        assert_eq!(world.count(Kind::ControllerRevision, "default"), 0, "seed {seed}");
    }
}

/// In order, no more than one of the pods up to the highest there is may be missing or not ready.
fn one_ordinal_at_a_time(world: &World) {
    let pods: Vec<&Pod> = world.store.kind(Kind::Pod).filter_map(Object::get::<Pod>).collect();
    let ordinal = |pod: &&Pod| {
        let name = pod.metadata.name.as_deref().and_then(|name| name.strip_prefix("web-"));
        name.unwrap().parse::<usize>().unwrap()
    };
    let seats = pods.iter().map(ordinal).max().map_or(0, |highest| highest + 1);
    let is_well = |pod: &&&Pod| pods::is_ready(pod) && !meta::is_terminating(&pod.metadata);
    let well = pods.iter().filter(is_well).count();
    assert!(seats - well <= 1, "{well} of {seats}: {:#?}", world.log);
}

#[test]
fn stateful_sets_keep_their_order() {
    for seed in 0..12 {
        let mut world = World::new(seed, 3, if seed < 6 { 0 } else { 15 });
        world.run_secs(5);
        world.check = one_ordinal_at_a_time;
        let key = world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 1,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": template("web", "v1")}}));
        world.settle();
        assert_eq!(images(&world), ["v1"; 3], "seed {seed}");
        for image in ["v2", "v3"] {
            world.edit(&key, |v| v["spec"]["template"] = template("web", image));
            world.settle();
            assert_eq!(images(&world), [image; 3], "seed {seed}");
        }
        // Today's revision and one of those before.
        assert_eq!(world.count(Kind::ControllerRevision, "default"), 2);
        let status = world.value(&key)["status"].clone();
        assert_eq!(status["updatedReplicas"], 3, "{status}");
        assert_eq!(status["currentRevision"], status["updateRevision"], "{status}");
        assert_eq!(status["observedGeneration"], 3, "{status}");
        for replicas in [1, 4] {
            world.edit(&key, |v| v["spec"]["replicas"] = replicas.into());
            world.settle();
            assert_eq!(images(&world), vec!["v3"; replicas], "seed {seed}");
        }
        // Nothing is left of a stateful set that is deleted.
        world.check = |_| {};
        world.delete(&key, Some(api::Propagation::Background));
        world.settle();
        assert_eq!(world.count(Kind::Pod, "default"), 0, "seed {seed}");
        assert_eq!(world.count(Kind::ControllerRevision, "default"), 0, "seed {seed}");
    }
}

/// However many nodes are lost: a pod that may still run keeps its name to itself.
#[test]
fn a_lost_node_keeps_its_ordinals() {
    let mut world = World::new(7, 2, 5);
    world.run_secs(5);
    world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": template("web", "v1")}}));
    world.settle();
    let on_lost = |world: &World| {
        let pods = world.store.kind(Kind::Pod).filter_map(Object::get::<Pod>);
        let lost = pods.filter(|pod| pod.node() == "node-0");
        lost.map(|pod| pod.metadata.uid.clone()).collect::<Vec<_>>()
    };
    let before = on_lost(&world);
    assert!(!before.is_empty());
    world.kill_node("node-0");
    world.run_secs(900);
    assert_eq!(on_lost(&world), before);
    assert_eq!(world.count(Kind::Pod, "default"), 4);
    // Whoever removes the node vouches for their end.
    world.delete(&Key::cluster(Kind::Node, "node-0"), None);
    world.run_secs(300);
    world.settle();
    assert_eq!(images(&world), ["v1"; 4]);
}

#[test]
fn rollouts_keep_their_bounds() {
    for seed in 0..12 {
        rollout(seed, 0);
    }
    for seed in 12..24 {
        rollout(seed, 10);
    }
}

#[test]
fn the_same_seed_gives_the_same_writes() {
    let (a, b) = (rollout(7, 10), rollout(7, 10));
    assert_eq!(a.log, b.log);
    assert_eq!(a.events, b.events);
    assert_ne!(a.log, rollout(8, 10).log);
}

#[test]
fn nothing_is_written_at_rest() {
    let mut world = rollout(3, 0);
    let before = world.log.len();
    world.run_secs(3600);
    assert_eq!(world.log[before..], [] as [String; 0]);
}

#[test]
fn recreate_never_mixes_templates() {
    for seed in 0..6 {
        let mut world = World::new(seed, 2, 5);
        let key = deployment(&mut world, 3, json!(1), json!(1));
        world.edit(&key, |v| v["spec"]["strategy"] = json!({"type": "Recreate"}));
        world.check = |world| {
            let distinct: BTreeSet<String> = world
                .store
                .kind(Kind::Pod)
                .filter_map(Object::get::<Pod>)
                .filter_map(|p| p.spec.as_ref()?.containers[0].image.clone())
                .collect();
            assert!(distinct.len() <= 1, "{distinct:?}");
        };
        world.settle();
        world.edit(&key, |v| v["spec"]["template"] = template("web", "v2"));
        world.settle();
        assert_eq!(images(&world), ["v2"; 3]);
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout() {
    for seed in 0..6 {
        let mut world = World::new(seed, 3, 5);
        let key = deployment(&mut world, 4, json!(1), json!(1));
        world.settle();
        world.edit(&key, |v| v["spec"]["template"] = template("web", "v2"));
        world.run_secs(3);
        world.edit(&key, |v| v["spec"]["replicas"] = 10.into());
        world.settle();
        assert_eq!(images(&world), ["v2"; 10]);
        world.edit(&key, |v| v["spec"]["replicas"] = 0.into());
        world.settle();
        assert!(images(&world).is_empty());
    }
}

#[test]
fn a_rollout_that_stands_still_says_so() {
    let mut world = World::new(1, 0, 0);
    let key = deployment(&mut world, 2, json!(1), json!(0));
    let progressing = |world: &World| {
        let conditions = world.value(&key)["status"]["conditions"].as_array().cloned().unwrap();
        conditions.iter().find(|c| c["type"] == "Progressing").cloned().unwrap()
    };
    world.run_secs(590);
    assert_eq!(progressing(&world)["reason"], "ReplicaSetUpdated");
    world.run_secs(30);
    assert_eq!(progressing(&world)["reason"], "ProgressDeadlineExceeded");
    assert_eq!(progressing(&world)["status"], "False");
}

#[test]
fn a_replication_controller_of_six_returns_to_six() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 10);
        world.check = |world| assert!(world.active_pods().len() <= 6, "{:#?}", world.log);
        world.create(json!({"apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "six", "namespace": "default"},
            "spec": {"replicas": 6, "selector": {"app": "six"},
                "template": template("six", "v1")}}));
        world.settle();
        assert_eq!(world.active_pods().len(), 6, "seed {seed}");
        for _ in 0..3 {
            let pods: Vec<Key> = world.store.kind(Kind::Pod).map(Object::key).collect();
            for key in &pods[..2] {
                world.delete(key, None);
            }
            world.run_secs(2);
        }
        world.settle();
        assert_eq!(world.active_pods().len(), 6, "seed {seed}");
        let created = world.events.iter().filter(|e| e.contains("SuccessfulCreate")).count();
        assert!(created >= 7, "{:#?}", world.events);
    }
}

#[test]
fn each_pod_of_a_job_is_counted_once() {
    for seed in 0..8 {
        let mut world = World::new(seed, 2, 10);
        let indexed = seed % 2 == 0;
        let labels = json!({"batch.kubernetes.io/controller-uid": "u"});
        let key = world.create(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "sum", "namespace": "default", "uid": "u"},
            "spec": {"parallelism": 3, "completions": 8, "backoffLimit": 100,
                "completionMode": if indexed { "Indexed" } else { "NonIndexed" },
                "podReplacementPolicy": "TerminatingOrFailed", "ttlSecondsAfterFinished": 3600,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}}));
        let mut ended = [0, 0];
        for round in 0..60 {
            world.run_secs(20);
            let tracked = |p: &&Pod| p.metadata.finalizers.is_some() && pods::phase(p) == "Running";
            let running = world.active_pods().into_iter().filter(tracked);
            let running: Vec<Key> =
                running.map(|p| Object::Pod(p.clone().into()).key()).take(2).collect();
            for (i, pod) in running.iter().enumerate() {
                let fails = (round + i) % 3 == 0;
                ended[usize::from(fails)] += 1;
                let phase = if fails { "Failed" } else { "Succeeded" };
                world.edit(pod, |v| v["status"]["phase"] = phase.into());
            }
        }
        world.settle();
        let status = world.value(&key)["status"].clone();
        assert_eq!([&status["succeeded"], &status["failed"]], ended, "seed {seed}: {status:#}");
        assert_eq!(status["conditions"][1]["type"], "Complete", "seed {seed}: {status:#}");
        if indexed {
            assert_eq!(status["completedIndexes"], "0-7", "seed {seed}");
        }
        let tracked = world.store.kind(Kind::Pod).filter(|p| p.meta().finalizers.is_some());
        assert_eq!(tracked.count(), 0, "seed {seed}");
        // Its time comes, and it takes its pods along.
        world.run_secs(3700);
        world.settle();
        assert_eq!(world.value(&key), Value::Null, "seed {seed}");
        assert_eq!(world.count(Kind::Pod, "default"), 0, "seed {seed}");
    }
}

/// Never two jobs for one time, and no more than are kept and run.
fn one_job_a_minute(world: &World) {
    let minutes: BTreeSet<&str> = world
        .store
        .kind(Kind::Job)
        .filter_map(|job| {
            meta::annotation(job.meta(), "batch.kubernetes.io/cronjob-scheduled-timestamp")
        })
        .collect();
    let jobs = world.count(Kind::Job, "default");
    assert!(minutes.len() == jobs && jobs <= 6, "{minutes:?}: {:#?}", world.log);
}

#[test]
fn a_cron_job_starts_a_job_each_minute() {
    for seed in 0..8 {
        let mut world = World::new(seed, 1, if seed < 4 { 0 } else { 15 });
        world.check = one_job_a_minute;
        let key = world.create(json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
                "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}}}));
        for minute in 0..12 {
            world.run_secs(60);
            let at = json!(world.store.now.to_meta());
            let running = |job: &&Object| {
                codec::to_value(job)["status"]["conditions"].as_array().is_none_or(Vec::is_empty)
            };
            let running: Vec<Key> =
                world.store.kind(Kind::Job).filter(running).map(Object::key).collect();
            assert_eq!(running.len(), 1, "seed {seed} minute {minute}: {:#?}", world.log);
            let end = if minute % 3 == 0 { "Failed" } else { "Complete" };
            world.edit(&running[0], |job| {
                job["status"] = json!({"startTime": at, "completionTime": at, "conditions":
                    [{"type": end, "status": "True", "lastTransitionTime": at}]});
            });
        }
        world.edit(&key, |v| v["spec"]["suspend"] = true.into());
        world.settle();
        assert_eq!(world.count(Kind::Job, "default"), 3, "seed {seed}");
        let status = world.value(&key)["status"].clone();
        assert_eq!(status["active"], Value::Null, "seed {seed}: {status}");
        // Its jobs go with it.
        world.delete(&key, Some(api::Propagation::Background));
        world.settle();
        assert_eq!(world.count(Kind::Job, "default"), 0, "seed {seed}");
    }
}

#[test]
fn autoscalers_follow_the_load() {
    for seed in 0..8 {
        let mut world = World::new(seed, 3, if seed < 4 { 0 } else { 10 });
        world.check = |world| assert!(world.active_pods().len() <= 8, "{:#?}", world.log);
        let key = deployment(&mut world, 2, json!(0), json!(1));
        world.edit(&key, |v| {
            v["spec"]["template"]["spec"]["containers"][0]["resources"] =
                json!({"requests": {"cpu": "100m"}});
        });
        world.load_milli = 100;
        let autoscaler = world.create(json!({"apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"minReplicas": 1, "maxReplicas": 8,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]}}));
        let size = |world: &World| world.value(&key)["spec"]["replicas"].as_i64();
        for (load, pods) in [(100, 2), (330, 7), (10_000, 8), (200, 4), (0, 1)] {
            world.load_milli = load;
            world.run_secs(900);
            assert_eq!(size(&world), Some(pods), "seed {seed} {load}: {:#?}", world.log);
        }
        // Without an autoscaler nobody asks.
        world.delete(&autoscaler, None);
        world.run_secs(300);
        let before = world.log.len();
        world.run_secs(3600);
        assert_eq!(world.log[before..], [] as [String; 0], "seed {seed}");
    }
}

#[test]
fn a_deleted_namespace_goes_with_all_it_holds() {
    for seed in 0..6 {
        let mut world = World::new(seed, 2, 10);
        world
            .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
        world.run_secs(2);
        world.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": template("web", "v1")}}));
        world.create(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
        world.settle();
        assert_eq!(world.count(Kind::Pod, "shop"), 3);
        assert_eq!(world.count(Kind::ConfigMap, "shop"), 1);
        assert_eq!(world.count(Kind::ServiceAccount, "shop"), 1);
        let namespace = Key::cluster(Kind::Namespace, "shop");
        world.delete(&namespace, None);
        world.settle();
        let left: Vec<Key> =
            world.store.objects.keys().filter(|k| &*k.namespace == "shop").cloned().collect();
        assert_eq!(left, [], "seed {seed}");
        assert_eq!(world.value(&namespace), Value::Null, "seed {seed}");
    }
}

#[test]
fn owners_take_what_they_own_along_or_leave_it() {
    use api::Propagation::{Background, Foreground, Orphan};
    for seed in 0..4 {
        for propagation in [Background, Foreground, Orphan] {
            let mut world = World::new(seed, 2, 10);
            let key = deployment(&mut world, 3, json!(1), json!(1));
            world.settle();
            world.delete(&key, Some(propagation));
            world.settle();
            assert_eq!(world.value(&key), Value::Null, "{propagation:?}");
            let expected = if propagation == Orphan { (1, 3) } else { (0, 0) };
            let left =
                (world.count(Kind::ReplicaSet, "default"), world.count(Kind::Pod, "default"));
            assert_eq!(left, expected, "{propagation:?} seed {seed}");
        }
    }
}

#[test]
fn a_dead_node_is_noticed_and_its_pods_are_replaced() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3, 5);
        deployment(&mut world, 6, json!(1), json!(1));
        service(&mut world);
        world.settle();
        let on = |world: &World, node: &str| {
            world.active_pods().iter().filter(|p| p.node() == node).count()
        };
        let dead = (0..3).map(|i| format!("node-{i}")).max_by_key(|n| on(&world, n)).unwrap();
        let before = on(&world, &dead);
        assert!(before > 0);
        world.kill_node(&dead);
        world.run_secs(51);
        let node = world.value(&Key::cluster(Kind::Node, &dead));
        assert_eq!(node["status"]["conditions"][0]["status"], "Unknown", "{node}");
        assert_endpoints(&world);
        // P43: not before the pods' toleration has run out.
        world.run_secs(275);
        assert_eq!(on(&world, &dead), before);
        world.run_secs(50);
        assert_eq!((on(&world, &dead), world.active_pods().len()), (0, 6));
        world.revive_node(&dead);
        world.run_secs(60);
        let node = world.value(&Key::cluster(Kind::Node, &dead));
        assert_eq!(node["spec"]["taints"], Value::Null, "{node}");
        assert_endpoints(&world);
    }
}

fn given_up(world: &World) -> usize {
    let nodes = world.store.kind(Kind::Node).filter_map(Object::get::<Node>);
    nodes.filter(|n| crate::node_lifecycle::eviction_taint(n).is_some()).count()
}

#[test]
fn silent_nodes_are_given_up_one_after_the_other_and_taken_back() {
    for seed in 0..4 {
        let mut world = World::new(seed, 10, 5);
        world.run_secs(30);
        for i in 0..4 {
            world.kill_node(&format!("node-{i}"));
        }
        // Nobody asks about a node but because something changed or its time has come.
        let mut seen = BTreeSet::new();
        for _ in 0..120 {
            world.run_secs(1);
            seen.insert(given_up(&world));
        }
        assert_eq!(seen, BTreeSet::from([0, 1, 2, 3, 4]), "seed {seed}");
        // Nobody reports any more: nobody is given up, until somebody does again.
        for i in 4..10 {
            world.kill_node(&format!("node-{i}"));
        }
        world.run_secs(120);
        assert_eq!(given_up(&world), 0, "seed {seed}");
        for i in 4..10 {
            world.revive_node(&format!("node-{i}"));
        }
        world.run_secs(120);
        assert_eq!(given_up(&world), 4, "seed {seed}");
        for i in 0..4 {
            world.revive_node(&format!("node-{i}"));
        }
        world.run_secs(30);
        assert_eq!(given_up(&world), 0, "seed {seed}");
    }
}

#[test]
fn when_all_nodes_are_silent_nothing_is_evicted() {
    let mut world = World::new(5, 3, 0);
    deployment(&mut world, 6, json!(1), json!(1));
    service(&mut world);
    world.settle();
    let before: Vec<_> = world.active_pods().iter().map(|p| p.metadata.uid.clone()).collect();
    for i in 0..3 {
        world.kill_node(&format!("node-{i}"));
    }
    world.run_secs(3600);
    let after: Vec<_> = world.active_pods().iter().map(|p| p.metadata.uid.clone()).collect();
    assert_eq!(before, after);
    // Not every endpoint was taken away either.
    assert_ne!(ready_addresses(&world).1, BTreeSet::new());
}

#[test]
fn nodes_get_ranges_of_their_own() {
    for seed in 0..10 {
        let mut world = World::new(seed, 5, 20);
        world.run_secs(60);
        let ranges: BTreeSet<String> = world
            .store
            .kind(Kind::Node)
            .filter_map(|n| n.get::<Node>()?.spec.as_ref()?.pod_cidr.clone())
            .collect();
        assert_eq!(ranges.len(), 5, "seed {seed}: {ranges:?}");
    }
}

#[test]
fn refused_pods_are_tried_less_and_less_often_and_reported() {
    let mut world = World::new(1, 2, 0);
    world.run_secs(5);
    world.api = Api::RefusesPods;
    let key = deployment(&mut world, 3, json!(1), json!(1));
    let start = world.log.len();
    world.run_secs(600);
    let tries = world.log[start..].iter().filter(|l| l.contains("create pods")).count();
    // A doubling delay from 10 ms on allows 17 in ten minutes; changes of the set add a few.
    assert!((8..30).contains(&tries), "{tries}: {:#?}", &world.log[start..]);
    let failing = |world: &World| {
        let conditions = world.value(&key)["status"]["conditions"].as_array().cloned().unwrap();
        conditions.iter().find(|c| c["type"] == "ReplicaFailure").cloned()
    };
    let message = failing(&world).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("exceeded quota"), "{message}");
    assert!(world.events.iter().any(|e| e.contains("FailedCreate Error creating: pods")));
    world.api = Api::Up;
    world.run_secs(300);
    world.settle();
    assert_eq!((world.active_pods().len(), failing(&world)), (3, None));
}

#[test]
fn an_api_that_is_down_is_not_hammered() {
    for lost in [0, 10] {
        let mut world = World::new(1, 2, lost);
        world.run_secs(5);
        deployment(&mut world, 3, json!(1), json!(1));
        world.run(Duration::from_millis(200));
        let start = world.log.len();
        world.api = Api::Down;
        world.run_secs(300);
        let calls = world.log.len() - start;
        assert!(calls < 150, "{calls}: {:#?}", &world.log[start..]);
        world.api = Api::Up;
        world.run_secs(300);
        world.settle();
        assert_eq!(world.active_pods().len(), 3);
    }
}
