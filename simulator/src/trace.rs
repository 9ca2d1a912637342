//! Traces of real clusters as nodes and operations: OpenB ([`openb`]), Borg 2019 ([`borg`]) and
//! Azure packing ([`azure`]), each from files of comma-separated values with a header.
//!
//! A row that makes no sense refuses the trace, with file, line and column, unless bad rows are to
//! be skipped; then they are counted by what is wrong with them. What the simulation does not
//! need, since it decides by itself, is counted too: nothing is left out silently.

pub mod azure;
pub mod borg;
pub mod openb;

mod csv;
mod import;
mod number;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

pub use import::{Import, import};

use crate::plan::{NodeShape, Operation, PlannedFault, PlannedNode, PlannedOperation, PodTemplate};
use crate::span::Span;

/// The resource that GPUs become, whole ones.
pub const GPU: &str = "nvidia.com/gpu";
/// The label of a node with the model of its GPUs.
pub const GPU_MODEL: &str = "nvidia.com/gpu.product";
/// More bad rows are counted, but not told one by one.
const TOLD: usize = 20;

/// Which trace, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The format with its files.
    pub files: Files,
    /// What "1.0" CPUs of a normalized trace are, in thousandths of a CPU.
    pub cpu_unit: u64,
    /// What "1.0" memory of a normalized trace is, in bytes.
    pub memory_unit: u64,
    /// How many times faster than it was the trace goes on, in thousandths.
    pub speed: u64,
    /// Whether GPUs are asked for.
    pub gpus: bool,
    /// Whether rows that make no sense are counted instead of refused.
    pub skip_bad_rows: bool,
}

/// The formats with their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// A cluster of machines with GPUs.
    Openb {
        /// The nodes; others are used without it.
        nodes: Option<PathBuf>,
        /// The pods.
        pods: PathBuf,
    },
    /// A cell of Borg in 2019.
    Borg {
        /// What happened to instances.
        instances: PathBuf,
        /// What happened to collections; priorities come from the instances without it.
        collections: Option<PathBuf>,
        /// What happened to machines; others are used without it.
        machines: Option<PathBuf>,
    },
    /// Requests for virtual machines.
    Azure {
        /// The requests.
        vms: PathBuf,
        /// What they ask for.
        types: PathBuf,
        /// On which kind of machine; the one with the lowest number when absent.
        machine: Option<u64>,
    },
}

/// What a trace says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// What nodes are like.
    pub shapes: Vec<NodeShape>,
    /// The nodes, with numbers of `shapes`; none where the trace has none.
    pub nodes: Vec<PlannedNode>,
    /// What pods are like.
    pub templates: Vec<PodTemplate>,
    /// What users did, with numbers of `templates`, in the order of time.
    pub operations: Vec<PlannedOperation>,
    /// What happened to machines, in the order of time.
    pub faults: Vec<PlannedFault>,
    /// Rows that make no sense, by what is wrong with them.
    pub skipped: BTreeMap<String, u64>,
    /// What the simulation does not take over, by what it is.
    pub ignored: BTreeMap<String, u64>,
}

impl Trace {
    /// A line for each reason for which something was left out.
    pub fn left_out(&self) -> Vec<String> {
        let rows = |n: &u64| if *n == 1 { "1 row".to_owned() } else { format!("{n} rows") };
        let skipped = self.skipped.iter().map(|(why, n)| format!("{} skipped: {why}", rows(n)));
        let ignored = self.ignored.iter().map(|(what, n)| format!("{} unused: {what}", rows(n)));
        skipped.chain(ignored).collect()
    }
}

/// One row that makes no sense, or a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// The column (in characters) of the first character, from 1.
    pub column: usize,
    /// What is wrong, the same for all rows with the same mistake.
    pub cause: String,
    /// The value that is wrong.
    pub value: String,
}

impl Display for RowFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.cause)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, ": {:?}", self.value) }
    }
}

/// Why a trace is refused: the first rows that make no sense, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// The first ones.
    pub faults: Vec<RowFault>,
    /// How many there are.
    pub count: u64,
}

