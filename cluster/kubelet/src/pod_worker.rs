//! What the kubelet remembers of one pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Pod, Revision, Shared, Time, meta};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};

use crate::instance::Instance;
use crate::naming;
use crate::probe::ProbeSet;
use crate::resources::{QosClass, Takes, qos_class};
use crate::runtime::{ContainerRecord, ContainerState, ImageRecord};
use crate::volume::VolumeSpec;

/// One pod on this node.
#[derive(Clone)]
pub(crate) struct PodWorker {
    /// What is wanted.
    pub(crate) pod: Arc<Pod>,
    /// The UID that containers carry: the API's, or the manifest's hash.
    pub(crate) uid: Arc<str>,
    /// Whether it comes from the manifest directory.
    pub(crate) is_static: bool,
    /// Whether the API has it, of a pod that is the API's: then `pod` is what the API has.
    pub(crate) known: bool,
    pub(crate) stage: Stage,
    /// Whether the API already has a final phase: nothing is started any more.
    pub(crate) terminal: bool,
    /// Whether the node accepted it: what it takes counts when others are judged.
    pub(crate) admitted: bool,
    pub(crate) seen_at: Time,
    pub(crate) sandbox: SandboxSlot,
    pub(crate) volumes: VolumeSlot,
    pub(crate) containers: Slots,
    pub(crate) status: StatusSlot,
    /// Its quality of service.
    pub(crate) qos: QosClass,
    /// What it takes from the node; known once it was admitted.
    pub(crate) takes: Takes,
    /// Whether that counts in the node's sums.
    pub(crate) counted: bool,
    /// When to look again even if nothing happens.
    pub(crate) wake: Option<Time>,
    /// The wake that the kubelet has noted.
    pub(crate) noted_wake: Option<Time>,
}

impl PodWorker {
    /// Whether this state of an active pod is what the kubelet's last write was answered with,
    /// and nobody else has changed anything: all of it was acted on when the answer came.
    pub(crate) fn told_before(&self, pod: &Pod) -> bool {
        let version = &pod.metadata.resource_version;
        let answered = self.status.posted.as_ref();
        self.stage == Stage::Active
            && answered.is_some_and(|answer| answer.metadata.resource_version == *version)
            && self.pod.spec == pod.spec
            && self.pod.node_name == pod.node_name
            && meta::is_same_but_version(&self.pod.metadata, &pod.metadata)
    }
}

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    /// The node refused it.
    Rejected(Box<Rejection>),
    /// It is to run.
    Active,
    /// It is being ended.
    Terminating(Box<Termination>),
    /// Nothing of it runs any more and nothing will.
    Stopped(Box<Termination>),
}

/// Why the node refused a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Why and how fast a pod ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Termination {
    pub(crate) deadline: Time,
    pub(crate) grace_seconds: u32,
    /// The pod failed on this node (deadline, eviction) instead of being deleted.
    pub(crate) failure: Option<(String, String)>,
    /// What is on the node was removed.
    pub(crate) cleaned: bool,
    /// The API was asked to forget the pod.
    pub(crate) deleted: bool,
}

#[derive(Clone, Default)]
pub(crate) struct SandboxSlot {
    pub(crate) record: Option<Box<Instance>>,
    /// Attempt number of the next one.
    pub(crate) next_attempt: u32,
    pub(crate) busy: bool,
    pub(crate) failures: u32,
    pub(crate) retry_at: Time,
}

impl SandboxSlot {
    pub(crate) fn running(&self) -> Option<&Instance> {
        self.record.as_deref().filter(|r| r.running())
    }
}

/// A token the API signed for a volume.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) refresh_at: Time,
}

/// The tokens of a pod's volumes, by volume name and path.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    pub(crate) signed: BTreeMap<(String, String), Token>,
    /// When each was last asked for that has not come.
    pub(crate) asked: BTreeMap<(String, String), Time>,
}

#[derive(Clone, Default)]
pub(crate) struct VolumeSlot {
    /// What was last written.
    pub(crate) written: Option<Box<[VolumeSpec]>>,
    pub(crate) writing: Option<Box<[VolumeSpec]>>,
    pub(crate) refresh_at: Time,
    pub(crate) retry_at: Time,
    pub(crate) failures: u32,
    /// Few pods are given tokens in a large simulation.
    pub(crate) tokens: Option<Box<Tokens>>,
}

