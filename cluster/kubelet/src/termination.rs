//! Ending: hooks, signals, the last status, and what is removed afterwards.

use std::time::Duration;

use api::{Key, Kind, Request, Time};
use machine::Backoff;

use crate::context::{ApiPurpose, Context, RuntimePurpose, normal, warning};
use crate::pod_worker::{PodWorker, Stage, Step, Termination, definitions, is_sidecar};
use crate::probe::{self, ProbeKind};
use crate::runtime::RuntimeRequest;

/// Between attempts to make the API forget a pod.
const FORGET: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };
/// A container gets this long after its hook even when the hook took all the time.
const GRACE_SECONDS_MIN: u32 = 2;

/// Begins to end a pod, or shortens its time.
pub(crate) fn begin(worker: &mut PodWorker, now: Time) {
    let grace_seconds = worker.grace_seconds();
    let deadline = now + Duration::from_secs(u64::from(grace_seconds));
    match &mut worker.stage {
        Stage::Terminating(t) => {
            if deadline < t.deadline {
                t.deadline = deadline;
                t.grace_seconds = grace_seconds;
            }
        }
        Stage::Stopped(_) => {}
        Stage::Active | Stage::Rejected(_) => {
            worker.stage = Stage::Terminating(Box::new(Termination {
                deadline,
                grace_seconds,
                failure: None,
                cleaned: false,
                deleted: false,
            }));
        }
    }
}

/// Ends what runs; when nothing does, the pod is stopped.
pub(crate) fn terminate(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let Stage::Terminating(t) = worker.stage.clone() else { return };
    if ctx.runtime.is_err() || !ctx.listed {
        return;
    }
    let left = t.deadline.since(now).as_secs();
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(u32::from(t.grace_seconds > 0) * 2);
    let grace = left.min(t.grace_seconds.max(GRACE_SECONDS_MIN));
    let pod = worker.pod.clone();
    // Sidecars serve the others to the end.
    for sidecars in [false, true] {
        let mut alive = false;
        for (container, init) in definitions(&pod) {
            if (init && is_sidecar(container)) == sidecars {
                alive |= end(ctx, worker, &container.name, grace, now);
            }
        }
        if alive {
            return;
        }
    }
    if worker.sandbox.busy || worker.volumes.writing.is_some() {
        return;
    }
    if worker.sandbox.running().is_some() {
        stop_sandbox(ctx, worker);
        return;
    }
    worker.stage = Stage::Stopped(t);
}

/// Ends one container. Returns whether it still runs, or may.
fn end(ctx: &mut Context, worker: &mut PodWorker, name: &str, grace: u32, now: Time) -> bool {
    let Some(slot) = worker.containers.get_mut(name) else { return false };
    slot.waiting = slot.waiting.take().filter(|_| slot.current.is_none());
    match slot.step {
        Step::Idle if !slot.running() => return false,
        Step::Idle | Step::PostStart => {
            slot.step = Step::Idle;
            stop_container(ctx, worker, name, grace, "Stopping container", now);
        }
        // The grace was shortened while it is being stopped.
        Step::Stop => {
            let deadline = now + Duration::from_secs(u64::from(grace) + 1);
            if deadline < slot.stop_deadline {
                slot.stop_deadline = deadline;
                if let Some(id) = slot.current.as_ref().map(|r| r.id.to_string()) {
                    let request = RuntimeRequest::Stop { id, grace_seconds: grace };
                    ctx.runtime(RuntimePurpose::Nothing, request);
                }
            }
        }
        // An image that is still being fetched holds nobody up: it will not be needed here.
        // Source: kubernetes 1.33, `pkg/kubelet/pod_workers.go`, which cancels the sync of a pod
        // that begins to end.
        Step::InspectImage | Step::PullImage => {
            slot.step = Step::Idle;
            return false;
        }
        Step::Start | Step::PreStop => {}
    }
    true
}

/// Ends a running container: hook, TERM, KILL. `why` is the event's message without the name;
/// empty when it was told before.
pub(crate) fn stop_container(
    ctx: &mut Context,
    worker: &mut PodWorker,
    name: &str,
    grace_seconds: u32,
    why: &str,
    now: Time,
) {
    let pod = worker.pod.clone();
    let uid = worker.uid.clone();
    let Some(hook) = worker.definition(name).map(|(c, _)| {
        let handler = c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        handler.map(|h| probe::hook(c, h, worker.ip(&ctx.config.node_ip)))
    }) else {
        return;
    };
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if slot.step != Step::Idle || !slot.running() {
        return;
    }
    if now < slot.retry_at {
        // The last attempt failed.
        let at = slot.retry_at;
        worker.wake_at(at);
        return;
    }
    let Some(id) = slot.current.as_ref().map(|r| r.id.to_string()) else { return };
    if why == "Stopping container" {
        ctx.event(now, &pod, normal(name), "Killing", format!("Stopping container {name}"));
    } else if !why.is_empty() {
        ctx.event(now, &pod, normal(name), "Killing", why);
    }
    slot.stop_deadline = now + Duration::from_secs(u64::from(grace_seconds));
    match hook.filter(|_| grace_seconds > 0) {
        Some(Ok(action)) => {
            slot.step = Step::PreStop;
            let purpose = RuntimePurpose::Probe {
                uid,
                container: name.to_owned(),
                id: id.clone(),
                kind: ProbeKind::PreStop,
            };
            let request =
                RuntimeRequest::Probe { container_id: id, action, timeout_seconds: grace_seconds };
            ctx.runtime(purpose, request);
        }
        Some(Err(error)) => {
            let message = format!("PreStopHook failed: {error}");
            ctx.event(now, &pod, warning(name), "FailedPreStopHook", message);
            send_stop(ctx, worker, name, grace_seconds);
        }
        None => send_stop(ctx, worker, name, grace_seconds),
    }
}

