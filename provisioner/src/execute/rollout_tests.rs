//! Batches of nodes, canaries, gates that must pass several times, hooks.

use super::tests::{all_desired, execution, machines};
use super::*;
use crate::facts::{FactsQuery, LockRequest};
use crate::host::CommandEnd;
use crate::host::fake::FakeMachine;
use crate::inventory::{BatchSize, HookPlace, Rollout};
use crate::plan;
use crate::state::Content;

/// Ten nodes at work, the first of them a master.
struct Case {
    machines: Vec<FakeMachine>,
    hooks: Vec<Hook>,
    rollout: Rollout,
    nodes: Vec<HttpsEndpoint>,
    allow_unreachable: bool,
    gate: Duration,
    drain: bool,
}

fn desired(version: &str) -> Vec<HostState> {
    let mut desired = all_desired(10, "1");
    for state in &mut desired {
        let kubelet = state.files.iter_mut().find(|file| file.path == "/etc/kubernetes/kubelet");
        kubelet.unwrap().content = Content::Text(format!("kubelet {version}"));
    }
    for state in desired.iter_mut().skip(1) {
        state.units.retain(|unit| unit.stage == Stage::Node);
    }
    desired
}

impl Case {
    fn new() -> Self {
        let rollout = Rollout { batch: BatchSize::Percent(30), canary: 1, passes: 2 };
        let (machines, hooks, nodes) = (machines(10), Vec::new(), Vec::new());
        let gate = Duration::from_secs(60);
        let (allow_unreachable, drain) = (false, false);
        let case = Self { machines, hooks, rollout, nodes, allow_unreachable, gate, drain };
        let report = case.apply("1");
        assert!(report.is_success(), "{report:?}");
        case
    }

    fn apply(&self, version: &str) -> Report {
        let desired = desired(version);
        let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
        let lock = LockRequest { owner: "test".to_owned() };
        for (machine, state) in self.machines.iter().zip(&desired) {
            let mut host = machine.connect();
            let query = FactsQuery::for_state(state);
            facts.insert(state.host.clone(), host.facts(&query, Some(&lock)).unwrap());
            hosts.insert(state.host.clone(), host);
        }
        let plan = plan::plan(&desired, &facts).rolled(&self.rollout);
        let stop = AtomicBool::new(false);
        let all = execution(&desired, &plan, &stop);
        let (passes, gate) = (self.rollout.passes, self.gate);
        let allow_unreachable = self.allow_unreachable;
        let limits = Limits { passes, gate, allow_unreachable, ..all.limits };
        let (hooks, nodes) = ((&self.hooks[..], "lab"), &self.nodes[..]);
        Execution { limits, hooks, nodes, drain: self.drain, ..all }.run(&mut hosts)
    }

    fn starts(&self, number: usize) -> u64 {
        self.machines[number - 1].state().starts["kubelet.service"]
    }
}

fn hook(name: &str, moment: HookMoment, phase: Phase, on: HookPlace, command: &str) -> Hook {
    Hook {
        name: name.to_owned(),
        moment,
        phase,
        on,
        hosts: BTreeSet::new(),
        command: command.to_owned(),
        timeout: Duration::from_secs(30),
    }
}

#[test]
fn nodes_at_work_change_as_a_canary_and_then_in_batches() {
    let case = Case::new();
    let report = case.apply("2");
    assert!(report.is_success(), "{report:?}");
    let waves: Vec<_> = report.phases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        waves,
        [
            "send",
            "host on n1 (canary)",
            "node on n1 (canary)",
            "host on 3 hosts (batch 1 of 3)",
            "node on 3 hosts (batch 1 of 3)",
            "host on 3 hosts (batch 2 of 3)",
            "node on 3 hosts (batch 2 of 3)",
            "host on 3 hosts (batch 3 of 3)",
            "node on 3 hosts (batch 3 of 3)",
        ]
    );
    assert!((1..=10).all(|number| case.starts(number) == 2));
}

#[test]
fn a_bad_canary_stops_the_rollout_and_says_what_is_done_and_what_is_not() {
    let case = Case::new();
    case.machines[0].state().failing.insert("start kubelet.service".to_owned());
    let report = case.apply("2");
    let split = report.split();
    assert_eq!((split.done, split.failed), (Vec::<&str>::new(), vec!["n1"]));
    assert_eq!(split.not_begun.len(), 9);
    assert!((2..=10).all(|number| case.starts(number) == 1));
}

