//! [`Workload`]: what users do, described by how much and how often instead of one by one.

pub mod arrivals;
pub mod cron_jobs;
pub mod jobs;
pub mod namespaces;
pub mod openb;
pub mod pods;
pub mod replay;
pub mod scaling;
pub mod sets;
pub mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use machine::RngTree;

pub use arrivals::Arrivals;
pub use cron_jobs::CronJobs;
pub use jobs::Jobs;
pub use namespaces::Namespaces;
pub use pods::Pods;
pub use replay::Replay;
pub use sets::Sets;
pub use sizes::Sizes;

use crate::plan::{Operation, Plan, PlannedOperation, PodTemplate, Target};
use crate::scenario::Options;
use crate::scenario::diagnostics::Problem;
use crate::scenario::names::object_fault;
use crate::scenario::nodes::NodeGroup;
use crate::scenario::section::Section;
use crate::scenario::shapes::Catalogue;
use crate::span::Span;
use crate::trace::Trace;

/// More objects cannot be simulated.
pub const OBJECTS_MAX: u64 = 20_000_000;

/// The kinds of workloads.
const KINDS: [&str; 9] = [
    "pods",
    "deployments",
    "replication-controllers",
    "stateful-sets",
    "daemon-sets",
    "jobs",
    "cron-jobs",
    "namespaces",
    "trace",
];

/// What users do, by rates and distributions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Distinguishes workloads; what they create has names that begin with it.
    pub name: String,
    /// Where the file says so.
    pub place: Range<usize>,
    /// What they create.
    pub kind: Kind,
}

/// What a workload creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bare pods.
    Pods(Box<Pods>),
    /// Deployments, replication controllers, stateful sets or daemon sets.
    Sets(Box<Sets>),
    /// Jobs.
    Jobs(Box<Jobs>),
    /// Cron jobs.
    CronJobs(Box<CronJobs>),
    /// Namespaces with their limits.
    Namespaces(Box<Namespaces>),
    /// What a trace says.
    Trace(Replay),
}

/// Reads one `[[workload]]`; files of traces are found from `dir`.
pub(crate) fn read(
    section: &Section<'_>,
    templates: &Catalogue<PodTemplate>,
    dir: &Path,
    options: &Options,
) -> Option<Workload> {
    let kind = section.need("kind")?;
    let text = kind.text()?;
    if !KINDS.contains(&text) {
        kind.no_choice(text, KINDS);
        return None;
    }
    let name = section.get("name").map_or(Some(text), |value| {
        let name = value.text()?;
        if let Some(fault) = object_fault(name) {
            value.report(format!("`{}` cannot be `{name}`", value.path()), fault, "");
            return None;
        }
        Some(name)
    });
    let set =
        |target| sets::read(section, target, templates).map(|sets| Kind::Sets(Box::new(sets)));
    let kind = match text {
        "pods" => pods::read(section, templates).map(|pods| Kind::Pods(Box::new(pods))),
        "deployments" => set(Target::Deployment),
        "replication-controllers" => set(Target::ReplicationController),
        "stateful-sets" => set(Target::StatefulSet),
        "daemon-sets" => set(Target::DaemonSet),
        "jobs" => jobs::read(section, templates).map(|jobs| Kind::Jobs(Box::new(jobs))),
        "cron-jobs" => {
            cron_jobs::read(section, templates).map(|cron| Kind::CronJobs(Box::new(cron)))
        }
        "namespaces" => {
            namespaces::read(section).map(|namespaces| Kind::Namespaces(Box::new(namespaces)))
        }
        _ => replay::read(section, dir, options).map(Kind::Trace),
    };
    section.finish();
    Some(Workload { name: name?.to_owned(), place: section.place(), kind: kind? })
}

impl Workload {
    /// Whether it goes on for as long as operations do.
    pub(crate) fn endless(&self) -> bool {
        match &self.kind {
            Kind::Pods(pods) => pods.arrivals.endless(),
            Kind::Sets(sets) => sets.endless(),
            Kind::Jobs(jobs) => jobs.arrivals.endless(),
            Kind::CronJobs(cron) => cron.endless(),
            Kind::Namespaces(namespaces) => namespaces.endless(),
            Kind::Trace(_) => false,
        }
    }

