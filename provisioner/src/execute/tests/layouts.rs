//! Whole hosts of each layout: killed at every cut point, applied again, changed and given back.

use super::*;
use crate::compose::tests::{lab_edited, lab_with};
use crate::layout::Layout;
use crate::step::Step;

/// The lab's first host, which has every role.
fn of(layout: Layout) -> HostState {
    lab_with(&format!("layout = \"{}\"", layout.as_str())).remove(0)
}

fn assert_runs(machine: &FakeMachine, desired: &HostState) {
    let state = machine.state();
    for file in &desired.files {
        let digest = |fact: &PathFact| match fact {
            PathFact::File { sha256, .. } => *sha256,
            _ => None,
        };
        let is = state.paths.get(&file.path).and_then(digest);
        assert_eq!(is, Some(file.content.digest()), "{}", file.path);
    }
    for wanted in &desired.units {
        let unit = &state.units[&wanted.name];
        assert!(unit.active && unit.enabled, "{}", wanted.name);
        for input in &wanted.inputs {
            assert_eq!(unit.runs_with.get(input), state.paths.get(input), "{input}");
        }
    }
}

/// What the components write for themselves.
fn fill(machine: &FakeMachine, desired: &HostState) {
    let (mode, owner) = (Mode::PRIVATE_DIRECTORY, Owner::root());
    for path in &desired.data {
        let folder = PathFact::Directory { mode, owner: owner.clone(), empty: false };
        machine.state().paths.insert(path.clone(), folder);
        machine.state().paths.insert(format!("{path}/x"), PathFact::Other);
    }
}

/// The API of a master whose pods are those that its manifests ask for.
fn answer_for_pods(machine: &FakeMachine, desired: &HostState) {
    for unit in &desired.units {
        let Gate::StaticPods(gate) = &unit.health else { continue };
        let pod = |(name, inputs): (&String, &String)| {
            serde_json::json!({
                "metadata": { "name": name, "annotations": { crate::compose::INPUTS: inputs } },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
            })
        };
        let items: Vec<_> = gate.pods.iter().map(pod).collect();
        let at = format!("{}:{}{}", gate.api.address, gate.api.port, gate::PODS);
        let answer = serde_json::json!({ "items": items }).to_string();
        machine.state().answers.insert(at, answer);
    }
}

/// A machine whose owner runs Docker.
fn machine() -> FakeMachine {
    let machine = FakeMachine::new("node-1");
    let mut state = machine.state();
    let engine = state.units.entry(crate::facts::ENGINE.to_owned()).or_default();
    (engine.installed, engine.active, engine.enabled) = (true, true, true);
    for path in crate::facts::ENGINE_DATA {
        let (mode, owner) = (Mode(0o711), Owner::root());
        let fact = PathFact::Directory { mode, owner, empty: false };
        state.paths.insert(path.to_owned(), fact);
    }
    for (key, value) in [
        ("net.bridge.bridge-nf-call-iptables", "0"),
        ("net.ipv4.conf.all.accept_redirects", "1"),
        ("net.ipv4.ip_forward", "0"),
    ] {
        state.sysctls.insert(key.to_owned(), value.to_owned());
    }
    drop(state);
    machine
}

/// Kills an apply at each of its cut points, applies again, and gives the host back.
fn assert_survives_every_cut(what: &str, desired: &HostState) {
    let desired = std::slice::from_ref(desired);
    let mut points = 0;
    loop {
        let machine = machine();
        answer_for_pods(&machine, &desired[0]);
        let machines = std::slice::from_ref(&machine);
        let before = machine.state().visible();
        machine.state().cut_after = Some(points);
        let whole = apply(machines, desired).is_ok_and(|report| report.is_success());
        machine.state().cut_after = None;
        assert!(apply(machines, desired).unwrap().is_success(), "{what} {points}");
        assert_runs(&machine, &desired[0]);
        machine.state().writes = 0;
        assert!(apply(machines, desired).unwrap().hosts.is_empty(), "{what} {points}");
        assert_eq!(machine.state().writes, 0);
        fill(&machine, &desired[0]);
        assert!(reset(&machine, "node-1").is_success());
        let after = machine.state().visible();
        assert!(after == before, "{what} {points}: {after:#?}\n{before:#?}");
        if whole {
            break;
        }
        points += 1;
    }
    println!("{what}: {points} cut points");
    assert!(points > 100, "{what}: only {points} cut points were passed");
}

#[test]
fn the_usual_layout_survives_every_cut_and_is_given_back() {
    assert_survives_every_cut("fhs", &of(Layout::Fhs));
}

#[test]
fn environment_files_survive_every_cut_and_are_given_back() {
    assert_survives_every_cut("environment-files", &of(Layout::EnvironmentFiles));
}

#[test]
fn the_classic_layout_survives_every_cut_and_is_given_back() {
    assert_survives_every_cut("classic", &of(Layout::Classic));
}

fn on_docker0() -> HostState {
    lab_edited(|text| text + "\n[network]\npod_bridge = \"docker0\"\n").remove(0)
}

#[test]
fn pods_on_dockers_bridge_survive_every_cut_and_are_given_back() {
    assert_survives_every_cut("docker0", &on_docker0());
}

fn on_tunnels() -> HostState {
    lab_edited(|text| text + "\n[network]\nbackend = \"ovs-gre\"\n").remove(0)
}

