//! Defaults of containers, their probes, ports and environment.

use api::quantity::QuantityError;
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, Probe, ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{canonical, canonical_list, drop_blank, drop_empty, drop_false, number, text};

/// Where a container may leave its last words.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// The two container types have the same fields but no common type.
macro_rules! common_fields {
    ($c:expr) => {{
        let c = $c;
        let policy = pull_policy(c.image.as_deref().unwrap_or_default());
        text(&mut c.image_pull_policy, policy);
        text(&mut c.termination_message_path, TERMINATION_MESSAGE_PATH);
        text(&mut c.termination_message_policy, "File");
        for flag in [&mut c.stdin, &mut c.stdin_once, &mut c.tty] {
            drop_false(flag);
        }
        drop_blank(&mut c.working_dir);
        drop_blank(&mut c.image);
        drop_empty(&mut c.args);
        drop_empty(&mut c.command);
        drop_empty(&mut c.env);
        drop_empty(&mut c.env_from);
        drop_empty(&mut c.ports);
        drop_empty(&mut c.volume_mounts);
        drop_empty(&mut c.volume_devices);
        for mount in c.volume_mounts.iter_mut().flatten() {
            drop_false(&mut mount.read_only);
            drop_blank(&mut mount.sub_path);
            drop_blank(&mut mount.sub_path_expr);
        }
        for port in c.ports.iter_mut().flatten() {
            text(&mut port.protocol, "TCP");
            drop_blank(&mut port.name);
            drop_blank(&mut port.host_ip);
            if port.host_port == Some(0) {
                port.host_port = None;
            }
        }
        environment(&mut c.env, &mut c.env_from)?;
        for probe in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe] {
            probe.as_mut().into_iter().for_each(defaults_of_probe);
        }
        c.lifecycle.as_mut().into_iter().for_each(lifecycle);
        // Present even when empty, as the server answers.
        resources(c.resources.get_or_insert_default())?;
    }};
}

pub(super) fn container(c: &mut Container) -> Result<(), QuantityError> {
    common_fields!(c);
    Ok(())
}

pub(super) fn ephemeral(c: &mut EphemeralContainer) -> Result<(), QuantityError> {
    common_fields!(c);
    Ok(())
}

/// `latest`, spoken or not, may have changed; other tags and digests have not.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = match name.split_once('@') {
        Some((tagged, _)) => tagged.ends_with(":latest"),
        None => name.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn environment(
    env: &mut Option<Vec<EnvVar>>,
    from: &mut Option<Vec<EnvFromSource>>,
) -> Result<(), QuantityError> {
    for var in env.iter_mut().flatten() {
        drop_blank(&mut var.value);
        if let Some(source) = &mut var.value_from {
            source.field_ref.as_mut().into_iter().for_each(field_ref);
            source.resource_field_ref.as_mut().map(resource_ref).transpose()?;
        }
    }
    for source in from.iter_mut().flatten() {
        drop_blank(&mut source.prefix);
    }
    Ok(())
}

pub(super) fn field_ref(selector: &mut ObjectFieldSelector) {
    text(&mut selector.api_version, "v1");
}

pub(super) fn resource_ref(selector: &mut ResourceFieldSelector) -> Result<(), QuantityError> {
    let divisor = selector.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
    canonical(divisor)
}

fn defaults_of_probe(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if probe.initial_delay_seconds == Some(0) {
        probe.initial_delay_seconds = None;
    }
    probe.http_get.as_mut().into_iter().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(action: &mut HTTPGetAction) {
    text(&mut action.path, "/");
    text(&mut action.scheme, "HTTP");
    drop_blank(&mut action.host);
}

fn lifecycle(hooks: &mut Lifecycle) {
    let handler = |h: &mut LifecycleHandler| h.http_get.as_mut().into_iter().for_each(http_get);
    hooks.post_start.as_mut().into_iter().for_each(handler);
    hooks.pre_stop.as_mut().into_iter().for_each(handler);
}

pub(super) fn resources(resources: &mut ResourceRequirements) -> Result<(), QuantityError> {
    drop_empty(&mut resources.claims);
    canonical_list(&mut resources.limits)?;
    canonical_list(&mut resources.requests)
}

/// What is limited but not requested is requested as much as it is limited.
pub(super) fn requests_from_limits(resources: &mut Option<ResourceRequirements>) {
    let Some(resources) = resources else { return };
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        let check = |image: &str, policy: &str| assert_eq!(pull_policy(image), policy, "{image}");
        check("nginx", "Always");
        check("nginx:latest", "Always");
        check("nginx:1.27", "IfNotPresent");
        check("registry:5000/nginx", "Always");
        check("registry:5000/nginx:1", "IfNotPresent");
        check("nginx@sha256:00", "IfNotPresent");
        check("nginx:latest@sha256:00", "Always");
    }
}
