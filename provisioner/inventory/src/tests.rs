//! Whole inventories: what is accepted, and what is said about mistakes.

use proptest::prelude::*;

use super::*;

/// A table of inputs with what is said about each, as a file.
fn table(name: &str, rows: impl IntoIterator<Item = (String, String)>) {
    let text: String = rows
        .into_iter()
        .map(|(input, said)| {
            let said: String = said.lines().map(|line| format!("    {line}\n")).collect();
            format!("{}\n{said}", input.replace('\n', "; "))
        })
        .collect();
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Reads `source` as the file `c.toml` in a directory where only `key` and `.ssh/id` exist.
fn parse(source: &str) -> Result<Inventory, Diagnostics> {
    let surroundings = Surroundings {
        dir: Path::new("/inv"),
        home: Some(PathBuf::from("/home/op")),
        is_file: &|path| path == Path::new("/inv/key") || path == Path::new("/home/op/.ssh/id"),
        ssh_config: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    read(Path::new("c.toml"), source, &surroundings)
}

/// An inventory that is right, with `more` at its end.
fn good(more: &str) -> String {
    format!(
        "[cluster]\nname = \"c\"\n\n[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n\
         roles = [\"etcd\", \"master\", \"node\"]\n{more}"
    )
}

/// What is said about `source`: a line a finding, with its place and its suggestion.
fn findings(source: &str) -> String {
    let diagnostics = match parse(source) {
        Ok(inventory) => inventory.warnings,
        Err(diagnostics) => diagnostics,
    };
    let line = |f: Finding| {
        let help = f.help.map_or(String::new(), |h| format!(" | {h}"));
        format!("{}:{}: {} [{}]{help}\n", f.line, f.column, f.message, f.label)
    };
    diagnostics.findings().into_iter().map(line).collect()
}

#[test]
fn defaults_are_filled_in() {
    let inventory = parse(&good("")).unwrap();
    assert!(inventory.warnings.problems.is_empty());
    let cluster = &inventory.cluster;
    assert_eq!(cluster.pod_cidr.to_string(), "10.244.0.0/16");
    assert_eq!(cluster.dns_address.to_string(), "10.254.0.10");
    assert_eq!(cluster.api_address().to_string(), "10.254.0.1");
    assert_eq!(inventory.network.mtu, 1450);
    assert_eq!(inventory.hyperkube, ArtifactSource::Beside("hyperkube".to_owned()));
    let host = &inventory.hosts[0];
    assert_eq!((host.ssh.user.as_str(), host.ssh.port, host.ssh.sudo), ("root", 22, false));
    assert_eq!((&host.ssh.keys[..], host.ssh.agent), (&[][..], true));
    assert_eq!(inventory.state_dir(), Path::new("./.kprov/c"));
    assert_eq!(inventory.api_for_people(), "https://10.0.0.1:6443");
}

#[test]
fn several_masters_are_balanced_by_each_host_or_by_an_external_balancer() {
    let with = |masters: u8, section: &str| {
        let hosts: String = (1..=masters)
            .map(|n| {
                let roles = "[\"etcd\", \"master\", \"node\"]";
                format!("[[hosts]]\nname = \"m{n}\"\naddress = \"10.0.0.{n}\"\nroles = {roles}\n")
            })
            .collect();
        format!("[cluster]\nname = \"c\"\n{section}\n{hosts}")
    };
    let kind = |masters, section| parse(&with(masters, section)).unwrap().load_balancer;
    let external = |name: &str, port| LoadBalancer::External { name: name.to_owned(), port };
    assert_eq!(kind(1, ""), LoadBalancer::None);
    assert_eq!(kind(3, ""), LoadBalancer::Local);
    assert_eq!(kind(1, "[load_balancer]\nkind = \"local\""), LoadBalancer::Local);
    let named = "[load_balancer]\naddress = \"api.example.com\"";
    assert_eq!(kind(3, named), external("api.example.com", 6443));
    assert_eq!(kind(1, "[load_balancer]\naddress = \"10.0.0.9:443\""), external("10.0.0.9", 443));
    let wrong = |section| findings(&with(3, section));
    insta::assert_snapshot!(
        [
            wrong("[load_balancer]\nkind = \"external\""),
            wrong("[load_balancer]\nkind = \"local\"\naddress = \"a:1\""),
            wrong("[load_balancer]\naddress = \"https://a:1\""),
            wrong("[load_balancer]\naddress = \"a:99999\""),
        ]
        .concat(),
        @r#"
    3:1: the external load balancer has no `address` [needs `address`] | address = "api.example.com:6443"
    5:11: the load balancer is local and has an address [only for `external`] | it is 127.0.0.1:6444 on each host: leave it out
    4:11: `https://a:1` is no NAME:PORT [not NAME:PORT] | a DNS name or an IPv4 address, without https://
    4:11: `a:99999` is no NAME:PORT [not NAME:PORT] | a DNS name or an IPv4 address, without https://
    "#
    );
}

#[test]
fn the_nearest_setting_wins() {
    let inventory = parse(
        r#"
        [cluster]
        name = "c"
        [ssh]
        user = "op"
        key = "~/.ssh/id"
        [defaults]
        roles = ["node"]
        max_pods = 50
        labels = { a = "default", b = "default", c = "default" }
        taints = ["t=default:NoSchedule", "u:NoExecute"]
        [groups.m]
        hosts = ["m-[1-3]"]
        address_first = "10.0.0.254"
        roles = ["etcd", "master"]
        [groups.w]
        hosts = ["w"]
        labels = { b = "group", c = "group" }
        ssh = { port = 2222, agent = true }
        [[hosts]]
        name = "w"
        address = "10.0.2.1"
        labels = { c = "host" }
        taints = ["t=host:NoSchedule"]
        ssh = { user = "root" }
        "#,
    )
    .unwrap();
    let names: Vec<String> =
        inventory.hosts.iter().map(|h| format!("{} {}", h.name, h.address)).collect();
    assert_eq!(names, ["m-1 10.0.0.254", "m-2 10.0.0.255", "m-3 10.0.1.0", "w 10.0.2.1"]);
    let (master, worker) = (&inventory.hosts[0], &inventory.hosts[3]);
    assert_eq!(master.roles, BTreeSet::from([Role::Etcd, Role::Master]));
    let key = PathBuf::from("/home/op/.ssh/id");
    assert_eq!((&master.ssh.keys[..], master.ssh.agent), (&[key][..], false));
    assert!(master.ssh.sudo);
    assert_eq!(worker.roles, BTreeSet::from([Role::Node]));
    let labels: Vec<&str> = worker.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["default", "group", "host"]);
    let taints: Vec<String> = worker.taints.iter().map(ToString::to_string).collect();
    assert_eq!(taints, ["t=host:NoSchedule", "u=:NoExecute"]);
    assert_eq!((worker.ssh.user.as_str(), worker.ssh.port, worker.ssh.sudo), ("root", 2222, false));
    assert_eq!((worker.ssh.keys.len(), worker.ssh.agent, worker.max_pods), (0, true, 50));
}

#[test]
fn hosts_are_reached_as_ssh_would_reach_them_unless_the_inventory_says_otherwise() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let key = home.path().join(".ssh/id");
    std::fs::write(&key, "").unwrap();
    let config = "Host a\nHostName a.example.com\nUser ops\nPort 2201\nIdentityFile ~/.ssh/id\n\
                  IdentityFile ~/.ssh/elsewhere\nProxyJump edge:2200,in@inner\n\
                  UserKnownHostsFile ~/.ssh/known\nHost edge\nProxyJump outer\nUser door\n";
    std::fs::write(home.path().join(".ssh/config"), config).unwrap();
    let of = |more: &str| {
        let surroundings = Surroundings {
            dir: Path::new("/inv"),
            home: Some(home.path().to_owned()),
            is_file: &|path| path.is_file(),
            ssh_config: &|path| SshConfig::read(path, Some(home.path())),
        };
        let inventory = read(Path::new("c.toml"), &good(more), &surroundings).unwrap();
        inventory.hosts[0].ssh.clone()
    };
    let ssh = of("");
    assert_eq!(ssh.address.as_deref(), Some("a.example.com"));
    assert_eq!((ssh.user.as_str(), ssh.port, ssh.sudo, ssh.agent), ("ops", 2201, true, true));
    assert_eq!(ssh.keys, [key]);
    assert_eq!(ssh.known_hosts, Some(home.path().join(".ssh/known")));
    let jumps = |ssh: &Ssh| -> Vec<String> {
        ssh.jumps.iter().map(|j| format!("{}@{}:{}", j.user, j.address, j.port)).collect()
    };
    assert_eq!(jumps(&ssh), ["ops@outer:22", "door@edge:2200", "in@inner:22"]);
    let ssh = of("ssh = { user = \"root\", port = 22, jump = [\"x@10.9.0.1:2\"], agent = true }\n");
    assert_eq!((ssh.user.as_str(), ssh.port, ssh.keys.len()), ("root", 22, 0));
    assert_eq!(jumps(&ssh), ["x@10.9.0.1:2"]);
    assert_eq!(jumps(&of("ssh = { jump = [] }\n")), [""; 0]);
    let ssh = of("ssh = { config = \"none\" }\n");
    assert_eq!((ssh.address, ssh.user.as_str(), ssh.port), (None, "root", 22));
}

