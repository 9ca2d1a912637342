use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Reply, Request, Revision, Status, Time, codec};
use machine::WatchEvent;
use machine::{ApiEffect, ApiInput, ControllerManager, Election, LeaderElector, Machine, RngTree};
use scheduler::{Desk, Scheduler, SchedulerConfig};
use serde_json::json;

use super::*;

const SEED: u64 = u64::MAX - 7;
/// `opensesame` in base64.
const SECRET: &str = "b3BlbnNlc2FtZQ==";

/// An API that agrees to everything and tells of every object that is made.
struct Api {
    now: Time,
    revision: u64,
    inputs: VecDeque<ApiInput>,
}

impl Api {
    /// With complete lists of `kinds`, which hold the `objects`.
    fn new(kinds: impl IntoIterator<Item = Kind>, objects: &[Value]) -> Self {
        let inputs = VecDeque::from([ApiInput::Wake]);
        let mut api = Self { now: Time(1_700_000_000_123_456_789), revision: 0, inputs };
        let objects: Vec<Object> = objects.iter().map(|value| api.store(object(value))).collect();
        for kind in kinds {
            let objects = objects.iter().filter(|o| o.kind() == kind).cloned().collect();
            let revision = Revision(api.revision);
            api.inputs.push_back(ApiInput::Watch(WatchEvent::Replaced { kind, objects, revision }));
        }
        api
    }

    fn store(&mut self, mut object: Object) -> Object {
        self.revision += 1;
        let meta = object.meta_mut();
        meta.resource_version = Some(self.revision.to_string());
        meta.uid.get_or_insert_with(|| format!("uid-{}", self.revision));
        let prefix = meta.generate_name.clone().unwrap_or_default();
        meta.name.get_or_insert_with(|| format!("{prefix}{}", self.revision));
        meta.creation_timestamp.get_or_insert_with(|| self.now.to_meta());
        object
    }

    fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) | Request::Update { object, .. } => {
                let stored = self.store(object);
                self.inputs.push_back(ApiInput::Watch(WatchEvent::Changed(stored.clone())));
                Ok(Reply::Object(stored))
            }
            Request::Get(key) => Err(Status::not_found(key.kind, &key.name).into()),
            _ => Ok(Reply::Done(Revision(self.revision))),
        }
    }

    /// Runs the machine for `steps` inputs, with a wake where there is no news.
    fn run(
        &mut self,
        machine: &mut impl Machine<Input = ApiInput, Effect = ApiEffect>,
        steps: u32,
    ) {
        for _ in 0..steps {
            self.now = self.now + Duration::from_nanos(98_765_432);
            let input = self.inputs.pop_front().unwrap_or(ApiInput::Wake);
            let mut effects = Vec::new();
            machine.step(self.now, input, &mut effects);
            for effect in effects {
                if let ApiEffect::Call { id, request } = effect {
                    let result = self.answer(request);
                    self.inputs.push_back(ApiInput::Reply { id, result });
                }
            }
        }
    }
}

fn object(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "3500m", "memory": "4Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True",
                "lastHeartbeatTime": "2023-11-14T22:13:20Z"}]}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {}},
        "spec": {"schedulerName": "default-scheduler", "tolerations": [],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "0.5"}}}]}})
}

/// What a scheduler's run writes to the file.
fn scheduler_run(path: &Path) -> String {
    let objects: Vec<Value> = (0..4)
        .map(|i| node(&format!("node-{i}")))
        .chain((0..12).map(|i| pod(&format!("pod-{i}"))))
        .collect();
    let config = SchedulerConfig::default();
    let header = Header {
        component: "kube-scheduler".into(),
        seed: SEED,
        identity: Some("host_1".into()),
        election: None,
        settings: serde_json::to_value(&config).unwrap(),
    };
    let elector = LeaderElector::new("kube-scheduler", "host_1");
    let desk = Desk::new(&config).unwrap();
    let machine = Scheduler::new(desk, Some(elector), &RngTree::new(SEED));
    let mut machine = recording(path).of(machine, &header).unwrap();
    Api::new(Scheduler::KINDS.iter().copied(), &objects).run(&mut machine, 80);
    std::fs::read_to_string(path).unwrap()
}

