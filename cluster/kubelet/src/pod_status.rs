//! What the API is told about a pod.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go`.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::Duration;

use api::{
    ApiError, Key, Kind, Patch, PatchBody, PatchKind, Pod, PodStatusChange, Reply, Request,
    Revision, Shared, Subresource, Time,
};
use foldhash::fast::{FixedState, FoldHasher};
use k8s_openapi::api::core::v1::{
    Container, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
};
use machine::Backoff;

use crate::context::{ApiPurpose, Context};
use crate::instance::{Instance, LOST};
use crate::pod_worker::{ContainerSlot, PodWorker, Stage, Step, is_sidecar};
use crate::runtime::ContainerState;

/// How long a status may wait for the next one.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);
/// Between attempts to write a status.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10) };

/// Writes the pod's status if the API has another.
pub(crate) fn report(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let Some(seen) = ctx.api_pod(worker).cloned() else {
        worker.status.settled = false;
        if worker.is_static || worker.status.made_from.is_some() {
            // A mirror that is made anew shows it; of a pod that is gone it is what was last seen.
            worker.status.made_from = None;
            let status = generate(ctx, worker, &PodStatus::default(), now);
            worker.status.wanted = Some(Shared::new(status));
        }
        return;
    };
    let posted = worker.status.posted.take_if(|p| revision(p) <= revision(&seen));
    drop(posted);
    let base = worker.status.posted.clone().unwrap_or_else(|| seen.clone());
    if worker.terminal {
        worker.status.settled = true;
        worker.status.wanted = None;
        return;
    }
    if is_held_back(worker, now) {
        worker.status.settled = false;
        return;
    }
    make(ctx, worker, revision(&base), base.status.as_ref(), now);
    worker.status.settled = worker.status.wanted.is_none() && !worker.status.busy;
    if worker.status.settled || worker.status.busy {
        return;
    }
    if now < worker.status.retry_at {
        worker.wake_at(worker.status.retry_at);
        return;
    }
    let Some(wanted) = &worker.status.wanted else { return };
    let change = PodStatusChange {
        // A pod of the same name made later must not get this status.
        uid: seen.metadata.uid.clone(),
        from: base.status.clone(),
        to: wanted.clone(),
    };
    let body = PatchBody::PodStatus(Box::new(change));
    worker.status.busy = true;
    let request = Request::Patch {
        key: Key::new(Kind::Pod, worker.namespace(), worker.name()),
        subresource: Some(Subresource::Status),
        patch: Patch { kind: PatchKind::Strategic, body },
    };
    ctx.api(ApiPurpose::Status { uid: worker.uid.clone() }, request);
}

static EMPTY: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

fn revision(pod: &Pod) -> Revision {
    pod.metadata.resource_version.as_deref().and_then(Revision::parse).unwrap_or_default()
}

/// Whether the status will be another in a moment, so that the two are told together: each write
/// is work for everybody who watches pods, and a pod that starts and ends as it should is told of
/// twice instead of four times.
///
/// As in Kubernetes, where a pod is looked at again only when its sandbox is made and its containers
/// are started. What does not go on is told: a step that failed, one that may take long, such as
/// fetching an image, or one that takes longer than [`HELD_BACK_MAX`].
fn is_held_back(worker: &mut PodWorker, now: Time) -> bool {
    if !is_starting(worker) && !is_ending(worker) {
        worker.status.held_until = None;
        return false;
    }
    let until = *worker.status.held_until.get_or_insert(now + HELD_BACK_MAX);
    if now >= until {
        return false;
    }
    worker.wake_at(until);
    true
}

/// Whether a first container is about to be, or what it needs.
fn is_starting(worker: &PodWorker) -> bool {
    let mut slots = worker.containers.values();
    let starts = |slot: &ContainerSlot| {
        slot.current.is_none() && matches!(slot.step, Step::InspectImage | Step::Start)
    };
    worker.stage == Stage::Active
        && worker.volumes.failures == 0
        && worker.sandbox.failures == 0
        && if worker.volumes.writing.is_some() || worker.sandbox.busy {
            slots.all(|slot| slot.current.is_none())
        } else {
            slots.any(starts)
        }
}

