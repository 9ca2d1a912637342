//! The runtime by itself, and a real kubelet's pods on it.

use std::collections::BTreeMap;

use crate::runtime::{ContainerSpec, Limits, SandboxSpec, Security};
use crate::{Kubelet, KubeletConfig, Labels, NodeEffect, NodeInput, naming};
use api::{Key, Kind, Object, Patch, PatchKind, Pod, Reply, Request, Revision, codec};
use k8s_openapi::api::core::v1::PodStatus;
use machine::{ApiEffect, ApiInput, Machine, WatchEvent};
use serde_json::{Value, json};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Pause containers take 1 s, containers 2 s, images 10 s, everything else 1 ms.
struct Fixed;

impl Durations for Fixed {
    fn sandbox_start(&mut self) -> u64 {
        SECOND
    }
    fn container_start(&mut self) -> u64 {
        2 * SECOND
    }
    fn stop(&mut self, grace_seconds: u32, obeys_after: u64) -> u64 {
        obeys_after.min(u64::from(grace_seconds) * SECOND)
    }
    fn pull(&mut self, _image: &str) -> u64 {
        10 * SECOND
    }
    fn other(&mut self) -> u64 {
        SECOND / 1_000
    }
}

#[test]
fn numbers_are_written_as_anybody_writes_them() {
    for number in [0, 7, 10, 99, 100, 255, 1_000_000_007, u32::MAX] {
        let mut text = "n".to_owned();
        push_decimal(&mut text, number);
        assert_eq!(text, format!("n{number}"));
    }
}

const SHAPE: NodeShape = NodeShape { cpus: 4, memory_bytes: 8 << 30, disk_bytes: 100 << 30 };

fn at(secs: u64) -> Time {
    Time::from_secs(secs)
}

fn labels(pod: &str, container: &str) -> Labels {
    [(naming::POD_UID, pod), (naming::CONTAINER_NAME, container)].into_iter().collect()
}

fn sandbox(pod: &str) -> RuntimeRequest {
    RuntimeRequest::StartSandbox(Box::new(SandboxSpec {
        name: pod.into(),
        labels: labels(pod, naming::SANDBOX),
        image: "pause".into(),
        hostname: pod.into(),
        host_network: false,
        host_ipc: false,
        host_pid: false,
        ports: Vec::new(),
        sysctls: BTreeMap::new(),
    }))
}

fn container(pod: &str, sandbox: &str, args: &[&str]) -> RuntimeRequest {
    RuntimeRequest::StartContainer(Box::new(ContainerSpec {
        name: pod.into(),
        labels: labels(pod, "app"),
        image: "web:1".into(),
        command: None,
        args: Some(args.iter().map(|a| (*a).to_owned()).collect()),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        files: Vec::new(),
        pod_folder: String::new(),
        termination_message_path: String::new(),
        sandbox_id: sandbox.into(),
        host_pid: false,
        share_pid: false,
        host_ipc: false,
        limits: Limits::default(),
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        stop_signal: None,
    }))
}

fn runtime() -> ContainerRuntime {
    let mut runtime = ContainerRuntime::new(SHAPE, 9, 0xab);
    let mut news = Vec::new();
    runtime.due(at(0), &mut news);
    assert_eq!(news, [RuntimeInput::Event(RuntimeEvent::Connected)]);
    runtime.load_image("web:1");
    runtime
}

/// The only news at a time.
fn only(runtime: &mut ContainerRuntime, time: Time) -> RuntimeInput {
    let mut news = Vec::new();
    runtime.due(time, &mut news);
    assert_eq!(news.len(), 1, "{news:?}");
    news.remove(0)
}

fn record(input: RuntimeInput) -> ContainerRecord {
    match input {
        RuntimeInput::Reply { result: Ok(RuntimeReply::Container(Some(record))), .. } => *record,
        other => panic!("no container: {other:?}"),
    }
}

fn failure(input: RuntimeInput) -> RuntimeError {
    match input {
        RuntimeInput::Reply { result: Err(error), .. } => error,
        other => panic!("no failure: {other:?}"),
    }
}

fn ask(runtime: &mut ContainerRuntime, now: Time, request: RuntimeRequest) -> RuntimeInput {
    let due = runtime.request(now, CallId(7), request, &mut Fixed, None);
    only(runtime, due)
}

