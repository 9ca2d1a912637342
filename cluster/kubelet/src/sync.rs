//! One look at one pod: what should be done next. Called whenever something about the pod may
//! have changed; does nothing twice.

use std::time::Duration;

use api::Time;
use k8s_openapi::api::core::v1::Container;
use machine::Backoff;

use crate::admission;
use crate::container_spec;
use crate::context::{Context, POD, POD_WARNING, RuntimePurpose};
use crate::environment;
use crate::instance::Instance;
use crate::naming;
use crate::pod_status;
use crate::pod_worker::{PodWorker, Stage, Step, Termination, definitions, is_sidecar};
use crate::probing;
use crate::runtime::RuntimeRequest;
use crate::start;
use crate::termination;
use crate::volume_source::{self, VolumeProblem};

/// Between attempts to write volumes or make a sandbox. What a volume waits for may come at any
/// time and is not watched: the pause stays short.
pub(crate) const RETRY: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(10) };
/// How often files from configmaps and secrets are compared with the API.
const CONFIG_CHECK: Duration = Duration::from_secs(60);
/// How soon a look is worth it while something is being read.
const SOON: Duration = Duration::from_secs(1);

/// Looks at a pod and does what is next.
pub(crate) fn sync(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    worker.wake = None;
    match &worker.stage {
        Stage::Rejected(_) => {}
        Stage::Active => run(ctx, worker, now),
        Stage::Terminating(_) => termination::terminate(ctx, worker, now),
        Stage::Stopped(_) => termination::forget(ctx, worker, now),
    }
    pod_status::report(ctx, worker, now);
    if matches!(worker.stage, Stage::Stopped(_)) {
        termination::forget(ctx, worker, now);
    }
}

fn run(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    if ctx.runtime.is_err() || !ctx.listed || ctx.facts.is_none() {
        return;
    }
    if worker.terminal {
        // The kubelet before this one may have been stopped halfway.
        stop_rest(ctx, worker, now);
        return;
    }
    if expire(ctx, worker, now) {
        return;
    }
    kill_marked(ctx, worker, now);
    if complete(worker) {
        stop_rest(ctx, worker, now);
        return;
    }
    probing::run(ctx, worker, now);
    if !start_pending(worker) {
        refresh_volumes(ctx, worker, now);
        return;
    }
    if !volumes_ready(ctx, worker, now) || !sandbox_ready(ctx, worker, now) {
        return;
    }
    refresh_volumes(ctx, worker, now);
    containers(ctx, worker, now);
}

/// Ends a pod whose time is over. Returns whether it did.
fn expire(ctx: &mut Context, worker: &mut PodWorker, now: Time) -> bool {
    let Some(deadline) = admission::active_deadline(&worker.pod, started_at(worker)) else {
        return false;
    };
    if now < deadline {
        worker.wake_at(deadline);
        return false;
    }
    let message = "Pod was active on the node longer than the specified deadline".to_owned();
    ctx.event(now, &worker.pod, POD, "DeadlineExceeded", message.clone());
    let grace_seconds = worker.grace_seconds();
    worker.stage = Stage::Terminating(Box::new(Termination {
        deadline: now + Duration::from_secs(u64::from(grace_seconds)),
        grace_seconds,
        failure: Some(("DeadlineExceeded".to_owned(), message)),
        cleaned: false,
        deleted: false,
    }));
    termination::terminate(ctx, worker, now);
    true
}

fn started_at(worker: &PodWorker) -> Time {
    let status = worker.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    status.map_or(worker.seen_at, Time::from_meta)
}

/// Whether the pod has done its work, well or badly, and starts nothing more.
pub(crate) fn complete(worker: &PodWorker) -> bool {
    if worker.restart_policy() == "Always" {
        return false;
    }
    let failed_for_good = |r: &Instance| r.exit_code != 0;
    if worker.restart_policy() == "Never" {
        let failed_init = worker.init_containers().iter().filter(|c| !is_sidecar(c)).any(|c| {
            let slot = worker.slot(&c.name);
            slot.is_some_and(|s| s.step == Step::Idle && s.exited().is_some_and(failed_for_good))
        });
        if failed_init {
            return true;
        }
    }
    worker.spec().containers.iter().all(|c| {
        worker.slot(&c.name).is_some_and(|s| {
            s.step == Step::Idle
                && s.exited()
                    .is_some_and(|r| worker.restart_policy() == "Never" || r.exit_code == 0)
        })
    })
}

