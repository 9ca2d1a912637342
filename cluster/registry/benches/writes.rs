//! What one write costs: admission alone, by operation, and the whole life of a pod with its
//! commits. Run with `cargo bench -p registry`.

use api::{Key, Kind, Object, Patch, PatchKind, Revision, Subresource, Time, codec};
use divan::{Bencher, black_box};
use registry::memory::{Commit, Memory};
use registry::window::{PREFIX, store_key};
use registry::{
    Caller, DeleteOptions, Mutation, Operation, Options, PodBinding, Stamp, View, admit,
};
use serde_json::{Value, json};

/// Pods that are there already, so that keys are compared as often as in a large cluster.
const OTHER_PODS: usize = 20_000;
/// Writes between two compactions.
const COMPACT_EVERY: u64 = 64;

fn main() {
    divan::Divan::from_args().sample_count(300).sample_size(20).main();
}

/// A store that admits what it commits.
struct World {
    store: Memory<Object>,
    options: Options,
    writes: u64,
}

impl View for World {
    fn get(&self, key: &Key) -> Option<Object> {
        self.store.get_ref(&store_key(key)).map(|(_, _, object)| object.clone())
    }

    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object> {
        let prefix = match namespace {
            "" => format!("{PREFIX}{}/", kind.group_resource()),
            _ => format!("{PREFIX}{}/{namespace}/", kind.group_resource()),
        };
        self.store.iter_from(&prefix, "").map(|(_, _, object)| object.clone()).collect()
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { store: Memory::new(), options: Options::default(), writes: 0 };
        for manifest in [
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}}),
            json!({"kind": "Namespace", "apiVersion": "v1",
                "metadata": {"name": "kube-node-lease"}}),
            json!({"kind": "ServiceAccount", "apiVersion": "v1",
                "metadata": {"name": "default", "namespace": "default"}}),
        ] {
            world.run(&create(&manifest), &admin());
        }
        world
    }

    fn stamp(&self) -> Stamp {
        let mut entropy = [7; 16];
        entropy[..8]
            .copy_from_slice(&self.writes.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Stamp { now: Time::from_secs(1_700_000_000 + self.writes), entropy }
    }

    fn decide(&self, operation: &Operation, current: Option<&Object>, caller: &Caller) -> Mutation {
        admit(operation, current, self, caller, &self.options, self.stamp())
            .expect("the bench writes what is allowed")
    }

    /// Admits and commits, and returns what is stored.
    fn run(&mut self, operation: &Operation, caller: &Caller) -> Object {
        self.writes += 1;
        let key = operation.key().map(|key| store_key(&key));
        let current = key.as_deref().and_then(|key| self.store.get_ref(key));
        let expected = current.map_or(Revision(0), |(_, revision, _)| revision);
        let mutation = self.decide(operation, current.map(|(.., object)| object), caller);
        let (mut object, claims, stays) = match mutation {
            Mutation::Put { object, claims, .. } => (object, claims, true),
            Mutation::Remove { last, claims } => (last, claims, false),
            Mutation::Unchanged(object) => return object,
        };
        let revision = Revision(self.store.revision().0 + 1);
        object.meta_mut().resource_version = Some(revision.to_string());
        let key = key.unwrap_or_else(|| store_key(&object.key()));
        let value = stays.then(|| object.clone());
        let (take, free) = (claims.take, claims.free);
        let commit = Commit { key, expected, value, take, free, besides: Vec::new() };
        self.store.commit(commit).expect("nobody else writes");
        if revision.0.is_multiple_of(COMPACT_EVERY) {
            self.store.compact(Revision(revision.0 - COMPACT_EVERY));
        }
        object
    }

    /// Creates an object and measures the admission of a write to it.
    fn measure(mut self, bencher: Bencher<'_, '_>, manifest: &Value, write: Write) {
        let object = self.run(&create(manifest), &admin());
        self.measure_on(bencher, &object, write);
    }

    fn measure_on(self, bencher: Bencher<'_, '_>, object: &Object, write: Write) {
        let (operation, caller) = write(object);
        bencher.bench_local(|| {
            self.decide(black_box(&operation), Some(object), &caller);
        });
    }
}

/// Makes a write, and who writes it, from the object as it is.
type Write = fn(&Object) -> (Operation, Caller);

