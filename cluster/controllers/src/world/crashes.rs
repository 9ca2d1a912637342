//! P48: controllers that die at any of their calls, and start anew, end where controllers end that
//! do not. Each controller has a case in which it does all of its work, beside all the others.

#![expect(clippy::print_stdout, reason = "a test report names how many crashes were tried")]

mod cases;
mod end_state;
mod houses;
mod policies;

use std::collections::BTreeSet;

use super::*;

/// A small history in which some controllers do all of their work.
struct Case {
    name: &'static str,
    /// The controllers that it is for, and what shows that they did their work: parts of lines of
    /// the log, in this order, separated by `|`; or behind `=`, a part of the end.
    proofs: &'static [(&'static str, &'static str)],
    nodes: usize,
    /// How many seconds it goes on.
    lasts: u64,
    /// What others do at the beginning of each second.
    script: fn(&mut World, u64),
}

/// How a case ended.
struct Run {
    /// What runs have in common, one text an object.
    end: Vec<String>,
    calls: usize,
    log: Vec<String>,
}

fn run(case: &Case, crash: Option<Crash>) -> Run {
    let mut world = World::new(1, case.nodes, 0);
    world.crash = crash;
    for second in 0..case.lasts {
        (case.script)(&mut world, second);
        world.run_secs(1);
    }
    world.settle();
    let log = world.log.iter().chain(&world.events).cloned().collect();
    Run { end: end_state::of(&world), calls: world.calls, log }
}

/// Whether the parts stand in lines of the log, in this order.
fn shows(log: &[String], parts: &str) -> bool {
    let mut lines = log.iter();
    parts.split('|').all(|part| lines.any(|line| line.contains(part)))
}

/// What only one of the two has.
fn difference(ours: &[String], theirs: &[String]) -> Vec<String> {
    let beyond = |sign: &str, a: &[String], b: &[String]| -> Vec<String> {
        let mut b = b.to_vec();
        let missing = a.iter().filter(|text| match b.iter().position(|other| other == *text) {
            Some(at) => {
                b.swap_remove(at);
                false
            }
            None => true,
        });
        missing.map(|text| format!("{sign} {text}")).collect()
    };
    [beyond("-", theirs, ours), beyond("+", ours, theirs)].concat()
}

fn check(case: &Case) {
    let undisturbed = run(case, None);
    for (controller, proof) in case.proofs {
        let shown = match proof.strip_prefix('=') {
            Some(part) => undisturbed.end.iter().any(|text| text.contains(part)),
            None => shows(&undisturbed.log, proof),
        };
        let log = undisturbed.log.join("\n");
        let end = undisturbed.end.join("\n");
        assert!(shown, "{}: {controller} does not show {proof:?}:\n{log}\n{end}", case.name);
    }
    let mut points = 0;
    for call in 1..=undisturbed.calls {
        for crash in [Crash::Before(call), Crash::After(call)] {
            let end = run(case, Some(crash));
            let differs = difference(&end.end, &undisturbed.end);
            assert!(
                differs.is_empty(),
                "{}, {crash:?}:\n{}\n{}",
                case.name,
                differs.join("\n"),
                end.log.join("\n")
            );
            points += 1;
        }
    }
    println!("{}: {points} crash points", case.name);
    assert!(points >= 2 * case.proofs.len(), "{}: {points}", case.name);
}

macro_rules! cases {
    ($( $test:ident $case:path ),* $(,)?) => {
        $(#[test]
        fn $test() {
            check(&$case);
        })*

        const CASES: &[&Case] = &[$(&$case),*];
    };
}

cases! {
    rollouts cases::ROLLOUTS,
    scalings cases::SCALINGS,
    replication_controllers cases::REPLICATION,
    daemon_sets cases::DAEMONS,
    jobs_that_end cases::JOBS,
    jobs_that_fail cases::FAILING_JOBS,
    failure_policies policies::FAILURE_POLICIES,
    index_limits policies::INDEX_LIMITS,
    success_policies policies::SUCCESS_POLICIES,
    cron_jobs cases::CRON_JOBS,
    autoscalers cases::AUTOSCALERS,
    stateful_sets cases::STATEFUL_SETS,
    parallel_stateful_sets policies::PARALLEL_SETS,
    daemon_sets_that_surge policies::SURGES,
    daemon_sets_that_wait_for_people policies::ON_DELETE,
    ephemeral_volumes cases::EPHEMERAL_VOLUMES,
    owners cases::OWNERS,
    budgets cases::BUDGETS,
    lost_nodes cases::LOST_NODES,
    namespaces houses::NAMESPACES,
    quotas houses::QUOTAS,
    aggregated_roles houses::ROLES,
    leases houses::LEASES,
    bootstrap_tokens houses::TOKENS,
    mirrored_endpoints houses::MIRRORS,
    certificates houses::CERTIFICATES,
    account_tokens houses::ACCOUNTS,
}

/// Waits for a year before each of its writes; a plan of it is one write, which depends on nothing
/// but what is there, so that there is nothing half done to come back to.
const BY_THE_YEAR: &str = "legacy-service-account-token-cleaner";

#[test]
fn every_controller_has_a_case() {
    let tested = CASES.iter().flat_map(|case| case.proofs).map(|(controller, _)| *controller);
    let tested: BTreeSet<&str> = tested.chain([BY_THE_YEAR]).collect();
    let there: BTreeSet<&str> = controllers().depths().map(|(name, _)| name).collect();
    assert_eq!(tested, there);
}

/// Whether it would be noticed if the ends differed.
#[test]
fn ends_that_differ_are_told_apart() {
    let end = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    assert_eq!(difference(&end(&["a", "b"]), &end(&["b", "a"])), [] as [&str; 0]);
    assert_eq!(difference(&end(&["a", "a"]), &end(&["a", "b"])), ["- b", "+ a"]);
    let with = |replicas: i64| {
        let mut world = World::new(1, 1, 0);
        world.run_secs(5);
        let key = tests::deployment(&mut world, 2, json!(1), json!(1));
        world.edit(&key, |v| v["spec"]["replicas"] = replicas.into());
        world.settle();
        end_state::of(&world)
    };
    assert_eq!(with(2), with(2));
    assert!(!difference(&with(2), &with(3)).is_empty());
}
