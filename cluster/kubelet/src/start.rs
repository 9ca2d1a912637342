//! Starting a container: image, configuration, creation, hook; and starting it again.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/kuberuntime`, `pkg/kubelet/images/image_manager.go`.

use std::sync::Arc;
use std::time::Duration;

use api::Time;
use k8s_openapi::api::core::v1::Container;
use machine::Backoff;

use crate::container_spec;
use crate::context::{Context, RuntimePurpose, normal, warning};
use crate::environment::EnvProblem;
use crate::instance::Instance;
use crate::naming;
use crate::pod_worker::{PodWorker, Step, is_sidecar};
use crate::probe::{self, ProbeKind, ProbeSet};
use crate::runtime::{
    ContainerRecord, ContainerState, ImageRecord, ProbeOutcome, RuntimeError, RuntimeErrorKind,
    RuntimeRequest,
};

/// Between attempts to get an image.
const PULL: Backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(300) };
/// Between attempts to resolve a container's configuration.
const CONFIG_RETRY: Duration = Duration::from_secs(2);
/// While something is being read.
const SOON: Duration = Duration::from_millis(500);
/// A hook may take this long when the pod has no shorter grace.
const HOOK_SECONDS_MAX: u32 = 600;

/// Starts a container unless it runs, is being started, has done its work or must wait.
pub(crate) fn ensure(ctx: &mut Context, worker: &mut PodWorker, container: &Container, now: Time) {
    let Some(slot) = worker.slot(&container.name) else { return };
    if slot.step != Step::Idle || slot.running() {
        return;
    }
    let pod = worker.pod.clone();
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let policy = if is_sidecar(container) { "Always" } else { policy };
    let init = worker.init_containers().iter().any(|c| c.name == container.name);
    let sandbox = worker.sandbox.running().map(|s| s.id.clone()).unwrap_or_default();
    let full_name = if slot.exited().is_some() { worker.full_name() } else { String::new() };
    let Some(slot) = worker.containers.get_mut(&container.name) else { return };
    if let Some(record) = slot.exited().filter(|r| r.sandbox_id == sandbox || !init) {
        let again = match policy {
            "Always" => !init || is_sidecar(container) || record.exit_code != 0,
            "OnFailure" => record.exit_code != 0,
            _ => false,
        };
        if !again {
            return;
        }
        let finished = record.finished_at;
        let (until, delay) = slot.crash.until(finished);
        if now < until {
            let name = &container.name;
            let told = slot.waiting.as_ref().is_some_and(|w| w.0 == "CrashLoopBackOff");
            let message = format!(
                "back-off {} restarting failed container={name} pod={full_name}",
                go_duration(delay)
            );
            slot.waiting = Some(Box::new(("CrashLoopBackOff".to_owned(), message)));
            worker.wake_at(until);
            if !told {
                let message =
                    format!("Back-off restarting failed container {name} in pod {full_name}");
                ctx.event(now, &worker.pod, warning(name), "BackOff", message);
            }
            return;
        }
    }
    if now < slot.retry_at {
        let at = slot.retry_at;
        worker.wake_at(at);
        return;
    }
    let made = slot.current.take_if(|r| r.state == ContainerState::Created && !r.id.is_empty());
    if let Some(made) = made {
        // A kubelet died while it was being started, which may go on: two of it must not run.
        ctx.runtime(RuntimePurpose::Nothing, RuntimeRequest::Remove { id: made.id.into() });
    }
    let image = container.image.as_deref().unwrap_or_default();
    let known = ctx.images.get(image).cloned();
    match known.filter(|_| pull_policy(container) != "Always") {
        // What it would be asked is what the start will say.
        Some(known) if !container_spec::minds_user(worker, container) => {
            create(ctx, worker, container, &known, true, now);
        }
        _ => look_for_image(ctx, worker, container),
    }
}

