//! `kprov diff`: whether hosts are as they should be, for a timer to ask.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::output::{Console, Failure};
use super::plan::diffs;
use super::prepare::{self, Prepared, Wish};
use super::{DiffArgs, Exit, Surroundings};
use crate::plan::{Change, ContentDiff, change_line};
use crate::preflight::Problem;

/// What is found about one host.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Finding<'a> {
    /// It is as it should be.
    Clean,
    /// It differs.
    Drift { reasons: Vec<String>, changes: &'a [Change], diffs: Option<&'a Vec<ContentDiff>> },
    /// It answers, and cannot be judged or worked on.
    Unfit { reasons: Vec<&'a Problem> },
    /// It does not answer.
    Unreachable { reasons: Vec<&'a Problem> },
}

pub(super) fn run(
    args: &DiffArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    match judge(args, surroundings, console) {
        Ok(exit) if !args.exit_code && exit == DRIFT => Ok(Exit::Ok),
        Ok(exit) => Ok(exit),
        // 2 says that hosts differ, and nothing else.
        Err(failure) => match console.failure(&failure) {
            Exit::BadInventory => Ok(Exit::Failed),
            exit => Ok(exit),
        },
    }
}

fn judge(args: &DiffArgs, surroundings: &Surroundings, console: &Console) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = prepare::inventory(source, console)?;
    let chosen = args.choice.choose(&inventory)?;
    let state_dir = prepare::state_dir(source, &inventory);
    let scratch = prepare::scratch(&state_dir)?;
    let wish = Wish::to_look(source, chosen, &state_dir, scratch.path());
    let mut prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let texts = match args.no_diff {
        true => BTreeMap::new(),
        false => diffs(&mut prepared, false),
    };
    let findings = findings(&prepared, &wish.chosen, &texts);
    let exit = exit(&findings);
    let count = |wanted: fn(&Finding<'_>) -> bool| findings.values().filter(|f| wanted(f)).count();
    let drifted = count(|f| matches!(f, Finding::Drift { .. }));
    let away = count(|f| matches!(f, Finding::Unfit { .. } | Finding::Unreachable { .. }));
    let value = serde_json::json!({
        "clean": exit == Exit::Ok,
        "drifted": drifted,
        "not_judged": away,
        "hosts": findings,
    });
    console.result(&value, || text(&findings, drifted, away))?;
    Ok(exit)
}

fn findings<'a>(
    prepared: &'a Prepared,
    chosen: &BTreeSet<String>,
    texts: &'a BTreeMap<String, Vec<ContentDiff>>,
) -> BTreeMap<&'a str, Finding<'a>> {
    let mut findings: BTreeMap<&str, Finding<'_>> = BTreeMap::new();
    for plan in &prepared.plan.hosts {
        let finding = match plan.is_empty() {
            true => Finding::Clean,
            false => Finding::Drift {
                reasons: plan.changes.iter().map(change_line).collect(),
                changes: &plan.changes,
                diffs: texts.get(&plan.host),
            },
        };
        findings.insert(&plan.host, finding);
    }
    for planned in &prepared.joins {
        let joins = || Finding::Drift { reasons: Vec::new(), changes: &[], diffs: None };
        let host = prepared.inventory.hosts.iter().find(|host| planned.change.host() == host.name);
        let Some(host) = host.filter(|host| chosen.contains(&host.name)) else { continue };
        let finding = findings.entry(&host.name).or_insert_with(joins);
        if matches!(finding, Finding::Clean) {
            *finding = joins();
        }
        if let Finding::Drift { reasons, .. } = finding {
            reasons.push(format!("~ etcd: {}", planned.change));
        }
    }
    for problem in prepared.unfit.iter().filter(|problem| chosen.contains(&problem.host)) {
        match findings.get_mut(problem.host.as_str()) {
            Some(Finding::Unfit { reasons }) => reasons.push(problem),
            // A host that differs is told as such; why it could not be repaired is an apply's
            // business. One whose facts are missing cannot be judged.
            Some(Finding::Drift { .. }) => {}
            _ => {
                let unfit = Finding::Unfit { reasons: vec![problem] };
                _ = findings.insert(&problem.host, unfit);
            }
        }
    }
    for problem in prepared.unreachable.iter().filter(|problem| chosen.contains(&problem.host)) {
        findings.insert(&problem.host, Finding::Unreachable { reasons: vec![problem] });
    }
    findings
}

