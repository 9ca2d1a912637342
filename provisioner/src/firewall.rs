//! What a host's firewall must let through, and how each kind of firewall says so.
//!
//! [`Opening`]s come from the inventory; [`rules`] turns them into the rules of the firewall that
//! the facts found. A rule is one line of text that carries all that is needed to add it, to find
//! it again and to take it away, so the record of a host holds rules and nothing else. Pure: the
//! commands are in `host::script`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::inventory::FirewallPolicy;
use crate::state::Protocol;

#[cfg(test)]
mod tests;

/// What the inventory wants of a host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallState {
    /// What is done about one that is on.
    pub policy: FirewallPolicy,
    /// The host's address: its interface tells the zone of firewalld.
    pub address: Option<Ipv4Addr>,
    /// What must pass.
    pub openings: BTreeSet<Opening>,
}

impl Default for FirewallState {
    fn default() -> Self {
        Self { policy: FirewallPolicy::Auto, address: None, openings: BTreeSet::new() }
    }
}

/// Something that must pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// Packets to a port of the host.
    Port {
        /// TCP or UDP.
        protocol: Protocol,
        /// Port number.
        port: u16,
        /// Who may send them; `None` for anyone.
        from: Option<BTreeSet<Ipv4Net>>,
    },
    /// Packets of GRE tunnels, which have no ports.
    Gre {
        /// Who may send them.
        from: BTreeSet<Ipv4Net>,
    },
    /// Packets that the host forwards from and to pods.
    Pods {
        /// Addresses of all pods.
        range: Ipv4Net,
    },
}

impl Opening {
    /// A port for these hosts alone; `None` when there are none, and so nothing to open.
    ///
    /// The addresses are joined to the fewest ranges that hold them and nobody else.
    pub fn port_for(
        protocol: Protocol,
        port: u16,
        hosts: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Option<Self> {
        let from = joined(hosts);
        (!from.is_empty()).then_some(Self::Port { protocol, port, from: Some(from) })
    }

    /// GRE for these hosts alone; `None` when there are none.
    pub fn gre_for(hosts: impl IntoIterator<Item = Ipv4Addr>) -> Option<Self> {
        let from = joined(hosts);
        (!from.is_empty()).then_some(Self::Gre { from })
    }
}

/// The fewest ranges that hold these addresses and nobody else.
fn joined(hosts: impl IntoIterator<Item = Ipv4Addr>) -> BTreeSet<Ipv4Net> {
    let single: Vec<_> = hosts.into_iter().map(Ipv4Net::from).collect();
    Ipv4Net::aggregate(&single).into_iter().collect()
}

/// A kind of firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallKind {
    /// The daemon of Red Hat's family.
    Firewalld,
    /// Ubuntu's front end.
    Ufw,
    /// `iptables.service`, which loads `/etc/sysconfig/iptables`.
    Iptables,
    /// `nftables.service`, which loads `/etc/nftables.conf` or `/etc/sysconfig/nftables.conf`.
    Nftables,
}

impl FirewallKind {
    /// All kinds, in the order in which a host is asked for them.
    pub const ALL: [Self; 4] = [Self::Firewalld, Self::Ufw, Self::Iptables, Self::Nftables];

    /// The name in reports, facts and scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How a rule is found again among those of the host: by its text, or by the mark in it.
    #[must_use]
    pub fn key(self, rule: &str) -> String {
        match self {
            Self::Firewalld | Self::Ufw => rule.to_owned(),
            Self::Iptables | Self::Nftables => mark_in(rule).unwrap_or(rule).to_owned(),
        }
    }
}

impl fmt::Display for FirewallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A firewall that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallFact {
    /// Its kind.
    pub kind: FirewallKind,
    /// The zone of the host's interface, for firewalld.
    pub zone: String,
    /// The chains that judge packets to the host, `FAMILY TABLE CHAIN`, for nftables.
    pub input: BTreeSet<String>,
    /// The chains that judge packets that the host forwards, for nftables.
    pub forward: BTreeSet<String>,
    /// Keys of rules that a start of the firewall loads.
    pub permanent: BTreeSet<String>,
    /// Keys of rules that hold now.
    pub runtime: BTreeSet<String>,
}