/// Ends what is left of a pod that has done its work: sidecars, then the sandbox.
fn stop_rest(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let grace = worker.grace_seconds();
    let mut alive = false;
    let pod = worker.pod.clone();
    for (container, _) in definitions(&pod) {
        let name = &container.name;
        if worker.slot(name).is_some_and(|s| s.alive() || s.step != Step::Idle) {
            alive = true;
            termination::stop_container(ctx, worker, name, grace, "Stopping container", now);
        }
    }
    if !alive {
        termination::stop_sandbox(ctx, worker);
    }
}

/// Ends containers that a probe or hook condemned.
fn kill_marked(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let pod = worker.pod.clone();
    for (container, _) in definitions(&pod) {
        let name = &container.name;
        let Some(slot) = worker.containers.get_mut(name) else { continue };
        let Some(grace) = slot.kill.filter(|_| slot.running() && slot.step == Step::Idle) else {
            continue;
        };
        slot.kill = None;
        termination::stop_container(ctx, worker, name, grace, "", now);
    }
}

/// Whether anything of the pod is still to be started (again).
fn start_pending(worker: &PodWorker) -> bool {
    if worker.sandbox.running().is_none() || !worker.initialized() {
        return true;
    }
    let sidecars = worker.init_containers().iter().filter(|c| is_sidecar(c));
    worker
        .spec()
        .containers
        .iter()
        .chain(sidecars)
        .any(|c| worker.slot(&c.name).is_some_and(|s| !s.running() || out_of_date(worker, c)))
}

fn out_of_date(worker: &PodWorker, definition: &Container) -> bool {
    let current = worker.slot(&definition.name).and_then(|s| s.current.as_ref());
    current.is_some_and(|r| r.hash != Some(naming::definition_hash(definition)))
}

fn volumes_ready(ctx: &mut Context, worker: &mut PodWorker, now: Time) -> bool {
    if worker.volumes.written.is_some() {
        return true;
    }
    if worker.volumes.writing.is_some() {
        return false;
    }
    if now < worker.volumes.retry_at {
        worker.wake_at(worker.volumes.retry_at);
        return false;
    }
    write_volumes(ctx, worker, now);
    worker.volumes.written.is_some()
}

/// Writes the volumes if their content changed.
fn write_volumes(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    match volume_source::resolve(ctx, worker, now) {
        Ok(volumes) => {
            worker.volumes.failures = 0;
            if worker.volumes.written.as_deref() == Some(&*volumes) {
                return;
            }
            if volumes.is_empty() {
                worker.volumes.written = Some(Box::default());
                return;
            }
            worker.volumes.writing = Some(volumes.clone().into());
            let folder = ctx.config.pod_folder(&worker.uid);
            let fs_group = worker.spec().security_context.as_ref().and_then(|s| s.fs_group);
            let purpose = RuntimePurpose::Volumes { uid: worker.uid.clone() };
            let request = RuntimeRequest::PrepareVolumes { folder, volumes, fs_group };
            ctx.runtime(purpose, request);
        }
        Err(VolumeProblem::Pending) => worker.wake_at(now + SOON),
        Err(VolumeProblem::Unbound { volume, message }) => {
            let text = format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached \
                 volumes=[], failed to process volumes=[{volume}]: {message}"
            );
            mount_failed(ctx, worker, text, now);
        }
        Err(VolumeProblem::Failed { volume, message }) => {
            volume_failed(ctx, worker, &volume, &message, now);
        }
    }
}

/// Tells people that a volume cannot be had, and waits.
pub(crate) fn volume_failed(
    ctx: &mut Context,
    worker: &mut PodWorker,
    volume: &str,
    message: &str,
    now: Time,
) {
    let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {message}");
    mount_failed(ctx, worker, text, now);
}

