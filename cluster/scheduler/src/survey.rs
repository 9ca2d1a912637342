//! [`Survey`]: how the pods that are there bear on one pod, counted anew, pod by pod; what the
//! reference decides by, and what counts that are kept have to equal.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::census::{Census, Heads};
use crate::cycle::Question;
use crate::framework::{Relating, Score, Verdict};
use crate::node_info::NodeInfo;
use crate::plugins::{of_count, scaled, spread_scores, weight_of};
use crate::pod_info::PodClass;
use crate::relations::{Constraint, HOSTNAME, Identity, Presence, Terms};
use crate::snapshot::Snapshot;

/// Why other pods keep a pod from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The node lacks a label that a spread constraint asks for.
    SpreadLabel,
    /// Its domain has too many of the pods that a spread constraint counts.
    Spread,
    /// No pod that the pod has to be with is in the node's domain.
    Affinity,
    /// A pod that the pod cannot be with is.
    AntiAffinity,
    /// A pod that cannot be with this one is.
    AntiAffinityOfOther,
}

impl Refusal {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::SpreadLabel,
        Self::Spread,
        Self::Affinity,
        Self::AntiAffinity,
        Self::AntiAffinityOfOther,
    ];

    /// The plugin that refuses.
    pub(crate) const fn plugin(self) -> &'static str {
        match self {
            Self::SpreadLabel | Self::Spread => "PodTopologySpread",
            Self::Affinity | Self::AntiAffinity | Self::AntiAffinityOfOther => "InterPodAffinity",
        }
    }

    /// Why, as `FailedScheduling` counts it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::Affinity => "node(s) didn't match pod affinity rules",
            Self::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::AntiAffinityOfOther => "node(s) didn't satisfy existing pods anti-affinity rules",
        }
    }

    /// Whether evicting pods from the node could help.
    pub const fn resolvable(self) -> bool {
        !matches!(self, Self::SpreadLabel | Self::Affinity)
    }

    /// As a plugin says it.
    pub fn verdict(self) -> Verdict {
        let reasons = vec![self.reason().to_owned()];
        Verdict::Reject { reasons, resolvable: self.resolvable() }
    }
}

/// Domains: the key of their label, and its value.
type ByDomain = BTreeMap<(String, String), i64>;

/// A hard constraint, and the pods that it counts.
#[derive(Clone, Debug)]
struct Counted {
    constraint: Constraint,
    /// Whether the pod itself would count.
    own: bool,
    /// By the value of the label; domains without pods are there, too.
    pods: BTreeMap<String, i64>,
}

/// How the pods that are there bear on one pod.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    relating: &'a Relating,
    snapshot: &'a Snapshot,
    pod: Question<'a>,
    hard: Vec<Counted>,
    soft: Vec<Constraint>,
    /// Domains with pods that match all of the pod's terms of affinity.
    liked: ByDomain,
    likes_itself: bool,
    /// Domains with pods that match one of its terms of anti-affinity.
    disliked: ByDomain,
    /// Domains with pods that have a term of anti-affinity that it matches.
    disliking: ByDomain,
}

impl<'a> Survey<'a> {
    /// Counts all pods.
    pub fn of(relating: &'a Relating, snapshot: &'a Snapshot, pod: Question<'a>) -> Self {
        let census = snapshot.census();
        let constraints = census.constraints(pod.kin, relating.defaults());
        let spread = constraints.into_iter().filter(|constraint| relating.honors(constraint));
        let (hard, soft): (Vec<_>, Vec<_>) = spread.partition(|constraint| constraint.hard);
        let identity = &pod.kin.identity;
        let counted = |constraint: Constraint| Counted {
            own: constraint.selector.matches(Some(&identity.labels)),
            pods: BTreeMap::new(),
            constraint,
        };
        let mut survey = Self {
            relating,
            snapshot,
            pod,
            hard: hard.into_iter().map(counted).collect(),
            soft,
            liked: ByDomain::new(),
            likes_itself: pod.kin.likes_itself(&census.namespaces),
            disliked: ByDomain::new(),
            disliking: ByDomain::new(),
        };
        survey.find_domains();
        for (_, crowd) in census.crowds().iter() {
            for (node, heads) in existing(snapshot, &crowd.on) {
                survey.count_identity(&crowd.of, node, heads.all(), heads.staying.into());
            }
        }
        for (_, holder) in census.holders().iter() {
            for (node, heads) in existing(snapshot, &holder.on) {
                survey.count_terms(&holder.of, node, heads.all());
            }
        }
        survey
    }

    /// Counts none: for a pod on which no pod bears, in whatever is tried.
    pub(crate) fn of_nobody(
        relating: &'a Relating,
        snapshot: &'a Snapshot,
        pod: Question<'a>,
    ) -> Self {
        Self {
            relating,
            snapshot,
            pod,
            hard: Vec::new(),
            soft: Vec::new(),
            liked: ByDomain::new(),
            likes_itself: true,
            disliked: ByDomain::new(),
            disliking: ByDomain::new(),
        }
    }

