//! Defaults of pods and pod templates.

use api::Pod;
use api::quantity::QuantityError;
use k8s_openapi::api::core::v1::{Container, HostIP, PodIP, PodSpec, PodStatus, PodTemplateSpec};

use super::container::{container, ephemeral, requests_from_limits, resources};
use super::volume::volume;
use super::{canonical_list, drop_blank, drop_empty, drop_empty_map, drop_false, text};

/// Seconds a pod has to end.
const GRACE_SECONDS: i64 = 30;

pub(super) fn pod(pod: &mut Pod) -> Result<(), QuantityError> {
    let pod_spec = pod.spec.get_or_insert_default();
    spec(pod_spec)?;
    pod_spec.enable_service_links.get_or_insert(true);
    let host_network = pod_spec.host_network == Some(true);
    for c in all_containers(pod_spec) {
        requests_from_limits(&mut c.resources);
        for port in c.ports.iter_mut().flatten().filter(|_| host_network) {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    let pod_status = pod.status.get_or_insert_default();
    text(&mut pod_status.phase, "Pending");
    status(pod_status)
}

pub(super) fn template(template: &mut PodTemplateSpec) -> Result<(), QuantityError> {
    crate::meta::tidy(template.metadata.get_or_insert_default());
    spec(template.spec.get_or_insert_default())
}

fn all_containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut())
}

fn spec(spec: &mut PodSpec) -> Result<(), QuantityError> {
    drop_empty_fields(spec);
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
    // The old name of the field still says the same as the new one.
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    all_containers(spec).try_for_each(container)?;
    spec.ephemeral_containers.iter_mut().flatten().try_for_each(ephemeral)?;
    spec.volumes.iter_mut().flatten().try_for_each(volume)?;
    canonical_list(&mut spec.overhead)?;
    spec.resources.as_mut().map(resources).transpose()?;
    Ok(())
}

fn drop_empty_fields(spec: &mut PodSpec) {
    drop_empty(&mut spec.volumes);
    drop_empty(&mut spec.init_containers);
    drop_empty(&mut spec.ephemeral_containers);
    drop_empty(&mut spec.tolerations);
    drop_empty(&mut spec.image_pull_secrets);
    drop_empty(&mut spec.host_aliases);
    drop_empty(&mut spec.readiness_gates);
    drop_empty(&mut spec.scheduling_gates);
    drop_empty(&mut spec.topology_spread_constraints);
    drop_empty_map(&mut spec.node_selector);
    for flag in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        drop_false(flag);
    }
    for text in [
        &mut spec.node_name,
        &mut spec.hostname,
        &mut spec.subdomain,
        &mut spec.service_account,
        &mut spec.service_account_name,
        &mut spec.priority_class_name,
    ] {
        drop_blank(text);
    }
}

/// Whether a status has nothing that [`status`] would change, so that it can stay shared.
pub(super) fn is_whole(status: &PodStatus) -> bool {
    fn listed<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_none_or(|list| !list.is_empty())
    }
    let written = |text: &Option<String>| text.as_ref().is_none_or(|text| !text.is_empty());
    let first_ip = status.pod_ips.iter().flatten().next().map(|p| &p.ip);
    let containers = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    status.phase.as_ref().is_some_and(|phase| !phase.is_empty())
        && listed(&status.conditions)
        && containers.into_iter().all(listed)
        && listed(&status.pod_ips)
        && listed(&status.host_ips)
        && written(&status.message)
        && written(&status.reason)
        && written(&status.host_ip)
        && written(&status.pod_ip)
        && written(&status.nominated_node_name)
        && first_ip == status.pod_ip.as_ref()
        && (status.host_ip.is_none() || status.host_ips.is_some())
        && containers
            .into_iter()
            .flatten()
            .flatten()
            .all(|c| c.allocated_resources.is_none() && c.resources.is_none())
}

fn status(status: &mut PodStatus) -> Result<(), QuantityError> {
    drop_empty(&mut status.conditions);
    drop_empty(&mut status.container_statuses);
    drop_empty(&mut status.init_container_statuses);
    drop_empty(&mut status.ephemeral_container_statuses);
    drop_empty(&mut status.pod_ips);
    drop_empty(&mut status.host_ips);
    for text in [
        &mut status.message,
        &mut status.reason,
        &mut status.host_ip,
        &mut status.pod_ip,
        &mut status.nominated_node_name,
    ] {
        drop_blank(text);
    }
    // One address and the list of addresses say the same; the single one leads.
    if let Some(ip) = &status.pod_ip {
        if status.pod_ips.as_ref().and_then(|l| l.first()).map(|p| &p.ip) != Some(ip) {
            status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
        }
    } else if let Some(first) = status.pod_ips.as_ref().and_then(|l| l.first()) {
        status.pod_ip = Some(first.ip.clone());
    }
    if let (Some(ip), None) = (&status.host_ip, &status.host_ips) {
        status.host_ips = Some(vec![HostIP { ip: ip.clone() }]);
    }
    for list in [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ] {
        for container in list.iter_mut().flatten() {
            canonical_list(&mut container.allocated_resources)?;
            container.resources.as_mut().map(resources).transpose()?;
        }
    }
    Ok(())
}