fn look_for_image(ctx: &mut Context, worker: &mut PodWorker, container: &Container) {
    if let Some(slot) = worker.containers.get_mut(&container.name) {
        slot.step = Step::InspectImage;
    }
    let image = container.image.clone().unwrap_or_default();
    call(ctx, worker, container, RuntimeRequest::InspectImage { image });
}

fn go_duration(secs: u64) -> String {
    match (secs / 60, secs % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn call(ctx: &mut Context, worker: &PodWorker, container: &Container, request: RuntimeRequest) {
    let purpose =
        RuntimePurpose::Container { uid: worker.uid.clone(), container: container.name.clone() };
    ctx.runtime(purpose, request);
}

fn pull_policy(container: &Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy) => policy,
        None => {
            let image = container.image.as_deref().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            if name.ends_with(":latest") || !name.contains([':', '@']) {
                "Always"
            } else {
                "IfNotPresent"
            }
        }
    }
}

/// The image was looked for on the node.
pub(crate) fn image_inspected(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    result: Result<Option<ImageRecord>, RuntimeError>,
    now: Time,
) {
    let image = container.image.clone().unwrap_or_default();
    let found = match result {
        Ok(found) => found,
        Err(error) => {
            let message = format!("Failed to inspect image \"{image}\": {error}");
            return wait(ctx, worker, container, ("ImageInspectError", message), now);
        }
    };
    match (found, pull_policy(container)) {
        (Some(found), "IfNotPresent" | "Never") => {
            let found = Arc::new(found);
            ctx.images.found(&image, &found);
            tell_present(ctx, worker, container, now);
            create(ctx, worker, container, &found, false, now);
        }
        (None, "Never") => {
            let message =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            ctx.event(
                now,
                &worker.pod,
                warning(&container.name),
                "ErrImageNeverPull",
                message.clone(),
            );
            wait(ctx, worker, container, ("ErrImageNeverPull", message), now);
        }
        _ => pull(ctx, worker, container, image, now),
    }
}

fn tell_present(ctx: &mut Context, worker: &PodWorker, container: &Container, now: Time) {
    let image = container.image.as_deref().unwrap_or_default();
    let message = ["Container image \"", image, "\" already present on machine"].concat();
    ctx.event(now, &worker.pod, normal(&container.name), "Pulled", message);
}

fn pull(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    image: String,
    now: Time,
) {
    let message = format!("Pulling image \"{image}\"");
    ctx.event(now, &worker.pod, normal(&container.name), "Pulling", message);
    if let Some(slot) = worker.containers.get_mut(&container.name) {
        slot.step = Step::PullImage;
    }
    call(ctx, worker, container, RuntimeRequest::PullImage { image });
}

/// The image was fetched, or not.
pub(crate) fn image_pulled(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    result: Result<Option<ImageRecord>, RuntimeError>,
    now: Time,
) {
    let image = container.image.clone().unwrap_or_default();
    match result {
        Ok(Some(found)) => {
            let size = found.size_bytes;
            let message =
                format!("Successfully pulled image \"{image}\". Image size: {size} bytes.");
            ctx.event(now, &worker.pod, normal(&container.name), "Pulled", message);
            let found = Arc::new(found);
            ctx.images.found(&image, &found);
            create(ctx, worker, container, &found, false, now);
        }
        Ok(None) => pull_failed(ctx, worker, container, "image not found".to_owned(), now),
        Err(error) => pull_failed(ctx, worker, container, error.message, now),
    }
}

fn pull_failed(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    error: String,
    now: Time,
) {
    let image = container.image.as_deref().unwrap_or_default();
    let about = warning(&container.name);
    let message = format!("Failed to pull image \"{image}\": {error}");
    ctx.event(now, &worker.pod, about, "Failed", message);
    ctx.event(now, &worker.pod, about, "Failed", "Error: ErrImagePull");
    let message = format!("Back-off pulling image \"{image}\"");
    ctx.event(now, &worker.pod, normal(&container.name), "BackOff", message);
    let Some(slot) = worker.containers.get_mut(&container.name) else { return };
    slot.pull_failures = slot.pull_failures.saturating_add(1);
    let first = slot.pull_failures == 1;
    slot.retry_at = now + PULL.delay(slot.pull_failures);
    slot.step = Step::Idle;
    let at = slot.retry_at;
    slot.waiting = Some(Box::new(if first {
        ("ErrImagePull".to_owned(), error)
    } else {
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {error}");
        ("ImagePullBackOff".to_owned(), message)
    }));
    worker.wake_at(at);
}

