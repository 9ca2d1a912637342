//! Service rules as chains of iptables, for hosts without nftables.
//!
//! Text for `iptables-restore --noflush`: only the chains that are written change, and all of a
//! text takes effect at once per table.
//!
//! Source: names and structure follow Kubernetes 1.33, `pkg/proxy/iptables/proxier.go`. It
//! balances at random; this in turn.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::proxy_config::MASQUERADE_MARK;
use crate::{ProxyConfig, RuleSet};

mod saved;
mod service;
#[cfg(test)]
mod tests;

pub use saved::Saved;

/// A table of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Decides what passes.
    Filter,
    /// Translates addresses.
    Nat,
}

impl Table {
    /// Both tables.
    pub const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A jump from a chain that everyone shares into one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The table.
    pub table: Table,
    /// The shared chain.
    pub from: &'static str,
    /// What must match, possibly nothing.
    pub matches: &'static str,
    /// Our chain.
    pub to: &'static str,
}

/// The jumps into the service rules, in the order in which they are put first.
const JUMPS: [Jump; 11] = {
    const NEW: &str = "-m conntrack --ctstate NEW";
    const fn jump(
        table: Table,
        from: &'static str,
        matches: &'static str,
        to: &'static str,
    ) -> Jump {
        Jump { table, from, matches, to }
    }
    [
        jump(Table::Filter, "INPUT", NEW, "KUBE-EXTERNAL-SERVICES"),
        jump(Table::Filter, "FORWARD", NEW, "KUBE-EXTERNAL-SERVICES"),
        jump(Table::Filter, "FORWARD", NEW, "KUBE-SERVICES"),
        jump(Table::Filter, "OUTPUT", NEW, "KUBE-SERVICES"),
        jump(Table::Filter, "FORWARD", "", "KUBE-FORWARD"),
        jump(Table::Filter, "INPUT", NEW, "KUBE-PROXY-FIREWALL"),
        jump(Table::Filter, "OUTPUT", NEW, "KUBE-PROXY-FIREWALL"),
        jump(Table::Filter, "FORWARD", NEW, "KUBE-PROXY-FIREWALL"),
        jump(Table::Nat, "OUTPUT", "", "KUBE-SERVICES"),
        jump(Table::Nat, "PREROUTING", "", "KUBE-SERVICES"),
        jump(Table::Nat, "POSTROUTING", "", "KUBE-POSTROUTING"),
    ]
};

/// The chains that are always there.
const FIXED: [(Table, &str); 9] = [
    (Table::Filter, "KUBE-EXTERNAL-SERVICES"),
    (Table::Filter, "KUBE-FORWARD"),
    (Table::Filter, "KUBE-PROXY-FIREWALL"),
    (Table::Filter, "KUBE-SERVICES"),
    (Table::Nat, "KUBE-MARK-MASQ"),
    (Table::Nat, "KUBE-NODEPORTS"),
    (Table::Nat, "KUBE-POSTROUTING"),
    (Table::Nat, "KUBE-PROXY-CANARY"),
    (Table::Nat, "KUBE-SERVICES"),
];

/// Beginnings of the names of all other chains.
const PREFIXES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-FW-"];

/// Whether the chain belongs to the service rules.
fn is_ours(table: Table, chain: &str) -> bool {
    FIXED.contains(&(table, chain))
        || (table == Table::Nat && PREFIXES.iter().any(|prefix| chain.starts_with(prefix)))
}

/// What the host's iptables can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// `MASQUERADE --random-fully`, since version 1.6.2.
    pub random_fully: bool,
}

impl Abilities {
    /// Reads the answer to `iptables --version`, for example `iptables v1.8.9 (nf_tables)`.
    pub fn of_version(answer: &str) -> Self {
        let version = answer.split_whitespace().find_map(|word| {
            let numbers = word.strip_prefix('v')?.split('.');
            numbers.map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>()
        });
        Self { random_fully: version.is_some_and(|version| version >= vec![1, 6, 2]) }
    }
}

/// The chains of both tables with their rules, without their `-A CHAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chains {
    chains: BTreeMap<(Table, String), Vec<String>>,
}

