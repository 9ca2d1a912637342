//! Nodes that fail and are repaired, zones that fail, nodes that are added and taken away.

use std::collections::BTreeMap;
use std::ops::Range;

use machine::RngTree;
use rand::RngExt;

use crate::distribution::Distribution;
use crate::plan::{
    DRAIN_TIMEOUT, Fault, NodeShape, Operation, Plan, PlannedFault, PlannedNode, PlannedOperation,
    Target,
};
use crate::scenario::diagnostics::Problem;
use crate::scenario::nodes::{self, NodeGroup};
use crate::scenario::section::{Section, TIME};
use crate::scenario::shapes::Catalogue;
use crate::span::Span;
use crate::workload::Arrivals;

/// How long a node is cordoned before it is taken away.
const CORDONED: Span = Span::secs(60);
/// More events are more than failures of a cluster.
const EVENTS_MAX: u64 = 1_000_000;

/// How nodes fail, come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Churn {
    /// The mean time between two failures of one node.
    pub node_mtbf: Option<Span>,
    /// How long it then is away.
    pub node_repair: Distribution,
    /// The mean time between two failures of one zone.
    pub zone_mtbf: Option<Span>,
    /// How long its nodes then are away.
    pub zone_repair: Distribution,
    /// Nodes that are added: when, and what they are.
    pub additions: Option<(Arrivals, NodeGroup)>,
    /// When a node is cordoned, and a minute later switched off and deleted.
    pub removals: Option<Arrivals>,
    /// When a node is drained, and how long after that it is uncordoned.
    pub drains: Option<(Arrivals, Distribution)>,
    /// Where the file says so.
    pub place: Range<usize>,
}

/// Reads `[churn]`.
pub(crate) fn read(section: &Section<'_>, shapes: &mut Catalogue<NodeShape>) -> Churn {
    let repair = |key| {
        let default = Distribution::Skewed { median: Span::secs(300), p99: Span::secs(3_600) };
        section.distribution(key, &TIME).unwrap_or(default)
    };
    let additions = section.section("additions").and_then(|section| {
        let arrivals = Arrivals::read(&section, None);
        let shapes = nodes::of_shapes(&section, shapes);
        let name = section.get("name").map_or(Some("added-{i}"), |value| value.text());
        section.finish();
        let name = name?.to_owned();
        if !name.contains(nodes::NUMBER) {
            let problem = Problem::error(section.place_of("name"), "all nodes would have one name");
            section.report(problem.help(format!("put `{}` for the number", nodes::NUMBER)));
        }
        let place = section.place();
        let group = NodeGroup {
            name,
            first: 0,
            count: EVENTS_MAX,
            shapes: shapes?,
            joins: Distribution::default(),
            place,
        };
        Some((arrivals?, group))
    });
    let removals = section.section("removals").and_then(|section| {
        let arrivals = Arrivals::read(&section, None);
        section.finish();
        arrivals
    });
    let drains = section.section("drains").and_then(|section| {
        let arrivals = Arrivals::read(&section, None);
        let lasts = section.distribution("lasts", &TIME);
        section.finish();
        Some((arrivals?, lasts.unwrap_or(Distribution::Constant(Span::secs(300)))))
    });
    let churn = Churn {
        node_mtbf: mean(section, "node_mtbf"),
        node_repair: repair("node_repair"),
        zone_mtbf: mean(section, "zone_mtbf"),
        zone_repair: repair("zone_repair"),
        additions,
        removals,
        drains,
        place: section.place(),
    };
    section.finish();
    churn
}

fn mean(section: &Section<'_>, key: &'static str) -> Option<Span> {
    let value = section.get(key)?;
    let mean = value.amount(&TIME)?;
    if mean == Span::ZERO {
        let message = format!("`{}` cannot be 0s", value.path());
        value.report(message, "would never end", "leave it out");
        return None;
    }
    Some(mean)
}

impl Churn {
    /// Whether it needs to be told when operations end.
    pub(crate) fn endless(&self) -> bool {
        let streams = self.additions.as_ref().map(|(arrivals, _)| arrivals);
        let streams = streams.into_iter().chain(self.drains.as_ref().map(|(arrivals, _)| arrivals));
        self.node_mtbf.is_some()
            || self.zone_mtbf.is_some()
            || streams.chain(&self.removals).any(Arrivals::endless)
    }

    /// Whether there are more failures than can be simulated.
    pub(crate) fn too_many(&self, nodes: u64, end: Option<Span>) -> Option<Problem> {
        let (end, mtbf) = (end?, self.node_mtbf?);
        let expected = u128::from(end.0) * u128::from(nodes) / u128::from(mtbf.0);
        (expected > u128::from(EVENTS_MAX)).then(|| {
            let message = format!("about {expected} failures are more than can be simulated");
            let problem = Problem::error(self.place.clone(), message);
            problem.label(format!("at most {EVENTS_MAX}"))
        })
    }