#[test]
fn what_is_wrong_about_reaching_hosts_is_told() {
    let found = findings(&good(
        "host_key = \"ssh-rsa AAAA\"\n\
         ssh = { jump = [\"ok\", \"a@b@c\", \":22\", \"x:99999\"], config = \"missing\" }\n",
    ));
    insta::assert_snapshot!(found);
}

#[test]
fn mistakes_of_every_kind_are_told_at_once() {
    let source = r#"[cluster]
name = "My Cluster"
pod_cidr = "10.0.0.0/8"
service_cidr = "10.254.0.1/16"
dns_address = "10.96.0.10"
node_cidr_mask = "24"
flavour = "large"

[ssh]
usr = "root"
port = 70000
host_key_policy = "accept"

[network]
backend = "vxlam"

[[hosts]]
name = "Node_1"
adress = "10.99.0.11"
roles = ["master", "ectd"]

[[hosts]]
name = "node-2"
address = "10.99.0.12"
roles = ["node"]
taints = ["dedicated=db"]

[[hosts]]
name = "node-2"
address = "10.99.0.12"
roles = "node"
"#;
    table("mistakes", [(source.to_owned(), findings(source))]);
    let drawn = parse(source).unwrap_err().render(false, 100);
    insta::assert_snapshot!("mistakes_drawn", drawn);
}

