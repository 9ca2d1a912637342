use super::*;
use crate::distribution::PackageManager;
use crate::facts::{FactsQuery, Listener, SWITCH_PROGRAM};
use crate::host::fake::FakeMachine;
use crate::plan;
use crate::record::{OwnedUnit, Record};
use crate::state::{Content, FileState, Gate, Mode, Owner, Protocol, Stage, UnitState};

fn state() -> HostState {
    let mut state = HostState::new("lab", "n1");
    state.authority = "ours".to_owned();
    state.docker = true;
    state.engine.install = true;
    let port = |port, unit: &str| PortUse { protocol: Protocol::Tcp, port, unit: unit.to_owned() };
    state.ports = vec![port(6443, "kube-apiserver.service"), port(2379, "etcd.service")];
    state.files.push(FileState {
        path: "/etc/kubernetes".to_owned(),
        mode: Mode::PUBLIC,
        owner: Owner::root(),
        content: Content::Text("x".repeat(4096)),
    });
    state
}

/// Spoils the facts of a good host and compares all that preflight says.
fn check_all(spoil: impl FnOnce(&mut Facts), expected: &[(&str, &str)]) {
    check_state(|_| {}, spoil, expected);
}

/// The same for another desired state.
fn check_state(
    change: impl FnOnce(&mut HostState),
    spoil: impl FnOnce(&mut Facts),
    expected: &[(&str, &str)],
) {
    let mut state = state();
    change(&mut state);
    let mut host = FakeMachine::new("n1").connect();
    let mut facts = host.facts(&FactsQuery::for_state(&state), None).unwrap();
    spoil(&mut facts);
    let all = [("n1".to_owned(), facts.clone())].into();
    let plan = plan::plan(std::slice::from_ref(&state), &all);
    let problems = check(&state, &facts, &plan.hosts[0]);
    let found: Vec<_> = problems.iter().map(|p| (p.check, p.message.as_str())).collect();
    assert_eq!(found, expected);
    assert!(problems.iter().all(|problem| !problem.advice.is_empty()));
}

#[test]
fn a_good_host_has_no_problems() {
    check_all(|_| {}, &[]);
}

#[test]
fn a_host_without_systemd_or_of_an_unknown_kind_is_refused() {
    check_all(
        |facts| {
            facts.systemd = false;
            facts.os.id = "plan9".to_owned();
            facts.os.pretty_name = "Plan 9".to_owned();
            facts.arch = "mips".to_owned();
            facts.missing_programs.insert("flock".to_owned());
        },
        &[
            ("systemd", "systemd is not running as the init process"),
            ("os", "Plan 9 is not a distribution that kprov supports"),
            ("arch", "the processor architecture mips is not supported"),
            ("program", "the program flock is missing"),
        ],
    );
}

#[test]
fn derived_distributions_are_known_by_what_they_are_like() {
    let like = |facts: &mut Facts| {
        facts.os.id = "linuxmint".to_owned();
        facts.os.id_like = "ubuntu debian".to_owned();
    };
    check_all(like, &[]);
}

#[test]
fn docker_must_be_there_and_answer() {
    check_state(
        |state| state.engine.install = false,
        |facts| facts.docker = DockerFact::Absent,
        &[("docker", "Docker is not installed")],
    );
    check_all(
        |facts| {
            facts.docker = DockerFact::Stopped;
            facts.units.entry(ENGINE.to_owned()).or_default().active = "active".to_owned();
        },
        &[("docker", "Docker runs but does not answer")],
    );
}

#[test]
fn open_vswitch_comes_from_the_distribution_or_is_there() {
    let needs = |state: &mut HostState| state.open_vswitch = true;
    check_state(needs, |_| (), &[]);
    let enterprise = |facts: &mut Facts| {
        let release = ("rocky".to_owned(), "9.4".to_owned(), "Rocky Linux 9.4".to_owned());
        (facts.os.id, facts.os.version_id, facts.os.pretty_name) = release;
        facts.managers = [PackageManager::Dnf].into();
    };
    let message = "Open vSwitch is not installed, and Rocky Linux 9.4 has no package of it";
    check_state(needs, enterprise, &[("packages", message)]);
    let by_hand = |facts: &mut Facts| {
        enterprise(facts);
        let (mode, owner) = (Mode(0o755), Owner::root());
        let program = PathFact::File { mode, owner, sha256: None, len: 1 };
        facts.paths.insert(SWITCH_PROGRAM.to_owned(), program);
    };
    check_state(needs, by_hand, &[]);
}

