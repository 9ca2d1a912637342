//! Shrinking: takes things out of a plan for as long as it still shows the same violation.
//!
//! First operations and faults, then nodes, then replicas, then times. Every candidate is run
//! from the start: runs of small plans take milliseconds. A checkpoint of the failing run, from
//! before what a candidate leaves out, would not do: checks are made for a whole plan (what
//! excuses them is whether there is a fault of some kind at all), so theirs would have looked at
//! another past than those of a run from the start.

use std::collections::BTreeSet;

use crate::plan::{Component, Fault, Plan};
use crate::span::Span;
use crate::world::World;

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest plan that was found.
    pub plan: Plan,
    /// Runs that it took.
    pub runs: u32,
    /// Whether nothing was left to try; otherwise the bounds were reached.
    pub complete: bool,
}

/// How long a smaller plan is looked for. Events bound the time, and are the same everywhere: so
/// is the plan that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Runs at most.
    pub runs: u32,
    /// Events of all runs together at most.
    pub events: u64,
}

impl Bounds {
    /// So many runs, however long they are.
    pub const fn runs(runs: u32) -> Self {
        Self { runs, events: u64::MAX }
    }
}

/// Whether a run of the plan violates the property.
pub fn violates(plan: &Plan, property: &str) -> bool {
    violates_within(plan, property, u64::MAX).0
}

/// Whether a run of the plan violates the property in so many events, and how many it took.
fn violates_within(plan: &Plan, property: &str, events_max: u64) -> (bool, u64) {
    let Ok(mut world) = World::new(plan.clone()) else { return (false, 0) };
    let is_it = |world: &World| world.violations().iter().any(|v| v.property == property);
    let mut seen = 0;
    while world.events() < events_max && world.step() {
        if world.violations().len() > seen {
            seen = world.violations().len();
            if is_it(&world) {
                return (true, world.events());
            }
        }
    }
    (is_it(&world), world.events())
}

/// Reduces a plan that violates the property, within bounds. `progress` is told of each run and
/// of the smallest plan so far.
pub fn shrink(
    plan: Plan,
    property: &str,
    bounds: Bounds,
    progress: &mut dyn FnMut(&Plan, u32),
) -> Shrunk {
    let mut shrinker = Shrinker { best: plan, property, runs: 0, events: 0, bounds, progress };
    loop {
        let before = size(&shrinker.best);
        shrinker.reduce_list(|plan| plan.faults.len(), |plan, keep| retain(&mut plan.faults, keep));
        shrinker.reduce_list(
            |plan| plan.operations.len(),
            |plan, keep| retain(&mut plan.operations, keep),
        );
        shrinker.reduce_list(|plan| plan.nodes.len(), remove_nodes);
        shrinker.reduce_replicas();
        shrinker.reduce_processes();
        shrinker.reduce_times();
        if size(&shrinker.best) == before || shrinker.is_exhausted() {
            break;
        }
    }
    drop_unused(&mut shrinker.best);
    let complete = !shrinker.is_exhausted();
    Shrunk { plan: shrinker.best, runs: shrinker.runs, complete }
}

/// What is to become smaller.
fn size(plan: &Plan) -> (usize, usize, usize, u64, u64) {
    let replicas = plan.operations.iter().filter_map(|o| o.operation.replicas());
    let lengths = plan.faults.iter().map(|f| f.lasts.unwrap_or_default().0);
    (
        plan.faults.len(),
        plan.operations.len(),
        plan.nodes.len(),
        replicas.map(u64::from).sum(),
        plan.settings.safety.0 + lengths.sum::<u64>(),
    )
}

struct Shrinker<'a> {
    best: Plan,
    property: &'a str,
    runs: u32,
    events: u64,
    bounds: Bounds,
    progress: &'a mut dyn FnMut(&Plan, u32),
}

