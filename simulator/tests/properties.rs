//! Properties of whole runs on random small clusters: nothing breaks, everything repeats, and
//! duplicates, crashes and gaps do not change where a cluster ends.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use simulator::bug::Bug;
use simulator::end_state;
use simulator::outcome::Outcome as SimulatedOutcome;
use simulator::plan::{
    Budget, Component, Direction, Fault, NodeShape, Operation, Outcome, Plan, PlannedFault,
    PlannedNode, PlannedOperation, PodTemplate, Settings, Target,
};
use simulator::scenario::Scenario;
use simulator::shrink::{Bounds, shrink, violates};
use simulator::span::Span;
use simulator::timeline::Timeline;
use simulator::world::{GaveUp, Phase, World};

/// Templates by index: two images that run for ever, one that takes a while to be ready, one that
/// fills half a node, and one that ends.
const LASTING: u32 = 3;
const LARGE: u32 = 3;
const ENDING: u32 = 4;

fn templates() -> Vec<PodTemplate> {
    let template = |image: &str| PodTemplate { image: image.to_owned(), ..PodTemplate::default() };
    vec![
        template("app:1"),
        template("app:2"),
        PodTemplate { ready_after: Span::secs(2), ..template("slow:1") },
        PodTemplate { cpu_milli: 2_000, ..template("large:1") },
        PodTemplate {
            runs: Some(Span::secs(20)),
            restart_policy: "Never".to_owned(),
            ..template("job:1")
        },
    ]
}

/// What is made at the beginning.
#[derive(Clone, Copy, Debug)]
enum Made {
    Deployment,
    ReplicaSet,
    Pod,
    StatefulSet { parallel: bool },
    DaemonSet { surge: bool },
    Job { indexed: bool },
}

/// What becomes of it later.
#[derive(Clone, Copy, Debug)]
enum Change {
    Scale(u32),
    Roll(u32),
    Delete { foreground: bool },
}

/// One workload: what, of which template, how many, and what becomes of it when.
type Workload = (Made, u32, u32, Vec<(u64, Change)>);

fn workload(templates: u32) -> impl Strategy<Value = Workload> {
    let made = prop_oneof![
        3 => Just(Made::Deployment),
        1 => Just(Made::ReplicaSet),
        1 => Just(Made::Pod),
        2 => any::<bool>().prop_map(|parallel| Made::StatefulSet { parallel }),
        2 => any::<bool>().prop_map(|surge| Made::DaemonSet { surge }),
        2 => any::<bool>().prop_map(|indexed| Made::Job { indexed }),
    ];
    let change = prop_oneof![
        3 => (0_u32..7).prop_map(Change::Scale),
        3 => (0_u32..LASTING).prop_map(Change::Roll),
        1 => any::<bool>().prop_map(|foreground| Change::Delete { foreground }),
    ];
    (made, 0..templates, 0_u32..6, vec((30_u64..110, change), 0..4))
}

