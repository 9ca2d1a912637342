//! `ksim import`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args as ClapArgs;
use indicatif::HumanBytes;

use super::{Exit, complain, output, progress};
use crate::trace;

/// Arguments of `ksim import`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The files of the trace (CSV); their columns tell the format: OpenB (nodes and pods),
    /// Borg 2019 (machine, collection and instance events), Azure packing (vm and vmType).
    #[arg(required = true, value_name = "TRACE")]
    files: Vec<PathBuf>,
    /// Leave out and count rows that make no sense, instead of refusing the trace.
    #[arg(long)]
    skip_bad_rows: bool,
    /// Write the scenario to this file instead of standard output.
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let bar = progress::spinner(false);
        bar.set_message(format!("reading {}", sizes(&self.files)));
        let imported = trace::import(&self.files, self.skip_bad_rows);
        bar.finish_and_clear();
        let imported = imported.map_err(|e| anyhow!("{e}"))?;
        for line in imported.trace.left_out() {
            complain(&format!("note: {line}"));
        }
        match &self.output {
            Some(path) => {
                output::write(path, &imported.text)?;
                complain(&format!(
                    "{} nodes and {} operations; the scenario is in {}",
                    imported.trace.nodes.len(),
                    imported.trace.operations.len(),
                    path.display()
                ));
            }
            None => output::print(&imported.text)?,
        }
        Ok(Exit::Fine)
    }
}

/// How much there is to read: `2 files, 310 MiB`.
fn sizes(files: &[PathBuf]) -> String {
    let bytes: u64 = files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
    let noun = if files.len() == 1 { "file" } else { "files" };
    format!("{} {noun}, {}", files.len(), HumanBytes(bytes))
}