    /// Counts a pod in on a node (`by` is 1) or out of it (-1), as if it came or left.
    pub fn count(&mut self, pod: &Presence, node: &NodeInfo, by: i64) {
        let staying = if pod.leaving { 0 } else { by };
        self.count_identity(&pod.identity, node, by, staying);
        if let Some(terms) = &pod.terms {
            self.count_terms(terms, node, by);
        }
    }

    /// Why spread constraints keep the pod from a node.
    pub(crate) fn spread(&self, node: &NodeInfo) -> Option<Refusal> {
        for Counted { constraint, own, pods } in &self.hard {
            let Some(value) = node.labels.get(&constraint.key) else {
                return Some(Refusal::SpreadLabel);
            };
            let domains = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            let least = pods.values().copied().min().filter(|_| domains >= constraint.min_domains);
            let here = pods.get(value).copied().unwrap_or(0);
            if here + i64::from(*own) - least.unwrap_or(0) > constraint.max_skew {
                return Some(Refusal::Spread);
            }
        }
        None
    }

    /// Why affinity keeps the pod from a node.
    pub(crate) fn affinity(&self, node: &NodeInfo) -> Option<Refusal> {
        let terms = self.pod.kin.terms.as_ref().filter(|_| self.relating.requires());
        let mut all = true;
        for term in terms.iter().flat_map(|terms| &terms.affinity) {
            let Some(value) = node.labels.get(&term.key) else { return Some(Refusal::Affinity) };
            all &= self.liked.contains_key(&(term.key.clone(), value.clone()));
        }
        // The first pod of a series that wants to be together has nobody to be with.
        let first_of_series = self.liked.is_empty() && self.likes_itself;
        if !all && !first_of_series {
            return Some(Refusal::Affinity);
        }
        let in_one_of = |domains: &ByDomain| {
            domains.keys().any(|(key, value)| node.labels.get(key) == Some(value))
        };
        if in_one_of(&self.disliked) {
            return Some(Refusal::AntiAffinity);
        }
        in_one_of(&self.disliking).then_some(Refusal::AntiAffinityOfOther)
    }

    /// Scores of the nodes that passed, by soft spread constraints.
    pub(crate) fn spread_scores(&self, nodes: &[u32]) -> Vec<Score> {
        if self.soft.is_empty() {
            return Vec::new();
        }
        let all_keys = self.all_keys();
        let value = |node: u32, key: &str| self.snapshot.row(node).labels.get(key);
        let ignored =
            |node: u32| all_keys && self.soft.iter().any(|c| value(node, &c.key).is_none());
        let looked_at: Vec<u32> = nodes.iter().copied().filter(|node| !ignored(*node)).collect();
        let mut sums: Vec<Option<f64>> =
            nodes.iter().map(|node| (!ignored(*node)).then_some(0.0)).collect();
        for constraint in &self.soft {
            let by_node = self.counted_by_node(constraint);
            let on = |node: u32| by_node.get(&node).copied().unwrap_or(0);
            let domain = |node: u32| value(node, &constraint.key).map_or("", String::as_str);
            let domains: BTreeSet<&str> = looked_at.iter().map(|node| domain(*node)).collect();
            let each_node = constraint.key == HOSTNAME;
            let weight = weight_of(if each_node { looked_at.len() } else { domains.len() });
            let mut pods: BTreeMap<&str, i64> = BTreeMap::new();
            for node in self.snapshot.order().nodes().iter().copied() {
                let row = self.snapshot.row(node);
                if !ignored(node) && is_eligible(constraint, self.pod.class, row) {
                    *pods.entry(domain(node)).or_default() += on(node);
                }
            }
            for (sum, node) in sums.iter_mut().zip(nodes) {
                let (Some(sum), true) = (sum, value(*node, &constraint.key).is_some()) else {
                    continue;
                };
                let in_domain = || pods.get(domain(*node)).copied().unwrap_or(0);
                let count = if each_node { on(*node) } else { in_domain() };
                *sum += of_count(count, weight, constraint.max_skew);
            }
        }
        spread_scores(&sums)
    }

