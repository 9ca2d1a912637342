#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use super::fields::check;
use super::*;

fn quota(hard: Value) -> Value {
    json!({"kind": "ResourceQuota", "apiVersion": "v1",
        "metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})
}

/// A world with a quota of which its controller has taken notice.
fn limited(hard: Value, used: Value) -> World {
    let mut world = World::new();
    add(&mut world, quota(hard), used);
    world
}

fn add(world: &mut World, quota: Value, used: Value) {
    let mut made = world.create(quota).unwrap();
    made["status"] = json!({"hard": made["spec"]["hard"], "used": used});
    world.update(&made, Some(Subresource::Status)).unwrap();
}

fn refused(result: Result<Value, Status>, expected: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (403, expected));
}

fn used(world: &World) -> Value {
    codec::to_value(&world.objects[&key(Kind::ResourceQuota, "q")])["status"]["used"].clone()
}

fn asking(name: &str, cpu: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    with(pod(name), "/spec/containers/0/resources", resources)
}

#[test]
fn what_a_quota_may_be() {
    let one = || quota(json!({"pods": "1"}));
    check(
        one(),
        "/spec/hard",
        json!({"nothing": "1"}),
        "[spec.hard[nothing]: Invalid value: \"nothing\": must be a standard resource type or \
         fully qualified, spec.hard[nothing]: Invalid value: \"nothing\": must be a standard \
         resource for quota]",
    );
    check(
        one(),
        "/spec/hard",
        json!({"pods": "-1"}),
        "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
    );
    check(
        one(),
        "/spec/hard",
        json!({"pods": "500m"}),
        "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
    );
    check(
        one(),
        "/spec/scopes",
        json!(["BestEffort", "NotBestEffort"]),
        "spec.scopes: Invalid value: []core.ResourceQuotaScope{\"BestEffort\", \"NotBestEffort\"}: \
         conflicting scopes",
    );
    check(
        one(),
        "/spec/scopes",
        json!(["Big"]),
        "spec.scopes: Invalid value: []core.ResourceQuotaScope{\"Big\"}: unsupported scope",
    );
    check(
        with(one(), "/spec/scopes", json!(["BestEffort"])),
        "/spec/hard",
        json!({"cpu": "1"}),
        "spec.scopes: Invalid value: []core.ResourceQuotaScope{\"BestEffort\"}: unsupported scope \
         applied to resource",
    );
    let select = |operator: &str, values: Value| {
        json!({"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]})
    };
    let at = "spec.scopeSelector.matchExpressions";
    check(
        one(),
        "/spec/scopeSelector",
        select("In", json!([])),
        &format!(
            "{at}.values: Required value: must be at least one value when `operator` is 'In' or \
             'NotIn' for scope selector"
        ),
    );
    check(
        one(),
        "/spec/scopeSelector",
        select("Exists", json!(["a"])),
        &format!(
            "{at}.values: Invalid value: []string{{\"a\"}}: must be no value when `operator` is \
             'Exist' or 'DoesNotExist' for scope selector"
        ),
    );
    check(
        one(),
        "/spec/scopeSelector",
        select("Is", json!(["a"])),
        &format!("{at}.operator: Invalid value: \"Is\": not a valid selector operator"),
    );
    let names = ["requests.nvidia.com/gpu", "count/jobs.batch", "hugepages-2Mi", "limits.cpu"];
    for name in names {
        World::new().create(quota(json!({name: "1"}))).unwrap();
    }
}

#[test]
fn scopes_of_a_quota_do_not_change() {
    let mut world = limited(json!({"pods": "1"}), json!({"pods": "0"}));
    let body = json!({"spec": {"scopes": ["BestEffort"]}});
    let error = world.patch(&key(Kind::ResourceQuota, "q"), body).unwrap_err();
    assert_eq!(
        error.message,
        "ResourceQuota \"q\" is invalid: spec.scopes: Invalid value: \
         []core.ResourceQuotaScope{\"BestEffort\"}: field is immutable"
    );
}

#[test]
fn what_is_used_is_charged_with_the_object() {
    let hard = json!({"pods": "2", "requests.cpu": "1", "count/pods": "5"});
    let mut world = limited(hard, json!({"pods": "0", "requests.cpu": "0", "count/pods": "1"}));
    world.create(asking("a", "600m")).unwrap();
    let expected = json!({"pods": "1", "requests.cpu": "600m", "count/pods": "2"});
    assert_eq!(used(&world), expected);
    refused(
        world.create(asking("b", "600m")),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: \
         requests.cpu=600m, limited: requests.cpu=1",
    );
    refused(
        world.create(pod("b")),
        "pods \"b\" is forbidden: failed quota: q: must specify requests.cpu for: a",
    );
    world.create(asking("b", "400m")).unwrap();
    refused(
        world.create(asking("c", "1")),
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=1, used: \
         pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1",
    );
    assert_eq!(used(&world), json!({"pods": "2", "requests.cpu": "1", "count/pods": "3"}));
    // Other writes of the objects are free.
    world.patch(&key(Kind::Pod, "a"), json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    world.delete(&key(Kind::Pod, "a"), DeleteOptions::default()).unwrap();
    assert_eq!(used(&world)["pods"], "2");
}

#[test]
fn objects_of_all_kinds_are_counted() {
    let hard = json!({"count/deployments.apps": "1", "configmaps": "1"});
    let mut world = limited(hard, json!({"count/deployments.apps": "0", "configmaps": "1"}));
    world.create(deployment("a")).unwrap();
    refused(
        world.create(deployment("b")),
        "deployments.apps \"b\" is forbidden: exceeded quota: q, requested: \
         count/deployments.apps=1, used: count/deployments.apps=1, limited: \
         count/deployments.apps=1",
    );
    refused(
        world.create(json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "m", "namespace": "default"}})),
        "configmaps \"m\" is forbidden: exceeded quota: q, requested: configmaps=1, used: \
         configmaps=1, limited: configmaps=1",
    );
}

#[test]
fn services_are_charged_for_what_they_become() {
    let hard = json!({"services": "5", "services.nodeports": "1", "services.loadbalancers": "1"});
    let none = json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"});
    let mut world = limited(hard, none);
    world.create(service("a")).unwrap();
    world.create(service("b")).unwrap();
    world.patch(&key(Kind::Service, "a"), json!({"spec": {"type": "NodePort"}})).unwrap();
    assert_eq!(used(&world)["services.nodeports"], "1");
    assert_eq!(used(&world)["services"], "2");
    refused(
        world.patch(&key(Kind::Service, "b"), json!({"spec": {"type": "LoadBalancer"}})),
        "services \"b\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
         services.nodeports=1, limited: services.nodeports=1",
    );
    // What is used less is given back by the controller.
    world.patch(&key(Kind::Service, "a"), json!({"spec": {"type": "ClusterIP"}})).unwrap();
    assert_eq!(used(&world)["services.nodeports"], "1");
}

#[test]
fn claims_are_charged_for_storage_of_their_class() {
    let of_class = "fast.storageclass.storage.k8s.io/requests.storage";
    let hard = json!({"requests.storage": "5Gi", of_class: "2Gi", "persistentvolumeclaims": "9"});
    let none = json!({"requests.storage": "0", of_class: "0", "persistentvolumeclaims": "0"});
    let mut world = limited(hard, none);
    let claim = |name: &str, class: &str, storage: &str| {
        json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": {"requests": {"storage": storage}}}})
    };
    world.create(claim("a", "fast", "2Gi")).unwrap();
    refused(
        world.create(claim("b", "fast", "1Gi")),
        "persistentvolumeclaims \"b\" is forbidden: exceeded quota: q, requested: \
         fast.storageclass.storage.k8s.io/requests.storage=1Gi, used: \
         fast.storageclass.storage.k8s.io/requests.storage=2Gi, limited: \
         fast.storageclass.storage.k8s.io/requests.storage=2Gi",
    );
    world.create(claim("b", "slow", "1Gi")).unwrap();
    let expected =
        json!({"requests.storage": "3Gi", of_class: "2Gi", "persistentvolumeclaims": "2"});
    assert_eq!(used(&world), expected);
}

#[test]
fn quotas_hold_for_what_is_in_their_scope() {
    let mut world = World::new();
    let best = with(quota(json!({"pods": "0"})), "/spec/scopes", json!(["BestEffort"]));
    add(&mut world, best, json!({"pods": "0"}));
    refused(
        world.create(pod("a")),
        "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: \
         pods=0",
    );
    world.create(asking("a", "1")).unwrap();
    assert_eq!(used(&world), json!({"pods": "0"}));
}

#[test]
fn several_quotas_are_charged_at_once_or_none() {
    let mut world = limited(json!({"pods": "5"}), json!({"pods": "0"}));
    let second = with(quota(json!({"pods": "1"})), "/metadata/name", json!("r"));
    add(&mut world, second, json!({"pods": "0"}));
    world.create(pod("a")).unwrap();
    refused(
        world.create(pod("b")),
        "pods \"b\" is forbidden: exceeded quota: r, requested: pods=1, used: pods=1, limited: \
         pods=1",
    );
    assert_eq!(used(&world), json!({"pods": "1"}));
}

#[test]
fn quotas_hold_once_they_are_taken_notice_of() {
    let mut world = World::new();
    let made = world.create(quota(json!({"pods": "0"}))).unwrap();
    world.create(pod("a")).unwrap();
    let known = with(made, "/status", json!({"hard": {"pods": "0"}}));
    world.update(&known, Some(Subresource::Status)).unwrap();
    refused(
        world.create(pod("b")),
        "pods \"b\" is forbidden: status unknown for quota: q, resources: pods",
    );
}

#[test]
fn the_status_of_a_quota_is_its_controllers() {
    let mut world = World::new();
    let given = with(quota(json!({"pods": "1"})), "/status", json!({"used": {"pods": "7"}}));
    let made = world.create(given).unwrap();
    assert_eq!(made["status"], json!({}));
    let wrong = with(made, "/status", json!({"hard": {"x": "1"}}));
    let error = world.update(&wrong, Some(Subresource::Status)).unwrap_err();
    assert_eq!(error.code, 422);
}
