//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector;
use crate::field::{Causes, Path};

/// What a probe is for; each has rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Liveness,
    Readiness,
    Startup,
}

/// The ways to act, of probes and hooks alike.
#[derive(Default)]
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

pub(super) fn probe(probe: &Probe, purpose: Purpose, path: &Path<'_>, causes: &mut Causes) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http: probe.http_get.as_ref(),
        tcp: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler(&handlers, 0, path, causes);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        causes.non_negative(&path.child(field), i64::from(value.unwrap_or(0)));
    }
    let grace = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds {
        if purpose == Purpose::Readiness {
            causes.invalid(&grace, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            causes.invalid(&grace, seconds, "must be greater than 0");
        }
    }
    if let Some(times) = probe.success_threshold
        && purpose != Purpose::Readiness
        && times != 1
    {
        causes.invalid(&path.child("successThreshold"), times, "must be 1");
    }
}

pub(super) fn lifecycle(hooks: &Lifecycle, grace: i64, path: &Path<'_>, causes: &mut Causes) {
    let mut hook = |hook: &Option<LifecycleHandler>, field: &str| {
        let Some(hook) = hook else { return };
        let handlers = Handlers {
            exec: hook.exec.as_ref(),
            http: hook.http_get.as_ref(),
            tcp: hook.tcp_socket.as_ref(),
            sleep: hook.sleep.as_ref(),
            grpc: None,
        };
        handler(&handlers, grace, &path.child(field), causes);
    };
    hook(&hooks.post_start, "postStart");
    hook(&hooks.pre_stop, "preStop");
}

fn handler(handlers: &Handlers<'_>, grace: i64, path: &Path<'_>, causes: &mut Causes) {
    let mut count = 0;
    let mut first = |field: &str, causes: &mut Causes| {
        count += 1;
        if count > 1 {
            causes.forbidden(&path.child(field), "may not specify more than 1 handler type");
        }
        count == 1
    };
    if let Some(exec) = handlers.exec
        && first("exec", causes)
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        causes.required(&path.child("exec").child("command"), "");
    }
    if let Some(http) = handlers.http
        && first("httpGet", causes)
    {
        http_get(http, &path.child("httpGet"), causes);
    }
    if let Some(tcp) = handlers.tcp
        && first("tcpSocket", causes)
    {
        selector::port(&tcp.port, &path.child("tcpSocket").child("port"), causes);
    }
    if let Some(grpc) = handlers.grpc
        && first("grpc", causes)
    {
        let port = IntOrString::Int(grpc.port);
        selector::port(&port, &path.child("grpc").child("port"), causes);
    }
    if let Some(sleep) = handlers.sleep
        && first("sleep", causes)
        && !(0..=grace).contains(&sleep.seconds)
    {
        let detail = format!(
            "must be non-negative and less than terminationGracePeriodSeconds ({grace}). Enable \
             AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
        );
        causes.invalid(&path.child("sleep").child("seconds"), sleep.seconds, &detail);
    }
    if count == 0 {
        causes.required(path, "must specify a handler type");
    }
}

fn http_get(action: &HTTPGetAction, path: &Path<'_>, causes: &mut Causes) {
    if action.path.as_deref().unwrap_or_default().is_empty() {
        causes.required(&path.child("path"), "");
    }
    selector::port(&action.port, &path.child("port"), causes);
    let scheme = action.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        causes.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in action.http_headers.iter().flatten() {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if header.name.is_empty() || !header.name.bytes().all(legal) {
            causes.invalid(
                &path.child("httpHeaders"),
                &header.name,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            );
        }
    }
}