#[test]
fn cluster_rules() {
    let with = |line: &str| findings(&good("").replacen("name = \"c\"", line, 1));
    table(
        "cluster_rules",
        [
            "name = \"a.b\"",
            "domain = \"x\"",
            "name = \"c\"\ndomain = \"cluster.local.\"",
            "name = \"c\"\npod_cidr = \"pods\"",
            "name = \"c\"\npod_cidr = \"10.244.3.0/16\"",
            "name = \"c\"\nservice_cidr = \"10.254.0.0/30\"",
            "name = \"c\"\npod_cidr = \"10.240.0.0/12\"",
            "name = \"c\"\npod_cidr = \"10.0.0.0/16\"\nservice_cidr = \"10.0.0.0/16\"",
            "name = \"c\"\nservice_cidr = \"10.0.0.0/24\"",
            "name = \"c\"\ndns_address = \"10.254.0.1\"",
            "name = \"c\"\ndns_address = \"10.254.255.255\"",
            "name = \"c\"\ndns_address = \"dns\"",
            "name = \"c\"\nnode_cidr_mask = 12",
            "name = \"c\"\nnode_cidr_mask = 26",
            "name = \"c\"\nnode_ports = \"30000\"",
            "name = \"c\"\nnode_ports = \"30000-50000\"",
            "name = \"c\"\npause_image = \"a b\"",
        ]
        .map(|line| (line.to_owned(), with(line))),
    );
}