fn admin() -> Caller {
    let groups = vec!["system:masters".to_owned()];
    Caller { name: "admin".to_owned(), groups, ..Caller::default() }
}

fn kubelet() -> Caller {
    let groups = vec!["system:nodes".to_owned(), "system:authenticated".to_owned()];
    Caller { name: "system:node:node-1".to_owned(), groups, ..Caller::default() }
}

fn object(manifest: &Value) -> Object {
    codec::decode_any(manifest.to_string().as_bytes()).expect("the manifest is an object")
}

fn create(manifest: &Value) -> Operation {
    Operation::Create { object: object(manifest) }
}

fn pod(name: &str, token: bool) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8c7b9",
                "uid": "0f5a7a3c-97a1-4a4e-8f49-5a7d6f9a1b2c",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "automountServiceAccountToken": token,
            "containers": [{
                "name": "web", "image": "nginx:1.27",
                "resources": {"requests": {"cpu": "250m", "memory": "128Mi"}},
            }],
        },
    })
}

fn bind(pod: &Object) -> Operation {
    let binding = PodBinding {
        uid: pod.uid().to_owned(),
        node: "node-1".to_owned(),
        ..PodBinding::default()
    };
    Operation::Bind { pod: pod.key(), binding }
}

fn patch(object: &Object, kind: PatchKind, body: Value) -> Operation {
    Operation::Patch {
        key: object.key(),
        subresource: Some(Subresource::Status),
        patch: Patch { kind, body: body.into() },
        strict: false,
    }
}

fn conditions(ready: bool, reason: Option<&str>) -> Value {
    let condition = |name: &str, holds: bool| {
        let mut condition = json!({"type": name, "status": if holds { "True" } else { "False" },
            "lastProbeTime": null, "lastTransitionTime": "2023-11-14T22:13:20Z"});
        if let (Some(reason), false) = (reason, holds) {
            condition["reason"] = reason.into();
        }
        condition
    };
    json!([
        condition("Initialized", true),
        condition("Ready", ready),
        condition("ContainersReady", ready),
        condition("PodScheduled", true),
    ])
}

fn container_status(state: &Value, ready: bool) -> Value {
    json!([{
        "name": "web", "image": "nginx:1.27", "restartCount": 0,
        "imageID": "docker-pullable://nginx@sha256:0f1b2a3c4d5e6f708192a3b4c5d6e7f8",
        "containerID": "docker://4f6c2f1e0d9b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a",
        "ready": ready, "started": ready, "lastState": {}, "state": state,
    }])
}

/// What the kubelet sends when the container runs.
fn running(pod: &Object, kind: PatchKind) -> Operation {
    let body = json!({
        "metadata": {"uid": pod.uid()},
        "status": {
            "phase": "Running",
            "startTime": "2023-11-14T22:13:20Z",
            "hostIP": "192.168.0.11", "hostIPs": [{"ip": "192.168.0.11"}],
            "podIP": "10.244.1.17", "podIPs": [{"ip": "10.244.1.17"}],
            "conditions": conditions(true, None),
            "containerStatuses": container_status(
                &json!({"running": {"startedAt": "2023-11-14T22:13:21Z"}}), true),
        },
    });
    patch(pod, kind, body)
}

/// What it sends when the container has ended well.
fn succeeded(pod: &Object) -> Operation {
    let end = json!({"terminated": {
        "exitCode": 0, "reason": "Completed",
        "containerID": "docker://4f6c2f1e0d9b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a",
        "startedAt": "2023-11-14T22:13:21Z", "finishedAt": "2023-11-14T22:15:00Z",
    }});
    let body = json!({
        "metadata": {"uid": pod.uid()},
        "status": {
            "phase": "Succeeded",
            "conditions": conditions(false, Some("PodCompleted")),
            "containerStatuses": container_status(&end, false),
        },
    });
    patch(pod, PatchKind::Merge, body)
}

fn delete(object: &Object, grace_seconds: Option<i64>) -> Operation {
    let options = DeleteOptions {
        uid: Some(object.uid().to_owned()),
        grace_seconds,
        ..DeleteOptions::default()
    };
    Operation::Delete { key: object.key(), options }
}