#[test]
fn dockers_own_file_must_leave_its_bridge_to_flanneld() {
    let spoil = |facts: &mut Facts| facts.engine_settings = ["bip".into(), "mtu".into()].into();
    let on_docker0 = |state: &mut HostState| {
        state.files.push(FileState {
            path: DOCKER_ON_FLANNEL.to_owned(),
            mode: Mode::PUBLIC,
            owner: Owner::root(),
            content: Content::Text("[Service]".to_owned()),
        });
    };
    let message = "/etc/docker/daemon.json sets bip, mtu, which `pod_bridge = \"docker0\"` leaves \
                   to flanneld";
    check_state(on_docker0, spoil, &[("pod-bridge", message)]);
    check_all(spoil, &[]);
}

#[test]
fn a_full_disk_is_found_before_anything_is_sent() {
    check_all(
        |facts| _ = facts.disk_free.insert("/".to_owned(), 60 << 20),
        &[("disk", "/ has 60.0 MB free, and 64.0 MB are needed")],
    );
}

#[test]
fn a_port_of_ours_in_foreign_hands_is_named_with_its_holder() {
    let listener = |port, unit: Option<&str>, program: &str| Listener {
        protocol: Protocol::Tcp,
        port,
        unit: unit.map(str::to_owned),
        program: Some(program.to_owned()),
    };
    check_all(
        |facts| {
            facts.listeners = vec![
                listener(6443, Some("nginx.service"), "nginx"),
                listener(2379, Some("etcd.service"), "etcd"),
            ];
        },
        &[("port", "port 6443/tcp of kube-apiserver.service is in use by nginx (nginx.service)")],
    );
}

#[test]
fn the_port_of_a_static_pod_is_held_by_a_container_of_ours() {
    let check = |program: &str, unit: Option<&str>, known: bool, expected: usize| {
        let mut state = state();
        let kubelet = || "kubelet.service".to_owned();
        state.ports = vec![PortUse { protocol: Protocol::Tcp, port: 6443, unit: kubelet() }];
        let mut host = FakeMachine::new("n1").connect();
        let mut facts = host.facts(&FactsQuery::for_state(&state), None).unwrap();
        let (unit, program) = (unit.map(str::to_owned), Some(program.to_owned()));
        facts.listeners = vec![Listener { protocol: Protocol::Tcp, port: 6443, unit, program }];
        let mut record = Record::new("lab", "n1");
        if known {
            let name = kubelet();
            record.units.push(OwnedUnit { name, existed: false, active: false, enabled: false });
        }
        facts.record = Some(record);
        let plan = crate::plan::nothing("n1");
        assert_eq!(super::check(&state, &facts, &plan).len(), expected, "{known}");
    };
    check("hyperkube", None, true, 0);
    check("hyperkube", None, false, 1);
    check("hyperkube", Some("other.service"), true, 1);
    check("nginx", None, true, 1);
}

#[test]
fn clocks_may_differ_by_half_a_minute() {
    check_all(|facts| facts.clock_skew_ms = -30_000, &[]);
    check_all(
        |facts| facts.clock_skew_ms = 45_600,
        &[("clock", "its clock is 45 s ahead of this machine's; 30 s are allowed")],
    );
}

#[test]
fn hosts_of_others_are_left_alone() {
    check_all(
        |facts| facts.record = Some(Record::new("prod", "n1")),
        &[("cluster", "it belongs to the cluster prod")],
    );
    let of = |authority: &str| {
        Some(Record { authority: authority.to_owned(), ..Record::new("lab", "n1") })
    };
    let message = "it belongs to a cluster lab of another certificate authority \
                   (theirs, here ours)";
    check_all(|facts| facts.record = of("theirs"), &[("authority", message)]);
    check_all(|facts| facts.record = of("ours"), &[]);
    check_all(
        |facts| facts.record = Some(Record::new("lab", "n7")),
        &[("name", "it was set up under the name n7")],
    );
}

#[test]
fn a_directory_in_the_way_of_a_file_is_refused() {
    check_all(
        |facts| {
            let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
            let fact = PathFact::Directory { mode, owner, empty: false };
            facts.paths.insert("/etc/kubernetes".to_owned(), fact);
        },
        &[("path", "/etc/kubernetes should be a file and is a directory")],
    );
}

#[test]
fn an_engine_that_is_missing_is_installed_where_there_is_one() {
    check_all(|facts| facts.docker = DockerFact::Absent, &[]);
    let rocky = |facts: &mut Facts| {
        facts.docker = DockerFact::Absent;
        facts.os.id = "rocky".to_owned();
        facts.os.version_id = "9.3".to_owned();
        facts.os.pretty_name = "Rocky Linux 9.3".to_owned();
        facts.managers = [crate::distribution::PackageManager::Dnf].into();
    };
    let message = "Docker is not installed, and Rocky Linux 9.3 has no package of it";
    check_all(rocky, &[("docker", message)]);
    let repository = |state: &mut HostState| {
        let (url, suite) = ("https://packages.example".to_owned(), Vec::new());
        state.engine.repository = Some(crate::state::RepositoryState { url, suite, key: None });
    };
    check_state(repository, rocky, &[]);
    check_all(
        |facts| {
            facts.docker = DockerFact::Absent;
            facts.managers.clear();
        },
        &[("packages", "it has no program that installs packages: docker.io")],
    );
}

