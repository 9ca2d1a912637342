//! [`Finding`]: what people need of a violation to understand it and to see it again: the seed,
//! what the scenario made of it, the smallest plan that still shows it and what concerns it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Violation;
use crate::plan::{Plan, Settings};
use crate::scenario::Scenario;
use crate::shrink::{Bounds, shrink};
use crate::world::World;

/// Lines of the timeline that are kept, the last ones.
pub const LINES_MAX: usize = 60;
/// Events after which a run is not repeated to tell its story: that would take as long again.
const EVENTS_MAX: u64 = 20_000_000;

/// A violation, explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The property that did not hold first.
    pub property: String,
    /// The seed of the run.
    pub seed: u64,
    /// What was made of the seed.
    pub options: Options,
    /// The smallest plan that was found; absent when nobody looked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest: Option<Smallest>,
    /// What is wrong in the run that the timeline tells.
    pub message: String,
    /// What concerns it, line by line, up to the violation: in a run of the smallest plan, if
    /// there is one.
    pub timeline: Vec<String>,
    /// Lines of that run that are left out.
    pub lines_left_out: u64,
}

/// What a scenario makes of a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How the cluster is made and how long it runs.
    pub settings: Settings,
    /// Nodes.
    pub nodes: usize,
    /// What users do, and how often.
    pub operations: BTreeMap<String, usize>,
    /// What goes wrong, and how often.
    pub faults: BTreeMap<String, usize>,
}

/// A plan from which was taken what the violation does not need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smallest {
    /// The plan as a scenario file.
    pub scenario: String,
    /// Runs that it took to find it.
    pub runs: u32,
    /// Whether the search ended because there was nothing left to try, and not at its bounds.
    pub complete: bool,
}

impl Finding {
    /// Explains the first violation of a run of the plan. Without bounds no smaller plan is looked
    /// for; `progress` is told of each run of the search.
    pub fn of(
        plan: Plan,
        violation: &Violation,
        bounds: Option<Bounds>,
        progress: &mut dyn FnMut(&Plan, u32),
    ) -> Self {
        let options = Options::of(&plan);
        let (property, seed) = (violation.property.clone(), plan.seed);
        let mut finding = Self {
            seed,
            options,
            smallest: None,
            message: violation.message.clone(),
            timeline: Vec::new(),
            lines_left_out: 0,
            property,
        };
        let told = match bounds {
            Some(bounds) => {
                let shrunk = shrink(plan, &finding.property, bounds, progress);
                let scenario = Scenario::text_of_plan(&shrunk.plan);
                let (runs, complete) = (shrunk.runs, shrunk.complete);
                finding.smallest = Some(Smallest { scenario, runs, complete });
                shrunk.plan
            }
            None => plan,
        };
        if violation.event <= EVENTS_MAX {
            finding.tell(told);
        }
        finding
    }

    /// Runs the plan up to the violation and keeps what concerns it.
    fn tell(&mut self, plan: Plan) {
        let Ok(mut world) = World::new(plan) else { return };
        world.keep_timeline();
        let is_it = |v: &&Violation| v.property == self.property;
        while !world.violations().iter().any(|v| is_it(&v)) && world.step() {}
        let Some(violation) = world.violations().iter().find(is_it) else { return };
        let Some(timeline) = world.timeline() else { return };
        let lines = timeline.concerning(&violation.message);
        let shown = &lines[lines.len().saturating_sub(LINES_MAX)..];
        let all = timeline.lines().count() as u64 + timeline.dropped();
        self.lines_left_out = all - shown.len() as u64;
        self.timeline = shown.iter().map(|line| (*line).to_owned()).collect();
        self.message.clone_from(&violation.message);
    }
}

impl Options {
    fn of(plan: &Plan) -> Self {
        let mut options = Self {
            settings: plan.settings.clone(),
            nodes: plan.nodes.len(),
            operations: BTreeMap::new(),
            faults: BTreeMap::new(),
        };
        for planned in &plan.operations {
            *options.operations.entry(planned.operation.word().to_owned()).or_default() += 1;
        }
        for planned in &plan.faults {
            // Named as in scenario files, by the tag of the enumeration.
            let value = serde_json::to_value(&planned.fault).unwrap_or_default();
            let word = value.get("fault").and_then(Value::as_str).unwrap_or("fault");
            *options.faults.entry(word.to_owned()).or_default() += 1;
        }
        options
    }

