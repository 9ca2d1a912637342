//! `EndpointSlice`: the addresses behind each service, in slices of up to a hundred.
//!
//! An endpoint stays in its slice as long as it exists, so that a change of one pod changes one
//! slice.
//!
//! Source: kubernetes 1.33, `pkg/controller/endpointslice`.

use std::collections::{BTreeMap, BTreeSet};

use api::hash::{fnv64, letters};
use api::{ApiObject, Key, Kind, Name, Object, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::{Announcement, Cache, Delta, Index, Memory, Plan, Reconciler};

use crate::{announce, ownership, pods, service_pods};

mod hints;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Kubernetes' default size of a slice.
const ENDPOINTS_MAX: usize = 100;

/// The longest prefix of a slice's name that leaves room for its letters.
const NAME_PREFIX_MAX: usize = 57;

/// Keeps the endpoint slices of each service with a selector.
pub struct EndpointSlices;

impl Reconciler for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Pod, Kind::Node, Kind::EndpointSlice]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        service_pods::indexes()
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::Service => vec![delta.key.clone()],
            Kind::EndpointSlice => services_of_slice(delta),
            Kind::Pod => service_pods::services_of_pod(cache, delta),
            Kind::Node => services_of_node(cache, delta),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        let Some(service) = cache.get::<Service>(&key.namespace, &key.name) else {
            memory.text = Name::default();
            return plan;
        };
        let Some(selector) = service_pods::selector(service) else { return plan };
        // The garbage collector removes the slices of a service that goes.
        if meta::is_terminating(&service.metadata) {
            return plan;
        }
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let existing: Vec<&EndpointSlice> = cache
            .owned::<EndpointSlice>(uid)
            .filter(|s| meta::label(&s.metadata, MANAGED_BY) == Some(MANAGER))
            .filter(|s| !meta::is_terminating(&s.metadata))
            .collect();
        let written = existing
            .iter()
            .filter_map(|s| s.metadata.name.as_deref())
            .filter_map(|name| cache.seen_at(&Key::new(Kind::EndpointSlice, &key.namespace, name)))
            .max();
        let count = existing.iter().map(|s| s.endpoints.len()).sum();
        if let Some(rest) = service_pods::rest(written, count, now) {
            plan.revisit_in(rest);
            return plan;
        }
        let pods: Vec<&Pod> = service_pods::selected(cache, service, selector)
            .filter(|p| service_pods::is_endpoint(p, true))
            .collect();
        let families = service_pods::families(service);
        let mut surplus: Vec<&EndpointSlice> =
            existing.iter().copied().filter(|s| !families.contains(&s.address_type)).collect();
        let mut namer = Namer::new(cache, &service.metadata);
        let mut outcomes = Vec::new();
        for family in &families {
            let present: Vec<&EndpointSlice> =
                existing.iter().copied().filter(|s| s.address_type == *family).collect();
            let (desired, outcome) = desired(cache, service, &pods, family);
            outcomes.extend(outcome.map(|outcome| (family.as_str(), outcome)));
            surplus.extend(fill(service, family, desired, &present, &mut namer, &mut plan));
        }
        plan.events.extend(hints::told(service, &outcomes, &existing, memory));
        // An address is announced anew before its old slice goes.
        for slice in surplus {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let failed = failed(service, &format!("delete {name} EndpointSlice"));
            plan.request_announced(ownership::delete(slice), failed);
        }
        plan
    }
}

/// What people are told if it fails.
fn failed(service: &Service, what: &str) -> Announcement {
    let meta = &service.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default());
    let message = format!(
        "Error updating Endpoint Slices for Service {name}: failed to {what} for Service {name}: "
    );
    let record = announce::warning(service, "FailedToUpdateEndpointSlices", message);
    announce::when_refused(record)
}

fn services_of_slice(delta: &Delta) -> Vec<Key> {
    let states = [&delta.old, &delta.new].into_iter().flatten();
    let names: BTreeSet<String> = states
        .flat_map(|object| {
            let meta = object.meta();
            let label = meta::label(meta, SERVICE_NAME).map(str::to_owned);
            let owner = meta::controller_of(meta).filter(|o| o.kind == "Service");
            label.into_iter().chain(owner.map(|o| o.name.clone()))
        })
        .collect();
    names.iter().map(|name| Key::new(Kind::Service, &delta.key.namespace, name)).collect()
}

