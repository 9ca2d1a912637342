//! A runtime and an API that answer at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use api::{
    ApiError, Key, Kind, Object, Patch, PatchKind, Pod, Reply, Request, Revision, Status, Time,
    codec,
};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use machine::{ApiEffect, ApiInput, Machine, Recorder, WatchEvent};
use serde_json::{Value, json};

use crate::kubelet::Kubelet;
use crate::runtime::{
    ContainerRecord, ContainerState, ImageRecord, NodeEffect, NodeFacts, NodeInput, ProbeOutcome,
    RuntimeError, RuntimeErrorKind, RuntimeEvent, RuntimeInput, RuntimeReply, RuntimeRequest,
};
use crate::{KubeletConfig, Labels, naming};

/// How an instance of a container ends by itself.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    pub(super) after_secs: u64,
    pub(super) code: i32,
}

pub(super) struct World {
    pub(super) kubelet: Kubelet,
    pub(super) now: Time,
    revision: u64,
    pub(super) objects: BTreeMap<Key, Object>,
    pub(super) containers: BTreeMap<String, ContainerRecord>,
    next_id: u64,
    pub(super) images: BTreeSet<String>,
    /// By container name: how every instance ends.
    pub(super) exits: BTreeMap<String, Exit>,
    exit_at: BTreeMap<(Time, String), i32>,
    /// Containers that cannot be started.
    pub(super) broken: BTreeSet<String>,
    /// Containers whose probes fail.
    pub(super) sick: BTreeSet<String>,
    /// Containers that take all their grace.
    pub(super) stubborn: BTreeSet<String>,
    /// Whether the world does the periodic duties of a kubelet that is settled.
    pub(super) closed_form: bool,
    late: BTreeMap<(Time, u64), NodeInput>,
    queue: VecDeque<NodeInput>,
    /// Every event, `Reason: message`.
    pub(super) events: Vec<String>,
    recorder: Recorder,
    /// Every runtime request, in short.
    pub(super) requests: Vec<String>,
    /// How often the runtime was asked how a container is.
    pub(super) inspections: usize,
    /// How often it was asked for an image.
    pub(super) images_sought: usize,
    /// Every effect in full.
    pub(super) log: Vec<String>,
    pub(super) folders: BTreeSet<String>,
    pub(super) volumes: Vec<crate::volume::VolumeSpec>,
    /// How often folders of volumes cannot be removed.
    pub(super) stuck_volumes: u32,
    pub(super) specs: BTreeMap<String, crate::runtime::ContainerSpec>,
}

pub(super) fn config() -> KubeletConfig {
    KubeletConfig {
        node_name: "n1".into(),
        node_ip: "10.0.0.1".into(),
        node_labels: vec![("zone".into(), "a".into())],
        register_taints: Vec::new(),
        cluster_dns: vec!["10.96.0.10".into()],
        cluster_domain: "cluster.local".into(),
        max_pods: 110,
        pause_image: "pause:1".into(),
        root_dir: "/var/lib/kubelet".into(),
        port: 10250,
        version: "v1.33.0".into(),
        reserved_cpu_milli: 0,
        reserved_memory_bytes: 0,
    }
}

pub(super) fn facts() -> NodeFacts {
    NodeFacts {
        cpus: 2,
        memory_bytes: 4 << 30,
        memory_available_bytes: 3 << 30,
        disk_bytes: 100 << 30,
        disk_available_bytes: 50 << 30,
        pids_available: 30_000,
        architecture: "amd64".into(),
        runtime_version: "docker://24.0.5".into(),
        resolv_conf: "nameserver 8.8.8.8\nsearch example.org\n".into(),
        devices: BTreeMap::from([("example.org/gpu".to_owned(), 3)]),
        ..NodeFacts::default()
    }
}

impl World {
    /// A node with its pod range, a runtime and no pods.
    pub(super) fn new() -> Self {
        let mut world = Self::cold();
        world.boot();
        world
    }

