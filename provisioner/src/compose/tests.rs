//! Whole host states: golden files, the least privilege of each host, and the units' inputs.

use std::{collections::BTreeMap, path::Path, process::Command, sync::LazyLock};

use jiff::Timestamp;

use super::*;
use crate::{
    digest::Digest,
    kubeconfig,
    state::{Blob, Content, FileState, Gate, ImageState, Mode},
};

/// The lab's inventory with `more` in its section `[cluster]`, and the states of its hosts.
pub(crate) fn lab_with(more: &str) -> Vec<HostState> {
    let name = "name = \"lab\"\n";
    lab_edited(|text| text.replace(name, &format!("{name}{more}\n")))
}

/// The states of the lab's hosts after an edit of its inventory.
pub(crate) fn lab_edited(edit: impl FnOnce(String) -> String) -> Vec<HostState> {
    let inventory = inventory("lab", edit);
    let pki = pki(&inventory);
    states(&inventory, &pki)
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// An inventory of the repository, without the files that it refers to; `edit` changes its text.
fn inventory(name: &str, edit: impl FnOnce(String) -> String) -> Inventory {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inventory");
    let source = std::fs::read_to_string(dir.join(name).with_extension("toml")).unwrap();
    let source = edit(source).replace("key = \"../.lab/id_ed25519\"", "agent = true");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("c.toml");
    std::fs::write(&path, source).unwrap();
    crate::inventory::load(&path).unwrap()
}

fn artifacts() -> Artifacts {
    let blob = |name: &str| Blob {
        sha256: Digest::of(name.as_bytes()),
        len: 1,
        source: Path::new("/artifacts").join(name),
        architecture: None,
        version: None,
    };
    Artifacts {
        hyperkube: blob("hyperkube"),
        hyperkube_image: Some(ImageState {
            reference: "kprov.local/hyperkube:0123456789ab".to_owned(),
            id: "sha256:1".to_owned(),
            archive: blob("hyperkube image"),
        }),
        etcd: blob("etcd"),
        images: Vec::new(),
        packages: Vec::new(),
        repository_keys: BTreeMap::new(),
    }
}

fn pki(inventory: &Inventory) -> Pki {
    let dir = tempfile::tempdir().unwrap();
    crate::pki::ensure(inventory, dir.path(), now()).unwrap()
}

fn states(inventory: &Inventory, pki: &Pki) -> Vec<HostState> {
    desired(inventory, pki, &Births::of(inventory), &Templates::embedded().unwrap(), &artifacts())
        .unwrap()
}

struct Composed {
    pki: Pki,
    states: Vec<HostState>,
}

static LAB: LazyLock<Composed> = LazyLock::new(|| {
    let inventory = inventory("lab", |text| text);
    let pki = pki(&inventory);
    Composed { states: states(&inventory, &pki), pki }
});

/// The text of a file with what is random in it masked; `None` for certificates and programs.
fn shown(file: &FileState, pki: &Pki) -> Option<String> {
    let text = match &file.content {
        Content::Text(text) => text.as_str(),
        Content::Secret(secret) => secret.expose(),
        Content::Blob(_) => return None,
    };
    if text.starts_with("-----BEGIN") {
        return None;
    }
    let ca = kubeconfig::encode(&pki.cluster_ca.cert);
    Some(text.replace(&ca, "<CA>").replace(pki.bootstrap_token.expose(), "<TOKEN>"))
}

macro_rules! golden {
    ($name:expr, $text:expr) => {
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

mod layouts;

/// The state of one host in the lab while authorities are replaced: what changes with each stage.
#[test]
fn a_rotation_restarts_what_must_and_ends_where_it_leads() {
    use crate::pki::{Access, Which, advance, begin};
    let inventory = inventory("lab", |text| text);
    let dir = tempfile::tempdir().unwrap();
    let access = Access { dir: dir.path(), passphrase: None };
    let state = || {
        let pki = crate::pki::ensure(&inventory, dir.path(), now()).unwrap();
        states(&inventory, &pki).remove(0)
    };
    let before = state();
    begin(&inventory, &access, Which::All, now()).unwrap();
    let mut stages = vec![state()];
    while advance(&access).unwrap().is_some() {
        stages.push(state());
    }
    let after = state();
    assert_eq!(stages.len(), 3);
    // Nothing but the note of the rotation may change when it is over.
    assert_eq!(after.files, stages[2].files);
    assert_eq!(after.authority, stages[2].authority);
    assert_eq!(after.former_authority, None);
    let notes: Vec<_> = stages.iter().map(|s| s.file(ROTATION_NOTE).is_some()).collect();
    assert_eq!(notes, [true, true, false]);
    // A host that is still in the stage before belongs to the cluster all the same.
    assert_eq!(stages[1].former_authority.as_ref(), Some(&before.authority));
    assert_eq!(stages[0].former_authority.as_ref(), Some(&stages[1].authority));
    let content = |state: &HostState, path: &str| state.file(path).map(|f| f.content.digest());
    let mut earlier = &before;
    for stage in &stages {
        for unit in stage.units.iter().filter(|unit| unit.name != "docker.service") {
            let changed = |path: &&String| content(stage, path) != content(earlier, path);
            assert!(unit.inputs.iter().any(|path| changed(&path)), "{} is kept", unit.name);
        }
        let epoch = "/etc/kubernetes/pki/kubelet-authority";
        assert!(stage.file(epoch).is_some() && content(stage, epoch) != content(earlier, epoch));
        earlier = stage;
    }
    let env = stages[0].file("/etc/kubernetes/kube-apiserver.env").unwrap();
    let Content::Text(env) = &env.content else { panic!("no text") };
    assert_eq!(env.matches("--service-account-key-file=").count(), 2, "{env}");
}

/// The script that makes a kubelet forget certificates of another authority, run for real.
#[test]
fn a_kubelet_forgets_what_is_of_another_authority_and_nothing_else() {
    let inventory = inventory("lab", |text| text);
    let dir = tempfile::tempdir().unwrap();
    let access = crate::pki::Access { dir: dir.path(), passphrase: None };
    crate::pki::ensure(&inventory, dir.path(), now()).unwrap();
    crate::pki::begin(&inventory, &access, crate::pki::Which::All, now()).unwrap();
    let pki = crate::pki::ensure(&inventory, dir.path(), now()).unwrap();
    let state = states(&inventory, &pki).remove(0);
    let script = &state.file("/etc/kubernetes/renew-kubelet.sh").unwrap().content;
    let Content::Text(script) = script else { panic!("no text") };
    let root = dir.path().display();
    let script = script
        .replace("/etc/kubernetes/pki", &format!("{root}/etc"))
        .replace("/var/lib/kubelet", &format!("{root}/lib"));
    let (new, lib) = (dir.path().join("etc/kubelet-authority"), dir.path().join("lib"));
    std::fs::create_dir_all(dir.path().join("etc")).unwrap();
    std::fs::create_dir_all(lib.join("pki")).unwrap();
    let own = ["kubeconfig", "pki/kubelet-client-current.pem", "pki/kubelet-server-current.pem"];
    let left_by = |trust: &str, signer: &str| -> Vec<&str> {
        own.iter().for_each(|name| std::fs::write(lib.join(name), "x").unwrap());
        std::fs::write(&new, format!("trust {trust}\nsigner {signer}\n")).unwrap();
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(status.success());
        own.into_iter().filter(|name| lib.join(name).exists()).collect()
    };
    assert_eq!(left_by("a", "1"), [""; 0], "nobody knows whose the first ones were");
    assert_eq!(left_by("a", "1"), own);
    assert_eq!(left_by("b", "1"), own[1..]);
    assert_eq!(left_by("b", "2"), [""; 0]);
    assert_eq!(left_by("b", "2"), own);
}

#[test]
fn every_file_of_a_host_with_all_roles() {
    let host = &LAB.states[0];
    for file in &host.files {
        if let Some(text) = shown(file, &LAB.pki) {
            let name = file.path.trim_start_matches('/').replace('/', "-");
            golden!(format!("lab-{}-{name}", host.host), format!("{}\n{text}", file.mode));
        }
    }
}

/// What a host gets, a line a thing, and the text of what depends on the host.
fn summary(state: &HostState, pki: &Pki, texts: &[&str]) -> String {
    let mut out = String::new();
    for file in &state.files {
        out += &format!("{} {}\n", file.mode, file.path);
    }
    for link in &state.links {
        out += &format!("link {} -> {}\n", link.path, link.target);
    }
    for directory in &state.directories {
        out += &format!("{} {}/\n", directory.mode, directory.path);
    }
    for unit in &state.units {
        out += &format!("{} [{}] {:?}\n", unit.name, unit.stage, unit.health);
    }
    out += &format!("sysctls {:?}\nmodules {:?}\n", state.sysctls, state.modules);
    let ports: Vec<String> = state.ports.iter().map(|p| format!("{}:{}", p.port, p.unit)).collect();
    out += &format!("ports {}\ndata {:?}\ndocker {}\n", ports.join(" "), state.data, state.docker);
    for path in texts {
        let text = state.file(path).and_then(|f| shown(f, pki)).unwrap();
        out += &format!("\n--- {path}\n{text}");
    }
    out
}

#[test]
fn each_role_gets_what_it_needs() {
    golden!("lab-node-1", summary(&LAB.states[0], &LAB.pki, &[]));
    golden!("lab-node-2", summary(&LAB.states[1], &LAB.pki, &["/etc/kubernetes/kubelet.env"]));
}

#[test]
fn with_three_masters_every_host_balances_over_all() {
    let inventory = inventory("ha", |text| text);
    let pki = pki(&inventory);
    let states = states(&inventory, &pki);
    let master = [
        "/etc/etcd/etcd.env",
        "/etc/kubernetes/kube-apiserver.env",
        "/etc/kubernetes/apiserver-proxy.env",
        "/etc/kubernetes/apiserver-proxy.upstreams",
        "/etc/kubernetes/kube-scheduler.env",
        "/etc/kubernetes/scheduler.kubeconfig",
    ];
    golden!("ha-node-2", summary(&states[1], &pki, &master));
    let node = [
        "/etc/kubernetes/apiserver-proxy.upstreams",
        "/etc/kubernetes/bootstrap.kubeconfig",
        "/etc/kubernetes/flanneld.kubeconfig",
        "/etc/kubernetes/kube-proxy.env",
        "/etc/kubernetes/kubelet.env",
    ];
    golden!("ha-node-4", summary(&states[3], &pki, &node));
    let admin = kubeconfig::admin(&inventory, &pki, &Templates::embedded().unwrap()).unwrap();
    let leaf = pki.leaf(crate::pki::LeafKind::Admin, "").unwrap();
    let text = admin
        .expose()
        .replace(&kubeconfig::encode(&pki.cluster_ca.cert), "<CA>")
        .replace(&kubeconfig::encode(&leaf.cert), "<CERTIFICATE>")
        .replace(&kubeconfig::encode(leaf.key.expose()), "<KEY>");
    golden!("ha-admin-kubeconfig", text);
}

/// Where the components of each host of the cluster of three masters ask for the API.
fn asked(edit: impl FnOnce(String) -> String) -> Vec<String> {
    let inventory = inventory("ha", edit);
    let states = states(&inventory, &pki(&inventory));
    let asked = |state: &HostState| {
        let name = ["scheduler", "kube-proxy"].map(|n| format!("/etc/kubernetes/{n}.kubeconfig"));
        let file = name.iter().find_map(|path| state.file(path)).unwrap();
        let Content::Text(text) = &file.content else { panic!("{}", file.path) };
        let server = text.lines().find_map(|line| line.trim().strip_prefix("server: "));
        let proxy = state.units.iter().any(|unit| unit.name == "apiserver-proxy.service");
        format!("{} {} {proxy}", state.host, server.unwrap())
    };
    states.iter().map(asked).collect()
}

#[test]
fn an_external_balancer_is_asked_by_nodes_and_none_is_made() {
    let lines = asked(|text| text + "[load_balancer]\naddress = \"api.example.com:443\"\n");
    assert_eq!(lines[0], "node-1 https://10.99.1.11:6443 false");
    assert_eq!(lines[3], "node-4 https://api.example.com:443 false");
    let lines = asked(|text| text);
    assert_eq!(lines[0], "node-1 https://127.0.0.1:6444 true");
    assert_eq!(lines[5], "node-6 https://127.0.0.1:6444 true");
}

#[test]
fn another_master_restarts_no_balancer() {
    let local = "[load_balancer]\nkind = \"local\"\n";
    let one = inventory("ha", |text| text.replace("node-[1-3]", "node-1") + local);
    let three = inventory("ha", |text| text + local);
    let pki = pki(&three);
    let [before, after] = [&one, &three].map(|inventory| {
        let states = states(inventory, &pki);
        states.into_iter().find(|state| state.host == "node-5").unwrap()
    });
    let unit = after.units.iter().find(|unit| unit.name == "apiserver-proxy.service").unwrap();
    assert!(unit.inputs.iter().all(|path| before.file(path) == after.file(path)));
    let list = "/etc/kubernetes/apiserver-proxy.upstreams";
    assert_ne!(before.file(list), after.file(list));
}

#[test]
fn without_dns_no_host_has_a_trace_of_it() {
    let inventory = inventory("lab", |text| text.replace("[ssh]", "dns = false\n[ssh]"));
    let states = states(&inventory, &pki(&inventory));
    for state in &states {
        let mut paths = state.files.iter().map(|file| &file.path);
        assert!(!paths.any(|path| path.contains("cluster-dns")), "{}", state.host);
        assert!(state.ports.iter().all(|port| port.port != 10053));
        assert!(!openings(state).contains("10053"), "{}", openings(state));
    }
    let manager = "/etc/kubernetes/kube-controller-manager.env";
    let Some(Content::Text(text)) = states[0].file(manager).map(|file| &file.content) else {
        panic!("{manager}")
    };
    // What it made before is taken away.
    assert!(text.contains("--cluster-dns=none "), "{text}");
}

#[test]
fn keys_are_closed_and_only_where_they_are_needed() {
    for file in LAB.states.iter().flat_map(|s| &s.files) {
        let secret = matches!(file.content, Content::Secret(_));
        assert_eq!(file.mode == Mode::PRIVATE, secret, "{}", file.path);
        if let Content::Text(text) = &file.content {
            assert!(!text.contains("PRIVATE KEY"), "{}", file.path);
            assert!(!text.contains(LAB.pki.bootstrap_token.expose()), "{}", file.path);
        }
    }
    let secrets = |state: &HostState| -> Vec<String> {
        let secret = |f: &&FileState| matches!(f.content, Content::Secret(_));
        state.files.iter().filter(secret).map(|f| f.path.clone()).collect()
    };
    assert_eq!(
        secrets(&LAB.states[1]),
        [
            "/etc/kubernetes/bootstrap.kubeconfig",
            "/etc/kubernetes/pki/cluster-dns.key",
            "/etc/kubernetes/pki/flanneld.key",
            "/etc/kubernetes/pki/kube-proxy.key",
        ]
    );
    let etcd_ca_key = LAB.pki.etcd_ca.key.expose();
    for file in LAB.states.iter().flat_map(|s| &s.files) {
        let Content::Secret(secret) = &file.content else { continue };
        assert!(secret.expose() != etcd_ca_key, "the key of etcd's authority is on no host");
    }
}

#[test]
fn units_name_files_that_exist_and_no_file_is_forgotten() {
    for state in &LAB.states {
        let mut known: BTreeMap<&str, usize> =
            state.files.iter().map(|f| (f.path.as_str(), 0)).collect();
        known.extend(state.links.iter().map(|l| (l.path.as_str(), 0)));
        for unit in &state.units {
            for input in &unit.inputs {
                *known.get_mut(input.as_str()).unwrap_or_else(|| panic!("{input}")) += 1;
            }
            if let Gate::Https(gate) = &unit.health {
                let client = gate.client.iter().flat_map(|c| [&c.cert, &c.key]);
                for path in client.chain([&gate.ca]) {
                    assert!(state.file(path).is_some(), "{path}");
                }
            }
        }
        let unused: Vec<&str> = known.iter().filter(|(_, n)| **n == 0).map(|(p, _)| *p).collect();
        let expected: &[&str] = match state.host.as_str() {
            // Read by the health check and by the kernel, not by a unit.
            "node-1" => &[
                "/etc/etcd/pki/healthcheck-client.crt",
                "/etc/etcd/pki/healthcheck-client.key",
                "/etc/modules-load.d/kprov.conf",
                "/etc/sysctl.d/99-kprov.conf",
                // For people; each unit has a link of its own.
                "/usr/local/bin/hyperkube",
            ],
            _ => &[
                "/etc/modules-load.d/kprov.conf",
                "/etc/sysctl.d/99-kprov.conf",
                "/usr/local/bin/hyperkube",
            ],
        };
        assert_eq!(unused, expected, "{}", state.host);
    }
}

/// Units of the lab whose inputs differ after a change of the inventory.
fn restarted(edit: impl FnOnce(String) -> String) -> Vec<String> {
    let changed = inventory("lab", edit);
    let states = states(&changed, &LAB.pki);
    let mut units = Vec::new();
    for (before, after) in LAB.states.iter().zip(&states) {
        for unit in &after.units {
            let differs = |path: &String| before.file(path) != after.file(path);
            if unit.inputs.iter().any(differs) {
                units.push(format!("{} {}", after.host, unit.name));
            }
        }
    }
    units
}

#[test]
fn a_change_restarts_exactly_what_uses_it() {
    assert_eq!(restarted(|text| text), [""; 0]);
    assert_eq!(
        restarted(|text| text
            .replace("roles = [\"node\"]\n\n", "roles = [\"node\"]\nlabels = { a = \"b\" }\n\n")),
        ["node-2 kubelet.service"]
    );
    assert_eq!(
        restarted(|text| text + "[components.kube-scheduler]\nargs = { v = 5 }\n"),
        ["node-1 kube-scheduler.service"]
    );
    assert_eq!(
        restarted(|text| text + "[network]\nproxy_mode = \"iptables\"\n"),
        ["node-1 kube-proxy.service", "node-2 kube-proxy.service", "node-3 kube-proxy.service"]
    );
    assert_eq!(
        restarted(|text| text.replace("[ssh]", "node_ports = \"31000-32000\"\n[ssh]")),
        ["node-1 kube-apiserver.service"]
    );
}

#[test]
fn a_replaced_template_restarts_its_unit() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/kubelet.yaml"),
    );
    let text =
        text.unwrap().replace("nodeStatusUpdateFrequency: 10s", "nodeStatusUpdateFrequency: 5s");
    std::fs::write(dir.path().join("kubelet.yaml"), text).unwrap();
    let templates = Templates::with_overrides(dir.path()).unwrap();
    let inventory = inventory("lab", |text| text);
    let states =
        desired(&inventory, &LAB.pki, &Births::of(&inventory), &templates, &artifacts()).unwrap();
    let changed: Vec<&str> = LAB.states[0]
        .files
        .iter()
        .filter(|f| states[0].file(&f.path) != Some(f))
        .map(|f| f.path.as_str())
        .collect();
    assert_eq!(changed, ["/etc/kubernetes/kubelet.yaml"]);
}

#[test]
fn another_inventorys_certificates_are_refused() {
    let ha = inventory("ha", |text| text);
    let result =
        desired(&ha, &LAB.pki, &Births::of(&ha), &Templates::embedded().unwrap(), &artifacts());
    assert_eq!(result.unwrap_err().to_string(), "there is no certificate etcd-server.node-2");
}

/// Writes the files of a host under `root`, programs as stubs.
fn write_under(root: &Path, state: &HostState) {
    use std::os::unix::fs::PermissionsExt;
    for file in &state.files {
        let path = root.join(file.path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = match &file.content {
            Content::Text(text) => text.as_str(),
            Content::Secret(secret) => secret.expose(),
            Content::Blob(_) => "#!/bin/sh\n",
        };
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode.0)).unwrap();
    }
    for link in &state.links {
        let path = root.join(link.path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&link.target, path).unwrap();
    }
}