impl Shrinker<'_> {
    const fn is_exhausted(&self) -> bool {
        self.runs >= self.bounds.runs || self.events >= self.bounds.events
    }

    /// Takes the candidate if it still shows the violation.
    fn try_plan(&mut self, candidate: Plan) -> bool {
        if self.is_exhausted() || candidate == self.best {
            return false;
        }
        self.runs += 1;
        let left = self.bounds.events - self.events;
        let (good, events) = violates_within(&candidate, self.property, left);
        self.events = self.events.saturating_add(events);
        if good {
            self.best = candidate;
        }
        (self.progress)(&self.best, self.runs);
        good
    }

    /// Leaves out ever smaller parts of a list: all of it, halves, quarters, single ones.
    fn reduce_list(
        &mut self,
        len: impl Fn(&Plan) -> usize,
        keep: impl Fn(&mut Plan, &dyn Fn(usize) -> bool),
    ) {
        let mut chunk = len(&self.best);
        while chunk > 0 && !self.is_exhausted() {
            let mut start = 0;
            while start < len(&self.best) {
                let end = start + chunk;
                let mut candidate = self.best.clone();
                keep(&mut candidate, &|i| i < start || i >= end);
                if !self.try_plan(candidate) {
                    start = end;
                }
                if self.is_exhausted() {
                    return;
                }
            }
            chunk /= 2;
        }
    }

    fn reduce_replicas(&mut self) {
        for index in 0..self.best.operations.len() {
            while let Some(replicas) = self.best.operations[index].operation.replicas() {
                if replicas == 0 {
                    break;
                }
                let with = |replicas: u32, best: &Plan| {
                    let mut candidate = best.clone();
                    candidate.operations[index].operation.limit_replicas(replicas);
                    candidate
                };
                let (half, less) = (with(replicas / 2, &self.best), with(replicas - 1, &self.best));
                if !self.try_plan(half) && !self.try_plan(less) {
                    break;
                }
            }
        }
    }

    /// Fewer processes of each kind, if no fault names those that are left out.
    fn reduce_processes(&mut self) {
        let settings = |plan: &mut Plan, which: usize, value: u16| match which {
            0 => plan.settings.api_servers = value,
            1 => plan.settings.schedulers = value,
            _ => plan.settings.controller_managers = value,
        };
        for which in 0..3 {
            let mut candidate = self.best.clone();
            settings(&mut candidate, which, 1);
            self.try_plan(candidate);
        }
    }

    /// Shorter faults, operations and faults at whole seconds, and no time after the last.
    fn reduce_times(&mut self) {
        for index in 0..self.best.faults.len() {
            while let Some(lasts) = self.best.faults[index].lasts {
                let mut candidate = self.best.clone();
                candidate.faults[index].lasts = Some(rounded(Span(lasts.0 / 2)));
                if lasts.0 < 2_000_000 || !self.try_plan(candidate) {
                    break;
                }
            }
        }
        let mut candidate = self.best.clone();
        candidate.operations.iter_mut().for_each(|o| o.at = rounded(o.at));
        candidate.faults.iter_mut().for_each(|f| f.at = rounded(f.at));
        candidate.sort();
        self.try_plan(candidate);
        let operations = self.best.operations.iter().map(|o| o.at);
        let faults = self.best.faults.iter().map(|f| Span(f.at.0 + f.lasts.unwrap_or_default().0));
        let last = operations.chain(faults).max().unwrap_or_default();
        let mut candidate = self.best.clone();
        candidate.settings.safety = Span((last.0 / 1_000_000_000 + 1) * 1_000_000_000);
        if candidate.settings.safety < self.best.settings.safety {
            self.try_plan(candidate);
        }
    }
}

fn retain<T>(items: &mut Vec<T>, keep: &dyn Fn(usize) -> bool) {
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        keep(index - 1)
    });
}

/// Whole seconds, or milliseconds below one.
fn rounded(span: Span) -> Span {
    let unit = if span.0 >= 1_000_000_000 { 1_000_000_000 } else { 1_000_000 };
    Span(span.0 / unit * unit)
}

/// Leaves nodes out, with all that names them.
fn remove_nodes(plan: &mut Plan, keep: &dyn Fn(usize) -> bool) {
    retain(&mut plan.nodes, keep);
    let names: BTreeSet<&str> = plan.nodes.iter().map(|n| n.name.as_str()).collect();
    plan.operations.retain(|o| o.operation.node().is_none_or(|node| names.contains(node)));
    plan.faults.retain(|f| match &f.fault {
        Fault::HostCrash { node }
        | Fault::RuntimeErrors { node, .. }
        | Fault::RuntimeDown { node }
        | Fault::SlowDisk { node, .. } => names.contains(node.as_str()),
        fault => match component_of(fault) {
            Some(Component::Kubelet(node)) => names.contains(node.as_str()),
            _ => true,
        },
    });
}

const fn component_of(fault: &Fault) -> Option<&Component> {
    match fault {
        Fault::Crash { component }
        | Fault::CrashAtCall { component, .. }
        | Fault::Pause { component }
        | Fault::Partition { component, .. }
        | Fault::Delay { component, .. }
        | Fault::CallTimeout { component, .. }
        | Fault::Duplicate { component, .. }
        | Fault::Loss { component, .. }
        | Fault::Reorder { component, .. }
        | Fault::WatchStall { component }
        | Fault::WatchGap { component }
        | Fault::WatchExpired { component }
        | Fault::WatchBreak { component }
        | Fault::WatchCoalescing { component, .. }
        | Fault::ClockSkew { component, .. }
        | Fault::ClockBehind { component, .. } => Some(component),
        _ => None,
    }
}

/// Leaves out shapes and templates that nothing refers to.
fn drop_unused(plan: &mut Plan) {
    let used: BTreeSet<u32> = plan.nodes.iter().map(|n| n.shape).collect();
    let new: Vec<u32> = used.iter().copied().collect();
    let index = |old: u32, new: &[u32]| {
        u32::try_from(new.partition_point(|u| *u < old)).expect("an index of the same list")
    };
    plan.shapes = new.iter().map(|i| plan.shapes[*i as usize].clone()).collect();
    plan.nodes.iter_mut().for_each(|n| n.shape = index(n.shape, &new));
    let mut used = BTreeSet::new();
    for planned in &mut plan.operations {
        if let Some(template) = planned.operation.template_mut() {
            used.insert(*template);
        }
    }
    let new: Vec<u32> = used.into_iter().collect();
    plan.templates = new.iter().map(|i| plan.templates[*i as usize].clone()).collect();
    for planned in &mut plan.operations {
        if let Some(template) = planned.operation.template_mut() {
            *template = index(*template, &new);
        }
    }
}
