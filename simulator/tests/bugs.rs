//! The corpus of known bugs: each scenario is right without its bug and is found to be wrong with
//! it. That is how the checks are checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use simulator::bug::Bug;
use simulator::outcome::Outcome;
use simulator::plan::Plan;
use simulator::scenario::Scenario;
use simulator::world::{Phase, World};

/// The bugs with the properties that find each, and its row in the catalogue of regressions.
const CORPUS: [(Bug, &[&str], u16); 28] = [
    (Bug::AnyListAccepted, &["P36"], 1),
    (Bug::NoReadYourWrites, &["P29"], 2),
    (Bug::RecreationUnnoticed, &["P28"], 5),
    (Bug::StaleEndpointsCompared, &["P42"], 6),
    (Bug::AbsenceBelieved, &["P40"], 10),
    (Bug::CollisionUnresolved, &["P33", "P34"], 13),
    (Bug::NoZoneThreshold, &["P43"], 15),
    (Bug::SilenceOfAllBelieved, &["P43"], 16),
    (Bug::LostRenewalIgnored, &["P46"], 19),
    (Bug::SeveralActiveSchedulers, &["P8"], 20),
    (Bug::UnknownBindingForgotten, &["P8"], 21),
    (Bug::StaleFeasibility, &["P10"], 22),
    (Bug::EventLostInCycle, &["P25"], 27),
    (Bug::RetriesBlockQueue, &["P23"], 28),
    (Bug::UnknownCreationAwaited, &["P28"], 32),
    (Bug::DeletionUnobserved, &["P28"], 38),
    (Bug::JobPodsDoubled, &["P38"], 3),
    (Bug::DaemonPodsDoubled, &["P37"], 4),
    (Bug::BudgetOverwritten, &["P44"], 7),
    (Bug::EarlierPodForgotten, &["P28"], 12),
    (Bug::ParallelismUnlimited, &["P38"], 34),
    (Bug::CountOfThisLife, &["P27"], 36),
    (Bug::AllowanceNotSpent, &["P44"], 8),
    (Bug::NodeTimeBelieved, &["P32"], 18),
    (Bug::PromisesOfOthersUnknown, &["P8"], 24),
    (Bug::HeldBackForGood, &["P22"], 25),
    (Bug::EndingPodsCounted, &["P15"], 30),
    (Bug::StaleServerTrusted, &["P5"], 31),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/bugs")
}

/// How scenarios call the bug.
fn name(bug: Bug) -> String {
    let name = serde_json::to_value(bug).expect("a word");
    name.as_str().expect("a word").to_owned()
}

fn plan(bug: Bug) -> Plan {
    let path = folder().join(format!("{}.toml", name(bug)));
    let scenario = Scenario::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let plan = scenario.expand(scenario.seed.unwrap_or(1));
    let plan = plan.unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(plan.settings.bug, Some(bug), "{} puts another bug back", path.display());
    plan
}

/// Runs the plan, with or without its bug.
fn run(mut plan: Plan, bug: Option<Bug>) -> (Outcome, String) {
    plan.settings.bug = bug;
    plan.settings.hash_contents = true;
    let mut world = World::new(plan).expect("a plan that can be run");
    world.keep_timeline();
    world.run();
    let at_rest = world.phase() == Phase::Rest && world.gave_up().is_none();
    let lines: Vec<&str> = world.timeline().expect("it was kept").lines().collect();
    let end = lines.len().saturating_sub(400);
    let timeline = lines[end..].join("\n");
    let outcome = world.outcome();
    assert!(bug.is_some() || at_rest, "the run was given up:\n{timeline}");
    (outcome, timeline)
}

fn check(bug: Bug) {
    let (_, properties, _) = CORPUS.iter().find(|(b, ..)| *b == bug).expect("all are listed");
    let plan = plan(bug);

    let (right, timeline) = run(plan.clone(), None);
    assert!(right.violations.is_empty(), "without the bug: {:#?}\n{timeline}", right.violations);
    assert!(right.settled_after.is_some(), "without the bug it does not come to rest\n{timeline}");

    let (wrong, timeline) = run(plan.clone(), Some(bug));
    let found: BTreeSet<&str> = wrong.violations.iter().map(|v| v.property.as_str()).collect();
    let missed: Vec<&&str> = properties.iter().filter(|p| !found.contains(*p)).collect();
    assert!(missed.is_empty(), "{missed:?} are not found, but {found:?}\n{timeline}");

    for (bug, before) in [(None, right), (Some(bug), wrong)] {
        let (again, _) = run(plan.clone(), bug);
        assert_eq!(again.effect_log_hash, before.effect_log_hash);
        assert_eq!(again, before);
    }
}

#[test]
fn the_list_is_what_is_there() {
    let listed: BTreeSet<String> = CORPUS.iter().map(|(bug, ..)| name(*bug)).collect();
    let entries = std::fs::read_dir(folder()).unwrap();
    let there: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, there);
    assert_eq!(listed.len(), CORPUS.len());
}

#[test]
fn each_scenario_says_whose_bug_it_was() {
    for (bug, _, row) in CORPUS {
        let path = folder().join(format!("{}.toml", name(bug)));
        let text = std::fs::read_to_string(&path).unwrap();
        let begins = format!("# Row {row}, ");
        assert!(text.starts_with(&begins), "{} does not begin with {begins:?}", path.display());
    }
}

macro_rules! corpus {
    ($( $test:ident $bug:ident ),* $(,)?) => {
        $(#[test]
        fn $test() {
            check(Bug::$bug);
        })*

        #[test]
        fn every_bug_is_tested() {
            let tested = [$(Bug::$bug),*];
            assert_eq!(tested, CORPUS.map(|(bug, ..)| bug));
        }
    };
}

corpus! {
    any_list_accepted AnyListAccepted,
    no_read_your_writes NoReadYourWrites,
    recreation_unnoticed RecreationUnnoticed,
    stale_endpoints_compared StaleEndpointsCompared,
    absence_believed AbsenceBelieved,
    collision_unresolved CollisionUnresolved,
    no_zone_threshold NoZoneThreshold,
    silence_of_all_believed SilenceOfAllBelieved,
    lost_renewal_ignored LostRenewalIgnored,
    several_active_schedulers SeveralActiveSchedulers,
    unknown_binding_forgotten UnknownBindingForgotten,
    stale_feasibility StaleFeasibility,
    event_lost_in_cycle EventLostInCycle,
    retries_block_queue RetriesBlockQueue,
    unknown_creation_awaited UnknownCreationAwaited,
    deletion_unobserved DeletionUnobserved,
    job_pods_doubled JobPodsDoubled,
    daemon_pods_doubled DaemonPodsDoubled,
    budget_overwritten BudgetOverwritten,
    earlier_pod_forgotten EarlierPodForgotten,
    parallelism_unlimited ParallelismUnlimited,
    count_of_this_life CountOfThisLife,
    allowance_not_spent AllowanceNotSpent,
    node_time_believed NodeTimeBelieved,
    promises_of_others_unknown PromisesOfOthersUnknown,
    held_back_for_good HeldBackForGood,
    ending_pods_counted EndingPodsCounted,
    stale_server_trusted StaleServerTrusted,
}