    pub(super) fn cold() -> Self {
        Self {
            kubelet: Kubelet::new(config()),
            now: Time::from_secs(1_000_000),
            revision: 10,
            objects: BTreeMap::new(),
            containers: BTreeMap::new(),
            next_id: 0,
            images: BTreeSet::from(["web:1".to_owned()]),
            exits: BTreeMap::new(),
            exit_at: BTreeMap::new(),
            broken: BTreeSet::new(),
            sick: BTreeSet::new(),
            stubborn: BTreeSet::new(),
            closed_form: false,
            late: BTreeMap::new(),
            queue: VecDeque::new(),
            events: Vec::new(),
            recorder: Recorder::default(),
            requests: Vec::new(),
            inspections: 0,
            images_sought: 0,
            log: Vec::new(),
            folders: BTreeSet::new(),
            volumes: Vec::new(),
            stuck_volumes: 0,
            specs: BTreeMap::new(),
        }
    }

    /// The kubelet starts and learns what there is.
    pub(super) fn boot(&mut self) {
        self.feed(NodeInput::Wake);
        self.feed(NodeInput::StaticPods(Vec::new()));
        self.feed(NodeInput::Runtime(RuntimeInput::Event(RuntimeEvent::Connected)));
        for kind in Kubelet::KINDS {
            let objects = self.objects.values().filter(|o| o.kind() == kind).cloned().collect();
            let revision = Revision(self.revision);
            self.watch(WatchEvent::Replaced { kind, objects, revision });
        }
        let node = Key::cluster(Kind::Node, "n1");
        if self.objects.contains_key(&node) {
            self.patch(&node, &json!({"spec": {"podCIDR": "10.244.1.0/24"}}));
        }
        self.run_for(1);
    }

    /// The kubelet's process is replaced; containers and API stay.
    pub(super) fn restart_kubelet(&mut self) {
        self.replace_kubelet();
        self.boot();
    }

    /// The same, and the new one knows nothing yet.
    pub(super) fn replace_kubelet(&mut self) {
        self.kubelet = Kubelet::new(config());
        self.queue.clear();
        self.late.clear();
        self.requests.clear();
    }

    fn watch(&mut self, event: WatchEvent) {
        self.feed(NodeInput::Api(ApiInput::Watch(event)));
    }

    /// One input and all that follows from it at once.
    pub(super) fn feed(&mut self, input: NodeInput) {
        self.queue.push_back(input);
        for _ in 0..10_000 {
            let Some(input) = self.queue.pop_front() else { return };
            let mut out = Vec::new();
            if self.closed_form && self.kubelet.is_settled() {
                let lease = self.objects.get(&Key::new(Kind::Lease, "kube-node-lease", "n1"));
                self.kubelet.duties_done(self.now, lease);
            }
            self.kubelet.step(self.now, input, &mut out);
            for effect in out {
                self.log.push(format!("{} {effect:?}", self.now.0));
                self.carry_out(effect);
            }
        }
        panic!("no end: {:?}", &self.log[self.log.len() - 20..]);
    }

    pub(super) fn run_for(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        for _ in 0..20_000 {
            let wake = self.wake_at();
            let exit = self.exit_at.first_key_value().map(|(k, _)| k.0);
            let late = self.late.first_key_value().map(|(k, _)| k.0);
            let next = [wake, exit, late].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if exit == Some(next) {
                let ((_, id), code) = self.exit_at.pop_first().unwrap();
                self.end(&id, code);
            } else if late == Some(next) {
                let (_, input) = self.late.pop_first().unwrap();
                self.feed(input);
            } else {
                self.feed(NodeInput::Wake);
            }
        }
        panic!("too many steps: {:?}", &self.log[self.log.len().saturating_sub(20)..]);
    }

    fn wake_at(&self) -> Option<Time> {
        if self.closed_form { self.kubelet.work_at() } else { self.kubelet.wake_at() }
    }

