//! The checks on whole runs: a cluster that works breaks none of them, with faults and without.

use simulator::distribution::Distribution;
use simulator::plan::{
    Budget, Component, Direction, Fault, NodeShape, Operation, Outcome, Plan, PlannedFault,
    PlannedNode, PlannedOperation, PodTemplate, Settings, Target,
};
use simulator::span::Span;
use simulator::world::{Phase, World};

/// Three masters' worth of processes, five nodes in two zones, and what users do in ten minutes.
fn plan(seed: u64) -> Plan {
    let zone = |name: &str| NodeShape { zone: name.to_owned(), ..NodeShape::default() };
    let node = |i: u32| PlannedNode { name: format!("n{i}"), shape: i % 2, joins: Span::ZERO };
    let template = |image: &str, ready: u64| PodTemplate {
        image: image.to_owned(),
        cpu_milli: 700,
        ready_after: Span::secs(ready),
        ..PodTemplate::default()
    };
    let at = |secs: u64, operation: Operation| PlannedOperation { at: Span::secs(secs), operation };
    let deployment = |name: &str, replicas: u32| Operation::CreateDeployment {
        name: name.to_owned(),
        template: 0,
        replicas,
        max_surge: "25%".to_owned(),
        max_unavailable: "25%".to_owned(),
    };
    let scale = |target: Target, name: &str, replicas: u32| Operation::Scale {
        target,
        name: name.to_owned(),
        replicas,
    };
    let roll = |name: &str, template: u32| Operation::SetTemplate {
        target: Target::Deployment,
        name: name.to_owned(),
        template,
    };
    let pod = |name: &str, template: u32| Operation::CreatePod {
        name: name.to_owned(),
        template,
        runs: Some(Span::secs(40)),
    };
    let delete = |target: Target, name: &str, foreground: bool| Operation::Delete {
        target,
        name: name.to_owned(),
        orphan: false,
        foreground,
    };
    let once =
        PodTemplate { restart_policy: "Never".to_owned(), cpu_milli: 100, ..template("once", 0) };
    let small = |image: &str| PodTemplate { cpu_milli: 50, ..template(image, 1) };
    let port = PodTemplate { host_port: 8080, ..template("port", 0) };
    let mut plan = Plan {
        name: "checks".to_owned(),
        seed,
        settings: Settings {
            safety: Span::secs(900),
            quiet: Span::secs(310),
            settle: Span::secs(2_400),
            api_servers: 2,
            schedulers: 2,
            controller_managers: 2,
            ..Settings::default()
        },
        shapes: vec![zone("a"), zone("b")],
        nodes: (0..5).map(node).collect(),
        templates: vec![
            template("app:1", 2),
            template("app:2", 3),
            once.clone(),
            port,
            PodTemplate { runs: Some(Span::secs(15)), ..once },
            small("set:1"),
            small("set:2"),
        ],
        operations: vec![
            at(30, deployment("web", 8)),
            at(30, Operation::CreateService { name: "web".to_owned(), app: "web".to_owned() }),
            at(
                40,
                Operation::CreateReplicaSet { name: "set".to_owned(), template: 3, replicas: 3 },
            ),
            at(
                45,
                Operation::CreateReplicationController {
                    name: "rc".to_owned(),
                    template: 0,
                    replicas: 4,
                },
            ),
            at(50, pod("once", 2)),
            at(60, deployment("api", 5)),
            at(120, roll("web", 1)),
            at(150, scale(Target::Deployment, "web", 12)),
            at(200, roll("web", 0)),
            at(210, scale(Target::ReplicationController, "rc", 1)),
            at(230, Operation::Cordon { node: "n1".to_owned(), unschedulable: true }),
            at(240, scale(Target::ReplicaSet, "set", 5)),
            at(300, scale(Target::Deployment, "web", 4)),
            at(330, delete(Target::Deployment, "api", true)),
            at(360, Operation::Cordon { node: "n1".to_owned(), unschedulable: false }),
            at(380, delete(Target::Pod, "once", false)),
            at(400, pod("once", 2)),
            at(420, deployment("late", 50)),
            at(480, roll("late", 1)),
            at(500, delete(Target::ReplicationController, "rc", false)),
        ]
        .into_iter()
        .chain(of_other_kinds())
        .collect(),
        faults: Vec::new(),
    };
    plan.sort();
    plan
}

/// What users do with sets, jobs and budgets in that time.
fn of_other_kinds() -> impl Iterator<Item = PlannedOperation> {
    let text = str::to_owned;
    let roll = |target, name: &str, template| Operation::SetTemplate {
        target,
        name: text(name),
        template,
    };
    let job = |name: &str, indexed| Operation::CreateJob {
        name: text(name),
        template: 4,
        completions: Some(5),
        parallelism: 2,
        indexed,
        backoff_limit: 6,
        ttl_seconds: None,
    };
    let budget = Budget {
        name: text("web"),
        app: text("web"),
        min_available: Some(text("50%")),
        max_unavailable: None,
    };
    let set = |name: &str, parallel| Operation::CreateStatefulSet {
        name: text(name),
        template: 5,
        replicas: 3,
        parallel,
        partition: 0,
    };
    let daemons = |name: &str, max_surge: &str, max_unavailable: &str| {
        let (max_surge, max_unavailable) = (text(max_surge), text(max_unavailable));
        Operation::CreateDaemonSet { name: text(name), template: 5, max_surge, max_unavailable }
    };
    let (target, name) = (Target::StatefulSet, text("db"));
    let scale = Operation::Scale { target, name, replicas: 1 };
    let node = || text("n2");
    [
        (31, Operation::CreateBudget(Box::new(budget))),
        (35, set("db", false)),
        (36, set("cache", true)),
        (37, daemons("agent", "0", "1")),
        (38, daemons("proxy", "1", "0")),
        (55, job("work", false)),
        (56, job("parts", true)),
        (125, roll(Target::StatefulSet, "db", 6)),
        (130, roll(Target::DaemonSet, "agent", 6)),
        (140, roll(Target::DaemonSet, "proxy", 6)),
        (145, roll(Target::StatefulSet, "cache", 6)),
        (255, scale),
        (260, Operation::Drain { node: node(), timeout: Span::secs(60) }),
        (325, Operation::Cordon { node: node(), unschedulable: false }),
        (430, job("late", false)),
    ]
    .into_iter()
    .map(|(secs, operation)| PlannedOperation { at: Span::secs(secs), operation })
}