#[test]
fn a_failure_in_a_batch_stops_those_after_it() {
    let case = Case::new();
    case.machines[4].state().failing.insert("start kubelet.service".to_owned());
    let report = case.apply("2");
    let split = report.split();
    // The canary, then n2 to n4, then n5 to n7 at the same time; n8 to n10 wait.
    assert_eq!(split.done, ["n1", "n2", "n3", "n4", "n6", "n7"]);
    assert_eq!((split.failed, split.not_begun), (vec!["n5"], vec!["n10", "n8", "n9"]));
    let error = report.hosts["n8"].error.as_ref().unwrap().to_string();
    assert_eq!(error, "not reached: n5 failed, so that no further node at work is changed");
}

#[test]
fn a_gate_must_pass_several_times_in_a_row() {
    let mut case = Case::new();
    // Each look at a dead unit makes the count start anew: the sixth look is the second good one.
    let looks = |looks: &[bool]| {
        let looks = looks.iter().copied().collect();
        case.machines[0].state().looks.insert("kubelet.service".to_owned(), looks);
    };
    looks(&[true, false, true, false, true]);
    let report = case.apply("2");
    assert!(report.is_success(), "{report:?}");
    assert!(case.machines[0].state().looks["kubelet.service"].is_empty());
    looks(&[false; 9]);
    case.gate = Duration::ZERO;
    let report = case.apply("3");
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert!(error.contains("kubelet.service is not healthy"), "{error}");
    assert!(error.contains("systemd calls it activating"), "{error}");
}

#[test]
fn a_node_that_the_cluster_calls_unready_stops_the_rollout() {
    let mut case = Case::new();
    case.nodes = vec![HttpsEndpoint {
        address: "10.0.0.1".to_owned(),
        port: 6443,
        path: "/api/v1/nodes".to_owned(),
        ca: String::new(),
        client: None,
    }];
    let node = |name: &str, ready: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[
                {{"type":"Ready","status":"{ready}","message":"no network"}}]}}}}"#
        )
    };
    let list = |ready: &dyn Fn(usize) -> &'static str| {
        let items: Vec<_> = (1..=10).map(|n| node(&format!("n{n}"), ready(n))).collect();
        format!(r#"{{"items":[{}]}}"#, items.join(","))
    };
    let machines = case.machines.clone();
    let answer = |text: String| {
        for machine in &machines {
            let at = "10.0.0.1:6443/api/v1/nodes".to_owned();
            machine.state().answers.insert(at, text.clone());
        }
    };
    answer(list(&|_| "True"));
    assert!(case.apply("2").is_success());
    answer(list(&|n| if n == 1 { "False" } else { "True" }));
    // Long enough for the unit's own gate, whose answers are at hand.
    case.gate = Duration::from_secs(2);
    let report = case.apply("3");
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert!(error.contains("the node n1 is not healthy") && error.contains("no network"));
    assert!((2..=10).all(|number| case.starts(number) == 2));
}

