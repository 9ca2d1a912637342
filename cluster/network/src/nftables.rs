//! Service rules as one nftables table, `ip kube-proxy`.
//!
//! A packet finds its service with one look into a map of address, protocol and port, whatever
//! the number of services; the service's chain chooses an endpoint in turn; the endpoint's
//! chain translates the destination. An [`Update`] carries only what a change touches.
//!
//! Source: names and structure follow Kubernetes 1.33, `pkg/proxy/nftables/proxier.go`, so that
//! what is known about debugging it applies. It balances at random; this in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::proxy_config::MASQUERADE_MARK;
use crate::{
    Endpoint, PortRules, Protocol, ProxyConfig, RuleChange, RuleSet, ServiceName, ServiceRules,
};

mod service;
#[cfg(test)]
mod tests;

/// Family and name of the table; nothing else is ever touched.
pub const TABLE: &str = "ip kube-proxy";
/// The chain that [`is_intact`] looks at.
pub const PROBED_CHAIN: &str = "services";

/// A change as text for `nft -f -`; each part is one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What takes effect, all at once. Empty when nothing changes.
    pub change: String,
    /// Removes chains and sets that nothing refers to any more. It is apart because older
    /// kernels count references from verdict maps until their transaction has ended.
    pub cleanup: String,
}

/// Replaces the whole table in one transaction, whatever it was before.
pub fn full(config: &ProxyConfig, rule_set: &RuleSet) -> String {
    let mut objects = base();
    for (name, rules) in &rule_set.services {
        service::lower(config, name, rules, &mut objects);
    }
    let mut text = cleanup();
    let _ = writeln!(text, "add table {TABLE}");
    for collection in Collection::ALL {
        let _ = writeln!(text, "add {}", collection.declaration());
    }
    for (name, hook) in BASE_CHAINS {
        let _ = writeln!(text, "add chain {TABLE} {name} {{ {hook} ; }}");
    }
    objects.write_additions(&Objects::default(), &mut text);
    text
}

/// Removes the table if there is one.
pub fn cleanup() -> String {
    // Adding first makes the deletion succeed when there is no table.
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// A transaction that leaves nothing behind and fails where the host's `nft` or kernel lacks
/// something that [`full`] needs.
pub fn probe() -> String {
    const PROBE: &str = "ip kube-proxy-probe";
    let endpoint = |last| Endpoint { address: [10, 0, 0, last].into(), port: 1 };
    let port = PortRules {
        protocol: Protocol::Tcp,
        port: 1,
        node_port: Some(30_000),
        external_ips: BTreeSet::new(),
        load_balancer_ips: BTreeSet::new(),
        source_ranges: BTreeSet::new(),
        affinity_seconds: Some(1),
        internal_local: false,
        external_local: true,
        cluster: [endpoint(1), endpoint(2)].into(),
        local: [endpoint(1)].into(),
        any_endpoint: true,
        serving: BTreeSet::new(),
    };
    let ports = [(String::new(), port)].into();
    let rules = ServiceRules { cluster_ip: [10, 0, 0, 9].into(), ports };
    let services = [(ServiceName::new("probe", "probe"), rules)].into();
    let text = full(&ProxyConfig::default(), &RuleSet { services });
    format!("{}delete table {PROBE}\n", text.replace(TABLE, PROBE))
}

/// What `changes` mean for a table that was in line before them.
pub fn update(config: &ProxyConfig, changes: &[RuleChange]) -> Update {
    let mut before = Objects::default();
    let mut after = Objects::default();
    for change in changes {
        if let Some(rules) = &change.before {
            service::lower(config, &change.service, rules, &mut before);
        }
        if let Some(rules) = &change.after {
            service::lower(config, &change.service, rules, &mut after);
        }
    }
    let mut update = Update::default();
    after.write_additions(&before, &mut update.change);
    before.write_cleanup(&after, &mut update.cleanup);
    update
}

/// Whether a listing of [`PROBED_CHAIN`] shows that the table is still in place.
pub fn is_intact(listing: &str) -> bool {
    listing.contains("vmap @service-ips") && listing.contains("vmap @service-nodeports")
}

/// A set or map that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Collection {
    /// All cluster addresses.
    ClusterIps,
    /// Address and port of services with endpoints.
    ServiceIps,
    /// Node ports of services with endpoints.
    ServiceNodePorts,
    /// Address and port of services without endpoints.
    NoEndpointServices,
    /// Node ports of services without endpoints.
    NoEndpointNodePorts,
    /// Addresses of load balancers that not everyone may use.
    FirewallIps,
}

