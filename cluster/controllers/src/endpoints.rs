//! `Endpoints`: the addresses behind each service, in the old form.
//!
//! Source: kubernetes 1.33, `pkg/controller/endpoint/endpoints_controller.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApiObject, Key, Kind, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints as EndpointsObject, Service,
};
use machine::{Cache, Delta, Index, Plan, Reconciler};

use crate::{announce, ownership, pods, service_pods};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// More addresses than this make the object too large to send to every node on each change.
const ADDRESSES_MAX: usize = 1000;

/// Keeps an `Endpoints` object for each service with a selector.
pub struct Endpoints;

impl Reconciler for Endpoints {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Pod, Kind::Endpoints]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        service_pods::indexes()
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::Service => vec![delta.key.clone()],
            Kind::Endpoints => {
                vec![Key::new(Kind::Service, &delta.key.namespace, &delta.key.name)]
            }
            Kind::Pod => service_pods::services_of_pod(cache, delta),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let current = cache.get::<EndpointsObject>(&key.namespace, &key.name);
        let Some(service) = cache.get::<Service>(&key.namespace, &key.name) else {
            // Endpoints that somebody else made without a service are not ours to delete.
            if let Some(current) =
                current.filter(|e| meta::label(&e.metadata, MANAGED_BY) == Some(MANAGER))
            {
                plan.request(ownership::delete(current));
            }
            return plan;
        };
        let Some(selector) = service_pods::selector(service) else { return plan };
        if meta::is_terminating(&service.metadata) {
            return plan;
        }
        let written = cache.seen_at(&Key { kind: Kind::Endpoints, ..key.clone() });
        if let Some(rest) = service_pods::rest(written, current.map_or(0, count), now) {
            plan.revisit_in(rest);
            return plan;
        }
        let (subsets, truncated) =
            subsets_of(service, service_pods::selected(cache, service, selector));
        let mut wanted = current.cloned().unwrap_or_default();
        wanted.metadata.name = service.metadata.name.clone();
        wanted.metadata.namespace = service.metadata.namespace.clone();
        wanted.metadata.labels = Some(labels_of(service));
        note_truncation(&mut wanted, truncated);
        wanted.subsets = Some(subsets).filter(|s| !s.is_empty());
        let failed = |reason: &str, what: &str| {
            let message = format!("Failed to {what} {}/{}: ", key.namespace, key.name);
            announce::when_refused(announce::warning(&wanted, reason, message))
        };
        match current {
            None => {
                let failed = failed("FailedToCreateEndpoint", "create endpoint for service");
                plan.request_announced(Request::Create(wanted.into_object()), failed);
            }
            Some(current) if *current == wanted => {}
            Some(_) => {
                let failed = failed("FailedToUpdateEndpoint", "update endpoint");
                let object = wanted.into_object();
                plan.request_announced(Request::Update { object, subresource: None }, failed);
            }
        }
        plan
    }
}

/// How many addresses there are.
fn count(endpoints: &EndpointsObject) -> usize {
    let of = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let subsets = endpoints.subsets.iter().flatten();
    subsets.map(|s| of(&s.addresses) + of(&s.not_ready_addresses)).sum()
}

fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn note_truncation(endpoints: &mut EndpointsObject, truncated: bool) {
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        endpoints.metadata.annotations = None;
    }
}

/// A port as it sorts: name, number, protocol, application protocol.
type Port = (Option<String>, i32, String, Option<String>);

struct Row {
    address: EndpointAddress,
    ready: bool,
    ports: BTreeSet<Port>,
}

/// Addresses with the same ports share a subset. Ready addresses are kept first when there are
/// too many.
fn subsets_of<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
) -> (Vec<EndpointSubset>, bool) {
    let mut rows: Vec<Row> = pods.filter_map(|pod| row_of(service, pod)).collect();
    fn place(row: &Row) -> (&str, Option<&str>) {
        let target = row.address.target_ref.as_ref();
        (&row.address.ip, target.and_then(|t| t.uid.as_deref()))
    }
    rows.sort_by(|a, b| place(a).cmp(&place(b)));
    let truncated = rows.len() > ADDRESSES_MAX;
    if truncated {
        rows.sort_by_key(|r| !r.ready);
        rows.truncate(ADDRESSES_MAX);
    }
    let mut groups: BTreeMap<BTreeSet<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for row in rows {
        let (ready, not_ready) = groups.entry(row.ports).or_default();
        if row.ready { ready } else { not_ready }.push(row.address);
    }
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|l| !l.is_empty());
    let subsets = groups
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: Some(ports.into_iter().map(port_object).collect())
                .filter(|p: &Vec<_>| !p.is_empty()),
        })
        .collect();
    (subsets, truncated)
}

fn port_object((name, port, protocol, app_protocol): Port) -> EndpointPort {
    EndpointPort { app_protocol, name, port, protocol: Some(protocol) }
}

fn row_of(service: &Service, pod: &Pod) -> Option<Row> {
    let any = service_pods::publishes_not_ready(service);
    if !service_pods::is_endpoint(pod, any) {
        return None;
    }
    let family = service_pods::families(service).into_iter().next()?;
    let ports: BTreeSet<Port> = service_pods::ports(service)
        .iter()
        .filter_map(|port| {
            let number = service_pods::target_port(pod, port)?;
            let name = port.name.clone().filter(|n| !n.is_empty());
            let protocol = service_pods::protocol(port).to_owned();
            Some((name, number, protocol, port.app_protocol.clone()))
        })
        .collect();
    // Only a headless service may do without ports.
    let portless = service_pods::ports(service).is_empty() && service_pods::is_headless(service);
    if ports.is_empty() && !portless {
        return None;
    }
    let address = EndpointAddress {
        ip: service_pods::address_of(pod, &family)?.to_owned(),
        hostname: service_pods::hostname(pod, service),
        node_name: Some(pod.node().to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(service_pods::pod_reference(pod)),
    };
    Some(Row { address, ready: any || pods::is_ready(pod), ports })
}

#[cfg(test)]
pub(crate) mod tests;