impl Display for TraceError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        let told = u64::try_from(self.faults.len()).unwrap_or(u64::MAX);
        if self.count > told {
            writeln!(f, "and {} more", self.count - told)?;
        }
        // A file that is wrong as a whole has no rows to skip.
        if self.faults.iter().any(|fault| fault.line > 1) {
            f.write_str("--skip-bad-rows leaves such rows out and counts them")?;
        }
        Ok(())
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace.
///
/// # Errors
/// The rows that make no sense, unless they are to be skipped; a file that cannot be read, has no
/// rows, or lacks a column or has one that its format does not know, in any case.
pub fn read(source: &Source) -> Result<Trace, TraceError> {
    let mut parts = Parts::new(source);
    let read = match &source.files {
        Files::Openb { nodes, pods } => openb::read(nodes.as_deref(), pods, &mut parts),
        Files::Borg { instances, collections, machines } => {
            borg::read(instances, collections.as_deref(), machines.as_deref(), &mut parts)
        }
        Files::Azure { vms, types, machine } => azure::read(vms, types, *machine, &mut parts),
    };
    if let Err(fault) = read {
        parts.faults.insert(0, fault);
        parts.count += 1;
    }
    if parts.count > 0 {
        return Err(TraceError { faults: parts.faults, count: parts.count });
    }
    let mut trace = parts.trace;
    trace.operations.sort_by_key(|o| o.at);
    trace.faults.sort_by_key(|f| f.at);
    Ok(trace)
}

/// A trace that is being read.
struct Parts<'a> {
    source: &'a Source,
    trace: Trace,
    shapes: BTreeMap<NodeShape, u32>,
    templates: BTreeMap<PodTemplate, u32>,
    names: BTreeSet<String>,
    faults: Vec<RowFault>,
    count: u64,
}

impl<'a> Parts<'a> {
    const fn new(source: &'a Source) -> Self {
        Self {
            source,
            trace: Trace {
                shapes: Vec::new(),
                nodes: Vec::new(),
                templates: Vec::new(),
                operations: Vec::new(),
                faults: Vec::new(),
                skipped: BTreeMap::new(),
                ignored: BTreeMap::new(),
            },
            shapes: BTreeMap::new(),
            templates: BTreeMap::new(),
            names: BTreeSet::new(),
            faults: Vec::new(),
            count: 0,
        }
    }

    /// Hands all rows of a file with these columns to `take`.
    fn rows(
        &mut self,
        file: &Path,
        columns: &csv::Columns,
        mut take: impl FnMut(&mut Self, &csv::Row<'_>) -> Result<(), RowFault>,
    ) -> Result<(), RowFault> {
        let mut table = csv::Table::open_strictly(file, columns)?;
        let mut empty = true;
        while let Some(row) = table.next_row() {
            empty = false;
            let taken = row.and_then(|row| take(self, &row));
            if let Err(fault) = taken {
                self.bad(fault);
            }
        }
        // An export that failed looks like this, and would be a cluster of nothing.
        if empty { Err(table.without_rows()) } else { Ok(()) }
    }

    /// Refuses or counts a row.
    fn bad(&mut self, fault: RowFault) {
        if self.source.skip_bad_rows {
            *self.trace.skipped.entry(fault.cause).or_default() += 1;
            return;
        }
        self.count += 1;
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        }
    }

    fn ignore(&mut self, what: &str) {
        match self.trace.ignored.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.trace.ignored.insert(what.to_owned(), 1)),
        }
    }

    /// A moment of the trace, which begins at `origin`, in the simulation.
    fn at(&self, nanos: u64, origin: u64) -> Span {
        let since = u128::from(nanos.saturating_sub(origin));
        let speed = u128::from(self.source.speed.max(1));
        Span(u64::try_from(since * 1_000 / speed).unwrap_or(u64::MAX))
    }

    /// A name of its own for a node or a pod of the trace.
    fn name(&mut self, name: &str, row: &csv::Row<'_>, column: usize) -> Result<String, RowFault> {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' => c,
            _ => '-',
        };
        let clean: String = name.chars().map(plain).collect();
        let clean = clean.trim_matches(['-', '.']).to_owned();
        if clean.is_empty() || clean.len() > 253 || clean.contains("..") {
            return Err(row.fault(column, "cannot be a name"));
        }
        if !self.names.insert(clean.clone()) {
            return Err(row.fault(column, "is there already"));
        }
        Ok(clean)
    }

    fn node(&mut self, name: String, shape: NodeShape, joins: Span) {
        let next = u32::try_from(self.shapes.len()).expect("fewer than rows of a file");
        let shape = match self.shapes.get(&shape) {
            Some(index) => *index,
            None => {
                self.trace.shapes.push(shape.clone());
                self.shapes.insert(shape, next);
                next
            }
        };
        self.trace.nodes.push(PlannedNode { name, shape, joins });
    }

    fn pod(&mut self, at: Span, name: String, template: PodTemplate, runs: Option<Span>) {
        let next = u32::try_from(self.templates.len()).expect("fewer than rows of a file");
        let template = match self.templates.get(&template) {
            Some(index) => *index,
            None => {
                self.trace.templates.push(template.clone());
                self.templates.insert(template, next);
                next
            }
        };
        self.operation(at, Operation::CreatePod { name, template, runs });
    }

    fn operation(&mut self, at: Span, operation: Operation) {
        self.trace.operations.push(PlannedOperation { at, operation });
    }
}
