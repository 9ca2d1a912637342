//! Rules that let pod traffic through a host: accepted where it is forwarded, masqueraded where
//! it leaves the cluster.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::iptables::{Abilities, Jump, Saved, Table};
use crate::proxy_config::MASQUERADE_MARK;
use crate::switch::INNER;

const FORWARD: &str = "FLANNEL-FWD";
const MASQUERADE: &str = "FLANNEL-POSTRTG";
const TUNNEL: &str = "FLANNEL-PRERTG";
/// Docker's chain for rules of others. It comes before all of Docker's own and survives its
/// restarts, while what others put into `FORWARD` ends up behind rules that may drop.
const DOCKER_USER: &str = "DOCKER-USER";

const JUMPS: [Jump; 2] = [
    Jump { table: Table::Filter, from: "FORWARD", matches: "", to: FORWARD },
    Jump { table: Table::Nat, from: "POSTROUTING", matches: "", to: MASQUERADE },
];
const DOCKER_JUMP: Jump =
    Jump { table: Table::Filter, from: DOCKER_USER, matches: "", to: FORWARD };

const TUNNEL_JUMP: Jump = Jump { table: Table::Nat, from: "PREROUTING", matches: "", to: TUNNEL };

/// The number of GRE among the protocols of IP.
const GRE: u8 = 47;

/// The table for hosts that have nftables alone.
pub const NFTABLES_TABLE: &str = "ip flannel";

/// The chain of that table.
pub const NFTABLES_CHAIN: &str = "postrtg";
const NFTABLES_TUNNEL_CHAIN: &str = "prertg";

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayFirewall {
    /// The network of all pods.
    pub network: Ipv4Net,
    /// Whether traffic of pods that leaves the cluster is masqueraded.
    pub masquerade: bool,
    /// The host's address, where a switch that is a program has tunnels of its own behind it
    /// ([`crate::switch::UPLINK`]): the kernel puts it into their packets, and takes it out.
    pub tunnels: Option<Ipv4Addr>,
}

impl OverlayFirewall {
    /// The rules of our chains, as `iptables-save` prints them.
    fn rules(&self, abilities: Abilities) -> Vec<(Table, &'static str, Vec<String>)> {
        let network = self.network;
        let mut forward =
            vec![format!("-s {network} -j ACCEPT"), format!("-d {network} -j ACCEPT")];
        let mut masquerade = Vec::new();
        let mut tunnels = Vec::new();
        if let Some(host) = self.tunnels {
            forward.extend(["-s", "-d"].map(|side| format!("{side} {INNER}/32 -j ACCEPT")));
            tunnels.push(format!("-d {host}/32 -p {GRE} -j DNAT --to-destination {INNER}"));
            masquerade.push(format!("-s {INNER}/32 -j SNAT --to-source {host}"));
        }
        if self.masquerade {
            let mark = format!("{MASQUERADE_MARK:#x}");
            let random = if abilities.random_fully { " --random-fully" } else { "" };
            masquerade.extend([
                // The service proxy masquerades these.
                format!("-m mark --mark {mark}/{mark} -j RETURN"),
                // Not RETURN: Docker would masquerade what leaves its bridge.
                format!("-s {network} -d {network} -j ACCEPT"),
                format!("-s {network} ! -d 224.0.0.0/4 -j MASQUERADE{random}"),
            ]);
        }
        let mut chains =
            vec![(Table::Filter, FORWARD, forward), (Table::Nat, MASQUERADE, masquerade)];
        if !tunnels.is_empty() {
            chains.push((Table::Nat, TUNNEL, tunnels));
        }
        chains
    }

    /// The text for `iptables-restore --noflush` that puts the rules in place; empty when
    /// `saved` shows that they are.
    pub fn iptables(&self, saved: &Saved, abilities: Abilities) -> String {
        let mut text = String::new();
        for (table, chain, rules) in self.rules(abilities) {
            // Hosts that have a list of protocols print the name.
            let numbered = |rule: &str| rule.replace("-p gre ", &format!("-p {GRE} "));
            let there = saved.rules(table, chain).map(numbered).eq(rules.iter().cloned());
            if there && saved.has_chain(table, chain) {
                continue;
            }
            let rules: String = rules.iter().map(|rule| format!("-A {chain} {rule}\n")).collect();
            text.push_str(&format!("*{}\n:{chain} - [0:0]\n{rules}COMMIT\n", table.name()));
        }
        text.push_str(&saved.missing_jumps(&JUMPS));
        if self.tunnels.is_some() {
            text.push_str(&saved.missing_jumps(&[TUNNEL_JUMP]));
        }
        if saved.has_chain(Table::Filter, DOCKER_USER) {
            text.push_str(&saved.missing_jumps(&[DOCKER_JUMP]));
        }
        text
    }

    /// The text for `nft -f -` that puts the rules in place, for hosts without iptables. There
    /// nothing drops forwarded packets that a rule of ours could accept.
    pub fn nftables(&self) -> String {
        let mut text = Self::nftables_cleanup();
        let network = self.network;
        let table = NFTABLES_TABLE;
        text.push_str(&format!(
            "add table {table}\nadd chain {table} {NFTABLES_CHAIN} \
             {{ type nat hook postrouting priority 100 ; }}\n"
        ));
        if let Some(host) = self.tunnels {
            text.push_str(&format!(
                "add rule {table} {NFTABLES_CHAIN} ip saddr {INNER} snat to {host}\n\
                 add chain {table} {NFTABLES_TUNNEL_CHAIN} \
                 {{ type nat hook prerouting priority -100 ; }}\n\
                 add rule {table} {NFTABLES_TUNNEL_CHAIN} \
                 ip daddr {host} ip protocol {GRE} dnat to {INNER}\n"
            ));
        }
        if self.masquerade {
            let mark = format!("{MASQUERADE_MARK:#x}");
            for rule in [
                format!("meta mark & {mark} != 0 return"),
                format!("ip saddr {network} ip daddr {network} accept"),
                format!("ip saddr {network} ip daddr != 224.0.0.0/4 masquerade fully-random"),
            ] {
                text.push_str(&format!("add rule {table} {NFTABLES_CHAIN} {rule}\n"));
            }
        }
        text
    }