    /// A container ends, and the runtime says so.
    pub(super) fn end(&mut self, id: &str, code: i32) {
        self.end_and_tell(id, code, false);
    }

    /// A container ends, and the runtime says so: how it is now, too, if `describing`.
    pub(super) fn end_and_tell(&mut self, id: &str, code: i32, describing: bool) {
        let now = self.now;
        let Some(record) = self.containers.get_mut(id) else { return };
        if record.state == ContainerState::Exited {
            return;
        }
        record.state = ContainerState::Exited;
        record.exit_code = code;
        record.finished_at = now;
        let event = RuntimeEvent::ContainerChanged {
            id: id.to_owned(),
            pod_uid: record.pod_uid().to_owned(),
            container: record.container().to_owned(),
            record: describing.then(|| Box::new(record.clone())),
        };
        self.feed(NodeInput::Runtime(RuntimeInput::Event(event)));
    }

    // --- the API ---------------------------------------------------------------------------

    fn commit(&mut self, mut object: Object) -> Object {
        self.revision += 1;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        self.objects.insert(object.key(), object.clone());
        if Kubelet::KINDS.contains(&object.kind()) {
            let changed = ApiInput::Watch(WatchEvent::Changed(object.clone()));
            self.queue.push_back(NodeInput::Api(changed));
        }
        object
    }

    /// Makes an object; pods without a node are this node's.
    pub(super) fn create(&mut self, manifest: &Value) {
        let mut object = codec::decode_any(manifest.to_string().as_bytes()).unwrap();
        let now = self.now;
        let meta = object.meta_mut();
        meta.namespace.get_or_insert_with(|| "default".into());
        meta.creation_timestamp = Some(now.to_meta());
        let name = meta.name.clone().unwrap();
        meta.uid.get_or_insert_with(|| format!("uid-{name}"));
        self.commit(object);
        self.settle();
    }

