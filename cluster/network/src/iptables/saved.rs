//! What `iptables-save` says is in the kernel.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Jump, Table};

/// The chains and rules of both tables, as `iptables-save` prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    chains: BTreeSet<(Table, String)>,
    /// Table, chain and the rest of each `-A` line, in order.
    rules: Vec<(Table, String, String)>,
}

impl Saved {
    /// Reads the output of `iptables-save`; other tables are passed over.
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
            } else if let (Some(table), Some(rest)) = (table, line.strip_prefix(':')) {
                let name = rest.split_whitespace().next().unwrap_or_default();
                saved.chains.insert((table, name.to_owned()));
            } else if let (Some(table), Some(rest)) = (table, line.strip_prefix("-A ")) {
                let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
                saved.rules.push((table, chain.to_owned(), rule.to_owned()));
            }
        }
        saved
    }

    /// All chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = &(Table, String)> {
        self.chains.iter()
    }

    /// Whether there is such a chain.
    pub fn has_chain(&self, table: Table, chain: &str) -> bool {
        self.chains.contains(&(table, chain.to_owned()))
    }

    /// Whether the chain has rules.
    pub fn has_rules(&self, table: Table, chain: &str) -> bool {
        self.rules.iter().any(|(t, c, _)| *t == table && c == chain)
    }

    /// The rules of a chain, in order.
    pub(crate) fn rules(&self, table: Table, chain: &str) -> impl Iterator<Item = &str> {
        self.rules
            .iter()
            .filter(move |(t, c, _)| *t == table && c == chain)
            .map(|(_, _, rule)| rule.as_str())
    }

    /// The text that inserts the jumps that are not there, first in their chains.
    pub(crate) fn missing_jumps(&self, jumps: &[Jump]) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            let mut body = String::new();
            for jump in jumps.iter().filter(|jump| jump.table == table) {
                if !self.rules(table, jump.from).any(|rule| target_of(rule) == Some(jump.to)) {
                    let gap = if jump.matches.is_empty() { "" } else { " " };
                    let Jump { from, matches, to, .. } = jump;
                    let _ = writeln!(body, "-I {from} 1 {matches}{gap}-j {to}");
                }
            }
            if !body.is_empty() {
                let _ = writeln!(text, "*{}\n{body}COMMIT", table.name());
            }
        }
        text
    }

    /// The text that removes the chains that are `ours` and all jumps into them.
    pub(crate) fn removal(&self, ours: impl Fn(Table, &str) -> bool) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            let mut body = String::new();
            let chains = || self.chains.iter().filter(|(t, c)| *t == table && ours(*t, c));
            for (_, chain) in chains() {
                let _ = writeln!(body, ":{chain} - [0:0]");
            }
            for (_, chain, rule) in self.rules.iter().filter(|(t, c, _)| {
                // The rules of our own chains were flushed above.
                *t == table && !ours(*t, c)
            }) {
                if target_of(rule).is_some_and(|target| ours(table, target)) {
                    let _ = writeln!(body, "-D {chain} {rule}");
                }
            }
            for (_, chain) in chains() {
                let _ = writeln!(body, "-X {chain}");
            }
            if !body.is_empty() {
                let _ = writeln!(text, "*{}\n{body}COMMIT", table.name());
            }
        }
        text
    }
}

/// Where a rule jumps.
fn target_of(rule: &str) -> Option<&str> {
    let mut words = rule.split_whitespace();
    words.find(|word| *word == "-j")?;
    words.next()
}
