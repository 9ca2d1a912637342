//! `ksim replay`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args as ClapArgs;

use super::finding::FindingArgs;
use super::input::{Changes, Loaded};
use super::output::{self, Format};
use super::{Exit, complain, run};
use crate::recording::Recording;
use crate::world::World;

/// The scenario that seeds belong to if none is named.
const SOAK_SCENARIO: &str = "simulator/scenarios/faulty-5.toml";

/// Arguments of `ksim replay`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A seed, a scenario file, or a recording of a real component (JSON lines).
    #[arg(value_name = "SEED|FILE")]
    what: String,
    /// The scenario that the seed belongs to.
    #[arg(long, default_value = SOAK_SCENARIO, value_name = "SCENARIO")]
    scenario: PathBuf,
    #[command(flatten)]
    changes: Changes,
    /// Write what happened to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Stop after this many events; what comes later is not judged.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    #[command(flatten)]
    finding: FindingArgs,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        if let Ok(seed) = self.what.parse::<u64>() {
            let loaded = Loaded::new(&self.scenario, &self.changes)?;
            return self.replay(&loaded, seed);
        }
        let path = PathBuf::from(&self.what);
        if path.extension().is_some_and(|e| e == "jsonl") {
            return self.parity(&path);
        }
        let loaded = Loaded::new(&path, &self.changes)?;
        let seed = loaded.seed();
        self.replay(&loaded, seed)
    }

    fn replay(&self, loaded: &Loaded, seed: u64) -> anyhow::Result<Exit> {
        let mut world = World::new(loaded.plan(seed)?)?;
        world.keep_timeline();
        if let Some(events) = self.events {
            while world.events() < events && world.step() {}
        } else {
            world.run();
        }
        let mut outcome = world.outcome();
        loaded.mark(&mut outcome);
        if let Some(timeline) = world.timeline() {
            let mut text = timeline.lines().collect::<Vec<_>>().join("\n");
            text.push('\n');
            match (&self.timeline, self.output) {
                (Some(path), _) => output::write(path, &text)?,
                (None, Format::Text) => output::print(&text)?,
                (None, Format::Json | Format::Csv) => {}
            }
        }
        run::print(world, &mut outcome, self.output, &self.finding, self.output != Format::Text)
    }

    /// Feeds a machine what a real component was told and compares what it does.
    fn parity(&self, path: &std::path::Path) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recording {}", path.display()))?;
        let recording = Recording::parse(&text)
            .with_context(|| format!("{} is no recording", path.display()))?;
        let compared = recording.replay()?;
        if let Some(difference) = compared.difference {
            complain(&format!(
                "error: the machine does something else than the recorded component: {difference}"
            ));
            return Ok(Exit::Violation);
        }
        output::print(&format!(
            "{} inputs of {}: the {} effects are identical\n",
            compared.inputs,
            recording.component(),
            compared.effects
        ))?;
        Ok(Exit::Fine)
    }
}