fn violations(plan: Plan) -> Vec<String> {
    let mut world = World::new(plan).expect("a plan that can be run");
    world.run();
    // Else the checks have not looked at the cluster at rest.
    assert_eq!((world.phase(), world.gave_up()), (Phase::Rest, None));
    let found = world.violations().iter();
    found.map(|v| format!("{} at {}: {}", v.property, v.at, v.message)).collect()
}

/// The fault strikes each of the processes one after the other, twice.
fn struck(faults: &[Fault]) -> Plan {
    let mut plan = plan(7);
    for (i, what) in faults.iter().enumerate() {
        let at = 100 + 37 * u64::try_from(i).expect("few faults");
        for (at, lasts) in [(at, 60), (at + 320, 45)] {
            plan.faults.push(PlannedFault {
                at: Span::secs(at),
                lasts: Some(Span::secs(lasts)),
                fault: what.clone(),
            });
        }
    }
    plan.sort();
    plan
}

/// No check finds anything when the faults strike.
fn check(name: &str, faults: &[Fault]) {
    assert_eq!(violations(struck(faults)), Vec::<String>::new(), "{name}");
}

/// The fault for one process of each role.
fn each(make: impl Fn(Component) -> Fault) -> Vec<Fault> {
    let kubelet = Component::Kubelet("n0".to_owned());
    [Component::ControllerManager(0), Component::Scheduler(0), kubelet].map(make).into()
}

#[test]
fn a_cluster_without_faults_breaks_nothing() {
    for seed in 1..4 {
        assert_eq!(violations(plan(seed)), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn processes_that_end_or_stop_break_nothing() {
    check("crash", &each(|component| Fault::Crash { component }));
    check("crash at call", &each(|component| Fault::CrashAtCall { component, call: 3 }));
    check("pause", &each(|component| Fault::Pause { component }));
}

#[test]
fn messages_that_get_lost_break_nothing() {
    for direction in [Direction::Both, Direction::ToServer, Direction::FromServer] {
        let partition = |component| Fault::Partition { component, api_server: None, direction };
        check(&format!("{direction:?}"), &each(partition));
    }
    let delay = |component| Fault::Delay {
        component,
        api_server: None,
        extra: Distribution::Uniform { min: Span::ZERO, max: Span::secs(3) },
    };
    check("delay", &each(delay));
    let loss = |component| Fault::Loss {
        component,
        api_server: None,
        direction: Direction::Both,
        percent: 30,
    };
    check("loss", &each(loss));
    let reorder = |component| Fault::Reorder {
        component,
        api_server: Some(0),
        percent: 60,
        by: Span::secs(4),
    };
    check("reorder", &each(reorder));
}

#[test]
fn clocks_that_are_wrong_break_nothing() {
    let ahead = |component| Fault::ClockSkew { component, ahead: Span::secs(20) };
    check("ahead", &each(ahead));
    let behind = |component| Fault::ClockBehind { component, behind: Span::secs(20) };
    check("behind", &each(behind));
}

#[test]
fn calls_without_answers_break_nothing() {
    use Outcome::{CarriedOut, CarriedOutLate, Lost, Refused};
    for outcome in [Lost, CarriedOut, CarriedOutLate, Refused] {
        let timeout = |component| Fault::CallTimeout { component, percent: 20, outcome };
        check(&format!("{outcome:?}"), &each(timeout));
    }
}

#[test]
fn watches_that_misbehave_break_nothing() {
    let duplicate = |component| Fault::Duplicate { component, api_server: None, percent: 50 };
    check("duplicates", &each(duplicate));
    check("stall", &each(|component| Fault::WatchStall { component }));
    check("gap", &each(|component| Fault::WatchGap { component }));
    check("expired", &each(|component| Fault::WatchExpired { component }));
    check("break", &each(|component| Fault::WatchBreak { component }));
    let coalescing = |component| Fault::WatchCoalescing { component, period: Span::secs(2) };
    check("coalescing", &each(coalescing));
    check("stale", &[Fault::StaleReads { api_server: 0, lag: Span::secs(5) }]);
    check("lag", &[Fault::LaggingServer { api_server: 0, lag: Span::secs(5) }]);
}

#[test]
fn hosts_and_stores_that_fail_break_nothing() {
    let node = || "n0".to_owned();
    check("store", &[Fault::StoreDown]);
    check("storm", &[Fault::ConflictStorm { target: Target::Pod, period: Span::secs(1) }]);
    check("host", &[Fault::HostCrash { node: node() }]);
    check("runtime", &[Fault::RuntimeErrors { node: node(), percent: 30 }]);
    check("runtime down", &[Fault::RuntimeDown { node: node() }]);
    check("disk", &[Fault::SlowDisk { node: node(), factor: 20 }]);
}
