//! [`Soak`]: what came of many runs, each of its own seed.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::figures::{Unit, grouped, span};
use crate::check::Violation;
use crate::outcome::Outcome;
use crate::span::Span;

/// Failing seeds that are printed with their violations.
const FAILURES_SHOWN: usize = 20;

/// Many runs in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// The runs, in the order in which they were added.
    pub runs: Vec<SoakRun>,
}

/// One run in short: what is kept of an outcome without its samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SoakRun {
    /// The scenario's name.
    pub name: String,
    /// The run's seed.
    pub seed: u64,
    /// Real time the run took, in seconds; zero where nobody measured.
    pub wall_seconds: f64,
    /// Virtual time that passed, in seconds.
    pub virtual_seconds: f64,
    /// Events of the engine.
    pub events: u64,
    /// When the cluster came to rest after the faults were healed; `None` if it did not.
    pub settled_after: Option<Span>,
    /// Properties that did not hold.
    pub violations: Vec<Violation>,
    /// Hash over all effects.
    pub effect_log_hash: String,
}

impl Soak {
    /// Of finished runs.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut soak = Self::default();
        outcomes.into_iter().for_each(|outcome| soak.add(outcome));
        soak
    }

    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs.push(SoakRun {
            name: outcome.name.clone(),
            seed: outcome.seed,
            wall_seconds: outcome.wall_seconds,
            virtual_seconds: outcome.virtual_seconds,
            events: outcome.events,
            settled_after: outcome.settled_after,
            violations: outcome.violations.clone(),
            effect_log_hash: outcome.effect_log_hash.clone(),
        });
    }

    /// The runs in which a property did not hold.
    pub fn failures(&self) -> impl Iterator<Item = &SoakRun> {
        self.runs.iter().filter(|run| !run.violations.is_empty())
    }

    /// In how many runs each property did not hold.
    pub fn failures_by_property(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for run in self.failures() {
            let mut properties: Vec<&str> =
                run.violations.iter().map(|v| v.property.as_str()).collect();
            properties.sort_unstable();
            properties.dedup();
            for property in properties {
                *counts.entry(property).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Everything as one JSON object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("no maps with keys that are no text")
    }

    /// A summary for a terminal, with a newline at its end.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.headline());
        for (property, count) in self.failures_by_property() {
            let _ = writeln!(text, "  {property:<5} in {} runs", grouped(count));
        }
        for run in self.failures().take(FAILURES_SHOWN) {
            let _ = writeln!(text, "  seed {}:", run.seed);
            for violation in &run.violations {
                let _ = writeln!(text, "    {} {}", violation.property, violation.message);
            }
        }
        let more = self.failures().count().saturating_sub(FAILURES_SHOWN);
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more failing seeds");
        }
        text
    }

    /// What there is to say in one line.
    pub(super) fn headline(&self) -> String {
        let failed = self.failures().count() as u64;
        let virtual_time: f64 = self.runs.iter().map(|run| run.virtual_seconds).sum();
        let events: u64 = self.runs.iter().map(|run| run.events).sum();
        let mut line = format!(
            "{} runs, {} failed, {} of virtual time, {} events",
            grouped(self.runs.len() as u64),
            grouped(failed),
            Unit::Seconds.write(virtual_time),
            grouped(events)
        );
        if let Some(slowest) = self.slowest_to_settle() {
            let _ = write!(line, ", at rest after {} at the latest", span(slowest));
        }
        line
    }

    /// The longest that a run took to come to rest.
    pub(super) fn slowest_to_settle(&self) -> Option<Span> {
        self.runs.iter().filter_map(|run| run.settled_after).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::demo;

    #[test]
    fn failures_are_counted_once_a_run_and_property() {
        let mut outcomes: Vec<Outcome> = (0..5).map(demo::outcome).collect();
        let twice = outcomes[0].violations[0].clone();
        outcomes[0].violations.push(twice);
        let soak = Soak::of(&outcomes);
        let seeds: Vec<u64> = soak.failures().map(|run| run.seed).collect();
        assert_eq!(seeds, [0, 2, 4]);
        assert_eq!(soak.failures_by_property(), BTreeMap::from([("P8", 3), ("P9", 3)]));
        insta::assert_snapshot!(soak.text());
        assert_eq!(serde_json::from_str::<Soak>(&soak.json()).unwrap(), soak);
        assert!(Soak::default().text().starts_with("0 runs, 0 failed"));
    }
}