impl FirewallFact {
    /// A firewall of this kind without any rule that matters.
    #[must_use]
    pub fn new(kind: FirewallKind) -> Self {
        Self {
            kind,
            zone: "public".to_owned(),
            input: BTreeSet::new(),
            forward: BTreeSet::new(),
            permanent: BTreeSet::new(),
            runtime: BTreeSet::new(),
        }
    }

    /// Whether the rule is there now and after a start.
    #[must_use]
    pub fn has(&self, rule: &str) -> bool {
        let key = self.kind.key(rule);
        self.permanent.contains(&key) && self.runtime.contains(&key)
    }

    /// Whether a start would load the rule.
    #[must_use]
    pub fn keeps(&self, rule: &str) -> bool {
        self.permanent.contains(&self.kind.key(rule))
    }
}

/// A change of a host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields say what the variant's sentence says")]
pub enum FirewallChange {
    /// Adds and removes rules, now and for the next start.
    Rules { kind: FirewallKind, open: BTreeSet<String>, close: BTreeSet<String> },
    /// Switches the whole firewall on or off, now and for the next boot.
    Switch { kind: FirewallKind, on: bool },
}

impl FirewallChange {
    /// The change that takes this one back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self {
            Self::Rules { kind, open, close } => {
                Self::Rules { kind: *kind, open: close.clone(), close: open.clone() }
            }
            Self::Switch { kind, on } => Self::Switch { kind: *kind, on: !on },
        }
    }
}

impl fmt::Display for FirewallChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules { kind, open, close } => match (open.len(), close.len()) {
                (open, 0) => write!(f, "add {open} rules to {kind}"),
                (0, close) => write!(f, "remove {close} rules from {kind}"),
                (open, close) => write!(f, "add {open} rules to {kind} and remove {close}"),
            },
            Self::Switch { kind, on: true } => write!(f, "switch {kind} on"),
            Self::Switch { kind, on: false } => write!(f, "switch {kind} off"),
        }
    }
}

/// Rules that kprov made, by the kind of firewall that holds them.
pub type OwnedRules = BTreeMap<FirewallKind, BTreeSet<String>>;

/// The zone of pods in firewalld; all of it is kprov's.
pub const PODS_ZONE: &str = "kprov";

/// The rules by which `firewall` lets `openings` through.
#[must_use]
pub fn rules(openings: &BTreeSet<Opening>, firewall: &FirewallFact) -> BTreeSet<String> {
    openings.iter().flat_map(|opening| rules_of(opening, firewall)).collect()
}

fn rules_of(opening: &Opening, firewall: &FirewallFact) -> Vec<String> {
    match opening {
        Opening::Port { protocol, port, from: None } => {
            port_rules(firewall, *protocol, *port, None)
        }
        Opening::Port { protocol, port, from: Some(from) } => match firewall.kind {
            // The others have no sets, or none that are part of a rule.
            FirewallKind::Nftables => port_rules(firewall, *protocol, *port, Some(&set(from))),
            _ => from
                .iter()
                .flat_map(|net| port_rules(firewall, *protocol, *port, Some(&address(*net))))
                .collect(),
        },
        Opening::Gre { from } => match firewall.kind {
            FirewallKind::Nftables => gre_rules(firewall, &set(from)),
            _ => from.iter().flat_map(|net| gre_rules(firewall, &address(*net))).collect(),
        },
        Opening::Pods { range } => pod_rules(firewall, *range),
    }
}

