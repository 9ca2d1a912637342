//! The runtime's answers, and what they change in a pod.

use std::time::Duration;

use api::Time;

use crate::context::{Context, RuntimePurpose};
use crate::pod_worker::{PodWorker, Stage, Step, definitions};
use crate::probe::ProbeKind;
use crate::probing;
use crate::runtime::{ProbeOutcome, RuntimeError, RuntimeErrorKind, RuntimeReply, RuntimeRequest};
use crate::start;
use crate::sync::volume_failed;
use crate::termination;

/// How soon a stop that failed is repeated.
const STOP_RETRY: Duration = Duration::from_secs(2);

/// Asks for a container's present state.
pub(crate) fn inspect(ctx: &mut Context, worker: &mut PodWorker, name: &str) {
    let uid = worker.uid.clone();
    let Some(slot) = worker.containers.get_mut(name) else { return };
    let Some(id) = slot.current.as_ref().map(|r| r.id.to_string()).filter(|i| !i.is_empty()) else {
        return;
    };
    if slot.inspecting {
        slot.recheck = true;
        return;
    }
    slot.inspecting = true;
    let purpose = RuntimePurpose::InspectContainer { uid, container: name.to_owned() };
    ctx.runtime(purpose, RuntimeRequest::Inspect { id });
}

pub(crate) fn inspected(
    ctx: &mut Context,
    worker: &mut PodWorker,
    name: &str,
    result: Result<RuntimeReply, RuntimeError>,
) {
    let Some(slot) = worker.containers.get_mut(name) else { return };
    slot.inspecting = false;
    match result {
        Ok(RuntimeReply::Container(Some(record))) => {
            if let Some(current) = slot.current.as_mut().filter(|r| *r.id == *record.id) {
                current.renew(&record);
            }
        }
        Ok(RuntimeReply::Container(None)) => {
            if let Some(current) = &mut slot.current {
                current.lose();
            }
        }
        Ok(_) | Err(_) => {}
    }
    if std::mem::take(&mut slot.recheck) {
        inspect(ctx, worker, name);
    }
}

/// A step in the life of a container was answered.
pub(crate) fn container_reply(
    ctx: &mut Context,
    worker: &mut PodWorker,
    name: &str,
    result: Result<RuntimeReply, RuntimeError>,
    now: Time,
) {
    let pod = worker.pod.clone();
    let Some((container, _)) = definitions(&pod).find(|(c, _)| c.name == name) else { return };
    let Some(step) = worker.slot(name).map(|s| s.step) else { return };
    // A pod that is being ended starts nothing more.
    let going = worker.stage == Stage::Active;
    let unexpected = || RuntimeError {
        kind: RuntimeErrorKind::Other,
        message: "an answer to another question".to_owned(),
    };
    match step {
        Step::InspectImage | Step::PullImage if !going => {
            if let Some(slot) = worker.containers.get_mut(name) {
                slot.step = Step::Idle;
            }
        }
        Step::InspectImage | Step::PullImage => {
            let image = result.and_then(|reply| match reply {
                RuntimeReply::Image(image) => Ok(image),
                _ => Err(unexpected()),
            });
            if step == Step::PullImage {
                start::image_pulled(ctx, worker, container, image, now);
            } else {
                start::image_inspected(ctx, worker, container, image, now);
            }
        }
        Step::Start => {
            let record = result.and_then(|reply| match reply {
                RuntimeReply::Container(record) => Ok(record.map(|r| *r)),
                _ => Err(unexpected()),
            });
            start::started(ctx, worker, container, record, now);
            let recheck =
                worker.containers.get_mut(name).is_some_and(|s| std::mem::take(&mut s.recheck));
            if recheck {
                inspect(ctx, worker, name);
            }
        }
        Step::Stop => {
            if let Some(slot) = worker.containers.get_mut(name) {
                slot.step = Step::Idle;
                if result.is_err() {
                    slot.retry_at = now + STOP_RETRY;
                }
                if let Ok(RuntimeReply::Container(Some(record))) = result
                    && let Some(current) = slot.current.as_mut().filter(|r| *r.id == *record.id)
                {
                    current.renew(&record);
                } else {
                    inspect(ctx, worker, name);
                }
            }
        }
        Step::Idle | Step::PostStart | Step::PreStop => {}
    }
}

pub(crate) fn probe_reply(
    ctx: &mut Context,
    worker: &mut PodWorker,
    (name, id, kind): (&str, &str, ProbeKind),
    result: Result<RuntimeReply, RuntimeError>,
    now: Time,
) {
    let outcome: Result<ProbeOutcome, RuntimeError> = result.and_then(|reply| match reply {
        RuntimeReply::Probe(outcome) => Ok(outcome),
        _ => Err(RuntimeError {
            kind: RuntimeErrorKind::Other,
            message: "an answer to another question".to_owned(),
        }),
    });
    match kind {
        ProbeKind::PostStart => {
            let pod = worker.pod.clone();
            let container = definitions(&pod).find(|(c, _)| c.name == name);
            let Some((container, _)) = container else { return };
            if worker.slot(name).is_some_and(|s| s.step == Step::PostStart) {
                start::post_started(ctx, worker, container, outcome, now);
            }
        }
        ProbeKind::PreStop => {
            let failure = match outcome {
                Ok(outcome) if outcome.success => None,
                Ok(outcome) => Some(outcome.output),
                Err(error) => Some(error.message),
            };
            termination::pre_stopped(ctx, worker, name, failure, now);
        }
        _ => probing::answer(ctx, worker, name, id, kind, outcome, now),
    }
}

pub(crate) fn volumes_written(
    ctx: &mut Context,
    worker: &mut PodWorker,
    result: Result<RuntimeReply, RuntimeError>,
    now: Time,
) {
    let volumes = worker.volumes.writing.take();
    match result {
        Ok(_) => {
            worker.volumes.written = volumes;
            worker.volumes.failures = 0;
            worker.volumes.refresh_at = now + Duration::from_secs(60);
        }
        Err(error) => {
            // The shell's message starts with the volume's name.
            let (volume, message) =
                error.message.split_once(": ").unwrap_or(("", error.message.as_str()));
            let (volume, message) = (volume.to_owned(), message.to_owned());
            volume_failed(ctx, worker, &volume, &message, now);
        }
    }
}