/// Whether all has ended but for the sandbox, which is being stopped.
fn is_ending(worker: &PodWorker) -> bool {
    worker.sandbox.busy
        && worker.sandbox.failures == 0
        && worker.sandbox.running().is_some()
        && worker.containers.values().all(|slot| !slot.alive())
}

/// Makes the wanted status, unless it was made from the same before.
fn make(
    ctx: &Context,
    worker: &mut PodWorker,
    revision: Revision,
    have: Option<&Shared<PodStatus>>,
    now: Time,
) {
    let digest = digest(ctx, worker);
    let before = worker.status.made_from.replace((revision, digest));
    if before == Some((revision, digest)) {
        return;
    }
    let same = before.is_some_and(|(_, d)| d == digest);
    if same && worker.status.wanted.is_some() && worker.status.wanted.as_ref() == have {
        // The API has what was written.
        worker.status.wanted = None;
        return;
    }
    let have = have.map_or(&*EMPTY, |have| have);
    let status = generate(ctx, worker, have, now);
    worker.status.wanted = Some(status).filter(|s| s != have).map(Shared::new);
}

/// Of all that [`generate`] looks at, but for the API's pod.
fn digest(ctx: &Context, worker: &PodWorker) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    ctx.listed.hash(&mut hasher);
    std::mem::discriminant(&worker.stage).hash(&mut hasher);
    match &worker.stage {
        Stage::Rejected(r) => (&r.reason, &r.message).hash(&mut hasher),
        Stage::Terminating(t) | Stage::Stopped(t) => t.failure.hash(&mut hasher),
        Stage::Active => {}
    }
    let instance = |record: Option<&Instance>, hasher: &mut FoldHasher| {
        record.is_some().hash(hasher);
        if let Some(r) = record {
            (&r.id, r.attempt, r.state, r.exit_code, r.oom_killed).hash(hasher);
            (r.started_at, r.finished_at, &r.message, &r.ip).hash(hasher);
        }
    };
    instance(worker.sandbox.record.as_deref(), &mut hasher);
    let has_init = !worker.init_containers().is_empty();
    for slot in worker.containers.values() {
        instance(slot.current.as_deref(), &mut hasher);
        instance(slot.previous.as_deref(), &mut hasher);
        (&slot.waiting, slot.step == Step::PostStart).hash(&mut hasher);
        // What is done to an init container decides whether the next may start.
        (has_init && slot.step == Step::Idle).hash(&mut hasher);
        (known_probes(slot), slot.probes.started(), slot.probes.ready()).hash(&mut hasher);
    }
    hasher.finish()
}

/// Takes the answer to a status write.
pub(crate) fn answer(worker: &mut PodWorker, result: Result<Reply, ApiError>, now: Time) {
    worker.status.busy = false;
    match result {
        Ok(reply) => {
            worker.status.failures = 0;
            worker.status.retry_at = Time::ZERO;
            if let Reply::Object(object) = &reply
                && let Some(pod) = object.share::<Pod>()
            {
                worker.status.posted = Some(pod);
            }
        }
        Err(_) => {
            worker.status.failures = worker.status.failures.saturating_add(1);
            worker.status.retry_at = now + RETRY.delay(worker.status.failures);
        }
    }
}