    /// What was drawn, in a line: `3 nodes, 2 operations (1 create-pod, 1 scale), no faults`.
    pub fn drawn(&self) -> String {
        let counted = |counts: &BTreeMap<String, usize>, one: &str, many: &str| {
            let sum: usize = counts.values().sum();
            let each: Vec<String> = counts.iter().map(|(w, n)| format!("{n} {w}")).collect();
            match sum {
                0 => format!("no {many}"),
                1 => format!("1 {one} ({})", each.join(", ")),
                _ => format!("{sum} {many} ({})", each.join(", ")),
            }
        };
        let nodes = if self.nodes == 1 { "node" } else { "nodes" };
        format!(
            "{} {nodes}, {}, {}",
            self.nodes,
            counted(&self.operations, "operation", "operations"),
            counted(&self.faults, "fault", "faults")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan() -> Plan {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/bugs");
        let scenario = Scenario::load(&folder.join("no-read-your-writes.toml"));
        scenario.unwrap_or_else(|problems| panic!("{problems:?}")).expand(1).unwrap()
    }

    fn violation() -> Violation {
        let mut world = World::new(plan()).unwrap();
        world.run();
        world.violations().first().expect("the bug shows").clone()
    }

    #[test]
    fn a_violation_comes_with_seed_options_smallest_plan_and_story() {
        let violation = violation();
        let bounds = Bounds { runs: 200, events: 2_000_000 };
        let mut told = 0;
        let finding = Finding::of(plan(), &violation, Some(bounds), &mut |_, runs| told = runs);
        assert_eq!((finding.property.as_str(), finding.seed), ("P29", 1));
        assert_eq!(
            finding.options.drawn(),
            "1 node, 3 operations (1 create-pod, 1 create-replica-set, 1 delete), 1 fault \
             (1 lagging-server)"
        );
        let smallest = finding.smallest.as_ref().expect("it was looked for");
        assert!(smallest.complete && smallest.runs == told, "{smallest:?}");
        assert!(smallest.scenario.contains("replicas = 1 }"), "{}", smallest.scenario);
        let read = Scenario::parse(Path::new("s.toml"), &smallest.scenario).unwrap();
        assert!(crate::shrink::violates(&read.expand(1).unwrap(), "P29"));
        let last = finding.timeline.last().expect("there is a story");
        assert!(last.contains("VIOLATION of P29") && last.contains(&finding.message), "{last}");
        assert!(finding.timeline[0].contains("creates pods/default/adopted"), "{finding:#?}");
        assert!(finding.timeline.len() <= LINES_MAX && finding.lines_left_out > 0);
        // The same plan is found everywhere, and machines read what people do.
        let again = Finding::of(plan(), &violation, Some(bounds), &mut |_, _| {});
        assert_eq!(again, finding);
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        let text = crate::report::finding_text(&finding);
        for line in [
            "  P29 does not hold with seed 1, which stands for",
            "    safety = \"2m\", settle = \"5m\", quiet = \"30s\", api_servers = 2, \
             bug = \"no-read-your-writes\"",
            "    bug = \"no-read-your-writes\"",
            last,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn nothing_is_looked_for_beyond_the_bounds() {
        let violation = violation();
        let finding = Finding::of(plan(), &violation, None, &mut |_, _| panic!("no search"));
        assert_eq!(finding.smallest, None);
        assert_eq!(finding.message, violation.message);
        assert!(finding.timeline.last().unwrap().contains("VIOLATION of P29"));
        for bounds in [Bounds { runs: 3, events: u64::MAX }, Bounds { runs: 100, events: 2_000 }] {
            let finding = Finding::of(plan(), &violation, Some(bounds), &mut |_, _| {});
            let smallest = finding.smallest.expect("it was looked for");
            assert!(!smallest.complete && smallest.runs <= 8, "{smallest:?}");
            let text = crate::report::finding_text(&Finding {
                smallest: Some(smallest),
                ..Finding::of(plan(), &violation, None, &mut |_, _| {})
            });
            assert!(text.contains(", and there may be smaller ones:"), "{text}");
        }
    }

    #[test]
    fn a_run_that_is_too_long_is_not_repeated() {
        let violation = Violation { event: EVENTS_MAX + 1, ..violation() };
        let finding = Finding::of(plan(), &violation, None, &mut |_, _| {});
        assert!(finding.timeline.is_empty());
        assert!(crate::report::finding_text(&finding).contains("too long to be told here: pods/"));
    }
}