/// What users do with one workload.
fn operations(index: usize, workload: &Workload) -> Vec<PlannedOperation> {
    let (made, template, replicas, changes) = workload;
    let name = format!("w{index}");
    let at = |secs: u64, operation: Operation| PlannedOperation { at: Span::secs(secs), operation };
    // What a controller makes again and again does not end by itself.
    let kept = (*template).min(LARGE);
    let (target, create) = match made {
        Made::Deployment => (
            Target::Deployment,
            Operation::CreateDeployment {
                name: name.clone(),
                template: kept,
                replicas: *replicas,
                max_surge: "25%".to_owned(),
                max_unavailable: "25%".to_owned(),
            },
        ),
        Made::ReplicaSet => (
            Target::ReplicaSet,
            Operation::CreateReplicaSet { name: name.clone(), template: kept, replicas: *replicas },
        ),
        Made::Pod => (
            Target::Pod,
            Operation::CreatePod { name: name.clone(), template: *template, runs: None },
        ),
        Made::StatefulSet { parallel } => (
            Target::StatefulSet,
            Operation::CreateStatefulSet {
                name: name.clone(),
                template: kept,
                replicas: *replicas,
                parallel: *parallel,
                partition: 0,
            },
        ),
        Made::DaemonSet { surge } => {
            let [one, none] = ["1", "0"].map(str::to_owned);
            let (max_surge, max_unavailable) = if *surge { (one, none) } else { (none, one) };
            let name = name.clone();
            let operation =
                Operation::CreateDaemonSet { name, template: kept, max_surge, max_unavailable };
            (Target::DaemonSet, operation)
        }
        Made::Job { indexed } => (
            Target::Job,
            Operation::CreateJob {
                name: name.clone(),
                template: ENDING,
                completions: Some(*replicas),
                parallelism: 1 + *replicas / 2,
                indexed: *indexed,
                backoff_limit: 3,
                ttl_seconds: None,
            },
        ),
    };
    let service = Operation::CreateService { name: name.clone(), app: name.clone() };
    let mut all = vec![at(15, create), at(16, service)];
    let mut changes = changes.clone();
    changes.sort_by_key(|(secs, _)| *secs);
    for (secs, change) in changes {
        let operation = match (change, target) {
            (Change::Scale(_), Target::Pod | Target::DaemonSet | Target::Job) => continue,
            (Change::Roll(_), Target::Pod | Target::ReplicaSet | Target::Job) => continue,
            (Change::Scale(replicas), _) => {
                Operation::Scale { target, name: name.clone(), replicas }
            }
            (Change::Roll(template), _) => {
                Operation::SetTemplate { target: Target::Deployment, name: name.clone(), template }
            }
            (Change::Delete { foreground }, _) => {
                Operation::Delete { target, name: name.clone(), orphan: false, foreground }
            }
        };
        let last = matches!(operation, Operation::Delete { .. });
        all.push(at(secs, operation));
        if last {
            break;
        }
    }
    all
}

/// A cluster of one to four nodes with one to three workloads of the first templates.
fn clusters(of_templates: u32) -> impl Strategy<Value = Plan> {
    let processes = (1_u16..3, 1_u16..3, 1_u16..3);
    let parts =
        (any::<u32>(), 1_usize..5, processes, vec(workload(of_templates), 1..4), any::<bool>());
    parts.prop_map(|(seed, nodes, (servers, schedulers, managers), workloads, lazy_heartbeats)| {
        let node = |i| PlannedNode { name: format!("n{i}"), shape: 0, joins: Span::ZERO };
        let mut plan = Plan {
            name: "properties".to_owned(),
            seed: u64::from(seed),
            settings: Settings {
                safety: Span::secs(150),
                settle: Span::secs(1_800),
                // Controllers wait up to 300 s before they try again.
                quiet: Span::secs(310),
                api_servers: servers,
                schedulers,
                controller_managers: managers,
                lazy_heartbeats,
                hash_contents: true,
                ..Settings::default()
            },
            shapes: vec![NodeShape { cpu_milli: 4_000, ..NodeShape::default() }],
            nodes: (0..nodes).map(node).collect(),
            templates: templates(),
            operations: workloads.iter().enumerate().flat_map(|(i, w)| operations(i, w)).collect(),
            faults: Vec::new(),
        };
        plan.sort();
        plan
    })
}

/// Bugs whose blunders remember something, and those that are settings.
const BUGS: [Bug; 28] = [
    Bug::AnyListAccepted,
    Bug::NoReadYourWrites,
    Bug::RecreationUnnoticed,
    Bug::StaleEndpointsCompared,
    Bug::AbsenceBelieved,
    Bug::CollisionUnresolved,
    Bug::NoZoneThreshold,
    Bug::SilenceOfAllBelieved,
    Bug::LostRenewalIgnored,
    Bug::SeveralActiveSchedulers,
    Bug::UnknownBindingForgotten,
    Bug::StaleFeasibility,
    Bug::EventLostInCycle,
    Bug::RetriesBlockQueue,
    Bug::UnknownCreationAwaited,
    Bug::DeletionUnobserved,
    Bug::JobPodsDoubled,
    Bug::DaemonPodsDoubled,
    Bug::BudgetOverwritten,
    Bug::EarlierPodForgotten,
    Bug::ParallelismUnlimited,
    Bug::CountOfThisLife,
    Bug::AllowanceNotSpent,
    Bug::NodeTimeBelieved,
    Bug::PromisesOfOthersUnknown,
    Bug::HeldBackForGood,
    Bug::EndingPodsCounted,
    Bug::StaleServerTrusted,
];