/// What is under way for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Idle,
    InspectImage,
    PullImage,
    Start,
    PostStart,
    PreStop,
    Stop,
}

#[derive(Clone)]
pub(crate) struct ContainerSlot {
    pub(crate) name: Box<str>,
    pub(crate) current: Option<Box<Instance>>,
    pub(crate) previous: Option<Box<Instance>>,
    /// Attempt number of the next one.
    pub(crate) next_attempt: u32,
    pub(crate) step: Step,
    /// Found for the start under way.
    pub(crate) image: Option<Arc<ImageRecord>>,
    /// The node was not asked whether it still has that image.
    pub(crate) trusting: bool,
    /// Why it does not run: reason and message.
    pub(crate) waiting: Option<Box<(String, String)>>,
    pub(crate) crash: CrashBackoff,
    pub(crate) pull_failures: u32,
    pub(crate) retry_at: Time,
    pub(crate) probes: ProbeSet,
    /// An event came while a call was under way: look again.
    pub(crate) recheck: bool,
    pub(crate) inspecting: bool,
    /// End it (a probe or hook failed) with this grace.
    pub(crate) kill: Option<u32>,
    /// The stop under way ends at this time.
    pub(crate) stop_deadline: Time,
}

impl ContainerSlot {
    fn new(name: &str, next_attempt: u32) -> Self {
        Self {
            name: name.into(),
            current: None,
            previous: None,
            next_attempt,
            step: Step::Idle,
            image: None,
            trusting: false,
            waiting: None,
            crash: CrashBackoff::default(),
            pull_failures: 0,
            retry_at: Time::ZERO,
            probes: ProbeSet::default(),
            recheck: false,
            inspecting: false,
            kill: None,
            stop_deadline: Time::ZERO,
        }
    }

    pub(crate) fn running(&self) -> bool {
        self.current.as_ref().is_some_and(|r| r.running())
    }

    pub(crate) fn exited(&self) -> Option<&Instance> {
        self.current.as_deref().filter(|r| r.state == ContainerState::Exited)
    }

    /// Whether it runs, or may run soon because a call is under way.
    pub(crate) fn alive(&self) -> bool {
        self.running() || matches!(self.step, Step::Start | Step::PostStart | Step::Stop)
    }
}

/// The containers of a pod, by name: a handful at most.
#[derive(Clone, Default)]
pub(crate) struct Slots(Vec<ContainerSlot>);

