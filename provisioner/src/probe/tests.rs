use super::*;
use crate::firewall::{FirewallFact, FirewallKind};

fn state(host: &str, last: u8, openings: Vec<Opening>) -> HostState {
    let mut state = HostState::new("lab", host);
    state.firewall.address = Some(Ipv4Addr::new(10, 0, 0, last));
    state.firewall.openings = openings.into_iter().collect();
    state
}

/// Three hosts: one with the API for anyone, two with vxlan for each other.
fn hosts() -> Vec<HostState> {
    let ip = |last| Ipv4Addr::new(10, 0, 0, last);
    let api = Opening::Port { protocol: Protocol::Tcp, port: 6443, from: None };
    let vxlan = |other| Opening::port_for(Protocol::Udp, 8472, [ip(other)]).unwrap();
    let pods = Opening::Pods { range: "10.244.0.0/16".parse().unwrap() };
    vec![
        state("m", 1, vec![api]),
        state("n1", 2, vec![vxlan(3), pods.clone()]),
        state("n2", 3, vec![vxlan(2), pods]),
    ]
}

const API: &str = "tcp:10.0.0.1:6443";
const N1: &str = "udp:10.0.0.2:8472";

fn answer(endpoint: &str, result: Outcome) -> Reached {
    Reached { endpoint: endpoint.to_owned(), result, mtu: None, error: None }
}

/// What is said when `m` and `n1` listen, and `n1` and `n2` find this.
fn judged(n1: Vec<Reached>, n2: Vec<Reached>, facts: &BTreeMap<String, Facts>) -> Judgement {
    let listening = |endpoint: &str| Listening {
        listening: [endpoint.to_owned()].into(),
        taken: BTreeSet::new(),
    };
    let measured = Measured {
        listening: [("m".to_owned(), listening(API)), ("n1".to_owned(), listening(N1))].into(),
        reached: [("n1".to_owned(), n1), ("n2".to_owned(), n2)].into(),
        disks: BTreeMap::new(),
    };
    judge(&measured, &hosts(), facts, 1500)
}

fn said(judgement: &Judgement) -> Vec<String> {
    judgement.problems.iter().map(|p| format!("{}: {}; {}", p.host, p.message, p.advice)).collect()
}

#[test]
fn every_port_is_asked_by_those_who_need_it() {
    let tasks = tasks(&hosts());
    let text = |endpoints: &BTreeSet<Endpoint>| -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    };
    assert_eq!(text(&tasks["m"].listen), [API]);
    assert_eq!(text(&tasks["m"].reach), [""; 0]);
    assert_eq!(text(&tasks["n1"].listen), [N1]);
    assert_eq!(text(&tasks["n1"].reach), [API, "udp:10.0.0.3:8472"]);
    assert_eq!(text(&tasks["n2"].reach), [API, N1]);
}

#[test]
fn what_all_reach_is_no_problem() {
    let open = |endpoint| answer(endpoint, Outcome::Open);
    let judgement = judged(vec![open(API)], vec![open(API), open(N1)], &BTreeMap::new());
    assert_eq!((judgement.problems.len(), judgement.notes.len()), (0, 0));
    assert_eq!(judgement.reached["n2"], (2, 2));
}

#[test]
fn what_is_not_reached_is_told_once_with_those_who_do_not() {
    let silent = || vec![answer(API, Outcome::Timeout)];
    let judgement = judged(silent(), silent(), &BTreeMap::new());
    let found = said(&judgement);
    assert_eq!(found.len(), 1);
    let expected =
        "m: 6443/tcp cannot be used from n1, n2: no answer; open the port in what stands";
    assert!(found[0].starts_with(expected), "{found:?}");
    assert_eq!(judgement.reached["n1"], (0, 1));
}

#[test]
fn packets_that_are_too_long_lead_to_the_mtu() {
    let long = Reached { mtu: Some(1400), ..answer(N1, Outcome::TooLong) };
    let judgement = judged(Vec::new(), vec![long], &BTreeMap::new());
    let expected = "n1: 8472/udp cannot be used from n2: packets of 1500 bytes do not arrive; 1400 \
                    bytes are the most; say `mtu = 1350` in [network], or let longer packets pass";
    assert_eq!(said(&judgement), [expected]);
}

#[test]
fn a_firewall_that_an_apply_opens_is_no_problem() {
    let firewall = Some(FirewallFact::new(FirewallKind::Firewalld));
    let facts = [("m".to_owned(), Facts { firewall, ..Facts::default() })].into();
    let judgement = judged(vec![answer(API, Outcome::Timeout)], Vec::new(), &facts);
    assert_eq!(judgement.problems, []);
    let note = "m: 6443/tcp is closed for n1 by a firewall that an apply opens";
    assert_eq!(judgement.notes, [note]);
}

#[test]
fn ports_that_nobody_of_ours_listened_on_are_not_judged() {
    // The kernel has the port of a running overlay, and gives no echo.
    let other = "udp:10.0.0.3:8472";
    let judgement = judged(vec![answer(other, Outcome::Timeout)], Vec::new(), &BTreeMap::new());
    assert_eq!((judgement.problems.len(), judgement.reached.len()), (0, 0));
}

#[test]
fn slow_disks_are_refused_and_those_in_between_told_of() {
    let disk = |p99_us| Disk { writes: 200, p50_us: 1, p99_us, max_us: p99_us };
    let disks = [("a", 9_000), ("b", 12_500), ("c", 250_000)];
    let disks = disks.map(|(name, p99)| (name.to_owned(), disk(p99))).into();
    let measured = Measured { disks, ..Measured::default() };
    let judgement = judge(&measured, &[], &BTreeMap::new(), 1500);
    let found: Vec<_> = judgement.problems.iter().map(|p| (p.host.as_str(), p.check)).collect();
    assert_eq!(found, [("c", "fsync")]);
    assert!(judgement.notes[0].starts_with("b: 1 of 100 small writes takes 12.5 ms"));
    assert_eq!(judgement.notes.len(), 1);
}
