//! The heat map: how full nodes were over time, in bounded memory.

use super::nodes::Nodes;
use crate::outcome::HeatMap;
use crate::span::Span;

/// Nodes that are followed; more rows than that are no longer told apart.
const NODES_MAX: usize = 200;
/// Moments that are kept.
const TIMES_MAX: usize = 120;

/// Follows some nodes at equal distances of time. When there are too many moments every second
/// one is forgotten, and from then on only every second one is taken.
#[derive(Clone, Debug)]
pub(super) struct Heat {
    map: HeatMap,
    stride: u64,
    seen: u64,
}

impl Heat {
    /// Follows all the nodes, or evenly chosen ones when there are many.
    pub(super) fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let all = names.len();
        let chosen = all.min(NODES_MAX);
        let mut nodes = Vec::with_capacity(chosen);
        for (at, name) in names.enumerate() {
            if nodes.len() * all < (at + 1) * chosen {
                nodes.push(name.to_owned());
            }
        }
        Self { map: HeatMap { nodes, ..HeatMap::default() }, stride: 1, seen: 0 }
    }

    /// Takes one moment.
    pub(super) fn sample(&mut self, at: Span, nodes: &Nodes) {
        let taken = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !taken {
            return;
        }
        if self.map.times.len() == TIMES_MAX {
            let mut even = (0..TIMES_MAX).map(|i| i % 2 == 0);
            self.map.times.retain(|_| even.next().unwrap_or(false));
            let mut even = (0..TIMES_MAX).map(|i| i % 2 == 0);
            self.map.cpu_percent.retain(|_| even.next().unwrap_or(false));
            self.stride *= 2;
        }
        self.map.times.push(at);
        let column = self.map.nodes.iter().map(|name| nodes.cpu_percent(name));
        self.map.cpu_percent.push(column.collect());
    }

    /// The map so far.
    pub(super) fn take(&mut self) -> HeatMap {
        std::mem::take(&mut self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_nodes_and_many_moments_are_thinned_evenly() {
        let names: Vec<String> = (0..1_000).map(|i| format!("n{i}")).collect();
        let mut heat = Heat::new(names.iter().map(String::as_str));
        let nodes = Nodes::default();
        for i in 0..1_000 {
            heat.sample(Span::secs(i), &nodes);
        }
        let map = heat.take();
        assert_eq!(map.nodes.len(), NODES_MAX);
        assert_eq!(map.nodes[..3], ["n0", "n5", "n10"]);
        assert!((TIMES_MAX / 2..=TIMES_MAX).contains(&map.times.len()), "{}", map.times.len());
        let distance = map.times[1].0 - map.times[0].0;
        assert!(map.times.windows(2).all(|w| w[1].0 - w[0].0 == distance), "{:?}", map.times);
        assert!(map.times.last().is_some_and(|t| t.0 + distance > Span::secs(999).0));
        assert_eq!(map.cpu_percent.len(), map.times.len());
        assert!(map.cpu_percent.iter().all(|c| c.len() == NODES_MAX && c[0] == 255));
    }

    #[test]
    fn few_nodes_are_all_followed() {
        for count in [0_usize, 1, 7, 200, 201] {
            let names: Vec<String> = (0..count).map(|i| i.to_string()).collect();
            let heat = Heat::new(names.iter().map(String::as_str));
            assert_eq!(heat.map.nodes.len(), count.min(NODES_MAX), "{count}");
        }
    }
}
