//! What services should do with packets on one node: [`desired`] computes it from API objects,
//! [`diff`] finds what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

mod desired;
#[cfg(test)]
pub(crate) mod tests;

pub use desired::{Viewpoint, desired};

/// All services of a node that forward packets, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Headless services, `ExternalName` services and services that another proxy serves are
    /// not among them.
    pub services: BTreeMap<ServiceName, ServiceRules>,
}

impl RuleSet {
    /// Makes one change.
    pub fn apply(&mut self, change: RuleChange) {
        match change.after {
            Some(rules) => self.services.insert(change.service, rules),
            None => self.services.remove(&change.service),
        };
    }
}

/// One service that appears, changes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleChange {
    /// The service.
    pub service: ServiceName,
    /// Its rules before; `None` when it is new.
    pub before: Option<ServiceRules>,
    /// Its rules from now on; `None` when it goes.
    pub after: Option<ServiceRules>,
}

/// The changes that turn `current` into `desired`, ordered by service.
pub fn diff(current: &RuleSet, desired: &RuleSet) -> Vec<RuleChange> {
    let names: BTreeSet<&ServiceName> =
        current.services.keys().chain(desired.services.keys()).collect();
    names
        .into_iter()
        .map(|name| (name, current.services.get(name), desired.services.get(name)))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| RuleChange {
            service: name.clone(),
            before: before.cloned(),
            after: after.cloned(),
        })
        .collect()
}

/// Namespace and name of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ServiceName {
    /// Names a service.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service's address and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRules {
    /// The cluster address.
    pub cluster_ip: Ipv4Addr,
    /// Its ports by name; the only port of a service may have an empty name.
    pub ports: BTreeMap<String, PortRules>,
}

/// What one port of a service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRules {
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the cluster address and on external addresses.
    pub port: u16,
    /// The port on every address of the node but loopback.
    pub node_port: Option<u16>,
    /// Addresses outside of the cluster that are routed to its nodes.
    pub external_ips: BTreeSet<Ipv4Addr>,
    /// Addresses of the service's load balancers that keep them on delivery.
    pub load_balancer_ips: BTreeSet<Ipv4Addr>,
    /// Who may use the load balancer's addresses; anyone when empty.
    pub source_ranges: BTreeSet<Ipv4Net>,
    /// How long a client stays with its endpoint, in seconds; `None`: each connection is
    /// balanced.
    pub affinity_seconds: Option<u32>,
    /// Traffic to the cluster address stays on the node.
    pub internal_local: bool,
    /// Traffic from outside stays on the node and keeps its source address.
    pub external_local: bool,
    /// The endpoints of the whole cluster; empty when no traffic may use them.
    pub cluster: BTreeSet<Endpoint>,
    /// The endpoints on this node; empty when no traffic is bound to the node.
    pub local: BTreeSet<Endpoint>,
    /// Whether any endpoint serves at all: without one connections are refused, with others
    /// that may not be used they are dropped.
    pub any_endpoint: bool,
    /// For UDP: all endpoints that still serve, to which flows may go on.
    pub serving: BTreeSet<Endpoint>,
}

impl PortRules {
    /// Whether traffic from outside of the cluster can arrive.
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some()
            || !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
    }

    /// The endpoints of traffic to the cluster address.
    pub const fn internal_endpoints(&self) -> &BTreeSet<Endpoint> {
        if self.internal_local { &self.local } else { &self.cluster }
    }

    /// The endpoints of traffic to node ports and external addresses.
    pub const fn external_endpoints(&self) -> &BTreeSet<Endpoint> {
        if self.external_local { &self.local } else { &self.cluster }
    }
}

/// A transport protocol of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in packet filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Parses the name that API objects use; an absent one means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Where traffic ends: an address and a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}