impl Slots {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|slot| (*slot.name).cmp(name))
    }

    fn insert(&mut self, slot: ContainerSlot) {
        match self.find(&slot.name) {
            Ok(at) => self.0[at] = slot,
            Err(at) => self.0.insert(at, slot),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ContainerSlot> {
        self.0.get(self.find(name).ok()?)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut ContainerSlot> {
        let at = self.find(name).ok()?;
        self.0.get_mut(at)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &ContainerSlot> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut ContainerSlot> {
        self.0.iter_mut()
    }
}

/// Delay between restarts: 10 s doubling to 300 s, forgotten after 600 s of peace.
///
/// Source: kubernetes 1.33, `client-go/util/flowcontrol/backoff.go`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CrashBackoff {
    delay_secs: u64,
    updated: Time,
}

const CRASH_FIRST_SECS: u64 = 10;
const CRASH_MAX_SECS: u64 = 300;

impl CrashBackoff {
    fn expired(&self, event: Time) -> bool {
        event.since(self.updated).as_secs() > 2 * CRASH_MAX_SECS
    }

    /// When a container that ended at `finished` may start again, and the present delay.
    pub(crate) fn until(&self, finished: Time) -> (Time, u64) {
        if self.delay_secs == 0 || self.expired(finished) {
            return (finished, 0);
        }
        (finished + std::time::Duration::from_secs(self.delay_secs), self.delay_secs)
    }

    /// Counts a restart at `now`.
    pub(crate) fn next(&mut self, now: Time, finished: Time) {
        self.delay_secs = if self.delay_secs == 0 || self.expired(finished) {
            CRASH_FIRST_SECS
        } else {
            (self.delay_secs * 2).min(CRASH_MAX_SECS)
        };
        self.updated = now;
    }
}

#[derive(Clone, Default)]
pub(crate) struct StatusSlot {
    /// What the pod's status should be; `None` when that is what the API has.
    pub(crate) wanted: Option<Shared<PodStatus>>,
    /// The pod as the API answered our last write, until the watch tells of it.
    pub(crate) posted: Option<Arc<Pod>>,
    /// What `wanted` was made from: the API's revision and a digest of all else.
    pub(crate) made_from: Option<(Revision, u64)>,
    pub(crate) busy: bool,
    pub(crate) retry_at: Time,
    /// Until when it waits for the next one, to be told with it.
    pub(crate) held_until: Option<Time>,
    pub(crate) failures: u32,
    /// Whether the API has what is wanted.
    pub(crate) settled: bool,
}

impl PodWorker {
    pub(crate) fn new(pod: Arc<Pod>, uid: Arc<str>, is_static: bool, now: Time) -> Self {
        let mut worker = Self {
            uid,
            is_static,
            known: !is_static,
            stage: Stage::Active,
            terminal: false,
            admitted: false,
            seen_at: now,
            sandbox: SandboxSlot::default(),
            volumes: VolumeSlot::default(),
            containers: Slots::default(),
            status: StatusSlot::default(),
            qos: qos_class(&pod),
            takes: Takes::default(),
            counted: false,
            wake: None,
            noted_wake: None,
            pod,
        };
        let phase = worker.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        worker.terminal = !is_static && matches!(phase, Some("Succeeded" | "Failed"));
        let pod = worker.pod.clone();
        worker.containers.0.reserve_exact(definitions(&pod).count());
        for (container, _) in definitions(&pod) {
            let next_attempt = worker.attempt_after_status(&container.name);
            worker.containers.insert(ContainerSlot::new(&container.name, next_attempt));
        }
        worker
    }

    /// Containers that ran before and are lost still count as restarts.
    fn attempt_after_status(&self, name: &str) -> u32 {
        let status = self.pod.status.as_ref();
        let all = status.into_iter().flat_map(|s| {
            s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
        });
        let ran = |c: &ContainerStatus| {
            let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            let state = c.state.as_ref().and_then(|s| s.terminated.as_ref());
            c.container_id.is_some() || last.is_some() || state.is_some()
        };
        all.filter(|c| c.name == name && ran(c))
            .map(|c| u32::try_from(c.restart_count).unwrap_or(0).saturating_add(1))
            .next()
            .unwrap_or(0)
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_deref().unwrap_or(&EMPTY)
    }

    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, as messages name pods.
    pub(crate) fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid)
    }

    pub(crate) fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    /// The definition of a container and whether it is an init container.
    pub(crate) fn definition(&self, name: &str) -> Option<(&Container, bool)> {
        definitions(&self.pod).find(|(c, _)| c.name == name)
    }

    pub(crate) fn slot(&self, name: &str) -> Option<&ContainerSlot> {
        self.containers.get(name)
    }

    pub(crate) fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    pub(crate) fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    pub(crate) fn grace_seconds(&self) -> u32 {
        let meta = self.pod.metadata.deletion_grace_period_seconds;
        let seconds = meta.or(self.spec().termination_grace_period_seconds).unwrap_or(30);
        u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
    }

    pub(crate) fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    /// Whether the pod is to run or runs: one that has done its work takes nothing of the node
    /// any more.
    pub(crate) fn is_active(&self) -> bool {
        self.admitted
            && !self.terminal
            && !crate::sync::complete(self)
            && matches!(self.stage, Stage::Active | Stage::Terminating(_))
    }

    /// The pod's address.
    pub(crate) fn ip<'a>(&'a self, node_ip: &'a str) -> &'a str {
        match &self.sandbox.record {
            Some(_) if self.host_network() => node_ip,
            Some(record) => &record.ip,
            None => "",
        }
    }

    /// Whether all init containers have done their work in the present sandbox.
    pub(crate) fn initialized(&self) -> bool {
        let Some(sandbox) = &self.sandbox.record else { return self.init_containers().is_empty() };
        let app_ran = self.spec().containers.iter().any(|c| {
            self.slot(&c.name)
                .and_then(|s| s.current.as_ref())
                .is_some_and(|r| r.sandbox_id == sandbox.id)
        });
        app_ran || self.init_containers().iter().all(|c| self.init_done(c, &sandbox.id))
    }

    /// Whether an init container has done its work in that sandbox.
    pub(crate) fn init_done(&self, container: &Container, sandbox: &str) -> bool {
        let Some(slot) = self.slot(&container.name) else { return false };
        let Some(record) = slot.current.as_ref().filter(|r| *r.sandbox_id == *sandbox) else {
            return false;
        };
        if is_sidecar(container) {
            return record.state == ContainerState::Running
                && slot.step == Step::Idle
                && slot.probes.started();
        }
        record.state == ContainerState::Exited && record.exit_code == 0
    }

    /// Takes over what the runtime had of this pod when it was asked at `asked`. What was made
    /// since then is newer than the listing.
    pub(crate) fn adopt(&mut self, asked: Time, records: &[&ContainerRecord]) {
        let newer = |r: &Instance| r.created_at >= asked;
        let mut sorted: Vec<&ContainerRecord> = records.to_vec();
        sorted.sort_by_key(|r| (r.attempt(), r.created_at, r.id.clone()));
        if !self.sandbox.busy && !self.sandbox.record.as_deref().is_some_and(newer) {
            let found = sorted.iter().rfind(|r| r.container() == naming::SANDBOX);
            renew(&mut self.sandbox.record, found.copied());
        }
        if let Some(record) = &self.sandbox.record {
            let next = record.attempt.saturating_add(1);
            self.sandbox.next_attempt = self.sandbox.next_attempt.max(next);
        }
        for slot in self.containers.values_mut() {
            if slot.step == Step::Start || slot.current.as_deref().is_some_and(newer) {
                continue;
            }
            let mut found = sorted.iter().filter(|r| *r.container() == *slot.name).rev();
            renew(&mut slot.current, found.next().copied());
            if let Some(older) = found.next() {
                slot.previous = Some(Instance::new(older));
            }
            if let Some(record) = &slot.current {
                slot.next_attempt = slot.next_attempt.max(record.attempt.saturating_add(1));
            }
        }
    }
}

