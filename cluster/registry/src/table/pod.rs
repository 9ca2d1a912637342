//! Cells of pods: above all the status, which sums up all containers in one word.

use api::{Pod, Time, meta};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodStatus};
use serde_json::{Value, json};

use super::name;
use super::text::{NONE, age, or, since};

/// What the containers of a pod add up to.
#[derive(Default)]
struct Summary {
    ready: usize,
    restarts: i32,
    last_restart: Option<Time>,
    reason: String,
}

impl Summary {
    fn add_restarts(&mut self, container: &ContainerStatus) {
        self.restarts += container.restart_count;
        let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let finished = last.and_then(|t| t.finished_at.as_ref()).map(Time::from_meta);
        self.last_restart = self.last_restart.max(finished);
    }
}

pub(super) fn row(pod: &Pod, now: Time) -> Vec<Value> {
    let absent = PodStatus::default();
    let status = pod.status.as_deref().unwrap_or(&absent);
    let spec = pod.spec.as_ref();
    let containers = spec.map_or(&[][..], |s| &s.containers);
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let total = containers.len() + inits.iter().filter(|c| is_sidecar(c)).count();
    let summary = summarize(pod, status, inits);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(Some(last), now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.as_str());
    vec![
        name(&pod.metadata),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age(&pod.metadata, now),
        or(ip, NONE).into(),
        or(pod.node_name.as_deref(), NONE).into(),
        or(status.nominated_node_name.as_deref(), NONE).into(),
        gates(pod, status).into(),
    ]
}

/// The conditions of the row: whether the pod has ended.
pub(super) fn conditions(pod: &Pod) -> Option<Value> {
    let (reason, message) = match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn summarize(pod: &Pod, status: &PodStatus, inits: &[Container]) -> Summary {
    let phase = status.phase.as_deref().unwrap_or_default();
    let mut summary =
        Summary { reason: or(status.reason.as_deref(), phase).to_owned(), ..Summary::default() };
    let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
    if scheduled.and_then(|c| c.reason.as_deref()) == Some("SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let sidecars = initialize(&mut summary, status, inits);
    if let Some(sidecars) = sidecars {
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        run(&mut summary, status);
    }
    if meta::is_terminating(&pod.metadata) {
        if status.reason.as_deref() == Some("NodeLost") {
            summary.reason = "Unknown".to_owned();
        } else if phase != "Succeeded" && phase != "Failed" {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Looks at the init containers. When they are done, returns what the sidecars among them add
/// to the restarts of the other containers.
fn initialize(summary: &mut Summary, status: &PodStatus, inits: &[Container]) -> Option<Summary> {
    let mut sidecars = Summary::default();
    let mut initializing = false;
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = inits.iter().any(|c| c.name == container.name && is_sidecar(c));
        summary.add_restarts(container);
        if sidecar {
            sidecars.add_restarts(container);
        }
        let state = container.state.as_ref();
        let terminated = state.and_then(|s| s.terminated.as_ref());
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
        if terminated.is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if sidecar && container.started == Some(true) {
            summary.ready += usize::from(container.ready);
            continue;
        }
        summary.reason = match (terminated, waiting) {
            (Some(_), _) => format!("Init:{}", ended(container)),
            (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => {
                format!("Init:{reason}")
            }
            _ => format!("Init:{i}/{}", inits.len()),
        };
        initializing = true;
        break;
    }
    let initialized = status.conditions.iter().flatten().find(|c| c.type_ == "Initialized");
    let done = !initializing || initialized.is_some_and(|c| c.status == "True");
    done.then_some(sidecars)
}

/// Looks at the containers; the first one with something to tell has the last word.
fn run(summary: &mut Summary, status: &PodStatus) {
    let mut running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        summary.add_restarts(container);
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
        if let Some(reason) = waiting.filter(|r| !r.is_empty()) {
            summary.reason = reason.to_owned();
        } else if state.is_some_and(|s| s.terminated.is_some()) {
            summary.reason = ended(container);
        } else if container.ready && state.is_some_and(|s| s.running.is_some()) {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

/// Why a terminated container ended.
fn ended(container: &ContainerStatus) -> String {
    let Some(end) = container.state.as_ref().and_then(|s| s.terminated.as_ref()) else {
        return String::new();
    };
    match (end.reason.as_deref(), end.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", end.exit_code),
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|c| c.type_ == gate.condition_type).is_some_and(|c| c.status == "True")
    });
    format!("{}/{}", open.count(), gates.len())
}
