//! How long kprov takes for hosts in memory: an apply that has nothing to do, and what one node more
//! costs. `apply HOSTS ROUND_TRIP_MS` prints its figures as one line of JSON.
//!
//! Everything is production's but the hosts: inventory, certificates, composition, facts, plan and
//! execution. A round trip is slept where a connection would wait for one: once to connect, once for
//! the facts. What SSH itself exchanges to log in is not modelled.

#![expect(clippy::print_stdout, reason = "figures are the result")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use provisioner::artifacts::Artifacts;
use provisioner::digest::Digest;
use provisioner::etcd::births::Births;
use provisioner::execute::{Execution, Hosts, Limits, Observer, Progress, in_parallel};
use provisioner::facts::{ENGINE, Facts, FactsQuery, LockRequest};
use provisioner::host::fake::{FakeMachine, FakeUnit};
use provisioner::inventory::{self, Rollout};
use provisioner::plan;
use provisioner::preflight;
use provisioner::render::Templates;
use provisioner::state::{Blob, HostState};
use serde_json::json;

/// Hosts worked on at the same time, as kprov does when nothing else is said.
const AT_ONCE: usize = 32;

fn main() {
    // Cargo adds flags of its own.
    let numbers = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let mut numbers = numbers.map(|arg| arg.parse::<u64>().expect("arguments are numbers"));
    let hosts = usize::try_from(numbers.next().unwrap_or(1_000)).expect("a number of hosts");
    let round_trip = Duration::from_millis(numbers.next().unwrap_or(20));
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut fleet = Fleet::new(scratch.path(), round_trip);
    let first = fleet.apply(hosts);
    let again = fleet.apply(hosts);
    assert_eq!(again.writes, 0, "the second apply has nothing to do");
    let more: Vec<_> = [3, 20].map(|hosts| fleet.one_more(hosts)).into();
    println!(
        "{}",
        json!({
            "hosts": hosts,
            "round_trip_ms": round_trip.as_millis(),
            "first_apply_s": first.took.as_secs_f64(),
            "noop_apply_s": again.took.as_secs_f64(),
            "noop_round_trips_a_host": again.round_trips as f64 / hosts as f64,
            "one_more_at_3_round_trips": more[0].round_trips,
            "one_more_at_20_round_trips": more[1].round_trips,
            "one_more_at_3_hosts_written": more[0].written,
            "one_more_at_20_hosts_written": more[1].written,
        })
    );
}

/// Machines in memory, and the state directory of their cluster.
struct Fleet<'a> {
    scratch: &'a Path,
    round_trip: Duration,
    machines: BTreeMap<String, FakeMachine>,
    clusters: usize,
}

/// What an apply took.
struct Applied {
    took: Duration,
    /// Of all hosts together: connections, questions, and what was sent and run.
    round_trips: u64,
    /// Changes on all hosts.
    writes: u64,
    /// Hosts with any.
    written: usize,
}

impl<'a> Fleet<'a> {
    fn new(scratch: &'a Path, round_trip: Duration) -> Self {
        Self { scratch, round_trip, machines: BTreeMap::new(), clusters: 0 }
    }

    /// What it costs to add a node to a new cluster of `hosts`, beyond asking all others.
    fn one_more(&mut self, hosts: usize) -> Applied {
        self.machines.clear();
        self.clusters += 1;
        self.apply(hosts);
        let asking = self.apply(hosts);
        let added = self.apply(hosts + 1);
        // Two more round trips are those to ask the new one.
        let round_trips = added.round_trips - asking.round_trips - 2;
        Applied { round_trips, ..added }
    }