/// Takes what the runtime says now; what it no longer knows is lost.
fn renew(known: &mut Option<Box<Instance>>, found: Option<&ContainerRecord>) {
    match found {
        Some(record) => *known = Some(Instance::new(record)),
        None => {
            if let Some(old) = known {
                old.lose();
            }
        }
    }
}

/// All containers of a pod in the order of their start, and whether each is an init container.
pub(crate) fn definitions(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let apps = pod.spec.iter().flat_map(|s| &s.containers);
    init.map(|c| (c, true)).chain(apps.map(|c| (c, false)))
}

/// Whether an init container runs as long as the pod.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulation has a million of them.
    #[test]
    fn a_worker_is_small() {
        assert!(size_of::<PodWorker>() <= 384, "{} bytes", size_of::<PodWorker>());
    }

    #[test]
    fn the_answer_of_a_write_is_not_acted_on_twice() {
        let pod = |version: u64, rest: &str| -> Arc<Pod> {
            let text = format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a","uid":"u",{rest}
                "resourceVersion":"{version}"}},"spec":{{"nodeName":"n","containers":[]}}}}"#
            );
            let object = api::codec::decode_any(text.as_bytes()).unwrap();
            object.share().unwrap()
        };
        let mut worker = PodWorker::new(pod(4, ""), "u".into(), false, Time::ZERO);
        assert!(!worker.told_before(&pod(5, "")), "nothing was written");
        worker.status.posted = Some(pod(5, ""));
        assert!(worker.told_before(&pod(5, "")));
        assert!(!worker.told_before(&pod(6, "")), "another has written since");
        // A write of another before, which a watch may leave out.
        let ending = r#""deletionTimestamp":"2026-01-01T00:00:00Z","#;
        assert!(!worker.told_before(&pod(5, ending)));
        assert!(!worker.told_before(&pod(5, r#""labels":{"a":"b"},"#)));
        worker.stage = Stage::Terminating(Box::new(Termination {
            deadline: Time::ZERO,
            grace_seconds: 0,
            failure: None,
            cleaned: false,
            deleted: false,
        }));
        assert!(!worker.told_before(&pod(5, "")));
    }
}
