//! Which pod addresses nodes have, and which nodes have none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{Key, Kind, Object, meta};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use machine::Index;

/// An address of either family as a number; the families do not mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    v6: bool,
    number: u128,
}

/// First and last address of a range.
type Span = (Address, Address);

/// The ranges of all nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// How many nodes have each range.
    held: BTreeMap<Span, usize>,
    /// First and last addresses of the gapless runs that the ranges make up together.
    runs: BTreeMap<Address, Address>,
    /// Nodes that have no range and are not being deleted.
    without: BTreeSet<Arc<Key>>,
}

impl Index for Ranges {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (old.and_then(Object::get::<Node>), new.and_then(Object::get::<Node>));
        let (before, after) =
            (old.map(ranges).unwrap_or_default(), new.map(ranges).unwrap_or_default());
        if before != after {
            before.iter().filter_map(|text| span_of_text(text)).for_each(|span| self.remove(span));
            after.iter().filter_map(|text| span_of_text(text)).for_each(|span| self.insert(span));
        }
        let waits = |node: &&Node| ranges(node).is_empty() && !meta::is_terminating(&node.metadata);
        match (old.is_some_and(|n| waits(&n)), new.is_some_and(|n| waits(&n))) {
            (false, true) => self.without.insert(key.clone()),
            (true, false) => self.without.remove(key),
            _ => false,
        };
    }
}

impl Ranges {
    /// The nodes that wait for a range, by name.
    pub(super) fn without(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.without.iter()
    }

    /// The ranges of `mask_bits` bits in `cluster` that overlap with none that a node has, the
    /// lowest first.
    pub(super) fn free(&self, cluster: IpNet, mask_bits: u8) -> impl Iterator<Item = IpNet> {
        let (first, end) = span_of(cluster);
        let possible = cluster.prefix_len() <= mask_bits && mask_bits <= cluster.max_prefix_len();
        // The addresses of one range, less one.
        let rest = ones(cluster.max_prefix_len() - mask_bits.min(cluster.max_prefix_len()));
        let mut next = possible.then_some(first.number);
        std::iter::from_fn(move || {
            loop {
                let number = next?;
                let start = Address { number, ..first };
                let last = Address { number: number | rest, ..first };
                if last > end {
                    next = None;
                    return None;
                }
                let run = self.runs.range(..=last).next_back().map(|(_, run_end)| *run_end);
                match run.filter(|run_end| *run_end >= start) {
                    None => {
                        next = last.number.checked_add(1);
                        return net(start, mask_bits);
                    }
                    // On to the first range behind the run.
                    Some(run_end) => next = (run_end.number | rest).checked_add(1),
                }
            }
        })
    }

    fn insert(&mut self, span: Span) {
        let count = self.held.entry(span).or_default();
        *count += 1;
        if *count == 1 {
            self.cover(span);
        }
    }

    /// Makes the span part of a run, together with what touches it.
    fn cover(&mut self, (mut first, mut last): Span) {
        if let Some((start, end)) = self.runs.range(..=first).next_back()
            && end.v6 == first.v6
            && end.number.saturating_add(1) >= first.number
        {
            (first, last) = (*start, last.max(*end));
        }
        let reach = |last: Address| Address { number: last.number.saturating_add(1), ..last };
        while let Some((start, end)) = self.runs.range(first..=reach(last)).next() {
            let (start, end) = (*start, *end);
            last = last.max(end);
            self.runs.remove(&start);
        }
        self.runs.insert(first, last);
    }

    fn remove(&mut self, span: Span) {
        let Some(count) = self.held.get_mut(&span) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.held.remove(&span);
        if self.is_inside_another(span) {
            return;
        }
        let (first, last) = span;
        let run = self.runs.range(..=first).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = run else { return };
        self.runs.remove(&start);
        if start < first {
            self.runs.insert(start, Address { number: first.number - 1, ..first });
        }
        if end > last {
            self.runs.insert(Address { number: last.number + 1, ..last }, end);
        }
        let inside: Vec<Span> =
            self.held.range((first, first)..=(last, last)).map(|(span, _)| *span).collect();
        inside.into_iter().for_each(|span| self.cover(span));
    }