#[test]
fn a_program_for_other_processors_is_named() {
    let blob = |state: &mut HostState| {
        state.files.push(FileState {
            path: "/usr/local/bin/etcd".to_owned(),
            mode: Mode::EXECUTABLE,
            owner: Owner::root(),
            content: Content::Blob(crate::state::Blob {
                sha256: crate::digest::Digest::of(b"etcd"),
                len: 4,
                source: "/nowhere".into(),
                architecture: Some(Architecture::Aarch64),
                version: None,
            }),
        });
    };
    let message = "/usr/local/bin/etcd would be a program for aarch64, and the host is x86_64";
    check_state(blob, |_| {}, &[("arch", message)]);
    check_state(blob, |facts| facts.arch = "aarch64".to_owned(), &[]);
}

#[test]
fn a_firewall_is_not_changed_where_that_is_not_safe() {
    let kind = |kind| Some(crate::firewall::FirewallFact::new(kind));
    let disable = |state: &mut HostState| state.firewall.policy = FirewallPolicy::Disable;
    let message = "nftables cannot be switched off without the rules of others, such as those of \
                   Docker";
    check_state(
        disable,
        |facts| facts.firewall = kind(FirewallKind::Nftables),
        &[("firewall", message)],
    );
    check_state(disable, |facts| facts.firewall = kind(FirewallKind::Ufw), &[]);
    let open = |state: &mut HostState| {
        let (protocol, port) = (Protocol::Tcp, 6443);
        let opening = crate::firewall::Opening::Port { protocol, port, from: None };
        state.firewall.openings.insert(opening);
    };
    let message = "the program systemd-run is missing, without which no change of a firewall is \
                   safe";
    check_state(
        open,
        |facts| {
            facts.firewall = kind(FirewallKind::Ufw);
            facts.missing_programs.insert("systemd-run".to_owned());
        },
        &[("firewall", message)],
    );
}

#[test]
fn memory_is_enough_for_the_hosts_roles() {
    let with = |units: &'static [&'static str]| {
        move |state: &mut HostState| {
            let unit = |name: &&str| UnitState {
                name: (*name).to_owned(),
                enabled: true,
                stage: Stage::Node,
                inputs: std::collections::BTreeSet::new(),
                health: Gate::Active,
            };
            state.units = units.iter().map(unit).collect();
        }
    };
    let small = |facts: &mut Facts| facts.memory = Some(500 << 20);
    check_state(with(&["kubelet.service"]), small, &[]);
    check_state(
        with(&["kubelet.service", "kube-apiserver.service"]),
        small,
        &[("memory", "it has 500.0 MB of memory, and 768.0 MB are needed for its roles")],
    );
    let unknown = |facts: &mut Facts| facts.memory = None;
    check_state(with(&["kubelet.service", "kube-apiserver.service"]), unknown, &[]);
}

#[test]
fn a_kernel_without_what_the_network_needs_is_refused() {
    let needs = |state: &mut HostState| {
        state.modules = ["vxlan", "nf_conntrack"].map(str::to_owned).into();
    };
    let lacks = |facts: &mut Facts| {
        facts.module_tree = true;
        facts.modules.insert("vxlan".to_owned(), ModuleFact::Unknown);
        facts.modules.insert("nf_conntrack".to_owned(), ModuleFact::Unknown);
    };
    check_state(needs, lacks, &[("kernel", "its kernel 6.1.0 has no vxlan")]);
    // A container sees no modules, and its kernel may well have them.
    let in_container = |facts: &mut Facts| {
        lacks(facts);
        facts.container = Some("docker".to_owned());
    };
    check_state(needs, in_container, &[]);
}

#[test]
fn two_names_of_one_machine_are_told() {
    let of =
        |machine: Option<&str>| Facts { machine: machine.map(str::to_owned), ..Facts::default() };
    let facts = [("a", Some("1")), ("b", None), ("c", Some("1")), ("d", None), ("e", Some("2"))];
    let facts = facts.map(|(name, machine)| (name.to_owned(), of(machine))).into();
    let found = twins(&facts);
    let found: Vec<_> = found.iter().map(|p| (p.host.as_str(), p.message.as_str())).collect();
    assert_eq!(found, [("c", "it is the same machine as a")]);
}