    /// Scores of the nodes that passed, by preferences of the pod and of those that are there.
    pub(crate) fn affinity_scores(&self, nodes: &[u32]) -> Vec<Score> {
        let Some(wanted) = &self.relating.affinity else { return Vec::new() };
        let (snapshot, census) = (self.snapshot, self.snapshot.census());
        let kin = self.pod.kin;
        let preferred = kin.terms.iter().flat_map(|terms| &terms.preferred);
        let preferred: Vec<_> = preferred.collect();
        if wanted.ignores_existing && preferred.is_empty() {
            return Vec::new();
        }
        let mut liked = ByDomain::new();
        for (_, crowd) in census.crowds().iter() {
            for (node, heads) in existing(snapshot, &crowd.on) {
                for (weight, term) in &preferred {
                    if term.matches(&crowd.of, &census.namespaces) {
                        add(&mut liked, &term.key, node, weight * heads.all());
                    }
                }
            }
        }
        for (_, holder) in census.holders().iter() {
            for (node, heads) in existing(snapshot, &holder.on) {
                let hard = holder.of.affinity.iter().map(|term| (wanted.hard_weight, term));
                let soft = holder.of.preferred.iter().map(|(weight, term)| (*weight, term));
                for (weight, term) in hard.chain(soft) {
                    if term.matches(&kin.identity, &census.namespaces) {
                        add(&mut liked, &term.key, node, weight * heads.all());
                    }
                }
            }
        }
        if liked.is_empty() {
            return Vec::new();
        }
        let sum = |node: &u32| {
            let labels = &snapshot.row(*node).labels;
            let here =
                |((key, value), _): &(&(String, String), &i64)| labels.get(key) == Some(value);
            liked.iter().filter(here).map(|(_, weight)| weight).sum()
        };
        let sums: Vec<i64> = nodes.iter().map(sum).collect();
        scaled(&sums)
    }

    /// Whether nodes that lack the key of a soft constraint are not looked at.
    fn all_keys(&self) -> bool {
        let spread = self.relating.spread.as_ref();
        !self.pod.kin.constraints.is_empty() || spread.is_none_or(|s| !s.lacking_allowed)
    }

    fn find_domains(&mut self) {
        for node in self.snapshot.order().nodes().iter().copied() {
            let row = self.snapshot.row(node);
            for i in self.eligible(row) {
                if let Some(value) = row.labels.get(&self.hard[i].constraint.key) {
                    self.hard[i].pods.entry(value.clone()).or_default();
                }
            }
        }
    }

    /// The hard constraints that look at a node.
    fn eligible(&self, row: &NodeInfo) -> Vec<usize> {
        if !self.hard.iter().all(|c| row.labels.contains_key(&c.constraint.key)) {
            return Vec::new();
        }
        let looks = |i: &usize| is_eligible(&self.hard[*i].constraint, self.pod.class, row);
        (0..self.hard.len()).filter(looks).collect()
    }

    fn count_identity(&mut self, pod: &Identity, node: &NodeInfo, all: i64, staying: i64) {
        for i in self.eligible(node) {
            let Counted { constraint, pods, .. } = &mut self.hard[i];
            if constraint.counts(pod, &self.pod.kin.identity.namespace)
                && let Some(value) = node.labels.get(&constraint.key)
                && let Some(count) = pods.get_mut(value)
            {
                *count += staying;
            }
        }
        let Some(terms) = self.pod.kin.terms.as_ref().filter(|_| self.relating.requires()) else {
            return;
        };
        let namespaces = &self.snapshot.census().namespaces;
        if terms.affinity.iter().all(|term| term.matches(pod, namespaces)) {
            for term in &terms.affinity {
                add(&mut self.liked, &term.key, node, all);
            }
        }
        for term in terms.anti_affinity.iter().filter(|term| term.matches(pod, namespaces)) {
            add(&mut self.disliked, &term.key, node, all);
        }
    }

    fn count_terms(&mut self, terms: &Terms, node: &NodeInfo, by: i64) {
        if !self.relating.requires() {
            return;
        }
        let namespaces = &self.snapshot.census().namespaces;
        for term in &terms.anti_affinity {
            if term.matches(&self.pod.kin.identity, namespaces) {
                add(&mut self.disliking, &term.key, node, by);
            }
        }
    }

    /// How many pods a constraint counts on each node.
    fn counted_by_node(&self, constraint: &Constraint) -> BTreeMap<u32, i64> {
        let mut by_node = BTreeMap::new();
        let census: &Census = self.snapshot.census();
        for (_, crowd) in census.crowds().iter() {
            if constraint.counts(&crowd.of, &self.pod.kin.identity.namespace) {
                for (node, heads) in &crowd.on {
                    *by_node.entry(*node).or_default() += i64::from(heads.staying);
                }
            }
        }
        by_node
    }
}

/// Whether a constraint of such a pod looks at a node.
pub(crate) fn is_eligible(constraint: &Constraint, pod: &PodClass, node: &NodeInfo) -> bool {
    (!constraint.honors_affinity || pod.allows(node))
        && (!constraint.honors_taints || pod.untolerated(node).is_none())
}

/// Those of the nodes that exist.
fn existing<'a>(
    snapshot: &'a Snapshot,
    on: &'a BTreeMap<u32, Heads>,
) -> impl Iterator<Item = (&'a NodeInfo, Heads)> {
    on.iter().map(|(node, heads)| (snapshot.row(*node), *heads)).filter(|(row, _)| row.known)
}

/// Adds to the node's domain, if it has the key; domains with nothing are not there.
fn add(domains: &mut ByDomain, key: &str, node: &NodeInfo, by: i64) {
    let Some(value) = node.labels.get(key) else { return };
    let domain = (key.to_owned(), value.clone());
    let sum = domains.entry(domain.clone()).or_default();
    *sum += by;
    if *sum == 0 {
        domains.remove(&domain);
    }
}
