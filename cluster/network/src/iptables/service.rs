//! One service as chains of iptables.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Chains, Table};
use crate::chain_names::{IptablesNames, port_name};
use crate::{Endpoint, PortRules, Protocol, ProxyConfig, ServiceName, ServiceRules};

const MASQUERADE: &str = "-j KUBE-MARK-MASQ";

/// Adds the chains of a service to `chains`.
pub(super) fn lower(
    config: &ProxyConfig,
    name: &ServiceName,
    rules: &ServiceRules,
    chains: &mut Chains,
) {
    for (port_id, port) in &rules.ports {
        let mut lowering = Lowering {
            config,
            names: IptablesNames::new(name, port_id, port.protocol),
            title: port_name(name, port_id),
            cluster_ip: rules.cluster_ip,
            port,
            chains,
        };
        lowering.cluster_address();
        if port.externally_accessible() {
            lowering.external_addresses();
        }
        if port.any_endpoint {
            lowering.service_chains();
        }
    }
}

struct Lowering<'a> {
    config: &'a ProxyConfig,
    names: IptablesNames,
    title: String,
    cluster_ip: Ipv4Addr,
    port: &'a PortRules,
    chains: &'a mut Chains,
}

impl Lowering<'_> {
    fn comment(&self, text: &str) -> String {
        format!("-m comment --comment \"{}{text}\"", self.title)
    }

    /// Matches the service's protocol.
    fn protocol(&self) -> String {
        let protocol = self.port.protocol.name();
        format!("-m {protocol} -p {protocol}")
    }

    /// Matches the service's port on an address.
    fn front(&self, address: Ipv4Addr) -> String {
        format!("{} -d {address} --dport {}", self.protocol(), self.port.port)
    }

    /// What happens to traffic that finds no endpoint it may use, and why.
    const fn refusal(&self) -> (&'static str, &'static str) {
        if self.port.any_endpoint {
            (" has no local endpoints", "DROP")
        } else {
            // A reset ends the attempt at once, where the kernel would ignore a first ICMP message
            // to a socket of its own host and try again after a second.
            match self.port.protocol {
                Protocol::Tcp => (" has no endpoints", "REJECT --reject-with tcp-reset"),
                Protocol::Udp | Protocol::Sctp => (" has no endpoints", "REJECT"),
            }
        }
    }

    fn refuse(&mut self, chain: &str, matches: &str) {
        let (why, target) = self.refusal();
        let rule = format!("{} {matches} -j {target}", self.comment(why));
        self.chains.add(Table::Filter, chain, rule);
    }

    fn internal_chain(&self) -> String {
        if self.port.internal_local { self.names.local() } else { self.names.cluster() }
    }

    fn cluster_address(&mut self) {
        let front = self.front(self.cluster_ip);
        if self.port.internal_endpoints().is_empty() {
            self.refuse("KUBE-SERVICES", &front);
        } else {
            let comment = self.comment(" cluster IP");
            let rule = format!("{comment} {front} -j {}", self.internal_chain());
            self.chains.add(Table::Nat, "KUBE-SERVICES", rule);
        }
    }

    fn external_addresses(&mut self) {
        let port = self.port;
        let external = self.names.external();
        for address in &port.external_ips {
            self.external_address(*address, " external IP", &external);
        }
        let limited = !port.source_ranges.is_empty();
        let target = if limited { self.names.firewall() } else { external.clone() };
        for address in &port.load_balancer_ips {
            self.external_address(*address, " loadbalancer IP", &target);
        }
        if limited && !port.load_balancer_ips.is_empty() && port.any_endpoint {
            self.firewall_chain(&target, &external);
        }
        if let Some(node_port) = port.node_port {
            let front = format!("{} --dport {node_port}", self.protocol());
            if port.any_endpoint {
                let rule = format!("{} {front} -j {external}", self.comment(""));
                self.chains.add(Table::Nat, "KUBE-NODEPORTS", rule);
            }
            if port.external_endpoints().is_empty() {
                let matches = format!("-m addrtype --dst-type LOCAL {front}");
                self.refuse("KUBE-EXTERNAL-SERVICES", &matches);
            }
        }
    }

    fn external_address(&mut self, address: Ipv4Addr, what: &str, target: &str) {
        let front = self.front(address);
        if self.port.any_endpoint {
            let rule = format!("{} {front} -j {target}", self.comment(what));
            self.chains.add(Table::Nat, "KUBE-SERVICES", rule);
        }
        if self.port.external_endpoints().is_empty() {
            self.refuse("KUBE-EXTERNAL-SERVICES", &front);
        }
    }

    /// Sends on what comes from the load balancer's source ranges, and drops the rest, which is
    /// what still has the load balancer's address when it is filtered.
    fn firewall_chain(&mut self, chain: &str, external: &str) {
        for range in &self.port.source_ranges {
            let comment = self.comment(" loadbalancer IP");
            self.chains.add(Table::Nat, chain, format!("{comment} -s {range} -j {external}"));
        }
        for address in &self.port.load_balancer_ips {
            let comment = self.comment(&format!(" traffic not accepted by {chain}"));
            let rule = format!("{comment} {} -j DROP", self.front(*address));
            self.chains.add(Table::Filter, "KUBE-PROXY-FIREWALL", rule);
        }
    }

    fn service_chains(&mut self) {
        let port = self.port;
        let internal = self.internal_chain();
        for (chain, endpoints) in
            [(self.names.cluster(), &port.cluster), (self.names.local(), &port.local)]
        {
            if endpoints.is_empty() {
                continue;
            }
            if chain == internal {
                self.masquerade_rule(&chain);
            }
            self.balance(&chain, endpoints);
        }
        for endpoint in port.cluster.union(&port.local) {
            self.endpoint_chain(endpoint);
        }
        if port.externally_accessible() {
            self.external_chain();
        }
    }

    /// Traffic to the cluster address from elsewhere than a pod must return through this node.
    fn masquerade_rule(&mut self, chain: &str) {
        let front = self.front(self.cluster_ip);
        let from = match self.config.cluster_cidr {
            _ if self.config.masquerade_all => String::new(),
            Some(cidr) => format!("! -s {cidr} "),
            None => return,
        };
        let comment = self.comment(" cluster IP");
        let rule = format!("{comment} {from}{front} {MASQUERADE}");
        self.chains.add(Table::Nat, chain, rule);
    }

    fn balance(&mut self, chain: &str, endpoints: &BTreeSet<Endpoint>) {
        if let Some(seconds) = self.port.affinity_seconds {
            for endpoint in endpoints {
                let target = self.names.endpoint(endpoint);
                let comment = self.comment("");
                let recent = format!("-m recent --name {target} --rcheck --seconds {seconds}");
                let rule = format!("{comment} {recent} --reap -j {target}");
                self.chains.add(Table::Nat, chain, rule);
            }
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let left = endpoints.len() - index;
            // One in as many as are left, of those that came this far: an equal share.
            let share = match left {
                1 => String::new(),
                _ => format!("-m statistic --mode nth --every {left} --packet 0 "),
            };
            let comment = self.comment(&format!(" -> {endpoint}"));
            let rule = format!("{comment} {share}-j {}", self.names.endpoint(endpoint));
            self.chains.add(Table::Nat, chain, rule);
        }
    }

    fn endpoint_chain(&mut self, endpoint: &Endpoint) {
        let chain = self.names.endpoint(endpoint);
        let comment = self.comment("");
        // A pod that reaches itself through its service must see another source address, else
        // it answers itself directly.
        let hairpin = format!("{comment} -s {} {MASQUERADE}", endpoint.address);
        self.chains.add(Table::Nat, &chain, hairpin);
        let recent = match self.port.affinity_seconds {
            Some(_) => format!("-m recent --name {chain} --set "),
            None => String::new(),
        };
        let protocol = self.protocol();
        let rule = format!("{comment} {recent}{protocol} -j DNAT --to-destination {endpoint}");
        self.chains.add(Table::Nat, &chain, rule);
    }

    fn external_chain(&mut self) {
        let chain = self.names.external();
        let mut rules = Vec::new();
        let cluster = self.names.cluster();
        if self.port.external_local {
            if !self.port.cluster.is_empty() {
                if let Some(cidr) = self.config.cluster_cidr {
                    let why = self.comment(" pod traffic for external destinations");
                    rules.push(format!("{why} -s {cidr} -j {cluster}"));
                }
                let why = self.comment(" LOCAL traffic for external destinations");
                let local = format!("{why} -m addrtype --src-type LOCAL");
                rules.push(format!("{local} {MASQUERADE}"));
                rules.push(format!("{local} -j {cluster}"));
            }
            if !self.port.local.is_empty() {
                rules.push(format!("-j {}", self.names.local()));
            }
        } else {
            let why = self.comment(" traffic for external destinations");
            rules.push(format!("{why} {MASQUERADE}"));
            rules.push(format!("-j {cluster}"));
        }
        self.chains.chains.entry((Table::Nat, chain)).or_default().extend(rules);
    }
}
