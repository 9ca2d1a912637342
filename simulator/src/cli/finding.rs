//! What people are told of a violation.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{complain, output, progress};
use crate::check::Violation;
use crate::finding::Finding;
use crate::plan::Plan;
use crate::shrink::Bounds;

/// How long the smallest plan is looked for: some seconds, unless the run itself is long.
const BOUNDS: Bounds = Bounds { runs: 400, events: 10_000_000 };

/// How violations are explained.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(super) struct FindingArgs {
    /// Do not look for the smallest plan that shows a violation.
    #[arg(long)]
    no_shrink: bool,
    /// Write the smallest plan that shows a violation to this folder, as a scenario.
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_shrink")]
    keep: Option<PathBuf>,
}

impl FindingArgs {
    /// Explains the first of the violations of a run; progress goes to standard error if somebody
    /// looks.
    pub(super) fn explain(
        &self,
        plan: Plan,
        violations: &[Violation],
        quiet: bool,
    ) -> anyhow::Result<Option<Finding>> {
        let Some(violation) = violations.first() else { return Ok(None) };
        let path = self.keep.as_ref().map(|f| f.join(format!("{}-{}.toml", plan.name, plan.seed)));
        let bounds = (!self.no_shrink).then_some(BOUNDS);
        let bar = progress::spinner(quiet);
        let finding = Finding::of(plan, violation, bounds, &mut |best, runs| {
            let (operations, faults) = (best.operations.len(), best.faults.len());
            bar.set_message(format!(
                "smallest plan: {operations} operations and {faults} faults after {runs} runs"
            ));
        });
        bar.finish_and_clear();
        if let (Some(path), Some(smallest)) = (path, &finding.smallest) {
            output::write(&path, &smallest.scenario)?;
            complain(&format!("note: the smallest plan is kept as {}", path.display()));
        }
        Ok(Some(finding))
    }
}
