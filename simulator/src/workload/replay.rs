//! The nodes and pods of a trace.

use std::path::Path;
use std::sync::Arc;

use super::Draft;
use crate::plan::{NodeShape, Operation, PlannedNode, PlannedOperation};
use crate::scenario::Options;
use crate::scenario::diagnostics::Problem;
use crate::scenario::section::{CPU, MEMORY, Section};
use crate::trace::{self, Files, Source, Trace};

/// What happened in a real cluster, once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// What the trace says.
    pub trace: Arc<Trace>,
}

/// The formats.
const FORMATS: [&str; 3] = ["openb", "borg", "azure"];

pub(super) fn read(section: &Section<'_>, dir: &Path, options: &Options) -> Option<Replay> {
    let format = section.need("format")?;
    let format = FORMATS[format.position("format", FORMATS)?];
    let path = |key| section.text(key).map(|file| dir.join(file));
    let needed = |key| {
        let file = section.need(key).and_then(|value| value.text());
        file.map(|file| dir.join(file))
    };
    let mut units = Some((1_000, 1));
    let files = match format {
        "openb" => needed("pods").map(|pods| Files::Openb { nodes: path("nodes"), pods }),
        "borg" => needed("instance_events").map(|instances| Files::Borg {
            instances,
            collections: path("collection_events"),
            machines: path("machine_events"),
        }),
        _ => {
            let (vms, types) = (needed("vms"), needed("vm_types"));
            let machine = section.whole("machine", 0..=u64::MAX);
            vms.zip(types).map(|(vms, types)| Files::Azure { vms, types, machine })
        }
    };
    // Parts of a machine mean nothing until it is known how large one is.
    if format != "openb" {
        let cpu = section.need("cpu_unit").and_then(|v| v.amount(&CPU));
        let memory = section.need("memory_unit").and_then(|v| v.amount(&MEMORY));
        units = cpu.zip(memory);
    }
    let speed = match section.get("speed") {
        None => Some(1_000),
        Some(value) => value.decimal().map(|d| d.thousandths()),
    };
    let gpus = format == "openb" && section.truth("gpus").unwrap_or(true);
    let skip_bad_rows = section.truth("skip_bad_rows").unwrap_or(false) || options.skip_bad_rows;
    if speed == Some(0) {
        let problem = Problem::error(section.place_of("speed"), "a trace without speed");
        section.report(problem.label("would never end"));
        return None;
    }
    let (cpu_unit, memory_unit) = units?;
    let source =
        Source { files: files?, cpu_unit, memory_unit, speed: speed?, gpus, skip_bad_rows };
    match trace::read(&source) {
        Ok(trace) => Some(Replay { trace: Arc::new(trace) }),
        Err(error) => {
            for fault in &error.faults {
                let problem = Problem::error(section.place_of("format"), fault.to_string());
                let problem = problem.label("in this trace");
                // A file that is wrong as a whole has no rows to leave out.
                section.report(match fault.line {
                    0 | 1 => problem,
                    _ => problem.help("skip_bad_rows = true leaves such rows out and counts them"),
                });
            }
            let told = u64::try_from(error.faults.len()).unwrap_or(u64::MAX);
            if error.count > told {
                let message = format!("and {} rows more", error.count - told);
                section.report(Problem::error(section.place_of("format"), message));
            }
            None
        }
    }
}

impl Replay {
    pub(super) fn expand(&self, draft: &mut Draft) {
        let trace = &self.trace;
        let numbers: Vec<u32> = trace.shapes.iter().map(|s| shape(draft, s)).collect();
        draft.plan.nodes.extend(trace.nodes.iter().map(|node| PlannedNode {
            shape: numbers[usize::try_from(node.shape).expect("an index")],
            ..node.clone()
        }));
        let numbers: Vec<u32> = trace.templates.iter().map(|t| draft.template(t.clone())).collect();
        for PlannedOperation { at, operation } in &trace.operations {
            let mut operation = operation.clone();
            if let Operation::CreatePod { template, .. } = &mut operation {
                *template = numbers[usize::try_from(*template).expect("an index")];
            }
            draft.operation(*at, operation);
        }
        draft.plan.faults.extend(trace.faults.iter().cloned());
    }
}

/// The number of a shape in the plan.
fn shape(draft: &mut Draft, shape: &NodeShape) -> u32 {
    let shapes = &mut draft.plan.shapes;
    let at = shapes.iter().position(|other| other == shape).unwrap_or_else(|| {
        shapes.push(shape.clone());
        shapes.len() - 1
    });
    u32::try_from(at).expect("far fewer than 2^32")
}
