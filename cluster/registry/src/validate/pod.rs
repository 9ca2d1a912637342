//! Pods and pod templates as a whole.

use api::Pod;
use k8s_openapi::api::core::v1::{PodDNSConfig, PodSecurityContext, PodSpec};

use super::container::{self, Surroundings};
use super::priority_class::preemption_policy;
use super::{affinity, volume};
use crate::field::{Causes, Path};
use crate::operation::Options;
use crate::{meta, names};

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn pod(pod: &Pod, options: &Options, causes: &mut Causes) {
    let path = Path::new("spec");
    let default = PodSpec::default();
    let pod_spec = pod.spec.as_deref().unwrap_or(&default);
    mirror(pod, causes);
    spec(pod_spec, Some(pod), options, &path, causes);
    if pod.node_name.is_some() && pod_spec.scheduling_gates.iter().flatten().next().is_some() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        causes.forbidden(&path.child("nodeName"), detail);
    }
}

fn mirror(pod: &Pod, causes: &mut Causes) {
    let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
    if is_mirror && pod.node_name.is_none() {
        let at = Path::new("metadata");
        let at = at.child("annotations");
        let at = at.key(MIRROR);
        causes.invalid(
            &at,
            pod.metadata.annotations.as_ref().and_then(|a| a.get(MIRROR)),
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
}

/// Checks what is left of a pod whose spec is known to be valid.
pub(super) fn node(pod: &Pod, path: &Path<'_>, causes: &mut Causes) {
    mirror(pod, causes);
    if let Some(name) = pod.node_name.as_deref() {
        causes.invalid_each(&path.child("nodeName"), name, names::subdomain(name));
    }
}

/// Checks what pods and templates share; `pod` is the pod if it is one's.
pub(super) fn spec(
    spec: &PodSpec,
    pod: Option<&Pod>,
    options: &Options,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let list = spec.volumes.as_deref().unwrap_or_default();
    let volumes = volume::all(list, &path.child("volumes"), causes);
    let around = Surroundings { volumes: &volumes, options, is_pod: pod.is_some() };
    container::all(spec, &around, path, causes);
    host_network(spec, path, causes);
    policies(spec, path, causes);
    meta::validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), causes);
    if let Some(context) = &spec.security_context {
        security(context, &path.child("securityContext"), causes);
    }
    if let Some(wanted) = &spec.affinity {
        affinity::affinity(wanted, &path.child("affinity"), causes);
    }
    dns(spec, path, causes);
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    affinity::spread(constraints, &path.child("topologySpreadConstraints"), causes);
    texts(spec, pod, path, causes);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        causes.invalid(&path.child("activeDeadlineSeconds"), seconds, detail);
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    affinity::tolerations(tolerations, &path.child("tolerations"), causes);
    scheduling_gates(spec, &path.child("schedulingGates"), causes);
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = path.child("hostAliases");
        let at = at.index(i);
        if names::ip(&alias.ip).is_none() {
            causes.invalid(&at.child("ip"), &alias.ip, names::NO_IP);
        }
        for name in alias.hostnames.iter().flatten() {
            causes.invalid_each(&at.child("hostnames"), name, names::subdomain(name));
        }
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        container::quantity_value(name, quantity, &path.child("overhead").key(name), causes);
    }
}

fn scheduling_gates(spec: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = path.index(i);
        causes.invalid_each(&at, &gate.name, names::qualified_name(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            causes.duplicate(&at, &gate.name);
        }
    }
}

fn host_network(spec: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    if spec.host_network != Some(true) {
        return;
    }
    let lists =
        [(Some(&spec.containers), "containers"), (spec.init_containers.as_ref(), "initContainers")];
    for (containers, field) in lists {
        for (i, container) in containers.into_iter().flatten().enumerate() {
            for (j, port) in container.ports.iter().flatten().enumerate() {
                if port.host_port.is_some_and(|host| host != port.container_port) {
                    let at = path.child(field);
                    let at = at.index(i);
                    let at = at.child("ports");
                    let at = at.index(j);
                    let detail = "must match `hostPort` when `hostNetwork` is true";
                    causes.invalid(&at.child("containerPort"), port.container_port, detail);
                }
            }
        }
    }
}

fn policies(spec: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
    const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    for (field, value, supported) in [
        ("restartPolicy", spec.restart_policy.as_deref(), &RESTART[..]),
        ("dnsPolicy", spec.dns_policy.as_deref(), &DNS[..]),
    ] {
        match value.unwrap_or_default() {
            "" => causes.required(&path.child(field), ""),
            value if !supported.contains(&value) => {
                causes.not_supported(&path.child(field), value, supported);
            }
            _ => {}
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        preemption_policy(policy, &path.child("preemptionPolicy"), causes);
    }
}

fn security(context: &PodSecurityContext, path: &Path<'_>, causes: &mut Causes) {
    for (field, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        container::id_in_range(id, &path.child(field), causes);
    }
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        let at = path.child("supplementalGroups");
        let at = at.index(i);
        container::id_in_range(Some(*group), &at, causes);
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = path.child("sysctls");
        let at = at.index(i);
        let at = at.child("name");
        if sysctl.name.is_empty() {
            causes.required(&at, "");
        }
        if !seen.insert(sysctl.name.as_str()) {
            causes.duplicate(&at, &sysctl.name);
        }
    }
}

fn dns(spec: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("dnsConfig");
    let own = spec.dns_policy.as_deref() == Some("None");
    let servers = spec.dns_config.as_ref().and_then(|c| c.nameservers.as_ref());
    if own && spec.dns_config.is_none() {
        causes.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
    } else if own && servers.is_none_or(Vec::is_empty) {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.required(&at.child("nameservers"), detail);
    }
    let Some(config) = &spec.dns_config else { return };
    dns_config(config, &at, causes);
}

fn dns_config(config: &PodDNSConfig, path: &Path<'_>, causes: &mut Causes) {
    const SERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let at = path.child("nameservers");
    if servers.len() > SERVERS_MAX {
        let detail = format!("must not have more than {SERVERS_MAX} nameservers");
        causes.invalid(&at, servers, &detail);
    }
    for (i, server) in servers.iter().enumerate().filter(|(_, s)| names::ip(s).is_none()) {
        causes.invalid(&at.index(i), server, names::NO_IP);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let at = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        causes.invalid(&at, searches, &detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| s.as_str() != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        causes.invalid_each(&at.index(i), search, names::subdomain(&name.replace('_', "a")));
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            causes.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn texts(spec: &PodSpec, pod: Option<&Pod>, path: &Path<'_>, causes: &mut Causes) {
    let node = pod.map_or(spec.node_name.as_deref(), |pod| pod.node_name.as_deref());
    for (field, value) in [
        ("serviceAccountName", spec.service_account_name.as_deref()),
        ("nodeName", node),
        ("priorityClassName", spec.priority_class_name.as_deref()),
        ("runtimeClassName", spec.runtime_class_name.as_deref()),
    ] {
        if let Some(value) = value {
            causes.invalid_each(&path.child(field), value, names::subdomain(value));
        }
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(value) = value {
            causes.invalid_each(&path.child(field), value, names::label(value));
        }
    }
    if let Some(name) = spec.scheduler_name.as_deref() {
        causes.invalid_each(&path.child("schedulerName"), name, names::subdomain(name));
    }
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            causes.required(&path.child("imagePullSecrets").index(i).child("name"), "");
        }
    }
}