impl Chains {
    /// The chains of a rule set.
    pub fn new(config: &ProxyConfig, abilities: Abilities, rule_set: &RuleSet) -> Self {
        let mut chains = base(abilities);
        for (name, rules) in &rule_set.services {
            service::lower(config, name, rules, &mut chains);
        }
        // Last of all, so that a cluster or external address never counts as the node's.
        chains.add(
            Table::Nat,
            "KUBE-SERVICES",
            "-m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS".into(),
        );
        chains
    }

    fn add(&mut self, table: Table, chain: &str, rule: String) {
        self.chains.entry((table, chain.to_owned())).or_default().push(rule);
    }

    /// The text that turns `current`, which is in the kernel, into these chains; empty when
    /// nothing changes.
    pub fn update(&self, current: &Self) -> String {
        let changed =
            self.chains.iter().filter(|(key, rules)| current.chains.get(key) != Some(*rules));
        let stale = current.chains.keys().filter(|key| !self.chains.contains_key(key));
        restore_text(&changed.collect::<Vec<_>>(), &stale.cloned().collect::<Vec<_>>())
    }

    /// The text that puts these chains in place, whatever of ours `saved` says is there.
    pub fn resync(&self, saved: &Saved) -> String {
        let stale: Vec<_> = saved
            .chains()
            .filter(|(table, chain)| is_ours(*table, chain))
            .filter(|key| !self.chains.contains_key(key))
            .cloned()
            .collect();
        let mut text = restore_text(&self.chains.iter().collect::<Vec<_>>(), &stale);
        text.push_str(&saved.missing_jumps(&JUMPS));
        text
    }
}

/// Whether all jumps into the service rules and their first chains are in place.
pub fn is_intact(saved: &Saved) -> bool {
    saved.missing_jumps(&JUMPS).is_empty() && saved.has_rules(Table::Nat, "KUBE-SERVICES")
}

/// The text that removes everything of ours that `saved` holds; empty when there is nothing.
pub fn cleanup(saved: &Saved) -> String {
    saved.removal(is_ours)
}

fn base(abilities: Abilities) -> Chains {
    let mut chains =
        Chains { chains: FIXED.iter().map(|(t, c)| ((*t, (*c).to_owned()), Vec::new())).collect() };
    let mark = format!("{MASQUERADE_MARK:#x}");
    let mut add = |table, chain, rule: String| chains.add(table, chain, rule);
    // Answers that lost their translation would reach clients from an unknown address.
    add(Table::Filter, "KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP".into());
    add(Table::Filter, "KUBE-FORWARD", format!("-m mark --mark {mark}/{mark} -j ACCEPT"));
    add(
        Table::Filter,
        "KUBE-FORWARD",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into(),
    );
    add(Table::Nat, "KUBE-MARK-MASQ", format!("-j MARK --or-mark {mark}"));
    add(Table::Nat, "KUBE-POSTROUTING", format!("-m mark ! --mark {mark}/{mark} -j RETURN"));
    add(Table::Nat, "KUBE-POSTROUTING", format!("-j MARK --xor-mark {mark}"));
    let random = if abilities.random_fully { " --random-fully" } else { "" };
    add(Table::Nat, "KUBE-POSTROUTING", format!("-j MASQUERADE{random}"));
    chains
}

fn restore_text(changed: &[(&(Table, String), &Vec<String>)], stale: &[(Table, String)]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let mut body = String::new();
        let changed = || changed.iter().filter(|((t, _), _)| *t == table);
        let stale = || stale.iter().filter(|(t, _)| *t == table);
        for chain in changed().map(|((_, c), _)| c).chain(stale().map(|(_, c)| c)) {
            // Declaring a chain creates or flushes it.
            let _ = writeln!(body, ":{chain} - [0:0]");
        }
        for ((_, chain), rules) in changed() {
            for rule in *rules {
                let _ = writeln!(body, "-A {chain} {rule}");
            }
        }
        for (_, chain) in stale() {
            let _ = writeln!(body, "-X {chain}");
        }
        if !body.is_empty() {
            let _ = writeln!(text, "*{}\n{body}COMMIT", table.name());
        }
    }
    text
}
