//! `ksim report`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args as ClapArgs;

use super::output::{self, Format};
use super::{Exit, run};
use crate::outcome::Outcome;
use crate::report;

/// Arguments of `ksim report`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A result that `ksim run --output json` has printed.
    result: PathBuf,
    /// Write a report with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write tables: samples, rollouts, heat, violations.
    #[arg(long, value_name = "FOLDER")]
    csv: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(&self.result)
            .with_context(|| format!("cannot read the result {}", self.result.display()))?;
        let outcome: Outcome = serde_json::from_str(&text).with_context(|| {
            format!("{} is no result of `ksim run --output json`", self.result.display())
        })?;
        if let Some(path) = &self.html {
            output::write(path, &report::html(&outcome))?;
        }
        if let Some(folder) = &self.csv {
            for table in report::csv(&outcome) {
                output::write(&folder.join(format!("{}.csv", table.name)), &table.text)?;
            }
        }
        output::print(&run::written(&outcome, self.output))?;
        Ok(if outcome.violations.is_empty() { Exit::Fine } else { Exit::Violation })
    }
}
