//! Claims, the volumes that are bound to them, and folders that shall go.

#![expect(clippy::needless_pass_by_value, reason = "manifests are made where they are used")]

use api::{Key, Kind};
use serde_json::{Value, json};

use super::World;
use crate::volume::{HostPathType, VolumeContent};

fn claim(w: &mut World, name: &str, phase: &str, volume: &str) {
    w.create(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name}, "spec": {"volumeName": volume}, "status": {"phase": phase}}));
}

fn volume(w: &mut World, spec: Value, annotations: Value) {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v", "annotations": annotations, "namespace": ""}, "spec": spec});
    if volume["spec"]["claimRef"].is_null() {
        volume["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "uid-c"});
    }
    w.create(&volume);
}

fn pod(w: &mut World, source: Value, mount: Value) {
    let mut source = source;
    source["name"] = json!("data");
    let mut mount = mount;
    mount["name"] = json!("data");
    mount["mountPath"] = json!("/data");
    w.pod(
        "web",
        json!({"volumes": [source], "containers":
        [{"name": "app", "image": "web:1", "volumeMounts": [mount]}]}),
    );
}

fn of_claim() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "c"}})
}

fn ours() -> Value {
    json!({"pv.kubernetes.io/provisioned-by": "kprov.io/local"})
}

fn failed(why: &str) -> String {
    format!(
        "FailedMount: Unable to attach or mount volumes: unmounted volumes=[data], unattached \
         volumes=[], failed to process volumes=[data]: error processing PVC default/c: {why}"
    )
}

#[test]
fn a_pod_waits_until_its_claim_is_bound() {
    let mut w = World::new();
    pod(&mut w, of_claim(), json!({"subPath": "db"}));
    w.run_for(3);
    assert_eq!(w.line("web"), "Pending ready=False app=ContainerCreating");
    let missing = "failed to fetch PVC from API server: persistentvolumeclaims \"c\" not found";
    assert!(w.saw(&failed(missing)), "{:#?}", w.events);
    claim(&mut w, "c", "Pending", "");
    w.run_for(15);
    assert!(w.saw(&failed("PVC is not bound")), "{:#?}", w.events);
    assert_eq!(w.line("web"), "Pending ready=False app=ContainerCreating");
    let bound = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
    w.patch(&Key::new(Kind::PersistentVolumeClaim, "default", "c"), &bound);
    volume(&mut w, json!({"local": {"path": "/var/lib/kprov-volumes/v"}}), ours());
    w.run_for(15);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    assert_eq!(w.volumes[0].path, "/var/lib/kprov-volumes/v");
    assert_eq!(w.volumes[0].content, VolumeContent::Local { create: true });
    let mount = &w.specs["app"].mounts.iter().find(|m| m.target == "/data").unwrap();
    assert_eq!(mount.source, "/var/lib/kprov-volumes/v");
    assert_eq!((mount.sub_path.as_deref(), mount.read_only), (Some("db"), false));
}

/// Starts a pod on the claim `c`, which is bound to `v`, and compares what becomes of it.
fn check(spec: Value, annotations: Value, path: &str, content: VolumeContent) {
    let mut w = World::new();
    claim(&mut w, "c", "Bound", "v");
    volume(&mut w, spec, annotations);
    pod(&mut w, json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": true}}), json!({}));
    w.run_for(3);
    assert_eq!(w.line("web"), "Running ready=True app=running", "{:#?}", w.events);
    assert_eq!((w.volumes[0].path.as_str(), &w.volumes[0].content), (path, &content));
    assert!(w.specs["app"].mounts.iter().any(|m| m.source == path && m.read_only));
}

#[test]
fn volumes_are_folders_of_the_node() {
    let host = json!({"hostPath": {"path": "/srv/x", "type": "Directory"}});
    check(host, json!({}), "/srv/x", VolumeContent::HostPath(HostPathType::Directory));
    let local = json!({"local": {"path": "/mnt/disk"}});
    check(local, json!({}), "/mnt/disk", VolumeContent::Local { create: false });
}

#[test]
fn what_is_not_for_this_pod_is_not_mounted() {
    let check = |w: &mut World, expected: &str| {
        pod(w, of_claim(), json!({}));
        w.run_for(3);
        assert_eq!(w.line("web"), "Pending ready=False app=ContainerCreating");
        assert!(w.saw(expected), "{expected}: {:#?}", w.events);
    };
    let local = || json!({"local": {"path": "/mnt/disk"}});
    let set_up = |spec: Value| {
        let mut w = World::new();
        claim(&mut w, "c", "Bound", "v");
        volume(&mut w, spec, json!({}));
        w
    };
    let mut w = World::new();
    claim(&mut w, "c", "Bound", "v");
    let why = "failed to fetch PV v from API server: persistentvolumes \"v\" not found";
    check(&mut w, &failed(why));
    let mut other = local();
    other["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "other"});
    let why = "found PV object v with a pv.Spec.ClaimRef.UID other that does not point to \
               claim.UID uid-c";
    check(&mut set_up(other), &failed(why));
    let mut w = set_up(local());
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    w.patch(&Key::new(Kind::PersistentVolumeClaim, "default", "c"), &going);
    check(&mut w, &failed("PVC is being deleted"));
    let mut elsewhere = local();
    elsewhere["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
        [{"key": "zone", "operator": "In", "values": ["b"]}]}]}});
    let why = "FailedMount: MountVolume.SetUp failed for volume \"data\" : no matching \
               NodeSelectorTerms";
    check(&mut set_up(elsewhere), why);
    let nfs = json!({"nfs": {"server": "a", "path": "/"}});
    let why =
        "FailedMount: MountVolume.SetUp failed for volume \"data\" : no volume plugin matched";
    check(&mut set_up(nfs), why);
}