#[test]
fn systemd_accepts_every_unit() {
    let inventory = inventory("ha", |text| text);
    let balanced = &states(&inventory, &pki(&inventory))[3];
    assert_eq!((accepted(&LAB.states[0]), accepted(balanced)), (8, 5));
}

/// The number of units of a host, which systemd has accepted.
fn accepted(state: &HostState) -> usize {
    let root = tempfile::tempdir().unwrap();
    write_under(root.path(), state);
    // The targets that every unit needs, and Docker.
    let units = root.path().join("etc/systemd/system");
    for target in ["basic", "multi-user", "network-online", "shutdown", "sysinit"] {
        std::fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=x\n").unwrap();
    }
    let docker = "[Service]\nExecStart=/usr/local/bin/kubelet\n";
    std::fs::write(units.join("docker.service"), docker).unwrap();
    let names: Vec<&str> = state.units.iter().map(|u| u.name.as_str()).collect();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--root"])
        .arg(root.path())
        .args(&names)
        .output()
        .expect("systemd-analyze is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    // Unknown settings are only warned about.
    assert!(output.status.success() && said.is_empty(), "{said}");
    names.len()
}

#[test]
fn kubectl_reads_every_kubeconfig() {
    let root = tempfile::tempdir().unwrap();
    write_under(root.path(), &LAB.states[0]);
    let inventory = inventory("lab", |text| text);
    let admin = kubeconfig::admin(&inventory, &LAB.pki, &Templates::embedded().unwrap()).unwrap();
    let etc = root.path().join("etc/kubernetes");
    std::fs::write(etc.join("admin.kubeconfig"), admin.expose()).unwrap();
    for (name, context, user) in [
        ("admin", "lab", "lab-admin"),
        ("bootstrap", "default", "kubelet-bootstrap"),
        ("controller-manager", "default", "system:kube-controller-manager"),
        ("cluster-dns", "default", "system:kube-dns"),
        ("flanneld", "default", "system:flannel"),
        ("kube-proxy", "default", "system:kube-proxy"),
        ("scheduler", "default", "system:kube-scheduler"),
    ] {
        let path = "{.current-context} {.contexts[0].context.user} {.users[0].name} \
                    {.clusters[0].cluster.server}";
        let output = Command::new("kubectl")
            .args(["config", "view", "--output", &format!("jsonpath={path}"), "--kubeconfig"])
            .arg(etc.join(format!("{name}.kubeconfig")))
            .output()
            .expect("kubectl is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("{context} {user} {user} https://10.99.0.11:6443"));
    }
}

/// What systemd would give the program: the file as its reader reads it.
#[test]
fn environment_files_are_one_variable_of_plain_flags() {
    for file in LAB.states.iter().flat_map(|s| &s.files).filter(|f| f.path.ends_with(".env")) {
        let Content::Text(text) = &file.content else { panic!("{}", file.path) };
        let joined = text.replace("\\\n", "");
        for line in joined.lines().filter(|l| !l.starts_with('#')) {
            let (_, value) = line.split_once('=').unwrap();
            let Some(flags) = value.strip_prefix('"') else { continue };
            let flags = flags.strip_suffix('"').unwrap();
            for flag in flags.split_whitespace() {
                let (name, value) = flag.split_once('=').unwrap();
                assert!(name.starts_with("--") && !value.is_empty(), "{}: {flag}", file.path);
            }
        }
    }
}

/// What a firewall must let through to a host, a line a thing.
fn openings(state: &HostState) -> String {
    let line = |opening: &crate::firewall::Opening| match opening {
        crate::firewall::Opening::Port { protocol, port, from: None } => {
            format!("{port}/{protocol} from anyone\n")
        }
        crate::firewall::Opening::Port { protocol, port, from: Some(from) } => {
            let from: Vec<_> = from.iter().map(ToString::to_string).collect();
            format!("{port}/{protocol} from {}\n", from.join(" "))
        }
        crate::firewall::Opening::Gre { from } => {
            let from: Vec<_> = from.iter().map(ToString::to_string).collect();
            format!("gre from {}\n", from.join(" "))
        }
        crate::firewall::Opening::Pods { range } => format!("pods of {range}\n"),
    };
    state.firewall.openings.iter().map(line).collect()
}

#[test]
fn firewalls_let_in_who_needs_it_and_nobody_else() {
    let inventory = inventory("ha", |text| text);
    let pki = pki(&inventory);
    let states = states(&inventory, &pki);
    let of = |name: &str| openings(states.iter().find(|state| state.host == name).unwrap());
    insta::assert_snapshot!(of(&inventory.hosts[0].name), @r"
    2379/tcp from 10.99.1.12/31
    2380/tcp from 10.99.1.12/31
    6443/tcp from anyone
    ");
    insta::assert_snapshot!(of(&inventory.hosts[inventory.hosts.len() - 1].name), @r"
    10053/tcp from 10.244.0.0/16
    10250/tcp from 10.99.1.11/32 10.99.1.12/31
    8472/udp from 10.99.1.14/31
    10053/udp from 10.244.0.0/16
    pods of 10.244.0.0/16
    ");
}

#[test]
fn a_prepared_host_gets_names_and_limits() {
    let inventory = inventory("lab", |text| {
        text + "\n[system]\nhosts_file = true\nswap = \"off\"\npackages = [\"nfs-common\"]\n\
                limits = { open_files = 65536 }\n"
    });
    let pki = pki(&inventory);
    let state = &states(&inventory, &pki)[0];
    let names: Vec<_> =
        inventory.hosts.iter().map(|h| format!("{} {}\n", h.address, h.name)).collect();
    assert_eq!(state.blocks[0].path, "/etc/hosts");
    assert_eq!(state.blocks[0].text, names.concat());
    assert!(state.swap_off && state.engine.install && state.packages.contains("nfs-common"));
    let limits = state.file("/etc/security/limits.d/90-kprov.conf").unwrap();
    insta::assert_snapshot!(shown(limits, &pki).unwrap(), @r"
    # Made by kprov; changes made here are overwritten.
    * - nofile 65536
    root - nofile 65536
    ");
}
