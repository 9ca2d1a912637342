//! `kprov diff`: whether hosts and addons are as they should be, for a timer to ask.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::output::{Console, Failure};
use super::plan::diffs;
use super::prepare::{self, Prepared, Wish};
use super::prune::Departed;
use super::{DiffArgs, Exit, Surroundings, addons, network_key};
use crate::addons::reconcile::AddonChange;
use crate::etcd::network_key::KeyChange;
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

/// What is found about the addons: the objects that differ, or why that cannot be told.
type Addons = Result<Vec<AddonChange>, String>;

/// What is found about the network's key in etcd: how it differs, or why that cannot be told.
type Key = Result<Option<KeyChange>, String>;

pub(super) fn run(
    args: &DiffArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    match judge(args, surroundings, console) {
        Ok(exit) if !args.exit_code && exit == DRIFT => Ok(Exit::Ok),
        Ok(exit) => Ok(exit),
        // 2 says that hosts or addons differ, and nothing else.
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
    let were = Departed::read(&state_dir, &inventory)?.known.addons;
    let wish = Wish::to_look(source, chosen, &state_dir, scratch.path());
    let mut prepared = prepare::gather(&wish, surroundings, console, inventory)?;
    let texts = match args.no_diff {
        true => BTreeMap::new(),
        false => diffs(&mut prepared, false),
    };
    // Of some hosts only, addons are no part: an apply of those leaves them out as well.
    let addons = match args.choice.is_limited() {
        true => Ok(Vec::new()),
        false => addons::plan(&mut prepared, were),
    };
    let key = match args.choice.is_limited() {
        true => Ok(None),
        false => network_key::plan(&mut prepared),
    };
    let findings = findings(&prepared, &wish.chosen, &texts);
    let exit = exit(&findings, &key, &addons);
    let tally = Tally::of(&findings);
    let value = serde_json::json!({
        "clean": exit == Exit::Ok,
        "drifted": tally.drifted,
        "not_judged": tally.away,
        "hosts": findings,
        "network_key": key.as_ref().ok(),
        "network_key_not_judged": key.as_ref().err(),
        "addons": addons.as_deref().unwrap_or_default(),
        "addons_not_judged": addons.as_ref().err(),
    });
    console.result(&value, || text(&findings, &key, &addons))?;
    Ok(exit)
}

/// How many hosts are not as they should be.
struct Tally {
    drifted: usize,
    /// Those that could not be judged.
    away: usize,
}

impl Tally {
    fn of(findings: &BTreeMap<&str, Finding<'_>>) -> Self {
        let count =
            |wanted: fn(&Finding<'_>) -> bool| findings.values().filter(|f| wanted(f)).count();
        Self {
            drifted: count(|f| matches!(f, Finding::Drift { .. })),
            away: count(|f| matches!(f, Finding::Unfit { .. } | Finding::Unreachable { .. })),
        }
    }
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

/// What `diff` says of differing hosts and addons; the code of a bad inventory, which it tells as 1.
const DRIFT: Exit = Exit::BadInventory;

/// 0 clean, 2 drift, 3 not all could be judged.
fn exit(findings: &BTreeMap<&str, Finding<'_>>, key: &Key, addons: &Addons) -> Exit {
    let Tally { drifted, away } = Tally::of(findings);
    match (key, addons) {
        (Ok(key), Ok(changes)) if away == 0 => {
            match drifted == 0 && key.is_none() && changes.is_empty() {
                true => Exit::Ok,
                false => DRIFT,
            }
        }
        _ => Exit::Unfit,
    }
}

fn text(findings: &BTreeMap<&str, Finding<'_>>, key: &Key, addons: &Addons) -> String {
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
    match key {
        Ok(None) => {}
        Ok(Some(change)) => out.push_str(&format!("etcd: drift\n  {}\n", change.line())),
        Err(why) => out.push_str(&format!("etcd: not judged: {why}\n")),
    }
    match addons {
        Ok(changes) if changes.is_empty() => {}
        Ok(changes) => {
            out.push_str("addons: drift\n");
            changes.iter().for_each(|change| out.push_str(&format!("  {}\n", change.line())));
        }
        Err(why) => out.push_str(&format!("addons: not judged: {why}\n")),
    }
    let Tally { drifted, away } = Tally::of(findings);
    let mut sums = Vec::new();
    if (drifted, away) != (0, 0) {
        sums.push(format!("{drifted} of {} hosts differ", findings.len()));
    }
    if matches!(key, Ok(Some(_))) {
        sums.push("1 key of etcd differs".to_owned());
    }
    match addons.as_ref().map_or(0, Vec::len) {
        0 => {}
        1 => sums.push("1 object of addons differs".to_owned()),
        several => sums.push(format!("{several} objects of addons differ")),
    }
    if away != 0 {
        sums.push(format!("{away} could not be judged"));
    }
    if key.is_err() {
        sums.push("etcd could not be judged".to_owned());
    }
    if addons.is_err() {
        sums.push("addons could not be judged".to_owned());
    }
    match sums.is_empty() {
        true => out.push_str("no drift\n"),
        false => out.push_str(&format!("{}\n", sums.join(", "))),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addons::reconcile::Act;

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
        let none = Ok(Vec::new());
        let mut findings: BTreeMap<&str, Finding<'_>> = [("n1", Finding::Clean)].into();
        assert_eq!(exit(&findings, &Ok(None), &none) as u8, 0);
        assert_eq!(text(&findings, &Ok(None), &none), "n1: clean\nno drift\n");
        findings.insert("n2", drift());
        assert_eq!(exit(&findings, &Ok(None), &none) as u8, 2);
        findings.insert("n3", Finding::Unreachable { reasons: vec![&dead] });
        assert_eq!(exit(&findings, &Ok(None), &none) as u8, 3);
        assert_eq!(
            text(&findings, &Ok(None), &none),
            "n1: clean\nn2: drift\n  ~ record of owned objects\nn3: unreachable: cannot connect\n\
             1 of 3 hosts differ, 1 could not be judged\n"
        );
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json["n2"]["state"], "drift");
        assert_eq!(json["n3"]["reasons"][0]["check"], "unreachable");
    }

    #[test]
    fn addons_that_differ_are_drift_and_those_that_cannot_be_asked_are_not_judged() {
        let change = |act, object: &str| AddonChange {
            addon: "dns".to_owned(),
            object: object.to_owned(),
            act,
        };
        let findings: BTreeMap<&str, Finding<'_>> = [("n1", Finding::Clean)].into();
        let one = Ok(vec![change(Act::Update, "Deployment kube-system/dns")]);
        assert_eq!(exit(&findings, &Ok(None), &one) as u8, 2);
        assert_eq!(
            text(&findings, &Ok(None), &one),
            "n1: clean\naddons: drift\n  ~ addon dns: Deployment kube-system/dns\n\
             1 object of addons differs\n"
        );
        let two = Ok(vec![change(Act::Create, "Namespace a"), change(Act::Delete, "Namespace b")]);
        assert_eq!(
            text(&findings, &Ok(None), &two),
            "n1: clean\naddons: drift\n  + addon dns: Namespace a\n  - addon dns: Namespace b\n\
             2 objects of addons differ\n"
        );
        let unknown = Err("no master was reached".to_owned());
        assert_eq!(exit(&findings, &Ok(None), &unknown) as u8, 3);
        assert_eq!(
            text(&findings, &Ok(None), &unknown),
            "n1: clean\naddons: not judged: no master was reached\naddons could not be judged\n"
        );
    }

    #[test]
    fn a_key_that_differs_is_drift_and_one_that_cannot_be_asked_for_is_not_judged() {
        let findings: BTreeMap<&str, Finding<'_>> = [("n1", Finding::Clean)].into();
        let (differs, none) = (Ok(Some(KeyChange::Update)), Ok(Vec::new()));
        assert_eq!(exit(&findings, &differs, &none) as u8, 2);
        assert_eq!(
            text(&findings, &differs, &none),
            "n1: clean\netcd: drift\n  ~ etcd: key /k8s/network/config\n1 key of etcd differs\n"
        );
        let unknown = Err("no member of etcd was reached".to_owned());
        assert_eq!(exit(&findings, &unknown, &none) as u8, 3);
        assert_eq!(
            text(&findings, &unknown, &none),
            "n1: clean\netcd: not judged: no member of etcd was reached\n\
             etcd could not be judged\n"
        );
    }
}
