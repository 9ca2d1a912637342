//! Hosts in memory join an etcd in memory, with runs that die at every step.

use std::sync::{Arc, Mutex};

use super::*;
use crate::artifacts::Artifacts;
use crate::cli::output::Console;
use crate::digest::Digest;
use crate::facts::LockRequest;
use crate::host::fake::etcd::{FakeEtcd, FakeMember};
use crate::host::fake::{FakeMachine, FakeUnit};
use crate::render::Templates;
use crate::state::Blob;

/// A cluster of `m-1` that the inventory wants to be one of three.
struct Lab {
    dir: tempfile::TempDir,
    machines: BTreeMap<String, FakeMachine>,
    etcd: Arc<Mutex<FakeEtcd>>,
}

/// Of three hosts, the first `members` have etcd; all others are nodes.
fn inventory(dir: &Path, members: usize) -> Inventory {
    let path = dir.join("c.toml");
    let mut text = "[cluster]\nname = \"c\"\n".to_owned();
    for number in 1..=3 {
        let roles = match (number, number <= members) {
            (1, _) => "\"etcd\", \"master\", \"node\"",
            (_, true) => "\"etcd\"",
            (_, false) => "\"node\"",
        };
        text += &format!(
            "[[hosts]]\nname = \"m-{number}\"\naddress = \"10.0.0.{number}\"\nroles = [{roles}]\n"
        );
    }
    std::fs::write(&path, text).unwrap();
    crate::inventory::load(&path).unwrap()
}

const ORDERS: [&str; 4] =
    ["add https://10.0.0.2:2380", "promote m-2", "add https://10.0.0.3:2380", "promote m-3"];

impl Lab {
    fn new() -> Self {
        let etcd = Arc::new(Mutex::new(FakeEtcd::of(&[("m-1", "10.0.0.1")])));
        let names = ["m-1", "m-2", "m-3"];
        let machine = |name: &str| {
            let machine = FakeMachine::new(name).with_etcd(&etcd);
            let mut docker = FakeUnit { installed: true, ..FakeUnit::default() };
            (docker.active, docker.enabled) = (true, true);
            machine.state().units.insert("docker.service".to_owned(), docker);
            (name.to_owned(), machine)
        };
        let machines = names.map(machine).into();
        Self { dir: tempfile::tempdir().unwrap(), machines, etcd }
    }

    /// An apply as the command does it, without the cluster's own answers.
    fn apply(&self, members: usize) -> Result<(), Failure> {
        let failed = |message: String| Failure::Other { message, advice: String::new() };
        let inventory = inventory(self.dir.path(), members);
        let now = jiff::Timestamp::now();
        let pki = crate::pki::ensure(&inventory, self.dir.path(), now).unwrap();
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
        let templates = Templates::embedded().unwrap();
        let compose = |births: &Births| {
            crate::compose::desired(&inventory, &pki, births, &templates, &artifacts).unwrap()
        };
        let known = Births::load(self.dir.path()).unwrap();
        let first = compose(&known.clone().unwrap_or_else(|| Births::of(&inventory)));
        let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
        for state in &first {
            let mut host = self.machines[&state.host].connect();
            let lock = LockRequest { owner: "test".to_owned() };
            let found = host.facts(&FactsQuery::for_state(state), Some(&lock));
            facts.insert(state.host.clone(), found.map_err(|error| failed(error.to_string()))?);
            hosts.insert(state.host.clone(), host);
        }
        let births = births(known, &inventory, &facts, &mut hosts);
        let ready = facts.keys().cloned().collect();
        let found = newcomers(&births, &ready, &inventory, &pki, &facts, &mut hosts);
        let (births, joins) = found.map_err(|problem| Failure::Unfit(vec![problem]))?;
        let desired = compose(&births);
        let plan = prepare::planned(&desired, &facts, &mut hosts, &inventory.rollout);
        let (mut prepared, began) = (
            Prepared {
                inventory,
                pki,
                addons: Vec::new(),
                desired,
                hosts,
                plan,
                facts,
                births,
                joins,
                unreachable: Vec::new(),
                unfit: Vec::new(),
                times: BTreeMap::new(),
                phases: Vec::new(),
            },
            Instant::now(),
        );
        let deadline = began + Duration::from_secs(60);
        let limits = Limits { gate: Duration::from_secs(1), ..Limits::until(deadline, 2) };
        let console = Console::for_tests();
        let diary = Diary::begin(self.dir.path(), &prepared, "apply", began, &[], &console);
        let lease = Lease::of_masters(&prepared.inventory, &prepared.facts)
            .map_err(|problem| Failure::Unfit(vec![problem]))?;
        let stop = AtomicBool::new(false);
        let settling = Settling {
            state_dir: self.dir.path(),
            limits,
            lease: &lease,
            diary: &diary,
            stop: &stop,
        };
        let execution = |desired, plan| Execution {
            desired,
            plan,
            limits,
            observer: &diary,
            stop: &stop,
            lease: Some(&lease),
            hooks: (&[], "c"),
            nodes: &[],
            drain: false,
        };
        let (desired, mut hosts) = (prepared.desired.clone(), std::mem::take(&mut prepared.hosts));
        let first = prepared.plan.clone();
        let mut report = execution(&desired, &first).begin(&mut hosts);
        prepared.hosts = hosts;
        settling.settle(&mut prepared, &mut report)?;
        let rest = prepared.plan.clone();
        let report = execution(&desired, &rest).go_on(&mut prepared.hosts, report);
        let error = report.hosts.into_values().find_map(|outcome| outcome.error);
        error.map_or(Ok(()), |error| Err(failed(error.to_string())))
    }

