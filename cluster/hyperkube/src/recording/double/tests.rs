use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::{Key, Kind, Object, Reply, Request, Revision, Status, Time, codec};
use kubelet::container_runtime::{ContainerRuntime, NodeShape};
use kubelet::{Kubelet, KubeletConfig, NodeEffect, NodeInput};
use machine::recording::Header;
use machine::{ApiEffect, ApiInput, WatchEvent};
use node::hollow::Delays;
use serde_json::json;
use simulator::recording::Recording as Repeated;

use super::super::Recording;
use super::*;

const PASSWORD: &str = "open sesame";
const LATER: &str = "close sesame";
const TOKEN: &str = "header.payload.signature";

/// Says what it is told, in more than one way.
struct Echo;

impl Machine for Echo {
    type Input = Value;
    type Effect = Value;

    fn step(&mut self, _: Time, input: Value, out: &mut Vec<Value>) {
        let value = STANDARD.decode(input["data"]["key"].as_str().unwrap()).unwrap();
        let text = String::from_utf8_lossy(&value).into_owned();
        out.push(json!({"env": format!("KEY={text}"), "file": STANDARD.encode(&value)}));
        if input["type"] == "counted" {
            out.push(text.len().into());
        }
    }

    fn wake_at(&self) -> Option<Time> {
        None
    }
}

/// What is written down of a machine that echoes a secret.
fn told(double: &mut Double<Echo>, kind: &str, value: &[u8]) -> io::Result<Value> {
    let input = json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
        "data": {"key": STANDARD.encode(value)}});
    let mut effects = Vec::new();
    Echo.step(Time::ZERO, input.clone(), &mut effects);
    let line = double.tell(&serde_json::to_string(&Step { now: Time::ZERO, input, effects })?)?;
    Ok(serde_json::from_str(&line)?)
}

fn double() -> Double<Echo> {
    let mut double = Double::new(Echo);
    assert_eq!(double.tell("the component").unwrap(), "the component");
    double
}

