//! Kills a run at every cut point there is, by name, and by chance on a thousand hosts.
//!
//! Whatever was cut, applying again must lead to the very state that an undisturbed apply leads
//! to, and then have nothing left to do.

use std::sync::Arc;

use super::tests::{all_desired, assert_converged, execution, machines};
use super::*;
use crate::facts::{FactsQuery, LockRequest};
use crate::host::fake::{Climate, FakeMachine, Weather};
use crate::plan;

/// Attempts after which a run that never ends well is a failure of ours.
const ATTEMPTS_MAX: usize = 30;

/// One run as an operator would start it; hosts that are out of reach are left out. One host at a
/// time, so that the cut points always come in the same order.
pub(super) fn attempt(
    machines: &[FakeMachine],
    desired: &[HostState],
    masters: usize,
) -> Option<Report> {
    let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
    let lock = LockRequest { owner: "test".to_owned() };
    for (machine, state) in machines.iter().zip(desired) {
        let mut host = machine.connect();
        if let Ok(found) = host.facts(&FactsQuery::for_state(state), Some(&lock)) {
            facts.insert(state.host.clone(), found);
            hosts.insert(state.host.clone(), host);
        }
    }
    let masters = desired.iter().take(masters).map(|state| state.host.clone()).collect();
    let lease = Lease::of_majority(&masters, &facts).ok()?;
    let reached: Vec<_> =
        desired.iter().filter(|state| facts.contains_key(&state.host)).cloned().collect();
    let plan = plan::plan(&reached, &facts);
    let stop = AtomicBool::new(false);
    let all = execution(desired, &plan, &stop);
    let limits = Limits { at_once: 1, allow_unreachable: true, ..all.limits };
    let report = Execution { lease: Some(&lease), limits, ..all }.run(&mut hosts);
    // A host that was not reached is not done.
    (reached.len() == desired.len()).then_some(report)
}

fn is_whole(report: Option<&Report>) -> bool {
    report.is_some_and(Report::is_success)
}

/// All that a run leaves on a host but for numbers that count runs.
fn left(machine: &FakeMachine) -> impl PartialEq + std::fmt::Debug + use<> {
    let state = machine.state();
    let mut record = state.record.clone();
    record.iter_mut().for_each(|record| record.generation = 0);
    let kernel = (state.sysctls.clone(), state.modules.clone(), state.images.clone());
    (state.paths.clone(), state.units.clone(), kernel, record, state.kept.clone())
}

/// Kills a run that brings `desired` at each of its cut points, on machines to which all of `before`
/// was applied; gives the names of the cut points.
pub(super) fn kill_everywhere(before: &[Vec<HostState>], desired: &[HostState]) -> Vec<String> {
    let weather = Arc::new(Weather::new(Climate::CALM));
    let fresh = || {
        let fresh: Vec<_> = machines(3).into_iter().map(|m| m.under(weather.clone())).collect();
        weather.begin(None, false);
        for first in before {
            assert!(is_whole(attempt(&fresh, first, 3).as_ref()));
        }
        fresh
    };
    let undisturbed = fresh();
    weather.begin(None, true);
    assert!(is_whole(attempt(&undisturbed, desired, 3).as_ref()));
    let names = weather.names();
    for (number, name) in names.iter().enumerate() {
        let machines = fresh();
        weather.begin(Some(number as u64), false);
        let report = attempt(&machines, desired, 3);
        assert_eq!(weather.killed().as_ref(), Some(name), "cut points come in one order");
        assert!(!is_whole(report.as_ref()), "{name}");
        weather.begin(None, false);
        assert!(is_whole(attempt(&machines, desired, 3).as_ref()), "after {name}");
        for ((machine, twin), state) in machines.iter().zip(&undisturbed).zip(desired) {
            assert_converged(machine, state);
            assert!(left(machine) == left(twin), "after {name}: {:#?}", left(machine));
        }
        let again = attempt(&machines, desired, 3).unwrap();
        assert!(again.hosts.is_empty(), "after {name} there is still something to do");
    }
    names
}

