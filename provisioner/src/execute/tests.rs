use super::*;
use crate::facts::{Facts, FactsQuery, LockRequest, PathFact};
use crate::host::fake::FakeMachine;
use crate::inventory::Rollout;
use crate::plan::{self, Change};
use crate::state::{Content, DirectoryState, FileState, Gate, LinkState, Mode, Owner, UnitState};
use proptest::prelude::*;

mod layouts;
mod preparation;

/// One attempt: facts with the lock, plan, execute. What a killed operator leaves is what
/// `Err` leaves.
fn apply(machines: &[FakeMachine], desired: &[HostState]) -> Result<Report, HostError> {
    let mut hosts = Hosts::new();
    let mut facts = BTreeMap::new();
    for (machine, state) in machines.iter().zip(desired) {
        let mut host = machine.connect();
        let lock = LockRequest { owner: "test".to_owned() };
        let query = FactsQuery::for_state(state);
        facts.insert(state.host.clone(), host.facts(&query, Some(&lock))?);
        hosts.insert(state.host.clone(), host);
    }
    let plan = plan::plan(desired, &facts);
    let stop = AtomicBool::new(false);
    let masters = desired.iter().map(|state| state.host.clone()).collect();
    let lease = Lease::of_majority(&masters, &facts).unwrap();
    let execution = Execution { lease: Some(&lease), ..execution(desired, &plan, &stop) };
    Ok(execution.run(&mut hosts))
}

/// An execution without hooks, which waits for nothing.
pub(super) fn execution<'a>(
    desired: &'a [HostState],
    plan: &'a Plan,
    stop: &'a AtomicBool,
) -> Execution<'a> {
    let until = Instant::now() + Duration::from_secs(600);
    let limits = Limits { gate: Duration::ZERO, ..Limits::until(until, 3) };
    let (observer, hooks, nodes): (_, (&[_], _), &[_]) = (&Silent, (&[], "lab"), &[]);
    Execution { desired, plan, limits, observer, stop, lease: None, hooks, nodes, drain: false }
}

