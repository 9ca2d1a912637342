//! Defaults of services and endpoints. Addresses and ports are [`crate::allocate`]d.

use k8s_openapi::api::core::v1::{
    ClientIPConfig, Endpoints, Service, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{drop_blank, drop_empty, drop_empty_map, drop_false, text};

/// How long a client stays with an endpoint: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    drop_empty(&mut spec.ports);
    drop_empty(&mut spec.cluster_ips);
    drop_empty(&mut spec.external_ips);
    drop_empty(&mut spec.ip_families);
    drop_empty(&mut spec.load_balancer_source_ranges);
    drop_empty_map(&mut spec.selector);
    drop_false(&mut spec.publish_not_ready_addresses);
    for blank in [
        &mut spec.cluster_ip,
        &mut spec.external_name,
        &mut spec.external_traffic_policy,
        &mut spec.load_balancer_ip,
    ] {
        drop_blank(blank);
    }
    text(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => affinity(spec),
        _ => {}
    }
    text(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        drop_blank(&mut port.name);
        if port.node_port == Some(0) {
            port.node_port = None;
        }
        match &port.target_port {
            Some(IntOrString::String(s)) if !s.is_empty() => {}
            Some(IntOrString::Int(n)) if *n != 0 => {}
            _ => port.target_port = Some(IntOrString::Int(port.port)),
        }
    }
    let kind = spec.type_.as_deref().unwrap_or_default();
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.external_ips.is_some());
    if external {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
    if kind != "ExternalName" {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    service.status.get_or_insert_default().load_balancer.get_or_insert_default();
}

fn affinity(spec: &mut ServiceSpec) {
    let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
    let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
    client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
}

pub(super) fn endpoints(endpoints: &mut Endpoints) {
    drop_empty(&mut endpoints.subsets);
    for subset in endpoints.subsets.iter_mut().flatten() {
        drop_empty(&mut subset.addresses);
        drop_empty(&mut subset.not_ready_addresses);
        drop_empty(&mut subset.ports);
        for port in subset.ports.iter_mut().flatten() {
            text(&mut port.protocol, "TCP");
            drop_blank(&mut port.name);
        }
    }
}

pub(super) fn endpoint_slice(slice: &mut EndpointSlice) {
    drop_empty(&mut slice.ports);
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}
