//! Owners, namespaces, services, volumes, roles and certificates.

use super::*;

fn config_map(name: &str, owners: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name,
        "namespace": "default", "uid": name, "ownerReferences": owners}})
}

fn owned_by(name: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name,
        "blockOwnerDeletion": true}])
}

#[test]
fn owners_in_a_circle() {
    use api::Propagation::{Background, Foreground};
    // Objects that own each other, by name: an owner is there before anybody can name it.
    let circle = |world: &mut World, owners: [(&str, &str); 4]| {
        let keys = owners.map(|(name, _)| world.create(config_map(name, Value::Null)));
        for (key, (_, owner)) in keys.iter().zip(owners) {
            world.edit(key, |v| v["metadata"]["ownerReferences"] = owned_by(owner));
        }
        keys
    };
    let owners = [("a", "c"), ("b", "a"), ("c", "b"), ("self", "self")];
    for propagation in [Background, Foreground] {
        let mut world = World::new(1, 1, 0);
        let keys = circle(&mut world, owners);
        world.calm(0);
        assert!(keys.iter().all(|key| world.store.get(key).is_some()), "nobody deleted them");
        for key in [&keys[0], &keys[3]] {
            world.delete(key, Some(propagation));
        }
        world.calm(0);
        let left: Vec<&Key> = keys.iter().filter(|key| world.store.get(key).is_some()).collect();
        assert!(left.is_empty(), "{propagation:?} {left:?}: {:#?}", world.log);
    }
    // All of them at once, before anybody could act.
    let mut world = World::new(1, 1, 0);
    let keys = circle(&mut world, owners);
    world.settle();
    keys.iter().for_each(|key| world.delete(key, Some(Foreground)));
    world.calm(0);
    assert!(keys.iter().all(|key| world.store.get(key).is_none()), "{:#?}", world.log);
}

#[test]
fn owners_that_nobody_knows() {
    let mut world = World::new(2, 1, 0);
    let owner = |api: &str, kind: &str, name: &str| {
        json!({"apiVersion": api, "kind": kind, "name": name, "uid": "u", "controller": true,
            "blockOwnerDeletion": true})
    };
    let gadget = json!([owner("example.com/v1", "Gadget", "g")]);
    let odd = world.create(config_map("odd", json!([owner("", "", "")])));
    let strange = world.create(config_map("strange", gadget));
    let event = world.create(config_map("of-an-event", json!([owner("v1", "Event", "e")])));
    let gone = world.create(config_map("gone", json!([owner("apps/v1", "ReplicaSet", "r")])));
    // Pods whose owners do not own pods.
    let pod = world.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p",
        "namespace": "default", "labels": {"app": "web"},
        "ownerReferences": [owner("example.com/v1", "ReplicaSet", "r")]},
        "spec": {"containers": [{"name": "c", "image": "v1"}]}}));
    world.calm(0);
    for key in [&odd, &strange, &event, &pod] {
        assert!(world.store.get(key).is_some(), "{key}");
    }
    assert!(world.store.get(&gone).is_none());
}

#[test]
fn ten_thousand_owners_cost_one_write() {
    let mut world = World::new(5, 1, 0);
    let owner = |i: usize| {
        let name = format!("o{i}");
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name,
            "blockOwnerDeletion": true})
    };
    let there = world.create(config_map("o9999", Value::Null));
    let all: Vec<Value> = (0..10_000).map(owner).collect();
    let many = world.create(config_map("many", all.into()));
    world.calm(0);
    // All that are gone are forgotten at once.
    let about = |world: &World| world.log.iter().filter(|l| l.contains("default/many")).count();
    assert_eq!(about(&world), 1, "{:#?}", world.log);
    assert_eq!(world.value(&many)["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    world.delete(&there, None);
    world.calm(0);
    assert!(world.store.get(&many).is_none());
    assert_eq!(about(&world), 2, "{:#?}", world.log);
}

#[test]
fn what_never_gives_up_its_finalizer_is_waited_for_in_peace() {
    let mut world = World::new(3, 1, 0);
    let namespace = world
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "held"}}));
    world.settle();
    let mut held = config_map("held", Value::Null);
    held["metadata"]["namespace"] = "held".into();
    held["metadata"]["finalizers"] = json!(["example.com/never"]);
    let held = world.create(held);
    world.delete(&namespace, None);
    world.calm(0);
    assert_eq!(
        world.condition(&namespace, "NamespaceFinalizersRemaining"),
        "True SomeFinalizersRemain"
    );
    assert_eq!(
        world.condition(&namespace, "NamespaceContentRemaining"),
        "True SomeResourcesRemain"
    );
    // Somebody lets go at last.
    world.edit(&held, |v| v["metadata"]["finalizers"] = json!([]));
    world.calm(0);
    assert!(world.store.get(&namespace).is_none(), "{:#?}", world.log);
    // A finalizer of somebody else in the namespace itself.
    let other = world
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}));
    world.edit(&other, |v| v["spec"]["finalizers"] = json!(["kubernetes", "example.com/never"]));
    world.delete(&other, None);
    world.calm(0);
    let left = world.value(&other)["spec"]["finalizers"].clone();
    assert_eq!(left, json!(["example.com/never"]));
}