/// A node's zone is shown with the endpoints of its pods; and what it has of processor time counts
/// where endpoints are shared out by it.
fn services_of_node(cache: &Cache, delta: &Delta) -> Vec<Key> {
    fn share(object: Option<&Object>) -> Option<(&str, u64)> {
        hints::share(object?.get::<Node>()?)
    }
    let zone = |object: &Option<Object>| {
        object.as_ref().and_then(|o| meta::label(o.meta(), ZONE)).map(str::to_owned)
    };
    let mut keys = BTreeSet::new();
    if share(delta.old.as_ref()) != share(delta.new.as_ref()) {
        let shared_out = cache.list::<Service>().filter(|s| hints::are_shared_out(s));
        keys.extend(shared_out.map(|service| {
            let meta = &service.metadata;
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            Key::new(Kind::Service, namespace, meta.name.as_deref().unwrap_or_default())
        }));
    }
    if zone(&delta.old) == zone(&delta.new) {
        return keys.into_iter().collect();
    }
    for pod in cache.pods_of_node(&delta.key.name) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref();
        keys.extend(service_pods::services_of_labels(cache, namespace, labels));
    }
    keys.into_iter().collect()
}

/// A port as it sorts: name, number, protocol, application protocol.
type Port = (String, Option<i32>, String, Option<String>);
/// The ports of a slice.
pub(crate) type Ports = BTreeSet<Port>;

/// The endpoints that there must be, by the ports they have in common and by pod UID.
type Desired = BTreeMap<Ports, BTreeMap<String, Endpoint>>;

/// Those, and what became of hints that are shared out.
fn desired(
    cache: &Cache,
    service: &Service,
    pods: &[&Pod],
    family: &str,
) -> (Desired, Option<hints::Outcome>) {
    let mut desired = Desired::new();
    for pod in pods {
        let Some(address) = service_pods::address_of(pod, family) else { continue };
        let ports: Ports = service_pods::ports(service)
            .iter()
            .filter_map(|port| {
                let number = service_pods::target_port(pod, port)?;
                let protocol = service_pods::protocol(port).to_owned();
                let name = port.name.clone().unwrap_or_default();
                Some((name, Some(number), protocol, port.app_protocol.clone()))
            })
            .collect();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let endpoint = endpoint_of(cache, service, pod, address);
        desired.entry(ports).or_default().insert(uid, endpoint);
    }
    let endpoints = desired.values_mut().flat_map(BTreeMap::values_mut);
    let outcome = hints::hint(cache, service, endpoints);
    // A service without endpoints is told from one that nobody looked at yet.
    if desired.is_empty() {
        desired.insert(Ports::new(), BTreeMap::new());
    }
    (desired, outcome)
}

fn endpoint_of(cache: &Cache, service: &Service, pod: &Pod, address: &str) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = meta::is_terminating(&pod.metadata);
    let any = service_pods::publishes_not_ready(service);
    let node = Some(pod.node()).filter(|n| !n.is_empty());
    let zone = node
        .and_then(|name| cache.get::<Node>("", name))
        .and_then(|node| meta::label(&node.metadata, ZONE));
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(any || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service_pods::hostname(pod, service),
        node_name: node.map(str::to_owned),
        target_ref: Some(service_pods::pod_reference(pod)),
        zone: zone.map(str::to_owned),
        ..Endpoint::default()
    }
}