/// A process of the plan.
fn component(plan: &Plan, which: Index) -> Component {
    let settings = &plan.settings;
    let schedulers = (0..settings.schedulers).map(Component::Scheduler);
    let managers = (0..settings.controller_managers).map(Component::ControllerManager);
    let kubelets = plan.nodes.iter().map(|n| Component::Kubelet(n.name.clone()));
    let all: Vec<Component> = schedulers.chain(managers).chain(kubelets).collect();
    which.get(&all).clone()
}

/// What may go wrong in a plan. The process, the node and the server are chosen by `which`.
fn fault(plan: &Plan, kind: u8, which: Index, amount: u8) -> Fault {
    let component = component(plan, which);
    let node = which.get(&plan.nodes).name.clone();
    let api_server =
        u16::try_from(which.index(usize::from(plan.settings.api_servers))).expect("few servers");
    let amount_secs = Span::secs(1 + u64::from(amount % 8));
    match kind {
        0 => Fault::HostCrash { node },
        1 => Fault::Crash { component },
        2 => Fault::CrashAtCall { component, call: 1 + u32::from(amount % 8) },
        3 => Fault::Pause { component },
        4 => Fault::Partition { component, api_server: None, direction: Direction::Both },
        5 => Fault::Partition { component, api_server: None, direction: Direction::FromServer },
        6 => Fault::CallTimeout { component, percent: 30, outcome: Outcome::CarriedOut },
        7 => Fault::CallTimeout { component, percent: 30, outcome: Outcome::CarriedOutLate },
        8 => Fault::Duplicate { component, api_server: None, percent: 50 },
        9 => Fault::WatchStall { component },
        10 => Fault::WatchGap { component },
        11 => Fault::WatchExpired { component },
        12 => Fault::LaggingServer { api_server, lag: amount_secs },
        13 => Fault::StoreDown,
        14 => Fault::ConflictStorm { target: Target::Pod, period: amount_secs },
        15 => Fault::RuntimeErrors { node, percent: 30 },
        16 => Fault::ClockSkew { component, ahead: amount_secs },
        _ => Fault::SlowDisk { node, factor: 2 + u32::from(amount % 8) },
    }
}

/// A budget for the pods of the first workload, and the drain of a node.
fn drain(plan: &mut Plan, which: Index, begins: u64, lasts: u64) {
    let (name, app) = ("w0".to_owned(), "w0".to_owned());
    let min_available = Some("1".to_owned());
    let budget = Box::new(Budget { name, app, min_available, max_unavailable: None });
    let node = which.get(&plan.nodes).name.clone();
    let at = |secs: u64, operation: Operation| PlannedOperation { at: Span::secs(secs), operation };
    plan.operations.extend([
        at(16, Operation::CreateBudget(budget)),
        at(begins, Operation::Drain { node: node.clone(), timeout: Span::secs(lasts) }),
        at(begins + lasts, Operation::Cordon { node, unschedulable: false }),
    ]);
}

/// A cluster with up to three faults.
fn faulty() -> impl Strategy<Value = Plan> {
    let one = (0_u8..18, any::<Index>(), any::<u8>(), 5_u64..120, 1_u64..60);
    let drained = prop::option::of((any::<Index>(), 20_u64..110, 1_u64..40));
    (clusters(ENDING + 1), vec(one, 0..4), drained).prop_map(|(mut plan, faults, drained)| {
        if let Some((which, begins, lasts)) = drained {
            drain(&mut plan, which, begins, lasts);
        }
        for (kind, which, amount, at, lasts) in faults {
            let fault = fault(&plan, kind, which, amount);
            let (at, lasts) = (Span::secs(at), Some(Span::secs(lasts)));
            plan.faults.push(PlannedFault { at, lasts, fault });
        }
        plan.sort();
        plan
    })
}

/// Runs the plan twice to rest, where it must have broken nothing, and where both runs must have
/// had the same effects (P51).
fn rested(plan: &Plan) -> Result<World, TestCaseError> {
    let run = || {
        let mut world = World::new(plan.clone()).expect("a plan that can be run");
        world.run();
        world
    };
    let (world, again) = (run(), run());
    prop_assert_eq!(world.effect_log_hash(), again.effect_log_hash());
    prop_assert_eq!(world.events(), again.events());
    prop_assert_eq!((world.phase(), world.gave_up()), (Phase::Rest, None));
    let found = world.violations();
    prop_assert!(found.is_empty(), "{found:#?}\n{}", Scenario::text_of_plan(plan));
    Ok(world)
}