    fn starts(&self, host: &str, unit: &str) -> u64 {
        self.machines[host].state().starts.get(unit).copied().unwrap_or(0)
    }

    fn orders(&self) -> Vec<String> {
        self.etcd.lock().unwrap().orders.clone()
    }
}

#[test]
fn new_hosts_learn_and_vote_one_after_the_other_and_nothing_restarts_for_them() {
    let lab = Lab::new();
    lab.apply(1).unwrap();
    lab.etcd.lock().unwrap().behind = 2;
    lab.apply(3).unwrap();
    assert_eq!(lab.orders(), ORDERS);
    for host in ["m-1", "m-2", "m-3"] {
        assert_eq!(lab.starts(host, "etcd.service"), 1, "{host}");
    }
    let births = Births::load(lab.dir.path()).unwrap().unwrap();
    assert_eq!(births.told_to("m-1"), ("m-1=https://10.0.0.1:2380", "new"));
    let told = "m-1=https://10.0.0.1:2380,m-2=https://10.0.0.2:2380";
    assert_eq!(births.told_to("m-2"), (told, "existing"));
    // Another apply has nothing to do.
    let writes = |lab: &Lab| lab.machines.values().map(|m| m.state().writes).sum::<u64>();
    let before = writes(&lab);
    lab.apply(3).unwrap();
    assert_eq!((writes(&lab), lab.orders().len()), (before, 4));
}