/// A pod's pause container and its one container, started 3 s after `secs`.
fn pod(runtime: &mut ContainerRuntime, secs: u64, name: &str, args: &[&str]) -> ContainerRecord {
    let pause = record(ask(runtime, at(secs), sandbox(name)));
    record(ask(runtime, at(secs + 1), container(name, &pause.id, args)))
}

#[test]
fn a_container_ends_as_its_arguments_say() {
    let check = |args: &[&str], after: u64, code: i32, oom: bool| {
        let mut runtime = runtime();
        let app = pod(&mut runtime, 10, "a", args);
        assert_eq!((app.state, app.started_at), (ContainerState::Running, at(13)), "{args:?}");
        assert_eq!(runtime.next_due(), Some(at(13 + after)), "{args:?}");
        let told = only(&mut runtime, at(13 + after));
        let app = record(ask(&mut runtime, at(500), RuntimeRequest::Inspect { id: app.id }));
        let event = RuntimeEvent::ContainerChanged {
            id: app.id.clone(),
            pod_uid: "a".into(),
            container: "app".into(),
            record: Some(Box::new(app.clone())),
        };
        assert_eq!(told, RuntimeInput::Event(event));
        assert_eq!((app.state, app.finished_at), (ContainerState::Exited, at(13 + after)));
        assert_eq!((app.exit_code, app.oom_killed), (code, oom), "{args:?}");
        assert_eq!(runtime.next_due(), None);
    };
    check(&["--run=1m30s"], 90, 0, false);
    check(&["--run=20s", "--exit=3", "unknown"], 20, 3, false);
    check(&["--run=20s", "--crash-after=5s"], 5, 1, false);
    check(&["--oom-after=7s"], 7, 137, true);
    let mut runtime = runtime();
    let pause = record(ask(&mut runtime, at(1), sandbox("a")));
    let wrong = ask(&mut runtime, at(5), container("a", &pause.id, &["--run=soon"]));
    assert_eq!(failure(wrong).kind, RuntimeErrorKind::Start);
    assert_eq!(runtime.containers().count(), 1);
}

#[test]
fn only_a_container_that_runs_is_expected_to_end() {
    let mut runtime = runtime();
    let id = pod(&mut runtime, 10, "a", &["--run=1m30s"]).id;
    pod(&mut runtime, 20, "b", &[]);
    assert!(runtime.exits_after(at(102)));
    assert!(!runtime.exits_after(at(103)));
    let stop = RuntimeRequest::Stop { id, grace_seconds: 500 };
    ask(&mut runtime, at(30), stop);
    assert!(!runtime.exits_after(at(31)));
}

#[test]
fn what_a_kubelet_waits_for_is_work() {
    let mut runtime = runtime();
    let id = pod(&mut runtime, 10, "a", &["--ignore-term"]).id;
    assert!(!runtime.works_after(at(11)));
    let stop = RuntimeRequest::Stop { id, grace_seconds: 500 };
    runtime.request(at(20), CallId(1), stop, &mut Fixed, None);
    assert!(runtime.works_after(at(519)));
    assert!(!runtime.works_after(at(520)));
    // Who asked is gone with the host.
    runtime.crash();
    assert!(!runtime.works_after(at(21)));
}

#[test]
fn a_container_is_stopped_within_its_grace() {
    let check = |args: &[&str], grace_seconds: u32, takes: u64, code: i32| {
        let mut runtime = runtime();
        let id = pod(&mut runtime, 10, "a", args).id;
        let request = RuntimeRequest::Stop { id, grace_seconds };
        let due = runtime.request(at(20), CallId(1), request, &mut Fixed, None);
        assert_eq!(due, at(20 + takes), "{args:?}");
        let app = record(only(&mut runtime, due));
        assert_eq!((app.finished_at, app.exit_code), (due, code), "{args:?}");
        assert_eq!(runtime.next_due(), None);
    };
    check(&[], 30, 0, 0);
    check(&[], 0, 0, 137);
    check(&["--stop-after=4s"], 30, 4, 0);
    check(&["--ignore-term"], 30, 30, 137);
    check(&["--stop-after=4s"], 2, 2, 137);
}

