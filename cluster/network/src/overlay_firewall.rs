//! Rules that let pod traffic through a host: accepted where it is forwarded, masqueraded where
//! it leaves the cluster.

use ipnet::Ipv4Net;

use crate::iptables::{Abilities, Jump, Saved, Table};
use crate::proxy_config::MASQUERADE_MARK;

const FORWARD: &str = "FLANNEL-FWD";
const MASQUERADE: &str = "FLANNEL-POSTRTG";
/// Docker's chain for rules of others. It comes before all of Docker's own and survives its
/// restarts, while what others put into `FORWARD` ends up behind rules that may drop.
const DOCKER_USER: &str = "DOCKER-USER";

const JUMPS: [Jump; 2] = [
    Jump { table: Table::Filter, from: "FORWARD", matches: "", to: FORWARD },
    Jump { table: Table::Nat, from: "POSTROUTING", matches: "", to: MASQUERADE },
];
const DOCKER_JUMP: Jump =
    Jump { table: Table::Filter, from: DOCKER_USER, matches: "", to: FORWARD };

/// The table for hosts that have nftables alone.
pub const NFTABLES_TABLE: &str = "ip flannel";

/// The chain of that table.
pub const NFTABLES_CHAIN: &str = "postrtg";

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayFirewall {
    /// The network of all pods.
    pub network: Ipv4Net,
    /// Whether traffic of pods that leaves the cluster is masqueraded.
    pub masquerade: bool,
}

impl OverlayFirewall {
    /// The rules of our chains, as `iptables-save` prints them.
    fn rules(&self, abilities: Abilities) -> [(Table, &'static str, Vec<String>); 2] {
        let network = self.network;
        let forward = vec![format!("-s {network} -j ACCEPT"), format!("-d {network} -j ACCEPT")];
        let mut masquerade = Vec::new();
        if self.masquerade {
            let mark = format!("{MASQUERADE_MARK:#x}");
            let random = if abilities.random_fully { " --random-fully" } else { "" };
            masquerade = vec![
                // The service proxy masquerades these.
                format!("-m mark --mark {mark}/{mark} -j RETURN"),
                // Not RETURN: Docker would masquerade what leaves its bridge.
                format!("-s {network} -d {network} -j ACCEPT"),
                format!("-s {network} ! -d 224.0.0.0/4 -j MASQUERADE{random}"),
            ];
        }
        [(Table::Filter, FORWARD, forward), (Table::Nat, MASQUERADE, masquerade)]
    }

    /// The text for `iptables-restore --noflush` that puts the rules in place; empty when
    /// `saved` shows that they are.
    pub fn iptables(&self, saved: &Saved, abilities: Abilities) -> String {
        let mut text = String::new();
        for (table, chain, rules) in self.rules(abilities) {
            let there = saved.rules(table, chain).eq(rules.iter().map(String::as_str));
            if there && saved.has_chain(table, chain) {
                continue;
            }
            let rules: String = rules.iter().map(|rule| format!("-A {chain} {rule}\n")).collect();
            text.push_str(&format!("*{}\n:{chain} - [0:0]\n{rules}COMMIT\n", table.name()));
        }
        text.push_str(&saved.missing_jumps(&JUMPS));
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
        matches!((table, chain), (Table::Filter, FORWARD) | (Table::Nat, MASQUERADE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n\
        -A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n*nat\n\
        :POSTROUTING ACCEPT [0:0]\nCOMMIT\n";

    fn firewall() -> OverlayFirewall {
        OverlayFirewall { network: "10.244.0.0/16".parse().unwrap(), masquerade: true }
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
