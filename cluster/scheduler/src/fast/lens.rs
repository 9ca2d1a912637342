//! [`Lens`]: what a decision sees of other pods, node by node.

use crate::census::{GONE, LACKING};
use crate::framework::Score;
use crate::plugins::{of_count, scaled, spread_scores, weight_of};
use crate::survey::Refusal;

/// Counts by domain of one key.
pub(super) struct Column<'a> {
    /// By node.
    pub(super) domains: &'a [u32],
    /// By domain; beyond the end there is nothing.
    pub(super) counts: &'a [i64],
}

impl Column<'_> {
    fn domain(&self, node: u32) -> Option<u32> {
        let domain = self.domains.get(node as usize).copied().unwrap_or(GONE);
        (domain < LACKING).then_some(domain)
    }

    fn count(&self, domain: u32) -> i64 {
        self.counts.get(domain as usize).copied().unwrap_or(0)
    }

    fn on(&self, node: u32) -> i64 {
        self.domain(node).map_or(0, |domain| self.count(domain))
    }
}

/// A hard spread constraint.
pub(super) struct LensOfHard<'a> {
    pub(super) column: Column<'a>,
    /// So many pods may a domain have that takes another one.
    pub(super) most: i64,
}

/// A soft spread constraint.
pub(super) struct LensOfSoft<'a> {
    /// The domains, and the counts of domains, or of nodes.
    pub(super) column: Column<'a>,
    pub(super) each_node: bool,
    pub(super) max_skew: i64,
    /// Domain numbers are below this.
    pub(super) domains: usize,
}

/// What a decision sees of other pods.
pub(super) struct Lens<'a> {
    pub(super) hard: Vec<LensOfHard<'a>>,
    pub(super) affinity: Vec<Column<'a>>,
    /// Whether the pod has nobody to be with, and may be the first.
    pub(super) first_of_series: bool,
    pub(super) disliked: Vec<Column<'a>>,
    pub(super) disliking: Vec<Column<'a>>,
    pub(super) soft: Vec<LensOfSoft<'a>>,
    pub(super) all_keys: bool,
    pub(super) preferred: Vec<Column<'a>>,
}

impl Lens<'_> {
    /// Why other pods keep the pod from a node.
    pub(super) fn refusal(&self, node: u32) -> Option<Refusal> {
        for LensOfHard { column, most } in &self.hard {
            let Some(domain) = column.domain(node) else { return Some(Refusal::SpreadLabel) };
            if column.count(domain) > *most {
                return Some(Refusal::Spread);
            }
        }
        let mut all = true;
        for column in &self.affinity {
            let Some(domain) = column.domain(node) else { return Some(Refusal::Affinity) };
            all &= column.count(domain) != 0;
        }
        if !all && !self.first_of_series {
            return Some(Refusal::Affinity);
        }
        let in_one_of = |columns: &[Column]| columns.iter().any(|column| column.on(node) != 0);
        if in_one_of(&self.disliked) {
            return Some(Refusal::AntiAffinity);
        }
        in_one_of(&self.disliking).then_some(Refusal::AntiAffinityOfOther)
    }

    /// Scores of the nodes that passed, by soft spread constraints; none if there are none.
    pub(super) fn spread_scores(&self, nodes: &[u32]) -> Vec<Score> {
        if self.soft.is_empty() {
            return Vec::new();
        }
        let ignored = |node: u32| {
            self.all_keys && self.soft.iter().any(|soft| soft.column.domain(node).is_none())
        };
        let mut sums: Vec<Option<f64>> =
            nodes.iter().map(|node| (!ignored(*node)).then_some(0.0)).collect();
        let looked_at = sums.iter().flatten().count();
        for soft in &self.soft {
            let column = &soft.column;
            let domains = if soft.each_node { looked_at } else { soft.domains_of(nodes, &sums) };
            let weight = weight_of(domains);
            for (sum, node) in sums.iter_mut().zip(nodes) {
                let (Some(sum), Some(domain)) = (sum, column.domain(*node)) else { continue };
                let count = column.count(if soft.each_node { *node } else { domain });
                *sum += of_count(count, weight, soft.max_skew);
            }
        }
        spread_scores(&sums)
    }

    /// Scores of the nodes that passed, by preferences; none if there are none.
    pub(super) fn affinity_scores(&self, nodes: &[u32]) -> Vec<Score> {
        if self.preferred.is_empty() {
            return Vec::new();
        }
        let liked = |node: &u32| self.preferred.iter().map(|column| column.on(*node)).sum();
        let liked: Vec<i64> = nodes.iter().map(liked).collect();
        scaled(&liked)
    }
}

impl LensOfSoft<'_> {
    /// How many domains the nodes that are looked at are in; those without the key are in the
    /// domain of the empty value.
    fn domains_of(&self, nodes: &[u32], looked_at: &[Option<f64>]) -> usize {
        let mut seen = vec![false; self.domains];
        let mut count = 0;
        for (node, _) in nodes.iter().zip(looked_at).filter(|(_, sum)| sum.is_some()) {
            let domain = self.column.domain(*node).unwrap_or(0) as usize;
            count += usize::from(!std::mem::replace(&mut seen[domain], true));
        }
        count
    }
}
