//! [`Kubelet`]: all pods of one node, and the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Pod, Reply, Shared, Time};
use k8s_openapi::api::core::v1::PodStatus;
use machine::{ApiInput, CallId, Machine};

use crate::KubeletConfig;
use crate::admission;
use crate::context::{ApiPurpose, Context, POD_WARNING, RuntimePurpose};
use crate::instance::Instance;
use crate::mirror::{self, Mirrors};
use crate::naming;
use crate::node_agent::{NodeAgent, next_after};
use crate::node_status;
use crate::occupancy::Occupancy;
use crate::orphans::Orphans;
use crate::pod_status;
use crate::pod_worker::{PodWorker, Rejection, SandboxSlot, Stage};
use crate::replies;
use crate::resources::{self, Takes};
use crate::runtime::{
    ContainerRecord, ContainerState, NodeEffect, NodeInput, RuntimeError, RuntimeErrorKind,
    RuntimeInput, RuntimeReply, RuntimeRequest,
};
use crate::sync::{RETRY, sync};
use crate::termination;
use crate::volume_source;
use crate::watched::{Change, News};
use crate::workers::Workers;

mod news;
mod static_pods;

/// How often all containers are listed though nothing says that one was missed.
const RELIST: Duration = Duration::from_secs(180);
/// How soon a failed listing is repeated.
const RELIST_SOON: Duration = Duration::from_secs(2);