/// The pod's status now; what others wrote into `base` is kept.
pub(crate) fn generate(
    ctx: &Context,
    worker: &PodWorker,
    base: &PodStatus,
    now: Time,
) -> PodStatus {
    if let Stage::Rejected(rejection) = &worker.stage {
        return PodStatus {
            qos_class: Some(worker.qos.name().to_owned()),
            start_time: base.start_time.clone().or_else(|| Some(worker.seen_at.to_meta())),
            phase: Some("Failed".to_owned()),
            reason: Some(rejection.reason.clone()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            ..base.clone()
        };
    }
    if !ctx.listed {
        // Until the runtime was asked, nothing is known that the API does not know.
        return base.clone();
    }
    let node_ip = &ctx.config.node_ip;
    let ip = worker.ip(node_ip);
    let (pod_ip, pod_ips) = if ip.is_empty() {
        (base.pod_ip.clone(), base.pod_ips.clone())
    } else {
        (Some(ip.to_owned()), Some(vec![PodIP { ip: ip.to_owned() }]))
    };
    let of = |containers: &[Container], init: bool| -> Vec<ContainerStatus> {
        containers.iter().map(|c| container_status(worker, c, init)).collect()
    };
    let init = of(worker.init_containers(), true);
    let apps = of(&worker.spec().containers, false);
    let phase = final_phase(base).unwrap_or_else(|| phase(worker, &init, &apps));
    let failure = match &worker.stage {
        Stage::Terminating(t) | Stage::Stopped(t) => t.failure.clone(),
        Stage::Active | Stage::Rejected(_) => None,
    };
    let failed = failure.is_some() && matches!(&worker.stage, Stage::Stopped(_));
    let phase = if failed { "Failed" } else { phase };
    let (reason, message) = match failure {
        Some((reason, message)) => (Some(reason), Some(message)),
        None => (base.reason.clone(), base.message.clone()),
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions(worker, base, phase, &init, &apps, now)),
        init_container_statuses: Some(init).filter(|s| !s.is_empty()),
        container_statuses: Some(apps),
        host_ip: Some(node_ip.clone()),
        host_ips: Some(vec![HostIP { ip: node_ip.clone() }]),
        pod_ip,
        pod_ips,
        qos_class: Some(worker.qos.name().to_owned()),
        start_time: base.start_time.clone().or_else(|| Some(worker.seen_at.to_meta())),
        // What others write is kept.
        ephemeral_container_statuses: base.ephemeral_container_statuses.clone(),
        nominated_node_name: base.nominated_node_name.clone(),
        observed_generation: base.observed_generation,
        resize: base.resize.clone(),
        resource_claim_statuses: base.resource_claim_statuses.clone(),
    }
}

/// A pod that ended stays so.
fn final_phase(base: &PodStatus) -> Option<&'static str> {
    match base.phase.as_deref() {
        Some("Succeeded") => Some("Succeeded"),
        Some("Failed") => Some("Failed"),
        _ => None,
    }
}

fn phase(worker: &PodWorker, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
        status.state.as_ref()?.terminated.as_ref()
    }
    fn last(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
        status.last_state.as_ref()?.terminated.as_ref()
    }
    let over = matches!(worker.stage, Stage::Stopped(_));
    let running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
    for (container, status) in worker.init_containers().iter().zip(init) {
        let done = if is_sidecar(container) {
            running(status) || terminated(status).is_some() || last(status).is_some()
        } else {
            terminated(status).is_some_and(|t| t.exit_code == 0)
        };
        if done || worker.initialized() {
            continue;
        }
        let failed = terminated(status).or_else(|| last(status)).is_some_and(|t| t.exit_code != 0);
        if failed && !is_sidecar(container) && (worker.restart_policy() == "Never" || over) {
            return "Failed";
        }
        return if over { "Failed" } else { "Pending" };
    }
    let count = |f: &dyn Fn(&ContainerStatus) -> bool| apps.iter().filter(|s| f(s)).count();
    let up = count(&running);
    let stopped = count(&|s| !running(s) && (terminated(s).is_some() || last(s).is_some()));
    let succeeded = count(&|s| terminated(s).is_some_and(|t| t.exit_code == 0));
    if over {
        return if succeeded == apps.len() { "Succeeded" } else { "Failed" };
    }
    if up + stopped < apps.len() {
        return "Pending";
    }
    if up > 0 || worker.restart_policy() == "Always" {
        return "Running";
    }
    let settled = count(&|s| terminated(s).is_some());
    if succeeded == apps.len() {
        "Succeeded"
    } else if worker.restart_policy() == "Never" && settled == apps.len() {
        "Failed"
    } else {
        "Running"
    }
}

