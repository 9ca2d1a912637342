//! `ksim compare`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args as ClapArgs;

use super::input::{Changes, Loaded};
use super::output::{self, Format};
use super::{Exit, complain, run};
use crate::compare::Comparison;
use crate::outcome::Outcome;
use crate::report;
use crate::world::World;

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
    #[arg(
        long,
        default_value_t = 5,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
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
    /// No progress bar.
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let a = Loaded::new(&self.a, &self.changes)?;
        let b = Loaded::new(&self.b, &self.changes)?;
        let last = self.first_seed.checked_add(self.seeds - 1);
        let last = last.context("--first-seed and --seeds go beyond the greatest seed")?;
        let mut pairs = Vec::new();
        let mut exit = Exit::Fine;
        for seed in self.first_seed..=last {
            let pair = (seed - self.first_seed + 1, self.seeds);
            let mut measured = |name: &str, loaded: &Loaded| -> anyhow::Result<Outcome> {
                let title = format!("pair {} of {}, {name}: ", pair.0, pair.1);
                let (outcome, verdict) = self.measured(loaded, seed, &title)?;
                exit = exit.worse(verdict);
                Ok(outcome)
            };
            pairs.push((measured("A", &a)?, measured("B", &b)?));
        }
        let comparison = Comparison::of(&pairs).named(&a.scenario.name, &b.scenario.name);
        if let Some(path) = &self.html {
            output::write(path, &report::comparison_html(&comparison, &pairs))?;
        }
        output::print(&match self.output {
            Format::Text => comparison.text(),
            Format::Json => comparison.json(),
            Format::Csv => report::comparison_csv(&comparison).text,
        })?;
        Ok(exit)
    }

    /// Runs a seed and says what is wrong with the run, if anything is: the figures of a cluster
    /// that does not work say little.
    fn measured(&self, loaded: &Loaded, seed: u64, title: &str) -> anyhow::Result<(Outcome, Exit)> {
        let mut world = World::new(loaded.plan(seed)?)?;
        let quiet = self.quiet || self.output != Format::Text;
        let mut outcome = run::finish(&mut world, quiet, title);
        loaded.mark(&mut outcome);
        let name = &loaded.scenario.name;
        if let Some(first) = outcome.violations.first() {
            let (property, message) = (&first.property, &first.message);
            complain(&format!("warning: {name}, seed {seed}: {property} does not hold: {message}"));
            return Ok((outcome, Exit::Violation));
        }
        if let Some(why) = run::stuck(&world) {
            complain(&format!("warning: {name}, seed {seed}: {why}"));
            return Ok((outcome, Exit::NoRest));
        }
        Ok((outcome, Exit::Fine))
    }
}