fn port_rules(
    firewall: &FirewallFact,
    protocol: Protocol,
    port: u16,
    from: Option<&str>,
) -> Vec<String> {
    match firewall.kind {
        FirewallKind::Firewalld => {
            let source = from.map_or(String::new(), |from| format!(" source address=\"{from}\""));
            vec![format!(
                "{} rule family=\"ipv4\"{source} port port=\"{port}\" protocol=\"{protocol}\" \
                 accept",
                firewall.zone
            )]
        }
        FirewallKind::Ufw => {
            let from = from.unwrap_or(ANYONE);
            vec![format!("allow {protocol} {port} {ANYONE} any {from} in")]
        }
        FirewallKind::Iptables => {
            let source = from.map_or(String::new(), |from| match from.contains('/') {
                true => format!("-s {from} "),
                false => format!("-s {from}/32 "),
            });
            let rule = format!("INPUT {source}-p {protocol} -m {protocol} --dport {port}");
            vec![marked_iptables(&rule)]
        }
        FirewallKind::Nftables => {
            let source = from.map_or(String::new(), |from| format!("ip saddr {from} "));
            let rule = format!("{source}{protocol} dport {port} accept");
            firewall.input.iter().map(|chain| marked_nftables(chain, &rule)).collect()
        }
    }
}

/// A switch that forwards by itself gets the packets after they were forwarded, which flanneld's
/// own rules let pass.
fn gre_rules(firewall: &FirewallFact, from: &str) -> Vec<String> {
    match firewall.kind {
        FirewallKind::Firewalld => vec![format!(
            "{} rule family=\"ipv4\" source address=\"{from}\" protocol value=\"gre\" accept",
            firewall.zone
        )],
        FirewallKind::Ufw => vec![format!("allow gre any {ANYONE} any {from} in")],
        FirewallKind::Iptables => {
            let length = if from.contains('/') { "" } else { "/32" };
            vec![marked_iptables(&format!("INPUT -s {from}{length} -p 47"))]
        }
        FirewallKind::Nftables => {
            let rule = format!("ip saddr {from} ip protocol 47 accept");
            firewall.input.iter().map(|chain| marked_nftables(chain, &rule)).collect()
        }
    }
}

/// Docker and the service rules translate addresses before packets are forwarded, so what is
/// forwarded is from a pod or to one.
fn pod_rules(firewall: &FirewallFact, range: Ipv4Net) -> Vec<String> {
    match firewall.kind {
        FirewallKind::Firewalld => vec![format!("{PODS_ZONE} zone {range}")],
        FirewallKind::Ufw => vec![
            format!("route:allow any any {ANYONE} any {range} in"),
            format!("route:allow any any {range} any {ANYONE} in"),
        ],
        FirewallKind::Iptables => {
            ["-s", "-d"].map(|side| marked_iptables(&format!("FORWARD {side} {range}"))).to_vec()
        }
        FirewallKind::Nftables => {
            let sides = ["saddr", "daddr"].map(|side| format!("ip {side} {range} accept"));
            let on = |chain: &String| sides.clone().map(|rule| marked_nftables(chain, &rule));
            firewall.forward.iter().flat_map(on).collect()
        }
    }
}

/// `ufw` would open the port for IPv6 too if it were told `any`.
const ANYONE: &str = "0.0.0.0/0";

/// A range as firewalls print it: a single address without its length.
fn address(net: Ipv4Net) -> String {
    if net.prefix_len() == 32 { net.addr().to_string() } else { net.to_string() }
}

fn set(nets: &BTreeSet<Ipv4Net>) -> String {
    let all: Vec<_> = nets.iter().map(|net| address(*net)).collect();
    format!("{{ {} }}", all.join(", "))
}

/// What the marks of rules begin with.
const MARK: &str = "kprov-";
/// Digits of a rule's digest in its mark.
const MARK_DIGITS: usize = 12;

fn mark(rule: &str) -> String {
    let digest = Digest::of(rule.as_bytes()).to_string();
    format!("{MARK}{}", &digest[..MARK_DIGITS])
}

fn marked_iptables(rule: &str) -> String {
    format!("{rule} -m comment --comment {} -j ACCEPT", mark(rule))
}

fn marked_nftables(chain: &str, rule: &str) -> String {
    format!("{chain} {rule} comment \"{}\"", mark(&format!("{chain} {rule}")))
}

/// The mark that a rule carries, if one.
fn mark_in(rule: &str) -> Option<&str> {
    let at = rule.find(MARK)?;
    rule.get(at..at + MARK.len() + MARK_DIGITS)
}