#[test]
fn tunnels_survive_every_cut_and_are_given_back() {
    assert_survives_every_cut("ovs-gre", &on_tunnels());
}

#[test]
fn open_vswitch_is_installed_once_and_its_bridge_of_pods_stays() {
    let machine = machine();
    let desired = [on_tunnels()];
    assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
    assert!(machine.state().preparation.packages.contains("openvswitch-switch"));
    let facts =
        |state: &HostState| machine.connect().facts(&FactsQuery::for_state(state), None).unwrap();
    let plan_of = |state: &HostState| {
        let facts = [("node-1".to_owned(), facts(state))].into();
        plan::plan(std::slice::from_ref(state), &facts).hosts.remove(0)
    };
    assert!(plan_of(&desired[0]).is_empty());
    let other = of(Layout::Fhs);
    let problems = crate::preflight::check(&other, &facts(&other), &plan_of(&other));
    let problem = problems.iter().find(|problem| problem.check == "pod-bridge").unwrap();
    assert_eq!(problem.message, "its pods are on kbr0, and the inventory says cni0");
    assert!(problem.advice.contains("`backend = \"ovs-gre\"`, `pod_bridge = \"kbr0\"`"));
}

/// A master whose components are pods, with an image for them.
fn with_static_pods() -> HostState {
    lab_with("masters = \"static-pods\"").remove(0)
}

#[test]
fn masters_as_pods_survive_every_cut_and_are_given_back() {
    assert_survives_every_cut("static pods", &with_static_pods());
}

#[test]
fn the_form_of_masters_is_not_changed_in_place() {
    for (first, second) in [("static-pods", "units"), ("units", "static-pods")] {
        let of = |form: &str| lab_with(&format!("masters = \"{form}\"")).remove(0);
        let machine = machine();
        let desired = [of(first)];
        answer_for_pods(&machine, &desired[0]);
        assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
        let state = of(second);
        let facts = machine.connect().facts(&FactsQuery::for_state(&state), None).unwrap();
        let plan = plan::plan(
            std::slice::from_ref(&state),
            &[("node-1".to_owned(), facts.clone())].into(),
        );
        let problems = crate::preflight::check(&state, &facts, &plan.hosts[0]);
        let problem = problems.iter().find(|problem| problem.check == "masters").unwrap();
        let message =
            format!("its master's components are {first}, and the inventory says \"{second}\"");
        assert_eq!(problem.message, message);
    }
}

#[test]
fn an_owners_docker_restarts_once_and_gets_its_own_range_back() {
    let machine = machine();
    let desired = [on_docker0()];
    assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
    assert_eq!(machine.state().starts["docker.service"], 1);
    // The bridge of pods stays what it is.
    let other = of(Layout::Fhs);
    let facts = machine.connect().facts(&FactsQuery::for_state(&other), None).unwrap();
    let plan =
        plan::plan(std::slice::from_ref(&other), &[("node-1".to_owned(), facts.clone())].into());
    let problems = crate::preflight::check(&other, &facts, &plan.hosts[0]);
    let problem = problems.iter().find(|problem| problem.check == "pod-bridge").unwrap();
    assert_eq!(problem.message, "its pods are on docker0, and the inventory says cni0");
    let reset = plan::reset("node-1", &facts);
    let steps: Vec<_> = reset.batches[&Stage::HostPrep].steps.iter().map(Step::describe).collect();
    let at = |what: &str| steps.iter().position(|step| step == what).unwrap();
    assert!(at("remove links and rules of Docker") > at("stop docker.service"), "{steps:?}");
    assert!(at("start docker.service") > at("remove links and rules of Docker"), "{steps:?}");
    let drop_in = format!("remove {}", crate::compose::DOCKER_ON_FLANNEL);
    assert!(at("start docker.service") > at(&drop_in), "{steps:?}");
}

#[test]
fn a_host_goes_from_one_layout_to_another_that_keeps_the_data() {
    let machine = machine();
    let machines = std::slice::from_ref(&machine);
    let before = machine.state().visible();
    for layout in [Layout::Fhs, Layout::EnvironmentFiles, Layout::Fhs] {
        let desired = [of(layout)];
        assert!(apply(machines, &desired).unwrap().is_success());
        assert_runs(&machine, &desired[0]);
        assert_eq!(machine.state().record.as_ref().unwrap().layout, layout);
        let gone = match layout {
            Layout::Fhs => "/etc/kubernetes/apiserver",
            _ => "/etc/kubernetes/kube-apiserver.env",
        };
        assert!(!machine.state().paths.contains_key(gone), "{gone}");
        assert!(apply(machines, &desired).unwrap().hosts.is_empty());
    }
    // Nothing stands in the way of a layout that the preflight would refuse but the preflight.
    let state = of(Layout::Classic);
    let facts = machine.connect().facts(&FactsQuery::for_state(&state), None).unwrap();
    let plan =
        plan::plan(std::slice::from_ref(&state), &[("node-1".to_owned(), facts.clone())].into());
    let problems = crate::preflight::check(&state, &facts, &plan.hosts[0]);
    let problem = problems.iter().find(|problem| problem.check == "layout").unwrap();
    assert_eq!(
        problem.message,
        "it was set up with `layout = \"fhs\"`, and the inventory says \"classic\""
    );
    assert!(problem.advice.contains("kprov restore"), "{}", problem.advice);
    assert!(reset(&machine, "node-1").is_success());
    assert!(machine.state().visible() == before);
}