/// Notes why a container does not run and tries again later.
fn wait(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    why: (&str, String),
    now: Time,
) {
    let event = if why.0 == "CreateContainerConfigError" || why.0 == "CreateContainerError" {
        format!("Error: {}", why.1)
    } else {
        format!("Error: {}", why.0)
    };
    ctx.event(now, &worker.pod, warning(&container.name), "Failed", event);
    let Some(slot) = worker.containers.get_mut(&container.name) else { return };
    slot.waiting = Some(Box::new((why.0.to_owned(), why.1)));
    slot.step = Step::Idle;
    slot.retry_at = now + CONFIG_RETRY;
    worker.wake_at(now + CONFIG_RETRY);
}

/// Starts a container of that image; `trusting` that the node still has it.
fn create(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    image: &Arc<ImageRecord>,
    trusting: bool,
    now: Time,
) {
    let Some(slot) = worker.containers.get_mut(&container.name) else { return };
    slot.pull_failures = 0;
    slot.step = Step::Idle;
    let attempt = slot.next_attempt;
    match container_spec::container(ctx, worker, container, image, attempt, now) {
        Ok(spec) => {
            let Some(slot) = worker.containers.get_mut(&container.name) else { return };
            if let Some(finished) = slot.exited().map(|r| r.finished_at) {
                slot.crash.next(now, finished);
            }
            slot.step = Step::Start;
            slot.image = Some(image.clone());
            slot.trusting = trusting;
            slot.next_attempt = slot.next_attempt.saturating_add(1);
            call(ctx, worker, container, RuntimeRequest::StartContainer(Box::new(spec)));
        }
        Err(EnvProblem::Pending) => {
            if let Some(slot) = worker.containers.get_mut(&container.name) {
                slot.retry_at = now + SOON;
            }
            worker.wake_at(now + SOON);
        }
        Err(EnvProblem::Failed(message)) => {
            wait(ctx, worker, container, ("CreateContainerConfigError", message), now);
        }
    }
}

/// The container was started, or not.
pub(crate) fn started(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    result: Result<Option<ContainerRecord>, RuntimeError>,
    now: Time,
) {
    let name = container.name.as_str();
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if std::mem::take(&mut slot.trusting) {
        if result.as_ref().is_err_and(|error| error.kind == RuntimeErrorKind::Create) {
            // Perhaps for want of the image. Nothing was made, so that its name is free.
            slot.next_attempt = slot.next_attempt.saturating_sub(1);
            ctx.images.forget(container.image.as_deref().unwrap_or_default());
            return look_for_image(ctx, worker, container);
        }
        tell_present(ctx, worker, container, now);
    }
    let record = match result {
        Ok(Some(record)) => record,
        Ok(None) => {
            let message = "the container is gone".to_owned();
            return wait(ctx, worker, container, ("CreateContainerError", message), now);
        }
        Err(error) if error.kind == RuntimeErrorKind::Start => {
            return start_failed(ctx, worker, container, &error, now);
        }
        Err(error) => {
            return wait(ctx, worker, container, ("CreateContainerError", error.message), now);
        }
    };
    ctx.event(now, &worker.pod, normal(name), "Created", ["Created container: ", name].concat());
    ctx.event(now, &worker.pod, normal(name), "Started", ["Started container ", name].concat());
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    let grace = worker.grace_seconds().min(HOOK_SECONDS_MAX);
    let Some(slot) = worker.containers.get_mut(name) else { return };
    slot.step = Step::Idle;
    slot.waiting = None;
    slot.kill = None;
    slot.probes = ProbeSet::new(container, &record.id, record.started_at, None);
    let running = record.state == ContainerState::Running;
    slot.image = None;
    let id = record.id.clone();
    rotate(ctx, worker, name, Instance::new(&record));
    let hook =
        hook.filter(|_| running).map(|h| probe::hook(container, h, worker.ip(&ctx.config.node_ip)));
    let Some(slot) = worker.containers.get_mut(name) else { return };
    match hook {
        Some(Ok(action)) => {
            slot.step = Step::PostStart;
            let purpose = RuntimePurpose::Probe {
                uid: worker.uid.clone(),
                container: name.to_owned(),
                id: id.clone(),
                kind: ProbeKind::PostStart,
            };
            let timeout_seconds = grace.max(30);
            let request = RuntimeRequest::Probe { container_id: id, action, timeout_seconds };
            ctx.runtime(purpose, request);
        }
        Some(Err(error)) => hook_failed(ctx, worker, container, &error, now),
        None => {}
    }
}