#[test]
fn a_value_has_one_stand_in_and_another_value_another() {
    let mut double = double();
    let env = |line: &Value| line["effects"][0]["env"].as_str().unwrap().to_owned();
    let first = told(&mut double, "", b"one").unwrap();
    let again = told(&mut double, "", b"one").unwrap();
    let other = told(&mut double, "", b"two").unwrap();
    assert_eq!(first, again);
    assert_ne!(env(&first), env(&other));
    assert!(env(&first).starts_with("KEY=secret-"), "{first}");
    let stand_in = STANDARD.encode(env(&first).strip_prefix("KEY=").unwrap());
    assert_eq!(first["input"]["data"]["key"], stand_in);
    assert_eq!(first["effects"][0]["file"], stand_in);
    // Nothing stands for nothing, and what is no text has no text for a stand-in.
    assert_eq!(env(&told(&mut double, "", b"").unwrap()), "KEY=");
    let binary = told(&mut double, "", &[0xc3, 0x28]).unwrap();
    let bytes = STANDARD.decode(binary["effects"][0]["file"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8(bytes).is_err());
}

#[test]
fn what_depends_on_a_secret_in_another_way_is_not_told() {
    let error = told(&mut double(), "counted", b"one").unwrap_err().to_string();
    assert!(error.contains("(effects[1])"), "{error}");
    // A machine that is no double of the recorded one.
    let mut double = double();
    let step = Step {
        now: Time::ZERO,
        input: json!({"apiVersion": "v1", "kind": "Secret", "data": {"key": "b25l"}}),
        effects: vec![json!({"env": "KEY=one!", "file": "b25l"})],
    };
    let error = double.tell(&serde_json::to_string(&step).unwrap()).unwrap_err().to_string();
    assert!(error.contains("(effects[0].env)") && !error.contains("one!"), "{error}");
}

/// Inputs within which a node shall have nothing more to do at present.
const STEPS_MAX: u32 = 5_000;

/// A node whose API and container runtime agree to everything.
struct Host {
    machine: machine::Recorded<Kubelet>,
    runtime: ContainerRuntime,
    password: &'static str,
    objects: BTreeMap<Key, Value>,
    revision: u64,
    now: Time,
    inputs: VecDeque<NodeInput>,
}

impl Host {
    fn stored(&mut self, mut value: Value) -> Object {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = format!("uid-{}", self.revision).into();
        }
        let object = codec::decode_any(value.to_string().as_bytes()).unwrap();
        self.objects.insert(object.key(), value);
        object
    }

    fn news(&mut self, event: WatchEvent) {
        self.inputs.push_back(NodeInput::Api(ApiInput::Watch(event)));
    }

    /// Stores it, and tells of it if the kubelet watches the like.
    fn changed(&mut self, value: Value) -> Object {
        let object = self.stored(value);
        if Kubelet::KINDS.contains(&object.kind()) {
            self.news(WatchEvent::Changed(object.clone()));
        }
        object
    }

    fn answer(&mut self, request: Request) -> Result<Reply, api::ApiError> {
        match request {
            Request::Create(object) => {
                let mut value = codec::to_value(&object);
                if object.kind() == Kind::TokenRequest {
                    let expires = (self.now + Duration::from_secs(3_600)).to_meta();
                    value["status"] = json!({"token": TOKEN, "expirationTimestamp": expires});
                    return Ok(Reply::Object(self.stored(value)));
                }
                if object.kind() == Kind::Node {
                    value["spec"]["podCIDR"] = "10.244.1.0/24".into();
                }
                Ok(Reply::Object(self.changed(value)))
            }
            Request::Update { object, .. } => {
                Ok(Reply::Object(self.changed(codec::to_value(&object))))
            }
            Request::Patch { key, patch, .. } => {
                let Some(current) = self.objects.get(&key).cloned() else {
                    return Err(Status::not_found(key.kind, &key.name).into());
                };
                let value = registry::patch::apply(key.kind, current, &patch)?;
                Ok(Reply::Object(self.changed(value)))
            }
            Request::Get(key) if key.kind == Kind::Secret => {
                let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                    "metadata": {"name": key.name, "namespace": key.namespace},
                    "data": {"password": STANDARD.encode(self.password), "raw": "wyg="}});
                Ok(Reply::Object(self.stored(secret)))
            }
            Request::Get(key) => match self.objects.get(&key).cloned() {
                Some(value) => Ok(Reply::Object(self.stored(value))),
                None => Err(Status::not_found(key.kind, &key.name).into()),
            },
            Request::Delete { key, .. } => {
                self.revision += 1;
                self.objects.remove(&key);
                let revision = Revision(self.revision);
                self.news(WatchEvent::Deleted { key, revision });
                Ok(Reply::Done(revision))
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Runs the node for so many seconds.
    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        for _ in 0..STEPS_MAX {
            let mut news = Vec::new();
            self.runtime.due(self.now, &mut news);
            self.inputs.extend(news.into_iter().map(NodeInput::Runtime));
            let Some(input) = self.inputs.pop_front() else {
                let due = [self.machine.wake_at(), self.runtime.next_due()];
                let next = due.into_iter().flatten().min().unwrap_or(end);
                if next > end {
                    self.now = end;
                    return;
                }
                self.now = next.max(self.now + Duration::from_millis(1));
                self.inputs.push_back(NodeInput::Wake);
                continue;
            };
            let mut effects = Vec::new();
            self.machine.step(self.now, input, &mut effects);
            for effect in effects {
                match effect {
                    NodeEffect::Api(ApiEffect::Call { id, request }) => {
                        let result = self.answer(request);
                        self.inputs.push_back(NodeInput::Api(ApiInput::Reply { id, result }));
                    }
                    NodeEffect::Api(ApiEffect::Record(_)) => {}
                    NodeEffect::Runtime { id, request } => {
                        let delays = &mut Delays::default();
                        self.runtime.request(self.now, id, request, delays, None);
                    }
                }
            }
        }
        panic!("it does not come to rest");
    }
}

/// A pod that has a secret in a variable, in an argument and in files, and a token.
fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-web"},
        "spec": {"nodeName": "node-1", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 5, "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "c:1", "imagePullPolicy": "IfNotPresent",
                "args": ["--login=me:$(PASSWORD)"],
                "env": [{"name": "PASSWORD", "valueFrom":
                    {"secretKeyRef": {"name": "hidden", "key": "password"}}}],
                "envFrom": [{"prefix": "ALL_", "secretRef": {"name": "hidden"}}],
                "volumeMounts": [{"name": "files", "mountPath": "/files"},
                    {"name": "token", "mountPath": "/token"}]}],
            "volumes": [{"name": "files", "secret": {"secretName": "hidden"}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}]}})
}

