use super::super::plan;
use super::*;
use crate::facts::{FactsQuery, PathFact};
use crate::host::fake::FakeMachine;
use crate::inventory::{HookMoment, HookPlace, Phase, Rollout};
use crate::secret::Secret;
use crate::state::{Content, FileState, Mode, Owner};

fn desired(host: &str, text: &str) -> HostState {
    let mut state = HostState::new("lab", host);
    state.authority = "aabbccddeeff00112233".to_owned();
    let file = |path: &str, content| FileState {
        path: path.to_owned(),
        mode: Mode::PRIVATE,
        owner: Owner::root(),
        content,
    };
    state.files = vec![
        file("/etc/a.conf", Content::Text(text.to_owned())),
        file("/etc/a.key", Content::Secret(Secret::new("KEY MATERIAL"))),
    ];
    state
}

fn source() -> PlanSource {
    let (inventory, state_dir) = ("/inv/a.toml".into(), "/inv/.kprov/lab".into());
    PlanSource { inventory, state_dir, templates: None, local: false }
}

struct Case {
    machines: Vec<FakeMachine>,
    states: Vec<HostState>,
    saved: SavedPlan,
}

fn facts(machines: &[FakeMachine], states: &[HostState]) -> BTreeMap<String, Facts> {
    let ask = |(machine, state): (&FakeMachine, &HostState)| {
        let facts = machine.connect().facts(&FactsQuery::for_state(state), None).unwrap();
        (state.host.clone(), facts)
    };
    machines.iter().zip(states).map(ask).collect()
}

fn again(states: &[HostState], facts: &BTreeMap<String, Facts>) -> Plan {
    plan(states, facts).rolled(&Rollout::default())
}

impl Case {
    fn new() -> Self {
        let machines = vec![FakeMachine::new("n1"), FakeMachine::new("n2")];
        let states = vec![desired("n1", "one\n"), desired("n2", "two\n")];
        let facts = facts(&machines, &states);
        let plan = again(&states, &facts);
        let saved = SavedPlan::new(plan, &states, &facts, source(), &[], &[]);
        Self { machines, states, saved }
    }

    fn check_hosts(&self) -> Result<Plan, SavedPlanError> {
        let facts = facts(&self.machines, &self.states);
        self.saved.check_hosts(&self.states, &facts, &again(&self.states, &facts))
    }
}

#[test]
fn a_plan_survives_its_file_and_brings_the_same_bytes() {
    let case = Case::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.kplan");
    case.saved.write(&path).unwrap();
    assert!(is_saved_plan(&path));
    let read = SavedPlan::read(&path).unwrap();
    // Uploads do not travel: they are found again.
    assert_eq!(read.basis, case.saved.basis);
    read.check_inputs(&case.states, &[], &[]).unwrap();
    let facts = facts(&case.machines, &case.states);
    let again = again(&case.states, &facts);
    let exact = read.check_hosts(&case.states, &facts, &again).unwrap();
    assert_eq!(exact, case.saved.plan);
    assert_eq!(exact.hosts[0].uploads.len(), 2);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("MATERIAL") && !text.contains("one\\n"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_changed_host_is_named_with_what_has_changed() {
    let case = Case::new();
    case.check_hosts().unwrap();
    let (mode, owner, sha256) = (Mode::PUBLIC, Owner::root(), Some(Digest::of(b"theirs")));
    let theirs = PathFact::File { mode, owner, sha256, len: 6 };
    case.machines[1].state().paths.insert("/etc/a.conf".to_owned(), theirs);
    let error = case.check_hosts().unwrap_err();
    assert!(matches!(&error, SavedPlanError::Drifted(hosts) if hosts.len() == 1));
    let text = error.to_string();
    assert!(text.contains("n2: paths /etc/a.conf was not there, is"), "{text}");
    // What changes by itself is no drift.
    case.machines[1].state().paths.remove("/etc/a.conf");
    case.machines[1].state().base.disk_free.insert("/".to_owned(), 1);
    case.machines[1].state().images.insert("theirs:1".to_owned(), "sha256:x".to_owned());
    case.machines[1].state().base.clock_skew_ms = 5;
    case.check_hosts().unwrap();
}

#[test]
fn changed_inputs_are_named() {
    let mut case = Case::new();
    case.states[0] = desired("n1", "other\n");
    let error = case.saved.check_inputs(&case.states, &[], &[]).unwrap_err();
    assert!(matches!(error, SavedPlanError::Inputs(_)));
    assert!(error.to_string().contains("n1: file /etc/a.conf was"), "{error}");
    let states = [desired("n1", "one\n")];
    let error = case.saved.check_inputs(&states, &[], &[]).unwrap_err();
    assert!(error.to_string().contains("n2: it is no longer in the inventory"), "{error}");
    let hook = Hook {
        name: "h".to_owned(),
        moment: HookMoment::Before,
        phase: Phase::Apply,
        on: HookPlace::Operator,
        hosts: std::collections::BTreeSet::new(),
        command: "true".to_owned(),
        timeout: std::time::Duration::from_secs(1),
    };
    let states = [desired("n1", "one\n"), desired("n2", "two\n")];
    let error = case.saved.check_inputs(&states, &[hook], &[]).unwrap_err();
    assert!(error.to_string().contains("hooks"), "{error}");
    let (name, objects) = ("dns".to_owned(), Vec::new());
    let addon = Addon { name, objects, wait: None };
    let error = case.saved.check_inputs(&states, &[], &[addon]).unwrap_err();
    assert!(error.to_string().contains("addons"), "{error}");
    case.saved.check_inputs(&states, &[], &[]).unwrap();
}

#[test]
fn a_plan_of_another_cluster_is_refused() {
    let mut case = Case::new();
    case.states[1].authority = "ffff".to_owned();
    let error = case.saved.check_inputs(&case.states, &[], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plan is of another cluster: lab (authority aabbccddeeff), here lab (authority ffff)"
    );
}

#[test]
fn files_of_other_versions_and_damaged_ones_are_refused() {
    let case = Case::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.kplan");
    let check = |saved: &SavedPlan, edit: &dyn Fn(String) -> String, expected: &str| {
        saved.write(&path).unwrap();
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
        let error = SavedPlan::read(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let newer = SavedPlan { format: 3, ..case.saved.clone() };
    check(&newer, &|text| text, "format 3");
    let other = SavedPlan { version: "9.9.9".to_owned(), ..case.saved.clone() };
    check(&other, &|text| text, "kprov 9.9.9");
    check(&case.saved, &|text| text.replace("/etc/a.conf", "/etc/b.conf"), "cut or edited");
    check(&case.saved, &|text| text[..text.len() / 2].to_owned(), "no usable plan");
    check(&case.saved, &|text| text.replace("kprov-plan", "other"), "calls itself");
    assert!(!is_saved_plan(Path::new("/nonexistent")));
    fs::write(&path, "[cluster]\n").unwrap();
    assert!(!is_saved_plan(&path));
}
