//! [`Scenario`]: a run as people describe it, in a TOML file: nodes and operations one by one, or
//! by how many and how often. With a seed it becomes a [`Plan`], in which everything is spelled
//! out.
//!
//! A file is read to its end before anything is said about it; each finding names file, line and
//! column, shows the place and says what to do. What is random in the expansion derives from the
//! seed with one generator for each part and purpose, so that a change in one part leaves the
//! others as they are. Decisions are made with integers alone.

pub mod diagnostics;
pub(crate) mod inventory;
pub mod nodes;
pub mod shapes;

pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod scheduled;
pub(crate) mod section;
pub(crate) mod settings;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine::RngTree;

use self::diagnostics::{Diagnostics, Problem};
use self::nodes::{NODES_MAX, NodeGroup};
use self::section::Section;
use self::shapes::Catalogue;
use crate::chaos::{self, Chaos, Churn};
use crate::plan::{
    NodeShape, Operation, Plan, PlannedFault, PlannedOperation, PodTemplate, Settings,
};
use crate::span::Span;
use crate::trace::Trace;
use crate::workload::{self, Draft, OBJECTS_MAX, Workload};

/// What is said on the command line about reading a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether rows of a trace that make no sense are counted instead of refused.
    pub skip_bad_rows: bool,
    /// An inventory of kprov, whose nodes take the place of the scenario's.
    pub inventory: Option<PathBuf>,
}

/// A run as a file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The seed that the file proposes.
    pub seed: Option<u64>,
    /// How the cluster is made and how long it runs.
    pub settings: Settings,
    /// How long operations and faults go on, if the file says it; else until the last one.
    pub safety: Option<Span>,
    /// What nodes are like.
    pub shapes: Catalogue<NodeShape>,
    /// What pods are like.
    pub templates: Catalogue<PodTemplate>,
    /// The nodes.
    pub nodes: Vec<NodeGroup>,
    /// What users do, one by one.
    pub operations: Vec<PlannedOperation>,
    /// What goes wrong, one by one.
    pub faults: Vec<PlannedFault>,
    /// What users do, by how much and how often.
    pub workloads: Vec<Workload>,
    /// What goes wrong at random.
    pub chaos: Option<Chaos>,
    /// How nodes fail, come and go.
    pub churn: Option<Churn>,
    /// What was left out of traces, a line for each reason.
    pub left_out: Vec<String>,
    /// Rows of traces that make no sense and were skipped, by what is wrong with them.
    pub skipped_rows: BTreeMap<String, u64>,
    /// What people should know although the scenario can be run.
    pub warnings: Diagnostics,
}