impl Collection {
    const ALL: [Self; 6] = [
        Self::ClusterIps,
        Self::ServiceIps,
        Self::ServiceNodePorts,
        Self::NoEndpointServices,
        Self::NoEndpointNodePorts,
        Self::FirewallIps,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceIps => "service-ips",
            Self::ServiceNodePorts => "service-nodeports",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::FirewallIps => "firewall-ips",
        }
    }

    fn declaration(self) -> String {
        let (what, type_) = match self {
            Self::ClusterIps => ("set", "ipv4_addr"),
            Self::ServiceNodePorts | Self::NoEndpointNodePorts => {
                ("map", "inet_proto . inet_service : verdict")
            }
            Self::ServiceIps | Self::NoEndpointServices | Self::FirewallIps => {
                ("map", "ipv4_addr . inet_proto . inet_service : verdict")
            }
        };
        format!("{what} {TABLE} {} {{ type {type_} ; }}", self.name())
    }
}

/// Chains that hook into the kernel. Filters run before those of others (priority 0), which may
/// drop what is to be refused.
const BASE_CHAINS: [(&str, &str); 7] = [
    ("filter-prerouting-pre-dnat", "type filter hook prerouting priority -110"),
    ("filter-input", "type filter hook input priority -110"),
    ("filter-forward", "type filter hook forward priority -110"),
    ("filter-output", "type filter hook output priority -90"),
    ("nat-prerouting", "type nat hook prerouting priority -100"),
    ("nat-output", "type nat hook output priority -100"),
    ("nat-postrouting", "type nat hook postrouting priority 100"),
];

/// Addresses of the node that serve node ports: all but loopback, to which answers from pods
/// could not return.
const NODE_ADDRESS: &str = "fib daddr type local ip daddr != 127.0.0.0/8";

/// Everything in the table that does not depend on services.
fn base() -> Objects {
    let mut objects = Objects::default();
    let destination = "ip daddr . meta l4proto . th dport";
    let mark = format!("{MASQUERADE_MARK:#x}");
    let mut chain = |name: &str, rules: &[String]| {
        objects.chains.insert(name.to_owned(), rules.to_vec());
    };
    chain("filter-prerouting-pre-dnat", &["ct state new jump firewall-check".into()]);
    chain("filter-input", &["ct state new jump nodeport-endpoints-check".into()]);
    chain(
        "filter-forward",
        &[
            // Answers that lost their translation would reach clients from an unknown address.
            "ct state invalid drop".into(),
            "ct state new jump service-endpoints-check".into(),
            "ct state new jump cluster-ips-check".into(),
        ],
    );
    chain(
        "filter-output",
        &[
            "ct state new jump service-endpoints-check".into(),
            "ct state new jump cluster-ips-check".into(),
            "ct state new jump firewall-check".into(),
        ],
    );
    chain("nat-prerouting", &["jump services".into()]);
    chain("nat-output", &["jump services".into()]);
    chain("nat-postrouting", &["jump masquerading".into()]);
    chain(
        PROBED_CHAIN,
        &[
            format!("{destination} vmap @service-ips"),
            format!("{NODE_ADDRESS} meta l4proto . th dport vmap @service-nodeports"),
        ],
    );
    chain("service-endpoints-check", &[format!("{destination} vmap @no-endpoint-services")]);
    chain(
        "nodeport-endpoints-check",
        &[format!("{NODE_ADDRESS} meta l4proto . th dport vmap @no-endpoint-nodeports")],
    );
    chain("cluster-ips-check", &["ip daddr @cluster-ips goto reject-chain".into()]);
    chain("firewall-check", &[format!("{destination} vmap @firewall-ips")]);
    // A reset ends the attempt at once, where the kernel would ignore a first ICMP message to a
    // socket of its own host and try again after a second.
    chain("reject-chain", &["meta l4proto tcp reject with tcp reset".into(), "reject".into()]);
    chain("mark-for-masquerade", &[format!("meta mark set meta mark | {mark}")]);
    chain(
        "masquerading",
        &[
            format!("meta mark & {mark} == 0 return"),
            format!("meta mark set meta mark ^ {mark}"),
            "masquerade fully-random".into(),
        ],
    );
    objects
}