/// With the faults the plan ends as without.
fn ends_alike(plan: &Plan, faults: Vec<PlannedFault>) -> Result<(), TestCaseError> {
    let mut struck = plan.clone();
    struck.faults = faults;
    struck.sort();
    let (calm, struck_world) = (rested(plan)?, rested(&struck)?);
    let text = Scenario::text_of_plan(&struck);
    prop_assert_eq!(end_state::of(&calm), end_state::of(&struck_world), "{}", text);
    Ok(())
}

/// All that can be told of a run: its outcome with hash, violations and samples, why it ended, and
/// the story line by line.
fn told(mut world: World) -> (SimulatedOutcome, Option<GaveUp>, Vec<String>) {
    let story = world.timeline().into_iter().flat_map(Timeline::lines).map(str::to_owned).collect();
    (world.outcome(), world.gave_up().cloned(), story)
}

/// The controller manager or the scheduler that acts first.
fn of_control_plane(manager: bool) -> Component {
    if manager { Component::ControllerManager(0) } else { Component::Scheduler(0) }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/properties.txt",
        ))),
        // Runs are long: a smaller plan is what `ksim` shrinks to.
        max_shrink_iters: 64,
        ..ProptestConfig::with_cases(cases)
    }
}

/// How many there are of what shrinking takes away, and how long the plan goes on.
fn size(plan: &Plan) -> [u64; 5] {
    let count = |n: usize| u64::try_from(n).expect("few");
    let replicas = |planned: &PlannedOperation| planned.operation.replicas().map_or(0, u64::from);
    [
        count(plan.faults.len()),
        count(plan.operations.len()),
        count(plan.nodes.len()),
        plan.operations.iter().map(replicas).sum(),
        plan.settings.safety.0,
    ]
}

/// Adds to a plan what brings [`Bug::NoReadYourWrites`] to light: a pod of a replica set goes
/// while what the controllers see is late.
fn with_bug(mut plan: Plan) -> Plan {
    plan.settings.bug = Some(Bug::NoReadYourWrites);
    // The controller manager asks one API server, which falls behind; the node that runs the pod
    // asks the other one. The further nodes come when all is over.
    plan.settings.api_servers = 2;
    plan.settings.schedulers = 1;
    plan.settings.controller_managers = 1;
    plan.nodes.iter_mut().skip(1).for_each(|node| node.joins = Span::secs(90));
    let template = u32::try_from(plan.templates.len()).expect("few templates");
    plan.templates.push(PodTemplate {
        grace_seconds: 5,
        labels: [("app".to_owned(), "bug".to_owned())].into(),
        ..PodTemplate::default()
    });
    let at = |secs: u64, operation: Operation| PlannedOperation { at: Span::secs(secs), operation };
    let (name, adopted) = ("bug".to_owned(), "adopted".to_owned());
    plan.operations.extend([
        at(20, Operation::CreatePod { name: adopted.clone(), template, runs: None }),
        at(25, Operation::CreateReplicaSet { name, template, replicas: 3 }),
        at(
            50,
            Operation::Delete {
                target: Target::Pod,
                name: adopted,
                orphan: false,
                foreground: false,
            },
        ),
    ]);
    plan.faults.push(PlannedFault {
        at: Span::secs(40),
        lasts: Some(Span::secs(40)),
        fault: Fault::LaggingServer { api_server: 1, lag: Span::secs(5) },
    });
    plan.sort();
    plan
}

