//! `kprov upgrade` and `kprov rollback`: an apply that says which builds come, and one that brings
//! back the builds before, which hosts keep.

use std::collections::{BTreeMap, BTreeSet};

use super::output::{Console, Failure};
use super::prepare::{Composition, Prepared};
use super::{ApplyArgs, Exit, Surroundings, UpgradeArgs, apply};
use crate::etcd::births::Births;
use crate::facts::{Facts, PathFact};
use crate::inventory::{Host, Inventory};
use crate::plan::{Change, is_saved_plan};
use crate::preflight::Problem;
use crate::program::{self, Program};
use crate::state::{Blob, HostState};

/// Brings all hosts to the inventory's programs, or back to those before.
pub(super) fn run(
    args: &UpgradeArgs,
    back: bool,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    if is_saved_plan(&args.run.source.inventory) {
        return Err(Failure::Usage {
            message: "an upgrade starts from an inventory, not from a saved plan".to_owned(),
            advice: "kprov apply carries a saved plan out".to_owned(),
        });
    }
    let apply = ApplyArgs {
        run: args.run.clone(),
        choice: args.choice.clone(),
        inventory_file: None,
        prune: false,
        allow_unreachable: args.allow_unreachable,
        rollback: back,
        drain: args.drain,
    };
    let command = if back { "rollback" } else { "upgrade" };
    apply::run(command, &apply, surroundings, console)
}

/// Replaces what is desired of the hosts `chosen` by the same with the builds that they had before.
/// Gives why hosts cannot go back.
pub(super) fn turn_back(
    desired: &mut [HostState],
    composition: &Composition,
    (inventory, births): (&Inventory, &Births),
    facts: &BTreeMap<String, Facts>,
    chosen: &BTreeSet<String>,
) -> Result<Vec<Problem>, Failure> {
    let mut problems = Vec::new();
    for state in desired.iter_mut().filter(|state| chosen.contains(&state.host)) {
        let (Some(facts), Some(host)) = (facts.get(&state.host), inventory.host(&state.host))
        else {
            continue;
        };
        match builds(state, facts) {
            Ok(builds) => *state = composition.with_builds(host, inventory, births, builds)?,
            Err(problem) => problems.push(problem),
        }
    }
    Ok(problems)
}

/// The builds that a host had before, by program, as it keeps them.
fn builds(state: &HostState, facts: &Facts) -> Result<BTreeMap<String, Blob>, Problem> {
    let none = BTreeMap::new();
    let known = facts.record.as_ref().map_or(&none, |record| &record.programs);
    let former = program::former(known, &state.programs);
    let blob = |(name, build): (String, Program)| {
        let path = build.path(&name);
        match facts.paths.get(&path) {
            Some(PathFact::File { sha256: Some(found), len, .. }) if *found == build.sha256 => {
                let (sha256, len, version) = (build.sha256, *len, build.version);
                // It is on the host: nothing of it is read here.
                let source = path.into();
                Ok((name, Blob { sha256, len, source, architecture: None, version }))
            }
            _ => Err(Problem {
                host: state.host.clone(),
                check: "generation",
                message: format!("it no longer keeps {name} {} ({path})", build.label()),
                advice: "name that build in [artifacts] of the inventory, and apply it".to_owned(),
            }),
        }
    };
    former.into_iter().map(blob).collect()
}

impl Composition {
    /// What should be true of `host`, with other builds of programs.
    fn with_builds(
        &self,
        host: &Host,
        inventory: &Inventory,
        births: &Births,
        builds: BTreeMap<String, Blob>,
    ) -> Result<HostState, Failure> {
        let mut artifacts = self.artifacts.clone();
        for (name, blob) in builds {
            artifacts = artifacts.with_program(&name, blob);
        }
        self.desired_of(host, inventory, births, &artifacts)
    }
}

/// Which builds come, and to which hosts: a line each.
pub(super) fn announce(prepared: &Prepared) -> String {
    let mut hosts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for plan in &prepared.plan.hosts {
        for change in &plan.changes {
            if let Change::Program { name, from, to } = change {
                let from = from.as_ref().map_or("none".to_owned(), Program::label);
                let line = format!("{name} {from} -> {}", to.label());
                hosts.entry(line).or_default().push(&plan.host);
            }
        }
    }
    if hosts.is_empty() {
        return "no program changes\n".to_owned();
    }
    hosts.iter().map(|(line, hosts)| format!("{line}: {}\n", hosts.join(" "))).collect()
}

/// What the operator has to know when hosts have gone back.
pub(super) const AFTERWARDS: &str = "note: the inventory still names the builds that were left: name \
the former ones in [artifacts], or the next apply brings the others again";