fn container_status(worker: &PodWorker, container: &Container, init: bool) -> ContainerStatus {
    let Some(slot) = worker.slot(&container.name) else {
        // A pod's containers do not change; were one added, it would never run.
        return ContainerStatus { name: container.name.clone(), ..ContainerStatus::default() };
    };
    let (state, last_state) = states(worker, slot, init);
    let running = state.running.is_some();
    let started = running && slot.probes.started() && slot.step != Step::PostStart;
    let ready = if init && !is_sidecar(container) {
        state.terminated.as_ref().is_some_and(|t| t.exit_code == 0)
    } else {
        running && known_probes(slot) && slot.probes.ready() && slot.step != Step::PostStart
    };
    let record = slot.current.as_ref();
    ContainerStatus {
        name: container.name.clone(),
        image: record
            .map_or_else(|| container.image.clone().unwrap_or_default(), |r| r.image.to_string()),
        image_id: record.map(|r| r.image_id.to_string()).unwrap_or_default(),
        container_id: record.filter(|r| !r.id.is_empty()).map(|r| ["docker://", &*r.id].concat()),
        restart_count: i32::try_from(restarts(worker, container, slot)).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        state: Some(state),
        last_state: last_state.map(|t| State { terminated: Some(t), ..State::default() }),
        ..ContainerStatus::default()
    }
}

/// Whether the probes are those of the present instance.
fn known_probes(slot: &ContainerSlot) -> bool {
    slot.current.as_ref().is_some_and(|r| *r.id == *slot.probes.container_id)
}

fn restarts(worker: &PodWorker, container: &Container, slot: &ContainerSlot) -> u32 {
    if let Some(record) = &slot.current {
        return record.attempt;
    }
    let status = worker.pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| {
        s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
    });
    all.filter(|s| s.name == container.name)
        .map(|s| u32::try_from(s.restart_count).unwrap_or(0))
        .next()
        .unwrap_or(0)
}

fn states(
    worker: &PodWorker,
    slot: &ContainerSlot,
    init: bool,
) -> (State, Option<ContainerStateTerminated>) {
    let previous = slot.previous.as_deref().map(terminated);
    let waiting = |reason: &str, message: Option<String>| State {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..State::default()
    };
    let default_reason = if init || (!worker.init_containers().is_empty() && !worker.initialized())
    {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    match (&slot.current, slot.waiting.as_deref()) {
        (Some(record), _) if record.state == ContainerState::Running => {
            let started_at = Some(record.started_at.to_meta());
            let running = Some(ContainerStateRunning { started_at });
            (State { running, ..State::default() }, previous)
        }
        (Some(record), Some((reason, message))) if record.state == ContainerState::Exited => {
            (waiting(reason, Some(message.clone())), Some(terminated(record)))
        }
        (Some(record), None) if record.state == ContainerState::Exited => {
            let terminated = Some(terminated(record));
            (State { terminated, ..State::default() }, previous)
        }
        // The pod ended before the container began.
        (None, _) if matches!(worker.stage, Stage::Stopped(_)) => {
            let terminated = ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some(LOST.to_owned()),
                ..ContainerStateTerminated::default()
            };
            (State { terminated: Some(terminated), ..State::default() }, previous)
        }
        (_, Some((reason, message))) => (waiting(reason, Some(message.clone())), previous),
        (_, None) => (waiting(default_reason, None), previous),
    }
}

