//! The controllers that keep house, among all others, with calls that are lost.

use k8s_openapi::ByteString;

use super::*;

fn bytes(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn role(world: &mut World, name: &str, resource: &str) -> Key {
    world.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"part": "true"}},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]}))
}

fn token(world: &mut World, id: &str, lasts: Option<u64>) {
    let end = lasts.map(|secs| (world.store.now + Duration::from_secs(secs)).to_meta().0);
    let expiration = end.map(|end| end.to_string()).unwrap_or_default();
    world.create(json!({"apiVersion": "v1", "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "data": {"token-id": bytes(id), "token-secret": bytes("0123456789abcdef"),
            "expiration": bytes(&expiration), "usage-bootstrap-signing": bytes("true")}}));
}

/// The resources of the rules of the role `whole`.
fn resources(world: &World) -> Vec<String> {
    let role = world.value(&Key::cluster(Kind::ClusterRole, "whole"));
    let rules = role["rules"].as_array().cloned().unwrap_or_default();
    rules.iter().map(|r| r["resources"][0].as_str().unwrap().to_owned()).collect()
}

fn mirrored(world: &World) -> Vec<Value> {
    let slices = world.store.kind(Kind::EndpointSlice).map(codec::to_value);
    let ours = slices.filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "db");
    ours.map(|s| s["endpoints"][0]["addresses"][0].clone()).collect()
}

fn check(seed: u64, loss_percent: u32) {
    let mut world = World::new(seed, 3, loss_percent);
    world.run_secs(5);
    let quota = world.create(json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "default"},
        "spec": {"hard": {"pods": "20", "count/replicasets.apps": "5", "secrets": "9"}}}));
    let web = deployment(&mut world, 6, json!(1), json!(1));
    let part = role(&mut world, "b", "pods");
    role(&mut world, "a", "secrets");
    world.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors":
            [{"matchLabels": {"part": "true"}}]}}));
    world.create(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "db", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}));
    let endpoints = world.create(json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "default"},
        "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": "10.9.0.1"}]}]}));
    let robot = world.create(json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "robot", "namespace": "default"}}));
    let secret = world.create(json!({"apiVersion": "v1", "kind": "Secret",
        "type": "kubernetes.io/service-account-token", "metadata": {"name": "robot",
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": "robot"}}}));
    token(&mut world, "aaaaaa", None);
    token(&mut world, "bbbbbb", Some(600));
    let info = world.create(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "x"}}));
    let renewed = json!(world.store.now.to_micro());
    let lease = world.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "apiserver-x", "namespace": "kube-system",
            "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
        "spec": {"leaseDurationSeconds": 30, "renewTime": renewed}}));
    world.settle();
    assert_eq!(world.active_pods().len(), 6);
    assert_eq!(resources(&world), ["secrets", "pods"]);
    assert_eq!(mirrored(&world), ["10.9.0.1"]);
    assert_eq!(world.value(&secret)["data"]["token"], "eA==");
    let signatures = |world: &World| {
        let data = world.value(&info)["data"].clone();
        data.as_object().unwrap().keys().filter(|k| k.starts_with("jws-")).count()
    };
    assert_eq!(signatures(&world), 2);

    world.edit(&web, |v| v["spec"]["replicas"] = json!(2));
    world.edit(&part, |v| v["rules"][0]["resources"] = json!(["nodes"]));
    world.edit(&endpoints, |v| v["subsets"][0]["addresses"][0]["ip"] = json!("10.9.0.2"));
    world.delete(&robot, None);
    world.run_secs(700);
    world.settle();
    // What was created was not charged here; what went was counted, and with it all that is left.
    let used = world.value(&quota)["status"]["used"].clone();
    assert_eq!(used, json!({"pods": "2", "count/replicasets.apps": "1", "secrets": "0"}));
    assert_eq!(resources(&world), ["secrets", "nodes"]);
    assert_eq!(mirrored(&world), ["10.9.0.2"]);
    assert_eq!(world.value(&secret), Value::Null, "it goes with its account");
    assert_eq!(signatures(&world), 1);
    let ended = Key::new(Kind::Secret, "kube-system", "bootstrap-token-bbbbbb");
    assert_eq!(world.value(&ended), Value::Null);
    assert_eq!(world.value(&lease), Value::Null);
}

#[test]
fn the_house_is_kept() {
    check(1, 0);
}

#[test]
fn the_house_is_kept_despite_lost_calls() {
    for seed in 0..8 {
        check(seed, 10);
    }
}