fn mount_failed(ctx: &mut Context, worker: &mut PodWorker, text: String, now: Time) {
    worker.volumes.failures = worker.volumes.failures.saturating_add(1);
    worker.volumes.retry_at = now + RETRY.delay(worker.volumes.failures);
    worker.wake_at(worker.volumes.retry_at);
    ctx.event(now, &worker.pod, POD_WARNING, "FailedMount", text);
}

/// Keeps files from configmaps, secrets and tokens current.
fn refresh_volumes(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    if !environment::reads_config(&worker.pod)
        || worker.volumes.written.is_none()
        || worker.volumes.writing.is_some()
    {
        return;
    }
    let due = worker.volumes.refresh_at.max(worker.volumes.retry_at);
    if now < due {
        worker.wake_at(due);
        return;
    }
    worker.volumes.refresh_at = now + CONFIG_CHECK;
    write_volumes(ctx, worker, now);
    // What is being read now is compared when it has come.
    worker.wake_at(worker.volumes.refresh_at);
}

fn sandbox_ready(ctx: &mut Context, worker: &mut PodWorker, now: Time) -> bool {
    if worker.sandbox.running().is_some() {
        return true;
    }
    if worker.sandbox.busy {
        return false;
    }
    if worker.sandbox.record.is_some() && !sandbox_changed(ctx, worker, now) {
        return false;
    }
    if now < worker.sandbox.retry_at {
        worker.wake_at(worker.sandbox.retry_at);
        return false;
    }
    if let (false, Err(why)) = (worker.host_network(), &ctx.network) {
        let message = format!("network is not ready: {why}");
        ctx.event(now, &worker.pod, POD_WARNING, "NetworkNotReady", message);
        worker.sandbox.retry_at = now + 2 * SOON;
        worker.wake_at(worker.sandbox.retry_at);
        return false;
    }
    worker.sandbox.busy = true;
    let spec = container_spec::sandbox(ctx, worker, worker.sandbox.next_attempt);
    let purpose = RuntimePurpose::Sandbox { uid: worker.uid.clone() };
    ctx.runtime(purpose, RuntimeRequest::StartSandbox(Box::new(spec)));
    false
}

/// The sandbox died: ends what still runs in it and removes it. Returns whether a new one can be
/// made.
fn sandbox_changed(ctx: &mut Context, worker: &mut PodWorker, now: Time) -> bool {
    let mut alive = false;
    let pod = worker.pod.clone();
    for (container, _) in definitions(&pod) {
        let name = &container.name;
        if worker.slot(name).is_some_and(|s| s.running() || s.step == Step::Stop) {
            alive = true;
            termination::stop_container(ctx, worker, name, 2, "Stopping container", now);
        }
    }
    if alive {
        return false;
    }
    if let Some(old) = worker.sandbox.record.take() {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        ctx.event(now, &worker.pod, POD, "SandboxChanged", message);
        // Its ports on the node must be free for the next one.
        worker.sandbox.busy = true;
        let purpose = RuntimePurpose::StopSandbox { uid: worker.uid.clone() };
        ctx.runtime(purpose, RuntimeRequest::Remove { id: old.id.into() });
        return false;
    }
    true
}

/// Starts what is next: init containers one after another, then all others.
fn containers(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let Some(sandbox) = worker.sandbox.running().map(|s| s.id.clone()) else { return };
    let pod = worker.pod.clone();
    let Some(spec) = &pod.spec else { return };
    let initialized = worker.initialized();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = is_sidecar(container);
        if initialized {
            // Only those that run as long as the pod are started again.
            if sidecar {
                start::ensure(ctx, worker, container, now);
            }
            continue;
        }
        if worker.init_done(container, &sandbox) {
            continue;
        }
        start::ensure(ctx, worker, container, now);
        return;
    }
    for container in &spec.containers {
        if out_of_date(worker, container)
            && worker.slot(&container.name).is_some_and(|s| s.running() && s.step == Step::Idle)
        {
            let message =
                format!("Container {} definition changed, will be restarted", container.name);
            let grace = worker.grace_seconds();
            termination::stop_container(ctx, worker, &container.name, grace, &message, now);
            continue;
        }
        start::ensure(ctx, worker, container, now);
    }
}