#[test]
fn services_that_select_too_much_or_nothing() {
    let mut world = World::new(4, 2, 0);
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|i| (format!("label-{i}"), Value::from("x"))).collect();
    for (name, selector) in
        [("many", Value::Object(many)), ("none", json!({})), ("odd", json!({"app": ""}))]
    {
        world.create(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name),
            "spec": {"clusterIP": "10.0.0.1", "selector": selector,
                "ports": [{"port": 80, "targetPort": "no-such-port"}]}}));
    }
    world.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta("set"),
        "spec": {"replicas": 3, "selector": selector("web"), "template": template("web")}}));
    world.create(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"),
        "spec": {"clusterIP": "10.0.0.2", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "no-such-port"}]}}));
    world.calm(0);
    let endpoints = world.value(&Key::new(Kind::Endpoints, "default", "many"));
    assert_eq!(endpoints["subsets"], Value::Null);
}

#[test]
fn claims_that_nothing_serves() {
    let mut world = World::new(5, 2, 0);
    let claim = |name: &str, class: Value, size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name),
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": {"requests": {"storage": size}}}})
    };
    let plain = world.create(claim("plain", Value::Null, "1Gi"));
    let none = world.create(claim("none", "".into(), "8Ei"));
    let unknown = world.create(claim("unknown", "no-such".into(), "1n"));
    world.create(json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "nowhere"}, "spec": {"capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": "/x"}, "nodeAffinity": {"required": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "no", "operator": "In", "values": ["such"]}]}]}}}}));
    world.calm(0);
    assert_eq!(world.value(&plain)["status"]["phase"], "Bound");
    for key in [&none, &unknown] {
        assert_eq!(world.value(key)["status"]["phase"], "Pending", "{key}");
    }
    world.told("none FailedBinding no persistent volumes available for this claim");
    world.told("unknown ProvisioningFailed storageclass.storage.k8s.io \"no-such\" not found");
    // A volume that nobody can delete says so, and is left alone.
    world.delete(&plain, None);
    world.calm(0);
    let volume = Key::cluster(Kind::PersistentVolume, "nowhere");
    assert_eq!(world.value(&volume)["status"]["phase"], "Failed");
    world.told("nowhere VolumeFailedDelete error getting deleter volume plugin");
}

#[test]
fn roles_that_are_made_of_each_other() {
    let mut world = World::new(6, 1, 0);
    let role = |name: &str, label: &str, of: &str, resource: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
    };
    world.create(role("one", "x", "y", "pods"));
    world.create(role("two", "y", "x", "nodes"));
    world.create(role("three", "z", "z", "secrets"));
    world.calm(0);
}

#[test]
fn garbage_is_not_signed() {
    let mut world = World::new(7, 1, 0);
    for (i, signer) in ["kubernetes.io/kubelet-serving", "example.com/none", "x"].iter().enumerate()
    {
        for request in ["", "bm9uc2Vuc2U="] {
            world.create(json!({"apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"name": format!("c{i}{}", request.len())},
                "spec": {"request": request, "signerName": signer, "usages": []}}));
        }
    }
    world.calm(0);
    assert_eq!(world.store.kind(Kind::CertificateSigningRequest).count(), 6);
    // They are forgotten after a day.
    world.run_secs(24 * 3600);
    assert_eq!(world.store.kind(Kind::CertificateSigningRequest).count(), 0);
}

#[test]
fn taints_and_tolerations_of_all_sizes() {
    let mut world = World::new(8, 2, 0);
    let pod = |name: &str, seconds: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(name), "spec": {
            "containers": [{"name": "c", "image": "v1"}], "tolerations": [{"key": "odd",
                "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]}})
    };
    let names = [("past", json!(i64::MIN)), ("never", json!(i64::MAX)), ("ever", Value::Null)];
    let keys = names.map(|(name, seconds)| world.create(pod(name, seconds)));
    world.run_secs(60);
    for node in ["node-0", "node-1"] {
        world.edit(&Key::cluster(Kind::Node, node), |v| {
            v["spec"]["taints"] = json!([{"key": "odd", "effect": "NoExecute"},
                {"key": "", "effect": ""}]);
        });
    }
    world.calm(0);
    let there = keys.map(|key| world.store.get(&key).is_some());
    assert_eq!(there, [false, true, true]);
}

#[test]
fn tokens_and_leases_of_nobody() {
    let mut world = World::new(9, 1, 0);
    let secret = world.create(json!({"apiVersion": "v1", "kind": "Secret",
        "type": "kubernetes.io/service-account-token", "metadata": {"name": "t",
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": "no-such"}}}));
    for (name, spec) in [
        ("empty", json!({})),
        (
            "negative",
            json!({"leaseDurationSeconds": -1, "renewTime": "1990-01-01T00:00:00.000000Z"}),
        ),
        (
            "long",
            json!({"leaseDurationSeconds": i32::MAX,
            "renewTime": "2999-01-01T00:00:00.000000Z"}),
        ),
    ] {
        world.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-system",
                "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
            "spec": spec}));
    }
    world.calm(0);
    assert!(world.store.get(&secret).is_none(), "it goes as if its account were gone");
    assert_eq!(world.count(Kind::Lease, "kube-system"), 1);
}
