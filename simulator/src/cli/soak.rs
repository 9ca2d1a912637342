//! `ksim soak`.

#![expect(clippy::disallowed_types, reason = "people want to know how fast seeds are run")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{anyhow, ensure};
use clap::Args as ClapArgs;

use super::input::{Loaded, ScenarioArgs};
use super::output::{self, Format};
use super::{Exit, complain, memory, progress};
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::scenario::settings::{PROPERTY_HELP, is_property};
use crate::shrink::{Bounds, shrink};
use crate::soak::{Limits, SeedResult, soak};
use crate::span::Span;

/// Runs that shrinking one failure may take.
const SHRINK_RUNS: u32 = 400;

/// Arguments of `ksim soak`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_seed: u64,
    /// How many seeds at most.
    #[arg(
        long,
        default_value_t = u64::MAX,
        hide_default_value = true,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    seeds: u64,
    /// How long at most.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    time: Span,
    /// How many at a time; one for each core if not given.
    #[arg(long, short = 'j', value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Run each seed twice and compare what happened.
    #[arg(long)]
    twice: bool,
    /// Where failing seeds and their smallest scenarios are kept.
    #[arg(long, default_value = "ksim-failures", value_name = "FOLDER")]
    keep: PathBuf,
    /// Properties under investigation: what violates nothing else is told and kept, and does not
    /// make the soak fail. `all` stands for all but P51: that two runs of a seed are equal.
    #[arg(long, value_delimiter = ',', value_name = "PROPERTY", value_parser = property)]
    known: Vec<String>,
    /// Do not look for the smallest scenario.
    #[arg(long)]
    no_shrink: bool,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let loaded = self.scenario.load()?;
        let limits = Limits {
            first_seed: self.first_seed,
            seeds: self.seeds,
            time: self.time.duration(),
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            twice: self.twice,
        };
        let bar = progress::spinner(false);
        let started = Instant::now();
        let (mut done, mut events) = (0_u64, 0_u64);
        let mut failures: Vec<SeedResult> = Vec::new();
        let expand = |seed: u64| loaded.plan(seed).map_err(|e| format!("{e:#}"));
        let mut kept = Ok(());
        let result = soak(&expand, limits, &mut |result: SeedResult| {
            done += 1;
            events += result.events;
            if result.failed() {
                // At once: who interrupts a soak has what it found.
                let keep = bar.suspend(|| self.keep(&loaded, &result));
                kept = std::mem::replace(&mut kept, Ok(())).and(keep);
                failures.push(result);
            }
            bar.set_message(format!("{done} seeds, {} failed", failures.len()));
        });
        bar.finish_and_clear();
        result.map_err(|e| anyhow!(e))?;
        kept?;
        ensure!(done > 0, "no seed was run in --time {}: give it more", self.time);
        failures.sort_by_key(|f| f.seed);
        let wall = started.elapsed().as_secs_f64();
        for failure in &failures {
            self.keep_smallest(&loaded, failure)?;
        }
        let skipped_rows = &loaded.scenario.skipped_rows;
        output::print(&self.summary(limits, done, events, wall, &failures, skipped_rows))?;
        let new = failures.iter().any(|f| !self.is_known(f));
        Ok(if new { Exit::Violation } else { Exit::Fine })
    }

    /// Whether a failure shows nothing but what is being looked into.
    fn is_known(&self, failure: &SeedResult) -> bool {
        let all = self.known.iter().any(|known| known == "all");
        let known = |property: &String| (all && property != "P51") || self.known.contains(property);
        !failure.violations.is_empty() && failure.violations.iter().all(|v| known(&v.property))
    }

    /// Where the scenario of a failing seed is kept.
    fn path(&self, plan: &Plan) -> PathBuf {
        self.keep.join(format!("{}-{}.toml", plan.name, plan.seed))
    }

    /// Writes the scenario of the seed as it was run.
    fn keep(&self, loaded: &Loaded, failure: &SeedResult) -> anyhow::Result<()> {
        let plan = loaded.plan(failure.seed)?;
        let path = self.path(&plan);
        output::write(&path, &Scenario::text_of_plan(&plan))?;
        let what = failure.failure().unwrap_or_default();
        complain(&format!("seed {}: {what}\n  kept as {}", failure.seed, path.display()));
        Ok(())
    }

    /// Writes the smallest scenario that shows the failure in the place of what was run.
    fn keep_smallest(&self, loaded: &Loaded, failure: &SeedResult) -> anyhow::Result<()> {
        let property = failure.violations.first().map(|v| v.property.as_str());
        let Some(property) = property.filter(|p| !self.no_shrink && *p != "P51") else {
            return Ok(());
        };
        let plan = loaded.plan(failure.seed)?;
        let path = self.path(&plan);
        let shrunk = shrink(plan, property, Bounds::runs(SHRINK_RUNS), &mut |_, _| {});
        output::write(&path, &Scenario::text_of_plan(&shrunk.plan))
    }

    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    fn summary(
        &self,
        limits: Limits,
        done: u64,
        events: u64,
        wall: f64,
        failures: &[SeedResult],
        skipped_rows: &BTreeMap<String, u64>,
    ) -> String {
        let hourly = done as f64 / wall * 3_600.0 / limits.threads as f64;
        match self.output {
            Format::Json => serde_json::json!({
                "seeds": done, "failed": failures.len(), "skipped_rows": skipped_rows,
                "known": failures.iter().filter(|f| self.is_known(f)).count(),
                "events": events, "wall_seconds": wall,
                "threads": limits.threads, "seeds_per_hour_and_core": hourly,
                "peak_memory_bytes": memory::peak_bytes(),
                "failures": failures.iter().map(|f| serde_json::json!({
                    "seed": f.seed, "violations": f.violations, "stuck": f.stuck(),
                })).collect::<Vec<_>>(),
            })
            .to_string(),
            Format::Csv => {
                let mut text = "seed,property,message\n".to_owned();
                for (failure, violation) in
                    failures.iter().flat_map(|f| f.violations.iter().map(move |v| (f, v)))
                {
                    let message = violation.message.replace('"', "\"\"");
                    text.push_str(&format!(
                        "{},{},\"{message}\"\n",
                        failure.seed, violation.property
                    ));
                }
                for (seed, stuck) in failures.iter().filter_map(|f| Some((f.seed, f.stuck()?))) {
                    text.push_str(&format!("{seed},,\"{}\"\n", stuck.replace('"', "\"\"")));
                }
                text
            }
            Format::Text => format!(
                "{done} seeds in {wall:.1} s on {} threads ({hourly:.0} an hour and core), \
                 {events} events, {} failed, {} of them only by what is known\n",
                limits.threads,
                failures.len(),
                failures.iter().filter(|f| self.is_known(f)).count()
            ),
        }
    }
}

