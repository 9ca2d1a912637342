//! Services.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::selector;
use crate::allocate::has_address;
use crate::field::{Causes, Path, PortPair};
use crate::{meta, names};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const REACH: [&str; 2] = ["Cluster", "Local"];
/// Longest time a client stays with an endpoint: a day.
const AFFINITY_SECONDS_MAX: i32 = 86_400;

pub(super) fn service(service: &Service, causes: &mut Causes) {
    let path = Path::new("spec");
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let kind = spec.type_.as_deref().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let list = spec.ports.as_deref().unwrap_or_default();
    if list.is_empty() && !headless && kind != "ExternalName" {
        causes.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            causes.invalid(&path.child("clusterIPs").index(0), "None", &detail);
        }
        "ExternalName" => external_name(spec, &path, causes),
        _ => {}
    }
    ports(list, kind, &path.child("ports"), causes);
    meta::validate_labels(spec.selector.as_ref(), &path.child("selector"), causes);
    affinity(spec, &path, causes);
    addresses(spec, &path, causes);
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        if names::ip(ip).is_none() {
            causes.invalid(&path.child("externalIPs").index(i), ip, names::NO_IP);
        }
    }
    if kind.is_empty() {
        causes.required(&path.child("type"), "");
    } else if !TYPES.contains(&kind) {
        causes.not_supported(&path.child("type"), kind, &TYPES);
    }
    traffic(spec, &path, causes);
}

fn external_name(spec: &ServiceSpec, path: &Path<'_>, causes: &mut Causes) {
    if spec.cluster_ip.is_some() || spec.cluster_ips.is_some() {
        let detail = "may not be set for ExternalName services";
        causes.forbidden(&path.child("clusterIPs"), detail);
    }
    for (field, set) in [
        ("ipFamilies", spec.ip_families.is_some()),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if set {
            let detail = "may not be set for ExternalName services";
            causes.forbidden(&path.child(field), detail);
        }
    }
    let at = path.child("externalName");
    match spec.external_name.as_deref().unwrap_or_default() {
        "" => causes.required(&at, ""),
        name => {
            let messages = names::subdomain(name.strip_suffix('.').unwrap_or(name));
            causes.invalid_each(&at, name, messages);
        }
    }
}

fn ports(ports: &[ServicePort], kind: &str, path: &Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => causes.required(&at.child("name"), ""),
            "" => {}
            name => {
                causes.invalid_each(&at.child("name"), name, names::label(name));
                if !seen.insert(name) {
                    causes.duplicate(&at.child("name"), name);
                }
            }
        }
        if !names::is_port(i64::from(port.port)) {
            causes.invalid(&at.child("port"), port.port, names::PORT_RANGE);
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            causes.not_supported(&at.child("protocol"), protocol, &PROTOCOLS);
        }
        if let Some(target) = &port.target_port {
            selector::port(target, &at.child("targetPort"), causes);
        }
        if let Some(name) = port.app_protocol.as_deref() {
            causes.invalid_each(&at.child("appProtocol"), name, names::qualified_name(name));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if kind == "ClusterIP" && port.node_port.is_some() {
            let detail = "may not be used when `type` is 'ClusterIP'";
            causes.forbidden(&path.index(i).child("nodePort"), detail);
        }
    }
    duplicates(ports, path, causes);
}

fn duplicates(ports: &[ServicePort], path: &Path<'_>, causes: &mut Causes) {
    let mut nodes = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if let Some(node) = port.node_port
            && !nodes.insert((&port.protocol, node))
        {
            causes.duplicate(&path.index(i).child("nodePort"), node);
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if !pairs.insert((&port.protocol, port.port)) {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            causes.duplicate(&path.index(i), PortPair(protocol, port.port));
        }
    }
}

fn affinity(spec: &ServiceSpec, path: &Path<'_>, causes: &mut Causes) {
    let at = path.child("sessionAffinityConfig");
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" => causes.required(&path.child("sessionAffinity"), ""),
        "None" => {
            if spec.session_affinity_config.is_some() {
                causes.forbidden(&at, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref();
            let client = config.and_then(|c| c.client_ip.as_ref());
            let Some(seconds) = client.and_then(|c| c.timeout_seconds) else {
                return causes.required(&at, "when session affinity type is ClientIP");
            };
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
                let at = at.child("clientIP");
                let at = at.child("timeoutSeconds");
                let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                causes.invalid(&at, seconds, &detail);
            }
        }
        other => {
            let at = path.child("sessionAffinity");
            causes.not_supported(&at, other, &["ClientIP", "None"]);
        }
    }
}

fn addresses(spec: &ServiceSpec, path: &Path<'_>, causes: &mut Causes) {
    if !has_address(spec) {
        return;
    }
    let at = path.child("clusterIPs");
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    if list.len() > 2 {
        causes.invalid(&at, list, "may only hold up to 2 values");
    }
    if let (Some(one), Some(first)) = (&spec.cluster_ip, list.first())
        && one != first
    {
        causes.invalid(&at, list, "first value must match `clusterIP`");
    }
    for (i, ip) in list.iter().enumerate() {
        if i == 0 && ip == "None" {
            if list.len() > 1 {
                causes.invalid(&at, list, "'None' must be the first and only value");
            }
        } else if names::ip(ip).is_none() {
            causes.invalid(&at.index(i), ip, names::NO_IP);
        }
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            let at = path.child("ipFamilies");
            let at = at.index(i);
            causes.not_supported(&at, family, &["IPv4", "IPv6"]);
        }
    }
    const POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
        causes.not_supported(&path.child("ipFamilyPolicy"), policy, &POLICIES);
    }
}

fn traffic(spec: &ServiceSpec, path: &Path<'_>, causes: &mut Causes) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let at = path.child("externalTrafficPolicy");
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.external_ips.is_some());
    match (external, spec.external_traffic_policy.as_deref()) {
        (true, None) => causes.required(&at, ""),
        (true, Some(policy)) if !REACH.contains(&policy) => {
            causes.not_supported(&at, policy, &REACH);
        }
        (false, Some(policy)) => {
            let detail = "may only be set for externally-accessible services";
            causes.invalid(&at, policy, detail);
        }
        _ => {}
    }
    let at = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        Some(policy) if !REACH.contains(&policy) => causes.not_supported(&at, policy, &REACH),
        None if has_address(spec) => causes.required(&at, ""),
        _ => {}
    }
    if let Some(share) = spec.traffic_distribution.as_deref().filter(|d| *d != "PreferClose") {
        causes.not_supported(&path.child("trafficDistribution"), share, &["PreferClose"]);
    }
    if spec.health_check_node_port.is_some_and(|p| p < 0) {
        let at = path.child("healthCheckNodePort");
        causes.non_negative(&at, i64::from(spec.health_check_node_port.unwrap_or(0)));
    }
}

pub(super) fn update(new: &Service, old: &Service, causes: &mut Causes) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    if !has_address(new) || !has_address(old) {
        return;
    }
    let path = Path::new("spec");
    let first = |list: &Option<Vec<String>>| list.as_ref().and_then(|l| l.first()).cloned();
    if let Some(ip) = first(&old.cluster_ips)
        && first(&new.cluster_ips) != Some(ip)
    {
        let list = new.cluster_ips.clone().unwrap_or_default();
        causes.invalid(&path.child("clusterIPs").index(0), list, "may not change once set");
    }
    if let Some(family) = first(&old.ip_families)
        && first(&new.ip_families) != Some(family)
    {
        let list = new.ip_families.clone().unwrap_or_default();
        causes.invalid(&path.child("ipFamilies").index(0), list, "may not change once set");
    }
}