#[test]
fn a_run_killed_at_any_named_cut_point_ends_in_the_same_bytes() {
    let install = kill_everywhere(&[], &all_desired(3, "1"));
    let change = kill_everywhere(&[all_desired(3, "1")], &all_desired(3, "2"));
    println!("cut points: {} of an install, {} of a change", install.len(), change.len());
    for name in [
        "n1: gather facts",
        "n2: before sending",
        "n3: before install /etc/etcd/etcd.conf",
        "n1: after install /etc/etcd/etcd.conf",
        "n2: before start etcd.service",
        "n3: after note the start of kubelet.service",
        "n1: before clear the staging area",
    ] {
        assert!(install.iter().any(|known| known == name), "{name} is no cut point");
    }
    assert!(change.iter().any(|name| name == "n2: after start kube-apiserver.service"));
    assert!(install.len() > 200 && change.len() > 40, "{} {}", install.len(), change.len());
}

/// Three masters and nodes besides; what a node lacks of a master is left out.
fn fleet(count: usize) -> (Vec<FakeMachine>, Vec<HostState>) {
    let mut desired = all_desired(count, "1");
    for state in desired.iter_mut().skip(3) {
        state.units.retain(|unit| unit.stage == Stage::Node);
        state.files.retain(|file| !file.path.contains("etcd") && !file.path.contains("apiserver"));
        state.links.clear();
        state.data.clear();
    }
    (machines(count), desired)
}

#[derive(Debug, PartialEq, Eq)]
struct Storm {
    kills: usize,
    attempts: usize,
    counts: crate::host::fake::Counts,
    elapsed_ms: u64,
}

/// Applies under bad weather until it is done; each of the first attempts is killed somewhere.
fn weather_out(count: usize, seed: u64, kills: usize) -> Storm {
    let climate = Climate { seed, losses_ppm: 400, crashes_ppm: 200, latency_ms_max: 50 };
    let weather = Arc::new(Weather::new(climate));
    let (calm, desired) = fleet(count);
    assert!(is_whole(attempt(&calm, &desired, 3).as_ref()));
    let (machines, _) = fleet(count);
    let machines: Vec<_> = machines.into_iter().map(|m| m.under(weather.clone())).collect();
    let mut attempts = 0;
    loop {
        assert!(attempts < ATTEMPTS_MAX, "seed {seed}: not done after {attempts} attempts");
        // Somewhere in the first two thirds of what a whole run passes.
        let points = 40 * count as u64;
        let somewhere =
            seed.wrapping_mul(0x9e37_79b9).wrapping_add(7_919 * attempts as u64) % points;
        weather.begin((attempts < kills).then_some(somewhere), false);
        attempts += 1;
        if is_whole(attempt(&machines, &desired, 3).as_ref()) {
            break;
        }
    }
    let storm =
        Storm { kills, attempts, counts: weather.counts(), elapsed_ms: weather.elapsed_ms() };
    // A machine that crashed after its last step has units that run, and may lack a module.
    weather.calm_down();
    weather.begin(None, false);
    assert!(is_whole(attempt(&machines, &desired, 3).as_ref()), "seed {seed}");
    for ((machine, twin), state) in machines.iter().zip(&calm).zip(&desired) {
        assert_converged(machine, state);
        let name = &state.host;
        assert!(left_but_starts(machine) == left_but_starts(twin), "seed {seed}: {name}");
    }
    let again = attempt(&machines, &desired, 3).unwrap();
    assert!(again.hosts.is_empty(), "seed {seed}: there is still something to do");
    storm
}

/// As [`left`], without what units were started with: a crash starts them once more, later, when
/// files that are none of their inputs may already be there.
fn left_but_starts(machine: &FakeMachine) -> impl PartialEq + std::fmt::Debug + use<> {
    let state = machine.state();
    let mut record = state.record.clone();
    record.iter_mut().for_each(|record| record.generation = 0);
    let units: Vec<_> = (state.units.iter())
        .map(|(name, unit)| (name.clone(), unit.installed, unit.active, unit.enabled))
        .collect();
    let kernel = (state.sysctls.clone(), state.modules.clone(), state.images.clone());
    (state.paths.clone(), units, kernel, record, state.kept.clone())
}

