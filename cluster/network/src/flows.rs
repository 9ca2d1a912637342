//! Which tracked UDP flows must be forgotten because their endpoint is gone.
//!
//! The kernel translates a flow as it did at its first packet for as long as packets keep
//! coming. TCP ends by itself when an endpoint goes; UDP does not.
//!
//! Source: Kubernetes 1.33, `pkg/proxy/conntrack/cleanup.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::{Endpoint, Protocol, RuleSet};

/// A tracked UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where its first packet went.
    pub destination: Endpoint,
    /// Where answers come from: the endpoint that was chosen, or `destination` if none was.
    pub answers_from: Endpoint,
}

/// The UDP ports of services, and the endpoints to which their flows may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCheck {
    addresses: BTreeMap<(Ipv4Addr, u16), BTreeSet<Endpoint>>,
    node_ports: BTreeMap<u16, BTreeSet<Endpoint>>,
}

impl FlowCheck {
    /// Collects the UDP ports that have endpoints. Those without are left alone: there their
    /// packets are refused, and what is tracked is of no harm.
    pub fn new(rule_set: &RuleSet) -> Self {
        let mut check = Self::default();
        for service in rule_set.services.values() {
            let udp = service.ports.values().filter(|p| p.protocol == Protocol::Udp);
            for port in udp.filter(|p| !p.serving.is_empty()) {
                let addresses = std::iter::once(&service.cluster_ip)
                    .chain(&port.external_ips)
                    .chain(&port.load_balancer_ips);
                for address in addresses {
                    check.addresses.insert((*address, port.port), port.serving.clone());
                }
                if let Some(node_port) = port.node_port {
                    check.node_ports.insert(node_port, port.serving.clone());
                }
            }
        }
        check
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether the flow must be forgotten; `local` are the addresses of this node.
    pub fn is_stale(&self, flow: &Flow, local: &BTreeSet<Ipv4Addr>) -> bool {
        let Endpoint { address, port } = flow.destination;
        let allowed = self.addresses.get(&(address, port)).or_else(|| {
            // Flows through this node to the same port elsewhere are not ours.
            local.contains(&address).then(|| self.node_ports.get(&port)).flatten()
        });
        allowed.is_some_and(|endpoints| !endpoints.contains(&flow.answers_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceName;
    use crate::service_rules::tests::assorted;

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale() {
        let mut rules = assorted();
        let dns = rules.services.get_mut(&ServiceName::new("ns", "dns")).unwrap();
        dns.ports.get_mut("dns").unwrap().node_port = Some(30_053);
        let check = FlowCheck::new(&rules);
        assert!(!check.is_empty() && FlowCheck::default().is_empty());
        let endpoint = |address: [u8; 4], port| Endpoint { address: address.into(), port };
        let local = BTreeSet::from([Ipv4Addr::new(10, 99, 0, 11)]);
        let stale =
            |destination, answers_from| check.is_stale(&Flow { destination, answers_from }, &local);
        let (alive, gone) = (endpoint([10, 244, 1, 2], 53), endpoint([10, 244, 9, 9], 53));
        let front = endpoint([10, 96, 0, 2], 53);
        assert!(!stale(front, alive));
        assert!(stale(front, gone));
        assert!(stale(front, front), "tracked when the service had no endpoints");
        assert!(!stale(endpoint([10, 96, 0, 2], 54), gone), "another port");
        let node = endpoint([10, 99, 0, 11], 30_053);
        assert!(stale(node, gone) && stale(node, node) && !stale(node, alive));
        let elsewhere = endpoint([192, 0, 2, 1], 30_053);
        assert!(!stale(elsewhere, elsewhere), "passing through");
    }
}