fn recording(path: &Path) -> Recording {
    Recording { record_to: Some(path.to_owned()) }
}

fn replayed(text: &str) -> simulator::recording::Parity {
    simulator::recording::Recording::parse(text).unwrap().replay().unwrap()
}

#[test]
fn a_scheduler_is_repeated_from_its_recording() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler.jsonl");
    let text = scheduler_run(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let parity = replayed(&text);
    assert_eq!(parity.difference, None);
    assert_eq!(parity.inputs, 80);
    assert_eq!(text.matches(r#"{"Bind":"#).count(), 12);
    assert!(text.contains("renewTime"), "the lease is part of it");
    // The choice among equal nodes is random, and the seed is needed to repeat it.
    let other = text.replacen(&SEED.to_string(), "1", 1);
    assert!(replayed(&other).difference.is_some());
}

#[test]
fn a_difference_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = scheduler_run(&folder.path().join("scheduler.jsonl"));
    let (number, line) =
        text.lines().enumerate().find(|(_, line)| line.contains(r#"{"Bind":"#)).unwrap();
    let (before, after) = line.split_once(r#""node":"node-"#).unwrap();
    let tampered = text.replacen(line, &format!(r#"{before}"node":"other-{after}"#), 1);
    let parity = replayed(&tampered);
    assert_eq!(parity.inputs, number);
    let told = parity.difference.unwrap();
    assert!(told.starts_with(&format!("after input {number} (at 2023-11-14T22:13:2")), "{told}");
    assert!(told.contains("other-") && told.contains("here"), "{told}");
}

#[test]
fn a_controller_manager_is_repeated_and_its_recording_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.jsonl");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "hidden", "namespace": "default",
            "annotations": {LAST_APPLIED: format!(r#"{{"data":{{"password":"{SECRET}"}}}}"#)}},
        "data": {"password": SECRET}});
    let objects = [
        node("node-1"),
        pod("alone"),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "generation": 1},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "c:1"}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.1",
                "ports": [{"port": 80, "targetPort": 8080}]}}),
        secret,
    ];
    let config = controllers::Config {
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        node_cidr_mask_size: 24,
        root_ca_pem: Some("-----BEGIN CERTIFICATE-----\n".into()),
        nodes_approved_by_hand: false,
        cluster_dns: None,
    };
    // Other times than usual, which the recording has to tell.
    let election =
        Election { retry_period: api::Span::secs(3), ..Election::of("second-controller-manager") };
    let header = Header {
        component: "kube-controller-manager".into(),
        seed: 0,
        identity: Some("host_1".into()),
        election: Some(election.clone()),
        settings: serde_json::to_value(&config).unwrap(),
    };
    let elector = LeaderElector::of(election, "host_1");
    let machine = ControllerManager::new(controllers::all(config), Some(elector));
    let kinds = machine.kinds();
    let mut machine = recording(&path).of(machine, &header).unwrap();
    Api::new(kinds, &objects).run(&mut machine, 300);
    let text = std::fs::read_to_string(&path).unwrap();
    let parity = replayed(&text);
    assert_eq!((parity.difference, parity.inputs), (None, 300));
    assert!(parity.effects > 20, "{} effects", parity.effects);
    for part in ["ReplicaSet", "EndpointSlice", "podCIDR", r#""password":"""#] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains(SECRET));
}

/// An API that holds objects, measures pods and signs.
struct Store {
    objects: BTreeMap<Key, Value>,
    revision: u64,
    now: Time,
    news: Vec<WatchEvent>,
}

impl Store {
    fn put(&mut self, mut value: Value) -> Object {
        self.revision += 1;
        let created = json!(self.now.to_meta());
        let fields = value["metadata"].as_object_mut().unwrap();
        fields.insert("resourceVersion".into(), self.revision.to_string().into());
        fields.entry("uid").or_insert_with(|| format!("uid-{}", self.revision).into());
        fields.entry("creationTimestamp").or_insert(created);
        fields.entry("generation").or_insert(json!(1));
        let stored = object(&value);
        self.objects.insert(stored.key(), codec::to_value(&stored));
        self.news.push(WatchEvent::Changed(stored.clone()));
        stored
    }

    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Result<Reply, ApiError> {
        let Some(mut value) = self.objects.get(key).cloned() else {
            return Err(Status::not_found(key.kind, &key.name).into());
        };
        change(&mut value);
        Ok(Reply::Object(self.put(value)))
    }

    /// What the pods of a namespace use, one and all.
    fn measure(&self, namespace: &str) -> Reply {
        let pods =
            self.objects.keys().filter(|k| k.kind == Kind::Pod && &*k.namespace == namespace);
        let at = self.now.to_meta();
        let measured = pods.map(|key| {
            object(&json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                "metadata": {"name": key.name, "namespace": namespace}, "timestamp": at,
                "window": "15s", "containers": [{"name": "c", "usage": {"cpu": "400m"}}]}))
        });
        Reply::Objects(measured.collect())
    }

    fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) => Ok(Reply::Object(self.put(codec::to_value(&object)))),
            Request::Update { object, .. } => {
                let wanted = codec::to_value(&object);
                self.edit(&object.key(), |value| *value = wanted)
            }
            Request::Delete { key, .. } => {
                self.revision += 1;
                let revision = Revision(self.revision);
                self.objects.remove(&key);
                self.news.push(WatchEvent::Deleted { key, revision });
                Ok(Reply::Done(revision))
            }
            Request::Patch { key, patch, .. } => {
                let replicas = patch.body.json()["spec"]["replicas"].clone();
                self.edit(&key, |value| value["spec"]["replicas"] = replicas)
            }
            Request::Sign(key) if key.kind == Kind::Secret => self.edit(&key, |value| {
                value["metadata"]["annotations"]["kubernetes.io/service-account.uid"] =
                    "uid-robot".into();
                value["data"] = json!({"token": SECRET, "ca.crt": "Q0E=",
                    "namespace": "ZGVmYXVsdA=="});
            }),
            Request::Sign(key) => {
                self.edit(&key, |value| value["status"]["certificate"] = "eA==".into())
            }
            Request::List { namespace, .. } => Ok(self.measure(&namespace)),
            Request::ReadRevision(kind) => {
                let revision = Revision(self.revision);
                self.news.push(WatchEvent::Progress { kind, revision });
                Ok(Reply::Done(revision))
            }
            Request::Get(key) => Err(Status::not_found(key.kind, &key.name).into()),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Runs the machine for so many steps of a second, with all that it hears of.
    fn run(
        &mut self,
        machine: &mut impl Machine<Input = ApiInput, Effect = ApiEffect>,
        kinds: impl IntoIterator<Item = Kind>,
        seconds: u32,
    ) {
        let mut inputs = VecDeque::from([ApiInput::Wake]);
        for kind in kinds {
            let of_kind = self.objects.iter().filter(|(key, _)| key.kind == kind);
            let objects = of_kind.map(|(_, value)| object(value)).collect();
            let revision = Revision(self.revision);
            inputs.push_back(ApiInput::Watch(WatchEvent::Replaced { kind, objects, revision }));
        }
        self.news.clear();
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            inputs.push_back(ApiInput::Wake);
            for _ in 0..2_000 {
                let Some(input) = inputs.pop_front() else { break };
                let mut effects = Vec::new();
                machine.step(self.now, input, &mut effects);
                for effect in effects {
                    if let ApiEffect::Call { id, request } = effect {
                        let result = self.answer(request);
                        inputs.push_back(ApiInput::Reply { id, result });
                    }
                }
                inputs.extend(self.news.drain(..).map(ApiInput::Watch));
            }
        }
    }
}

