use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn times_are_read_with_their_units() {
    let check = |text: &str, seconds: Option<u64>| {
        assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
    };
    check("90", Some(90));
    check("90s", Some(90));
    check("10m", Some(600));
    check("2h", Some(7200));
    check("0", None);
    check("3 weeks", None);
    check("999999999999999999m", None);
    check("m", None);
}

#[test]
fn every_command_has_help_that_says_what_it_does() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for below in command.get_subcommands() {
            let names = (command.get_name(), below.get_name());
            assert!(below.get_about().is_some(), "{names:?}");
        }
    }
    let cli = Cli::try_parse_from(["kprov", "apply", "a.toml", "--timeout", "90s", "-vv"]).unwrap();
    assert_eq!(cli.verbosity(), 2);
    assert!(Cli::try_parse_from(["kprov", "apply"]).is_err());
    assert!(Cli::try_parse_from(["kprov", "apply", "a.toml", "--parallel", "0"]).is_err());
}

#[test]
fn hosts_can_be_chosen_wherever_hosts_are_asked() {
    for command in ["plan", "apply", "diff", "status", "reset", "unlock"] {
        let line = ["kprov", command, "a.toml", "--hosts", "a,b-[1-3]", "--tags", "x,y"];
        assert!(Cli::try_parse_from(line).is_ok(), "{command}");
        let both = ["kprov", command, "a.toml", "--parallel", "3", "--groups", "x"];
        assert!(Cli::try_parse_from(both).is_ok(), "{command}");
    }
    let line = ["kprov", "plan", "a.toml", "-o", "p.kplan", "--output", "json"];
    assert!(Cli::try_parse_from(line).is_ok());
    assert!(Cli::try_parse_from(["kprov", "plan", "a.toml", "--diff", "--no-diff"]).is_err());
}

#[test]
fn exit_codes_are_distinct_and_documented() {
    let codes = [
        Exit::Ok,
        Exit::Failed,
        Exit::BadInventory,
        Exit::Unfit,
        Exit::Partial,
        Exit::Changes,
        Exit::Unreached,
        Exit::Drifted,
        Exit::ForeignPlan,
        Exit::InputsChanged,
        Exit::Interrupted,
    ];
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for code in codes {
        let code = code as u8;
        assert!(AFTER_HELP.contains(&format!("{code} ")), "{code}");
        assert!(guide.contains(&format!("\n| {code} | ")), "{code}");
    }
}

#[test]
fn kinds_of_certificates_and_stages_are_checked_on_the_command_line() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop);
    let good = [
        "kprov certs list a.toml --offline",
        "kprov certs renew a.toml --hosts n1,n2 --kind apiserver,etcd-peer --no-wait",
        "kprov certs rotate-ca a.toml --authority etcd --stop-after issue --yes",
        "kprov certs csr a.toml --authority cluster",
        "kprov etcd remove a.toml n3 --yes",
        "kprov replace a.toml n3",
        "kprov restore a.kbackup a.toml --yes",
        "kprov import 10.0.0.1 10.0.0.2 --to b.toml",
    ];
    for line in good {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
    let unknown = parse("kprov certs renew a.toml --kind apiservr").unwrap_err().to_string();
    assert!(unknown.contains("one of etcd-server, etcd-peer"), "{unknown}");
    let bad = [
        "kprov certs rotate-ca a.toml --stop-after drop",
        "kprov certs csr a.toml",
        "kprov certs import a.toml --authority cluster",
        "kprov import",
        "kprov import host-1",
        "kprov recover",
    ];
    for line in bad {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_passphrase_comes_from_a_key_file_first_and_bad_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let passphrase = OnceLock::new();
    passphrase.get_or_init(|| Secret::new("from the environment"));
    let surroundings = Surroundings {
        person: "ann".to_owned(),
        no_color: true,
        beside: PathBuf::new(),
        home: None,
        cache: PathBuf::new(),
        stop: Arc::new(AtomicBool::new(false)),
        passphrase,
        ssh_passphrase: None,
        sudo_password: OnceLock::new(),
        jumps: Arc::default(),
    };
    let given = |file: Option<&std::path::Path>| {
        secrets::given(file, &surroundings, || panic!("nobody may be asked"))
    };
    let known = given(None).unwrap().unwrap();
    assert_eq!(known.expose(), "from the environment");
    std::fs::write(&file, "from a file\r\n").unwrap();
    assert_eq!(given(Some(&file)).unwrap().unwrap().expose(), "from a file");
    let said = |failure: Failure| match failure {
        Failure::Other { message, .. } => message,
        other => panic!("{other:?}"),
    };
    std::fs::write(&file, "\n").unwrap();
    assert!(said(given(Some(&file)).unwrap_err()).ends_with("key is empty"));
    let gone = said(given(Some(&dir.path().join("gone"))).unwrap_err());
    assert!(gone.starts_with("cannot read"), "{gone}");
}

#[test]
fn members_whose_certificates_have_run_out_on_the_host_are_found() {
    use crate::execute::Hosts;
    use crate::host::fake::FakeMachine;
    use crate::plan::{Action, Change, HostPlan, Plan};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"n1\"\naddress = \"10.0.0.1\"\n\
                roles = [\"etcd\", \"master\", \"node\"]\n";
    std::fs::write(&path, text).unwrap();
    let inventory = crate::inventory::load(&path).unwrap();
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
    let made = 1_800_000_000;
    let pki = crate::pki::ensure(&inventory, dir.path(), at(made)).unwrap();
    let peer = pki.leaf(crate::pki::LeafKind::EtcdPeer, "n1").unwrap().cert.clone();
    let machine = FakeMachine::new("n1");
    machine.state().texts.insert("/etc/etcd/pki/peer.crt".to_owned(), peer);
    let mut hosts: Hosts = [("n1".to_owned(), machine.connect())].into();
    let plan = |path: &str| {
        let (path, action) = (path.to_owned(), Action::Update);
        let change = Change::File { path, action, secret: false, len: 1 };
        let host = HostPlan {
            host: "n1".to_owned(),
            generation: 1,
            changes: vec![change],
            batches: std::collections::BTreeMap::new(),
            uploads: std::collections::BTreeMap::new(),
            warnings: Vec::new(),
        };
        Plan { hosts: vec![host], waves: Vec::new() }
    };
    let mut lapsed = |path: &str, now| {
        prepare::lapsed_members(&plan(path), crate::layout::Layout::Fhs, &mut hosts, at(now)).len()
    };
    let (year, peer) = (366 * 86_400, "/etc/etcd/pki/peer.crt");
    assert_eq!(lapsed(peer, made + year), 1);
    assert_eq!(lapsed(peer, made + 86_400), 0, "it is still good");
    assert_eq!(lapsed("/etc/etcd/etcd.env", made + year), 0, "its certificate stays");
}
