//! Autoscalers, disruption budgets, quotas and limits.

use super::*;

fn autoscaler(world: &mut World, name: &str, target: (&str, &str), spec: Value) -> Key {
    let (kind, of) = target;
    let mut object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": meta(name), "spec": {"minReplicas": 1, "maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": of},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    world.create(object)
}

fn deployment(world: &mut World, replicas: i32) -> Key {
    world.create(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"),
        "spec": {"replicas": replicas, "selector": selector("web"), "template": template("web"),
            "progressDeadlineSeconds": 600}}))
}

fn budget(world: &mut World, name: &str, spec: Value) -> Key {
    world.create(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": meta(name), "spec": spec}))
}

/// Questions every fifteen seconds.
const ASKED_AN_HOUR: usize = 240;

#[test]
fn autoscalers_of_what_cannot_be_scaled() {
    let check = |target: (&str, &str), why: &str| {
        let mut world = World::new(1, 2, 0);
        world.create(
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("agent"),
            "spec": {"selector": selector("agent"), "template": template("agent")}}),
        );
        let key = autoscaler(&mut world, "a", target, json!({}));
        world.calm(0);
        assert_eq!(world.condition(&key, "AbleToScale"), "False FailedGetScale");
        world.told(&format!("FailedGetScale {why}"));
    };
    check(("DaemonSet", "agent"), "the server could not find the requested resource");
    check(("Deployment", "none"), "deployments.apps \"none\" not found");
    check(("Gadget", "g"), "no matches for kind \"Gadget\" in group \"apps\"");
}

#[test]
fn two_autoscalers_of_one_target_do_nothing() {
    let mut world = World::new(2, 2, 0);
    let target = deployment(&mut world, 3);
    world.load_milli = 100_000;
    let keys =
        ["a", "b"].map(|name| autoscaler(&mut world, name, ("Deployment", "web"), json!({})));
    world.calm(2 * ASKED_AN_HOUR);
    for key in &keys {
        assert_eq!(world.condition(key, "ScalingActive"), "False AmbiguousSelector");
    }
    world.told("AmbiguousSelector pods by selector app=web are controlled by multiple HPAs: ");
    assert_eq!(world.value(&target)["spec"]["replicas"], 3);
}

#[test]
fn autoscalers_of_extremes() {
    let check = |load: i64, spec: Value, replicas: i32, expected: i64, per_hour: usize| {
        let mut world = World::new(3, 2, 0);
        let target = deployment(&mut world, replicas);
        world.load_milli = load;
        autoscaler(&mut world, "a", ("Deployment", "web"), spec.clone());
        world.calm(per_hour);
        assert_eq!(world.value(&target)["spec"]["replicas"], expected, "{spec}");
    };
    let metric = |target: Value| json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    // A load that no number of pods could bear.
    check(i64::MAX / 4, json!({}), 2, 5, ASKED_AN_HOUR);
    check(
        i64::MAX / 4,
        json!({"metrics": metric(json!({"type": "AverageValue",
        "averageValue": "1n"}))}),
        2,
        5,
        ASKED_AN_HOUR,
    );
    // A target that is never reached.
    let huge = json!({"type": "AverageValue", "averageValue": "8Ei"});
    check(1, json!({"metrics": metric(huge)}), 2, 1, ASKED_AN_HOUR);
    check(
        1,
        json!({"metrics": metric(json!({"type": "Utilization",
        "averageUtilization": i32::MAX}))}),
        2,
        1,
        ASKED_AN_HOUR,
    );
    // Nobody wants pods: nobody is asked.
    check(1000, json!({}), 0, 0, 0);
    // Policies that let nothing happen, or everything.
    let never = json!({"scaleUp": {"selectPolicy": "Disabled", "policies": []},
        "scaleDown": {"selectPolicy": "Disabled", "policies": []}});
    check(100_000, json!({"behavior": never}), 2, 2, ASKED_AN_HOUR);
    let all = json!({"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies":
        [{"type": "Percent", "value": i32::MAX, "periodSeconds": 1800},
         {"type": "Pods", "value": i32::MAX, "periodSeconds": 1}]}});
    check(100_000, json!({"behavior": all}), 2, 5, ASKED_AN_HOUR);
}

