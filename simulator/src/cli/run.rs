//! `ksim run`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::input::ScenarioArgs;
use super::output::{self, Format};
use super::{Exit, complain, memory, progress};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report;
use crate::world::{GaveUp, World};

/// Arguments of `ksim run`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Write a report with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write tables: samples, rollouts, heat, violations.
    #[arg(long, value_name = "FOLDER")]
    csv: Option<PathBuf>,
    /// Write what happened, line by line.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Check no properties: nothing but the cluster itself takes time.
    #[arg(long)]
    no_checks: bool,
    /// No progress bar.
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let loaded = self.scenario.load()?;
        let plan = loaded.plan(self.seed.unwrap_or_else(|| loaded.seed()))?;
        let mut world =
            if self.no_checks { World::with_checks(plan, Vec::new())? } else { World::new(plan)? };
        if self.timeline.is_some() {
            world.keep_timeline();
        }
        let mut outcome = finish(&mut world, self.quiet || self.output != Format::Text);
        loaded.mark(&mut outcome);
        if let (Some(path), Some(timeline)) = (&self.timeline, world.timeline()) {
            let lines: Vec<&str> = timeline.lines().collect();
            output::write(path, &(lines.join("\n") + "\n"))?;
        }
        if let Some(path) = &self.html {
            output::write(path, &report::html(&outcome))?;
        }
        if let Some(folder) = &self.csv {
            for table in report::csv(&outcome) {
                output::write(&folder.join(format!("{}.csv", table.name)), &table.text)?;
            }
        }
        output::print(&written(&outcome, self.output))?;
        let verdict = verdict(&world);
        // The process ends: taking a million pods apart one by one would be for nothing.
        std::mem::forget(world);
        Ok(verdict)
    }
}

/// The outcome in a format.
pub(super) fn written(outcome: &Outcome, format: Format) -> String {
    match format {
        Format::Text => report::text(outcome, output::colours()),
        Format::Json => report::json(outcome),
        Format::Csv => report::csv(outcome)[0].text.clone(),
    }
}

/// Runs a world to its end and measures it.
pub(super) fn finish(world: &mut World, quiet: bool) -> Outcome {
    let wall = progress::run(world, quiet);
    let mut outcome = world.outcome();
    outcome.wall_seconds = wall.as_secs_f64();
    outcome.peak_memory_bytes = memory::peak_bytes();
    outcome
}

/// Runs a plan to its end and measures it.
pub(super) fn of_plan(plan: Plan) -> anyhow::Result<Outcome> {
    let mut world = World::new(plan)?;
    Ok(finish(&mut world, true))
}

/// How a run ends for the shell.
pub(super) fn verdict(world: &World) -> Exit {
    if !world.violations().is_empty() {
        return Exit::Violation;
    }
    if let Some(GaveUp::NoProgress(who)) = world.gave_up() {
        complain(&format!(
            "error: no progress: more and more happens at one moment of virtual time; {who} is \
             woken without end"
        ));
        return Exit::NoRest;
    }
    if !world.settled() {
        let why = world.unrest().unwrap_or_else(|| "the run was stopped early".to_owned());
        complain(&format!("error: {why}; --timeline shows what goes on"));
        return Exit::NoRest;
    }
    Exit::Fine
}
