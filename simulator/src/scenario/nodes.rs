//! `[[nodes]]`: nodes one by one or by the thousand.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use super::diagnostics::Problem;
use super::names;
use super::section::{Section, TIME};
use super::shapes::{self, Catalogue};
use crate::distribution::Distribution;
use crate::plan::{NodeShape, PlannedNode};
use crate::span::Span;

/// More nodes cannot be simulated.
pub const NODES_MAX: u64 = 1_000_000;
/// What stands for a node's number in the name of its group.
pub(crate) const NUMBER: &str = "{i}";

/// Nodes that are described together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    /// Their name; with `{i}` for the number.
    pub name: String,
    /// The number of the first one.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Their shapes in turn, as numbers in the scenario's shapes.
    pub shapes: Vec<u32>,
    /// When their hosts start.
    pub joins: Distribution,
    /// Where the file says so.
    pub place: Range<usize>,
}

impl NodeGroup {
    /// The name of the n-th node.
    pub fn name_of(&self, n: u64) -> String {
        self.name.replace(NUMBER, &(self.first + n).to_string())
    }

    /// Whether a node of the group has this name.
    pub fn contains(&self, name: &str) -> bool {
        let Some((before, after)) = self.name.split_once(NUMBER) else { return self.name == name };
        let number = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        let number = number.and_then(|n| n.parse::<u64>().ok());
        number.is_some_and(|n| {
            (self.first..self.first + self.count).contains(&n)
                && self.name_of(n - self.first) == name
        })
    }

    /// The nodes, with what chance decides.
    pub(crate) fn expand(&self, rng: &mut ChaCha8Rng, out: &mut Vec<PlannedNode>) {
        let mut shapes = self.shapes.iter().cycle();
        out.extend((0..self.count).map(|n| PlannedNode {
            name: self.name_of(n),
            shape: *shapes.next().expect("a group has a shape"),
            joins: self.joins.sample(rng),
        }));
    }
}

/// Reads one `[[nodes]]`.
pub(crate) fn read(section: &Section<'_>, shapes: &mut Catalogue<NodeShape>) -> Option<NodeGroup> {
    let name = section.need("name").and_then(|value| {
        let text = value.text()?;
        let example = text.replace(NUMBER, "0");
        if let Some(fault) = names::object_fault(&example).or(match example.contains('/') {
            true => Some("nodes have no namespace"),
            false => None,
        }) {
            value.report(format!("`{text}` cannot be the name of nodes"), fault, "");
            return None;
        }
        Some(text.to_owned())
    });
    let count = section.whole("count", 1..=NODES_MAX);
    let first = section.whole("first", 0..=NODES_MAX).unwrap_or(0);
    let joins = section.distribution("joins", &TIME).unwrap_or_default();
    let shapes = of_shapes(section, shapes);
    section.finish();
    let name = name?;
    let numbered = name.contains(NUMBER);
    if section.has("count") && !numbered && count != Some(1) {
        let place = section.place_of("name");
        let problem = Problem::error(place, format!("all nodes would be called `{name}`"));
        let help = format!("put `{NUMBER}` for the number: \"{name}-{NUMBER}\"");
        section.report(problem.label("one name for many").help(help));
    }
    let place = section.place();
    Some(NodeGroup { name, first, count: count.unwrap_or(1), shapes: shapes?, joins, place })
}

/// The shapes of a group: one that has a name, or one that is spelled out, in one or more zones.
pub(crate) fn of_shapes(
    section: &Section<'_>,
    known: &mut Catalogue<NodeShape>,
) -> Option<Vec<u32>> {
    let named = section.get("shape");
    let shape = match &named {
        Some(value) => {
            let index = known.index("shape", value)?;
            for key in ["cpu", "memory", "pods", "zone", "labels", "taints", "extended"] {
                if section.has(key) {
                    let message = format!("`{key}` stands in the shape already");
                    let problem = Problem::error(section.place_of(key), message);
                    let help = format!("leave out `shape` or `{key}`");
                    section.report(problem.label("which one?").help(help));
                }
            }
            // Asked for, so that they are told once.
            let _ = shapes::node_shape(section);
            known.value(index)?.clone()
        }
        None => shapes::node_shape(section),
    };
    let Some(zones) = section.get("zones") else {
        let index = match named {
            Some(value) => known.index("shape", &value)?,
            None => known.intern(shape),
        };
        return Some(vec![index]);
    };
    let zones: Vec<String> =
        zones.list()?.iter().map(|z| z.label_value().map(str::to_owned)).collect::<Option<_>>()?;
    if zones.is_empty() {
        let place = section.place_of("zones");
        section.report(Problem::error(place, "`zones` is empty").help("leave it out"));
        return None;
    }
    let in_zone = |zone| known.intern(NodeShape { zone, ..shape.clone() });
    Some(zones.into_iter().map(in_zone).collect())
}

/// Reports nodes of the same name.
pub(crate) fn duplicates(groups: &[NodeGroup]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        for other in &groups[..i] {
            let Some(name) = shared(group, other) else { continue };
            let message = format!("two nodes are called `{name}`");
            problems.push(
                Problem::error(group.place.clone(), message)
                    .label("used again here")
                    .also(other.place.clone(), "first used here")
                    .help("`first` makes the numbers of a group begin elsewhere"),
            );
        }
    }
    problems
}

/// A name that two groups have both.
fn shared(a: &NodeGroup, b: &NodeGroup) -> Option<String> {
    if a.name == b.name && a.name.contains(NUMBER) {
        let first = a.first.max(b.first);
        let end = (a.first + a.count).min(b.first + b.count);
        return (first < end).then(|| a.name.replace(NUMBER, &first.to_string()));
    }
    let (few, many) = if a.count <= b.count { (a, b) } else { (b, a) };
    // Different patterns share names only by accident: `a-{i}` and `a-1{i}`.
    let prefix = |group: &NodeGroup| group.name.split(NUMBER).next().map(str::to_owned);
    let (x, y) = (prefix(few)?, prefix(many)?);
    if !x.starts_with(&y) && !y.starts_with(&x) {
        return None;
    }
    (0..few.count).map(|n| few.name_of(n)).find(|name| many.contains(name))
}

/// Whether hosts that start later than `end` are never seen.
pub(crate) fn too_late(group: &NodeGroup, end: Span) -> Option<Problem> {
    let last = group.joins.quantile(0);
    (last > end).then(|| {
        let message = format!("`{}` joins after {last}, but all is over at {end}", group.name);
        Problem::error(group.place.clone(), message).label("too late")
    })
}
