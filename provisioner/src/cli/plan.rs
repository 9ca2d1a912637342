//! `kprov plan`: shows what an apply would change, and keeps it as a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::addons;
use super::network_key;
use super::output::{Console, Failure};
use super::prepare::{self, Prepared, Wish};
use super::prune::Departed;
use super::{Exit, PlanArgs, Source, Surroundings, members};
use crate::pki::{Issued, Pki};
use crate::plan::{self, ContentDiff, PlanSource, SavedPlan, SavedPlanError, is_saved_plan};

pub(super) fn run(
    args: &PlanArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    if is_saved_plan(&source.inventory) {
        return show(&source.inventory, console);
    }
    if args.prune && args.out.is_some() {
        return Err(Failure::Usage {
            message: "a saved plan holds no removals of hosts".to_owned(),
            advice: "use --prune with kprov apply alone".to_owned(),
        });
    }
    let inventory = prepare::inventory(source, console)?;
    let chosen = args.choice.choose(&inventory)?;
    let state_dir = prepare::state_dir(source, &inventory);
    // Certificates that are due would be issued anew by an apply; here that happens to a copy. A
    // plan that is kept needs the real ones: it knows them by their digests.
    let scratch = prepare::scratch(&state_dir)?;
    let certificates_in = if args.out.is_some() { &state_dir } else { scratch.path() };
    let departed = Departed::read(&state_dir, &inventory)?;
    let orphans = departed.hosts(args.prune);
    let wish = Wish {
        source,
        chosen,
        orphans: &orphans,
        state_dir: &state_dir,
        certificates_in,
        lock: None,
        force_unlock: false,
        rollback: args.rollback,
    };
    let prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let mut prepared = prepared.fit(&wish, args.allow_unreachable)?;
    let diffs = match args.no_diff {
        true => BTreeMap::new(),
        false => diffs(&mut prepared, args.diff),
    };
    let limited = args.choice.is_limited();
    let added = match limited {
        true => Ok(Vec::new()),
        false => addons::plan(&mut prepared, departed.known.addons),
    };
    let added = added.unwrap_or_else(|why| {
        console.note(&format!("warning: what would become of the addons cannot be told: {why}"));
        Vec::new()
    });
    let key = match limited {
        true => Ok(None),
        false => network_key::plan(&mut prepared),
    };
    let key = key.unwrap_or_else(|why| {
        console.note(&format!("warning: what is in etcd of the network cannot be told: {why}"));
        None
    });
    let removals = args.prune.then(|| departed.removals(&prepared));
    let removes = removals.as_ref().is_some_and(|removals| !removals.is_empty());
    let changes = !prepared.plan.is_empty()
        || removes
        || !prepared.joins.is_empty()
        || !added.is_empty()
        || key.is_some();
    if let Some(out) = &args.out {
        members::none_join(&prepared.joins, Exit::Failed)?;
        members::write_down(&prepared.births, &state_dir)?;
        save(out, source, &state_dir, &prepared, surroundings)?;
    }
    let unreachable = prepared.left_out(&wish.chosen);
    let value = serde_json::json!({
        "changes": changes,
        "plan": prepared.plan,
        "diffs": diffs,
        "certificates": prepared.pki.issued,
        "etcd": prepared.joins,
        "addons": added,
        "network_key": key,
        "unreachable": unreachable,
        "departed": departed.names(),
        "removals": removals,
        "saved": args.out,
    });
    console.result(&value, || {
        let mut text = issued(&prepared.pki);
        text.push_str(&members::shown(&prepared.joins));
        text.push_str(&plan::summary(&prepared.plan, &diffs));
        text.push_str(&plan::rollout_summary(&prepared.plan));
        if let Some(change) = key {
            text.push_str(&format!("{}\n", change.line()));
        }
        for change in &added {
            text.push_str(&format!("{}\n", change.line()));
        }
        for hook in prepared.inventory.hooks.iter().filter(|_| !prepared.plan.is_empty()) {
            text.push_str(&format!("hook {}: {}\n", hook.name, hook.when()));
        }
        for problem in &unreachable {
            text.push_str(&format!("{}: left out, {}\n", problem.host, problem.message));
        }
        for removal in removals.iter().flatten() {
            text.push_str(&removal.text());
        }
        if !changes {
            text.push_str("nothing to do\n");
        }
        text
    })?;
    if !args.prune {
        departed.note(console);
    }
    if let Some(out) = &args.out {
        console.note(&format!("the plan is in {}: kprov apply {0}", out.display()));
    }
    Ok(match (changes && args.exit_code, unreachable.is_empty()) {
        (true, _) => Exit::Changes,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Unreached,
    })
}