    /// Adds nodes, operations and faults to a plan whose operations end at `end`.
    pub(crate) fn expand(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        self.add(end, tree, plan);
        self.remove(end, tree, plan);
        self.drain(end, tree, plan);
        self.fail(end, tree, plan);
        self.fail_zones(end, tree, plan);
    }

    fn add(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let Some((arrivals, group)) = &self.additions else { return };
        let mut rng = tree.rng("additions");
        let shapes = group.shapes.iter().cycle();
        for ((n, at), shape) in (0..).zip(arrivals.times(Some(end), &mut rng)).zip(shapes) {
            if at < end {
                plan.nodes.push(PlannedNode { name: group.name_of(n), shape: *shape, joins: at });
            }
        }
    }

    fn remove(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let Some(arrivals) = &self.removals else { return };
        let (mut times, mut rng) = (tree.rng("removals"), tree.rng("removed"));
        let mut left: Vec<usize> = (0..plan.nodes.len()).collect();
        for at in arrivals.times(Some(end), &mut times) {
            let off = Span(at.0.saturating_add(CORDONED.0));
            // One node stays.
            if left.len() <= 1 || off >= end {
                break;
            }
            let at_list = rng.random_range(0..left.len());
            let node = &plan.nodes[left[at_list]];
            if node.joins > at {
                continue;
            }
            let name = node.name.clone();
            left.swap_remove(at_list);
            let mut operation =
                |at, operation| plan.operations.push(PlannedOperation { at, operation });
            operation(at, Operation::Cordon { node: name.clone(), unschedulable: true });
            let (orphan, foreground) = (false, false);
            let delete =
                Operation::Delete { target: Target::Node, name: name.clone(), orphan, foreground };
            operation(Span(off.0 + 1), delete);
            let fault = Fault::HostCrash { node: name };
            plan.faults.push(PlannedFault { at: off, lasts: None, fault });
        }
    }

    fn drain(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let Some((arrivals, lasts)) = &self.drains else { return };
        let (mut times, mut rng, mut lengths) =
            (tree.rng("drains"), tree.rng("drained"), tree.rng("drained for"));
        let count = plan.nodes.len();
        for at in arrivals.times(Some(end), &mut times) {
            if count == 0 || at >= end {
                break;
            }
            let node = &plan.nodes[rng.random_range(0..count)];
            let back = Span(at.0.saturating_add(lasts.sample(&mut lengths).0)).min(end);
            if node.joins > at {
                continue;
            }
            let node = node.name.clone();
            // Whoever wants it back does not wait for what a budget holds.
            let timeout = DRAIN_TIMEOUT.min(Span(back.0 - at.0));
            let drain = Operation::Drain { node: node.clone(), timeout };
            plan.operations.push(PlannedOperation { at, operation: drain });
            let operation = Operation::Cordon { node, unschedulable: false };
            plan.operations.push(PlannedOperation { at: back, operation });
        }
    }

    fn fail(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let (Some(mtbf), count) = (self.node_mtbf, plan.nodes.len()) else { return };
        let nodes = u64::try_from(count).unwrap_or(u64::MAX);
        if nodes == 0 {
            return;
        }
        // Failures of many nodes that know nothing of each other are one such stream.
        let gap = Distribution::Exponential { mean: Span((mtbf.0 / nodes).max(1)) };
        let (mut times, mut lengths, mut rng) =
            (tree.rng("failures"), tree.rng("repairs"), tree.rng("failed"));
        let mut at = Span::ZERO;
        loop {
            at = Span(at.0.saturating_add(gap.sample(&mut times).0.max(1)));
            if at >= end {
                return;
            }
            let node = &plan.nodes[rng.random_range(0..count)];
            let lasts = Some(self.node_repair.sample(&mut lengths));
            if node.joins <= at {
                let fault = Fault::HostCrash { node: node.name.clone() };
                plan.faults.push(PlannedFault { at, lasts, fault });
            }
        }
    }

    fn fail_zones(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let Some(mtbf) = self.zone_mtbf else { return };
        let mut zones: BTreeMap<&str, Vec<&PlannedNode>> = BTreeMap::new();
        for node in &plan.nodes {
            let shape = usize::try_from(node.shape).ok().and_then(|i| plan.shapes.get(i));
            zones.entry(shape.map_or("", |s| s.zone.as_str())).or_default().push(node);
        }
        let gap = Distribution::Exponential { mean: mtbf };
        let mut faults = Vec::new();
        for (zone, nodes) in zones {
            let tree = tree.child("zone").child(zone);
            let (mut times, mut lengths) = (tree.rng("failures"), tree.rng("repairs"));
            let mut at = Span::ZERO;
            loop {
                at = Span(at.0.saturating_add(gap.sample(&mut times).0.max(1)));
                if at >= end {
                    break;
                }
                let lasts = Some(self.zone_repair.sample(&mut lengths));
                faults.extend(nodes.iter().filter(|n| n.joins <= at).map(|node| {
                    let fault = Fault::HostCrash { node: node.name.clone() };
                    PlannedFault { at, lasts, fault }
                }));
            }
        }
        plan.faults.append(&mut faults);
    }
}
