use super::*;
use crate::facts::{FactsQuery, LoadedImage, PathFact, UnitFact};
use crate::firewall::{FirewallFact, FirewallKind, Opening};
use crate::host::fake::FakeMachine;
use crate::inventory::FirewallPolicy;
use crate::secret::Secret;
use crate::state::{FileState, ImageState, LinkState, Mode, Owner, UnitState};
use insta::assert_snapshot;

fn state() -> HostState {
    let mut state = HostState::new("lab", "n1");
    let file = |path: &str, content| FileState {
        path: path.to_owned(),
        mode: Mode::PUBLIC,
        owner: Owner::root(),
        content,
    };
    state.files = vec![
        file("/etc/kubernetes/kubelet", Content::Text("--v=4\n--port=1\n".to_owned())),
        file("/etc/kubernetes/pki/ca.key", Content::Secret(Secret::new("SENSITIVE"))),
        file("/etc/systemd/system/kubelet.service", Content::Text("[Unit]\n".to_owned())),
    ];
    let (path, target) = ("/usr/local/bin/kubelet".to_owned(), "hyperkube".to_owned());
    state.links.push(LinkState { path, target });
    state.units.push(UnitState {
        name: "kubelet.service".to_owned(),
        enabled: true,
        stage: Stage::Node,
        inputs: [
            "/etc/kubernetes/kubelet",
            "/etc/kubernetes/pki/ca.key",
            "/etc/systemd/system/kubelet.service",
        ]
        .map(str::to_owned)
        .into(),
        health: Gate::Active,
    });
    state.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    state
}

fn bare(state: &HostState) -> Facts {
    FakeMachine::new("n1").connect().facts(&FactsQuery::for_state(state), None).unwrap()
}

/// Facts of a host that is as `state` says.
fn settled(state: &HostState) -> Facts {
    let mut facts = bare(state);
    for file in &state.files {
        let (mode, owner) = (file.mode, file.owner.clone());
        let (sha256, len) = (Some(file.content.digest()), file.content.len());
        facts.paths.insert(file.path.clone(), PathFact::File { mode, owner, sha256, len });
    }
    for link in &state.links {
        let fact = PathFact::Link { target: link.target.clone() };
        facts.paths.insert(link.path.clone(), fact);
    }
    for path in ["/etc/kubernetes", "/etc/kubernetes/pki"] {
        let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
        facts.paths.insert(path.to_owned(), PathFact::Directory { mode, owner, empty: false });
    }
    for unit in &state.units {
        let fact = UnitFact {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            enablement: "enabled".to_owned(),
            needs_reload: false,
        };
        facts.units.insert(unit.name.clone(), fact);
        facts.started.extend(inputs::digest(state, unit).map(|d| (unit.name.clone(), d)));
    }
    facts.sysctls = state.sysctls.clone();
    // What the first apply of a bare host would have recorded.
    let all = [("n1".to_owned(), bare(state))].into();
    let first = plan(std::slice::from_ref(state), &all);
    let steps = &first.hosts[0].batches.values().last().unwrap().steps;
    let [.., Step::WriteRecord { record }, Step::ClearStaging] = &steps[..] else {
        panic!("no record at the end")
    };
    facts.record = Some((**record).clone());
    facts
}

fn plan_of(state: &HostState, facts: Facts) -> Plan {
    plan(std::slice::from_ref(state), &[("n1".to_owned(), facts)].into())
}

fn steps(plan: &Plan) -> String {
    let mut out = String::new();
    for (stage, batch) in &plan.hosts[0].batches {
        out.push_str(&format!("{stage}:\n"));
        for step in &batch.steps {
            out.push_str(&format!("  {}\n", step.describe()));
        }
    }
    out
}