#[test]
fn a_shorter_grace_answers_the_longer_one_too() {
    let mut runtime = runtime();
    let id = pod(&mut runtime, 10, "a", &["--ignore-term"]).id;
    let stop = |grace_seconds| RuntimeRequest::Stop { id: id.clone(), grace_seconds };
    runtime.request(at(20), CallId(1), stop(30), &mut Fixed, None);
    runtime.request(at(21), CallId(2), stop(2), &mut Fixed, None);
    assert_eq!(runtime.next_due(), Some(at(23)));
    let mut news = Vec::new();
    runtime.due(at(23), &mut news);
    let ended: Vec<Time> = news.into_iter().map(|n| record(n).finished_at).collect();
    assert_eq!(ended, [at(23), at(23)]);
    assert_eq!(runtime.next_due(), None);
}

#[test]
fn probes_see_a_container_ready_and_hanging() {
    let mut runtime = runtime();
    let args = ["--ready-after=5s", "--hang-after=60s"];
    let id = pod(&mut runtime, 10, "a", &args).id;
    let mut check = |secs: u64, success: bool, takes_ms: u64| {
        let action = ProbeAction::Tcp { host: "10.0.0.1".into(), port: 80 };
        let container_id = id.clone();
        let request = RuntimeRequest::Probe { container_id, action, timeout_seconds: 2 };
        let due = runtime.request(at(secs), CallId(1), request, &mut Fixed, None);
        assert_eq!(due, at(secs) + Duration::from_millis(takes_ms), "at {secs}");
        let RuntimeInput::Reply { result: Ok(RuntimeReply::Probe(outcome)), .. } =
            only(&mut runtime, due)
        else {
            panic!("no outcome");
        };
        assert_eq!(outcome.success, success, "at {secs}: {}", outcome.output);
    };
    check(13, false, 1);
    check(18, true, 1);
    check(72, true, 1);
    check(73, false, 2_000);
}

#[test]
fn an_image_is_fetched_once_and_needed() {
    let mut runtime = ContainerRuntime::new(SHAPE, 9, 1);
    let _ = only(&mut runtime, at(0));
    let pause = record(ask(&mut runtime, at(1), sandbox("a")));
    let refused = failure(ask(&mut runtime, at(3), container("a", &pause.id, &[])));
    assert_eq!(refused.kind, RuntimeErrorKind::Create);
    let image = || "web:1".to_owned();
    let found = |input| match input {
        RuntimeInput::Reply { result: Ok(RuntimeReply::Image(image)), .. } => image.is_some(),
        other => panic!("no image: {other:?}"),
    };
    assert!(!found(ask(&mut runtime, at(6), RuntimeRequest::InspectImage { image: image() })));
    let pull = || RuntimeRequest::PullImage { image: image() };
    let due = runtime.request(at(7), CallId(1), pull(), &mut Fixed, None);
    assert_eq!(due, at(17));
    assert!(found(only(&mut runtime, due)));
    let due = runtime.request(at(18), CallId(2), pull(), &mut Fixed, None);
    assert_eq!(due, at(18) + Duration::from_millis(1));
    assert!(found(only(&mut runtime, due)));
    record(ask(&mut runtime, at(20), container("a", &pause.id, &[])));
    assert_eq!(runtime.facts().images, [(vec![image()], IMAGE_BYTES)]);
}

