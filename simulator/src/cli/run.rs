//! `ksim run`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::finding::FindingArgs;
use super::input::ScenarioArgs;
use super::output::{self, Format};
use super::{Exit, complain, memory, progress};
use crate::outcome::Outcome;
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
    #[command(flatten)]
    finding: FindingArgs,
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
        let quiet = self.quiet || self.output != Format::Text;
        let mut outcome = finish(&mut world, quiet, "");
        loaded.mark(&mut outcome);
        if let (Some(path), Some(timeline)) = (&self.timeline, world.timeline()) {
            let lines: Vec<&str> = timeline.lines().collect();
            output::write(path, &(lines.join("\n") + "\n"))?;
        }
        let verdict = print(world, &mut outcome, self.output, &self.finding, quiet)?;
        if let Some(path) = &self.html {
            output::write(path, &report::html(&outcome))?;
        }
        if let Some(folder) = &self.csv {
            for table in report::csv(&outcome) {
                output::write(&folder.join(format!("{}.csv", table.name)), &table.text)?;
            }
        }
        Ok(verdict)
    }
}

/// Prints what a run came to, with an explanation of the first violation, if there is one; the
/// outcome has it from then on.
pub(super) fn print(
    world: World,
    outcome: &mut Outcome,
    format: Format,
    how: &FindingArgs,
    quiet: bool,
) -> anyhow::Result<Exit> {
    if format == Format::Text {
        // At once: the explanation takes a while.
        output::print(&written(outcome, format))?;
    }
    let verdict = verdict(&world);
    if world.violations().is_empty() {
        // The process ends: taking a million pods apart one by one would be for nothing.
        std::mem::forget(world);
    } else {
        let (plan, violations) = (world.plan().clone(), world.violations().to_vec());
        // Others take its place.
        drop(world);
        outcome.finding = how.explain(plan, &violations, quiet)?.map(Box::new);
        if let (Format::Text, Some(finding)) = (format, &outcome.finding) {
            output::print(&report::finding_text(finding))?;
        }
    }
    if format != Format::Text {
        output::print(&written(outcome, format))?;
    }
    Ok(verdict)
}

/// The outcome in a format.
pub(super) fn written(outcome: &Outcome, format: Format) -> String {
    match format {
        Format::Text => report::text(outcome, output::colours()),
        Format::Json => report::json(outcome),
        Format::Csv => report::csv(outcome)[0].text.clone(),
    }
}

/// Runs a world to its end and measures it; `title` says which of several runs it is.
pub(super) fn finish(world: &mut World, quiet: bool, title: &str) -> Outcome {
    let wall = progress::run_until(world, quiet, title, &mut |_| false);
    let mut outcome = world.outcome();
    outcome.wall_seconds = wall.as_secs_f64();
    outcome.peak_memory_bytes = memory::peak_bytes();
    outcome
}

/// How a run ends for the shell.
pub(super) fn verdict(world: &World) -> Exit {
    if !world.violations().is_empty() {
        return Exit::Violation;
    }
    if let Some(why) = stuck(world) {
        complain(&format!("error: {why}; --timeline shows what goes on"));
        return Exit::NoRest;
    }
    Exit::Fine
}

/// Why a run did not get to its end by itself; `None` also for one that was stopped from outside.
pub(super) fn stuck(world: &World) -> Option<String> {
    if let Some(GaveUp::NoProgress(who)) = world.gave_up() {
        return Some(format!(
            "no progress: more and more happens at {} of virtual time, and no time passes; {who} \
             was the last to hear of something",
            world.elapsed()
        ));
    }
    world.unrest()
}
