//! What is known of services, endpoints and namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Zone;

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Everything that answers are made of.
#[derive(Clone, Debug)]
pub struct Directory {
    pub(super) zone: Zone,
    pub(super) spaces: BTreeMap<String, Space>,
    /// Namespace and name of the service that has the address.
    pub(super) services_by_address: BTreeMap<IpAddr, (String, String)>,
    /// Namespaces and names of slices with an endpoint at the address.
    pub(super) slices_by_address: BTreeMap<IpAddr, BTreeSet<(String, String)>>,
    /// Counts the changes.
    pub(super) serial: u32,
}

/// A namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Whether the namespace itself was seen; its services may come before it.
    pub(super) exists: bool,
    pub(super) services: BTreeMap<String, Entry>,
    slices: BTreeMap<String, Slice>,
    /// Names of slices by that of their service.
    slices_of: BTreeMap<String, BTreeSet<String>>,
}

/// A service.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) form: Form,
    pub(super) ports: Vec<Port>,
}

/// What a service's name stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// Its own addresses.
    Cluster(Vec<IpAddr>),
    /// The addresses of its endpoints.
    Headless {
        /// Also of those that are not ready.
        with_unready: bool,
    },
    /// Another name.
    External(String),
}

/// A port of a service or of endpoints.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    /// In lower case.
    pub(super) protocol: String,
    pub(super) number: u16,
}

/// Some endpoints of a service.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) service: String,
    pub(super) ports: Vec<Port>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hostname: Option<String>,
    pub(super) ready: bool,
}

impl Endpoint {
    /// The label that stands for it at one of its addresses.
    pub(super) fn label(&self, address: IpAddr) -> String {
        self.hostname.clone().unwrap_or_else(|| dashed(address))
    }
}

/// `1-2-3-4`.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

impl Directory {
    /// Makes one that knows nothing yet.
    #[must_use]
    pub fn new(zone: Zone) -> Self {
        Self {
            zone,
            spaces: BTreeMap::new(),
            services_by_address: BTreeMap::new(),
            slices_by_address: BTreeMap::new(),
            serial: 1,
        }
    }

    /// How many services are known.
    #[must_use]
    pub fn services(&self) -> usize {
        self.spaces.values().map(|space| space.services.len()).sum()
    }

    /// Learns of a namespace.
    pub fn put_namespace(&mut self, name: &str) {
        self.change(name, |space| space.exists = true);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.change(name, |space| space.exists = false);
    }

    /// Forgets all namespaces.
    pub fn clear_namespaces(&mut self) {
        self.change_all(|space| space.exists = false);
    }

    /// Learns of a service as it is now.
    pub fn put_service(&mut self, service: &Service) {
        let (namespace, name) = place(&service.metadata);
        self.remove_service(&namespace, &name);
        let Some(entry) = entry(service) else { return };
        if let Form::Cluster(addresses) = &entry.form {
            for address in addresses {
                let place = (namespace.clone(), name.clone());
                self.services_by_address.insert(*address, place);
            }
        }
        self.change(&namespace, |space| {
            space.services.insert(name, entry);
        });
    }

    /// Forgets a service.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let mut gone = None;
        self.change(namespace, |space| gone = space.services.remove(name));
        let Some(Entry { form: Form::Cluster(addresses), .. }) = gone else { return };
        for address in addresses {
            // Another service may have got the address before this one's end was told.
            let own = |(n, s): &(String, String)| n == namespace && s == name;
            if self.services_by_address.get(&address).is_some_and(own) {
                self.services_by_address.remove(&address);
            }
        }
    }

    /// Forgets all services.
    pub fn clear_services(&mut self) {
        self.services_by_address.clear();
        self.change_all(|space| space.services.clear());
    }

    /// Learns of a slice as it is now.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let (namespace, name) = place(&slice.metadata);
        self.remove_slice(&namespace, &name);
        let Some(slice) = slice_of(slice) else { return };
        for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
            let place = (namespace.clone(), name.clone());
            self.slices_by_address.entry(*address).or_default().insert(place);
        }
        self.change(&namespace, |space| {
            space.slices_of.entry(slice.service.clone()).or_default().insert(name.clone());
            space.slices.insert(name, slice);
        });
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let mut gone = None;
        self.change(namespace, |space| {
            gone = space.slices.remove(name);
            let Some(service) = gone.as_ref().map(|slice| &slice.service) else { return };
            if let Some(names) = space.slices_of.get_mut(service) {
                names.remove(name);
                if names.is_empty() {
                    space.slices_of.remove(service);
                }
            }
        });
        let Some(gone) = gone else { return };
        let place = (namespace.to_owned(), name.to_owned());
        for address in gone.endpoints.iter().flat_map(|e| &e.addresses) {
            if let Some(places) = self.slices_by_address.get_mut(address) {
                places.remove(&place);
                if places.is_empty() {
                    self.slices_by_address.remove(address);
                }
            }
        }
    }

    /// Forgets all slices.
    pub fn clear_slices(&mut self) {
        self.slices_by_address.clear();
        self.change_all(|space| {
            space.slices.clear();
            space.slices_of.clear();
        });
    }

    fn change(&mut self, namespace: &str, act: impl FnOnce(&mut Space)) {
        let space = self.spaces.entry(namespace.to_owned()).or_default();
        act(space);
        if space.is_empty() {
            self.spaces.remove(namespace);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    fn change_all(&mut self, act: impl FnMut(&mut Space)) {
        self.spaces.values_mut().for_each(act);
        self.spaces.retain(|_, space| !space.is_empty());
        self.serial = self.serial.wrapping_add(1);
    }
}

impl Space {
    fn is_empty(&self) -> bool {
        !self.exists && self.services.is_empty() && self.slices.is_empty()
    }

    pub(super) fn slice(&self, name: &str) -> Option<&Slice> {
        self.slices.get(name)
    }

    /// The slices of a service, by name.
    pub(super) fn slices_of(&self, service: &str) -> impl Iterator<Item = &Slice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name))
    }
}

fn place(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn entry(service: &Service) -> Option<Entry> {
    let spec = service.spec.as_ref()?;
    let mut ips: Vec<&str> = spec.cluster_ips.iter().flatten().map(String::as_str).collect();
    if ips.is_empty() {
        ips.extend(spec.cluster_ip.as_deref());
    }
    let form = if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.as_deref()?;
        Form::External(name.trim_end_matches('.').to_ascii_lowercase())
    } else if ips.contains(&"None") {
        Form::Headless { with_unready: spec.publish_not_ready_addresses == Some(true) }
    } else {
        // One that has no address yet has no name either.
        let addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            return None;
        }
        Form::Cluster(addresses)
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port.port).ok()?,
        })
    });
    Some(Entry { form, ports: ports.collect() })
}

fn slice_of(slice: &EndpointSlice) -> Option<Slice> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port.port?).ok()?,
        })
    });
    let endpoints = slice.endpoints.iter().map(|endpoint| Endpoint {
        addresses: endpoint.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
        // What nobody says counts as ready.
        ready: endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false)),
    });
    Some(Slice { service, ports: ports.collect(), endpoints: endpoints.collect() })
}