fn send_stop(ctx: &mut Context, worker: &mut PodWorker, name: &str, grace_seconds: u32) {
    let uid = worker.uid.clone();
    let Some(slot) = worker.containers.get_mut(name) else { return };
    slot.step = Step::Stop;
    let Some(id) = slot.current.as_ref().map(|r| r.id.to_string()) else { return };
    let purpose = RuntimePurpose::Container { uid, container: name.to_owned() };
    ctx.runtime(purpose, RuntimeRequest::Stop { id, grace_seconds });
}

/// The hook before the end is over: now the signals.
pub(crate) fn pre_stopped(
    ctx: &mut Context,
    worker: &mut PodWorker,
    name: &str,
    failure: Option<String>,
    now: Time,
) {
    if let Some(failure) = failure {
        let message = format!("PreStopHook failed: {failure}");
        ctx.event(now, &worker.pod, warning(name), "FailedPreStopHook", message);
    }
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if slot.step != Step::PreStop {
        return;
    }
    if !slot.running() {
        slot.step = Step::Idle;
        return;
    }
    let left = slot.stop_deadline.since(now).as_secs();
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(GRACE_SECONDS_MIN);
    send_stop(ctx, worker, name, left);
}

/// Ends the pause container.
pub(crate) fn stop_sandbox(ctx: &mut Context, worker: &mut PodWorker) {
    if worker.sandbox.busy {
        return;
    }
    if let Some(id) = worker.sandbox.running().map(|s| s.id.to_string()) {
        worker.sandbox.busy = true;
        let purpose = RuntimePurpose::StopSandbox { uid: worker.uid.clone() };
        ctx.runtime(purpose, RuntimeRequest::Stop { id, grace_seconds: 0 });
    }
}

/// Of a pod that is stopped: waits until the API has its last status, then removes what is left
/// on the node and makes the API forget it.
pub(crate) fn forget(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let Stage::Stopped(t) = &worker.stage else { return };
    let (cleaned, deleted) = (t.cleaned, t.deleted);
    let api_pod = ctx.api_pod(worker);
    let known = api_pod.is_some();
    let wanted = worker.is_static
        || !known
        || api_pod.is_some_and(|p| p.metadata.deletion_timestamp.is_some());
    if !wanted || (known && !worker.is_static && !worker.status.settled) {
        return;
    }
    if !cleaned {
        clean(ctx, worker);
        if let Stage::Stopped(t) = &mut worker.stage {
            t.cleaned = true;
        }
    }
    if worker.is_static || !known || deleted {
        return;
    }
    if now < worker.status.retry_at {
        worker.wake_at(worker.status.retry_at);
        return;
    }
    if let Stage::Stopped(t) = &mut worker.stage {
        t.deleted = true;
    }
    let request = Request::Delete {
        key: Key::new(Kind::Pod, worker.namespace(), worker.name()),
        uid: worker.pod.metadata.uid.clone(),
        revision: None,
        grace_seconds: Some(0),
        propagation: None,
    };
    ctx.api(ApiPurpose::DeletePod { uid: worker.uid.clone() }, request);
}

/// The API did not forget the pod: tries again.
pub(crate) fn forget_failed(worker: &mut PodWorker, now: Time) {
    worker.status.failures = worker.status.failures.saturating_add(1);
    worker.status.retry_at = now + FORGET.delay(worker.status.failures);
    worker.wake_at(worker.status.retry_at);
    if let Stage::Stopped(t) = &mut worker.stage {
        t.deleted = false;
    }
}

/// Removes what is left of a pod on the node.
fn clean(ctx: &mut Context, worker: &mut PodWorker) {
    let slots = worker.containers.values();
    // One that runs was started by a kubelet that died over it, beside the one that was ended.
    let mut containers: Vec<String> = slots
        .flat_map(|s| s.current.iter().chain(&s.previous))
        .filter(|r| !r.id.is_empty())
        .map(|r| r.id.to_string())
        .collect();
    containers.extend(worker.sandbox.record.as_ref().map(|r| r.id.to_string()));
    let request = RuntimeRequest::RemovePod { containers, uid: worker.uid.to_string() };
    ctx.runtime(RuntimePurpose::Nothing, request);
}