#[test]
fn host_rules() {
    table(
        "host_rules",
        [
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.1\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"a\"\naddress = \"10.0.0.2\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"\nroles = []",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"\nroles = [\"nod\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"\nroles = \"node\"",
            "[groups.g]\nhosts = [\"n-[1-3]\"]\naddress_first = \"255.255.255.254\"\n\
             roles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"\nroles = [\"etcd\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"b.example\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"::1\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"127.0.0.1\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\naddress = \"10.244.0.9\"\nroles = [\"node\"]",
            "[[hosts]]\nname = \"b\"\nroles = [\"node\"]",
            "labels = { \"node-role.kubernetes.io/x\" = \"\" }",
            "labels = { a = \"b c\" }",
            "taints = [\"a\"]",
            "taints = [\"a:NoSchedul\"]",
            "taints = [\"a b:NoSchedule\"]",
            "ssh = { key = \"none\" }",
            "ssh = { key = \"key\", agent = true }",
            "ssh = { user = \"-oProxyCommand=x\", port = 0 }",
            "max_pods = 5000",
            "[[hosts]]\nname = \"b\"\naddress = \"10.0.0.2\"\nroles = [\"master\"]\n\
             labels = { a = \"b\" }",
            "[groups.g]\nhosts = [\"b\", \"n[1\"]",
            "[groups.g]\nhosts = [\"a\"]\nlabels = { x = \"1\" }\n\
             [groups.h]\nhosts = [\"a\"]\nlabels = { x = \"2\" }",
            "[groups.g]\nhosts = [\"n-[1-300]\"]\naddress_first = \"10.1.0.1\"\nroles = [\"node\"]",
            "[groups.g]\naddress_first = \"10.1.0.1\"",
            "[groups.g]\nhosts = [\"N_[1-40]\"]\naddress_first = \"10.1.0.1\"\n\
             [groups.h]\nhosts = [\"m-[1-40]\"]\naddress_first = \"10.1.0.9\"\n\
             roles = [\"node\"]",
        ]
        .map(|more| (more.to_owned(), findings(&good(more)))),
    );
}

#[test]
fn other_rules() {
    table(
        "other_rules",
        [
            "[network]\nmtu = 100",
            "[artifacts]\netcd = {}",
            "[artifacts]\netcd = { file = \"a\", url = \"https://b\" }",
            "[artifacts]\netcd = { url = \"http://b\", sha256 = \"12\" }",
            "[artifacts]\netcd = { url = \"https://b\" }",
            "[artifacts]\netcd = \"/usr/bin/etcd\"",
            "[pki]\nleaf_days = 400\nca_days = 300",
            "[pki]\nalgorithm = \"rsa-4096\"",
            "[pki]\napi_server_names = [\"ok.example\", \"a b\"]",
            "[components]\nlog_level = 11",
            "[components.kubelet]\nargs = { \"--v\" = 4 }",
            "[components.kubelet]\nargs = { v = \"a b\" }",
            "[components.kubelet]\nargs = { v = 4.5 }",
            "[components.kublet]\nargs = { v = 4 }",
            "[hosts]\nname = \"b\"",
        ]
        .map(|more| (more.to_owned(), findings(&good(more)))),
    );
}

#[test]
fn an_inventory_needs_a_cluster_and_hosts() {
    table(
        "too_little",
        [
            "",
            "[cluster]\nname = \"c\"",
            "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n\
             roles = [\"node\"]",
            "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n\
             roles = [\"etcd\", \"master\"]",
        ]
        .map(|source| (source.to_owned(), findings(source))),
    );
}

#[test]
fn broken_syntax_is_told_with_its_place_and_the_rest_is_checked() {
    let source = good("").replacen("\"c\"", "\"c", 1) + "\n[ssh]\nprt = 22\n";
    insta::assert_snapshot!(findings(&source), @r#"
    2:10: not valid TOML: invalid basic string, expected `"` [here]
    10:1: unknown key `prt` in `ssh` [not known here] | did you mean `port`?
    "#);
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = load(Path::new("/nonexistent/c.toml")).unwrap_err();
    assert!(error.problems[0].message.starts_with("cannot read /nonexistent/c.toml"));
    assert!(error.render(false, 80).contains("1 error in /nonexistent/c.toml"));
}

#[test]
fn findings_are_machine_readable() {
    let error = parse(&good("ssh = { prt = 1 }")).unwrap_err();
    insta::assert_json_snapshot!(error.findings(), @r#"
    [
      {
        "severity": "error",
        "file": "c.toml",
        "line": 8,
        "column": 9,
        "message": "unknown key `prt` in `hosts[0].ssh`",
        "label": "not known here",
        "help": "did you mean `port`?"
      }
    ]
    "#);
}

#[test]
fn the_inventories_of_the_repository_are_good() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../inventory");
    let counts = ["lab", "ha", "example"].map(|name| {
        let path = dir.join(name).with_extension("toml");
        let source = std::fs::read_to_string(&path).unwrap();
        // The lab's key is made when the lab starts.
        let surroundings = Surroundings {
            dir: &dir,
            home: Some(PathBuf::from("/home/op")),
            is_file: &|_| true,
            ssh_config: &|_| Ok(SshConfig::default()),
        };
        let inventory = match read(&path, &source, &surroundings) {
            Ok(inventory) => inventory,
            Err(diagnostics) => panic!("{}", diagnostics.render(false, 100)),
        };
        assert!(inventory.warnings.problems.is_empty(), "{:?}", inventory.warnings);
        inventory.hosts.len()
    });
    assert_eq!(counts, [3, 6, 44]);
}

#[test]
fn a_large_inventory_is_read() {
    let big = "[groups.n]\nhosts = [\"n-[0001-4999]\"]\naddress_first = \"10.8.0.1\"\n\
               roles = [\"node\"]\n";
    let text = good(big).replacen("[cluster]", "[cluster]\npod_cidr = \"172.0.0.0/11\"", 1);
    assert_eq!(parse(&text).unwrap().hosts.len(), 5_000);
}

#[test]
fn rollouts_and_hooks_are_read() {
    let inventory = parse(&good("")).unwrap();
    assert_eq!((inventory.rollout, inventory.hooks.len()), (Rollout::default(), 0));
    let more = "[rollout]\nbatch = 3\ncanary = 0\npasses = 1\n\n[[hooks]]\nname = \"h\"\n\
                after = \"control-plane\"\non = \"hosts\"\nhosts = [\"a\"]\n\
                command = \"true\"\ntimeout_s = 5\n[[hooks]]\nname = \"i\"\n\
                before = \"apply\"\ncommand = \"true\"\n";
    let inventory = parse(&good(more)).unwrap();
    let rollout = Rollout { batch: BatchSize::Count(3), canary: 0, passes: 1 };
    assert_eq!(inventory.rollout, rollout);
    let [hook, other] = &inventory.hooks[..] else { panic!("{:?}", inventory.hooks) };
    assert_eq!((hook.moment, hook.phase), (HookMoment::After, Phase::ControlPlane));
    assert_eq!(hook.hosts, ["a".to_owned()].into());
    assert_eq!(hook.when(), "after control-plane, on 1 hosts, for 5 s at most");
    assert_eq!(other.when(), "before apply, here, for 60 s at most");
}

#[test]
fn forms_of_masters_and_bridges_that_cannot_be_are_told() {
    let pods = |more: &str, roles: &str| {
        let text = format!(
            "[cluster]\nname = \"c\"\nmasters = \"static-pods\"\n{more}\n[[hosts]]\nname = \"m\"\n\
             address = \"10.0.0.1\"\nroles = [{roles}]\n[[hosts]]\nname = \"n\"\n\
             address = \"10.0.0.2\"\nroles = [\"node\"]\n"
        );
        findings(&text)
    };
    let told = pods("", "\"etcd\", \"master\"");
    assert!(told.contains("masters that are pods need a kubelet: m"), "{told}");
    let all = "\"etcd\", \"master\", \"node\"";
    let told = pods("[network]\npod_bridge = \"docker0\"", all);
    assert!(told.contains("Docker cannot wait for a range that comes from a pod"), "{told}");
    let told = pods("node_approval = \"manual\"\n[network]\npod_bridge = \"docker0\"", all);
    assert!(told.contains("Docker cannot wait for people who let its node in"), "{told}");
    let told = pods("layout = \"clasic\"", all);
    assert!(told.contains("did you mean `classic`?"), "{told}");
    for bridge in ["cni0", "docker0"] {
        let text = format!("[network]\nbackend = \"ovs-gre\"\npod_bridge = \"{bridge}\"\n");
        let told = findings(&good(&text));
        assert!(told.contains(&format!("pods cannot be on `{bridge}` with `backend")), "{told}");
    }
    let told = findings(&good("[network]\npod_bridge = \"kbr0\"\n"));
    assert!(told.contains("pods cannot be on `kbr0` with `backend = \"vxlan\"`"), "{told}");
    let told = findings(&good("[network]\novs_datapath = \"netdev\"\n"));
    assert!(told.contains("`ovs_datapath` is for `backend = \"ovs-gre\"`"), "{told}");
    let tunnels = parse(&good("[network]\nbackend = \"ovs-gre\"\n")).unwrap().network;
    assert_eq!((tunnels.pod_bridge, tunnels.mtu), (PodBridge::Kbr0, 1_462));
    assert_eq!(tunnels.ovs_datapath, OvsDatapath::Auto);
    let shared = good("[network]\npod_bridge = \"docker0\"\n");
    let warnings = parse(&shared).unwrap().warnings.render(false, 100);
    assert!(warnings.contains("pods share Docker's own bridge"), "{warnings}");
}

#[test]
fn mistakes_in_rollouts_and_hooks_are_told() {
    let check = |more: &str, expected: &str| {
        let said = findings(&good(more));
        assert!(said.contains(expected), "{more}: {said}");
    };
    check("[rollout]\nbatch = \"0%\"\n", "`0%` is no size of a batch");
    check("[rollout]\nbatch = true\n", "`true` is no size of a batch");
    check("[rollout]\nbatches = 3\n", "did you mean `batch`?");
    let hook = |rest: &str| format!("[[hooks]]\nname = \"h\"\ncommand = \"true\"\n{rest}");
    check(&hook(""), "needs either `before` or `after` [neither is given]");
    check(&hook("before = \"node\"\nafter = \"node\"\n"), "[both are given]");
    check(&hook("before = \"nodes\"\n"), "did you mean `node`?");
    check(&hook("before = \"node\"\nhosts = [\"a\"]\n"), "on = \"hosts\"");
    let unknown = "before = \"node\"\non = \"hosts\"\nhosts = [\"ab\"]\n";
    check(&hook(unknown), "names an unknown host `ab` [no such host] | did you mean `a`?");
    check("[[hooks]]\nname = \"h\"\nbefore = \"node\"\n", "command");
    let empty = "[[hooks]]\nname = \"h\"\ncommand = \" \"\nbefore = \"node\"\n";
    check(empty, "the hook `h` has no command");
}

#[test]
fn the_schema_names_every_setting_of_the_example() {
    let schema = schema();
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_json_snapshot!("inventory-schema", schema);
    });
    assert_eq!(schema["title"], "kprov inventory");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["cluster"]));
    assert_eq!(schema["$defs"]["HostSection"]["required"], serde_json::json!(["name", "address"]));
    for name in ["cluster", "ssh", "network", "artifacts", "pki", "components", "groups", "hosts"] {
        assert!(schema["properties"][name]["description"].is_string(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(source in "(?s).{0,400}") {
        match parse(&source) {
            Ok(inventory) => prop_assert!(!inventory.hosts.is_empty()),
            Err(diagnostics) => {
                prop_assert!(diagnostics.has_errors());
                prop_assert!(!diagnostics.render(false, 100).is_empty());
            }
        }
    }

    /// Inventory-like text, so that the rules behind the syntax are reached too.
    #[test]
    fn any_inventory_is_read_or_refused(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "[cluster]", "name = \"c\"", "pod_cidr = \"10.0.0.0/8\"", "node_cidr_mask = 255",
                "[[hosts]]", "[hosts]", "name = \"a\"", "name = 3", "address = \"10.0.0.1\"",
                "roles = [\"etcd\", \"master\"]", "roles = []", "roles = [3]", "[groups.g]",
                "hosts = [\"n-[1-9]\"]", "hosts = [\"n-[1-\"]",
                "address_first = \"255.255.255.255\"",
                "[ssh]", "key = \"x\"", "taints = [\"\"]", "labels = { \"\" = \"\" }", "[defaults]",
                "[components.kubelet.args]", "\"\" = \"\"", "x = [", "service_cidr = \"0.0.0.0/0\"",
                "dns_address = \"0.0.0.0\"", "service_cidr = \"255.255.255.255/32\"",
            ]),
            0..30,
        ),
    ) {
        let source = lines.join("\n");
        match parse(&source) {
            Ok(inventory) => prop_assert!(!inventory.hosts.is_empty()),
            Err(diagnostics) => {
                prop_assert!(diagnostics.has_errors());
                prop_assert!(diagnostics.render(true, 80).contains("c.toml"));
                prop_assert_eq!(diagnostics.findings().len(), diagnostics.problems.len());
            }
        }
    }
}