impl Scenario {
    /// Reads a scenario file and the files that it names.
    ///
    /// # Errors
    /// A file cannot be read, or all that is wrong.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        Self::load_with(path, &Options::default())
    }

    /// Reads a scenario file and the files that it names.
    ///
    /// # Errors
    /// A file cannot be read, or all that is wrong.
    pub fn load_with(path: &Path, options: &Options) -> Result<Self, Diagnostics> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse_with(path, &text, options),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                let help = "a scenario is a TOML file: see simulator/scenarios/";
                let problem = Problem::error(0..0, message).help(help);
                Err(Diagnostics::new(path, "".into(), vec![problem]))
            }
        }
    }

    /// Reads the text of a scenario file; `path` is its name, from which others are found.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        Self::parse_with(path, text, &Options::default())
    }

    fn parse_with(path: &Path, text: &str, options: &Options) -> Result<Self, Diagnostics> {
        let (table, syntax) = toml::de::DeTable::parse_recoverable(text);
        let mut found: Vec<Problem> = syntax
            .iter()
            .map(|error| {
                let place = error.span().unwrap_or(0..0);
                Problem::error(place, format!("not valid TOML: {}", error.message()))
            })
            .collect();
        let problems = RefCell::default();
        // What is left after a mistake in the syntax would be judged wrongly.
        let scenario = found.is_empty().then(|| {
            let root = Section::root(&table, &problems);
            read(&root, path, options)
        });
        found.append(&mut problems.into_inner());
        let diagnostics = Diagnostics::new(path, Arc::from(text), found);
        match scenario {
            Some(scenario) if !diagnostics.has_errors() => {
                Ok(Self { warnings: diagnostics, ..scenario })
            }
            _ => Err(diagnostics),
        }
    }

    /// The seed for which it is run when no other is given.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }

    /// The scenario of a plan: everything one by one.
    ///
    /// # Errors
    /// The plan has something that no file may have, such as an operation after the end.
    pub fn of_plan(plan: &Plan) -> Result<Self, Diagnostics> {
        let text = Self::text_of_plan(plan);
        Self::parse(&PathBuf::from(format!("{}.toml", plan.name)), &text)
    }

    /// The text of a scenario file that expands to `plan`, whatever the seed.
    pub fn text_of_plan(plan: &Plan) -> String {
        write::plan(plan)
    }

    /// Spells everything out.
    ///
    /// # Errors
    /// What shows only when all is spelled out: something happens after the end of the
    /// operations, or there is more than can be simulated.
    pub fn expand(&self, seed: u64) -> Result<Plan, Diagnostics> {
        let tree = RngTree::new(seed).child("plan");
        let mut nodes = Vec::new();
        for (i, group) in self.nodes.iter().enumerate() {
            group.expand(&mut tree.child("nodes").rng(&i.to_string()), &mut nodes);
        }
        let plan = Plan {
            name: self.name.clone(),
            seed,
            settings: self.settings.clone(),
            shapes: self.shapes.values().cloned().collect(),
            nodes,
            templates: self.templates.values().cloned().collect(),
            operations: self.operations.clone(),
            faults: self.faults.clone(),
        };
        let mut draft = Draft::new(plan, self.safety, tree);
        let mut problems = Vec::new();
        for workload in &self.workloads {
            let before = draft.plan.operations.len();
            workload.expand(&mut draft);
            let last = draft.plan.operations[before..].iter().map(|o| o.at).max();
            problems.extend(self.too_late(&workload.name, &workload.place, last));
        }
        let mut plan = draft.plan;
        if let Some(churn) = &self.churn {
            let end = self.safety.or(end_of(&plan)).unwrap_or(plan.settings.safety);
            churn.expand(end, tree.child("churn"), &mut plan);
        }
        if let Some(chaos) = &self.chaos {
            let end =
                self.safety.or(end_of(&plan).max(chaos.until)).unwrap_or(plan.settings.safety);
            chaos.expand(end, tree.child("chaos"), &mut plan);
        }
        plan.sort();
        if self.safety.is_none() {
            plan.settings.safety = end_of(&plan).unwrap_or(plan.settings.safety);
        }
        let diagnostics =
            Diagnostics::new(&self.warnings.path, self.warnings.source.clone(), problems);
        if diagnostics.has_errors() { Err(diagnostics) } else { Ok(plan) }
    }

    fn too_late(&self, name: &str, place: &Range<usize>, last: Option<Span>) -> Option<Problem> {
        let (last, end) = (last?, self.safety?);
        (last > end).then(|| {
            let message =
                format!("`{name}` goes on until {last}, but `settings.safety` ends at {end}");
            let help = "raise `settings.safety`, leave it out, or give `until` here";
            Problem::error(place.clone(), message).label("goes on for too long").help(help)
        })
    }
}

/// When the last operation or fault is over, in whole seconds.
fn end_of(plan: &Plan) -> Option<Span> {
    let operations = plan.operations.iter().map(|o| o.at).max();
    let over = |f: &PlannedFault| Span(f.at.0.saturating_add(f.lasts.unwrap_or_default().0));
    let last = operations.max(plan.faults.iter().map(over).max())?;
    let second = Span::secs(1).0;
    Some(Span((last.0 / second + 1) * second))
}

/// Heartbeats alone for longer than this are not worth simulating.
const IDLE_MAX: Span = Span::secs(30 * 86_400);