    /// About how many objects it creates until `end`.
    pub(crate) fn expected(&self, end: Option<Span>) -> u64 {
        match &self.kind {
            Kind::Pods(pods) => pods.arrivals.expected(end),
            Kind::Sets(sets) => sets.expected(end),
            Kind::Jobs(jobs) => jobs.expected(end),
            Kind::CronJobs(cron) => cron.expected(end),
            Kind::Namespaces(namespaces) => namespaces.expected(end),
            Kind::Trace(replay) => u64::try_from(replay.trace.operations.len()).unwrap_or(u64::MAX),
        }
    }

    /// The trace that it replays.
    pub(crate) const fn trace(&self) -> Option<&Arc<Trace>> {
        match &self.kind {
            Kind::Trace(replay) => Some(&replay.trace),
            _ => None,
        }
    }

    /// Adds the operations to a plan.
    pub(crate) fn expand(&self, draft: &mut Draft) {
        let tree = draft.tree.child("workload").child(&self.name);
        match &self.kind {
            Kind::Pods(pods) => pods.expand(&self.name, tree, draft),
            Kind::Sets(sets) => sets.expand(&self.name, tree, draft),
            Kind::Jobs(jobs) => jobs.expand(&self.name, tree, draft),
            Kind::CronJobs(cron) => cron.expand(&self.name, tree, draft),
            Kind::Namespaces(namespaces) => namespaces.expand(&self.name, tree, draft),
            Kind::Trace(replay) => replay.expand(draft),
        }
    }
}

/// Reports workloads of the same name: what they create would have the same names too.
pub(crate) fn duplicates(workloads: &[Workload]) -> Vec<Problem> {
    let mut seen: BTreeMap<&str, &Workload> = BTreeMap::new();
    let mut problems = Vec::new();
    for workload in workloads {
        if let Some(first) = seen.insert(&workload.name, workload) {
            problems.push(
                Problem::error(
                    workload.place.clone(),
                    format!("two workloads are called `{}`", workload.name),
                )
                .label("used again here")
                .also(first.place.clone(), "first used here")
                .help("give each a `name` of its own"),
            );
        }
    }
    problems
}

/// Reports nodes of traces whose names others have already.
pub(crate) fn doubled_nodes(workloads: &[Workload], groups: &[NodeGroup]) -> Vec<Problem> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut problems = Vec::new();
    for workload in workloads {
        let nodes = workload.trace().into_iter().flat_map(|trace| &trace.nodes);
        for name in nodes.map(|node| node.name.as_str()) {
            if groups.iter().any(|group| group.contains(name)) || !seen.insert(name) {
                let message = format!("two nodes are called `{name}`");
                let problem = Problem::error(workload.place.clone(), message);
                problems.push(problem.label("one of them is of this trace"));
                break;
            }
        }
    }
    problems
}

/// A plan that is being made.
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    /// The end of the operations, where the scenario says it.
    pub(crate) end: Option<Span>,
    /// Everything random in the making derives from it.
    pub(crate) tree: RngTree,
    templates: BTreeMap<PodTemplate, u32>,
}

impl Draft {
    pub(crate) fn new(plan: Plan, end: Option<Span>, tree: RngTree) -> Self {
        Self { plan, end, tree, templates: BTreeMap::new() }
    }

    /// The number of a template, which is shared by all pods that are like it.
    pub(crate) fn template(&mut self, template: PodTemplate) -> u32 {
        if let Some(index) = self.templates.get(&template) {
            return *index;
        }
        let index = u32::try_from(self.plan.templates.len()).expect("far fewer than 2^32");
        self.plan.templates.push(template.clone());
        self.templates.insert(template, index);
        index
    }

    pub(crate) fn operation(&mut self, at: Span, operation: Operation) {
        self.plan.operations.push(PlannedOperation { at, operation });
    }
}