    pub(super) fn pod(&mut self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.create(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}));
    }

    fn settle(&mut self) {
        if let Some(input) = self.queue.pop_front() {
            self.feed(input);
        }
    }

    /// What somebody else changes.
    pub(super) fn patch(&mut self, key: &Key, body: &Value) {
        let patch = Patch { kind: PatchKind::Merge, body: body.clone().into() };
        let object = self.patched(key, &patch).unwrap();
        self.commit(object);
        self.settle();
    }

    fn patched(&self, key: &Key, patch: &Patch) -> Option<Object> {
        let value = codec::to_value(self.objects.get(key)?);
        let value = registry::patch::apply(key.kind, value, patch).unwrap();
        Some(codec::decode_value(key.kind, &value).unwrap())
    }

    /// What `kubectl delete pod` does.
    pub(super) fn delete(&mut self, name: &str) {
        let key = Key::new(Kind::Pod, "default", name);
        let grace = self.object(name).spec.as_ref().unwrap().termination_grace_period_seconds;
        let grace = grace.unwrap_or(30);
        let until = (self.now + Duration::from_secs(30)).timestamp().to_string();
        self.patch(
            &key,
            &json!({"metadata": {"deletionTimestamp": until, "deletionGracePeriodSeconds": grace}}),
        );
    }

    /// What `kubectl delete --force` does.
    pub(super) fn vanish(&mut self, name: &str) {
        self.remove(&Key::new(Kind::Pod, "default", name));
        self.settle();
    }

    fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.objects.remove(key);
        let revision = Revision(self.revision);
        let deleted = WatchEvent::Deleted { key: key.clone(), revision };
        self.queue.push_back(NodeInput::Api(ApiInput::Watch(deleted)));
    }

    pub(super) fn object(&self, name: &str) -> &Pod {
        let key = Key::new(Kind::Pod, "default", name);
        self.objects.get(&key).unwrap_or_else(|| panic!("no pod {name}")).get().unwrap()
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.objects.contains_key(&Key::new(Kind::Pod, "default", name))
    }

    pub(super) fn status(&self, name: &str) -> PodStatus {
        self.object(name).status.clone().unwrap_or_default().into_inner()
    }

    fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
        let missing = |key: &Key| ApiError::from(Status::not_found(key.kind, &key.name));
        match request {
            Request::Create(object) if object.kind() == Kind::TokenRequest => {
                let mut value = codec::to_value(&object);
                let until = (self.now + Duration::from_secs(3600)).timestamp().to_string();
                value["status"] = json!({"token": "t", "expirationTimestamp": until});
                Ok(Reply::Object(codec::decode_value(Kind::TokenRequest, &value).unwrap()))
            }
            Request::Create(mut object) => {
                let key = object.key();
                if self.objects.contains_key(&key) {
                    return Err(Status::already_exists(key.kind, &key.name).into());
                }
                object.meta_mut().uid = Some(format!("api-{}", key.name));
                Ok(Reply::Object(self.commit(object)))
            }
            Request::Update { object, .. } => Ok(Reply::Object(self.commit(object))),
            Request::Patch { key, patch, .. } => {
                let object = self.patched(&key, &patch).ok_or_else(|| missing(&key))?;
                Ok(Reply::Object(self.commit(object)))
            }
            Request::Delete { key, uid, grace_seconds, .. } => {
                assert_eq!(grace_seconds, Some(0));
                let object = self.objects.get(&key).ok_or_else(|| missing(&key))?;
                if uid.is_some_and(|u| u != object.uid()) {
                    return Err(Status::conflict(key.kind, &key.name, "uid").into());
                }
                self.remove(&key);
                Ok(Reply::Done(Revision(self.revision)))
            }
            Request::Get(key) => {
                self.objects.get(&key).cloned().map(Reply::Object).ok_or_else(|| missing(&key))
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    // --- effects ---------------------------------------------------------------------------

    fn carry_out(&mut self, effect: NodeEffect) {
        match effect {
            NodeEffect::Api(ApiEffect::Record(report)) => {
                if let Request::Create(_) = self.recorder.write(&report) {
                    let record = &report.record;
                    self.events.push(format!("{}: {}", record.reason, record.message));
                }
            }
            NodeEffect::Api(ApiEffect::Call { id, request }) => {
                let result = self.answer(request);
                self.queue.push_back(NodeInput::Api(ApiInput::Reply { id, result }));
            }
            NodeEffect::Runtime { id, request } => {
                let delay = self.delay(&request);
                let result = self.runtime(request);
                let input = NodeInput::Runtime(RuntimeInput::Reply { id, result });
                if delay == 0 {
                    self.queue.push_back(input);
                } else {
                    self.next_id += 1;
                    let at = self.now + Duration::from_secs(delay);
                    self.late.insert((at, self.next_id), input);
                }
            }
        }
    }

    fn delay(&self, request: &RuntimeRequest) -> u64 {
        match request {
            RuntimeRequest::Stop { id, grace_seconds } => {
                let name = self.containers.get(id).map(|r| r.container().to_owned());
                let stubborn = name.is_some_and(|n| self.stubborn.contains(&n));
                if stubborn { u64::from(*grace_seconds) } else { 0 }
            }
            RuntimeRequest::PullImage { image } if image.starts_with("slow:") => 600,
            _ => 0,
        }
    }

    fn container(&mut self, name: &str, labels: &Labels, ip: &str) -> ContainerRecord {
        self.next_id += 1;
        let id = format!("c{}", self.next_id);
        assert!(
            !self.containers.values().any(|r| r.labels == *labels),
            "two containers of one name: {name}"
        );
        let record = ContainerRecord {
            id: id.clone(),
            labels: labels.clone(),
            image: "web:1".into(),
            image_id: "docker://sha256:1".into(),
            state: ContainerState::Running,
            created_at: self.now,
            started_at: self.now,
            finished_at: Time::ZERO,
            exit_code: 0,
            oom_killed: false,
            message: String::new(),
            ip: ip.to_owned(),
        };
        self.containers.insert(id.clone(), record.clone());
        if let Some(exit) = self.exits.get(record.container()) {
            let at = self.now + Duration::from_secs(exit.after_secs);
            self.exit_at.insert((at, id), exit.code);
        }
        record
    }

    fn short(&self, request: &RuntimeRequest) -> String {
        match request {
            RuntimeRequest::StartSandbox(s) => format!("sandbox {}", s.name),
            RuntimeRequest::StartContainer(s) => format!("start {}", s.name),
            RuntimeRequest::Stop { id, grace_seconds } => {
                format!("stop {} {grace_seconds}", self.name(id))
            }
            RuntimeRequest::Remove { id } => format!("remove {}", self.name(id)),
            RuntimeRequest::PrepareVolumes { .. } => "volumes".to_owned(),
            RuntimeRequest::RemovePodFolder { uid } => format!("remove-folder {uid}"),
            RuntimeRequest::RemoveLocalVolume { name } => format!("remove-volume {name}"),
            _ => String::new(),
        }
    }

    fn runtime(&mut self, request: RuntimeRequest) -> Result<RuntimeReply, RuntimeError> {
        if let RuntimeRequest::RemovePod { containers, uid } = &request {
            let removed = containers.iter().map(|id| format!("remove {}", self.name(id)));
            let lines: Vec<String> = removed.chain([format!("remove-folder {uid}")]).collect();
            self.requests.extend(lines);
        }
        let short = self.short(&request);
        self.requests.extend(Some(short).filter(|s| !s.is_empty()));
        let boxed = |r: Option<ContainerRecord>| Ok(RuntimeReply::Container(r.map(Box::new)));
        match request {
            RuntimeRequest::List => Ok(RuntimeReply::Listing {
                containers: self.containers.values().cloned().collect(),
                folders: self.folders.iter().cloned().collect(),
            }),
            RuntimeRequest::Inspect { id } => {
                self.inspections += 1;
                boxed(self.containers.get(&id).cloned())
            }
            RuntimeRequest::ReadFacts => Ok(RuntimeReply::Facts(Box::new(facts()))),
            RuntimeRequest::EnsureNetwork { .. } => Ok(RuntimeReply::Done),
            RuntimeRequest::StartSandbox(spec) => {
                let ip = if spec.host_network { "" } else { "10.244.1.5" };
                let record = self.container(&spec.name, &spec.labels, ip);
                boxed(Some(record))
            }
            RuntimeRequest::StartContainer(spec)
                if spec
                    .labels
                    .get(naming::CONTAINER_NAME)
                    .is_some_and(|c| self.broken.contains(c)) =>
            {
                Err(RuntimeError { kind: RuntimeErrorKind::Start, message: "no program".into() })
            }
            RuntimeRequest::StartContainer(spec) if !self.images.contains(&spec.image) => {
                let message = format!("No such image: {}", spec.image);
                Err(RuntimeError { kind: RuntimeErrorKind::Create, message })
            }
            RuntimeRequest::StartContainer(spec) => {
                let record = self.container(&spec.name, &spec.labels, "");
                self.folders.insert(spec.pod_folder.rsplit('/').next().unwrap().to_owned());
                self.specs.insert(record.container().to_owned(), *spec);
                boxed(Some(record))
            }
            RuntimeRequest::Stop { id, .. } => {
                let now = self.now;
                self.exit_at.retain(|(_, other), _| *other != id);
                if let Some(record) = self.containers.get_mut(&id) {
                    record.state = ContainerState::Exited;
                    record.finished_at = now;
                    record.exit_code =
                        if self.stubborn.contains(record.container()) { 137 } else { 0 };
                }
                boxed(self.containers.get(&id).cloned())
            }
            RuntimeRequest::Remove { id } => {
                self.containers.remove(&id);
                Ok(RuntimeReply::Done)
            }
            RuntimeRequest::InspectImage { image } => {
                self.images_sought += 1;
                let found = self.images.contains(&image);
                let record =
                    ImageRecord { id: "sha256:1".into(), user: String::new(), size_bytes: 7 };
                Ok(RuntimeReply::Image(found.then_some(record)))
            }
            RuntimeRequest::PullImage { .. } => {
                Err(RuntimeError { kind: RuntimeErrorKind::Other, message: "no such host".into() })
            }
            RuntimeRequest::Probe { container_id, .. } => {
                let name = self.containers.get(&container_id).map(|r| r.container().to_owned());
                let success = name.is_some_and(|n| !self.sick.contains(&n));
                let output = if success { "" } else { "sick" }.to_owned();
                Ok(RuntimeReply::Probe(ProbeOutcome { success, output }))
            }
            RuntimeRequest::PrepareVolumes { folder, volumes, .. } => {
                self.folders.insert(folder.rsplit('/').next().unwrap().to_owned());
                self.volumes = volumes;
                Ok(RuntimeReply::Done)
            }
            RuntimeRequest::RemovePod { containers, uid } => {
                containers.iter().for_each(|id| drop(self.containers.remove(id)));
                self.folders.remove(&uid);
                Ok(RuntimeReply::Done)
            }
            RuntimeRequest::RemovePodFolder { uid } => {
                self.folders.remove(&uid);
                Ok(RuntimeReply::Done)
            }
            RuntimeRequest::RemoveLocalVolume { .. } if self.stuck_volumes > 0 => {
                self.stuck_volumes -= 1;
                Err(RuntimeError { kind: RuntimeErrorKind::Other, message: "busy".into() })
            }
            RuntimeRequest::RemoveLocalVolume { .. } => Ok(RuntimeReply::Done),
        }
    }

    fn name(&self, id: &str) -> String {
        self.containers.get(id).map_or_else(|| id.to_owned(), |r| r.container().to_owned())
    }

    // --- questions -------------------------------------------------------------------------

    /// The running instance of a container.
    pub(super) fn running(&self, name: &str) -> Option<&ContainerRecord> {
        let mut all = self.containers.values();
        all.find(|r| r.container() == name && r.state == ContainerState::Running)
    }

    pub(super) fn running_names(&self) -> Vec<String> {
        let up = self.containers.values().filter(|r| r.state == ContainerState::Running);
        let mut names: Vec<String> = up.map(|r| r.container().to_owned()).collect();
        names.sort();
        names
    }

    pub(super) fn saw(&self, event: &str) -> bool {
        self.events.iter().any(|e| e.starts_with(event))
    }

    /// `Phase Ready container=state…` of a pod, as the API has it.
    pub(super) fn line(&self, pod: &str) -> String {
        let status = self.status(pod);
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
        let mut line = format!(
            "{} ready={}",
            status.phase.clone().unwrap_or_default(),
            ready.map_or("-", |c| c.status.as_str())
        );
        let init = status.init_container_statuses.iter().flatten();
        for c in init.chain(status.container_statuses.iter().flatten()) {
            line.push_str(&format!(" {}={}", c.name, state(c)));
        }
        line
    }
}

fn state(status: &ContainerStatus) -> String {
    let state = status.state.clone().unwrap_or_default();
    let text = if state.running.is_some() {
        "running".to_owned()
    } else if let Some(w) = state.waiting {
        w.reason.unwrap_or_default()
    } else if let Some(t) = state.terminated {
        format!("{}({})", t.reason.unwrap_or_default(), t.exit_code)
    } else {
        "?".to_owned()
    };
    match status.restart_count {
        0 => text,
        n => format!("{text}*{n}"),
    }
}

/// Whether a record is a pause container.
pub(super) fn is_sandbox(record: &ContainerRecord) -> bool {
    record.container() == naming::SANDBOX
}
