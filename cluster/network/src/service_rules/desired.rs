//! From services and endpoint slices to rules.
//!
//! Source: Kubernetes 1.33, `pkg/proxy/topology.go` (which endpoints are used) and
//! `pkg/proxy/serviceport.go` (what a service asks for). Only IPv4 is served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use api::meta;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use super::{Endpoint, PortRules, Protocol, RuleSet, ServiceName, ServiceRules};

/// A service with this label is another proxy's.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// A service with this label is headless whatever its address.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The service of an endpoint slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The API's default of `clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;

/// Where the rules apply.
#[derive(Clone, Copy, Debug)]
pub struct Viewpoint<'a> {
    /// The name of the node.
    pub node_name: &'a str,
    /// The node's zone, its label `topology.kubernetes.io/zone`, if it has one.
    pub zone: Option<&'a str>,
}

/// The rules of a node.
///
/// When two services claim the same address and port, or the same node port, the first in the
/// order of namespace and name has it: a rule has one meaning.
pub fn desired<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    endpoint_slices: impl IntoIterator<Item = &'a EndpointSlice>,
    viewpoint: Viewpoint<'_>,
) -> RuleSet {
    let endpoints = Endpoints::collect(endpoint_slices, viewpoint);
    let mut rule_set = RuleSet::default();
    for service in services {
        let name = ServiceName::new(
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        if let Some(rules) = service_rules(&name, service, &endpoints) {
            rule_set.services.insert(name, rules);
        }
    }
    settle_claims(&mut rule_set);
    rule_set
}

fn service_rules(
    name: &ServiceName,
    service: &Service,
    endpoints: &Endpoints,
) -> Option<ServiceRules> {
    let spec = service.spec.as_ref()?;
    let meta = &service.metadata;
    if meta::label(meta, PROXY_NAME).is_some()
        || meta::label(meta, HEADLESS).is_some()
        || spec.type_.as_deref() == Some("ExternalName")
    {
        return None;
    }
    let cluster_ip = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .find_map(|ip| ip.parse::<Ipv4Addr>().ok())?;
    let load_balancer_ips = load_balancer_ips(service);
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let rules = port_rules(name, spec, port, &load_balancer_ips, endpoints)?;
            Some((port.name.clone().unwrap_or_default(), rules))
        })
        .collect();
    Some(ServiceRules { cluster_ip, ports })
}

fn load_balancer_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .flatten()
        // A balancer in proxy mode sends to nodes itself: its address must not be cut short.
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

fn port_rules(
    name: &ServiceName,
    spec: &ServiceSpec,
    port: &ServicePort,
    load_balancer_ips: &BTreeSet<Ipv4Addr>,
    endpoints: &Endpoints,
) -> Option<PortRules> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let mut rules = PortRules {
        protocol,
        port: number(Some(port.port))?,
        node_port: number(port.node_port),
        external_ips: parse_all(spec.external_ips.iter().flatten()),
        load_balancer_ips: load_balancer_ips.clone(),
        source_ranges: parse_all(spec.load_balancer_source_ranges.iter().flatten()),
        affinity_seconds: affinity_seconds(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        cluster: BTreeSet::new(),
        local: BTreeSet::new(),
        any_endpoint: false,
        serving: BTreeSet::new(),
    };
    let external = rules.externally_accessible();
    let states = endpoints.of(name, port.name.as_deref().unwrap_or_default(), protocol);
    let all = choose(states, |_| true);
    rules.any_endpoint = !all.is_empty();
    // Even with a local external policy, pods reach external addresses through all endpoints.
    if !rules.internal_local || external {
        rules.cluster = near(states).unwrap_or(all);
    }
    if rules.internal_local || (rules.external_local && external) {
        rules.local = choose(states, |state| state.local);
    }
    if protocol == Protocol::Udp {
        // An endpoint that publishes itself before it is ready counts as serving, too.
        let serving = states.iter().filter(|(_, s)| s.serving || s.ready);
        rules.serving = serving.map(|(endpoint, _)| *endpoint).collect();
    }
    Some(rules)
}

/// The ready endpoints among those that `may` be used; without any, the terminating ones that
/// still serve.
fn choose(
    states: &BTreeMap<Endpoint, State>,
    may: impl Fn(&State) -> bool + Copy,
) -> BTreeSet<Endpoint> {
    let pick = |wanted: fn(&State) -> bool| -> BTreeSet<Endpoint> {
        states.iter().filter(|(_, s)| may(s) && wanted(s)).map(|(e, _)| *e).collect()
    };
    let ready = pick(|s| s.ready);
    if ready.is_empty() { pick(|s| s.serving && s.terminating) } else { ready }
}

