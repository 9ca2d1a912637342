//! Making a scenario file of a trace.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Files, RowFault, Source, Trace, TraceError, csv, read};
use crate::plan::{Operation, PlannedOperation, Settings};
use crate::scenario::write::{cpu, memory, text};
use crate::span::Span;

/// What a machine of a normalized trace is taken for: 64 CPUs.
const CPU_UNIT: u64 = 64_000;
/// And 256 GiB.
const MEMORY_UNIT: u64 = 256 << 30;

/// A scenario file that was made of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The text of the scenario file. It names the trace's files as they were given.
    pub text: String,
    /// What the trace says.
    pub trace: Trace,
}

/// Reads the files of a trace, whose format is told from their columns, and makes a scenario that
/// refers to them.
///
/// # Errors
/// The files are no trace, or its rows make no sense.
pub fn import(files: &[PathBuf], skip_bad_rows: bool) -> Result<Import, TraceError> {
    let one = |fault| TraceError { faults: vec![fault], count: 1 };
    let source = Source {
        files: recognize(files).map_err(one)?,
        cpu_unit: CPU_UNIT,
        memory_unit: MEMORY_UNIT,
        speed: 1_000,
        gpus: true,
        skip_bad_rows,
    };
    let trace = read(&source)?;
    Ok(Import { text: scenario(&source, &trace), trace })
}

/// Columns by which each file is known.
const SIGNS: [(&str, &[&str]); 7] = [
    ("openb nodes", &["sn", "cpu_milli", "memory_mib"]),
    ("openb pods", &["name", "cpu_milli", "num_gpu", "creation_time"]),
    ("borg instances", &["collection_id", "instance_index", "type"]),
    ("borg collections", &["collection_id", "type"]),
    ("borg machines", &["machine_id", "type"]),
    ("azure types", &["vmTypeId", "machineId", "core"]),
    ("azure vms", &["vmId", "vmTypeId", "starttime"]),
];

fn recognize(files: &[PathBuf]) -> Result<Files, RowFault> {
    let mut found: Vec<(&str, &Path)> = Vec::new();
    for file in files {
        csv::Table::open(file, &[])?;
        let is = |columns: &[&'static str]| csv::Table::open(file, columns).is_ok();
        let Some((role, _)) = SIGNS.iter().find(|(_, columns)| is(columns)) else {
            return Err(whole(file, "is of no trace that is known: see docs/simulating.md"));
        };
        if found.iter().any(|(other, _)| other == role) {
            return Err(whole(file, &format!("is a second file of the kind `{role}`")));
        }
        found.push((role, file));
    }
    let of = |role: &str| found.iter().find(|(r, _)| *r == role).map(|(_, f)| (*f).to_owned());
    let files = if let Some(pods) = of("openb pods") {
        Files::Openb { nodes: of("openb nodes"), pods }
    } else if let Some(instances) = of("borg instances") {
        let (collections, machines) = (of("borg collections"), of("borg machines"));
        Files::Borg { instances, collections, machines }
    } else if let (Some(vms), Some(types)) = (of("azure vms"), of("azure types")) {
        Files::Azure { vms, types, machine: None }
    } else {
        let file = files.first().map_or(Path::new("."), PathBuf::as_path);
        let needs = "is not enough: a trace needs the pods of OpenB, the instance events of Borg, \
                     or both tables of Azure";
        return Err(whole(file, needs));
    };
    let format = found.first().map_or("", |(role, _)| role.split(' ').next().unwrap_or(""));
    match found.iter().find(|(role, _)| !role.starts_with(format)) {
        Some((role, file)) => {
            Err(whole(file, &format!("is of another trace: `{role}` beside {format}")))
        }
        None => Ok(files),
    }
}

fn whole(file: &Path, cause: &str) -> RowFault {
    let (file, cause) = (file.to_owned(), cause.to_owned());
    RowFault { file, line: 0, column: 1, cause, value: String::new() }
}

/// How long after the last operation the last pod ends, in whole minutes, and a while more.
fn longest(trace: &Trace, last: Span) -> Span {
    let end = |planned: &PlannedOperation| match &planned.operation {
        Operation::CreatePod { runs: Some(runs), .. } => planned.at.0.saturating_add(runs.0),
        _ => 0,
    };
    let minute = Span::secs(60).0;
    let last_end = trace.operations.iter().map(end).max().unwrap_or(0);
    let after = last_end.saturating_sub(last.0) / minute * minute;
    Span(after.saturating_add(Settings::default().settle.0))
}

fn scenario(source: &Source, trace: &Trace) -> String {
    let path = |file: &Path| text(&file.display().to_string());
    let mut out = String::new();
    let mut put = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    put("kind", text("trace"));
    let (format, normalized) = match &source.files {
        Files::Openb { nodes, pods } => {
            put("format", text("openb"));
            if let Some(nodes) = nodes {
                put("nodes", path(nodes));
            }
            put("pods", path(pods));
            ("openb", false)
        }
        Files::Borg { instances, collections, machines } => {
            put("format", text("borg"));
            put("instance_events", path(instances));
            if let Some(collections) = collections {
                put("collection_events", path(collections));
            }
            if let Some(machines) = machines {
                put("machine_events", path(machines));
            }
            ("borg", true)
        }
        Files::Azure { vms, types, .. } => {
            put("format", text("azure"));
            put("vms", path(vms));
            put("vm_types", path(types));
            ("azure", true)
        }
    };
    if normalized {
        put("cpu_unit", cpu(source.cpu_unit));
        put("memory_unit", memory(source.memory_unit));
    }
    if source.skip_bad_rows {
        put("skip_bad_rows", "true".to_owned());
    }
    let last = trace.operations.last().map(|o| o.at).unwrap_or_default();
    let settle = longest(trace, last);
    let mut head = format!(
        "# {} nodes and {} operations, the last one after {last}.\nname = {}\n",
        trace.nodes.len(),
        trace.operations.len(),
        text(format)
    );
    for line in trace.left_out() {
        let _ = writeln!(head, "# {line}");
    }
    // What was started is seen to its end.
    if settle > Settings::default().settle {
        let _ = writeln!(head, "\n[settings]\nsettle = \"{settle}\"");
    }
    if trace.nodes.is_empty() {
        let _ = writeln!(
            head,
            "\n# The trace has no nodes: say what it is to run on.\n[[nodes]]\ncount = 100\n\
             name = \"node-{{i}}\"\ncpu = {}\nmemory = {}",
            cpu(source.cpu_unit),
            memory(source.memory_unit)
        );
    }
    format!("{head}\n[[workload]]\n{out}")
}
