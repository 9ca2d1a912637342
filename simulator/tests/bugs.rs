//! The corpus of known bugs: each scenario is right without its bug and is found to be wrong with
//! it. That is how the checks are checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use simulator::bug::Bug;
use simulator::outcome::Outcome;
use simulator::plan::Plan;
use simulator::scenario::Scenario;
use simulator::world::{Phase, World};

/// The bugs with the properties that find each, and its row in the catalogue of regressions, if it
/// has one there.
const CORPUS: [(Bug, &[&str], Option<u16>); 53] = [
    (Bug::AnyListAccepted, &["P36"], Some(1)),
    (Bug::NoReadYourWrites, &["P29", "P30"], Some(2)),
    (Bug::RecreationUnnoticed, &["P28"], Some(5)),
    (Bug::StaleEndpointsCompared, &["P42"], Some(6)),
    (Bug::AbsenceBelieved, &["P40"], Some(10)),
    (Bug::CollisionUnresolved, &["P33", "P34"], Some(13)),
    (Bug::NoZoneThreshold, &["P43"], Some(15)),
    (Bug::SilenceOfAllBelieved, &["P43"], Some(16)),
    (Bug::LostRenewalIgnored, &["P46"], Some(19)),
    (Bug::SeveralActiveSchedulers, &["P8"], Some(20)),
    (Bug::UnknownBindingForgotten, &["P8"], Some(21)),
    (Bug::StaleFeasibility, &["P10"], Some(22)),
    (Bug::EventLostInCycle, &["P25"], Some(27)),
    (Bug::RetriesBlockQueue, &["P23"], Some(28)),
    (Bug::UnknownCreationAwaited, &["P28"], Some(32)),
    (Bug::DeletionUnobserved, &["P28"], Some(38)),
    (Bug::JobPodsDoubled, &["P38"], Some(3)),
    (Bug::DaemonPodsDoubled, &["P37"], Some(4)),
    (Bug::BudgetOverwritten, &["P44"], Some(7)),
    (Bug::EarlierPodForgotten, &["P28"], Some(12)),
    (Bug::ParallelismUnlimited, &["P38"], Some(34)),
    (Bug::CountOfThisLife, &["P27"], Some(36)),
    (Bug::AllowanceNotSpent, &["P44"], Some(8)),
    (Bug::NodeTimeBelieved, &["P32"], Some(18)),
    (Bug::PromisesOfOthersUnknown, &["P24"], Some(24)),
    (Bug::HeldBackForGood, &["P22"], Some(25)),
    (Bug::EndingPodsCounted, &["P15"], Some(30)),
    (Bug::StaleServerTrusted, &["P5"], Some(31)),
    (Bug::BindingUncompared, &["P9"], Some(21)),
    (Bug::LabelsRemembered, &["P11"], Some(22)),
    (Bug::SymmetryForgotten, &["P12"], None),
    (Bug::EndedPodsCounted, &["P13"], None),
    (Bug::PortsForgotten, &["P14"], None),
    (Bug::GroupsUnknown, &["P16"], None),
    (Bug::PolicyIgnored, &["P17"], None),
    (Bug::PromisesForgotten, &["P18"], None),
    (Bug::EndsUnobserved, &["P19"], Some(38)),
    (Bug::RankingsOutlive, &["P20"], Some(22)),
    (Bug::VolumesTakenForFree, &["P57"], None),
    (Bug::RanksReversed, &["P31"], None),
    (Bug::ScaledToTheFull, &["P35"], None),
    (Bug::CronJobsDoubled, &["P39"], None),
    (Bug::OwnersUnseen, &["P41"], None),
    (Bug::SurgeCounted, &["P45"], Some(14)),
    (Bug::ChargesForgotten, &["P55"], None),
    (Bug::LimitRangesUnseen, &["P56"], None),
    (Bug::KeptFromStart, &["P58"], None),
    (Bug::WatchRewound, &["P1"], None),
    (Bug::DeletionsUntold, &["P2", "P4"], None),
    (Bug::UpdatesUncompared, &["P3"], None),
    (Bug::UidsReused, &["P6"], None),
    (Bug::FinalizersIgnored, &["P7"], None),
    (Bug::EndsForgotten, &["P54"], None),
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
        let begins = row.map_or("# No row: ".to_owned(), |row| format!("# Row {row}, "));
        assert!(text.starts_with(&begins), "{} does not begin with {begins:?}", path.display());
    }
}

#[test]
fn the_guide_lists_each_bug_once() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulating.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let (_, table) = guide.split_once("| bug | found by | row |\n|---|---|---|\n").unwrap();
    let listed: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let mut expected: Vec<String> = CORPUS
        .iter()
        .map(|(bug, properties, row)| {
            let row = row.map(|row| row.to_string()).unwrap_or_default();
            format!("| `{}` | {} | {row} |", name(*bug), properties.join(", "))
        })
        .collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
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
    binding_uncompared BindingUncompared,
    labels_remembered LabelsRemembered,
    symmetry_forgotten SymmetryForgotten,
    ended_pods_counted EndedPodsCounted,
    ports_forgotten PortsForgotten,
    groups_unknown GroupsUnknown,
    policy_ignored PolicyIgnored,
    promises_forgotten PromisesForgotten,
    ends_unobserved EndsUnobserved,
    rankings_outlive RankingsOutlive,
    volumes_taken_for_free VolumesTakenForFree,
    ranks_reversed RanksReversed,
    scaled_to_the_full ScaledToTheFull,
    cron_jobs_doubled CronJobsDoubled,
    owners_unseen OwnersUnseen,
    surge_counted SurgeCounted,
    charges_forgotten ChargesForgotten,
    limit_ranges_unseen LimitRangesUnseen,
    kept_from_start KeptFromStart,
    watch_rewound WatchRewound,
    deletions_untold DeletionsUntold,
    updates_uncompared UpdatesUncompared,
    uids_reused UidsReused,
    finalizers_ignored FinalizersIgnored,
    ends_forgotten EndsForgotten,
}