    fn apply(&mut self, count: usize) -> Applied {
        let before: BTreeMap<_, _> = self.counters();
        let began = Instant::now();
        let (desired, rollout) = self.desired(count);
        let (mut hosts, facts) = self.ask(&desired);
        let plan = plan::plan(&desired, &facts).rolled(&rollout);
        for (state, host) in desired.iter().zip(&plan.hosts) {
            let problems = preflight::check(state, &facts[&state.host], host);
            assert!(problems.is_empty(), "{problems:?}");
        }
        let stop = AtomicBool::new(false);
        let execution = Execution {
            desired: &desired,
            plan: &plan,
            limits: Limits::until(began + Duration::from_secs(3_600), AT_ONCE),
            observer: &Silent,
            stop: &stop,
            lease: None,
            hooks: (&[], "bench"),
            nodes: &[],
            drain: false,
        };
        let report = execution.run(&mut hosts);
        assert!(report.is_success(), "{report:?}");
        let took = began.elapsed();
        let mut applied = Applied { took, round_trips: 0, writes: 0, written: 0 };
        for (name, (round_trips, writes)) in self.counters() {
            let (old_trips, old_writes) = before.get(&name).copied().unwrap_or_default();
            // A connection is one, too.
            applied.round_trips += round_trips - old_trips + 1;
            applied.writes += writes - old_writes;
            applied.written += usize::from(writes > old_writes);
        }
        applied
    }

    fn counters(&self) -> BTreeMap<String, (u64, u64)> {
        let count = |machine: &FakeMachine| {
            let state = machine.state();
            (state.round_trips, state.writes)
        };
        self.machines.iter().map(|(name, machine)| (name.clone(), count(machine))).collect()
    }

    /// What should be, from the inventory on, as every apply works it out.
    fn desired(&mut self, count: usize) -> (Vec<HostState>, Rollout) {
        let directory = self.scratch.join(self.clusters.to_string());
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let path = directory.join("c.toml");
        let text = format!(
            "[cluster]\nname = \"bench\"\npod_cidr = \"10.64.0.0/12\"\n[ssh]\nconfig = \"none\"\n\
             [groups.masters]\nhosts = [\"m-[1-3]\"]\naddress_first = \"10.0.0.1\"\n\
             roles = [\"etcd\", \"master\", \"node\"]\n{}",
            match count.saturating_sub(3) {
                0 => String::new(),
                nodes => format!(
                    "[groups.nodes]\nhosts = [\"n-[0001-{nodes:04}]\"]\n\
                     address_first = \"10.0.1.1\"\nroles = [\"node\"]\n"
                ),
            }
        );
        std::fs::write(&path, text).expect("a temporary directory");
        let inventory = inventory::load(&path).unwrap_or_else(|found| panic!("{found:?}"));
        let pki = provisioner::pki::ensure(&inventory, &directory, jiff::Timestamp::now())
            .expect("certificates can be made");
        let blob = |name: &str| Blob {
            sha256: Digest::of(name.as_bytes()),
            len: 1,
            source: name.into(),
            architecture: None,
            version: None,
        };
        let artifacts = Artifacts {
            hyperkube: blob("hyperkube"),
            hyperkube_image: None,
            etcd: blob("etcd"),
            images: Vec::new(),
            packages: Vec::new(),
            repository_keys: BTreeMap::new(),
        };
        let templates = Templates::embedded().expect("they are part of the program");
        let births = Births::of(&inventory);
        let desired =
            provisioner::compose::desired(&inventory, &pki, &births, &templates, &artifacts)
                .expect("the built-in templates can be rendered");
        for state in &desired {
            // With an engine: how long packages take to install is no figure of ours.
            let new = || {
                let machine = FakeMachine::new(&state.host);
                let engine = FakeUnit { installed: true, active: true, ..FakeUnit::default() };
                machine.state().units.insert(ENGINE.to_owned(), engine);
                machine
            };
            self.machines.entry(state.host.clone()).or_insert_with(new);
        }
        (desired, inventory.rollout)
    }

    fn ask(&self, desired: &[HostState]) -> (Hosts, BTreeMap<String, Facts>) {
        let lock = LockRequest { owner: "bench".to_owned() };
        let answers = in_parallel(desired.iter().collect(), AT_ONCE, |state: &HostState| {
            std::thread::sleep(2 * self.round_trip);
            let mut host = self.machines[&state.host].connect();
            let facts = host.facts(&FactsQuery::for_state(state), Some(&lock));
            (state.host.clone(), host, facts.expect("nothing befalls these hosts"))
        });
        let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
        for (name, host, found) in answers {
            hosts.insert(name.clone(), host);
            facts.insert(name, found);
        }
        (hosts, facts)
    }
}

struct Silent;

impl Observer for Silent {
    fn event(&self, _host: &str, _event: &Progress<'_>) {}
}