/// Distributes the endpoints over the present slices and new ones; returns the slices that are
/// not needed any more.
fn fill<'a>(
    service: &Service,
    family: &str,
    desired: Desired,
    present: &[&'a EndpointSlice],
    namer: &mut Namer<'_>,
    plan: &mut Plan,
) -> Vec<&'a EndpointSlice> {
    let mut surplus = Vec::new();
    let mut taken = BTreeSet::new();
    for (ports, mut missing) in desired {
        let empty_wanted = missing.is_empty();
        let mut slices: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
        for slice in present.iter().filter(|s| ports_of(s) == ports) {
            taken.insert(slice.metadata.uid.clone());
            let kept = slice.endpoints.iter().filter_map(|e| missing.remove(uid_of(e)));
            slices.push((*slice, kept.take(ENDPOINTS_MAX).collect()));
        }
        // The fullest slices are filled up first, so that the emptiest ones can go.
        slices.sort_by(|a, b| {
            b.1.len().cmp(&a.1.len()).then(a.0.metadata.name.cmp(&b.0.metadata.name))
        });
        let mut waiting: Vec<Endpoint> = missing.into_values().collect();
        for (_, endpoints) in &mut slices {
            let room = ENDPOINTS_MAX.saturating_sub(endpoints.len()).min(waiting.len());
            endpoints.extend(waiting.drain(..room));
        }
        let mut any = false;
        for (slice, endpoints) in slices {
            if endpoints.is_empty() && (any || !empty_wanted) {
                surplus.push(slice);
                continue;
            }
            any = true;
            let mut updated = slice.clone();
            updated.endpoints = endpoints;
            decorate(&mut updated, service);
            if updated != *slice {
                let name = slice.metadata.name.as_deref().unwrap_or_default();
                let failed = failed(service, &format!("update {name} EndpointSlice"));
                let object = updated.into_object();
                plan.request_announced(Request::Update { object, subresource: None }, failed);
            }
        }
        let mut chunks: Vec<Vec<Endpoint>> =
            waiting.chunks(ENDPOINTS_MAX).map(<[Endpoint]>::to_vec).collect();
        if empty_wanted && !any {
            chunks.push(Vec::new());
        }
        for endpoints in chunks {
            let slice = new_slice(service, family, &ports, endpoints, namer);
            let failed = failed(service, "create EndpointSlice");
            plan.request_announced(Request::Create(slice.into_object()), failed);
        }
    }
    surplus.extend(present.iter().filter(|s| !taken.contains(&s.metadata.uid)));
    surplus
}

fn uid_of(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or_default()
}

pub(crate) fn ports_of(slice: &EndpointSlice) -> Ports {
    let port = |p: &EndpointPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (p.name.clone().unwrap_or_default(), p.port, protocol, p.app_protocol.clone())
    };
    slice.ports.iter().flatten().map(port).collect()
}

/// Ports as slices have them.
pub(crate) fn slice_ports(ports: &Ports) -> Vec<EndpointPort> {
    let port = |(name, port, protocol, app_protocol): &Port| EndpointPort {
        name: Some(name.clone()),
        port: *port,
        protocol: Some(protocol.clone()),
        app_protocol: app_protocol.clone(),
    };
    ports.iter().map(port).collect()
}

fn new_slice(
    service: &Service,
    family: &str,
    ports: &Ports,
    endpoints: Vec<Endpoint>,
    namer: &mut Namer<'_>,
) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: family.to_owned(),
        endpoints,
        ports: Some(slice_ports(ports)),
        ..EndpointSlice::default()
    };
    slice.metadata.name = Some(namer.next_name());
    slice.metadata.generate_name = Some(namer.prefix.clone());
    slice.metadata.namespace = service.metadata.namespace.clone();
    decorate(&mut slice, service);
    slice
}

/// Sets labels and owner.
fn decorate(slice: &mut EndpointSlice, service: &Service) {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    slice.metadata.labels = Some(labels);
    slice.metadata.owner_references = Some(vec![meta::controller_reference(service)]);
}

/// Names for new slices, derived from what is known: a repeated write meets itself.
pub(crate) struct Namer<'a> {
    cache: &'a Cache,
    namespace: &'a str,
    /// What the names start with.
    pub(crate) prefix: String,
    seed: String,
    next: u64,
}

impl<'a> Namer<'a> {
    /// Names for the slices of an owner.
    pub(crate) fn new(cache: &'a Cache, owner: &'a ObjectMeta) -> Self {
        let name = owner.name.as_deref().unwrap_or_default();
        let uid = owner.uid.as_deref().unwrap_or_default();
        let mut end = name.len().min(NAME_PREFIX_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            cache,
            namespace: owner.namespace.as_deref().unwrap_or_default(),
            prefix: format!("{}-", &name[..end]),
            seed: format!("{uid}/{}", cache.tombstone(uid)),
            next: 0,
        }
    }

    /// A name that no slice has yet.
    pub(crate) fn next_name(&mut self) -> String {
        loop {
            let seed = format!("{}/{}", self.seed, self.next);
            self.next += 1;
            let name = format!("{}{}", self.prefix, letters(fnv64(seed.as_bytes()), 5));
            let key = Key::new(Kind::EndpointSlice, self.namespace, &name);
            if self.cache.object(&key).is_none() {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests;