    /// Whether a listing of the chain shows that the rules are in place.
    pub fn is_intact(&self, listing: &str) -> bool {
        listing.contains("hook postrouting")
            && (!self.masquerade
                || listing.contains(&format!("{}", self.network)) && listing.contains("masquerade"))
            && self.tunnels.is_none_or(|host| listing.contains(&format!("snat to {host}")))
    }

    /// The text for `nft -f -` that removes the table if there is one.
    pub fn nftables_cleanup() -> String {
        format!("add table {NFTABLES_TABLE}\ndelete table {NFTABLES_TABLE}\n")
    }
}

/// The text for `iptables-restore --noflush` that removes all rules of the overlay; empty when
/// there are none.
pub fn iptables_cleanup(saved: &Saved) -> String {
    saved.removal(|table, chain| {
        matches!((table, chain), (Table::Filter, FORWARD) | (Table::Nat, MASQUERADE | TUNNEL))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n\
        -A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n*nat\n\
        :POSTROUTING ACCEPT [0:0]\nCOMMIT\n";

    fn firewall() -> OverlayFirewall {
        OverlayFirewall {
            network: "10.244.0.0/16".parse().unwrap(),
            masquerade: true,
            tunnels: None,
        }
    }

    #[test]
    fn tunnels_of_a_program_have_the_address_of_the_host() {
        let old = Abilities { random_fully: false };
        let firewall = OverlayFirewall { tunnels: Some([10, 99, 0, 11].into()), ..firewall() };
        let text = firewall.iptables(&Saved::parse(BARE), old);
        for rule in [
            "-A FLANNEL-FWD -s 169.254.47.1/32 -j ACCEPT",
            "-A FLANNEL-FWD -d 169.254.47.1/32 -j ACCEPT",
            "-A FLANNEL-POSTRTG -s 169.254.47.1/32 -j SNAT --to-source 10.99.0.11",
            "-A FLANNEL-PRERTG -d 10.99.0.11/32 -p 47 -j DNAT --to-destination 169.254.47.1",
            "-I PREROUTING 1 -j FLANNEL-PRERTG",
        ] {
            assert!(text.lines().any(|line| line == rule), "{rule}: {text}");
        }
        // As the kernel prints it, with the protocol's name.
        let kernel = text.replace("-p 47", "-p gre").replace(" 1 -j", " -j").replace("-I", "-A");
        let saved = Saved::parse(&format!("{BARE}{kernel}"));
        assert_eq!(firewall.iptables(&saved, old), "");
        assert!(iptables_cleanup(&saved).contains("-X FLANNEL-PRERTG"));
        let nft = firewall.nftables();
        assert!(nft.contains("ip daddr 10.99.0.11 ip protocol 47 dnat to 169.254.47.1"), "{nft}");
        let listing = "hook postrouting 10.244.0.0/16 masquerade";
        assert!(!firewall.is_intact(listing));
        assert!(firewall.is_intact(&format!("{listing} snat to 10.99.0.11")));
    }

    #[test]
    fn rules_are_written_once() {
        let modern = Abilities { random_fully: true };
        let text = firewall().iptables(&Saved::parse(BARE), modern);
        insta::assert_snapshot!(text, @r"
        *filter
        :FLANNEL-FWD - [0:0]
        -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
        -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
        COMMIT
        *nat
        :FLANNEL-POSTRTG - [0:0]
        -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
        -A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT
        -A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
        COMMIT
        *filter
        -I FORWARD 1 -j FLANNEL-FWD
        COMMIT
        *nat
        -I POSTROUTING 1 -j FLANNEL-POSTRTG
        COMMIT
        *filter
        -I DOCKER-USER 1 -j FLANNEL-FWD
        COMMIT
        ");
        // What was written, as the kernel would print it.
        let kernel = format!("{BARE}{}", text.replace("-I FORWARD 1", "-A FORWARD"))
            .replace("-I POSTROUTING 1", "-A POSTROUTING")
            .replace("-I DOCKER-USER 1", "-A DOCKER-USER");
        let saved = Saved::parse(&kernel);
        assert_eq!(firewall().iptables(&saved, modern), "");
        let mut other = firewall();
        other.masquerade = false;
        assert_eq!(other.iptables(&saved, modern), "*nat\n:FLANNEL-POSTRTG - [0:0]\nCOMMIT\n");
        insta::assert_snapshot!(iptables_cleanup(&saved), @r"
        *filter
        :FLANNEL-FWD - [0:0]
        -D FORWARD -j FLANNEL-FWD
        -D DOCKER-USER -j FLANNEL-FWD
        -X FLANNEL-FWD
        COMMIT
        *nat
        :FLANNEL-POSTRTG - [0:0]
        -D POSTROUTING -j FLANNEL-POSTRTG
        -X FLANNEL-POSTRTG
        COMMIT
        ");
        assert_eq!(iptables_cleanup(&Saved::parse(BARE)), "");
    }
}
