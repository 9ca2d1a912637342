//! What the nodes offer and what is asked of them.

use k8s_openapi::api::core::v1::Node;
use scheduler::resources::Resources;

use super::shapes::Shape;
use super::table::{Fingerprint, Table};
use crate::outcome::Sample;

/// In a heat map: the node was not there.
pub(super) const ABSENT: u8 = u8::MAX;

/// The nodes that ever were, with what their pods ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    rows: Vec<Row>,
    /// Index into `rows`.
    by_name: Table,
    total: Row,
    present: u64,
    ready: u64,
    used: u64,
    ever: u64,
}

/// One node, or the sum of all.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    ever: bool,
    present: bool,
    ready: bool,
    allocatable: Shape,
    pods_max: i64,
    requested: Shape,
    pods: u64,
}

impl Nodes {
    /// A node was written; `None` when it is gone.
    pub(super) fn write(&mut self, name: &str, old: Option<&Node>, new: Option<&Node>) {
        let at = self.row(name);
        let row = &mut self.rows[at];
        let before = *row;
        row.present = new.is_some();
        row.ready = new.is_some_and(is_ready);
        row.ever |= row.present;
        // Most writes are about something else than the size.
        if old.is_none() || new.is_none() || size(old) != size(new) {
            (row.allocatable, row.pods_max) = new.map(offer).unwrap_or_default();
        }
        let count = |total: &mut u64, was: bool, is: bool| {
            *total = *total + u64::from(is) - u64::from(was);
        };
        count(&mut self.present, before.present, row.present);
        count(&mut self.ready, before.ready, row.ready);
        count(&mut self.ever, before.ever, row.ever);
        self.total.allocatable.add(row.allocatable, 1);
        self.total.allocatable.add(before.allocatable, -1);
    }

    /// A pod takes resources of a node.
    pub(super) fn add(&mut self, node: &str, shape: Shape) {
        let at = self.row(node);
        let row = &mut self.rows[at];
        self.used += u64::from(row.pods == 0);
        row.pods += 1;
        for row in [row, &mut self.total] {
            row.requested.add(shape, 1);
        }
    }

    /// A pod that was added has given them back.
    pub(super) fn remove(&mut self, node: &str, shape: Shape) {
        let at = self.row(node);
        let row = &mut self.rows[at];
        row.pods -= 1;
        self.used -= u64::from(row.pods == 0);
        for row in [row, &mut self.total] {
            row.requested.add(shape, -1);
        }
    }

    /// How many there ever were.
    pub(super) const fn ever(&self) -> u64 {
        self.ever
    }

    /// Fills in what the nodes know. Looks at every node: free CPU is stranded where a pod of
    /// `shape` finds no room.
    pub(super) fn sample(&self, shape: Option<Shape>, sample: &mut Sample) {
        let amount = |value: i64| u64::try_from(value).unwrap_or(0);
        sample.nodes = self.present;
        sample.nodes_ready = self.ready;
        sample.nodes_used = self.used;
        sample.cpu_allocatable_milli = amount(self.total.allocatable.cpu_milli);
        sample.cpu_requested_milli = amount(self.total.requested.cpu_milli);
        sample.memory_allocatable_bytes = amount(self.total.allocatable.memory_bytes);
        sample.memory_requested_bytes = amount(self.total.requested.memory_bytes);
        sample.gpus_allocatable = amount(self.total.allocatable.gpus);
        sample.gpus_requested = amount(self.total.requested.gpus);
        let stranded = |shape| self.rows.iter().map(|row| row.stranded(shape)).sum();
        sample.cpu_stranded_milli = amount(shape.map_or(0, stranded));
    }

    /// Percent of the node's CPU that is asked for; [`ABSENT`] when the node is not there.
    pub(super) fn cpu_percent(&self, name: &str) -> u8 {
        let row = self.find(name).map(|at| self.rows[at]);
        let Some(row) = row.filter(|r| r.present && r.allocatable.cpu_milli > 0) else {
            return ABSENT;
        };
        let percent = row.requested.cpu_milli.saturating_mul(100) / row.allocatable.cpu_milli;
        u8::try_from(percent.clamp(0, i64::from(ABSENT) - 1)).expect("clamped")
    }

    fn find(&self, name: &str) -> Option<usize> {
        let at = self.by_name.get(Fingerprint::of(name))?;
        Some(usize::try_from(at).expect("an index"))
    }

    /// The node's row, made when there is none.
    fn row(&mut self, name: &str) -> usize {
        self.find(name).unwrap_or_else(|| {
            self.by_name.insert(Fingerprint::of(name), self.rows.len() as u64);
            self.rows.push(Row::default());
            self.rows.len() - 1
        })
    }
}

impl Row {
    /// Free CPU of no use to a pod of that size. What a node that is not ready has free is not
    /// lost to fragmentation.
    fn stranded(&self, shape: Shape) -> i64 {
        let cpu = self.allocatable.cpu_milli - self.requested.cpu_milli;
        let memory = self.allocatable.memory_bytes - self.requested.memory_bytes;
        let gpus = self.allocatable.gpus - self.requested.gpus;
        let room = i64::try_from(self.pods).is_ok_and(|pods| pods < self.pods_max);
        let fits = room
            && cpu >= shape.cpu_milli
            && memory >= shape.memory_bytes
            && (shape.gpus == 0 || gpus >= shape.gpus);
        if !self.ready || fits { 0 } else { cpu.max(0) }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

type Amounts =
    std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn size(node: Option<&Node>) -> Option<&Amounts> {
    node?.status.as_ref()?.allocatable.as_ref()
}

/// What a node offers, and how many pods it takes.
fn offer(node: &Node) -> (Shape, i64) {
    let allocatable = size(Some(node));
    let resources = Resources::of_list(allocatable);
    let pods = allocatable.and_then(|a| a.get("pods"));
    let pods =
        pods.and_then(|q| api::quantity::Quantity::parse(&q.0).ok()).map_or(0, |q| q.value());
    (Shape::of(&resources), pods)
}
