//! Programs in generations: upgrades, ways back, and both killed anywhere.

use super::cuts::{attempt, kill_everywhere};
use super::tests::{all_desired, assert_converged, execution, machines};
use super::*;
use crate::digest::Digest;
use crate::facts::{Facts, FactsQuery, LockRequest};
use crate::host::fake::FakeMachine;
use crate::inventory::Rollout;
use crate::plan;
use crate::program::{self, Program};
use crate::state::{Blob, Content, FileState, LinkState, Mode, Owner};

const NAME: &str = "hyperkube";

fn build(text: &str) -> Blob {
    Blob {
        sha256: Digest::of(text.as_bytes()),
        len: 1 << 20,
        source: "/nowhere".into(),
        architecture: None,
        version: Some(format!("v1.33.{}", text.len())),
    }
}

/// Three masters that are nodes; each unit has a link of its own to the build.
fn running(text: &str) -> Vec<HostState> {
    let mut desired = all_desired(3, "1");
    for state in &mut desired {
        let blob = build(text);
        let path = blob.program().path(NAME);
        state.programs.insert(NAME.to_owned(), blob.program());
        state.files.retain(|file| !file.path.ends_with("/hyperkube"));
        let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
        let content = Content::Blob(blob);
        state.files.push(FileState { path: path.clone(), mode, owner, content });
        state.links.clear();
        for unit in state.units.iter_mut().filter(|unit| unit.name != "etcd.service") {
            let link = format!("/usr/local/bin/{}", unit.name.trim_end_matches(".service"));
            unit.inputs.remove("/usr/local/bin/hyperkube");
            unit.inputs.extend([path.clone(), link.clone()]);
            state.links.push(LinkState { path: link, target: path.clone() });
        }
    }
    desired
}

fn facts(machines: &[FakeMachine], desired: &[HostState]) -> BTreeMap<String, Facts> {
    let ask = |(machine, state): (&FakeMachine, &HostState)| {
        let query = FactsQuery::for_state(state);
        (state.host.clone(), machine.connect().facts(&query, None).unwrap())
    };
    machines.iter().zip(desired).map(ask).collect()
}

fn kept(machine: &FakeMachine) -> Vec<String> {
    let state = machine.state();
    let kept = state.paths.keys().filter(|path| program::is_kept_at(path));
    kept.cloned().collect()
}

fn paths(builds: &[&str]) -> Vec<String> {
    let mut paths: Vec<_> = builds.iter().map(|text| build(text).program().path(NAME)).collect();
    paths.sort();
    paths
}

fn apply(machines: &[FakeMachine], desired: &[HostState]) {
    let report = attempt(machines, desired, 3).unwrap();
    assert!(report.is_success(), "{report:?}");
    for (machine, state) in machines.iter().zip(desired) {
        assert_converged(machine, state);
    }
}

#[test]
fn the_build_before_stays_and_a_way_back_sends_nothing() {
    let machines = machines(3);
    apply(&machines, &running("a"));
    apply(&machines, &running("bb"));
    assert_eq!(kept(&machines[0]), paths(&["a", "bb"]));
    let starts = machines[2].state().starts["kubelet.service"];

    let back = running("a");
    let plan = plan::plan(&back, &facts(&machines, &back));
    let n1 = plan.host("n1").unwrap();
    assert!(n1.uploads.is_empty(), "{:?}", n1.uploads.keys());
    let lines: Vec<_> = n1.changes.iter().map(plan::change_line).collect();
    let (a, bb) = (build("a").program(), build("bb").program());
    assert_eq!(lines[0], format!("~ program hyperkube {} -> {}", bb.label(), a.label()));
    assert!(!lines.iter().any(|line| line.starts_with("- remove")), "{lines:?}");
    apply(&machines, &back);
    assert_eq!(kept(&machines[0]), paths(&["a", "bb"]));
    assert_eq!(machines[2].state().starts["kubelet.service"], starts + 1);

    // A third one takes the place of the one that was left.
    apply(&machines, &running("ccc"));
    assert_eq!(kept(&machines[0]), paths(&["a", "ccc"]));
    let record = machines[0].state().record.clone().unwrap();
    let known = &record.programs[NAME];
    assert_eq!(
        (known.current.as_ref(), known.previous.as_ref()),
        (Some(&build("ccc").program()), Some(&build("a").program()))
    );
}

#[test]
fn upgrades_and_ways_back_that_are_killed_anywhere_end_in_the_same_bytes() {
    let upgrade = kill_everywhere(&[running("a")], &running("bb"));
    let back = kill_everywhere(&[running("a"), running("bb")], &running("a"));
    println!("cut points: {} of an upgrade, {} of a way back", upgrade.len(), back.len());
    let sent = |names: &[String]| names.iter().any(|name| name.contains("after sending"));
    assert!(sent(&upgrade) && !sent(&back));
    let link = "n2: after link /usr/local/bin/kube-apiserver".to_owned();
    assert!(upgrade.contains(&link) && back.contains(&link), "{back:?}");
}

#[test]
fn a_canary_that_fails_leaves_the_others_and_can_go_back() {
    let machines = machines(3);
    apply(&machines, &running("a"));
    machines[0].state().failing.insert("start kube-apiserver.service".to_owned());
    let report = attempt(&machines, &running("bb"), 3).unwrap();
    assert_eq!(report.split().done, [""; 0]);
    assert!(machines[1..].iter().all(|m| m.state().starts["kube-apiserver.service"] == 1));
    machines[0].state().failing.clear();
    let wanted: BTreeMap<String, Program> = [(NAME.to_owned(), build("bb").program())].into();
    for machine in &machines {
        let record = machine.state().record.clone().unwrap();
        let former = program::former(&record.programs, &wanted);
        assert_eq!(former[NAME], build("a").program(), "nobody goes further back than that");
    }
    apply(&machines, &running("a"));
    assert_eq!(kept(&machines[0]), paths(&["a"]));
}

#[test]
fn an_api_server_restarts_only_while_another_one_serves() {
    let machines = machines(3);
    apply(&machines, &running("a"));
    let looks = |number: usize, looks: &[bool]| {
        let looks = looks.iter().copied().collect();
        machines[number].state().looks.insert("kube-apiserver.service".to_owned(), looks);
    };
    looks(1, &[false; 40]);
    looks(2, &[false; 40]);
    let desired = running("bb");
    let mut hosts = Hosts::new();
    let mut known = BTreeMap::new();
    let lock = LockRequest { owner: "test".to_owned() };
    for (machine, state) in machines.iter().zip(&desired) {
        let mut host = machine.connect();
        let query = FactsQuery::for_state(state);
        known.insert(state.host.clone(), host.facts(&query, Some(&lock)).unwrap());
        hosts.insert(state.host.clone(), host);
    }
    let plan = plan::plan(&desired, &known).rolled(&Rollout::default());
    let stop = AtomicBool::new(false);
    let masters = desired.iter().map(|state| state.host.clone()).collect();
    let lease = Lease::of_majority(&masters, &known).unwrap();
    let all = execution(&desired, &plan, &stop);
    let report = Execution { lease: Some(&lease), ..all }.run(&mut hosts);
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    let expected = "not reached: restarting the API server on n1 would leave none that serves: \
                    n2, n3 are not ready";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(machines[0].state().starts["kube-apiserver.service"], 1);
}
