//! The samples of traces, decided twice: what the scheduler does for them in whole runs is what its
//! plain way of deciding says, pod by pod.

use std::path::{Path, PathBuf};

use simulator::check::{Cluster, Role};
use simulator::plan::{Operation, Plan, SchedulerSettings};
use simulator::scenario::Scenario;
use simulator::trace;
use simulator::world::World;

/// The samples, by format.
const SAMPLES: [(&str, &[&str]); 3] = [
    ("openb", &["openb-pods.csv", "openb-nodes.csv"]),
    (
        "borg",
        &["borg-instance-events.csv", "borg-collection-events.csv", "borg-machine-events.csv"],
    ),
    ("azure", &["azure-vm.csv", "azure-vm-type.csv"]),
];

/// What `ksim import` makes of a sample.
fn imported(files: &[&str], seed: u64) -> Plan {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let import = trace::import(&files, false).unwrap_or_else(|error| panic!("{error}"));
    let scenario = Scenario::parse(Path::new("trace.toml"), &import.text)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
    scenario.expand(seed).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Ways in which a scheduler can be configured that weigh nodes, and stop looking, differently.
fn schedulers() -> [SchedulerSettings; 3] {
    [
        SchedulerSettings::default(),
        SchedulerSettings {
            fit_strategy: Some("MostAllocated".to_owned()),
            percentage_of_nodes_to_score: Some(30),
            ..SchedulerSettings::default()
        },
        SchedulerSettings {
            // Without scores all nodes that can take a pod are equally good: chance decides.
            disabled: ["NodeResourcesBalancedAllocation", "ImageLocality"]
                .map(str::to_owned)
                .into(),
            weights: [("NodeResourcesFit".to_owned(), 1)].into(),
            ..SchedulerSettings::default()
        },
    ]
}

fn pods(plan: &Plan) -> u64 {
    let pods = |operation: &Operation| matches!(operation, Operation::CreatePod { .. });
    let count = plan.operations.iter().filter(|planned| pods(&planned.operation)).count();
    u64::try_from(count).expect("so many fit")
}

/// What a run came to.
#[derive(Debug, Default)]
struct Seen {
    compared: u64,
    /// Samples in which pods had no node.
    waited: usize,
    displaced: u64,
}

/// Runs a plan, which compares every decision in clusters of this size, and tells what came of it.
fn run(plan: Plan, name: &str) -> Seen {
    let mut world = World::new(plan).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
    world.run();
    let mut seen = Seen::default();
    for process in world.processes().filter(|p| Cluster::role(&world, *p) == Role::Scheduler) {
        let (compared, differences) =
            Cluster::compared(&world, process).expect("decisions are compared");
        assert_eq!(differences, [], "{name}");
        seen.compared += compared;
    }
    assert_eq!((world.violations(), world.gave_up()), (&[][..], None), "{name}");
    let outcome = world.outcome();
    seen.waited = outcome.samples.iter().filter(|sample| sample.pending > 0).count();
    seen.displaced = outcome.pods_evicted;
    seen
}

/// Each sample on the nodes that it has, or a hundred, and on so few of them that pods wait and
/// displace others, which is when every node has a reason to be told.
#[test]
fn both_ways_of_deciding_agree_on_the_samples() {
    let (mut waited, mut displaced) = (0, 0);
    for (format, files) in SAMPLES {
        for (index, scheduler) in schedulers().into_iter().enumerate() {
            for kept in [usize::MAX, 2] {
                let mut plan = imported(files, 1);
                let expected = pods(&plan);
                assert!(expected > 0, "{format} has no pods");
                if kept < plan.nodes.len() {
                    plan.nodes.truncate(kept);
                    // They may be those of nodes that are not there any more.
                    plan.faults.clear();
                }
                plan.settings.scheduler = scheduler.clone();
                let name = format!("{format} on {} nodes, scheduler {index}", plan.nodes.len());
                let seen = run(plan, &name);
                assert!(seen.compared >= expected, "{name}: {seen:?} of {expected} pods");
                waited += seen.waited;
                displaced += seen.displaced;
            }
        }
    }
    assert!(waited > 0 && displaced > 0, "no decision was one to refuse a pod");
}