/// Refuses a run in which nothing happens any more long before its end.
fn idle(
    root: &Section<'_>,
    safety: Option<Span>,
    operations: &[(Range<usize>, PlannedOperation)],
    faults: &[(Range<usize>, PlannedFault)],
    templates: &Catalogue<PodTemplate>,
) {
    let Some(safety) = safety else { return };
    let acts = |o: &PlannedOperation| {
        matches!(o.operation, Operation::CreateCronJob(_) | Operation::CreateAutoscaler(_))
    };
    if operations.iter().any(|(_, o)| acts(o)) || templates.values().any(|t| t.runs.is_some()) {
        return;
    }
    let over = |f: &PlannedFault| Span(f.at.0.saturating_add(f.lasts.unwrap_or_default().0));
    let operations = operations.iter().map(|(_, o)| o.at);
    let last = operations.chain(faults.iter().map(|(_, f)| over(f))).max().unwrap_or_default();
    if safety.0.saturating_sub(last.0) <= IDLE_MAX.0 {
        return;
    }
    let place = root.section("settings").map_or(0..0, |s| s.place_of("safety"));
    let message = format!("from {last} until {safety} nothing happens but heartbeats");
    let help = "leave `settings.safety` out to stop after the last operation or fault";
    root.report(Problem::error(place, message).label("no progress for so long").help(help));
}

/// Reads the whole file.
fn read(root: &Section<'_>, path: &Path, options: &Options) -> Scenario {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = root.text("name").map(str::to_owned).or(stem).unwrap_or_default();
    let seed = root.whole("seed", 0..=u64::MAX);
    let (safety, mut settings) = root
        .section("settings")
        .map_or_else(|| (None, Settings::default()), |s| settings::read(&s));
    let mut shapes = shapes::catalogue(root, "shapes", shapes::node_shape);
    let templates = shapes::catalogue(root, "templates", |section| {
        shapes::pod_template(section, &PodTemplate::default())
    });
    let dir = path.parent().unwrap_or(Path::new(""));
    let hardware = inventory::read(root, dir, options.inventory.as_deref(), &mut shapes);
    let groups = root.sections("nodes");
    let mut nodes: Vec<NodeGroup> =
        groups.iter().filter_map(|s| nodes::read(s, &mut shapes)).collect();
    // What is wrong with a group of nodes is told once.
    let more_nodes = nodes.len() < groups.len();
    if let Some(hardware) = hardware {
        // A cluster that was chosen on the command line is the whole cluster.
        if options.inventory.is_some() {
            nodes.clear();
        }
        nodes.extend(hardware.groups);
        let masters = u16::try_from(hardware.masters).unwrap_or(u16::MAX);
        settings::of_masters(root, masters, &mut settings);
    }
    let workloads: Vec<Workload> = root
        .sections("workload")
        .iter()
        .filter_map(|s| workload::read(s, &templates, dir, options))
        .collect();
    let traces: Vec<&Arc<Trace>> = workloads.iter().filter_map(Workload::trace).collect();
    let known = events::Known {
        templates: &templates,
        nodes: &nodes,
        settings: &settings,
        traces: &traces,
        more_nodes,
    };
    let operations: Vec<(Range<usize>, PlannedOperation)> = root
        .sections("operations")
        .iter()
        .filter_map(|s| Some((s.place(), events::operation(s, &known)?)))
        .collect();
    let faults: Vec<(Range<usize>, PlannedFault)> = root
        .sections("faults")
        .iter()
        .filter_map(|s| Some((s.place(), events::fault(s, &known)?)))
        .collect();
    let chaos = root.section("chaos").and_then(|s| chaos::read(&s, &known));
    let churn = root.section("churn").map(|s| chaos::read_churn(&s, &mut shapes));
    root.finish();
    // What has mistakes may be what is missed.
    let unmade = match root.has_errors() {
        true => Vec::new(),
        false => events::unmade(&operations, &workloads),
    };
    for problem in nodes::duplicates(&nodes)
        .into_iter()
        .chain(workload::duplicates(&workloads))
        .chain(workload::doubled_nodes(&workloads, &nodes))
        .chain(events::doubtful(&operations))
        .chain(unmade)
        .chain(too_late(safety, &operations, &faults, &nodes))
    {
        root.report(problem);
    }
    endless(root, safety, &workloads);
    if workloads.is_empty() && chaos.is_none() && churn.is_none() {
        idle(root, safety, &operations, &faults, &templates);
    }
    let left_out = traces.iter().flat_map(|trace| trace.left_out()).collect();
    let mut skipped_rows: BTreeMap<String, u64> = BTreeMap::new();
    for (why, count) in traces.iter().flat_map(|trace| &trace.skipped) {
        *skipped_rows.entry(why.clone()).or_default() += count;
    }
    let count = nodes.iter().map(|group| group.count).sum();
    for problem in chaos
        .iter()
        .filter_map(|c| c.too_many(safety))
        .chain(churn.iter().filter_map(|c| c.too_many(count, safety)))
    {
        root.report(problem);
    }
    if safety.is_none() {
        let chaos = chaos.as_ref().filter(|c| c.endless()).map(|c| ("chaos", &c.place));
        let churn = churn.as_ref().filter(|c| c.endless()).map(|c| ("churn", &c.place));
        for (what, place) in chaos.into_iter().chain(churn) {
            let problem = Problem::error(place.clone(), format!("the {what} would never end"));
            root.report(problem.label("for how long?").help("give `settings.safety`"));
        }
    }
    too_much(root, safety, &nodes, &workloads);
    Scenario {
        name,
        seed,
        settings,
        safety,
        shapes,
        templates,
        nodes,
        operations: operations.into_iter().map(|(_, o)| o).collect(),
        faults: faults.into_iter().map(|(_, f)| f).collect(),
        workloads,
        chaos,
        churn,
        left_out,
        skipped_rows,
        warnings: Diagnostics::new(path, "".into(), Vec::new()),
    }
}

