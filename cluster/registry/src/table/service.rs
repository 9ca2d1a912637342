//! Cells of services and of the endpoints behind them.

use std::collections::BTreeSet;

use api::Time;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::name;
use super::text::{NONE, age, labels, shortened};

pub(super) fn service(service: &Service, now: Time) -> Vec<Value> {
    let absent = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&absent);
    let cluster_ip = spec.cluster_ips.iter().flatten().next().map_or(NONE, String::as_str);
    vec![
        name(&service.metadata),
        spec.type_.as_deref().unwrap_or_default().into(),
        cluster_ip.into(),
        external(service, spec).into(),
        ports(spec).into(),
        age(&service.metadata, now),
        labels(spec.selector.as_ref()).into(),
    ]
}

fn external(service: &Service, spec: &ServiceSpec) -> String {
    let mut all: Vec<&str> = Vec::new();
    match spec.type_.as_deref() {
        Some("ClusterIP" | "NodePort") => {}
        Some("LoadBalancer") => all.extend(balancers(service)),
        Some("ExternalName") => return spec.external_name.clone().unwrap_or_default(),
        _ => return "<unknown>".to_owned(),
    }
    all.extend(spec.external_ips.iter().flatten().map(String::as_str));
    match all.as_slice() {
        [] if spec.type_.as_deref() == Some("LoadBalancer") => "<pending>".to_owned(),
        [] => NONE.to_owned(),
        all => all.join(","),
    }
}

fn balancers(service: &Service) -> BTreeSet<&str> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_ref()).into_iter().flatten();
    ingress
        .filter_map(|i| {
            let ip = i.ip.as_deref().filter(|ip| !ip.is_empty());
            ip.or(i.hostname.as_deref()).filter(|name| !name.is_empty())
        })
        .collect()
}

fn ports(spec: &ServiceSpec) -> String {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|p| {
            let protocol = p.protocol.as_deref().unwrap_or_default();
            match p.node_port {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", p.port),
                _ => format!("{}/{protocol}", p.port),
            }
        })
        .collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

pub(super) fn endpoints(endpoints: &Endpoints, now: Time) -> Vec<Value> {
    let subsets = endpoints.subsets.iter().flatten();
    let all = subsets.flat_map(|subset| {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        // Headless services may have no port.
        let bare = addresses.iter().filter(|_| ports.is_empty()).map(|a| a.ip.clone());
        let full = ports.iter().flat_map(move |p| {
            addresses.iter().map(|a| match a.ip.contains(':') {
                true => format!("[{}]:{}", a.ip, p.port),
                false => format!("{}:{}", a.ip, p.port),
            })
        });
        bare.chain(full)
    });
    // A subset that has no ready address is printed as nothing, none at all as such.
    let placeholder = if endpoints.subsets.iter().flatten().next().is_none() { NONE } else { "" };
    let cell = shortened(all, placeholder);
    vec![name(&endpoints.metadata), cell, age(&endpoints.metadata, now)]
}

pub(super) fn endpoint_slice(slice: &EndpointSlice, now: Time) -> Vec<Value> {
    let ports = slice.ports.iter().flatten().map(|p| match (p.port, &p.name) {
        (Some(port), _) => port.to_string(),
        (None, Some(name)) => name.clone(),
        (None, None) => "*".to_owned(),
    });
    let addresses = slice.endpoints.iter().flat_map(|e| e.addresses.iter().cloned());
    vec![
        name(&slice.metadata),
        slice.address_type.as_str().into(),
        shortened(ports, "<unset>"),
        shortened(addresses, "<unset>"),
        age(&slice.metadata, now),
    ]
}
