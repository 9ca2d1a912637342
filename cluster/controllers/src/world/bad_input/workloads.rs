//! Deployments, replica sets, daemon sets and stateful sets.

use super::*;

fn deployment(world: &mut World, name: &str, spec: Value) -> Key {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name),
        "spec": {"replicas": 2, "selector": selector("web"), "template": template("web"),
            "progressDeadlineSeconds": 60, "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    world.create(object)
}

fn stateful_set(world: &mut World, spec: Value) -> Key {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("db"),
        "spec": {"replicas": 2, "selector": selector("db"), "template": template("db"),
            "serviceName": "db", "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    world.create(object)
}

fn daemon_set(world: &mut World, spec: Value) -> Key {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("agent"),
        "spec": {"selector": selector("agent"), "template": template("agent"),
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    world.create(object)
}

#[test]
fn a_template_that_is_never_ready_times_out() {
    let mut world = World::new(1, 2, 0);
    world.fate = Fate::NeverReady;
    let key = deployment(&mut world, "web", json!({}));
    world.calm(0);
    assert_eq!(world.condition(&key, "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(world.condition(&key, "Available"), "False MinimumReplicasUnavailable");
    // Nor does it when nothing runs because there is nowhere to.
    let mut world = World::new(1, 0, 0);
    let key = deployment(&mut world, "web", json!({}));
    world.calm(0);
    assert_eq!(world.condition(&key, "Progressing"), "False ProgressDeadlineExceeded");
    // And stateful sets wait for their first pod.
    let mut world = World::new(1, 2, 0);
    world.fate = Fate::NeverReady;
    stateful_set(&mut world, json!({"minReadySeconds": i32::MAX}));
    world.calm(0);
    assert_eq!(world.active_pods().len(), 1);
}

#[test]
fn any_number_of_pods_may_be_refused() {
    let mut world = World::new(2, 2, 0);
    world.api = Api::RefusesPods;
    let bounds = json!({"maxSurge": i32::MAX, "maxUnavailable": i32::MAX});
    let key = deployment(
        &mut world,
        "web",
        json!({"replicas": i32::MAX,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": bounds}}),
    );
    // Each attempt ends with the first refusal, and five minutes later there is another one.
    world.calm(60);
    assert_eq!(world.condition(&key, "ReplicaFailure"), "True FailedCreate");
    world.told("FailedCreate Error creating: ");
    for spec in [
        json!({"replicas": i32::MAX}),
        json!({"replicas": i32::MAX,
        "podManagementPolicy": "Parallel", "ordinals": {"start": i32::MAX}}),
    ] {
        let mut world = World::new(2, 2, 0);
        world.api = Api::RefusesPods;
        stateful_set(&mut world, spec);
        world.calm(60);
        world.told("FailedCreate create Pod db-");
    }
}

#[test]
fn bounds_that_round_to_nothing_let_one_pod_go() {
    let mut world = World::new(3, 2, 0);
    let bounds = json!({"maxSurge": "0%", "maxUnavailable": "1%"});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": bounds});
    let key = deployment(&mut world, "web", json!({"replicas": 3, "strategy": strategy}));
    world.settle();
    world.edit(&key, |v| v["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into());
    world.calm(0);
    assert_eq!(world.condition(&key, "Progressing"), "True NewReplicaSetAvailable");
    let images: BTreeSet<_> = world
        .active_pods()
        .iter()
        .map(|p| p.spec.as_ref().unwrap().containers[0].image.clone())
        .collect();
    assert_eq!(images, BTreeSet::from([Some("v2".to_owned())]));
}

#[test]
fn owners_of_the_same_labels_do_not_fight() {
    let mut world = World::new(4, 3, 0);
    for name in ["one", "two"] {
        deployment(&mut world, name, json!({}));
        world.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": meta(&format!("set-{name}")), "spec": {"replicas": 2,
                "selector": selector("web"), "template": template("web")}}));
        world.create(json!({"apiVersion": "v1", "kind": "ReplicationController",
            "metadata": meta(&format!("rc-{name}")), "spec": {"replicas": 2,
                "selector": {"app": "web"}, "template": template("web")}}));
    }
    stateful_set(&mut world, json!({"selector": selector("web"), "template": template("web")}));
    daemon_set(&mut world, json!({"selector": selector("web"), "template": template("web")}));
    world.calm(0);
    // Two each of six owners and of the stateful set, and one on each node.
    assert_eq!(world.active_pods().len(), 7 * 2 + 3);
    // An orphan becomes one of theirs, and one goes that is too many.
    world.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray",
        "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "v1"}]}}));
    world.calm(0);
    assert_eq!(world.active_pods().len(), 7 * 2 + 3);
}

/// The API refuses selectors that do not match the template; objects may be older than it.
#[test]
fn selectors_that_match_nothing_make_nothing() {
    for wrong in [
        selector("other"),
        json!({}),
        json!({"matchExpressions":
        [{"key": "app", "operator": "In", "values": ["web"]},
         {"key": "app", "operator": "DoesNotExist"}]}),
    ] {
        let mut world = World::new(5, 2, 0);
        world
            .create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta("set"),
            "spec": {"replicas": 2, "selector": wrong, "template": template("web")}}));
        let everything = wrong == json!({});
        let key = deployment(&mut world, "web", json!({"selector": wrong.clone()}));
        daemon_set(&mut world, json!({"selector": wrong.clone()}));
        stateful_set(&mut world, json!({"selector": wrong.clone()}));
        world.calm(0);
        if everything {
            world.told("SelectingAll This deployment is selecting all pods. A non-empty selector");
            world.told("SelectingAll This daemon set is selecting all pods. A non-empty selector");
            assert_eq!(world.value(&key)["status"]["observedGeneration"], 1);
        }
        assert!(world.active_pods().is_empty(), "{wrong}: {:#?}", world.log);
    }
}

#[test]
fn a_partition_beyond_the_pods_holds_all_of_them_back() {
    let mut world = World::new(6, 2, 0);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": i32::MAX}});
    let key = stateful_set(&mut world, json!({"updateStrategy": strategy}));
    world.settle();
    world.edit(&key, |v| v["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into());
    world.calm(0);
    let status = world.value(&key)["status"].clone();
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(2), &Value::Null));
    assert_ne!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn daemons_without_nodes_or_that_end_at_once() {
    let mut world = World::new(7, 2, 0);
    let mut nowhere = template("agent");
    nowhere["spec"]["nodeSelector"] = json!({"no": "such"});
    let key = daemon_set(&mut world, json!({"template": nowhere}));
    world.calm(0);
    assert_eq!(world.value(&key)["status"]["desiredNumberScheduled"], 0);
    for (fate, told) in [
        (Fate::Fails, "FailedDaemonPod Found failed"),
        (Fate::Succeeds, "SucceededDaemonPod Found"),
    ] {
        let mut world = World::new(7, 2, 0);
        world.fate = fate;
        daemon_set(&mut world, json!({}));
        // Every quarter of an hour on each of two nodes: delete, create, and the counts.
        world.calm(2 * 4 * 8);
        world.told(told);
    }
}