#[test]
fn a_thousand_hosts_weather_losses_crashes_and_kills() {
    for seed in 1..=3 {
        let storm = weather_out(1000, seed, 2);
        println!("seed {seed}: {storm:?}");
        assert!(storm.counts.losses > 0 && storm.counts.crashes > 0, "{storm:?}");
        assert!(storm.attempts > storm.kills, "{storm:?}");
    }
}

#[test]
fn the_same_seed_brings_the_same_weather() {
    assert_eq!(weather_out(50, 9, 1), weather_out(50, 9, 1));
    assert_ne!(weather_out(50, 9, 1).elapsed_ms, weather_out(50, 10, 1).elapsed_ms);
}

#[test]
fn a_stalled_run_cannot_write_after_a_newer_one_has_begun() {
    let (machines, desired) = fleet(3);
    let connect = |owner: &str| {
        let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
        let lock = LockRequest { owner: owner.to_owned() };
        for (machine, state) in machines.iter().zip(&desired) {
            let mut host = machine.connect();
            let query = FactsQuery::for_state(state);
            facts.insert(state.host.clone(), host.facts(&query, Some(&lock)).unwrap());
            hosts.insert(state.host.clone(), host);
        }
        (hosts, facts)
    };
    let masters = desired.iter().map(|state| state.host.clone()).collect();
    let (mut old_hosts, old_facts) = connect("ann");
    let old = Lease::of_majority(&masters, &old_facts).unwrap();
    let plan = plan::plan(&desired, &old_facts);
    old.claim(&mut old_hosts, 3).unwrap();
    // Ann's machine sleeps. Bob takes her locks away on a majority, and claims the next number.
    machines.iter().for_each(|machine| drop(machine.connect().break_lock()));
    let (mut new_hosts, new_facts) = connect("bob");
    let new = Lease::of_majority(&masters, &new_facts).unwrap();
    assert_eq!((old.generation, new.generation), (1, 2));
    new.claim(&mut new_hosts, 3).unwrap();
    // Even where his run has ended, and nobody holds a lock, hers is over.
    drop(new_hosts);
    let stop = AtomicBool::new(false);
    let report =
        Execution { lease: Some(&old), ..execution(&desired, &plan, &stop) }.run(&mut old_hosts);
    assert!(report.hosts.values().all(|outcome| outcome.steps == 0), "{report:?}");
    let error = report.hosts["n1"].error.as_ref().unwrap().to_string();
    assert!(error.contains("the lease was noted on 0 masters, and 2 are needed"), "{error}");
    // A host whose lock she somehow has again refuses the number itself.
    let mut host = machines[0].connect();
    let again = LockRequest { owner: "ann".to_owned() };
    host.facts(&FactsQuery::default(), Some(&again)).unwrap();
    host.set_generation(old.generation);
    let step = [crate::step::Step::Reload];
    assert!(matches!(host.run(&step, &mut |_| {}), Err(HostError::LockLost)));
    assert!(machines.iter().all(|machine| machine.state().writes == 0));
    host.set_generation(new.generation + 1);
    host.run(&step, &mut |_| {}).unwrap();
}

#[test]
fn a_lease_needs_a_majority_of_the_masters() {
    let masters: BTreeSet<_> = ["a", "b", "c"].map(str::to_owned).into();
    let facts = |names: &[&str], fence| -> BTreeMap<_, _> {
        let facts = crate::facts::Facts { fence, ..crate::facts::Facts::default() };
        names.iter().map(|name| ((*name).to_owned(), facts.clone())).collect()
    };
    let lease = Lease::of_majority(&masters, &facts(&["a", "c", "node"], 6)).unwrap();
    assert_eq!((lease.generation, lease.needed, lease.witnesses.len()), (7, 2, 2));
    let error = Lease::of_majority(&masters, &facts(&["b", "node"], 6)).unwrap_err();
    assert_eq!(error, "a run needs 2 of 3 masters to hold the lease, and a, c cannot be had");
}