/// Makes `record` the present instance; keeps one older for its log and removes the rest.
fn rotate(ctx: &mut Context, worker: &mut PodWorker, name: &str, record: Box<Instance>) {
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if slot.current.as_ref().is_some_and(|r| r.id == record.id) {
        slot.current = Some(record);
        return;
    }
    let older = std::mem::replace(&mut slot.previous, slot.current.replace(record));
    if let Some(older) = older.filter(|r| !r.id.is_empty()) {
        ctx.runtime(RuntimePurpose::Nothing, RuntimeRequest::Remove { id: older.id.into() });
    }
}

fn start_failed(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    error: &RuntimeError,
    now: Time,
) {
    let name = container.name.as_str();
    ctx.event(now, &worker.pod, normal(name), "Created", ["Created container: ", name].concat());
    let error = format!("failed to start container \"{name}\": {error}");
    ctx.event(now, &worker.pod, warning(name), "Failed", format!("Error: {error}"));
    let sandbox = worker.sandbox.running().map(|s| s.id.clone()).unwrap_or_default();
    let Some(slot) = worker.containers.get_mut(name) else { return };
    slot.step = Step::Idle;
    slot.waiting = Some(Box::new(("RunContainerError".to_owned(), error.clone())));
    let image_id = slot.image.take().map(|i| format!("docker://{}", i.id));
    // The shell removed what could not be started: only this trace of it remains.
    let trace = Instance {
        id: Box::default(),
        sandbox_id: sandbox,
        attempt: slot.next_attempt.saturating_sub(1),
        hash: Some(naming::definition_hash(container)),
        image: container.image.as_deref().unwrap_or_default().into(),
        image_id: image_id.unwrap_or_default().into(),
        state: ContainerState::Exited,
        created_at: now,
        started_at: Time::ZERO,
        finished_at: now,
        exit_code: 128,
        oom_killed: false,
        message: error.into(),
        ip: Box::default(),
    };
    rotate(ctx, worker, name, Box::new(trace));
}

/// The hook after the start ended.
pub(crate) fn post_started(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    result: Result<ProbeOutcome, RuntimeError>,
    now: Time,
) {
    if let Some(slot) = worker.containers.get_mut(&container.name) {
        slot.step = Step::Idle;
    }
    match result {
        Ok(outcome) if outcome.success => {}
        Ok(outcome) => hook_failed(ctx, worker, container, &outcome.output, now),
        Err(error) => hook_failed(ctx, worker, container, &error.message, now),
    }
}

fn hook_failed(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    error: &str,
    now: Time,
) {
    let about = warning(&container.name);
    let message = format!("PostStartHook failed: {error}");
    ctx.event(now, &worker.pod, about, "FailedPostStartHook", message);
    let grace = worker.grace_seconds();
    if let Some(slot) = worker.containers.get_mut(&container.name) {
        slot.kill = Some(grace);
    }
    ctx.event(now, &worker.pod, normal(&container.name), "Killing", "FailedPostStartHook");
}