fn terminated(record: &Instance) -> ContainerStateTerminated {
    let never = record.started_at == Time::ZERO;
    let reason = if record.oom_killed {
        "OOMKilled"
    } else if *record.message == *LOST {
        "ContainerStatusUnknown"
    } else if never && record.exit_code != 0 {
        "StartError"
    } else if record.exit_code == 0 {
        "Completed"
    } else {
        "Error"
    };
    let time = |t: Time| Some(t.to_meta());
    ContainerStateTerminated {
        container_id: Some(&record.id)
            .filter(|id| !id.is_empty())
            .map(|id| ["docker://", &**id].concat()),
        exit_code: record.exit_code,
        finished_at: time(record.finished_at),
        started_at: time(record.started_at),
        message: Some(record.message.to_string()).filter(|m| !m.is_empty()),
        reason: Some(reason.to_owned()),
        signal: None,
    }
}

fn conditions(
    worker: &PodWorker,
    base: &PodStatus,
    phase: &str,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    now: Time,
) -> Vec<PodCondition> {
    let sandbox = worker.sandbox.running().is_some()
        && matches!(worker.stage, Stage::Active | Stage::Terminating(_));
    let yes = ("True", None, None);
    let containers = containers_ready(worker, phase, init, apps);
    let ready = containers.clone();
    let ours: [(&str, Judgement); 5] = [
        ("PodReadyToStartContainers", if sandbox { yes.clone() } else { ("False", None, None) }),
        ("Initialized", initialized(worker, phase, init)),
        ("Ready", gates(worker, base, ready)),
        ("ContainersReady", containers),
        ("PodScheduled", yes),
    ];
    let known = base.conditions.as_deref().unwrap_or_default();
    let of_others = |c: &&PodCondition| !ours.iter().any(|(type_, _)| *type_ == c.type_);
    // A status is kept for as long as its pod: no room is left over.
    let mut all = Vec::with_capacity(ours.len() + known.iter().filter(of_others).count());
    for (type_, (status, reason, message)) in &ours {
        let same = known.iter().find(|c| c.type_ == *type_).filter(|c| c.status == *status);
        all.push(PodCondition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: reason.map(str::to_owned),
            message: message.clone(),
            last_probe_time: same.and_then(|c| c.last_probe_time.clone()),
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.to_meta())),
            observed_generation: same.and_then(|c| c.observed_generation),
        });
    }
    all.extend(known.iter().filter(of_others).cloned());
    all
}

type Judgement = (&'static str, Option<&'static str>, Option<String>);

fn initialized(worker: &PodWorker, phase: &str, init: &[ContainerStatus]) -> Judgement {
    if phase == "Succeeded" {
        return ("True", Some("PodCompleted"), None);
    }
    let incomplete: Vec<&str> = init
        .iter()
        .zip(worker.init_containers())
        .filter(|(s, c)| if is_sidecar(c) { s.started != Some(true) } else { !s.ready })
        .map(|(s, _)| s.name.as_str())
        .collect();
    if incomplete.is_empty() || worker.initialized() {
        return ("True", None, None);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    ("False", Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready(
    worker: &PodWorker,
    phase: &str,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Judgement {
    match phase {
        "Succeeded" => return ("False", Some("PodCompleted"), None),
        "Failed" => return ("False", Some("PodFailed"), None),
        _ => {}
    }
    let sidecars = init.iter().zip(worker.init_containers()).filter(|(_, c)| is_sidecar(c));
    let all = sidecars.map(|(s, _)| s).chain(apps);
    let unready: Vec<&str> = all.filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return ("True", None, None);
    }
    let message = ["containers with unready status: [", &*unready.join(" "), "]"].concat();
    ("False", Some("ContainersNotReady"), Some(message))
}

/// Conditions of others that must hold before the pod counts as ready.
fn gates(worker: &PodWorker, base: &PodStatus, containers: Judgement) -> Judgement {
    if containers.0 != "True" {
        return containers;
    }
    let unmet: Vec<String> = worker
        .spec()
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let type_ = &gate.condition_type;
            match base.conditions.iter().flatten().find(|c| c.type_ == *type_) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{type_}\" does not exist."
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if unmet.is_empty() {
        containers
    } else {
        ("False", Some("ReadinessGatesNotReady"), Some(unmet.join(", ")))
    }
}