/// What `diff` says of differing hosts; the code of a bad inventory, which it tells as 1.
const DRIFT: Exit = Exit::BadInventory;

/// 0 clean, 2 drift, 3 not all hosts could be judged.
fn exit(findings: &BTreeMap<&str, Finding<'_>>) -> Exit {
    let any = |wanted: fn(&Finding<'_>) -> bool| findings.values().any(wanted);
    if any(|f| matches!(f, Finding::Unreachable { .. } | Finding::Unfit { .. })) {
        Exit::Unfit
    } else if any(|f| matches!(f, Finding::Drift { .. })) {
        DRIFT
    } else {
        Exit::Ok
    }
}

fn text(findings: &BTreeMap<&str, Finding<'_>>, drifted: usize, away: usize) -> String {
    let mut out = String::new();
    for (host, finding) in findings {
        match finding {
            Finding::Clean => out.push_str(&format!("{host}: clean\n")),
            Finding::Drift { reasons, changes, diffs } => {
                out.push_str(&format!("{host}: drift\n"));
                // Reasons without a change are of etcd's members.
                for (at, reason) in reasons.iter().enumerate() {
                    out.push_str(&format!("  {reason}\n"));
                    let Some(Change::File { path, .. }) = changes.get(at) else { continue };
                    let diff = diffs.iter().flat_map(|diffs| diffs.iter());
                    for diff in diff.filter(|diff| diff.path == *path) {
                        diff.diff.lines().for_each(|l| out.push_str(&format!("      {l}\n")));
                    }
                }
            }
            Finding::Unfit { reasons } | Finding::Unreachable { reasons } => {
                let word = match finding {
                    Finding::Unreachable { .. } => "unreachable",
                    _ => "not judged",
                };
                for problem in reasons {
                    out.push_str(&format!("{host}: {word}: {}\n", problem.message));
                }
            }
        }
    }
    match (drifted, away) {
        (0, 0) => out.push_str("no drift\n"),
        (drifted, 0) => out.push_str(&format!("{drifted} of {} hosts differ\n", findings.len())),
        (drifted, away) => out.push_str(&format!(
            "{drifted} of {} hosts differ, {away} could not be judged\n",
            findings.len()
        )),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(host: &str, check: &'static str) -> Problem {
        let (host, message) = (host.to_owned(), "cannot connect".to_owned());
        Problem { host, check, message, advice: String::new() }
    }

    #[test]
    fn the_exit_code_and_the_text_tell_the_worst_and_all_of_it() {
        let dead = problem("n3", "unreachable");
        let changes = [Change::Record];
        let drift = || Finding::Drift {
            reasons: changes.iter().map(change_line).collect(),
            changes: &changes,
            diffs: None,
        };
        let mut findings: BTreeMap<&str, Finding<'_>> = [("n1", Finding::Clean)].into();
        assert_eq!(exit(&findings) as u8, 0);
        assert_eq!(text(&findings, 0, 0), "n1: clean\nno drift\n");
        findings.insert("n2", drift());
        assert_eq!(exit(&findings) as u8, 2);
        findings.insert("n3", Finding::Unreachable { reasons: vec![&dead] });
        assert_eq!(exit(&findings) as u8, 3);
        assert_eq!(
            text(&findings, 1, 1),
            "n1: clean\nn2: drift\n  ~ record of owned objects\nn3: unreachable: cannot connect\n\
             1 of 3 hosts differ, 1 could not be judged\n"
        );
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json["n2"]["state"], "drift");
        assert_eq!(json["n3"]["reasons"][0]["check"], "unreachable");
    }
}