/// What a kubelet's run with a pod, whose secret changes and which is deleted, writes to the file.
fn kubelet_run(path: &std::path::Path) -> String {
    let config = KubeletConfig {
        node_name: "node-1".into(),
        node_ip: "192.0.2.1".into(),
        node_labels: Vec::new(),
        register_taints: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".into(),
        max_pods: 110,
        pause_image: "pause:1".into(),
        root_dir: "/var/lib/kubelet".into(),
        port: 10_250,
        version: "v1.33.0".into(),
        reserved_cpu_milli: 0,
        reserved_memory_bytes: 0,
    };
    let header = Header {
        component: "kubelet".into(),
        seed: 0,
        identity: None,
        election: None,
        settings: serde_json::to_value(&config).unwrap(),
    };
    let recording = Recording { record_to: Some(path.to_owned()) };
    let shape = NodeShape { cpus: 4, memory_bytes: 8 << 30, disk_bytes: 1 << 40 };
    let mut host = Host {
        machine: recording.of_keeper(Kubelet::new(config), &header).unwrap(),
        runtime: ContainerRuntime::new(shape, 0, 1),
        password: PASSWORD,
        objects: BTreeMap::new(),
        revision: 0,
        now: Time(1_700_000_000_123_456_789),
        inputs: VecDeque::from([NodeInput::Wake]),
    };
    let pods = vec![host.stored(pod())];
    for (kind, objects) in
        [(Kind::Node, Vec::new()), (Kind::Service, Vec::new()), (Kind::Pod, pods)]
    {
        let revision = Revision(host.revision);
        host.news(WatchEvent::Replaced { kind, objects, revision });
    }
    host.run(30);
    host.password = LATER;
    host.run(150);
    let mut ending = host.objects[&Key::new(Kind::Pod, "default", "web")].clone();
    ending["metadata"]["deletionTimestamp"] = json!(host.now.to_meta());
    ending["metadata"]["deletionGracePeriodSeconds"] = 5.into();
    host.changed(ending);
    host.run(30);
    std::fs::read_to_string(path).unwrap()
}

fn replayed(text: &str) -> simulator::recording::Parity {
    Repeated::parse(text).unwrap().replay().unwrap()
}

#[test]
fn a_kubelet_is_repeated_and_its_recording_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let text = kubelet_run(&folder.path().join("kubelet.jsonl"));
    let parity = replayed(&text);
    assert_eq!(parity.difference, None);
    assert_eq!(parity.inputs, text.lines().count() - 1);
    assert!(parity.effects > 40, "{parity:?}");
    for secret in [PASSWORD, LATER, TOKEN] {
        assert!(!text.contains(secret) && !text.contains(&STANDARD.encode(secret)), "{secret}");
    }
    for part in [
        r#""PASSWORD=secret-"#,
        r#""ALL_password=secret-"#,
        r#""--login=me:secret-"#,
        r#""token":"secret-"#,
        // The container was started, and ended; the pod was deleted.
        r#""phase":"Running""#,
        r#"{"Stop":{"#,
        r#""request":{"Delete":{"#,
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // A variable must be text, so that this one is left out.
    assert!(!text.contains("ALL_raw"));
    // The files were written again when the secret had changed.
    let files = text.lines().filter(|line| line.contains(r#"{"PrepareVolumes":{"#));
    let mut contents: Vec<&str> = files
        .filter_map(|line| line.split_once(r#""path":"password""#))
        .map(|(before, _)| before.rsplit_once(r#""content":""#).map_or("", |(_, end)| end))
        .collect();
    contents.dedup();
    assert_eq!(contents.len(), 2, "{contents:?}");
    // Another answer of the runtime, other effects.
    let other = text.replace(r#""cpus":4"#, r#""cpus":3"#);
    assert!(other != text && replayed(&other).difference.is_some());
}

#[test]
fn what_is_no_recording_of_ours_is_refused() {
    let header = r#"{"component":"etcd","seed":0,"identity":null,"settings":{}}"#;
    let error = Repeated::parse(header).unwrap_err().to_string();
    assert!(error.contains(r#"it is of "etcd""#), "{error}");
    let kubelet = header.replace("etcd", "kubelet");
    let error = Repeated::parse(&format!("{kubelet}\n{{}}\n")).unwrap_err().to_string();
    assert!(error.starts_with("line 2, column 2: "), "{error}");
    let error = Repeated::parse(&kubelet).unwrap().replay().unwrap_err().to_string();
    assert!(error.starts_with("the component's settings: missing field"), "{error}");
}