/// Something to do for each of the controllers that ask for more than writes, or write by the
/// clock.
fn chores() -> Vec<Value> {
    let ready = json!([{"type": "Ready", "status": "True",
        "lastTransitionTime": "2023-11-14T22:00:00Z"}]);
    let resources = json!({"requests": {"cpu": "100m"}});
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": resources}]}});
    let mut web = pod("web-0");
    web["metadata"]["labels"] = json!({"app": "web"});
    web["spec"]["nodeName"] = json!("node-1");
    web["spec"]["containers"][0]["resources"] = resources;
    web["status"] = json!({"phase": "Running", "startTime": "2023-11-14T22:00:00Z",
        "conditions": ready});
    let mut host = node("node-1");
    host["metadata"]["labels"] = json!({"kubernetes.io/hostname": "node-1"});
    vec![
        host,
        web,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": template}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"minReplicas": 1, "maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate":
                {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "default"},
            "spec": {"hard": {"pods": "20"}}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local"}, "provisioner": "kprov.io/local",
            "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "default",
                "finalizers": ["kubernetes.io/pvc-protection"],
                "annotations": {"volume.kubernetes.io/selected-node": "node-1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}}}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "kubelet"},
            "spec": {"request": "", "signerName": "kubernetes.io/legacy-unknown"},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": "default", "uid": "uid-robot"}}),
        json!({"apiVersion": "v1", "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "robot", "namespace": "default",
                "annotations": {"kubernetes.io/service-account.name": "robot"}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "data": {"token-id": "YWJjZGVm", "token-secret": SECRET,
                "usage-bootstrap-signing": "dHJ1ZQ=="}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": "clusters: []"}}),
    ]
}

#[test]
fn all_that_a_controller_manager_asks_for_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.jsonl");
    let config = controllers::Config {
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        node_cidr_mask_size: 24,
        root_ca_pem: Some("CA".into()),
        nodes_approved_by_hand: false,
        cluster_dns: None,
    };
    let header = Header {
        component: "kube-controller-manager".into(),
        seed: 0,
        identity: None,
        election: None,
        settings: serde_json::to_value(&config).unwrap(),
    };
    let machine = ControllerManager::new(controllers::all(config), None);
    let kinds = machine.kinds();
    let mut machine = recording(&path).of(machine, &header).unwrap();
    let now = Time(1_700_000_000_123_456_789);
    let mut store = Store { objects: BTreeMap::new(), revision: 0, now, news: Vec::new() };
    for value in chores() {
        store.put(value);
    }
    store.run(&mut machine, kinds, 150);
    let text = std::fs::read_to_string(&path).unwrap();
    let parity = replayed(&text);
    assert_eq!(parity.difference, None);
    assert!(parity.inputs > 150 && parity.effects > 30, "{parity:?}");
    // Each of these was asked for, or answered.
    for part in [
        r#""kind":"PodMetrics""#,
        r#"{"Sign":"#,
        r#""certificate":"eA==""#,
        r#""token":"""#,
        r#""name":"tick-"#,
        r#""subresource":"Scale""#,
        r#"provisioned-by":"kprov.io/local""#,
        r#""used":{"pods":"#,
        r#""jws-kubeconfig-abcdef":"#,
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains(SECRET) && !text.contains("opensesame"));
    // What was signed by a token that is secret would tell of it.
    let info = &store.objects[&Key::new(Kind::ConfigMap, "kube-public", "cluster-info")];
    let signature = info["data"]["jws-kubeconfig-abcdef"].as_str().unwrap();
    assert!(!text.contains(signature), "{signature}");
    // Other measurements, other effects.
    let busier = text.replace(r#""cpu":"400m""#, r#""cpu":"40m""#);
    assert!(busier != text && replayed(&busier).difference.is_some());
}

#[test]
fn the_recording_of_an_earlier_process_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording.jsonl");
    std::fs::write(&path, "earlier\n").unwrap();
    drop(create(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    let old = folder.path().join("recording.old.jsonl");
    assert_eq!(std::fs::read_to_string(old).unwrap(), "earlier\n");
    // What is no file is not ours to move.
    assert!(create(folder.path()).is_err());
}

#[test]
fn nothing_is_written_behind_a_gap() {
    /// Fails once.
    struct Full(std::sync::mpsc::Sender<String>, u8);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 == 2 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, written) = std::sync::mpsc::channel();
    let mut sink = sink(Full(sender, 0), without_secrets);
    for line in ["1", "2", "3"] {
        sink(line);
    }
    assert_eq!(written.iter().collect::<Vec<_>>(), ["1\n"]);
}