/// The ready endpoints that are meant for this node's zone. `None` when the hints cannot be
/// followed: one ready endpoint has none, or none is meant for this zone.
fn near(states: &BTreeMap<Endpoint, State>) -> Option<BTreeSet<Endpoint>> {
    let mut ready = states.iter().filter(|(_, state)| state.ready);
    if ready.clone().any(|(_, state)| state.hint == Hint::None) {
        return None;
    }
    ready.any(|(_, state)| state.hint == Hint::Here).then(|| {
        let near = states.iter().filter(|(_, state)| state.ready && state.hint == Hint::Here);
        near.map(|(endpoint, _)| *endpoint).collect()
    })
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(AFFINITY_SECONDS)
    })
}

fn number(port: Option<i32>) -> Option<u16> {
    u16::try_from(port?).ok().filter(|port| *port > 0)
}

/// Addresses of the other family, or malformed ones, are left out.
fn parse_all<'a, T: std::str::FromStr + Ord>(
    texts: impl Iterator<Item = &'a String>,
) -> BTreeSet<T> {
    texts.filter_map(|text| text.trim().parse().ok()).collect()
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    hint: Hint,
}

/// For which zones an endpoint is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hint {
    /// Nothing is said.
    #[default]
    None,
    /// This node's among them.
    Here,
    /// Others.
    Elsewhere,
}

/// Endpoints by service, port name and protocol.
#[derive(Debug, Default)]
struct Endpoints {
    by_port: BTreeMap<(ServiceName, String, Protocol), BTreeMap<Endpoint, State>>,
    none: BTreeMap<Endpoint, State>,
}

impl Endpoints {
    fn collect<'a>(
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        viewpoint: Viewpoint<'_>,
    ) -> Self {
        let mut all = Self::default();
        for slice in slices {
            let Some(service) = meta::label(&slice.metadata, SERVICE_NAME) else { continue };
            if slice.address_type != "IPv4" {
                continue;
            }
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let service = ServiceName::new(namespace, service);
            for port in slice.ports.iter().flatten() {
                let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
                let Some(number) = number(port.port) else { continue };
                let name = port.name.clone().unwrap_or_default();
                let states = all.by_port.entry((service.clone(), name, protocol)).or_default();
                for endpoint in &slice.endpoints {
                    // Consumers use the first address alone; the others are deprecated.
                    let Some(address) = endpoint.addresses.first() else { continue };
                    let Ok(address) = address.parse::<Ipv4Addr>() else { continue };
                    let state = state_of(endpoint, viewpoint);
                    let place = states.entry(Endpoint { address, port: number }).or_default();
                    // An endpoint may be in two slices for a moment; the better news wins.
                    if state.ready || !place.ready {
                        *place = state;
                    }
                }
            }
        }
        all
    }

    fn of(
        &self,
        service: &ServiceName,
        port: &str,
        protocol: Protocol,
    ) -> &BTreeMap<Endpoint, State> {
        self.by_port.get(&(service.clone(), port.to_owned(), protocol)).unwrap_or(&self.none)
    }
}

fn state_of(endpoint: &SliceEndpoint, viewpoint: Viewpoint<'_>) -> State {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    State {
        // What is not said is as the API documents it: ready and serving, not terminating.
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(viewpoint.node_name),
        hint: hint_of(endpoint, viewpoint.zone),
    }
}

fn hint_of(endpoint: &SliceEndpoint, zone: Option<&str>) -> Hint {
    let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref());
    let hints = hints.unwrap_or_default();
    if hints.is_empty() {
        Hint::None
    } else if hints.iter().any(|hint| Some(hint.name.as_str()) == zone) {
        Hint::Here
    } else {
        Hint::Elsewhere
    }
}

/// Takes away what an earlier service has claimed.
fn settle_claims(rule_set: &mut RuleSet) {
    let mut addresses = BTreeSet::new();
    let mut node_ports = BTreeSet::new();
    let mut cluster_ips = BTreeSet::new();
    rule_set.services.retain(|_, service| cluster_ips.insert(service.cluster_ip));
    for service in rule_set.services.values_mut() {
        let cluster_ip = service.cluster_ip;
        service.ports.retain(|_, port| addresses.insert((cluster_ip, port.protocol, port.port)));
    }
    for service in rule_set.services.values_mut() {
        for port in service.ports.values_mut() {
            let key = (port.protocol, port.port);
            let mut claim =
                |ip: &Ipv4Addr| !cluster_ips.contains(ip) && addresses.insert((*ip, key.0, key.1));
            port.external_ips.retain(&mut claim);
            port.load_balancer_ips.retain(&mut claim);
            let protocol = port.protocol;
            port.node_port = port.node_port.filter(|n| node_ports.insert((protocol, *n)));
        }
    }
}