#[test]
fn a_bare_host_gets_everything_in_order() {
    let state = state();
    let plan = plan_of(&state, bare(&state));
    assert_snapshot!(summary(&plan, &BTreeMap::new()), @r"
    n1: generation 1
      + directory /etc/kubernetes
      + directory /etc/kubernetes/pki
      + file /etc/kubernetes/kubelet (15 B)
      + file /etc/kubernetes/pki/ca.key (secret)
      + file /etc/systemd/system/kubelet.service (7 B)
      + link /usr/local/bin/kubelet -> hyperkube
      + sysctl net.ipv4.ip_forward = 1
      + enable kubelet.service
      + start kubelet.service
    ");
    assert_snapshot!(steps(&plan), @r"
    host:
      write the record
      prepare restart of kubelet.service
      make directory /etc/kubernetes
      make directory /etc/kubernetes/pki
      link /usr/local/bin/kubelet
      set net.ipv4.ip_forward = 1
    node:
      install /etc/kubernetes/kubelet
      install /etc/kubernetes/pki/ca.key
      install /etc/systemd/system/kubelet.service
      enable kubelet.service
      reload systemd
      start kubelet.service
      note the start of kubelet.service
      write the record
      clear the staging area
    ");
}

#[test]
fn a_settled_host_gets_nothing() {
    let state = state();
    let plan = plan_of(&state, settled(&state));
    assert!(plan.is_empty(), "{}", steps(&plan));
    assert_eq!(summary(&plan, &BTreeMap::new()), "n1: up to date\n");
}

#[test]
fn a_changed_text_is_shown_as_a_diff_and_a_secret_is_not() {
    let mut state = state();
    let facts = settled(&state);
    state.files[0].content = Content::Text("--v=4\n--port=2\n".to_owned());
    state.files[1].content = Content::Secret(Secret::new("OTHER"));
    let plan = plan_of(&state, facts);
    let host = &plan.hosts[0];
    assert_eq!(host.diffable(), ["/etc/kubernetes/kubelet"]);
    let now = [(host.diffable()[0].clone(), "--v=4\n--port=1\n".to_owned())].into();
    let diffs = [("n1".to_owned(), host.diffs(&state, &now, false))].into();
    let text = summary(&plan, &diffs);
    assert_snapshot!(text, @r"
    n1: generation 2
      ~ file /etc/kubernetes/kubelet (15 B)
          @@ -1,2 +1,2 @@
           --v=4
          ---port=1
          +--port=2
      ~ file /etc/kubernetes/pki/ca.key (secret changed)
      ~ restart kubelet.service (because of /etc/kubernetes/kubelet and 1 more)
    ");
    let json = serde_json::to_string(&plan).unwrap();
    assert!(!json.contains("SENSITIVE") && !json.contains("OTHER"), "{json}");
}

#[test]
fn a_firewall_is_left_alone_and_its_ports_are_named() {
    let mut state = state();
    let (protocol, unit) = (crate::state::Protocol::Tcp, "kubelet.service".to_owned());
    state.ports.push(crate::state::PortUse { protocol, port: 10250, unit });
    let mut facts = settled(&state);
    facts.firewall = Some(FirewallFact::new(FirewallKind::Firewalld));
    state.firewall.policy = FirewallPolicy::None;
    assert_snapshot!(summary(&plan_of(&state, facts), &BTreeMap::new()), @r"
    n1: up to date
      ! firewalld is on: let the other hosts reach 10250/tcp here
    ");
}

#[test]
fn a_start_that_was_never_marked_is_done_again() {
    let state = state();
    let mut facts = settled(&state);
    facts.started.clear();
    assert_snapshot!(summary(&plan_of(&state, facts), &BTreeMap::new()), @r"
    n1: generation 2
      ~ restart kubelet.service (it runs with older inputs)
    ");
}

#[test]
fn attributes_alone_send_no_bytes() {
    let mut state = state();
    let facts = settled(&state);
    state.files[0].mode = Mode::PRIVATE;
    let plan = plan_of(&state, facts);
    assert_eq!(plan.hosts[0].upload_bytes(), 0);
    assert!(steps(&plan).contains("set mode and owner of /etc/kubernetes/kubelet"));
}

#[test]
fn an_image_with_an_id_of_the_engines_own_is_loaded_once() {
    let mut state = state();
    let archive = Blob {
        sha256: Digest::of(b"tar"),
        len: 3,
        source: "/nowhere".into(),
        architecture: None,
        version: None,
    };
    let (reference, id) = ("kprov/pause:1".to_owned(), "sha256:aa".to_owned());
    state.images.push(ImageState { reference: reference.clone(), id, archive: archive.clone() });
    let mut facts = settled(&state);
    assert_eq!(plan_of(&state, facts.clone()).hosts[0].upload_bytes(), 3);
    facts.images.insert(reference.clone(), "sha256:bb".to_owned());
    assert!(!plan_of(&state, facts.clone()).is_empty());
    let loaded = LoadedImage { archive: archive.sha256, id: "sha256:bb".to_owned() };
    facts.loaded.insert(reference, loaded);
    assert!(plan_of(&state, facts).is_empty());
}

#[test]
fn running_masters_change_one_at_a_time_and_fresh_ones_at_once() {
    let host = |name: &str, interrupts| {
        let batch = Batch { interrupts, ..Batch::default() };
        HostPlan {
            host: name.to_owned(),
            generation: 1,
            changes: Vec::new(),
            batches: [(Stage::Etcd, batch.clone()), (Stage::Node, batch)].into(),
            uploads: BTreeMap::new(),
            warnings: Vec::new(),
        }
    };
    let hosts = [host("a", true), host("b", false), host("c", true), host("d", false)];
    let waves: Vec<_> = waves(&hosts, &Rollout::AT_ONCE)
        .iter()
        .map(|wave| format!("{}: {}", wave.stage, wave.hosts.join(" ")))
        .collect();
    assert_eq!(waves, ["etcd: b d", "etcd: a", "etcd: c", "node: a b c d"]);
}

fn with_firewall(kind: FirewallKind) -> (HostState, Facts) {
    let mut state = state();
    let (protocol, unit) = (crate::state::Protocol::Tcp, "kubelet.service".to_owned());
    state.ports.push(crate::state::PortUse { protocol, port: 10250, unit });
    let opening = Opening::port_for(protocol, 10250, ["10.0.0.1".parse().unwrap()]);
    state.firewall.openings.extend(opening);
    let mut facts = settled(&state);
    facts.firewall = Some(FirewallFact::new(kind));
    (state, facts)
}

#[test]
fn a_firewall_is_opened_under_guard_and_confirmed() {
    let (state, facts) = with_firewall(FirewallKind::Firewalld);
    let plan = plan_of(&state, facts);
    assert_snapshot!(summary(&plan, &BTreeMap::new()), @r#"
    n1: generation 2
      + firewalld: public rule family="ipv4" source address="10.0.0.1" port port="10250" protocol="tcp" accept
    "#);
    assert_snapshot!(steps(&plan), @r"
    host:
      write the record
      guard the firewall
      add 1 rules to firewalld
      confirm the firewall over a new connection
      write the record
    ");
    let record = plan.hosts[0].batches[&Stage::HostPrep].steps.last();
    let Some(Step::WriteRecord { record }) = record else { panic!("{record:?}") };
    assert_eq!(record.rules[&FirewallKind::Firewalld].len(), 1);
}

#[test]
fn a_rule_of_the_owners_stays_the_owners() {
    let (state, mut facts) = with_firewall(FirewallKind::Ufw);
    let firewall = facts.firewall.as_mut().unwrap();
    let rule = "allow tcp 10250 0.0.0.0/0 any 10.0.0.1 in".to_owned();
    firewall.permanent.insert(rule.clone());
    firewall.runtime.insert(rule);
    assert!(plan_of(&state, facts).is_empty());
}

#[test]
fn a_firewall_is_switched_off_only_by_name_and_with_a_warning() {
    let (mut state, mut facts) = with_firewall(FirewallKind::Ufw);
    state.firewall.policy = FirewallPolicy::Disable;
    let plan = plan_of(&state, facts.clone());
    assert_snapshot!(summary(&plan, &BTreeMap::new()), @r#"
    n1: generation 2
      ~ ufw OFF
      ! ufw is switched off, because the inventory says `firewall = "disable"`: every port of the host can be reached
    "#);
    let Some(Step::WriteRecord { record }) =
        plan.hosts[0].batches[&Stage::HostPrep].steps.last().cloned()
    else {
        panic!("no record at the end")
    };
    assert_eq!(record.firewall_off, Some(FirewallKind::Ufw));
    // It is off; nothing switches it on but a reset.
    facts.firewall = None;
    facts.record = Some(*record.clone());
    assert!(plan_of(&state, facts.clone()).is_empty());
    state.firewall.policy = FirewallPolicy::Auto;
    let plan = plan_of(&state, facts.clone());
    assert!(plan.is_empty());
    assert!(plan.hosts[0].warnings[0].starts_with("ufw stays off"), "{:?}", plan.hosts[0].warnings);
    let back = reset("n1", &facts);
    let told: Vec<_> = back.batches[&Stage::HostPrep].steps.iter().map(Step::describe).collect();
    assert!(told.contains(&"switch ufw on".to_owned()), "{told:?}");
}

#[test]
fn an_engine_comes_from_the_distribution_or_the_inventory() {
    let mut state = state();
    state.docker = true;
    state.engine.install = true;
    let mut facts = settled(&state);
    facts.docker = crate::facts::DockerFact::Absent;
    let installs = |state: &HostState, facts: &Facts| {
        let text = summary(&plan_of(state, facts.clone()), &BTreeMap::new());
        let lines =
            text.lines().filter(|line| line.contains("packages") || line.contains("kprov."));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(installs(&state, &facts), ["+ packages docker.io (with apt-get)"]);
    state.engine.packages = ["docker-ce=5:24".to_owned()].into();
    state.packages = ["nfs-common".to_owned(), "curl".to_owned()].into();
    facts.packages.insert("curl".to_owned());
    let expected = ["+ packages docker-ce=5:24 nfs-common (with apt-get)"];
    assert_eq!(installs(&state, &facts), expected);
    state.engine.packages.clear();
    state.packages.clear();
    let (url, suite) = ("https://packages.example".to_owned(), Vec::new());
    state.engine.repository = Some(crate::state::RepositoryState { url, suite, key: None });
    let expected = [
        "+ file /etc/apt/sources.list.d/kprov.list (98 B)",
        "+ packages containerd.io docker-ce docker-ce-cli (with apt-get)",
    ];
    assert_eq!(installs(&state, &facts), expected);
    facts.managers.clear();
    assert_eq!(installs(&state, &facts).len(), 1);
}

#[test]
fn a_clock_that_nobody_keeps_is_warned_of() {
    let state = state();
    let mut facts = settled(&state);
    facts.time_service = None;
    assert_snapshot!(summary(&plan_of(&state, facts.clone()), &BTreeMap::new()), @r"
    n1: up to date
      ! nothing keeps its clock right: run chronyd, ntpd or systemd-timesyncd
    ");
    facts.container = Some("docker".to_owned());
    assert_eq!(summary(&plan_of(&state, facts), &BTreeMap::new()), "n1: up to date\n");
}

#[test]
fn labels_are_set_where_selinux_is_enforcing() {
    let state = state();
    let mut facts = settled(&state);
    facts.selinux_enforcing = true;
    facts.mislabelled.insert("/etc/kubernetes/kubelet".to_owned());
    let plan = plan_of(&state, facts);
    assert_snapshot!(summary(&plan, &BTreeMap::new()), @r"
    n1: generation 2
      ~ label of /etc/kubernetes/kubelet
    ");
    let mut facts = bare(&state);
    facts.selinux_enforcing = true;
    let told = steps(&plan_of(&state, facts));
    assert!(told.contains("install /etc/kubernetes/kubelet\n  label /etc/kubernetes/kubelet\n"));
    assert!(told.contains("link /usr/local/bin/kubelet\n  label /usr/local/bin/kubelet\n"));
}