    /// Whether a larger range, one of the few that can, covers the span.
    fn is_inside_another(&self, (first, last): Span) -> bool {
        let bits = if first.v6 { 128 } else { 32 };
        (0..=bits).map(ones).any(|rest| {
            let start = Address { number: first.number & !rest, ..first };
            let end = Address { number: first.number | rest, ..first };
            end >= last && self.held.contains_key(&(start, end))
        })
    }
}

/// The ranges a node has.
pub(super) fn ranges(node: &Node) -> Vec<&str> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let first = spec.pod_cidr.as_deref().filter(|c| !c.is_empty());
    let more = spec.pod_cidrs.iter().flatten().map(String::as_str);
    first.into_iter().chain(more.filter(|c| Some(*c) != first)).collect()
}

/// A number of that many ones.
fn ones(bits: u8) -> u128 {
    1_u128.checked_shl(u32::from(bits)).map_or(u128::MAX, |power| power - 1)
}

fn span_of_text(text: &str) -> Option<Span> {
    text.parse().ok().map(span_of)
}

fn span_of(net: IpNet) -> Span {
    match net {
        IpNet::V4(net) => {
            let address = |ip: Ipv4Addr| Address { v6: false, number: u32::from(ip).into() };
            (address(net.network()), address(net.broadcast()))
        }
        IpNet::V6(net) => {
            let address = |ip: Ipv6Addr| Address { v6: true, number: ip.into() };
            (address(net.network()), address(net.broadcast()))
        }
    }
}

fn net(first: Address, mask_bits: u8) -> Option<IpNet> {
    let ip = if first.v6 {
        Ipv6Addr::from(first.number).into()
    } else {
        Ipv4Addr::from(u32::try_from(first.number).ok()?).into()
    };
    IpNet::new(ip, mask_bits).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(a: &IpNet, b: &IpNet) -> bool {
        a.contains(b) || b.contains(a)
    }

    proptest! {
        #[test]
        fn what_is_free_is_what_a_search_finds(
            changes in proptest::collection::vec((0..64_u8, 26..=32_u8, any::<bool>()), 0..60),
            v6 in any::<bool>(),
        ) {
            let mut ranges = Ranges::default();
            let mut held: Vec<IpNet> = Vec::new();
            for (host, bits, keep) in changes {
                let text = if v6 {
                    format!("fd00::{host:x}/{}", bits + 96)
                } else {
                    format!("10.0.0.{host}/{bits}")
                };
                let net: IpNet = text.parse().unwrap();
                let net = net.trunc();
                if keep {
                    ranges.insert(span_of(net));
                    held.push(net);
                } else if let Some(i) = held.iter().position(|h| *h == net) {
                    ranges.remove(span_of(net));
                    held.remove(i);
                }
            }
            let cluster: IpNet = if v6 { "fd00::/122" } else { "10.0.0.0/26" }.parse().unwrap();
            for bits in [1, 26, 28, 30, 32] {
                let bits = if v6 { bits + 96 } else { bits };
                let expected: Vec<IpNet> = cluster
                    .subnets(bits)
                    .into_iter()
                    .flatten()
                    .filter(|net| !held.iter().any(|h| overlap(h, net)))
                    .collect();
                prop_assert_eq!(ranges.free(cluster, bits).collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn the_last_addresses_have_an_end() {
        let mut ranges = Ranges::default();
        for text in ["255.255.255.0/24", "ffff::/16", "0.0.0.0/0"] {
            ranges.insert(span_of_text(text).unwrap());
        }
        let free = |ranges: &Ranges, cluster: &str, bits| {
            ranges.free(cluster.parse().unwrap(), bits).map(|n| n.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(free(&ranges, "255.255.254.0/23", 24), [] as [String; 0]);
        assert_eq!(free(&ranges, "ffff::/16", 17), [] as [String; 0]);
        ranges.remove(span_of_text("0.0.0.0/0").unwrap());
        assert_eq!(free(&ranges, "255.255.254.0/23", 24), ["255.255.254.0/24"]);
    }
}
