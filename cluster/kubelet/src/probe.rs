//! Liveness, readiness and startup probes: when to try, and what many tries mean.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/prober`.

use std::time::Duration;

use api::Time;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::runtime::ProbeAction;

/// What a probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
    /// Not a probe: the hook after the start.
    PostStart,
    /// Not a probe: the hook before the end.
    PreStop,
}

impl ProbeKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
            Self::PostStart => "PostStart",
            Self::PreStop => "PreStop",
        }
    }
}

/// One probe of one container.
#[derive(Clone, Debug)]
struct ProbeState {
    kind: ProbeKind,
    period: Duration,
    failure_threshold: u32,
    success_threshold: u32,
    next_at: Time,
    busy: bool,
    last: Option<bool>,
    run: u32,
    /// The verdict; `None` before the first.
    result: Option<bool>,
}

/// All probes of one container instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeSet {
    /// The instance the probes are for; empty before the first.
    pub(crate) container_id: String,
    probes: Vec<ProbeState>,
}

/// What one more result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that others see.
    Same,
    /// Readiness or start-up changed.
    Changed,
    /// The container must be restarted.
    Kill,
}

fn positive(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

/// When to give up a try, seconds.
pub(crate) fn timeout_seconds(probe: &Probe) -> u32 {
    positive(probe.timeout_seconds, 1)
}

/// The probe of a kind.
pub(crate) fn definition(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::PostStart | ProbeKind::PreStop => None,
    }
}

impl ProbeSet {
    /// The probes of an instance that started at `started`. A container that was running before
    /// the kubelet keeps what was `known` of it: started, ready.
    pub(crate) fn new(
        container: &Container,
        container_id: &str,
        started: Time,
        known: Option<(bool, bool)>,
    ) -> Self {
        let mut probes = Vec::new();
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let Some(probe) = definition(container, kind) else { continue };
            let result = match (kind, known) {
                (ProbeKind::Startup, Some((true, _))) => Some(true),
                (ProbeKind::Readiness, Some((_, ready))) => Some(ready),
                _ => None,
            };
            let delay = u64::from(positive(probe.initial_delay_seconds, 0));
            probes.push(ProbeState {
                kind,
                period: Duration::from_secs(u64::from(positive(probe.period_seconds, 10))),
                failure_threshold: positive(probe.failure_threshold, 3),
                success_threshold: positive(probe.success_threshold, 1),
                next_at: started + Duration::from_secs(delay),
                busy: false,
                last: None,
                run: 0,
                result,
            });
        }
        Self { container_id: container_id.to_owned(), probes }
    }

    fn get(&self, kind: ProbeKind) -> Option<&ProbeState> {
        self.probes.iter().find(|p| p.kind == kind)
    }

    /// Whether the container has started, as far as its probe says.
    pub(crate) fn started(&self) -> bool {
        self.get(ProbeKind::Startup).is_none_or(|p| p.result == Some(true))
    }

    /// Whether the container may get traffic, as far as its probes say.
    pub(crate) fn ready(&self) -> bool {
        self.started() && self.get(ProbeKind::Readiness).is_none_or(|p| p.result == Some(true))
    }

    fn runs(&self, probe: &ProbeState) -> bool {
        match probe.kind {
            ProbeKind::Startup => probe.result != Some(true),
            _ => self.started(),
        }
    }

    /// The probes that are due; they count as under way.
    pub(crate) fn due(&mut self, now: Time) -> Vec<ProbeKind> {
        let due: Vec<ProbeKind> = self
            .probes
            .iter()
            .filter(|p| !p.busy && now >= p.next_at && self.runs(p))
            .map(|p| p.kind)
            .collect();
        for probe in self.probes.iter_mut().filter(|p| due.contains(&p.kind)) {
            probe.busy = true;
            probe.next_at = now + probe.period;
        }
        due
    }

    /// When the next probe is due.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.probes.iter().filter(|p| !p.busy && self.runs(p)).map(|p| p.next_at).min()
    }

    /// Counts a result.
    pub(crate) fn observe(&mut self, kind: ProbeKind, success: bool) -> Verdict {
        let Some(probe) = self.probes.iter_mut().find(|p| p.kind == kind) else {
            return Verdict::Same;
        };
        probe.busy = false;
        probe.run = if probe.last == Some(success) { probe.run.saturating_add(1) } else { 1 };
        probe.last = Some(success);
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        if probe.run < threshold {
            return Verdict::Same;
        }
        let before = probe.result.replace(success);
        if !success && kind != ProbeKind::Readiness {
            probe.run = 0;
            return Verdict::Kill;
        }
        if before == Some(success) { Verdict::Same } else { Verdict::Changed }
    }

    /// A try that had no outcome.
    pub(crate) fn forget_try(&mut self, kind: ProbeKind) {
        if let Some(probe) = self.probes.iter_mut().find(|p| p.kind == kind) {
            probe.busy = false;
        }
    }
}

/// The number of a port, given by number or by the name a container declares.
pub(crate) fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port),
        },
    };
    let name = || match port {
        IntOrString::Int(n) => n.to_string(),
        IntOrString::String(s) => s.clone(),
    };
    let number = number.ok_or_else(|| format!("couldn't find port by name: {}", name()))?;
    u16::try_from(number)
        .ok()
        .filter(|p| *p > 0)
        .ok_or_else(|| format!("invalid port number: {}", name()))
}

/// What a probe tries.
pub(crate) fn action(
    container: &Container,
    probe: &Probe,
    ip: &str,
) -> Result<ProbeAction, String> {
    let handler = LifecycleHandler {
        exec: probe.exec.clone(),
        http_get: probe.http_get.clone(),
        tcp_socket: probe.tcp_socket.clone(),
        sleep: None,
    };
    match &probe.grpc {
        Some(grpc) => {
            // Without a gRPC stack: a server that accepts connections counts as healthy.
            let port = port(container, &IntOrString::Int(grpc.port))?;
            Ok(ProbeAction::Tcp { host: ip.to_owned(), port })
        }
        None => hook(container, &handler, ip),
    }
}

/// What a lifecycle hook does.
pub(crate) fn hook(
    container: &Container,
    handler: &LifecycleHandler,
    ip: &str,
) -> Result<ProbeAction, String> {
    if let Some(exec) = &handler.exec {
        return Ok(ProbeAction::Exec { command: exec.command.clone().unwrap_or_default() });
    }
    let host = |own: &Option<String>| {
        own.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.to_owned())
    };
    if let Some(http) = &handler.http_get {
        let path = http.path.clone().unwrap_or_default();
        return Ok(ProbeAction::Http {
            scheme: http.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: host(&http.host),
            port: port(container, &http.port)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: http
                .http_headers
                .iter()
                .flatten()
                .map(|h| (h.name.clone(), h.value.clone()))
                .collect(),
        });
    }
    if let Some(tcp) = &handler.tcp_socket {
        return Ok(ProbeAction::Tcp { host: host(&tcp.host), port: port(container, &tcp.port)? });
    }
    if let Some(sleep) = &handler.sleep {
        return Ok(ProbeAction::Sleep { seconds: u32::try_from(sleep.seconds).unwrap_or(0) });
    }
    Err("missing probe handler".to_owned())
}