/// Parts of the table: chains with their rules, dynamic sets, elements with their verdicts.
#[derive(Debug, Default)]
struct Objects {
    chains: BTreeMap<String, Vec<String>>,
    affinity_sets: BTreeSet<String>,
    elements: BTreeMap<(Collection, String), Option<String>>,
}

impl Objects {
    /// Writes what makes these objects of `before`, except for removals of chains and sets.
    fn write_additions(&self, before: &Self, text: &mut String) {
        for set in self.affinity_sets.difference(&before.affinity_sets) {
            // The time a client stays is with the rule that adds it, so that it may change.
            let _ = writeln!(
                text,
                "add set {TABLE} {set} {{ type ipv4_addr ; flags dynamic,timeout ; }}"
            );
        }
        let gone = before
            .elements
            .iter()
            .filter(|(key, value)| self.elements.get(key).is_none_or(|kept| kept != *value));
        write_elements("delete", gone.map(|(key, _)| (key, &None)), text);
        let changed: Vec<_> = self
            .chains
            .iter()
            .filter(|(name, rules)| before.chains.get(*name) != Some(*rules))
            .collect();
        for (name, _) in &changed {
            // Flushed even when new: a cleanup that failed may have left rules in it.
            let _ = writeln!(text, "add chain {TABLE} {name}\nflush chain {TABLE} {name}");
        }
        for (name, rules) in &changed {
            for rule in *rules {
                let _ = writeln!(text, "add rule {TABLE} {name} {rule}");
            }
        }
        let new = self
            .elements
            .iter()
            .filter(|(key, value)| before.elements.get(key).is_none_or(|kept| kept != *value));
        write_elements("add", new, text);
    }

    /// Writes the removal of chains and sets that are not in `after`.
    fn write_cleanup(&self, after: &Self, text: &mut String) {
        let gone: Vec<_> =
            self.chains.keys().filter(|name| !after.chains.contains_key(*name)).collect();
        for name in &gone {
            let _ = writeln!(text, "flush chain {TABLE} {name}");
        }
        for name in &gone {
            let _ = writeln!(text, "delete chain {TABLE} {name}");
        }
        for set in self.affinity_sets.difference(&after.affinity_sets) {
            let _ = writeln!(text, "delete set {TABLE} {set}");
        }
    }
}

fn write_elements<'a>(
    verb: &str,
    elements: impl Iterator<Item = (&'a (Collection, String), &'a Option<String>)>,
    text: &mut String,
) {
    let mut last = None;
    for ((collection, key), value) in elements {
        if last == Some(*collection) {
            text.push_str(" , ");
        } else {
            if last.is_some() {
                text.push_str(" }\n");
            }
            let _ = write!(text, "{verb} element {TABLE} {} {{ ", collection.name());
        }
        last = Some(*collection);
        text.push_str(key);
        if let Some(verdict) = value {
            let _ = write!(text, " : {verdict}");
        }
    }
    if last.is_some() {
        text.push_str(" }\n");
    }
}
