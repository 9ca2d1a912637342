//! Endpoints and endpoint slices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::field::{Causes, Path};
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
/// Endpoints, addresses and ports of one slice.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub(super) fn endpoints(endpoints: &Endpoints, causes: &mut Causes) {
    for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let at = Path::new("subsets");
        let at = at.index(i);
        let ready = subset.addresses.as_deref().unwrap_or_default();
        let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && not_ready.is_empty() {
            causes.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for (list, field) in [(ready, "addresses"), (not_ready, "notReadyAddresses")] {
            for (j, one) in list.iter().enumerate() {
                address(one, &at.child(field).index(j), causes);
            }
        }
        let ports = subset.ports.as_deref().unwrap_or_default();
        for (j, port) in ports.iter().enumerate() {
            let at = at.child("ports");
            let at = at.index(j);
            match port.name.as_deref().unwrap_or_default() {
                "" if ports.len() > 1 => causes.required(&at.child("name"), ""),
                "" => {}
                name => causes.invalid_each(&at.child("name"), name, names::label(name)),
            }
            if !names::is_port(i64::from(port.port)) {
                causes.invalid(&at.child("port"), port.port, names::PORT_RANGE);
            }
            let protocol = port.protocol.as_deref().unwrap_or_default();
            if !PROTOCOLS.contains(&protocol) {
                causes.not_supported(&at.child("protocol"), protocol, &PROTOCOLS);
            }
        }
    }
}

fn address(address: &EndpointAddress, path: &Path<'_>, causes: &mut Causes) {
    host(&address.ip, &path.child("ip"), causes);
    if let Some(name) = &address.hostname {
        causes.invalid_each(&path.child("hostname"), name, names::label(name));
    }
    if let Some(name) = &address.node_name {
        causes.invalid_each(&path.child("nodeName"), name, names::subdomain(name));
    }
}

/// Checks an address that other hosts can reach.
fn host(text: &str, path: &Path<'_>, causes: &mut Causes) {
    let Some(ip) = names::ip(text) else {
        return causes.invalid(path, text, names::NO_IP);
    };
    if ip.is_unspecified() {
        causes.invalid(path, text, &format!("may not be unspecified ({ip})"));
    }
    if ip.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        causes.invalid(path, text, detail);
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if link_local {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        causes.invalid(path, text, detail);
    }
    let link_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    if link_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        causes.invalid(path, text, detail);
    }
}

pub(super) fn slice_create(slice: &EndpointSlice, causes: &mut Causes) {
    let kind = slice.address_type.as_str();
    let at = Path::new("addressType");
    if kind.is_empty() {
        causes.required(&at, "");
    } else if !ADDRESS_TYPES.contains(&kind) {
        causes.not_supported(&at, kind, &ADDRESS_TYPES);
    }
}

pub(super) fn slice(slice: &EndpointSlice, causes: &mut Causes) {
    let path = Path::new("endpoints");
    if slice.endpoints.len() > ENDPOINTS_MAX {
        return causes.too_many(&path, slice.endpoints.len(), ENDPOINTS_MAX);
    }
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        let at = path.index(i);
        let list = at.child("addresses");
        if endpoint.addresses.is_empty() {
            causes.required(&list, "must contain at least 1 address");
        } else if endpoint.addresses.len() > ADDRESSES_MAX {
            causes.too_many(&list, endpoint.addresses.len(), ADDRESSES_MAX);
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let at = list.index(j);
            match slice.address_type.as_str() {
                "FQDN" => causes.invalid_each(&at, address, names::subdomain(address)),
                "IPv4" | "IPv6" => {
                    let v4 = slice.address_type == "IPv4";
                    host(address, &at, causes);
                    if names::ip(address).is_some_and(|ip| ip.is_ipv4() != v4) {
                        let detail = format!("must be an {} address", slice.address_type);
                        causes.invalid(&at, address, &detail);
                    }
                }
                _ => {}
            }
        }
        if let Some(name) = &endpoint.node_name {
            causes.invalid_each(&at.child("nodeName"), name, names::subdomain(name));
        }
        if let Some(name) = &endpoint.hostname {
            causes.invalid_each(&at.child("hostname"), name, names::label(name));
        }
    }
    slice_ports(slice, causes);
}

fn slice_ports(slice: &EndpointSlice, causes: &mut Causes) {
    let path = Path::new("ports");
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.len() > PORTS_MAX {
        return causes.too_many(&path, ports.len(), PORTS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            causes.invalid_each(&at.child("name"), name, names::label(name));
        }
        if !seen.insert(name) {
            causes.duplicate(&at.child("name"), name);
        }
        match port.protocol.as_deref() {
            None => causes.required(&at.child("protocol"), ""),
            Some(protocol) if !PROTOCOLS.contains(&protocol) => {
                causes.not_supported(&at.child("protocol"), protocol, &PROTOCOLS);
            }
            Some(_) => {}
        }
    }
}
