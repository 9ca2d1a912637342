//! Claims and volumes from the template to the folder, with all controllers.

use super::*;

/// The volume that each claim names serves no other.
fn no_volume_serves_two(world: &World) {
    let mut taken = BTreeSet::new();
    for claim in world.store.kind(Kind::PersistentVolumeClaim).map(codec::to_value) {
        if let Some(volume) = claim["spec"]["volumeName"].as_str() {
            assert!(taken.insert(volume.to_owned()), "{volume}: {:#?}", world.log);
        }
    }
}

/// Nobody loses the volume of a claim that is there.
fn no_claim_is_lost(world: &World) {
    no_volume_serves_two(world);
    for claim in world.store.kind(Kind::PersistentVolumeClaim).map(codec::to_value) {
        let Some(name) = claim["spec"]["volumeName"].as_str() else { continue };
        let volume = world.value(&Key::cluster(Kind::PersistentVolume, name));
        let uid = &claim["metadata"]["uid"];
        assert_eq!(&volume["spec"]["claimRef"]["uid"], uid, "{name}: {:#?}", world.log);
    }
}

fn class(world: &mut World) {
    world.create(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local"}, "provisioner": "kprov.io/local", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer"}));
}

fn claim_spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}}})
}

fn set(world: &mut World, policy: &str) -> Key {
    world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "db"}}, "serviceName": "db",
            "podManagementPolicy": policy, "revisionHistoryLimit": 1,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": "Delete", "whenScaled": "Delete"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim_spec()}],
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
}

/// The volumes of the claims, and the nodes that they are on.
fn volumes(world: &World) -> Vec<(String, String)> {
    let claims = world.store.kind(Kind::PersistentVolumeClaim).map(codec::to_value);
    claims
        .map(|claim| {
            assert_eq!(claim["status"]["phase"], "Bound", "{:#?}", world.log);
            let name = claim["spec"]["volumeName"].as_str().unwrap().to_owned();
            let volume = world.value(&Key::cluster(Kind::PersistentVolume, &name));
            assert_eq!(volume["status"]["phase"], "Bound", "{:#?}", world.log);
            let node = volume["metadata"]["annotations"]["kprov.io/node"].as_str().unwrap();
            (name, node.to_owned())
        })
        .collect()
}

/// Every pod runs where its volume is.
fn pods_are_with_their_volumes(world: &World, count: usize) {
    let pods = world.active_pods();
    assert_eq!(pods.iter().filter(|p| pods::is_ready(p)).count(), count, "{:#?}", world.log);
    for pod in pods {
        for claim in claims_of(pod) {
            let claim = world.value(&Key::new(Kind::PersistentVolumeClaim, "default", &claim));
            let volume = claim["spec"]["volumeName"].as_str().unwrap();
            let volume = world.value(&Key::cluster(Kind::PersistentVolume, volume));
            assert_eq!(volume["metadata"]["annotations"]["kprov.io/node"], *pod.node());
        }
    }
}

fn nothing_is_left(world: &World) {
    assert_eq!(world.count(Kind::PersistentVolumeClaim, "default"), 0, "{:#?}", world.log);
    assert_eq!(world.store.kind(Kind::PersistentVolume).count(), 0, "{:#?}", world.log);
    for node in world.store.kind(Kind::Node) {
        let annotations = node.meta().annotations.clone().unwrap_or_default();
        assert_eq!(annotations, BTreeMap::new(), "{:#?}", world.log);
    }
}

#[test]
fn sets_keep_their_volumes_until_they_give_them_up() {
    for seed in 0..12 {
        let mut world = World::new(seed, 3, if seed < 6 { 0 } else { 15 });
        world.run_secs(5);
        class(&mut world);
        let policy = if seed % 2 == 0 { "OrderedReady" } else { "Parallel" };
        let key = set(&mut world, policy);
        world.check = no_volume_serves_two;
        world.settle();
        pods_are_with_their_volumes(&world, 3);
        let before = volumes(&world);
        assert_eq!(before.len(), 3);
        world.check = no_claim_is_lost;
        // Pods come back to their volumes, in new versions, too.
        world.delete(&Key::new(Kind::Pod, "default", "db-1"), None);
        world.settle();
        world.edit(&key, |v| v["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into());
        world.settle();
        pods_are_with_their_volumes(&world, 3);
        assert_eq!(volumes(&world), before, "seed {seed}");
        // What is not wanted any more goes with its pod, folder and all.
        world.check = no_volume_serves_two;
        world.edit(&key, |v| v["spec"]["replicas"] = 1.into());
        world.settle();
        world.run_secs(60);
        world.settle();
        assert_eq!(volumes(&world), before[..1], "seed {seed}");
        world.edit(&key, |v| v["spec"]["replicas"] = 2.into());
        world.settle();
        pods_are_with_their_volumes(&world, 2);
        assert_ne!(volumes(&world)[1].0, before[1].0);
        world.delete(&key, Some(api::Propagation::Background));
        world.settle();
        world.run_secs(60);
        world.settle();
        assert_eq!(world.count(Kind::Pod, "default"), 0);
        nothing_is_left(&world);
    }
}

#[test]
fn ephemeral_volumes_go_with_their_pods() {
    for seed in 0..12 {
        let mut world = World::new(seed, 3, if seed < 6 { 0 } else { 15 });
        world.run_secs(5);
        class(&mut world);
        world.check = no_volume_serves_two;
        let template = json!({"metadata": {}, "spec": claim_spec()});
        let pod = world.create(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c"}], "volumes":
                [{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]}}));
        world.settle();
        pods_are_with_their_volumes(&world, 1);
        world.delete(&pod, None);
        world.settle();
        world.run_secs(60);
        world.settle();
        nothing_is_left(&world);
    }
}
