//! One service as chains, sets and elements.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Collection, Objects};
use crate::chain_names::NftablesNames;
use crate::{Endpoint, PortRules, ProxyConfig, ServiceName, ServiceRules};

const REJECT: &str = "goto reject-chain";
const DROP: &str = "drop";
const MASQUERADE: &str = "jump mark-for-masquerade";

/// Adds the objects of a service to `objects`.
pub(super) fn lower(
    config: &ProxyConfig,
    name: &ServiceName,
    rules: &ServiceRules,
    objects: &mut Objects,
) {
    let ip = rules.cluster_ip;
    objects.elements.insert((Collection::ClusterIps, ip.to_string()), None);
    for (port_name, port) in &rules.ports {
        let names = NftablesNames::new(name, port_name, port.protocol);
        let mut lowering = Lowering { config, names, cluster_ip: ip, port, objects };
        lowering.cluster_address();
        if port.externally_accessible() {
            lowering.external_addresses();
        }
        if port.any_endpoint {
            lowering.chains();
        }
    }
}

struct Lowering<'a> {
    config: &'a ProxyConfig,
    names: NftablesNames,
    cluster_ip: Ipv4Addr,
    port: &'a PortRules,
    objects: &'a mut Objects,
}

impl Lowering<'_> {
    fn element(&mut self, collection: Collection, key: String, verdict: &str) {
        self.objects.elements.insert((collection, key), Some(verdict.to_owned()));
    }

    /// The key of an address in the maps of services.
    fn front(&self, address: Ipv4Addr) -> String {
        format!("{address} . {} . {}", self.port.protocol.name(), self.port.port)
    }

    /// What happens to traffic that finds no endpoint it may use.
    const fn refusal(&self) -> &'static str {
        if self.port.any_endpoint { DROP } else { REJECT }
    }

    fn internal_chain(&self) -> String {
        if self.port.internal_local { self.names.local() } else { self.names.cluster() }
    }

    fn cluster_address(&mut self) {
        let front = self.front(self.cluster_ip);
        if self.port.internal_endpoints().is_empty() {
            self.element(Collection::NoEndpointServices, front, self.refusal());
        } else {
            let verdict = format!("goto {}", self.internal_chain());
            self.element(Collection::ServiceIps, front, &verdict);
        }
    }

    fn external_addresses(&mut self) {
        let port = self.port;
        let refused = port.external_endpoints().is_empty();
        let external = format!("goto {}", self.names.external());
        for address in port.external_ips.union(&port.load_balancer_ips) {
            let front = self.front(*address);
            if port.any_endpoint {
                self.element(Collection::ServiceIps, front.clone(), &external);
            }
            if refused {
                self.element(Collection::NoEndpointServices, front, self.refusal());
            }
        }
        if let Some(node_port) = port.node_port {
            let front = format!("{} . {node_port}", port.protocol.name());
            if port.any_endpoint {
                self.element(Collection::ServiceNodePorts, front.clone(), &external);
            }
            if refused {
                self.element(Collection::NoEndpointNodePorts, front, self.refusal());
            }
        }
        if !port.source_ranges.is_empty() && !port.load_balancer_ips.is_empty() {
            let chain = self.names.firewall();
            for address in &port.load_balancer_ips {
                let front = self.front(*address);
                self.element(Collection::FirewallIps, front, &format!("goto {chain}"));
            }
            let ranges: Vec<String> = port.source_ranges.iter().map(ToString::to_string).collect();
            let rule = format!("ip saddr != {{ {} }} drop", ranges.join(" , "));
            self.objects.chains.insert(chain, vec![rule]);
        }
    }

    fn chains(&mut self) {
        let port = self.port;
        let internal = self.internal_chain();
        for (chain, endpoints) in
            [(self.names.cluster(), &port.cluster), (self.names.local(), &port.local)]
        {
            if endpoints.is_empty() {
                continue;
            }
            let mut rules = Vec::new();
            if chain == internal {
                rules.extend(self.masquerade_rule());
            }
            self.balance(endpoints, &mut rules);
            self.objects.chains.insert(chain, rules);
        }
        for endpoint in port.cluster.union(&port.local) {
            self.endpoint_chain(endpoint);
        }
        if port.externally_accessible() {
            self.external_chain();
        }
    }

    /// Traffic to the cluster address from elsewhere than a pod must return through this node.
    fn masquerade_rule(&self) -> Option<String> {
        let to = format!(
            "ip daddr {} {} dport {}",
            self.cluster_ip,
            self.port.protocol.name(),
            self.port.port
        );
        if self.config.masquerade_all {
            return Some(format!("{to} {MASQUERADE}"));
        }
        let cidr = self.config.cluster_cidr?;
        Some(format!("{to} ip saddr != {cidr} {MASQUERADE}"))
    }

    fn balance(&self, endpoints: &BTreeSet<Endpoint>, rules: &mut Vec<String>) {
        if self.port.affinity_seconds.is_some() {
            rules.extend(endpoints.iter().map(|endpoint| {
                let (set, chain) = (self.names.affinity(endpoint), self.names.endpoint(endpoint));
                format!("ip saddr @{set} goto {chain}")
            }));
        }
        let targets: Vec<String> =
            endpoints.iter().map(|e| format!("goto {}", self.names.endpoint(e))).collect();
        match targets.as_slice() {
            [only] => rules.push(only.clone()),
            several => {
                let choices: Vec<String> =
                    several.iter().enumerate().map(|(i, t)| format!("{i} : {t}")).collect();
                let (count, choices) = (several.len(), choices.join(" , "));
                rules.push(format!("numgen inc mod {count} vmap {{ {choices} }}"));
            }
        }
    }

    fn endpoint_chain(&mut self, endpoint: &Endpoint) {
        let protocol = self.port.protocol.name();
        // A pod that reaches itself through its service must see another source address, else
        // it answers itself directly.
        let mut rules = vec![format!("ip saddr {} {MASQUERADE}", endpoint.address)];
        if let Some(seconds) = self.port.affinity_seconds {
            let set = self.names.affinity(endpoint);
            rules.push(format!("update @{set} {{ ip saddr timeout {seconds}s }}"));
            self.objects.affinity_sets.insert(set);
        }
        rules.push(format!("meta l4proto {protocol} dnat to {endpoint}"));
        self.objects.chains.insert(self.names.endpoint(endpoint), rules);
    }

    fn external_chain(&mut self) {
        let mut rules = Vec::new();
        let cluster = self.names.cluster();
        if self.port.external_local {
            if !self.port.cluster.is_empty() {
                if let Some(cidr) = self.config.cluster_cidr {
                    rules.push(format!("ip saddr {cidr} goto {cluster}"));
                }
                rules.push(format!("fib saddr type local {MASQUERADE}"));
                rules.push(format!("fib saddr type local goto {cluster}"));
            }
            if !self.port.local.is_empty() {
                rules.push(format!("goto {}", self.names.local()));
            }
        } else {
            rules.push(MASQUERADE.to_owned());
            rules.push(format!("goto {cluster}"));
        }
        self.objects.chains.insert(self.names.external(), rules);
    }
}