pub(super) struct Silent;
impl Observer for Silent {
    fn event(&self, _host: &str, _event: &Progress<'_>) {}
}

pub(super) fn file(path: &str, text: &str) -> FileState {
    FileState {
        path: path.to_owned(),
        mode: Mode::PUBLIC,
        owner: Owner::root(),
        content: Content::Text(text.to_owned()),
    }
}

pub(super) fn unit(name: &str, stage: Stage, inputs: &[&str]) -> UnitState {
    let own = format!("/etc/systemd/system/{name}");
    UnitState {
        name: name.to_owned(),
        enabled: true,
        stage,
        inputs: inputs.iter().map(|path| (*path).to_owned()).chain([own]).collect(),
        health: Gate::Active,
    }
}

/// A master with etcd: two units that share a program, one configuration each.
pub(super) fn desired(host: &str, version: &str) -> HostState {
    let mut state = HostState::new("lab", host);
    state.directories.push(DirectoryState {
        path: "/etc/kubernetes".to_owned(),
        mode: Mode::PRIVATE_DIRECTORY,
        owner: Owner::root(),
    });
    state.files = vec![
        file("/usr/local/bin/etcd", "etcd program"),
        file("/usr/local/bin/hyperkube", "hyperkube program"),
        file("/etc/etcd/etcd.conf", "etcd options"),
        file("/etc/kubernetes/apiserver", &format!("apiserver {version}")),
        file("/etc/kubernetes/kubelet", "kubelet options"),
        file("/etc/hosts.kprov", "a file that no unit uses"),
        file("/etc/systemd/system/etcd.service", "etcd unit"),
        file("/etc/systemd/system/kube-apiserver.service", "apiserver unit"),
        file("/etc/systemd/system/kubelet.service", "kubelet unit"),
    ];
    let target = "hyperkube".to_owned();
    let path = "/usr/local/bin/kube-apiserver".to_owned();
    state.links.push(LinkState { path, target });
    state.units = vec![
        unit("etcd.service", Stage::Etcd, &["/usr/local/bin/etcd", "/etc/etcd/etcd.conf"]),
        unit(
            "kube-apiserver.service",
            Stage::ControlPlane,
            &["/usr/local/bin/hyperkube", "/etc/kubernetes/apiserver"],
        ),
        unit(
            "kubelet.service",
            Stage::Node,
            &["/usr/local/bin/hyperkube", "/etc/kubernetes/kubelet"],
        ),
    ];
    state.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    state.modules.insert("br_netfilter".to_owned());
    state.data.insert("/var/lib/etcd".to_owned());
    preparation::want(&mut state);
    state
}

pub(super) fn machines(count: usize) -> Vec<FakeMachine> {
    let machine = |number| {
        let machine = FakeMachine::new(format!("n{number}"));
        let mut state = machine.state();
        state.sysctls.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
        // A file of the owner's that ours will cover.
        let (mode, owner) = (Mode(0o640), Owner("root:adm".to_owned()));
        let sha256 = Some(crate::digest::Digest::of(b"the owner's bytes"));
        let fact = PathFact::File { mode, owner, sha256, len: 17 };
        state.paths.insert("/etc/hosts.kprov".to_owned(), fact);
        // And a program of the owner's where a link of ours will be.
        let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
        let fact = PathFact::File { mode, owner, sha256: None, len: 1 };
        state.paths.insert("/usr/local/bin/kube-apiserver".to_owned(), fact);
        preparation::bare(&mut state, number);
        drop(state);
        machine
    };
    (1..=count).map(machine).collect()
}

pub(super) fn all_desired(count: usize, version: &str) -> Vec<HostState> {
    (1..=count).map(|number| desired(&format!("n{number}"), version)).collect()
}

/// Every unit runs, and with exactly the inputs that are there.
pub(super) fn assert_converged(machine: &FakeMachine, desired: &HostState) {
    let state = machine.state();
    for file in &desired.files {
        let fact = state.paths.get(&file.path);
        let right = |fact: &PathFact| {
            matches!(fact, PathFact::File { sha256, mode, .. }
                if *sha256 == Some(file.content.digest()) && *mode == file.mode)
        };
        assert!(fact.is_some_and(right), "{}: {fact:?}", file.path);
    }
    for wanted in &desired.units {
        let unit = state.units.get(&wanted.name).unwrap_or_else(|| panic!("no {}", wanted.name));
        assert!(unit.active && unit.enabled, "{} {unit:?}", wanted.name);
        for input in &wanted.inputs {
            let (runs_with, is) = (unit.runs_with.get(input), state.paths.get(input));
            assert_eq!(runs_with, is, "{} runs with an old {input}", wanted.name);
        }
    }
    assert_eq!(state.sysctls["net.ipv4.ip_forward"], "1");
    assert!(state.staged.is_empty(), "what was sent is still in the staging area");
    preparation::assert_prepared(&state, desired);
}

#[test]
fn a_second_apply_changes_nothing_in_one_round_trip() {
    let (machines, desired) = (machines(3), all_desired(3, "1"));
    let report = apply(&machines, &desired).unwrap();
    assert!(report.is_success(), "{report:?}");
    for (machine, state) in machines.iter().zip(&desired) {
        assert_converged(machine, state);
        machine.state().round_trips = 0;
        machine.state().writes = 0;
    }
    let before: Vec<_> = machines.iter().map(|m| m.state().clone()).collect();
    let report = apply(&machines, &desired).unwrap();
    assert!(report.is_success() && report.hosts.is_empty(), "{report:?}");
    for (machine, before) in machines.iter().zip(before) {
        let state = machine.state();
        assert_eq!((state.writes, state.round_trips), (0, 1));
        assert_eq!(state.starts, before.starts);
        assert_eq!(state.record, before.record);
    }
}

#[test]
fn a_changed_option_restarts_exactly_its_unit() {
    let machines = machines(3);
    apply(&machines, &all_desired(3, "1")).unwrap();
    let before: Vec<_> = machines.iter().map(|m| m.state().starts.clone()).collect();
    let report = apply(&machines, &all_desired(3, "2")).unwrap();
    assert!(report.is_success(), "{report:?}");
    for (machine, mut before) in machines.iter().zip(before) {
        *before.entry("kube-apiserver.service".to_owned()).or_default() += 1;
        assert_eq!(machine.state().starts, before);
    }
    let waves = report.phases.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    let one_by_one = ["control plane on n1", "control plane on n2", "control plane on n3"];
    assert_eq!(&waves[2..], one_by_one);
}

#[test]
fn drift_is_repaired_and_its_unit_restarted() {
    let (machines, desired) = (machines(1), all_desired(1, "1"));
    apply(&machines, &desired).unwrap();
    let path = "/etc/kubernetes/kubelet";
    let (mode, owner) = (Mode::PUBLIC, Owner::root());
    let sha256 = Some(crate::digest::Digest::of(b"edited by hand"));
    let edited = PathFact::File { mode, owner, sha256, len: 14 };
    machines[0].state().paths.insert(path.to_owned(), edited);
    let report = apply(&machines, &desired).unwrap();
    assert_eq!(report.hosts["n1"].restarted, ["kubelet.service"]);
    assert_converged(&machines[0], &desired[0]);
}

#[test]
fn what_is_no_longer_wanted_goes_and_what_was_there_comes_back() {
    let (machines, mut desired) = (machines(1), all_desired(1, "1"));
    apply(&machines, &desired).unwrap();
    desired[0].units.retain(|unit| unit.name != "kubelet.service");
    desired[0]
        .files
        .retain(|file| !file.path.contains("kubelet") && file.path != "/etc/hosts.kprov");
    desired[0].sysctls.clear();
    let report = apply(&machines, &desired).unwrap();
    assert!(report.is_success(), "{report:?}");
    let state = machines[0].state();
    assert!(!state.paths.contains_key("/etc/kubernetes/kubelet"));
    assert!(!state.units["kubelet.service"].active && !state.units["kubelet.service"].enabled);
    assert!(matches!(&state.paths["/etc/hosts.kprov"], PathFact::File { len: 17, .. }));
    assert_eq!(state.sysctls["net.ipv4.ip_forward"], "0");
    drop(state);
    let again = apply(&machines, &desired).unwrap();
    assert!(again.hosts.is_empty(), "{again:?}");
}

fn reset(machine: &FakeMachine, name: &str) -> Report {
    let mut host = machine.connect();
    let state = HostState::new("lab", name);
    let lock = LockRequest { owner: "test".to_owned() };
    let facts = host.facts(&FactsQuery::for_state(&state), Some(&lock)).unwrap();
    let hosts = vec![plan::reset(name, &facts)];
    let plan = Plan { waves: plan::waves(&hosts, &Rollout::AT_ONCE), hosts };
    let stop = AtomicBool::new(false);
    let desired = [state];
    let lease = Lease::of_these(&[(name.to_owned(), facts)].into());
    let execution = Execution { lease: Some(&lease), ..execution(&desired, &plan, &stop) };
    let mut hosts: Hosts = [(name.to_owned(), host)].into();
    execution.run(&mut hosts)
}

#[test]
fn a_reset_gives_the_host_back_as_it_was() {
    let (machines, desired) = (machines(1), all_desired(1, "1"));
    let before = machines[0].state().visible();
    apply(&machines, &desired).unwrap();
    let path = "/var/lib/etcd/member".to_owned();
    machines[0].state().paths.insert("/var/lib/etcd".to_owned(), PathFact::Other);
    machines[0].state().paths.insert(path, PathFact::Other);
    let report = reset(&machines[0], "n1");
    assert!(report.is_success(), "{report:?}");
    let after = machines[0].state().visible();
    assert!(before == after, "{before:#?}\n{after:#?}");
    assert!(reset(&machines[0], "n1").hosts.is_empty());
}

#[test]
fn a_failed_member_stops_the_run_before_the_next_one() {
    let machines = machines(3);
    apply(&machines, &all_desired(3, "1")).unwrap();
    machines[0].state().failing.insert("start kube-apiserver.service".to_owned());
    let report = apply(&machines, &all_desired(3, "2")).unwrap();
    assert!(matches!(
        report.hosts["n1"].error,
        Some(ApplyError::Host(HostError::Step { code: 1, .. }))
    ));
    let text = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert!(text.contains("the journal of kube-apiserver.service"), "{text}");
    for name in ["n2", "n3"] {
        assert!(matches!(report.hosts[name].error, Some(ApplyError::NotReached { .. })));
    }
    assert_eq!(machines[1].state().starts["kube-apiserver.service"], 1);
    // The cause is gone: the same command finishes the work.
    machines[0].state().failing.clear();
    let desired = all_desired(3, "2");
    assert!(apply(&machines, &desired).unwrap().is_success());
    for (machine, state) in machines.iter().zip(&desired) {
        assert_converged(machine, state);
    }
}

#[test]
fn no_member_of_etcd_goes_down_while_another_is_not_healthy() {
    let with_gates = |version: &str| {
        let mut all = all_desired(3, "1");
        for (number, state) in all.iter_mut().enumerate() {
            state.files.push(file("/etc/etcd/ca.crt", "an authority"));
            state.files[2] = file("/etc/etcd/etcd.conf", version);
            state.units[0].health = Gate::Https(crate::state::HttpsGate {
                address: format!("10.0.0.{}", number + 1),
                port: 2379,
                path: "/health".to_owned(),
                ca: "/etc/etcd/ca.crt".to_owned(),
                client: None,
            });
        }
        all
    };
    let machines = machines(3);
    assert!(apply(&machines, &with_gates("1")).unwrap().is_success());
    machines[2].state().unhealthy.insert("10.0.0.3:2379/health".to_owned(), 503);
    let report = apply(&machines, &with_gates("2")).unwrap();
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert_eq!(
        error,
        "not reached: restarting etcd on n1 would leave 1 of 3 members, and 2 are needed: \
         n3 is not healthy"
    );
    for machine in &machines {
        assert_eq!(machine.state().starts["etcd.service"], 1);
    }
    // A member that is down comes up first, and then the others may take their turns.
    machines[2].state().unhealthy.clear();
    machines[2].state().units.get_mut("etcd.service").unwrap().active = false;
    let report = apply(&machines, &with_gates("2")).unwrap();
    assert!(report.is_success(), "{report:?}");
    let waves: Vec<_> = report.phases.iter().map(|(name, _)| name.as_str()).collect();
    assert!(waves.ends_with(&["etcd on n3", "etcd on n1", "etcd on n2"]), "{waves:?}");
}

#[test]
fn a_second_run_is_refused_while_one_holds_the_lock() {
    let machine = FakeMachine::new("n1");
    let query = FactsQuery::default();
    let mut first = machine.connect();
    let lock = |owner: &str| LockRequest { owner: owner.to_owned() };
    first.facts(&query, Some(&lock("ann"))).unwrap();
    let mut second = machine.connect();
    let error = second.facts(&query, Some(&lock("bob"))).unwrap_err();
    assert_eq!(error.to_string(), "locked by ann");
    assert_eq!(second.break_lock().unwrap().as_deref(), Some("ann"));
    second.facts(&query, Some(&lock("bob"))).unwrap();
    // The first one, slow but alive, can do no harm any more.
    let error = first.run(&[crate::step::Step::Reload], &mut |_| {}).unwrap_err();
    assert!(matches!(error, HostError::LockLost));
    drop(first);
    assert!(machine.state().writes == 0);
}

#[test]
fn plans_of_untouched_hosts_name_every_change() {
    let desired = all_desired(1, "1");
    let facts: BTreeMap<_, _> = [("n1".to_owned(), Facts::default())].into();
    let plan = plan::plan(&desired, &facts);
    let count = |wanted: fn(&Change) -> bool| {
        plan.hosts[0].changes.iter().filter(|change| wanted(change)).count()
    };
    assert_eq!(count(|change| matches!(change, Change::File { .. })), 9);
    assert_eq!(count(|change| matches!(change, Change::Link { .. })), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200,
        ..ProptestConfig::default() })]

    /// Wherever the connections break, and however often, applying again leads to the same place:
    /// the bytes are right and every unit runs with them.
    #[test]
    fn a_run_cut_anywhere_converges(
        first in prop::collection::vec(0_u64..140, 3),
        second in prop::collection::vec(0_u64..120, 3),
    ) {
        let machines = machines(3);
        let cut = |points: &[u64]| {
            for (machine, point) in machines.iter().zip(points) {
                machine.state().cut_after = Some(*point);
            }
        };
        let before: Vec<_> = machines.iter().map(|m| m.state().visible()).collect();
        cut(&first);
        let _ = apply(&machines, &all_desired(3, "1"));
        cut(&second);
        let _ = apply(&machines, &all_desired(3, "2"));
        for machine in &machines {
            machine.state().cut_after = None;
        }
        let desired = all_desired(3, "2");
        let report = apply(&machines, &desired).unwrap();
        prop_assert!(report.is_success(), "{:?}", report);
        for (machine, state) in machines.iter().zip(&desired) {
            assert_converged(machine, state);
            machine.state().writes = 0;
        }
        prop_assert!(apply(&machines, &desired).unwrap().hosts.is_empty());
        // What was there before the first cut is what a reset gives back.
        for (number, (machine, before)) in machines.iter().zip(before).enumerate() {
            prop_assert_eq!(machine.state().writes, 0);
            let name = format!("n{}", number + 1);
            let report = reset(machine, &name);
            prop_assert!(report.is_success(), "{:?}", report);
            prop_assert!(machine.state().visible() == before);
        }
    }
}