#[test]
fn systems_are_prepared_as_the_nearest_section_says() {
    let text = good(
        "system = { swap = \"off\", docker = { packages = [\"moby\"] } }\n\
         [system]\nfirewall = \"none\"\npackages = [\"b\", \"a\"]\n\
         [system.docker]\npackages = [\"docker-ce\"]\n\
         repository = { url = \"https://packages.example/9\", key = \"key\" }\n\
         [defaults.system]\nhosts_file = true\nfirewall = \"disable\"\n\
         [defaults.system.limits]\nopen_files = 65536\n",
    );
    let inventory = parse(&text).unwrap();
    let system = &inventory.hosts[0].system;
    assert_eq!(system.firewall, FirewallPolicy::Disable);
    assert!(system.swap_off && system.hosts_file && system.docker.install);
    assert_eq!(system.packages, ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(system.docker.packages, ["moby".to_owned()].into());
    let repository = system.docker.repository.as_ref().unwrap();
    assert_eq!(repository.key.as_deref(), Some(Path::new("/inv/key")));
    assert_eq!(system.limits, Limits { open_files: Some(65_536), processes: None });
    let plain = &parse(&good("")).unwrap().hosts[0].system;
    assert_eq!(plain.firewall, FirewallPolicy::Auto);
    assert!(!plain.swap_off && !plain.hosts_file && plain.docker.install);
}

#[test]
fn mistakes_about_systems_are_told() {
    let check = |more: &str, expected: &str| {
        let told = findings(&good(more));
        assert!(told.contains(expected) && told.lines().count() == 1, "{more}: {told}");
    };
    let docker = |repository: &str| format!("[system.docker]\nrepository = {{ {repository} }}\n");
    let url = "url = \"https://packages.example\"";
    check("[system]\npackages = [\"a b\"]\n", "`a b` is no package name [not a name]");
    check("[system]\npackages = [\"-y\"]\n", "`-y` is no package name [not a name]");
    check("[system]\nfirewall = \"off\"\n", "`off`");
    check(&docker("key = \"key\", url = \"ftp://a\""), "`ftp://a` is no address of a repository");
    check(&docker(url), "the repository has no `key` [nothing proves its packages]");
    check(&docker(&format!("{url}, key = \"nokey\"")), "the key file /inv/nokey does not exist");
    let both = format!("{url}, key = \"key\", unsigned = true");
    check(&docker(&both), "the repository has a key and is `unsigned`");
    check(&docker("key = \"key\""), "the repository has no `url`");
    let suite = format!("{url}, key = \"key\", suite = [\"a b\"]");
    check(&docker(&suite), "`a b` is neither a suite nor a component");
    let unsigned = format!("{url}, unsigned = true");
    check(&docker(&unsigned), "packages of the repository are not verified");
    assert!(parse(&good(&docker(&unsigned))).is_ok());
}
