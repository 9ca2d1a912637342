//! Runs the probes of a pod's containers and acts on what they say.

use api::Time;
use k8s_openapi::api::core::v1::Container;

use crate::context::{Context, RuntimePurpose, normal, warning};
use crate::pod_worker::{PodWorker, Step, definitions};
use crate::probe::{self, ProbeKind, ProbeSet, Verdict};
use crate::runtime::{ProbeOutcome, RuntimeError, RuntimeRequest};

/// Starts the probes that are due.
pub(crate) fn run(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    if worker.ip(&ctx.config.node_ip).is_empty() {
        return;
    }
    let pod = worker.pod.clone();
    for (container, _) in definitions(&pod) {
        run_container(ctx, worker, container, now);
    }
}

fn run_container(ctx: &mut Context, worker: &mut PodWorker, container: &Container, now: Time) {
    let name = container.name.as_str();
    let Some(slot) = worker.slot(name) else { return };
    let Some(current) = slot.current.as_ref() else { return };
    if !slot.running() || matches!(slot.step, Step::Stop | Step::PreStop) {
        return;
    }
    let fresh = (*slot.probes.container_id != *current.id)
        .then(|| ProbeSet::new(container, &current.id, current.started_at, known(worker, name)));
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if let Some(fresh) = fresh {
        slot.probes = fresh;
    }
    let due = slot.probes.due(now);
    for kind in due {
        start(ctx, worker, container, kind, now);
    }
    if let Some(at) = worker.slot(name).and_then(|s| s.probes.wake_at()) {
        worker.wake_at(at);
    }
}

fn start(
    ctx: &mut Context,
    worker: &mut PodWorker,
    container: &Container,
    kind: ProbeKind,
    now: Time,
) {
    let Some(definition) = probe::definition(container, kind) else { return };
    let name = container.name.as_str();
    match probe::action(container, definition, worker.ip(&ctx.config.node_ip)) {
        Ok(action) => {
            let current = worker.slot(name).and_then(|s| s.current.as_ref());
            let Some(id) = current.map(|r| r.id.to_string()) else { return };
            let purpose = RuntimePurpose::Probe {
                uid: worker.uid.clone(),
                container: name.to_owned(),
                id: id.clone(),
                kind,
            };
            let timeout_seconds = probe::timeout_seconds(definition);
            let request = RuntimeRequest::Probe { container_id: id, action, timeout_seconds };
            ctx.runtime(purpose, request);
        }
        Err(error) => {
            if let Some(slot) = worker.containers.get_mut(name) {
                slot.probes.forget_try(kind);
            }
            let message = format!("{} probe errored: {error}", kind.name());
            ctx.event(now, &worker.pod, warning(name), "Unhealthy", message);
        }
    }
}

/// What the API knew of a container that ran before this kubelet did.
fn known(worker: &PodWorker, name: &str) -> Option<(bool, bool)> {
    let id = worker.slot(name)?.current.as_ref().map(|r| format!("docker://{}", r.id));
    let status = worker.pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten();
    let status = all
        .chain(status.init_container_statuses.iter().flatten())
        .find(|c| c.name == name && c.container_id == id)?;
    Some((status.started == Some(true), status.ready))
}

/// Takes a probe's result.
pub(crate) fn answer(
    ctx: &mut Context,
    worker: &mut PodWorker,
    name: &str,
    id: &str,
    kind: ProbeKind,
    result: Result<ProbeOutcome, RuntimeError>,
    now: Time,
) {
    let pod = worker.pod.clone();
    let default_grace = worker.grace_seconds();
    let own_grace = worker
        .definition(name)
        .and_then(|(c, _)| probe::definition(c, kind))
        .and_then(|p| p.termination_grace_period_seconds)
        .and_then(|s| u32::try_from(s).ok());
    let Some(slot) = worker.containers.get_mut(name) else { return };
    if slot.probes.container_id != id {
        return;
    }
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            slot.probes.forget_try(kind);
            let message = format!("{} probe errored: {error}", kind.name());
            ctx.event(now, &pod, warning(name), "Unhealthy", message);
            return;
        }
    };
    if !slot.running() {
        return;
    }
    if !outcome.success {
        let message = format!("{} probe failed: {}", kind.name(), outcome.output);
        ctx.event(now, &pod, warning(name), "Unhealthy", message);
    }
    if slot.probes.observe(kind, outcome.success) == Verdict::Kill {
        let what = kind.name().to_lowercase();
        let message = format!("Container {name} failed {what} probe, will be restarted");
        ctx.event(now, &pod, normal(name), "Killing", message);
        slot.kill = Some(own_grace.unwrap_or(default_grace));
    }
}