/// Each single cut point of a fresh apply, one after another: the count is part of the claim.
#[test]
fn every_single_cut_point_converges() {
    let desired = all_desired(1, "1");
    let mut points = 0;
    loop {
        let machines = machines(1);
        machines[0].state().cut_after = Some(points);
        let whole = apply(&machines, &desired).is_ok_and(|report| report.is_success());
        machines[0].state().cut_after = None;
        assert!(apply(&machines, &desired).unwrap().is_success());
        assert_converged(&machines[0], &desired[0]);
        assert!(apply(&machines, &desired).unwrap().hosts.is_empty());
        if whole {
            break;
        }
        points += 1;
    }
    assert!(points > 90, "only {points} cut points were passed");
}

#[test]
fn a_reset_after_every_single_cut_point_leaves_nothing() {
    let desired = all_desired(1, "1");
    for points in 0.. {
        let machines = machines(1);
        let before = machines[0].state().visible();
        machines[0].state().cut_after = Some(points);
        let whole = apply(&machines, &desired).is_ok_and(|report| report.is_success());
        machines[0].state().cut_after = None;
        assert!(reset(&machines[0], "n1").is_success());
        let state = machines[0].state();
        assert!(state.visible() == before && state.staged.is_empty(), "cut after {points}");
        if whole {
            break;
        }
    }
}