/// A world in which the pod `web` went through these writes.
fn with_pod(token: bool, writes: &[Write]) -> (World, Object) {
    let mut world = World::new();
    let mut object = world.run(&create(&pod("web", token)), &admin());
    for write in writes {
        let (operation, caller) = write(&object);
        object = world.run(&operation, &caller);
    }
    (world, object)
}

const BIND: Write = |pod| (bind(pod), admin());
const RUN: Write = |pod| (running(pod, PatchKind::Merge), kubelet());

#[divan::bench(args = [false, true])]
fn pod_create(bencher: Bencher<'_, '_>, token: bool) {
    let world = World::new();
    let (operation, caller) = (create(&pod("web", token)), admin());
    bencher.bench_local(|| {
        world.decide(black_box(&operation), None, &caller);
    });
}

#[divan::bench(args = [false, true])]
fn pod_bind(bencher: Bencher<'_, '_>, token: bool) {
    let (world, object) = with_pod(token, &[]);
    world.measure_on(bencher, &object, BIND);
}

#[divan::bench(args = [false, true])]
fn pod_status_to_running(bencher: Bencher<'_, '_>, token: bool) {
    let (world, object) = with_pod(token, &[BIND]);
    world.measure_on(bencher, &object, RUN);
}

#[divan::bench]
fn pod_status_to_running_strategic(bencher: Bencher<'_, '_>) {
    let (world, object) = with_pod(false, &[BIND]);
    let write: Write = |pod| (running(pod, PatchKind::Strategic), kubelet());
    world.measure_on(bencher, &object, write);
}

#[divan::bench(args = [false, true])]
fn pod_status_to_succeeded(bencher: Bencher<'_, '_>, token: bool) {
    let (world, object) = with_pod(token, &[BIND, RUN]);
    world.measure_on(bencher, &object, |pod| (succeeded(pod), kubelet()));
}

#[divan::bench]
fn pod_delete_graceful(bencher: Bencher<'_, '_>) {
    let (world, object) = with_pod(false, &[BIND, RUN]);
    world.measure_on(bencher, &object, |pod| (delete(pod, None), admin()));
}

#[divan::bench]
fn pod_delete_at_once(bencher: Bencher<'_, '_>) {
    let (world, object) = with_pod(false, &[BIND, RUN, |pod| (delete(pod, None), admin())]);
    world.measure_on(bencher, &object, |pod| (delete(pod, Some(0)), kubelet()));
}

#[divan::bench]
fn lease_update(bencher: Bencher<'_, '_>) {
    let manifest = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "node-1", "namespace": "kube-node-lease", "ownerReferences": [{
            "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "a-b"}]},
        "spec": {"holderIdentity": "node-1", "leaseDurationSeconds": 40,
            "renewTime": "2023-11-14T22:13:20.000000Z"},
    });
    World::new().measure(bencher, &manifest, |lease| {
        let mut manifest = codec::to_value(lease);
        manifest["spec"]["renewTime"] = "2023-11-14T22:13:30.000000Z".into();
        let update =
            Operation::Update { key: lease.key(), object: object(&manifest), subresource: None };
        (update, kubelet())
    });
}

fn node() -> Value {
    let amounts = json!({"cpu": "16", "memory": "65536Ki", "ephemeral-storage": "104857600Ki",
        "pods": "110", "hugepages-1Gi": "0", "hugepages-2Mi": "0"});
    let condition = |name: &str, status: &str| {
        json!({"type": name, "status": status, "reason": "KubeletReports",
            "message": "the kubelet has looked", "lastHeartbeatTime": "2023-11-14T22:13:20Z",
            "lastTransitionTime": "2023-11-14T22:13:20Z"})
    };
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "node-1",
            "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.168.0.11"},
                {"type": "Hostname", "address": "node-1"}],
            "capacity": amounts, "allocatable": amounts,
            "conditions": [condition("MemoryPressure", "False"),
                condition("DiskPressure", "False"), condition("PIDPressure", "False"),
                condition("Ready", "True")],
            "nodeInfo": {"architecture": "amd64", "bootID": "b", "kernelVersion": "6.1",
                "containerRuntimeVersion": "docker://27", "kubeProxyVersion": "",
                "kubeletVersion": "v1.33.0", "machineID": "m", "operatingSystem": "linux",
                "osImage": "Debian", "systemUUID": "s"},
        },
    })
}