/// Reports what is to happen after the end of the operations.
fn too_late(
    safety: Option<Span>,
    operations: &[(Range<usize>, PlannedOperation)],
    faults: &[(Range<usize>, PlannedFault)],
    nodes: &[NodeGroup],
) -> Vec<Problem> {
    let Some(end) = safety else { return Vec::new() };
    let events = operations
        .iter()
        .map(|(place, o)| (place, o.at))
        .chain(faults.iter().map(|(place, f)| (place, f.at)));
    let problem = |(place, at): (&Range<usize>, Span)| {
        let message = format!("happens at {at}, but `settings.safety` ends at {end}");
        let problem = Problem::error(place.clone(), message).label("too late");
        (at > end).then(|| problem.help("raise `settings.safety`, or leave it out"))
    };
    events
        .filter_map(problem)
        .chain(nodes.iter().filter_map(|group| nodes::too_late(group, end)))
        .collect()
}

/// Reports what would never end.
fn endless(root: &Section<'_>, safety: Option<Span>, workloads: &[Workload]) {
    if safety.is_some() {
        return;
    }
    for workload in workloads.iter().filter(|w| w.endless()) {
        let message = format!("`{}` would never end", workload.name);
        let problem = Problem::error(workload.place.clone(), message).label("for how long?");
        root.report(problem.help("give `count` or `until` here, or `settings.safety`"));
    }
}

/// Reports a cluster without nodes, and more than can be simulated.
fn too_much(root: &Section<'_>, safety: Option<Span>, nodes: &[NodeGroup], workloads: &[Workload]) {
    let of_traces: usize =
        workloads.iter().filter_map(Workload::trace).map(|t| t.nodes.len()).sum();
    let count: u64 = nodes.iter().map(|group| group.count).sum();
    // Of nodes that were wrong it is told already.
    let wrong = root.get("nodes").is_some_and(|v| v.list().is_none_or(|l| !l.is_empty()));
    if nodes.is_empty() && of_traces == 0 && !wrong {
        let place = root.place_of("nodes");
        let problem = Problem::error(place, "the cluster has no nodes").label("no `[[nodes]]`");
        root.report(problem.help("add [[nodes]] with name = \"node-{i}\" and count = 3"));
    } else if count > NODES_MAX {
        let message = format!("{count} nodes are more than can be simulated");
        let problem = Problem::error(root.place_of("nodes"), message);
        root.report(problem.label(format!("more than {NODES_MAX}")));
    }
    let mut total = 0_u64;
    // What has no end is told elsewhere.
    for workload in workloads.iter().filter(|w| safety.is_some() || !w.endless()) {
        let more = workload.expected(safety);
        total = total.saturating_add(more);
        if total > OBJECTS_MAX {
            let message = format!("about {total} objects are more than can be simulated");
            let label = format!("{more} of them; at most {OBJECTS_MAX} together");
            root.report(Problem::error(workload.place.clone(), message).label(label));
            return;
        }
    }
}
