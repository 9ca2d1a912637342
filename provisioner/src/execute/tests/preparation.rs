//! Packages, swap, blocks, labels and firewalls through whole runs, each kind of firewall on one of
//! the machines.

use super::*;
use crate::facts::{DockerFact, ENGINE};
use crate::firewall::{self, FirewallFact, FirewallKind, Opening};
use crate::host::fake::FakeState;
use crate::inventory::FirewallPolicy;
use crate::state::{BlockState, Protocol};

/// Adds to a host's desired state what prepares it.
pub(super) fn want(state: &mut HostState) {
    let addresses = [1, 2, 3].map(|last| std::net::Ipv4Addr::new(10, 0, 0, last));
    state.docker = true;
    state.engine.install = true;
    state.packages.insert("nfs-common".to_owned());
    state.swap_off = true;
    let text = "10.0.0.1 n1\n10.0.0.2 n2\n10.0.0.3 n3\n".to_owned();
    state.blocks.push(BlockState { path: "/etc/hosts".to_owned(), text });
    state.firewall.openings = [
        Opening::port_for(Protocol::Tcp, 2379, addresses).unwrap(),
        Opening::Port { protocol: Protocol::Tcp, port: 6443, from: None },
        Opening::Pods { range: "10.244.0.0/16".parse().unwrap() },
    ]
    .into();
}

/// Makes a machine one with swap, a firewall and no engine.
pub(super) fn bare(state: &mut FakeState, number: usize) {
    let here = &mut state.preparation;
    here.packages.insert("curl".to_owned());
    here.swaps.insert("/dev/sda2".to_owned());
    here.boot_swaps.insert("UUID=1".to_owned());
    here.selinux = number == 1;
    let mut firewall = FirewallFact::new(FirewallKind::ALL[(number - 1) % 4]);
    firewall.input.insert("inet filter input".to_owned());
    firewall.forward.insert("inet filter forward".to_owned());
    // Rules of the owner's: one of another thing, and one that we would make.
    let ssh = "public rule family=\"ipv4\" port port=\"22\" protocol=\"tcp\" accept".to_owned();
    let api = "public rule family=\"ipv4\" port port=\"6443\" protocol=\"tcp\" accept".to_owned();
    firewall.permanent = [ssh, api].into();
    firewall.runtime = firewall.permanent.clone();
    here.firewall = Some(firewall);
    here.firewall_on = true;
    state.base.docker = DockerFact::Absent;
}