/// A case whose nodes are drained, and that all answer as nodes that a run has cordoned.
fn draining() -> Case {
    let mut case = Case::new();
    case.drain = true;
    case.nodes = vec![HttpsEndpoint {
        address: "10.0.0.1".to_owned(),
        port: 6443,
        path: "/api/v1/nodes".to_owned(),
        ca: String::new(),
        client: None,
    }];
    let node = |number: usize| {
        format!(
            r#"{{"metadata":{{"name":"n{number}","annotations":{{"kprov.io/cordoned-by-run":"true"}}}},
                "status":{{"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        )
    };
    let all = (1..=10).map(node).collect::<Vec<_>>().join(",");
    for machine in &case.machines {
        let mut state = machine.state();
        let nodes = "10.0.0.1:6443/api/v1/nodes".to_owned();
        for number in 1..=10 {
            state.answers.insert(format!("{nodes}/n{number}"), node(number));
            let pods = format!("10.0.0.1:6443/api/v1/pods?fieldSelector=spec.nodeName%3Dn{number}");
            state.answers.insert(pods, "{}".to_owned());
        }
        state.answers.insert(nodes, format!(r#"{{"items":[{all}]}}"#));
    }
    case
}

#[test]
fn drained_nodes_are_cordoned_before_their_turn_and_uncordoned_after_it() {
    let case = draining();
    assert!(case.apply("2").is_success());
    let sent = case.machines[4].state().sent.clone();
    let unschedulable = |sent: &String| sent.contains("\"unschedulable\":true");
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert!(sent.iter().all(|sent| sent.starts_with("PATCH 10.0.0.1:6443/api/v1/nodes/n5 ")));
    assert!(unschedulable(&sent[0]) && unschedulable(&sent[1]) && !unschedulable(&sent[2]));
    // Nobody drains where nothing restarts.
    assert!(case.apply("2").is_success());
    assert_eq!(case.machines[4].state().sent.len(), 3);
}

#[test]
fn a_node_that_cannot_be_drained_is_left_as_it_was_and_stops_the_rollout() {
    let case = draining();
    let pods = "10.0.0.1:6443/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned();
    case.machines[0].state().unhealthy.insert(pods, 500);
    let report = case.apply("2");
    let error = report.hosts["n1"].error.as_ref().unwrap();
    assert!(
        error.to_string().starts_with("the node was not drained, and is as it was: "),
        "{error}"
    );
    assert!(error.advice().contains("leave --drain out"));
    assert!((1..=10).all(|number| case.starts(number) == 1));
    let last = case.machines[0].state().sent.last().cloned().unwrap();
    assert!(last.contains("\"unschedulable\":null"), "{last}");
}

#[test]
fn hooks_run_around_their_phases_and_only_when_there_is_something_to_do() {
    use HookMoment::{After, Before};
    use HookPlace::{Hosts, Operator};
    let mut case = Case::new();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("said");
    let say = |what: &str| {
        format!("echo {what} $KPROV_CLUSTER $KPROV_PHASE $KPROV_HOSTS >>{}", file.display())
    };
    case.hooks = vec![
        hook("first", Before, Phase::Apply, Operator, &say("first")),
        hook("etcd", Before, Phase::Etcd, Operator, &say("etcd")),
        hook("on hosts", Before, Phase::Node, Hosts, "drain-me"),
        hook("last", After, Phase::Apply, Operator, &say("last")),
    ];
    assert!(case.apply("1").is_success());
    assert!(!file.exists(), "nothing was to do");
    assert!(case.apply("2").is_success());
    let text = std::fs::read_to_string(&file).unwrap();
    let all = "n1 n10 n2 n3 n4 n5 n6 n7 n8 n9";
    assert_eq!(text, format!("first lab apply {all}\nlast lab apply {all}\n"));
    for machine in &case.machines {
        assert_eq!(machine.state().commands, ["drain-me"]);
    }
    // Chosen hosts only.
    case.hooks.truncate(3);
    case.hooks[2].hosts = ["n3".to_owned()].into();
    assert!(case.apply("3").is_success());
    let counts: Vec<_> = case.machines.iter().map(|m| m.state().commands.len()).collect();
    assert_eq!(counts, [1, 1, 2, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_hook_that_fails_or_hangs_is_named_and_ends_the_run() {
    let mut case = Case::new();
    let (before, node) = (HookMoment::Before, Phase::Node);
    case.hooks = vec![hook("gate keeper", before, node, HookPlace::Operator, "echo no; exit 9")];
    let report = case.apply("2");
    assert_eq!(
        report.hook_failure.as_deref(),
        Some("the hook gate keeper failed on operator (exit code 9)\n    | no")
    );
    assert!(!report.is_success() && report.split().not_begun.len() == 10, "{report:?}");
    case.hooks = vec![hook("sleeper", before, node, HookPlace::Operator, "sleep 600")];
    case.hooks[0].timeout = Duration::from_millis(100);
    let failure = case.apply("2").hook_failure.unwrap();
    assert!(
        failure.starts_with("the hook sleeper on operator was killed: it ran longer than 0."),
        "{failure}"
    );
    case.hooks = vec![hook("remote", before, node, HookPlace::Hosts, "hang")];
    let end = CommandEnd { code: None, output: "begun".to_owned() };
    case.machines[6].state().command_ends.insert("hang".to_owned(), end);
    let failure = case.apply("2").hook_failure.unwrap();
    assert_eq!(failure, "the hook remote on n7 was killed: it ran longer than 30 s\n    | begun");
    assert!((1..=10).all(|number| case.starts(number) == 1));
}

#[test]
fn a_lost_node_stops_nothing_where_that_is_allowed() {
    let mut case = Case::new();
    let lose = |machine: &FakeMachine| {
        // After the facts, on the way to the first step.
        machine.state().cut_after = Some(1);
    };
    lose(&case.machines[4]);
    let report = case.apply("2");
    assert!(!report.is_success() && !report.split().not_begun.is_empty(), "{report:?}");
    case.machines[4].state().cut_after = None;
    case.allow_unreachable = true;
    lose(&case.machines[4]);
    let report = case.apply("3");
    assert!(!report.is_success() && report.is_success_but_for_lost(), "{report:?}");
    assert_eq!(report.split().done.len(), 9);
    // A master is another matter: it is the only member of etcd.
    case.machines[4].state().cut_after = None;
    lose(&case.machines[0]);
    let report = case.apply("4");
    assert!(!report.is_success_but_for_lost(), "{report:?}");
}