#[test]
fn addresses_come_from_the_range_in_turn() {
    let mut runtime = runtime();
    let ip = |runtime: &mut ContainerRuntime, secs: u64, name: &str| {
        record(ask(runtime, at(secs), sandbox(name)))
    };
    assert_eq!(ip(&mut runtime, 1, "a").ip, "10.9.0.2");
    let network = |cidr: &str| RuntimeRequest::EnsureNetwork { pod_cidr: cidr.into() };
    assert!(failure(ask(&mut runtime, at(2), network("10.244"))).message.contains("10.244"));
    ask(&mut runtime, at(3), network("10.244.1.0/29"));
    let mut given = Vec::new();
    for (secs, name) in (4..).zip(["b", "c", "d", "e", "f"]) {
        given.push(ip(&mut runtime, secs, name));
    }
    let ips: Vec<&str> = given.iter().map(|r| r.ip.as_str()).collect();
    assert_eq!(ips, ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]);
    let full = failure(ask(&mut runtime, at(20), sandbox("g")));
    assert_eq!(full.kind, RuntimeErrorKind::Start);
    ask(&mut runtime, at(21), RuntimeRequest::Remove { id: given[2].id.clone() });
    assert_eq!(ip(&mut runtime, 22, "g").ip, "10.244.1.4");
    // One that has ended no longer holds its address, and gives away nobody else's when it goes.
    let ended = || given[3].id.clone();
    let stop = RuntimeRequest::Stop { id: ended(), grace_seconds: 0 };
    let due = runtime.request(at(30), CallId(1), stop, &mut Fixed, None);
    let _ = only(&mut runtime, due);
    assert_eq!(ip(&mut runtime, 50, "h").ip, "10.244.1.5");
    ask(&mut runtime, at(60), RuntimeRequest::Remove { id: ended() });
    assert_eq!(failure(ask(&mut runtime, at(61), sandbox("i"))).kind, RuntimeErrorKind::Start);
}

#[test]
fn what_fails_changes_nothing() {
    let mut runtime = runtime();
    let pause = record(ask(&mut runtime, at(1), sandbox("a")));
    let broken = RuntimeError { kind: RuntimeErrorKind::Start, message: "no program".into() };
    let request = container("a", &pause.id, &[]);
    let due = runtime.request(at(5), CallId(1), request, &mut Fixed, Some(broken.clone()));
    assert_eq!(due, at(7));
    assert_eq!(runtime.containers().count(), 2, "it is there until it fails to start");
    assert_eq!(failure(only(&mut runtime, due)), broken);
    assert_eq!(runtime.containers().count(), 1);
    let stop = RuntimeRequest::Stop { id: pause.id, grace_seconds: 0 };
    let due = runtime.request(at(8), CallId(2), stop, &mut Fixed, Some(broken));
    failure(only(&mut runtime, due));
    assert!(runtime.containers().all(|c| c.state == ContainerState::Running));
}

#[test]
fn a_host_that_crashes_loses_what_ran_and_what_was_asked() {
    let mut runtime = runtime();
    let app = pod(&mut runtime, 10, "a", &["--run=10s"]);
    let stop = || RuntimeRequest::Stop { id: app.id.clone(), grace_seconds: 30 };
    runtime.request(at(15), CallId(1), stop(), &mut Fixed, None);
    runtime.crash();
    assert_eq!(runtime.next_due(), None);
    assert_eq!(runtime.request(at(16), CallId(2), stop(), &mut Fixed, None), Time(u64::MAX));
    assert!(runtime.containers().all(|c| c.state == ContainerState::Exited));
    let before = runtime.facts().boot_id;
    runtime.restart(at(50));
    assert_ne!(runtime.facts().boot_id, before);
    assert_eq!(only(&mut runtime, at(50)), RuntimeInput::Event(RuntimeEvent::Connected));
    let dead = record(ask(&mut runtime, at(51), RuntimeRequest::Inspect { id: app.id }));
    assert_eq!((dead.exit_code, dead.finished_at), (255, at(50)));
}

#[test]
fn another_kubelet_hears_nothing_of_the_calls_of_the_last() {
    let mut runtime = runtime();
    runtime.request(at(1), CallId(1), sandbox("a"), &mut Fixed, None);
    runtime.connect(at(1));
    assert_eq!(only(&mut runtime, at(1)), RuntimeInput::Event(RuntimeEvent::Connected));
    let mut news = Vec::new();
    runtime.due(at(9), &mut news);
    assert_eq!(news, []);
    let summary = runtime.containers().next().unwrap();
    assert_eq!((summary.pod_uid, summary.container), ("a", naming::SANDBOX));
    assert_eq!((summary.state, summary.started_at), (ContainerState::Running, at(2)));
}

// --- with a kubelet -----------------------------------------------------------------------------

/// One node: the production kubelet, the runtime and an API of a few objects.
struct Node {
    kubelet: Kubelet,
    runtime: ContainerRuntime,
    now: Time,
    revision: u64,
    objects: BTreeMap<Key, Object>,
    /// `seconds phase restarts` at each change.
    history: Vec<String>,
}