#[divan::bench]
fn node_status_patch(bencher: Bencher<'_, '_>) {
    World::new().measure(bencher, &node(), |node| {
        let mut conditions = codec::to_value(node)["status"]["conditions"].take();
        for condition in conditions.as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = "2023-11-14T22:18:20Z".into();
        }
        let body = json!({"status": {"conditions": conditions}});
        (patch(node, PatchKind::Merge, body), kubelet())
    });
}

#[divan::bench(args = [10, 100])]
fn endpoint_slice_update(bencher: Bencher<'_, '_>, endpoints: usize) {
    let endpoint = |i: usize| {
        json!({"addresses": [format!("10.244.1.{i}")], "nodeName": "node-1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": format!("web-{i}"), "namespace": "default",
                "uid": "u"}})
    };
    let manifest = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "web-x", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": (1..=endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    });
    World::new().measure(bencher, &manifest, |slice| {
        let mut manifest = codec::to_value(slice);
        manifest["endpoints"][0]["conditions"]["ready"] = false.into();
        let update =
            Operation::Update { key: slice.key(), object: object(&manifest), subresource: None };
        (update, admin())
    });
}

#[divan::bench]
fn deployment_status_update(bencher: Bencher<'_, '_>) {
    let mut template = pod("", false);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": template["spec"].take()});
    let manifest = json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    World::new().measure(bencher, &manifest, |deployment| {
        let mut manifest = codec::to_value(deployment);
        manifest["status"] = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3,
            "unavailableReplicas": 1, "readyReplicas": 2, "availableReplicas": 2});
        let object = object(&manifest);
        let subresource = Some(Subresource::Status);
        (Operation::Update { key: deployment.key(), object, subresource }, admin())
    });
}

/// Create, bind, two status patches, graceful delete, delete: with all commits and compactions,
/// without making the requests.
#[divan::bench(args = [false, true])]
fn life_of_a_pod(bencher: Bencher<'_, '_>, token: bool) {
    let mut world = World::new();
    for i in 0..OTHER_PODS {
        world.run(&create(&pod(&format!("other-{i:06}"), false)), &admin());
    }
    let (admin, kubelet) = (admin(), kubelet());
    // What is written has no UID, so that it fits each pod that is made.
    let new = object(&pod("web", token));
    let status = |mut operation| {
        if let Operation::Patch { patch, .. } = &mut operation {
            patch.body = json!({"status": patch.body.json()["status"].clone()}).into();
        }
        operation
    };
    let delete = |grace_seconds| Operation::Delete {
        key: new.key(),
        options: DeleteOptions { grace_seconds, ..DeleteOptions::default() },
    };
    let life = [
        (Operation::Create { object: new.clone() }, &admin),
        (bind(&new), &admin),
        (status(running(&new, PatchKind::Merge)), &kubelet),
        (delete(None), &admin),
        (status(succeeded(&new)), &kubelet),
        (delete(Some(0)), &kubelet),
    ];
    bencher.bench_local(|| {
        for (operation, caller) in &life {
            world.run(operation, caller);
        }
    });
}

/// One write among so many keys, with the compaction of one older write.
#[divan::bench(args = [1_000, 1_000_000])]
fn commit_and_compact(bencher: Bencher<'_, '_>, keys: u64) {
    let mut store: Memory<()> = Memory::new();
    let key_of = |i: u64| format!("{PREFIX}pods/default/web-5d4f8c7b9-{i:07}").into();
    let commit = |key, expected| Commit {
        key,
        expected,
        value: Some(()),
        take: Vec::new(),
        free: Vec::new(),
        besides: Vec::new(),
    };
    for i in 0..keys {
        store.commit(commit(key_of(i), Revision(0))).expect("the key is new");
    }
    store.compact(store.revision());
    let mut i = 0_u64;
    bencher.bench_local(|| {
        // A step that shares no divisor with the number of keys visits all, far apart.
        i = (i + 618_033) % keys;
        let key = key_of(i);
        let expected = store.get_ref(&key).map_or(Revision(0), |(_, revision, ())| revision);
        let revision = store.commit(commit(key, expected)).expect("nobody else writes");
        store.compact(Revision(revision.0 - 1));
    });
}