fn save(
    out: &Path,
    source: &Source,
    state_dir: &Path,
    prepared: &Prepared,
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    let place = place(source, state_dir)
        .map_err(|error| Failure::new(&error, "check the inventory's and the state directory"))?;
    let (plan, hooks) = (prepared.plan.clone(), &prepared.inventory.hooks);
    let saved = SavedPlan {
        made: jiff::Timestamp::now().to_string(),
        by: surroundings.person.clone(),
        ..SavedPlan::new(plan, &prepared.desired, &prepared.facts, place, hooks, &prepared.addons)
    };
    saved.write(out).map_err(|error| refused(&error))
}

fn place(source: &Source, state_dir: &Path) -> std::io::Result<PlanSource> {
    let absolute = |path: &Path| -> std::io::Result<PathBuf> { std::path::absolute(path) };
    Ok(PlanSource {
        inventory: absolute(&source.inventory)?,
        state_dir: absolute(state_dir)?,
        templates: source.templates.as_deref().map(absolute).transpose()?,
        local: source.local,
    })
}

/// The certificates that an apply makes, and why.
fn issued(pki: &Pki) -> String {
    if pki.issued.is_empty() {
        return String::new();
    }
    let mut out = "certificates:\n".to_owned();
    for Issued { id, reason } in &pki.issued {
        out.push_str(&format!("  ~ {id} ({reason})\n"));
    }
    out
}

/// A plan that is not carried out, with the exit code of its reason.
pub(super) fn refused(error: &SavedPlanError) -> Failure {
    let exit = match error {
        SavedPlanError::File { .. } => Exit::Failed,
        SavedPlanError::Damaged { .. }
        | SavedPlanError::Version { .. }
        | SavedPlanError::Cluster { .. } => Exit::ForeignPlan,
        SavedPlanError::Inputs(_) => Exit::InputsChanged,
        SavedPlanError::Drifted(_) => Exit::Drifted,
    };
    let message = crate::execute::chain(error);
    Failure::Coded { exit, message, advice: error.advice().to_owned() }
}

/// Shows a plan that was kept.
fn show(path: &Path, console: &Console) -> Result<Exit, Failure> {
    let saved = SavedPlan::read(path).map_err(|error| refused(&error))?;
    console.result(&saved, || {
        let mut text = format!(
            "plan for {}, made by {} at {}, from {}\n",
            saved.cluster,
            saved.by,
            saved.made,
            saved.source.inventory.display()
        );
        text.push_str(&plan::summary(&saved.plan, &BTreeMap::new()));
        text.push_str(&plan::rollout_summary(&saved.plan));
        for hook in &saved.hooks {
            text.push_str(&format!("hook {}: {}\n", hook.name, hook.when()));
        }
        text
    })
}

/// Reads the present texts of changed files, only from hosts that have any.
pub(super) fn diffs(prepared: &mut Prepared, whole: bool) -> BTreeMap<String, Vec<ContentDiff>> {
    let mut diffs = BTreeMap::new();
    for plan in prepared.plan.hosts.iter().filter(|plan| !plan.is_empty()) {
        let paths = plan.diffable();
        let Some(host) = prepared.hosts.get_mut(&plan.host) else { continue };
        let now = match paths.is_empty() {
            true => Ok(BTreeMap::new()),
            false => host.read(&paths),
        };
        match now {
            Ok(now) => {
                let state = prepared.desired.iter().find(|state| state.host == plan.host);
                let state = state.expect("a plan is made from desired states");
                let found = plan.diffs(state, &now, whole);
                if !found.is_empty() {
                    diffs.insert(plan.host.clone(), found);
                }
            }
            Err(error) => tracing::warn!(host = plan.host, %error, "cannot show differences"),
        }
    }
    diffs
}