fn kubelet() -> Kubelet {
    Kubelet::new(KubeletConfig {
        node_name: "n1".into(),
        node_ip: "10.0.0.1".into(),
        node_labels: Vec::new(),
        register_taints: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".into(),
        max_pods: 110,
        pause_image: "pause:1".into(),
        root_dir: "/var/lib/kubelet".into(),
        port: 10250,
        version: "v1.33.0".into(),
        reserved_cpu_milli: 0,
        reserved_memory_bytes: 0,
    })
}

impl Node {
    fn new() -> Self {
        let mut node = Self {
            kubelet: kubelet(),
            runtime: ContainerRuntime::new(SHAPE, 9, 1),
            now: at(1_000),
            revision: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
        };
        node.feed(NodeInput::StaticPods(Vec::new()));
        for kind in Kubelet::KINDS {
            let revision = Revision(node.revision);
            let event = WatchEvent::Replaced { kind, objects: Vec::new(), revision };
            node.feed(NodeInput::Api(ApiInput::Watch(event)));
        }
        node.run_until(1_001);
        node.patch(&Key::cluster(Kind::Node, "n1"), &json!({"spec": {"podCIDR": "10.1.2.0/24"}}));
        node.run_until(1_010);
        node
    }

    fn feed(&mut self, input: NodeInput) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.kubelet.step(self.now, input, &mut effects);
            for effect in effects {
                match effect {
                    NodeEffect::Runtime { id, request } => {
                        self.runtime.request(self.now, id, request, &mut Fixed, None);
                    }
                    NodeEffect::Api(ApiEffect::Record(_)) => {}
                    NodeEffect::Api(ApiEffect::Call { id, request }) => {
                        let result = Ok(self.answer(request, &mut inputs));
                        inputs.push_back(NodeInput::Api(ApiInput::Reply { id, result }));
                    }
                }
            }
        }
    }

    fn answer(
        &mut self,
        request: Request,
        inputs: &mut std::collections::VecDeque<NodeInput>,
    ) -> Reply {
        let mut object = match request {
            Request::Create(object) | Request::Update { object, .. } => object,
            Request::Get(key) => match self.objects.get(&key) {
                Some(object) => return Reply::Object(object.clone()),
                None => {
                    codec::decode_value(key.kind, &json!({"metadata": {"name": "n1"}})).unwrap()
                }
            },
            Request::Patch { key, patch, .. } => self.patched(&key, &patch),
            Request::Delete { key, .. } => {
                self.revision += 1;
                self.objects.remove(&key);
                let revision = Revision(self.revision);
                let event = WatchEvent::Deleted { key, revision };
                inputs.push_back(NodeInput::Api(ApiInput::Watch(event)));
                return Reply::Done(revision);
            }
            other => panic!("unexpected {other:?}"),
        };
        self.revision += 1;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        self.objects.insert(object.key(), object.clone());
        if let Some(status) = object.get::<Pod>().and_then(|p| p.status.as_ref()) {
            let line = format!("{} {}", self.now.as_secs(), line(status));
            self.history.push(line);
        }
        let event = WatchEvent::Changed(object.clone());
        inputs.push_back(NodeInput::Api(ApiInput::Watch(event)));
        Reply::Object(object)
    }

    fn patched(&self, key: &Key, patch: &Patch) -> Object {
        let value = codec::to_value(&self.objects[key]);
        let value = registry::patch::apply(key.kind, value, patch).unwrap();
        codec::decode_value(key.kind, &value).unwrap()
    }

    fn patch(&mut self, key: &Key, body: &Value) {
        let patch = Patch { kind: PatchKind::Merge, body: body.clone().into() };
        let object = self.patched(key, &patch);
        self.put(object);
    }

    fn put(&mut self, mut object: Object) {
        self.revision += 1;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        self.objects.insert(object.key(), object.clone());
        self.feed(NodeInput::Api(ApiInput::Watch(WatchEvent::Changed(object))));
    }

    fn pod(&mut self, name: &str, policy: &str, args: &[&str]) {
        let manifest = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "restartPolicy": policy,
                "containers": [{"name": "app", "image": "web:1", "args": args,
                    "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}]}});
        self.put(codec::decode_any(manifest.to_string().as_bytes()).unwrap());
    }

    fn run_until(&mut self, secs: u64) {
        loop {
            let wake = self.kubelet.wake_at().map_or(Time(u64::MAX), |t| t.max(self.now));
            let due = self.runtime.next_due().unwrap_or(Time(u64::MAX));
            let next = wake.min(due).max(self.now);
            if next > at(secs) {
                self.now = at(secs);
                return;
            }
            self.now = next;
            let mut news = Vec::new();
            self.runtime.due(next, &mut news);
            for input in news {
                self.feed(NodeInput::Runtime(input));
            }
            if wake <= next {
                self.feed(NodeInput::Wake);
            }
        }
    }
}

fn line(status: &PodStatus) -> String {
    let phase = status.phase.as_deref().unwrap_or("-");
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let ready = ready.map_or("-", |c| c.status.as_str());
    let restarts = status.container_statuses.iter().flatten().map(|c| c.restart_count).max();
    format!("{phase} ready={ready} restarts={}", restarts.unwrap_or(0))
}

#[test]
fn a_pod_of_a_kubelet_runs_to_its_end() {
    let mut node = Node::new();
    node.pod("job", "Never", &["--run=30s", "--ready-after=3s"]);
    node.run_until(1_100);
    // 1 s for the pause container, 10 s for the image, 2 s for the container.
    assert_eq!(
        node.history,
        [
            // That an image is being fetched is told; that the pause container is made is not.
            "1011 Pending ready=False restarts=0",
            "1023 Running ready=False restarts=0",
            "1026 Running ready=True restarts=0",
            // The pause container is stopped, too.
            "1053 Succeeded ready=False restarts=0",
        ]
    );
    let status = node.objects[&Key::new(Kind::Pod, "default", "job")].get::<Pod>().unwrap();
    assert_eq!(status.status.as_ref().unwrap().pod_ip.as_deref(), Some("10.1.2.2"));
    assert!(node.runtime.containers().all(|c| c.state == ContainerState::Exited));
}

#[test]
fn a_pod_of_a_kubelet_crashes_and_is_deleted() {
    let mut node = Node::new();
    node.runtime.load_image("web:1");
    node.pod("web", "Always", &["--crash-after=5s", "--ignore-term"]);
    node.run_until(1_100);
    let restarts =
        |node: &Node| node.history.last().unwrap().rsplit_once('=').unwrap().1.to_owned();
    assert_eq!(restarts(&node), "3", "{:#?}", node.history);
    // Running again: it crashes by itself before the grace is over.
    let key = Key::new(Kind::Pod, "default", "web");
    let deleted = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:20:00Z",
        "deletionGracePeriodSeconds": 30}});
    node.patch(&key, &deleted);
    node.run_until(1_140);
    assert!(!node.objects.contains_key(&key), "{:#?}", node.history);
    assert_eq!(node.runtime.containers().count(), 0);
    assert!(node.runtime.folders.is_empty());
}

#[test]
fn a_kubelet_starts_its_pods_again_after_a_crash_of_the_host() {
    let mut node = Node::new();
    node.runtime.load_image("web:1");
    node.pod("web", "Always", &[]);
    node.run_until(1_020);
    assert!(node.history.last().unwrap().ends_with("Running ready=True restarts=0"));
    node.runtime.crash();
    node.now = at(1_200);
    node.kubelet = kubelet();
    node.runtime.restart(at(1_200));
    node.feed(NodeInput::StaticPods(Vec::new()));
    let objects: Vec<Object> = node.objects.values().cloned().collect();
    for kind in Kubelet::KINDS {
        let objects = objects.iter().filter(|o| o.kind() == kind).cloned().collect();
        let revision = Revision(node.revision);
        let event = WatchEvent::Replaced { kind, objects, revision };
        node.feed(NodeInput::Api(ApiInput::Watch(event)));
    }
    node.run_until(1_230);
    let last = node.history.last().unwrap();
    assert!(last.ends_with("Running ready=True restarts=1"), "{:#?}", node.history);
    let up = node.runtime.containers().filter(|c| c.state == ContainerState::Running).count();
    assert_eq!(up, 2);
}