/// The node agent as a state machine.
#[derive(Clone)]
pub struct Kubelet {
    ctx: Context,
    node: NodeAgent,
    workers: Workers,
    occupancy: Occupancy,
    /// When each worker that waits for a time is looked at again.
    wakes: BTreeSet<(Time, Arc<str>)>,
    orphans: Orphans,
    mirrors: Mirrors,
    /// By UID.
    static_pods: BTreeMap<String, Arc<Pod>>,
    static_seen: bool,
    /// Workers to look at in this step, in any order.
    dirty: Vec<Arc<str>>,
    relist_at: Time,
    listing: bool,
    /// Whether the last listing failed.
    list_failed: bool,
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
            workers: Workers::default(),
            occupancy: Occupancy::default(),
            wakes: BTreeSet::new(),
            orphans: Orphans::default(),
            mirrors: Mirrors::default(),
            static_pods: BTreeMap::new(),
            static_seen: false,
            dirty: Vec::new(),
            relist_at: Time::ZERO,
            listing: false,
            list_failed: false,
            unclaimed: Vec::new(),
            folders: Vec::new(),
        }
    }

    /// The kinds that must be watched: pods of this node, the node itself, services.
    pub const KINDS: [Kind; 3] = [Kind::Pod, Kind::Node, Kind::Service];

    /// Every pod of this node with its present status.
    pub fn pods(&self) -> Vec<Pod> {
        self.workers
            .iter()
            .map(|w| Pod { status: Some(self.status(w)), ..w.pod.as_ref().clone() })
            .collect()
    }

    fn status(&self, worker: &PodWorker) -> Shared<PodStatus> {
        let wanted = worker.status.wanted.as_ref();
        let posted = worker.status.posted.as_ref();
        let known = posted.or_else(|| self.ctx.api_pod(worker));
        wanted.or_else(|| known.and_then(|p| p.status.as_ref())).cloned().unwrap_or_default()
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
        let found = self.workers.iter().filter(|w| {
            w.name() == pod && w.namespace() == namespace && (uid.is_empty() || *w.uid == *uid)
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
        let definition = worker.definition(name).map(|(c, _)| c);
        let whole = record.zip(definition).map(|(r, c)| {
            let (pod, uid) = (&worker.pod, &worker.uid);
            r.record(naming::container_labels(pod, uid, c, r.attempt, &r.sandbox_id))
        });
        whole.ok_or_else(|| {
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
            self.workers.iter().filter(|w| w.name() == pod && w.namespace() == namespace);
        found.find_map(|w| {
            let record = w.sandbox.running()?;
            Some(record.record(naming::sandbox_labels(&w.pod, &w.uid, record.attempt)))
        })
    }

    /// Whether the runtime answers and the pod network is there; else why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn health(&self) -> Result<(), String> {
        self.ctx.runtime.clone()
    }

    /// When [`Machine::wake_at`] would be if it were not for periodic duties: measuring the node,
    /// renewing its lease, comparing and reporting its status, listing all containers. What is
    /// pending because something changed or failed counts.
    ///
    /// While [`Kubelet::is_settled`] holds, whoever drives a kubelet may do these duties for it
    /// (in closed form, if there are very many), wake it at this time alone and tell it by
    /// [`Kubelet::duties_done`] before each step. When it is not settled this is
    /// [`Machine::wake_at`].
    pub fn work_at(&self) -> Option<Time> {
        if self.is_settled() { self.pods_wake_at() } else { self.wake_at() }
    }

    /// Whether all is well with the node: it is registered and reported ready, its lease is held,
    /// its network is there, its containers are known, and no call for any of that is under way
    /// or has failed. Pods may have work under way: that goes on by their calls and by
    /// [`Kubelet::work_at`].
    pub fn is_settled(&self) -> bool {
        self.ctx.runtime.is_ok()
            && self.ctx.network.is_ok()
            && self.ctx.listed
            && !self.listing
            && !self.list_failed
            && self.unclaimed.is_empty()
            && self.folders.is_empty()
            && self.orphans.is_empty()
            && self.node.settled(&self.ctx)
    }

    /// Tells a settled kubelet that all its periodic duties were carried out up to `now` by
    /// whoever drives it, as it would have done them; its next are those after `now`. `lease` is
    /// the node's lease as last written: it is renewed from there.
    pub fn duties_done(&mut self, now: Time, lease: Option<&Object>) {
        self.node.duties_done(now, lease.and_then(Object::share));
        self.relist_at = next_after(self.relist_at, RELIST, now);
    }

    /// When a pod wants to be looked at, or a mirror: [`Kubelet::work_at`] of a settled kubelet.
    pub fn pods_wake_at(&self) -> Option<Time> {
        let pods = self.wakes.first().map(|(at, _)| *at);
        [pods, self.mirrors.wake_at()].into_iter().flatten().min()
    }

    fn mark_all(&mut self) {
        self.dirty.extend(self.workers.iter().map(|w| w.uid.clone()));
    }

    // --- the API ---------------------------------------------------------------------------

    fn learned(&mut self, now: Time, news: News) {
        match news {
            News::Nothing => {}
            News::Node => {
                self.node.report_now(now);
                self.mirrors.compare();
            }
            News::Pod(change) => self.pod_changed(change, now),
            News::Pods => self.assign(now),
            News::Service { first } => {
                if first {
                    // Only pods that wait for the first list care.
                    self.mark_all();
                }
            }
        }
    }

    /// Whether a pod of the API is to run here.
    fn is_ours(&self, pod: &Pod) -> bool {
        pod.node() == self.ctx.config.node_name && !mirror::is_mirror(pod)
    }

    /// One pod of the API changed.
    fn pod_changed(&mut self, change: Change<Pod>, now: Time) {
        let latest = change.new.as_ref().or(change.old.as_ref());
        if latest.is_some_and(|p| mirror::is_mirror(p)) || !self.static_pods.is_empty() {
            self.mirrors.compare();
            // Mirrors carry the status of static pods.
            self.mark_static();
        }
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let old = change.old.filter(|p| self.is_ours(p)).as_ref().map(uid);
        let new = change.new.filter(|p| self.is_ours(p));
        let gone = old.filter(|old| new.as_ref().map(uid).as_ref() != Some(old));
        if let Some(pod) = new {
            self.want(pod, now);
        }
        if let Some(uid) = gone {
            if let Some(worker) = self.workers.get_mut(&uid) {
                worker.known = false;
            }
            if self.ctx.watched.pods.synced() {
                self.end(vec![uid.into()], now);
            }
        }
    }

    /// Compares all pods that are wanted with those that are known.
    fn assign(&mut self, now: Time) {
        let pods = self.ctx.watched.pods.iter();
        let mut wanted: Vec<Arc<Pod>> = pods.filter(|p| self.is_ours(p)).cloned().collect();
        // Older pods have the better right to the node's resources.
        wanted.sort_by_cached_key(|p| {
            let created = api::meta::created_at(&p.metadata);
            (created, p.metadata.name.clone(), p.metadata.namespace.clone())
        });
        let mut present = BTreeSet::new();
        for pod in wanted {
            present.insert(pod.metadata.uid.clone().unwrap_or_default());
            self.want(pod, now);
        }
        if self.ctx.watched.pods.synced() {
            let api_uids = self.workers.iter_mut().filter(|w| !w.is_static);
            let gone = api_uids.filter(|w| !present.contains(&*w.uid)).map(|worker| {
                worker.known = false;
                worker.uid.clone()
            });
            let gone = gone.collect();
            self.end(gone, now);
        }
        self.mirrors.compare();
        self.mark_static();
    }

    fn mark_static(&mut self) {
        let statics = self.workers.iter().filter(|w| w.is_static).map(|w| w.uid.clone());
        self.dirty.extend(statics);
    }

    /// Takes the newest state of a pod that is to run here.
    fn want(&mut self, pod: Arc<Pod>, now: Time) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let ending = pod.metadata.deletion_timestamp.is_some();
        let uid = match self.workers.get_mut(uid) {
            Some(worker) if Arc::ptr_eq(&worker.pod, &pod) => {
                worker.known = true;
                return;
            }
            Some(worker) if worker.told_before(&pod) => {
                worker.known = true;
                worker.pod = pod;
                worker.status.posted = None;
                return;
            }
            Some(worker) => {
                if worker.pod.spec != pod.spec {
                    worker.qos = resources::qos_class(&pod);
                    if worker.admitted {
                        self.occupancy.forget(worker);
                        worker.takes = Takes::of(&pod);
                        self.occupancy.count(worker);
                    }
                }
                worker.known = true;
                worker.pod = pod;
                worker.uid.clone()
            }
            None => {
                let uid: Arc<str> = uid.into();
                self.add(pod, &uid, false, now);
                uid
            }
        };
        if ending && let Some(worker) = self.workers.get_mut(&uid) {
            termination::begin(worker, now);
        }
        self.dirty.push(uid);
    }

    fn end(&mut self, uids: Vec<Arc<str>>, now: Time) {
        for uid in uids {
            if let Some(worker) = self.workers.get_mut(&uid) {
                if matches!(worker.stage, Stage::Active | Stage::Rejected(_)) {
                    termination::begin(worker, now);
                }
                self.dirty.push(uid);
            }
        }
    }

    fn add(&mut self, pod: Arc<Pod>, uid: &Arc<str>, is_static: bool, now: Time) {
        let mut worker = Box::new(PodWorker::new(pod, uid.clone(), is_static, now));
        let records: Vec<&ContainerRecord> =
            self.unclaimed.iter().filter(|r| *r.pod_uid() == **uid).collect();
        worker.adopt(now, &records);
        self.workers.insert(worker);
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
        let takes = Takes::of(&worker.pod);
        let verdict = if began || ending {
            // It was judged before this kubelet started, or is not to start.
            Ok(())
        } else {
            let others = self.workers.iter().filter(|w| *w.uid != *uid && w.is_active());
            let allocatable = node_status::limits(&self.ctx.config, facts);
            let used = self.occupancy.sums();
            admission::admit(&self.ctx, &worker.pod, &takes, others, &used, &allocatable)
        };
        let pod = worker.pod.clone();
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.admitted = verdict.is_ok();
            worker.takes = takes;
            self.occupancy.count(worker);
        }
        if let Err((reason, message)) = verdict {
            self.ctx.event(now, &pod, POD_WARNING, &reason, message.clone());
            if let Some(worker) = self.workers.get_mut(uid) {
                worker.stage = Stage::Rejected(Box::new(Rejection { reason, message }));
            }
        }
    }

    fn api_reply(&mut self, now: Time, id: CallId, result: Result<Reply, ApiError>) {
        let Some(purpose) = self.ctx.api_calls.end(id) else { return };
        match purpose {
            ApiPurpose::Config(key) => {
                if self.ctx.configs.answer(now, &key, result) {
                    self.config_changed(&key, now);
                }
            }
            ApiPurpose::Status { uid } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    pod_status::answer(worker, result, now);
                    self.dirty.push(uid);
                }
            }
            ApiPurpose::DeletePod { uid } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    let gone = result.as_ref().err().and_then(ApiError::code);
                    if result.is_err() && !matches!(gone, Some(404 | 409)) {
                        termination::forget_failed(worker, now);
                    }
                    self.dirty.push(uid);
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
                    self.dirty.push(uid);
                }
            }
            ApiPurpose::Mirror { name } => {
                let news = self.mirrors.answer(&mut self.ctx, &name, result, now);
                self.learned(now, news);
            }
            ApiPurpose::Node => {
                self.node.node_answer(&mut self.ctx, now, result);
                self.mirrors.compare();
            }
            ApiPurpose::Lease => self.node.lease_answer(now, result),
            ApiPurpose::LocalVolume { name } => self.node.volumes.told(&name, now, result.is_ok()),
        }
    }

    /// A configmap or secret was read: whoever waits for it goes on.
    fn config_changed(&mut self, key: &Key, now: Time) {
        for worker in self.workers.iter_mut() {
            if worker.namespace() == key.namespace && worker.is_active() {
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
                self.dirty.push(worker.uid.clone());
            }
        }
    }

    // --- the runtime -----------------------------------------------------------------------

    fn runtime_reply(&mut self, now: Time, id: CallId, result: Result<RuntimeReply, RuntimeError>) {
        let Some(purpose) = self.ctx.runtime_calls.end(id) else { return };
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
                if result.is_ok() {
                    self.start_static(now);
                }
                if self.orphans.is_empty() {
                    self.remove_folders();
                }
            }
            RuntimePurpose::Nothing => {}
            RuntimePurpose::LocalVolume { name } => {
                let result = result.map(|_| ()).map_err(|e| e.message);
                self.node.volumes.removed(&mut self.ctx, name, result, now);
            }
            RuntimePurpose::Sandbox { uid } | RuntimePurpose::StopSandbox { uid } => {
                self.sandbox_reply(now, uid, result);
            }
            RuntimePurpose::InspectSandbox { uid } => {
                if let (Some(worker), Ok(RuntimeReply::Container(record))) =
                    (self.workers.get_mut(&uid), result)
                {
                    match (record, &mut worker.sandbox.record) {
                        (Some(record), known) => *known = Some(Instance::new(&record)),
                        (None, Some(known)) => known.lose(),
                        (None, None) => {}
                    }
                    self.dirty.push(uid);
                }
            }
            RuntimePurpose::Volumes { uid } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::volumes_written(&mut self.ctx, worker, result, now);
                    self.dirty.push(uid);
                }
            }
            RuntimePurpose::Container { uid, container } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::container_reply(&mut self.ctx, worker, &container, result, now);
                    self.dirty.push(uid);
                }
            }
            RuntimePurpose::InspectContainer { uid, container } => {
                if let Some(worker) = self.workers.get_mut(&uid) {
                    replies::inspected(&mut self.ctx, worker, &container, result);
                    self.dirty.push(uid);
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
                    self.dirty.push(uid);
                }
            }
        }
    }

    fn sandbox_reply(
        &mut self,
        now: Time,
        uid: Arc<str>,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        let Some(worker) = self.workers.get_mut(&uid) else {
            return;
        };
        self.dirty.push(uid);
        let slot: &mut SandboxSlot = &mut worker.sandbox;
        slot.busy = false;
        match result {
            Ok(RuntimeReply::Container(Some(record))) => {
                slot.failures = 0;
                match slot.record.as_mut().filter(|known| *known.id == *record.id) {
                    Some(known) => known.renew(&record),
                    None => {
                        slot.next_attempt = record.attempt().saturating_add(1);
                        slot.record = Some(Instance::new(&record));
                    }
                }
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
        let Ok(RuntimeReply::Facts(facts)) = result else {
            self.node.facts_answered(now, false, false);
            return;
        };
        let changed = self.ctx.facts.as_ref() != Some(&facts);
        self.node.facts_answered(now, true, changed);
        if self.ctx.facts.replace(facts).is_none() {
            // What came before the node was known is judged now.
            let mut all: Vec<(Time, Arc<str>)> = self
                .workers
                .iter()
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
            self.list_failed = true;
            return;
        };
        self.relist_at = now + RELIST;
        self.list_failed = false;
        self.ctx.listed = true;
        self.folders = folders;
        let mut by_pod: BTreeMap<&str, Vec<&ContainerRecord>> = BTreeMap::new();
        for record in &containers {
            by_pod.entry(record.pod_uid()).or_default().push(record);
        }
        for worker in self.workers.iter_mut() {
            let records = by_pod.get(&*worker.uid).map_or(&[][..], Vec::as_slice);
            worker.adopt(asked, records);
        }
        self.unclaimed = containers;
        self.mark_all();
        self.start_static(now);
        self.sweep();
    }

    /// Removes what belongs to no pod, once all pods are known.
    fn sweep(&mut self) {
        let complete = self.ctx.watched.pods.synced() && self.static_seen;
        if !complete || !self.ctx.listed {
            return;
        }
        for record in std::mem::take(&mut self.unclaimed) {
            if !self.workers.contains(record.pod_uid()) {
                self.orphans.add(&mut self.ctx, &record);
            }
        }
        if self.orphans.is_empty() {
            self.remove_folders();
        }
    }

    fn remove_folders(&mut self) {
        for uid in std::mem::take(&mut self.folders) {
            if !self.workers.contains(uid.as_str()) {
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
        while let Some((at, _)) = self.wakes.first()
            && *at <= now
        {
            let Some((_, uid)) = self.wakes.pop_first() else { break };
            if let Some(worker) = self.workers.get_mut(&uid) {
                worker.noted_wake = None;
            }
            self.dirty.push(uid);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for uid in dirty.drain(..) {
            let Some(worker) = self.workers.get_mut(&uid) else { continue };
            sync(&mut self.ctx, worker, now);
            self.occupancy.count(worker);
            let (before, after) = (worker.noted_wake, worker.wake);
            worker.noted_wake = after;
            let over = is_over(&self.ctx, worker);
            if over && let Some(mut worker) = self.workers.remove(&uid) {
                self.occupancy.forget(&mut worker);
            }
            if let Some(at) = before.filter(|_| over || before != after) {
                self.wakes.remove(&(at, uid.clone()));
            }
            if let Some(at) = after.filter(|_| !over && before != after) {
                self.wakes.insert((at, uid));
            }
            if over {
                self.start_static(now);
            }
        }
        // What is marked by looking is looked at in the next step.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }
}

/// Whether a pod is stopped, removed and forgotten by the API.
fn is_over(ctx: &Context, worker: &PodWorker) -> bool {
    let Stage::Stopped(t) = &worker.stage else { return false };
    let synced = ctx.watched.pods.synced() || worker.is_static;
    let known = !worker.is_static && ctx.api_pod(worker).is_some();
    t.cleaned && synced && !known
}

impl Machine for Kubelet {
    type Input = NodeInput;
    type Effect = NodeEffect;

    fn step(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        // The caller's room for effects is used: none is kept for the next step.
        std::mem::swap(out, &mut self.ctx.effects);
        match input {
            NodeInput::Api(ApiInput::Watch(event)) => {
                let news = self.ctx.watched.apply(&event);
                self.learned(now, news);
            }
            NodeInput::Api(ApiInput::Reply { id, result }) => self.api_reply(now, id, result),
            NodeInput::StaticPods(objects) => self.static_pods(now, &objects),
            NodeInput::Runtime(RuntimeInput::Event(event)) => self.runtime_event(now, event),
            NodeInput::Runtime(RuntimeInput::Reply { id, result }) => {
                self.runtime_reply(now, id, result);
            }
            NodeInput::Api(ApiInput::Wake) | NodeInput::Wake => {}
        }
        self.settle(now);
        std::mem::swap(out, &mut self.ctx.effects);
    }

    fn wake_at(&self) -> Option<Time> {
        let list = (!self.listing && self.ctx.runtime.is_ok()).then_some(self.relist_at);
        let node = self.node.wake_at(&self.ctx);
        [self.pods_wake_at(), list, node].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
