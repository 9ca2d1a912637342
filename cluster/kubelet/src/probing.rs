//! Runs the probes of a pod's containers and acts on what they say.

use api::Time;

use crate::context::{Context, RuntimePurpose, normal, warning};
use crate::pod_worker::{PodWorker, Step};
use crate::probe::{self, ProbeKind, ProbeSet, Verdict};
use crate::runtime::{ProbeOutcome, RuntimeError, RuntimeRequest};

/// Starts the probes that are due.
pub(crate) fn run(ctx: &mut Context, worker: &mut PodWorker, now: Time) {
    let ip = worker.ip(&ctx.config.node_ip).to_owned();
    if ip.is_empty() {
        return;
    }
    for name in worker.container_names() {
        let Some(container) = worker.definition(&name).map(|(c, _)| c.clone()) else { continue };
        let known = known(worker, &name);
        let Some(slot) = worker.containers.get_mut(&name) else { continue };
        let Some((id, started)) = slot.current.as_ref().map(|r| (r.id.clone(), r.started_at))
        else {
            continue;
        };
        if !slot.running() || matches!(slot.step, Step::Stop | Step::PreStop) {
            continue;
        }
        if slot.probes.container_id != id {
            slot.probes = ProbeSet::new(&container, &id, started, known);
        }
        for kind in slot.probes.due(now) {
            let Some(definition) = probe::definition(&container, kind) else { continue };
            match probe::action(&container, definition, &ip) {
                Ok(action) => {
                    let purpose = RuntimePurpose::Probe {
                        uid: worker.uid.clone(),
                        container: name.clone(),
                        id: id.clone(),
                        kind,
                    };
                    let timeout_seconds = probe::timeout_seconds(definition);
                    ctx.runtime(
                        purpose,
                        RuntimeRequest::Probe { container_id: id.clone(), action, timeout_seconds },
                    );
                }
                Err(error) => {
                    slot.probes.forget_try(kind);
                    let message = format!("{} probe errored: {error}", kind.name());
                    ctx.event(now, &worker.pod, warning(&name), "Unhealthy", message);
                }
            }
        }
        if let Some(at) = slot.probes.wake_at() {
            worker.wake_at(at);
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
