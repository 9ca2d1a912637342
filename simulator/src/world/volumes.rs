//! A stateful set with claims, from the template to the mount, by the machines of production.

use api::{ApiObject, Key, Kind, Object, Pod, Request, codec};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::World;
use crate::plan::{NodeShape, Plan, PlannedNode, Settings};
use crate::span::Span;

fn world() -> World {
    let node = |name: &str| PlannedNode { name: name.to_owned(), shape: 0, joins: Span::ZERO };
    let plan = Plan {
        name: "volumes".to_owned(),
        seed: 7,
        settings: Settings { safety: Span::secs(1200), ..Settings::default() },
        shapes: vec![NodeShape::default()],
        nodes: ["a", "b", "c"].map(node).to_vec(),
        templates: Vec::new(),
        operations: Vec::new(),
        faults: Vec::new(),
    };
    let mut world = World::new(plan).expect("a plan that can be run");
    run_until(&mut world, 60);
    world
}

fn run_until(world: &mut World, secs: u64) {
    while world.elapsed() < Span::secs(secs) && world.step() {}
    assert_eq!(world.gave_up(), None);
    assert_eq!(world.violations(), []);
}

#[expect(clippy::needless_pass_by_value, reason = "manifests are made where they are used")]
fn create(world: &mut World, manifest: Value) {
    let object = codec::decode_any(manifest.to_string().as_bytes()).expect("an object");
    world.as_admin(&Request::Create(object)).expect("it can be created");
}

fn delete(world: &mut World, key: Key) {
    let (uid, revision, grace_seconds, propagation) = (None, None, None, None);
    let request = Request::Delete { key, uid, revision, grace_seconds, propagation };
    world.as_admin(&request).expect("it is there");
}

fn all<T: ApiObject>(world: &World) -> Vec<T> {
    world.objects(T::KIND).filter_map(Object::get::<T>).cloned().collect()
}

/// The volumes of the claims, by claim.
fn volumes(world: &World) -> Vec<(String, String)> {
    let bound = |claim: &PersistentVolumeClaim| {
        assert_eq!(api::volume::claim_phase(claim), "Bound", "{claim:?}");
        let name = claim.metadata.name.clone().expect("a name");
        (name, api::volume::volume_name(claim).to_owned())
    };
    all::<PersistentVolumeClaim>(world).iter().map(bound).collect()
}

/// Both pods run, each on the node of its volume.
fn pods_run(world: &World) {
    let pods: Vec<Pod> = all(world);
    assert_eq!(pods.len(), 2, "{pods:#?}");
    for pod in pods {
        let status = pod.status.as_ref().expect("a status");
        assert_eq!(status.phase.as_deref(), Some("Running"), "{pod:#?}");
        let spec = pod.spec.as_ref().expect("a spec");
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        let claim = volumes[0].persistent_volume_claim.as_ref().expect("a claim");
        let key = Key::new(Kind::PersistentVolumeClaim, "default", &claim.claim_name);
        let claim = world.object(&key).and_then(Object::get).expect("it is there");
        let key = Key::cluster(Kind::PersistentVolume, api::volume::volume_name(claim));
        let volume = world.object(&key).and_then(Object::get::<PersistentVolume>);
        let node = world.object(&Key::cluster(Kind::Node, pod.node()));
        let labels = node.and_then(Object::get::<Node>).and_then(|n| n.metadata.labels.as_ref());
        assert!(api::volume::fits_node(volume.expect("it is there"), labels));
    }
}

#[test]
fn claims_are_made_bound_mounted_kept_and_given_up() {
    let mut world = world();
    create(
        &mut world,
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local", "annotations":
                {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kprov.io/local", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    create(
        &mut world,
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {"replicas": 2, "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
                "volumeClaimTemplates": [{"metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}}}}],
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "app", "image": "app:1", "volumeMounts":
                        [{"name": "data", "mountPath": "/data"}]}]}}}}),
    );
    run_until(&mut world, 180);
    pods_run(&world);
    let before = volumes(&world);
    assert_eq!(
        before.iter().map(|(c, _)| c.as_str()).collect::<Vec<_>>(),
        ["data-db-0", "data-db-1"]
    );
    delete(&mut world, Key::new(Kind::Pod, "default", "db-1"));
    run_until(&mut world, 300);
    pods_run(&world);
    assert_eq!(volumes(&world), before);
    delete(&mut world, Key::new(Kind::StatefulSet, "default", "db"));
    run_until(&mut world, 500);
    assert_eq!(all::<Pod>(&world), []);
    assert_eq!(all::<PersistentVolumeClaim>(&world), []);
    assert_eq!(all::<PersistentVolume>(&world), []);
    for node in all::<Node>(&world) {
        let told = node.metadata.annotations.unwrap_or_default();
        assert!(!told.keys().any(|key| key.starts_with(api::volume::LOCAL_ANNOTATION)), "{told:?}");
    }
}