/// A property of `--known`.
fn property(text: &str) -> Result<String, String> {
    if text == "all" || is_property(text) {
        return Ok(text.to_owned());
    }
    Err(format!("there is no such property; {PROPERTY_HELP}, and `all` stands for all but P51"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::soak::run_plan;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_failing_seed_is_kept_as_it_was_run_and_later_as_the_smallest() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name = \"s\"\n[settings]\nsafety = \"2m\"\nsettle = \"5m\"\n\
                    bug = \"no-read-your-writes\"\n[[nodes]]\nname = \"n-{i}\"\ncount = 3\n\
                    [[workload]]\nkind = \"deployments\"\nname = \"web\"\ncount = 3\n\
                    every = \"1s\"\nreplicas = { min = 2, max = 6 }\nscalings = { every = \"5s\", \
                    replicas = { min = 1, max = 8 } }\n";
        let scenario = folder.path().join("s.toml");
        std::fs::write(&scenario, text).unwrap();
        let keep = folder.path().join("kept");
        let words: [&Path; 4] = [Path::new("soak"), &scenario, Path::new("--keep"), keep.as_path()];
        let args = Line::parse_from(words).args;
        let loaded = args.scenario.load().unwrap();
        let failing = |seed: &u64| {
            let result = run_plan(loaded.plan(*seed).unwrap()).unwrap();
            result.failed().then_some(result)
        };
        let failure = (1..100).find_map(|seed| failing(&seed)).expect("the bug shows");
        let kept = || {
            let path = keep.join(format!("s-{}.toml", failure.seed));
            Scenario::load(&path).unwrap().expand(failure.seed).unwrap()
        };
        args.keep(&loaded, &failure).unwrap();
        assert_eq!(kept(), loaded.plan(failure.seed).unwrap());
        args.keep_smallest(&loaded, &failure).unwrap();
        let smallest = kept();
        let result = run_plan(smallest.clone()).unwrap();
        assert_eq!(result.violations[0].property, failure.violations[0].property);
        assert!(smallest.operations.len() < loaded.plan(failure.seed).unwrap().operations.len());
    }
}
