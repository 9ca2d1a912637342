//! Mirrors `Endpoints` that somebody writes by hand, for a service without a selector, to endpoint
//! slices: kube-proxy reads nothing else.
//!
//! Source: kubernetes 1.33, `pkg/controller/endpointslicemirroring`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{ApiObject, Key, Kind, Object, Request, Time, meta};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use machine::{Cache, Delta, Plan, Reconciler};

use crate::endpoint_slice::{MANAGED_BY, Namer, Ports, SERVICE_NAME, ports_of, slice_ports};
use crate::{announce, ownership};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints were locks before there were leases.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the endpoints alone.
const OWN: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
];
/// No more addresses of a subset are mirrored; so many may be in a slice, too.
const ADDRESSES_MAX: usize = 1000;

/// Keeps the slices of endpoints that nobody else keeps.
pub struct EndpointSliceMirroring;

impl Reconciler for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Endpoints, Kind::EndpointSlice]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let key = |name: &str| Key::new(Kind::Endpoints, &delta.key.namespace, name);
        match delta.key.kind {
            Kind::EndpointSlice => {
                let states = [&delta.old, &delta.new].into_iter().flatten();
                let ours = states
                    .map(Object::meta)
                    .filter(|m| meta::label(m, MANAGED_BY) == Some(MANAGER));
                let names: BTreeSet<&str> =
                    ours.filter_map(|m| meta::label(m, SERVICE_NAME)).collect();
                names.into_iter().map(key).collect()
            }
            // Of a service only its selector matters.
            Kind::Service => {
                let selector = |object: &Option<Object>| {
                    object.as_ref().and_then(Object::get::<Service>).map(selects)
                };
                let same = selector(&delta.old) == selector(&delta.new);
                if same { Vec::new() } else { vec![key(&delta.key.name)] }
            }
            _ => vec![key(&delta.key.name)],
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let mut surplus: Vec<&EndpointSlice> = cache
            .list_in::<EndpointSlice>(&key.namespace)
            .filter(|s| meta::label(&s.metadata, MANAGED_BY) == Some(MANAGER))
            .filter(|s| meta::label(&s.metadata, SERVICE_NAME) == Some(&*key.name))
            .filter(|s| !meta::is_terminating(&s.metadata))
            .collect();
        let endpoints = cache.object(key).and_then(Object::get::<Endpoints>);
        let service = cache.get::<Service>(&key.namespace, &key.name);
        let mirrored = endpoints.filter(|e| is_mirrored(e));
        // The garbage collector removes the slices of endpoints that go with their service.
        if let Some(endpoints) = mirrored
            && service.is_none_or(|service| !selects(service))
        {
            if service.is_none() {
                return plan;
            }
            mirror(cache, endpoints, &mut surplus, &mut plan);
        }
        for slice in surplus {
            plan.request(ownership::delete(slice));
        }
        plan
    }
}

fn selects(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.selector.as_ref().is_some_and(|s| !s.is_empty()))
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    !meta::is_terminating(meta)
        && meta::label(meta, SKIP) != Some("true")
        && meta::annotation(meta, LEADER).is_none()
}

/// Endpoints with the same ports and addresses of one family share a slice.
type Groups = BTreeMap<(Ports, &'static str), Vec<Endpoint>>;

/// Writes the slices that are wanted; those that are not are left in `surplus`.
fn mirror(
    cache: &Cache,
    endpoints: &Endpoints,
    surplus: &mut Vec<&EndpointSlice>,
    plan: &mut Plan,
) {
    let mut groups = Groups::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let (wrong, left) = add(subset, &mut groups);
        invalid += wrong;
        skipped += left;
    }
    let mut namer = Namer::new(cache, &endpoints.metadata);
    for ((ports, family), members) in groups {
        let fits = |s: &&EndpointSlice| s.address_type == family && ports_of(s) == ports;
        match surplus.iter().position(fits) {
            Some(at) => {
                let slice = surplus.remove(at);
                let mut updated = slice.clone();
                updated.endpoints = members;
                decorate(&mut updated, endpoints);
                if updated != *slice {
                    let object = updated.into_object();
                    plan.request(Request::Update { object, subresource: None });
                }
            }
            None => {
                let mut slice = EndpointSlice {
                    address_type: family.to_owned(),
                    endpoints: members,
                    ports: Some(slice_ports(&ports)),
                    ..EndpointSlice::default()
                };
                slice.metadata.name = Some(namer.next_name());
                slice.metadata.generate_name = Some(namer.prefix.clone());
                slice.metadata.namespace = endpoints.metadata.namespace.clone();
                decorate(&mut slice, endpoints);
                plan.request(Request::Create(slice.into_object()));
            }
        }
    }
    // Told when something is written, not each time that it is found to be right.
    if plan.requests.is_empty() {
        return;
    }
    if invalid > 0 {
        let message =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        plan.events.push(announce::warning(endpoints, "InvalidIPAddress", message));
    }
    if skipped > 0 {
        let message = format!(
            "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints \
             subset. {} addresses were skipped",
            skipped + invalid
        );
        plan.events.push(announce::warning(endpoints, "TooManyAddressesToMirror", message));
    }
}

/// Adds the endpoints of a subset. Returns how many addresses are none, and how many are too many.
fn add(subset: &EndpointSubset, groups: &mut Groups) -> (usize, usize) {
    let port = |p: &k8s_openapi::api::core::v1::EndpointPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (p.name.clone().unwrap_or_default(), Some(p.port), protocol, p.app_protocol.clone())
    };
    let ports: Ports = subset.ports.iter().flatten().map(port).collect();
    let all = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
    let (mut added, mut invalid, mut skipped) = (0, 0, 0);
    for (address, ready) in
        all.into_iter().flat_map(|(list, ready)| list.iter().flatten().map(move |a| (a, ready)))
    {
        if added == ADDRESSES_MAX {
            skipped += 1;
            continue;
        }
        let family = match address.ip.parse() {
            Ok(IpAddr::V4(_)) => "IPv4",
            Ok(IpAddr::V6(_)) => "IPv6",
            Err(_) => {
                invalid += 1;
                continue;
            }
        };
        let members = groups.entry((ports.clone(), family)).or_default();
        if members.len() == ADDRESSES_MAX {
            skipped += 1;
            continue;
        }
        members.push(endpoint_of(address, ready));
        added += 1;
    }
    (invalid, skipped)
}

fn endpoint_of(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// Sets labels, annotations and owner.
fn decorate(slice: &mut EndpointSlice, endpoints: &Endpoints) {
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), meta.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    slice.metadata.labels = Some(labels);
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN.contains(&name.as_str()));
    slice.metadata.annotations = Some(annotations).filter(|a| !a.is_empty());
    slice.metadata.owner_references = Some(vec![meta::controller_reference(endpoints)]);
}

#[cfg(test)]
mod tests;