proptest! {
    #![proptest_config(config(12))]

    /// No property is violated, whatever goes wrong, and a run repeats to the last effect (P51).
    #[test]
    fn nothing_breaks_and_everything_repeats(plan in faulty()) {
        rested(&plan)?;
    }

    /// P47: what is delivered twice changes nothing.
    #[test]
    fn duplicates_change_nothing(plan in clusters(LASTING)) {
        let every = (0..plan.settings.schedulers).map(Component::Scheduler)
            .chain((0..plan.settings.controller_managers).map(Component::ControllerManager))
            .chain(plan.nodes.iter().map(|n| Component::Kubelet(n.name.clone())));
        let twice = |component| Fault::Duplicate { component, api_server: None, percent: 100 };
        let faults = every.map(|c| PlannedFault { at: Span::ZERO, lasts: None, fault: twice(c) });
        ends_alike(&plan, faults.collect())?;
    }

    /// P48: after a crash at any call it ends as without.
    #[test]
    fn crashes_change_nothing(
        plan in clusters(LASTING),
        manager in any::<bool>(),
        at in 0_u64..110,
        call in 1_u32..40,
        lasts in 0_u64..30,
    ) {
        let fault = Fault::CrashAtCall { component: of_control_plane(manager), call };
        let (at, lasts) = (Span::secs(at), Some(Span::secs(lasts)));
        ends_alike(&plan, vec![PlannedFault { at, lasts, fault }])?;
    }

    /// P49: what is never seen, for something newer came in its place, changes nothing.
    #[test]
    fn gaps_change_nothing(
        plan in clusters(LASTING),
        manager in any::<bool>(),
        at in 0_u64..110,
        lasts in 1_u64..40,
    ) {
        let fault = Fault::WatchGap { component: of_control_plane(manager) };
        let (at, lasts) = (Span::secs(at), Some(Span::secs(lasts)));
        ends_alike(&plan, vec![PlannedFault { at, lasts, fault }])?;
    }
}

proptest! {
    #![proptest_config(config(16))]

    /// P52: a run that was split at a checkpoint goes on as one that was not, and so does the
    /// copy, whatever the other one does meanwhile.
    #[test]
    fn a_checkpoint_changes_nothing(
        plan in faulty(),
        bug in prop::option::weighted(0.5, prop::sample::select(&BUGS)),
        at in any::<Index>(),
    ) {
        let mut plan = plan;
        plan.settings.bug = bug;
        // Violations are no failure here: they must only be the same.
        let begun = |plan: &Plan| {
            let mut world = World::new(plan.clone()).expect("a plan that can be run");
            world.keep_timeline();
            world
        };
        let mut whole = begun(&plan);
        whole.run();
        let mut original = begun(&plan);
        let events = usize::try_from(whole.events()).expect("few events");
        for _ in 0..at.index(events) {
            original.step();
        }
        let mut copy = original.clone();
        // In turn, so that either would be disturbed by what they shared.
        while original.step() | copy.step() {}
        let (whole, original, copy) = (told(whole), told(original), told(copy));
        prop_assert_eq!(&original, &whole, "{}", Scenario::text_of_plan(&plan));
        prop_assert_eq!(&copy, &whole, "{}", Scenario::text_of_plan(&plan));
    }
}

proptest! {
    #![proptest_config(config(4))]

    /// P53: what is left after shrinking violates the same property, is no larger, and does so
    /// after it was written and read, too.
    #[test]
    fn shrinking_keeps_the_violation(plan in clusters(LASTING)) {
        const PROPERTY: &str = "P29";
        let plan = with_bug(plan);
        prop_assert!(violates(&plan, PROPERTY), "{}", Scenario::text_of_plan(&plan));
        let mut sizes = vec![size(&plan)];
        let shrunk = shrink(plan, PROPERTY, Bounds::runs(60), &mut |plan, _| sizes.push(size(plan)));
        let plan = shrunk.plan;
        sizes.push(size(&plan));
        for pair in sizes.windows(2) {
            prop_assert!(pair[1].iter().zip(pair[0]).all(|(new, old)| *new <= old), "{:?}", sizes);
        }
        prop_assert!(sizes.last() < sizes.first(), "nothing was taken away");
        prop_assert!(violates(&plan, PROPERTY));
        let read = Scenario::of_plan(&plan).expect("the text of a plan can be read");
        let read = read.expand(plan.seed).expect("what was a plan can be one again");
        prop_assert_eq!(&read, &plan);
        prop_assert!(violates(&read, PROPERTY));
        let hash = |plan: &Plan| {
            let mut world = World::new(plan.clone()).expect("a plan that can be run");
            world.run();
            world.effect_log_hash()
        };
        prop_assert_eq!(hash(&read), hash(&plan));
    }
}