#[test]
fn autoscalers_of_metrics_that_nobody_serves() {
    let mut world = World::new(4, 2, 0);
    deployment(&mut world, 2);
    let metrics = json!([{"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "Value", "value": "1"}}}]);
    let key = autoscaler(&mut world, "a", ("Deployment", "web"), json!({"metrics": metrics}));
    world.calm(0);
    assert_eq!(world.condition(&key, "ScalingActive"), "False FailedGetExternalMetric");
}

#[test]
fn budgets_that_overlap_or_cannot_be_kept() {
    let mut world = World::new(5, 3, 0);
    deployment(&mut world, 3);
    let web = selector("web");
    let one = budget(&mut world, "one", json!({"maxUnavailable": 1, "selector": web}));
    let two = budget(&mut world, "two", json!({"minAvailable": "100%", "selector": web}));
    let all = budget(&mut world, "all", json!({"minAvailable": i32::MAX, "selector": {}}));
    let none = budget(&mut world, "none", json!({"minAvailable": 1, "selector": selector("x")}));
    let free = budget(
        &mut world,
        "free",
        json!({"maxUnavailable": i32::MAX, "selector": selector("web")}),
    );
    world.calm(0);
    let allowed = |key: &Key| world.value(key)["status"]["disruptionsAllowed"].clone();
    assert_eq!([&one, &two, &all, &none, &free].map(allowed), [1, 0, 0, 0, 3].map(Value::from));
    assert_eq!(world.value(&all)["status"]["desiredHealthy"], i32::MAX);
    world.told("none NoPods No matching pods found");
    // Pods of nobody, and of an owner that is gone, cannot be counted in shares.
    let odd = |name: &str, owners: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name,
            "namespace": "default", "labels": {"app": "odd"}, "ownerReferences": owners},
            "spec": {"containers": [{"name": "c", "image": "v1"}]}})
    };
    world.create(odd("nobodys", Value::Null));
    world.create(odd(
        "widgets",
        json!([{"apiVersion": "example.com/v1", "kind": "Widget",
        "name": "w", "uid": "w", "controller": true}]),
    ));
    let key = budget(&mut world, "odd", json!({"maxUnavailable": 1, "selector": selector("odd")}));
    world.calm(0);
    assert_eq!(world.condition(&key, "DisruptionAllowed"), "False SyncFailed");
    world.told(
        "odd CalculateExpectedPodCountFailed Failed to calculate the number of expected pods",
    );
}

#[test]
fn quotas_of_what_nobody_knows_and_of_everything() {
    let mut world = World::new(6, 2, 0);
    let hard = json!({"count/gadgets.example.com": "1", "requests.example.com/gpu": "8E",
        "requests.cpu": "9223372036854775807", "limits.memory": "8Ei", "pods": "0",
        "count/pods": "1n", "requests.nobodys": "1", "services.nodeports": "16384E",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"});
    let key = world.create(json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": meta("q"), "spec": {"hard": hard}}));
    for (i, request) in ["8E", "8Ei", "1n", "9223372036854775807"].into_iter().enumerate() {
        let list = json!({"cpu": request, "memory": request, "example.com/gpu": request});
        world.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(&format!("p{i}")),
            "spec": {"containers": [{"name": "c", "image": "v1",
                "resources": {"requests": list, "limits": list}}]}}));
    }
    world.create(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta("l"),
        "spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}));
    // Pods were let in before there was a quota: it counts them once it is changed.
    world.edit(&key, |v| v["spec"]["hard"]["secrets"] = "1".into());
    world.calm(0);
    let used = world.value(&key)["status"]["used"].clone();
    assert_eq!(used["pods"], "4", "{used}");
    // More than there can be is as much as there can be.
    assert_eq!(used["requests.cpu"], "9223372036854775807", "{used}");
    assert_eq!(used["requests.nobodys"], Value::Null);
}