#[test]
fn a_pod_has_its_own_claims_and_not_those_of_others() {
    let mut w = World::new();
    claim(&mut w, "web-data", "Bound", "v");
    let reference = json!({"namespace": "default", "name": "web-data", "uid": "uid-web-data"});
    volume(&mut w, json!({"local": {"path": "/mnt"}, "claimRef": reference}), json!({}));
    pod(&mut w, json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}), json!({}));
    w.run_for(3);
    assert!(w.events.iter().any(|e| {
        e.ends_with("PVC default/web-data was not created for pod default/web (pod is not owner)")
    }));
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web",
        "controller": true}]);
    let owned = json!({"metadata": {"ownerReferences": owner}});
    w.patch(&Key::new(Kind::PersistentVolumeClaim, "default", "web-data"), &owned);
    w.run_for(70);
    assert_eq!(w.line("web"), "Running ready=True app=running", "{:#?}", w.events);
}

#[test]
fn a_later_pod_does_not_get_the_volume_of_an_earlier_claim() {
    let mut w = World::new();
    claim(&mut w, "c", "Bound", "v");
    volume(&mut w, json!({"local": {"path": "/first"}}), json!({}));
    pod(&mut w, of_claim(), json!({}));
    w.run_for(3);
    w.vanish("web");
    w.run_for(5);
    // Another claim of that name, bound to another volume.
    let claim = Key::new(Kind::PersistentVolumeClaim, "default", "c");
    w.patch(&claim, &json!({"metadata": {"uid": "second"}, "spec": {"volumeName": "w"}}));
    let reference = json!({"namespace": "default", "name": "c", "uid": "second"});
    w.create(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
        {"name": "w", "namespace": ""},
        "spec": {"local": {"path": "/second"}, "claimRef": reference}}));
    pod(&mut w, of_claim(), json!({}));
    w.run_for(5);
    assert_eq!(w.volumes[0].path, "/second");
}

#[test]
fn folders_go_when_the_node_says_so() {
    let mut w = World::new();
    w.stuck_volumes = 2;
    let node = Key::cluster(Kind::Node, "n1");
    let annotation = |w: &World| {
        let node = &w.objects[&Key::cluster(Kind::Node, "n1")];
        api::meta::annotation(node.meta(), "local-volume.kprov.io/pvc-1").map(str::to_owned)
    };
    let body = |value: Value| {
        json!({"metadata": {"annotations":
        {"local-volume.kprov.io/pvc-1": value}}})
    };
    w.patch(&node, &body(json!("remove")));
    assert_eq!(annotation(&w).as_deref(), Some("remove"));
    assert!(!w.kubelet.is_settled());
    w.run_for(10);
    assert_eq!(annotation(&w).as_deref(), Some("removed"));
    let count = |w: &World| w.requests.iter().filter(|r| *r == "remove-volume pvc-1").count();
    assert_eq!(count(&w), 3);
    assert!(w.saw("VolumeFailedDelete: Failed to remove the folder of volume \"pvc-1\": busy"));
    assert!(w.kubelet.is_settled());
    // Neither the answer nor its removal makes anything happen.
    w.patch(&node, &body(Value::Null));
    w.run_for(60);
    assert_eq!((count(&w), annotation(&w)), (3, None));
}
