//! `ksim compare`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args as ClapArgs;

use super::input::{Changes, Loaded};
use super::output::{self, Format};
use super::{Exit, run};
use crate::compare::Comparison;
use crate::outcome::Outcome;
use crate::report;

/// Arguments of `ksim compare`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The first scenario.
    a: PathBuf,
    /// The second scenario: the same but for what is to be compared.
    b: PathBuf,
    #[command(flatten)]
    changes: Changes,
    /// How many seeds; each is run with both.
    #[arg(long, default_value_t = 5, value_name = "N")]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_seed: u64,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Write a report with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        ensure!(self.seeds > 0, "--seeds must be at least 1");
        let a = Loaded::new(&self.a, &self.changes)?;
        let b = Loaded::new(&self.b, &self.changes)?;
        let mut pairs = Vec::new();
        for seed in self.first_seed..self.first_seed + self.seeds {
            pairs.push((measured(&a, seed)?, measured(&b, seed)?));
        }
        let comparison = Comparison::of(&pairs).named(&a.scenario.name, &b.scenario.name);
        if let Some(path) = &self.html {
            output::write(path, &report::comparison_html(&comparison, &pairs))?;
        }
        output::print(&match self.output {
            Format::Text => comparison.text(),
            Format::Json | Format::Csv => comparison.json(),
        })?;
        Ok(Exit::Fine)
    }
}

fn measured(loaded: &Loaded, seed: u64) -> anyhow::Result<Outcome> {
    let mut outcome = run::of_plan(loaded.plan(seed)?)?;
    loaded.mark(&mut outcome);
    Ok(outcome)
}
