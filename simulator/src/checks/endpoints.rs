//! Endpoints of services: P42.

use std::collections::BTreeSet;

use api::{Key, Kind, Object, Pod};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::check::{Check, Cluster, Occurrence};
use crate::oracle;

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Beyond this many addresses an `Endpoints` object is cut off.
const ADDRESSES_MAX: usize = 1_000;

/// Addresses of pods behind a service.
#[derive(Debug, Default, PartialEq, Eq)]
struct Addresses {
    ready: BTreeSet<String>,
    not_ready: BTreeSet<String>,
}

/// The addresses that a service should have; `None` when they are not derived from pods, or
/// depend on the names of ports.
fn wanted(cluster: &dyn Cluster, service: &Service) -> Option<Addresses> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.clone().filter(|s| !s.is_empty())?;
    let named = |target: &IntOrString| matches!(target, IntOrString::String(_));
    let mut ports = spec.ports.iter().flatten();
    if spec.type_.as_deref() == Some("ExternalName")
        || spec.ports.as_ref().is_none_or(Vec::is_empty)
        || ports.any(|p| p.target_port.as_ref().is_some_and(named))
    {
        return None;
    }
    let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    let any = spec.publish_not_ready_addresses == Some(true);
    let mut addresses = Addresses::default();
    for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
        let matches = pod.metadata.namespace == service.metadata.namespace
            && oracle::selects(&selector, pod.metadata.labels.as_ref());
        let address = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
        let Some(address) = address.filter(|a| matches && !a.is_empty()) else { continue };
        if oracle::is_active(pod) {
            let ready = any || oracle::is_ready(pod);
            let set = if ready { &mut addresses.ready } else { &mut addresses.not_ready };
            set.insert(address);
        }
    }
    Some(addresses)
}

fn in_endpoints(endpoints: Option<&Endpoints>) -> Addresses {
    let mut addresses = Addresses::default();
    for subset in endpoints.iter().flat_map(|e| e.subsets.iter().flatten()) {
        let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
            list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>()
        };
        addresses.ready.extend(ips(&subset.addresses));
        addresses.not_ready.extend(ips(&subset.not_ready_addresses));
    }
    addresses
}

fn in_slices(cluster: &dyn Cluster, service: &Key) -> Addresses {
    let mut addresses = Addresses::default();
    for slice in cluster.objects(Kind::EndpointSlice).filter_map(Object::get::<EndpointSlice>) {
        let meta = &slice.metadata;
        let name = meta.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
        if meta.namespace.as_deref() != Some(&*service.namespace)
            || name.map(String::as_str) != Some(&*service.name)
        {
            continue;
        }
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // What is not said counts as ready.
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let going = conditions.and_then(|c| c.terminating).unwrap_or(false);
            if ready {
                addresses.ready.extend(endpoint.addresses.iter().cloned());
            } else if !going {
                addresses.not_ready.extend(endpoint.addresses.iter().cloned());
            }
        }
    }
    addresses
}

fn compare(of: &str, service: &Key, is: &Addresses, wanted: &Addresses, found: &mut Vec<String>) {
    if is == wanted {
        return;
    }
    let missing = oracle::some_of(wanted.ready.difference(&is.ready));
    let wrong = oracle::some_of(is.ready.difference(&wanted.ready));
    found.push(format!(
        "{of} of {service} have {} ready and {} other addresses at rest, and {} and {} are right; \
         ready ones missing: {missing}, wrong: {wrong}",
        is.ready.len(),
        is.not_ready.len(),
        wanted.ready.len(),
        wanted.not_ready.len()
    ));
}

/// P42: at rest the endpoints of a service are the pods that it selects, and those are ready that
/// are.
#[derive(Clone, Default)]
pub(super) struct EndpointsAreRight;

impl Check for EndpointsAreRight {
    fn property(&self) -> &'static str {
        "P42"
    }

    fn statement(&self) -> &'static str {
        "at rest the endpoints of a service are the pods that it selects"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::Service) {
            let Some(service) = object.get::<Service>() else { continue };
            if oracle::is_going(&service.metadata) {
                continue;
            }
            let Some(wanted) = wanted(cluster, service) else { continue };
            let key = object.key();
            if wanted.ready.len() + wanted.not_ready.len() <= ADDRESSES_MAX {
                let endpoints = Key::new(Kind::Endpoints, &key.namespace, &key.name);
                let endpoints = cluster.object(&endpoints).and_then(Object::get);
                compare("the endpoints", &key, &in_endpoints(endpoints), &wanted, found);
            }
            compare("the slices", &key, &in_slices(cluster, &key), &wanted, found);
        }
    }
}

#[cfg(test)]
mod tests;