#[test]
fn a_join_that_dies_at_any_step_is_taken_up_by_the_next_apply() {
    let lab = Lab::new();
    lab.apply(1).unwrap();
    let file = lab.dir.path().join("etcd-members.json");
    let births = std::fs::read(&file).unwrap();
    let states: Vec<_> = lab.machines.values().map(|machine| machine.state().clone()).collect();
    let mut cuts = 0;
    for cut in 0.. {
        for (machine, state) in lab.machines.values().zip(&states) {
            machine.state().clone_from(state);
        }
        std::fs::write(&file, &births).unwrap();
        *lab.etcd.lock().unwrap() = FakeEtcd::of(&[("m-1", "10.0.0.1")]);
        lab.machines["m-2"].state().cut_after = Some(cut);
        let died = lab.apply(3).is_err();
        lab.machines["m-2"].state().cut_after = None;
        if !died {
            break;
        }
        cuts += 1;
        lab.apply(3).unwrap_or_else(|failure| panic!("cut {cut}: {failure:?}"));
        assert_eq!(lab.orders(), ORDERS, "cut {cut}");
        assert_eq!(lab.starts("m-1", "etcd.service"), 1, "cut {cut}");
        for host in ["m-2", "m-3"] {
            assert!(lab.machines[host].state().units["etcd.service"].active, "cut {cut}");
        }
        let births = Births::load(lab.dir.path()).unwrap().unwrap();
        assert!(births.newcomers(&inventory(lab.dir.path(), 3)).is_empty(), "cut {cut}");
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_member_whose_role_was_taken_is_not_stopped_before_it_is_removed() {
    let lab = Lab::new();
    lab.apply(1).unwrap();
    lab.apply(3).unwrap();
    let Err(failure) = lab.apply(1) else { panic!("not refused") };
    assert_eq!(failure.message(), "m-2: it has lost the role etcd and is a member of it");
    assert!(lab.machines["m-2"].state().units["etcd.service"].active);
    lab.etcd.lock().unwrap().members.truncate(1);
    lab.apply(1).unwrap();
    assert!(!lab.machines["m-2"].state().units["etcd.service"].active);
}

#[test]
fn a_join_is_under_the_lease_of_its_run() {
    let lab = Lab::new();
    lab.apply(1).unwrap();
    let fence = |lab: &Lab, host: &str| lab.machines[host].state().fence;
    let before = fence(&lab, "m-1");
    assert!(before > 0);
    lab.apply(3).unwrap();
    // The only master has nothing to do itself, and notes the generation all the same.
    assert_eq!(fence(&lab, "m-1"), before + 1);
    assert_eq!(fence(&lab, "m-3"), before + 1);
}

#[test]
fn only_hosts_that_are_chosen_and_answer_join_and_no_saved_plan_holds_that() {
    let lab = Lab::new();
    lab.apply(1).unwrap();
    let inventory = inventory(lab.dir.path(), 3);
    let pki = crate::pki::ensure(&inventory, lab.dir.path(), jiff::Timestamp::now()).unwrap();
    let known = Births::load(lab.dir.path()).unwrap().unwrap();
    let (mut hosts, mut facts) = (Hosts::new(), BTreeMap::new());
    for (name, machine) in &lab.machines {
        let mut host = machine.connect();
        facts.insert(name.clone(), host.facts(&FactsQuery::default(), None).unwrap());
        hosts.insert(name.clone(), host);
    }
    let mut ask = |ready: &[&str]| {
        let ready = ready.iter().map(|name| (*name).to_owned()).collect();
        newcomers(&known, &ready, &inventory, &pki, &facts, &mut hosts)
    };
    let (births, joins) = ask(&["m-1", "m-3"]).unwrap();
    let lines: Vec<_> = joins.iter().map(|planned| planned.change.to_string()).collect();
    let expected = ["add m-3 as a learner", "start etcd on m-3 and let it catch up", "promote m-3"];
    assert_eq!(lines, expected);
    assert!(births.knows("m-3") && !births.knows("m-2"));
    assert!(ask(&["m-1"]).unwrap().1.is_empty());
    assert!(none_join(&[], Exit::Failed).is_ok());
    let refused = none_join(&joins, Exit::Drifted).unwrap_err();
    assert!(matches!(refused, Failure::Coded { exit: Exit::Drifted, .. }), "{refused:?}");
    assert!(refused.message().contains("add m-3 as a learner"), "{refused:?}");
    lab.etcd.lock().unwrap().members.push(FakeMember {
        id: 99,
        name: String::new(),
        peer_url: "https://10.0.0.2:2380".to_owned(),
        is_learner: true,
    });
    let problem = ask(&["m-1", "m-3"]).unwrap_err();
    assert_eq!(problem.host, "m-3");
    assert_eq!(problem.message, "it cannot join etcd before m-2, which is halfway in");
}

#[test]
fn what_passes_by_itself_is_waited_for() {
    let add = Change::AddLearner { name: "m".to_owned(), peer_url: String::new() };
    let promote = Change::Promote { id: 1, name: "m".to_owned() };
    assert!(is_unsettled(
        "etcd at 10.0.0.2:2379 did not add a member: etcdserver: unhealthy cluster"
    ));
    assert!(!is_unsettled("etcdserver: member ID already exist"));
    let behind = "etcdserver: can only promote a learner member which is in sync with leader";
    assert!(is_behind(&promote, behind) && !is_behind(&add, behind));
}
