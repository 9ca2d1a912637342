//! [`Kubelet`]: all pods of one node, and the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Reply, Time};
use k8s_openapi::api::core::v1::Pod;
use machine::{ApiInput, CallId, Machine, WatchEvent};

use crate::KubeletConfig;
use crate::admission;
use crate::context::{ApiPurpose, Context, POD_WARNING, RuntimePurpose};
use crate::mirror::{self, Mirrors};
use crate::naming;
use crate::node_agent::NodeAgent;
use crate::node_status;
use crate::orphans::Orphans;
use crate::pod_status;
use crate::pod_worker::{PodWorker, SandboxSlot, Stage, Step};
use crate::replies;
use crate::runtime::{
    ContainerRecord, ContainerState, NodeEffect, NodeInput, RuntimeError, RuntimeErrorKind,
    RuntimeEvent, RuntimeInput, RuntimeReply, RuntimeRequest,
};
use crate::sync::{RETRY, sync};
use crate::termination;
use crate::volume_source;

/// How often all containers are listed though nothing says that one was missed.
const RELIST: Duration = Duration::from_secs(180);
/// How soon a failed listing is repeated.
const RELIST_SOON: Duration = Duration::from_secs(2);

/// The node agent as a state machine.
pub struct Kubelet {
    ctx: Context,
    node: NodeAgent,
    workers: BTreeMap<String, PodWorker>,
    orphans: Orphans,
    mirrors: Mirrors,
    /// By UID.
    static_pods: BTreeMap<String, Arc<Pod>>,
    static_seen: bool,
    dirty: BTreeSet<String>,
    relist_at: Time,
    listing: bool,
    /// What the last listing found of pods that were not known then.
    unclaimed: Vec<ContainerRecord>,
    folders: Vec<String>,
}

impl Kubelet {
    /// Makes the kubelet of a node; nothing is known yet.
    pub fn new(config: KubeletConfig) -> Self {
        Self {
            ctx: Context::new(config),
            node: NodeAgent::default(),
            workers: BTreeMap::new(),
            orphans: Orphans::default(),
            mirrors: Mirrors::default(),
            static_pods: BTreeMap::new(),
            static_seen: false,
            dirty: BTreeSet::new(),
            relist_at: Time::ZERO,
            listing: false,
            unclaimed: Vec::new(),
            folders: Vec::new(),
        }
    }

    /// The kinds that must be watched: pods of this node, the node itself, services.
    pub const KINDS: [Kind; 3] = [Kind::Pod, Kind::Node, Kind::Service];

    /// Every pod of this node with its present status.
    pub fn pods(&self) -> Vec<Pod> {
        self.workers
            .values()
            .map(|w| Pod { status: Some(w.status.wanted.clone()), ..w.pod.as_ref().clone() })
            .collect()
    }

    /// The present instance of a container, or the one before, of the pod of that name (with
    /// that UID if one is given).
    ///
    /// # Errors
    /// Kubernetes' words for what is missing.
    pub fn container(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerRecord, String> {
        let found = self.workers.values().filter(|w| {
            w.name() == pod && w.namespace() == namespace && (uid.is_empty() || w.uid == uid)
        });
        // Of two pods of one name the later one is meant.
        let Some(worker) = found.max_by_key(|w| w.seen_at) else {
            return Err(format!("pod \"{pod}\" not found"));
        };
        let name = match container {
            "" => worker.spec().containers.first().map_or("", |c| c.name.as_str()),
            name => name,
        };
        let Some(slot) = worker.slot(name) else {
            return Err(format!("container {name} is not valid for pod {pod}"));
        };
        let record = if previous { &slot.previous } else { &slot.current };
        // A container that waits for its next start shows the log of its last one.
        let record = record.as_ref().filter(|r| !r.id.is_empty());
        record.cloned().ok_or_else(|| {
            if previous {
                format!("previous terminated container \"{name}\" in pod \"{pod}\" not found")
            } else {
                let reason = slot.waiting.as_ref().map_or("ContainerCreating", |w| w.0.as_str());
                let reason = reason.to_owned();
                format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}")
            }
        })
    }

    /// The pause container of a pod.
    pub fn sandbox(&self, namespace: &str, pod: &str) -> Option<ContainerRecord> {
        let mut found =
            self.workers.values().filter(|w| w.name() == pod && w.namespace() == namespace);
        found.find_map(|w| w.sandbox.running().cloned())
    }

