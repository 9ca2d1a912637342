//! Reading scenarios.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::{complain, output};
use crate::bug::Bug;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::scenario::diagnostics::Diagnostics;
use crate::scenario::{Options, Scenario};

/// Columns of a terminal whose width is not known.
const WIDTH: usize = 100;

/// Which scenario, and what is changed in it.
#[derive(Clone, Debug, Args)]
pub(super) struct ScenarioArgs {
    /// The scenario, a TOML file.
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    #[command(flatten)]
    changes: Changes,
}

/// What is changed in a scenario.
#[derive(Clone, Debug, Args)]
pub(super) struct Changes {
    /// Take the nodes and the number of masters from an inventory of kprov.
    #[arg(long, value_name = "INVENTORY")]
    inventory: Option<PathBuf>,
    /// Put a known bug back, to see what it does.
    #[arg(long, value_name = "BUG")]
    bug: Option<String>,
    /// Leave out and count rows of a trace that make no sense, instead of refusing it.
    #[arg(long)]
    skip_bad_rows: bool,
}

impl ScenarioArgs {
    pub(super) fn load(&self) -> anyhow::Result<Loaded> {
        Loaded::new(&self.scenario, &self.changes)
    }
}

/// A scenario that was read.
pub(super) struct Loaded {
    pub(super) scenario: Scenario,
    bug: Option<Bug>,
}

impl Loaded {
    pub(super) fn new(path: &Path, changes: &Changes) -> anyhow::Result<Self> {
        let bug = changes.bug.as_deref().map(bug_named).transpose()?;
        let options =
            Options { skip_bad_rows: changes.skip_bad_rows, inventory: changes.inventory.clone() };
        let scenario = Scenario::load_with(path, &options).map_err(|d| drawn(&d))?;
        if !scenario.warnings.problems.is_empty() {
            complain(scenario.warnings.render(output::colours(), WIDTH).trim_end());
        }
        for line in &scenario.left_out {
            complain(&format!("note: {line}"));
        }
        Ok(Self { scenario, bug })
    }

    /// Says in the outcome of a run what of the scenario was not run.
    pub(super) fn mark(&self, outcome: &mut Outcome) {
        outcome.skipped_rows.clone_from(&self.scenario.skipped_rows);
    }

    /// The seed that the file names.
    pub(super) fn seed(&self) -> u64 {
        self.scenario.seed()
    }

    pub(super) fn plan(&self, seed: u64) -> anyhow::Result<Plan> {
        let mut plan = self.scenario.expand(seed).map_err(|d| drawn(&d))?;
        if self.bug.is_some() {
            plan.settings.bug = self.bug;
        }
        Ok(plan)
    }
}

/// What is wrong with a file, with its snippets.
fn drawn(diagnostics: &Diagnostics) -> anyhow::Error {
    anyhow!("{}\n{}", diagnostics.summary(), diagnostics.render(output::colours(), WIDTH))
}

/// A bug by its name in files.
fn bug_named(name: &str) -> anyhow::Result<Bug> {
    serde_json::from_value(serde_json::Value::from(name))
        .map_err(|e| anyhow!("there is no bug {name:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_say_which_rows_of_traces_were_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time";
        let rows = "a,1000,64,0,0,1\nb,lots,64,0,0,1\nc,some,64,0,0,1\n";
        std::fs::write(path("pods.csv"), format!("{header}\n{rows}")).unwrap();
        let scenario = "[[nodes]]\nname = \"a\"\n[[workload]]\nkind = \"trace\"\n\
                        format = \"openb\"\npods = \"pods.csv\"\nname = \"t\"\n";
        std::fs::write(path("s.toml"), scenario).unwrap();
        let changes = |skip_bad_rows| Changes { inventory: None, bug: None, skip_bad_rows };
        assert!(Loaded::new(&path("s.toml"), &changes(false)).is_err());
        let loaded = Loaded::new(&path("s.toml"), &changes(true)).unwrap();
        let mut outcome = Outcome::default();
        loaded.mark(&mut outcome);
        let expected = ("`cpu_milli` is no whole number".to_owned(), 2);
        assert_eq!(outcome.skipped_rows, [expected].into());
        assert_eq!(loaded.scenario.left_out, ["2 rows skipped: `cpu_milli` is no whole number"]);
    }
}