pub(super) fn assert_prepared(state: &FakeState, desired: &HostState) {
    let here = &state.preparation;
    assert!(here.packages.is_superset(&desired.packages), "{:?}", here.packages);
    assert!(here.swaps.is_empty() && here.boot_swaps.is_empty(), "{here:?}");
    for block in &desired.blocks {
        assert_eq!(here.blocks[&block.path], block.text);
    }
    let wrong: Vec<_> =
        here.mislabelled.iter().filter(|path| state.paths.contains_key(*path)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(here.guard, None, "a change of the firewall is not confirmed");
    let firewall = here.firewall.as_ref().unwrap();
    for rule in firewall::rules(&desired.firewall.openings, firewall) {
        assert!(firewall.has(&rule), "{rule}");
    }
    let engine = &state.units[ENGINE];
    assert!(engine.active && engine.enabled, "{engine:?}");
}

/// One machine with each kind of firewall.
fn machine(kind: FirewallKind) -> FakeMachine {
    let machine = machines(1).remove(0);
    machine.state().preparation.firewall.as_mut().unwrap().kind = kind;
    machine
}

#[test]
fn every_kind_of_firewall_is_opened_and_given_back_at_every_cut() {
    let desired = all_desired(1, "1");
    for kind in FirewallKind::ALL {
        for points in 0.. {
            let machine = machine(kind);
            let machines = std::slice::from_ref(&machine);
            let before = machine.state().visible();
            machine.state().cut_after = Some(points);
            let whole = apply(machines, &desired).is_ok_and(|report| report.is_success());
            machine.state().cut_after = None;
            // An operator who takes his time finds that the timer has come to its end.
            if points % 2 == 0 {
                machine.state().fire_guard();
            }
            assert!(apply(machines, &desired).unwrap().is_success(), "{kind} {points}");
            assert_converged(&machine, &desired[0]);
            assert!(apply(machines, &desired).unwrap().hosts.is_empty(), "{kind} {points}");
            assert!(reset(&machine, "n1").is_success());
            assert!(machine.state().visible() == before, "{kind} {points}");
            if whole {
                break;
            }
        }
    }
}

#[test]
fn a_reset_cut_anywhere_is_finished_by_the_next() {
    let desired = all_desired(1, "1");
    for points in 0.. {
        let machine = machine(FirewallKind::Iptables);
        let before = machine.state().visible();
        assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
        machine.state().cut_after = Some(points);
        let whole = reset_once(&machine).is_ok_and(|report| report.is_success());
        machine.state().cut_after = None;
        assert!(reset(&machine, "n1").is_success());
        assert!(machine.state().visible() == before, "cut after {points}");
        if whole {
            break;
        }
    }
}

/// A reset whose connection may break before it begins.
fn reset_once(machine: &FakeMachine) -> Result<Report, HostError> {
    if machine.state().cut_after == Some(0) {
        let source = std::io::Error::other("cut");
        return Err(HostError::Lost { doing: "reset".to_owned(), source });
    }
    Ok(reset(machine, "n1"))
}

#[test]
fn a_firewall_that_shuts_new_connections_out_is_restored_by_the_host() {
    let desired = all_desired(1, "1");
    let machine = machine(FirewallKind::Nftables);
    let before = machine.state().preparation.firewall.clone();
    machine.state().preparation.shuts_out = true;
    let report = apply(std::slice::from_ref(&machine), &desired).unwrap();
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert!(error.contains("confirm the firewall over a new connection"), "{error}");
    assert_ne!(machine.state().preparation.firewall, before);
    assert!(!machine.state().units.contains_key("etcd.service"), "it went on");
    machine.state().fire_guard();
    assert_eq!(machine.state().preparation.firewall, before);
    machine.state().preparation.shuts_out = false;
    assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
    assert_converged(&machine, &desired[0]);
}

#[test]
fn a_firewall_is_left_alone_or_switched_off_where_the_inventory_says_so() {
    let mut desired = all_desired(1, "1");
    desired[0].firewall.policy = FirewallPolicy::None;
    let machine = machine(FirewallKind::Firewalld);
    let machines = std::slice::from_ref(&machine);
    let before = machine.state().visible();
    let rules = machine.state().preparation.firewall.clone();
    assert!(apply(machines, &desired).unwrap().is_success());
    assert_eq!(machine.state().preparation.firewall, rules);
    desired[0].firewall.policy = FirewallPolicy::Disable;
    assert!(apply(machines, &desired).unwrap().is_success());
    assert!(!machine.state().preparation.firewall_on);
    assert!(apply(machines, &desired).unwrap().hosts.is_empty());
    assert!(reset(&machine, "n1").is_success());
    assert!(machine.state().visible() == before);
}

#[test]
fn rules_follow_the_hosts_that_come_and_go() {
    let mut desired = all_desired(1, "1");
    let machine = machine(FirewallKind::Ufw);
    let machines = std::slice::from_ref(&machine);
    let before = machine.state().visible();
    assert!(apply(machines, &desired).unwrap().is_success());
    let address = std::net::Ipv4Addr::new(10, 0, 0, 9);
    let pods = Opening::Pods { range: "10.244.0.0/16".parse().unwrap() };
    desired[0].firewall.openings =
        [Opening::port_for(Protocol::Tcp, 2379, [address]).unwrap(), pods].into();
    assert!(apply(machines, &desired).unwrap().is_success());
    assert_converged(&machine, &desired[0]);
    let ours = machine.state().record.as_ref().unwrap().rules[&FirewallKind::Ufw].clone();
    assert_eq!(
        ours,
        firewall::rules(&desired[0].firewall.openings, &FirewallFact::new(FirewallKind::Ufw))
    );
    let held = machine.state().preparation.firewall.clone().unwrap().permanent;
    assert_eq!(held.len(), ours.len() + 2, "{held:?}");
    assert!(reset(&machine, "n1").is_success());
    assert!(machine.state().visible() == before);
}

#[test]
fn an_engine_that_was_there_is_neither_installed_nor_removed() {
    let desired = all_desired(1, "1");
    let machine = machine(FirewallKind::Ufw);
    {
        let mut state = machine.state();
        state.base.docker = DockerFact::Stopped;
        state.units.entry(ENGINE.to_owned()).or_default().installed = true;
        state.preparation.packages.insert("docker-ce".to_owned());
    }
    assert!(apply(std::slice::from_ref(&machine), &desired).unwrap().is_success());
    let came = machine.state().preparation.came.clone();
    assert_eq!(came, ["nfs-common".to_owned()].into());
    assert!(reset(&machine, "n1").is_success());
    assert!(machine.state().preparation.packages.contains("docker-ce"));
}