    /// Whether the runtime answers and the pod network is there; else why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn health(&self) -> Result<(), String> {
        self.ctx.runtime.clone()
    }

    fn mark_all(&mut self) {
        self.dirty.extend(self.workers.keys().cloned());
    }

    // --- the API ---------------------------------------------------------------------------

    fn watch(&mut self, now: Time, event: WatchEvent) {
        let deltas = self.ctx.watch(now, event);
        let kinds: BTreeSet<Kind> = deltas.iter().map(|d| d.key.kind).collect();
        if kinds.contains(&Kind::Node) {
            self.node.report_now(now);
        }
        if kinds.contains(&Kind::Pod) || !self.ctx.cache.synced([Kind::Pod]) {
            self.assign(now);
        }
        if kinds.contains(&Kind::Service) {
            // Only pods that wait for the first list care.
            self.mark_all();
        }
    }

    /// Compares the pods that are wanted with those that are known.
    fn assign(&mut self, now: Time) {
        let node = self.ctx.config.node_name.clone();
        let mut wanted: Vec<Arc<Pod>> = self
            .ctx
            .cache
            .objects(Kind::Pod)
            .filter_map(Object::share::<Pod>)
            .filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&node))
            .filter(|p| !mirror::is_mirror(p))
            .collect();
        // Older pods have the better right to the node's resources.
        wanted.sort_by_key(|p| (api::meta::created_at(&p.metadata), p.metadata.name.clone()));
        let mut present = BTreeSet::new();
        for pod in wanted {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            present.insert(uid.clone());
            let ending = pod.metadata.deletion_timestamp.is_some();
            match self.workers.get_mut(&uid) {
                Some(worker) if Arc::ptr_eq(&worker.pod, &pod) => continue,
                Some(worker) => worker.pod = pod,
                None => self.add(pod, &uid, false, now),
            }
            if ending && let Some(worker) = self.workers.get_mut(&uid) {
                termination::begin(worker, now);
            }
            self.dirty.insert(uid);
        }
        if self.ctx.cache.synced([Kind::Pod]) {
            let api_uids = self.workers.values().filter(|w| !w.is_static);
            let gone: Vec<String> =
                api_uids.map(|w| w.uid.clone()).filter(|uid| !present.contains(uid)).collect();
            self.end(gone, now);
        }
        // Mirrors carry the status of static pods.
        let statics = self.workers.values().filter(|w| w.is_static).map(|w| w.uid.clone());
        self.dirty.extend(statics.collect::<Vec<_>>());
    }

    fn end(&mut self, uids: Vec<String>, now: Time) {
        for uid in uids {
            if let Some(worker) = self.workers.get_mut(&uid) {
                if matches!(worker.stage, Stage::Active | Stage::Rejected { .. }) {
                    termination::begin(worker, now);
                }
                self.dirty.insert(uid);
            }
        }
    }

    fn add(&mut self, pod: Arc<Pod>, uid: &str, is_static: bool, now: Time) {
        let mut worker = PodWorker::new(pod, uid, is_static, now);
        let records: Vec<&ContainerRecord> =
            self.unclaimed.iter().filter(|r| r.pod_uid() == uid).collect();
        worker.adopt(now, &records);
        self.workers.insert(uid.to_owned(), worker);
        self.admit(uid, now);
    }

    /// Refuses a new pod that does not fit.
    fn admit(&mut self, uid: &str, now: Time) {
        let Some(facts) = &self.ctx.facts else { return };
        let Some(worker) = self.workers.get(uid) else { return };
        let began = worker.sandbox.record.is_some()
            || worker.containers.values().any(|s| s.current.is_some());
        let ending = worker.pod.metadata.deletion_timestamp.is_some();
        if worker.terminal || worker.admitted || worker.stage != Stage::Active {
            return;
        }
        let others = self.workers.values().filter(|w| w.uid != uid && w.is_active());
        let allocatable = node_status::limits(&self.ctx.config, facts);
        let verdict = if began || ending {
            // It was judged before this kubelet started, or is not to start.
            Ok(())
        } else {
            admission::admit(&self.ctx, &worker.pod, others, &allocatable)
        };
        let pod = worker.pod.clone();
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.admitted = verdict.is_ok();
        }
        if let Err((reason, message)) = verdict {
            self.ctx.event(now, &pod, POD_WARNING, &reason, message.clone());
            if let Some(worker) = self.workers.get_mut(uid) {
                worker.stage = Stage::Rejected { reason, message };
            }
        }
    }

    fn api_reply(&mut self, now: Time, id: CallId, result: Result<Reply, ApiError>) {
        let Some(purpose) = self.ctx.api_calls.remove(&id) else { return };
        match purpose {
            ApiPurpose::Config(key) => {
                if self.ctx.configs.answer(now, &key, result) {
                    self.config_changed(&key, now);
                }
            }
            ApiPurpose::Status { uid } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    pod_status::answer(worker, result, now);
                    self.dirty.insert(uid);
                }
            }
            ApiPurpose::DeletePod { uid } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    let gone = result.as_ref().err().and_then(ApiError::code);
                    if result.is_err() && !matches!(gone, Some(404 | 409)) {
                        termination::forget_failed(worker, now);
                    }
                    self.dirty.insert(uid);
                }
            }
            ApiPurpose::Token { uid, volume, path } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    let key = (volume.clone(), path);
                    let outcome = volume_source::token_answer(worker, key, result, now);
                    worker.volumes.refresh_at = now;
                    if let Err(message) = outcome {
                        crate::sync::volume_failed(&mut self.ctx, worker, &volume, &message, now);
                    }
                    self.dirty.insert(uid);
                }
            }
            ApiPurpose::Mirror { name } => {
                self.mirrors.answer(&mut self.ctx, &name, result, now);
                self.assign(now);
            }
            ApiPurpose::Node => self.node.node_answer(&mut self.ctx, now, result),
            ApiPurpose::Lease => self.node.lease_answer(now, result),
        }
    }

    /// A configmap or secret was read: whoever waits for it goes on.
    fn config_changed(&mut self, key: &Key, now: Time) {
        for (uid, worker) in &mut self.workers {
            if worker.namespace() == key.namespace.as_ref() && worker.is_active() {
                worker.volumes.retry_at = worker.volumes.retry_at.min(now);
                worker.volumes.refresh_at = worker.volumes.refresh_at.min(now);
                for slot in worker.containers.values_mut() {
                    let config = slot.waiting.as_ref().is_none_or(|w| {
                        w.0 == "CreateContainerConfigError" || w.0 == "ContainerCreating"
                    });
                    if config {
                        slot.retry_at = slot.retry_at.min(now);
                    }
                }
                self.dirty.insert(uid.clone());
            }
        }
    }

    // --- the manifest directory ------------------------------------------------------------

    fn static_pods(&mut self, now: Time, objects: &[Object]) {
        self.static_seen = true;
        let pods: Vec<Pod> =
            objects.iter().filter_map(|o| mirror::static_pod(o, &self.ctx.config, now)).collect();
        let mut wanted = BTreeMap::new();
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            // An unchanged manifest keeps the pod, with the time it was first seen.
            let pod = self.static_pods.get(&uid).cloned().unwrap_or_else(|| Arc::new(pod));
            wanted.insert(uid, pod);
        }
        self.static_pods = wanted;
        let known = self.workers.values().filter(|w| w.is_static).map(|w| w.uid.clone());
        let gone: Vec<String> = known.filter(|u| !self.static_pods.contains_key(u)).collect();
        self.end(gone, now);
        self.start_static(now);
    }

    /// Starts static pods, each after the last pod of its name is gone.
    fn start_static(&mut self, now: Time) {
        let fresh: Vec<(String, Arc<Pod>)> = self
            .static_pods
            .iter()
            .filter(|(uid, _)| !self.workers.contains_key(*uid))
            .map(|(uid, pod)| (uid.clone(), pod.clone()))
            .collect();
        for (uid, pod) in fresh {
            let busy = self.workers.values().any(|w| {
                w.is_static
                    && w.pod.metadata.name == pod.metadata.name
                    && w.pod.metadata.namespace == pod.metadata.namespace
            });
            if !busy {
                self.add(pod, &uid, true, now);
                self.dirty.insert(uid);
            }
        }
    }

    // --- the runtime -----------------------------------------------------------------------

    fn runtime_event(&mut self, now: Time, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Connected => {
                self.ctx.runtime = Ok(());
                self.node.forget_network();
                self.node.report_now(now);
                self.relist_at = now;
                self.mark_all();
            }
            RuntimeEvent::Disconnected { reason } => {
                self.ctx.runtime = Err(format!("container runtime is down: {reason}"));
                self.node.report_now(now);
            }
            RuntimeEvent::ContainerChanged { id, pod_uid, container } => {
                self.container_changed(id, pod_uid, &container);
            }
        }
    }

    fn container_changed(&mut self, id: String, pod_uid: String, container: &str) {
        let Some(worker) = self.workers.get_mut(&pod_uid) else { return };
        if container == naming::SANDBOX {
            if worker.sandbox.record.as_ref().is_some_and(|r| r.id == id) {
                let purpose = RuntimePurpose::InspectSandbox { uid: pod_uid };
                self.ctx.runtime(purpose, RuntimeRequest::Inspect { id });
            }
            return;
        }
        let Some(slot) = worker.containers.get_mut(container) else { return };
        if slot.step == Step::Start {
            // Perhaps of the container whose start is not answered yet.
            slot.recheck = true;
        } else if slot.current.as_ref().is_some_and(|r| r.id == id) {
            replies::inspect(&mut self.ctx, worker, container);
        }
    }

    fn runtime_reply(&mut self, now: Time, id: CallId, result: Result<RuntimeReply, RuntimeError>) {
        let Some(purpose) = self.ctx.runtime_calls.remove(&id) else { return };
        match purpose {
            RuntimePurpose::List { asked } => self.listed(now, asked, result),
            RuntimePurpose::Facts => self.facts(now, result),
            RuntimePurpose::Network { pod_cidr } => {
                let result = result.map(|_| ()).map_err(|e| e.message);
                self.node.network_answer(&mut self.ctx, now, pod_cidr, result);
                self.mark_all();
            }
            RuntimePurpose::Orphan { id } => {
                self.orphans.answer(&mut self.ctx, id, result.is_ok());
                if self.orphans.is_empty() {
                    self.remove_folders();
                }
            }
            RuntimePurpose::Nothing => {}
            RuntimePurpose::Sandbox { uid } | RuntimePurpose::StopSandbox { uid } => {
                self.sandbox_reply(now, uid, result);
            }
            RuntimePurpose::InspectSandbox { uid } => {
                if let (Some(worker), Ok(RuntimeReply::Container(record))) =
                    (self.workers.get_mut(&uid), result)
                {
                    let slot = &mut worker.sandbox;
                    slot.record = match record {
                        Some(record) => Some(*record),
                        None => slot.record.take().map(crate::pod_worker::lost),
                    };
                    self.dirty.insert(uid);
                }
            }
            RuntimePurpose::Volumes { uid, volumes } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::volumes_written(&mut self.ctx, worker, volumes, result, now);
                    self.dirty.insert(uid);
                }
            }
            RuntimePurpose::Container { uid, container } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::container_reply(&mut self.ctx, worker, &container, result, now);
                    self.dirty.insert(uid);
                }
            }
            RuntimePurpose::InspectContainer { uid, container } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::inspected(&mut self.ctx, worker, &container, result);
                    self.dirty.insert(uid);
                }
            }
            RuntimePurpose::Probe { uid, container, id, kind } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::probe_reply(
                        &mut self.ctx,
                        worker,
                        (&container, &id, kind),
                        result,
                        now,
                    );
                    self.dirty.insert(uid);
                }
            }
        }
    }

    fn sandbox_reply(
        &mut self,
        now: Time,
        uid: String,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        let Some(worker) = self.workers.get_mut(&uid) else {
            return;
        };
        self.dirty.insert(uid);
        let slot: &mut SandboxSlot = &mut worker.sandbox;
        slot.busy = false;
        match result {
            Ok(RuntimeReply::Container(Some(record))) => {
                slot.next_attempt = record.attempt().saturating_add(1);
                slot.failures = 0;
                slot.record = Some(*record);
            }
            Ok(RuntimeReply::Container(None)) => slot.record = None,
            Ok(_) => {
                if let Some(record) = &mut slot.record {
                    record.state = ContainerState::Exited;
                }
            }
            Err(error) => {
                slot.failures = slot.failures.saturating_add(1);
                // A name that is taken by a container that could not be started is not used
                // again.
                slot.next_attempt = slot.next_attempt.saturating_add(1);
                slot.retry_at = now + RETRY.delay(slot.failures);
                let at = slot.retry_at;
                worker.wake_at(at);
                if error.kind != RuntimeErrorKind::Unavailable && worker.stage == Stage::Active {
                    let message = format!("Failed to create pod sandbox: {error}");
                    let pod = worker.pod.clone();
                    let reason = "FailedCreatePodSandBox";
                    self.ctx.event(now, &pod, POD_WARNING, reason, message);
                }
            }
        }
    }

    fn facts(&mut self, now: Time, result: Result<RuntimeReply, RuntimeError>) {
        self.node.facts_answered(now);
        let Ok(RuntimeReply::Facts(facts)) = result else { return };
        let first = self.ctx.facts.replace(*facts).is_none();
        if first {
            // What came before the node was known is judged now.
            let mut all: Vec<(Time, String)> = self
                .workers
                .values()
                .map(|w| (api::meta::created_at(&w.pod.metadata), w.uid.clone()))
                .collect();
            all.sort();
            for (_, uid) in all {
                self.admit(&uid, now);
            }
            self.mark_all();
        }
    }

    fn listed(&mut self, now: Time, asked: Time, result: Result<RuntimeReply, RuntimeError>) {
        self.listing = false;
        let Ok(RuntimeReply::Listing { containers, folders }) = result else {
            self.relist_at = now + RELIST_SOON;
            return;
        };
        self.relist_at = now + RELIST;
        self.ctx.listed = true;
        self.folders = folders;
        for (uid, worker) in &mut self.workers {
            let records: Vec<&ContainerRecord> =
                containers.iter().filter(|r| r.pod_uid() == uid).collect();
            worker.adopt(asked, &records);
        }
        self.unclaimed = containers;
        self.mark_all();
        self.sweep();
    }

    /// Removes what belongs to no pod, once all pods are known.
    fn sweep(&mut self) {
        let complete = self.ctx.cache.synced([Kind::Pod]) && self.static_seen;
        if !complete || !self.ctx.listed {
            return;
        }
        for record in std::mem::take(&mut self.unclaimed) {
            if !self.workers.contains_key(record.pod_uid()) {
                self.orphans.add(&mut self.ctx, &record);
            }
        }
        if self.orphans.is_empty() {
            self.remove_folders();
        }
    }

    fn remove_folders(&mut self) {
        for uid in std::mem::take(&mut self.folders) {
            if !self.workers.contains_key(&uid) {
                let request = RuntimeRequest::RemovePodFolder { uid };
                self.ctx.runtime(RuntimePurpose::Nothing, request);
            }
        }
    }

    fn list_if_due(&mut self, now: Time) {
        if self.listing || now < self.relist_at || self.ctx.runtime.is_err() {
            return;
        }
        self.listing = true;
        self.relist_at = now + RELIST;
        self.ctx.runtime(RuntimePurpose::List { asked: now }, RuntimeRequest::List);
    }

    // --- each step -------------------------------------------------------------------------

    fn settle(&mut self, now: Time) {
        self.node.act(&mut self.ctx, now);
        self.list_if_due(now);
        if !self.unclaimed.is_empty() || !self.folders.is_empty() {
            self.sweep();
        }
        self.mirrors.act(&mut self.ctx, &self.static_pods, now);
        let due = self.workers.values().filter(|w| w.wake.is_some_and(|t| t <= now));
        self.dirty.extend(due.map(|w| w.uid.clone()).collect::<Vec<_>>());
        for uid in std::mem::take(&mut self.dirty) {
            let Some(worker) = self.workers.get_mut(&uid) else { continue };
            sync(&mut self.ctx, worker, now);
            if self.over(&uid) {
                self.workers.remove(&uid);
                self.start_static(now);
            }
        }
    }

    /// Whether a pod is stopped, removed and forgotten by the API.
    fn over(&self, uid: &str) -> bool {
        let Some(worker) = self.workers.get(uid) else { return false };
        let Stage::Stopped(t) = &worker.stage else { return false };
        let synced = self.ctx.cache.synced([Kind::Pod]) || worker.is_static;
        let known = !worker.is_static && self.ctx.api_pod(&worker.pod, uid).is_some();
        t.cleaned && synced && !known
    }
}

impl Machine for Kubelet {
    type Input = NodeInput;
    type Effect = NodeEffect;

    fn step(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        match input {
            NodeInput::Api(ApiInput::Watch(event)) => self.watch(now, event),
            NodeInput::Api(ApiInput::Reply { id, result }) => self.api_reply(now, id, result),
            NodeInput::StaticPods(objects) => self.static_pods(now, &objects),
            NodeInput::Runtime(RuntimeInput::Event(event)) => self.runtime_event(now, event),
            NodeInput::Runtime(RuntimeInput::Reply { id, result }) => {
                self.runtime_reply(now, id, result);
            }
            NodeInput::Api(ApiInput::Wake) | NodeInput::Wake => {}
        }
        self.settle(now);
        out.append(&mut self.ctx.effects);
    }

    fn wake_at(&self) -> Option<Time> {
        let pods = self.workers.values().filter_map(|w| w.wake).min();
        let list = (!self.listing && self.ctx.runtime.is_ok()).then_some(self.relist_at);
        let node = Some(self.node.wake_at(&self.ctx));
        [pods, list, node, self.mirrors.wake_at()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
