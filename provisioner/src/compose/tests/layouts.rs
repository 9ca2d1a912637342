//! The layouts of the guides: what each of them says that a host has.

use super::*;
use crate::firewall::Opening;
use crate::layout::Layout;
use crate::state::Stage;

fn text<'a>(state: &'a HostState, path: &str) -> &'a str {
    match &state.file(path).unwrap_or_else(|| panic!("no {path}")).content {
        Content::Text(text) => text,
        Content::Secret(secret) => secret.expose(),
        Content::Blob(_) => panic!("{path} is a program"),
    }
}

/// Every fragment stands in the file, as a whole line but for what continues it.
fn assert_lines(state: &HostState, path: &str, fragments: &[&str]) {
    let text = text(state, path);
    for fragment in fragments {
        let line = |line: &str| line.trim_end_matches([' ', '\\', '"']).trim() == *fragment;
        assert!(text.lines().any(line), "{path} lacks {fragment}:\n{text}");
    }
}

fn classic() -> Vec<HostState> {
    lab_with("layout = \"classic\"\nnode_ports = \"30000-50000\"")
}

#[test]
fn the_classic_guides_files_lie_where_it_says() {
    let state = &classic()[0];
    let etcd = ["bin/etcd", "cfg/etcd.conf", "ssl/ca.pem", "ssl/server.pem", "ssl/server-key.pem"];
    let kubernetes = [
        "bin/hyperkube",
        "cfg/kube-apiserver",
        "cfg/kube-controller-manager",
        "cfg/kube-scheduler",
        "cfg/kubelet",
        "cfg/kube-proxy",
        "cfg/flanneld",
        "cfg/cluster-dns",
        "cfg/token.csv",
        "cfg/bootstrap.kubeconfig",
        "cfg/kubelet.config",
        "cfg/kube-proxy.kubeconfig",
        "ssl/ca.pem",
        "ssl/ca-key.pem",
    ];
    let etcd = etcd.map(|name| format!("/k8s/etcd/{name}"));
    let kubernetes = kubernetes.map(|name| format!("/k8s/kubernetes/{name}"));
    // A program is a link to the build that is in use.
    let linked = |path: &str| state.links.iter().any(|link| link.path == path);
    for path in etcd.iter().chain(&kubernetes) {
        assert!(state.file(path).is_some() || linked(path), "no {path}");
    }
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"] {
        let path = format!("/k8s/kubernetes/bin/{name}");
        assert!(linked(&path), "no {path}");
    }
    assert!(state.data.contains("/data1/etcd"));
    let profile = state.blocks.iter().find(|block| block.path == "/etc/profile").unwrap();
    assert_eq!(profile.text, "export PATH=\"$PATH:/k8s/kubernetes/bin:/k8s/etcd/bin\"\n");
    // Nothing lies elsewhere but what systemd and the kernel read.
    for file in &state.files {
        let known = [
            "/k8s/",
            "/etc/systemd/system/",
            "/etc/modules-load.d/",
            "/etc/sysctl.d/",
            crate::program::DIRECTORY,
        ];
        assert!(known.iter().any(|folder| file.path.starts_with(folder)), "{}", file.path);
        if let Content::Text(text) = &file.content {
            assert!(!text.contains("/etc/kubernetes") && !text.contains("/etc/etcd"), "{text}");
            assert!(!text.contains("/usr/local/bin"), "{}: {text}", file.path);
        }
    }
}

#[test]
fn the_classic_guides_etcd() {
    let state = &classic()[0];
    assert_lines(
        state,
        "/k8s/etcd/cfg/etcd.conf",
        &[
            "ETCD_NAME=node-1",
            "ETCD_DATA_DIR=/data1/etcd",
            "ETCD_LISTEN_PEER_URLS=https://10.99.0.11:2380",
            "ETCD_LISTEN_CLIENT_URLS=https://10.99.0.11:2379,https://127.0.0.1:2379",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.99.0.11:2380",
            "ETCD_ADVERTISE_CLIENT_URLS=https://10.99.0.11:2379",
            "ETCD_INITIAL_CLUSTER=node-1=https://10.99.0.11:2380",
            "ETCD_INITIAL_CLUSTER_TOKEN=etcd-cluster",
            "ETCD_INITIAL_CLUSTER_STATE=new",
            "ETCD_CLIENT_CERT_AUTH=true",
            "ETCD_PEER_CLIENT_CERT_AUTH=true",
        ],
    );
    assert_lines(
        state,
        "/etc/systemd/system/etcd.service",
        &[
            "Type=notify",
            "After=network-online.target",
            "EnvironmentFile=-/k8s/etcd/cfg/etcd.conf",
            "ExecStart=/bin/sh -c \"GOMAXPROCS=$(nproc) exec /k8s/etcd/bin/etcd",
            "Restart=on-failure",
            "LimitNOFILE=65536",
        ],
    );
}

#[test]
fn the_classic_guides_network_is_said_in_etcd_and_that_of_others_is_not() {
    let said = |cluster: &str, network: &str| {
        let lab = inventory("lab", |source| {
            format!("{}\n[network]\n{network}\n", source.replace("[cluster]", cluster))
        });
        crate::etcd::network_key::wanted(&lab)
    };
    let classic = "[cluster]\nlayout = \"classic\"\nnode_ports = \"30000-50000\"";
    for backend in ["vxlan", "host-gw", "ovs-gre"] {
        let network = format!("backend = \"{backend}\"");
        let expected =
            format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#);
        assert_eq!(said(classic, &network), Some(expected));
        assert_eq!(said("[cluster]", &network), None);
    }
}

#[test]
fn the_classic_guides_masters() {
    let state = &classic()[0];
    let unit = |name: &str, lines: &[&str]| {
        let path = format!("/etc/systemd/system/{name}.service");
        let env = format!("EnvironmentFile=-/k8s/kubernetes/cfg/{name}");
        assert_lines(state, &path, &[&[env.as_str(), "Restart=on-failure"], lines].concat());
    };
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kube-apiserver",
        &[
            "KUBE_APISERVER_OPTS=",
            "--logtostderr=true",
            "--v=4",
            "--etcd-servers=https://10.99.0.11:2379",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            "--advertise-address=10.99.0.11",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.254.0.0/16",
            "--enable-admission-plugins=NamespaceLifecycle,LimitRanger,ServiceAccount,\
             ResourceQuota,NodeRestriction",
            "--authorization-mode=Node,RBAC",
            "--enable-bootstrap-token-auth=true",
            "--token-auth-file=/k8s/kubernetes/cfg/token.csv",
            "--service-node-port-range=30000-50000",
            "--tls-cert-file=/k8s/kubernetes/ssl/apiserver.pem",
            "--tls-private-key-file=/k8s/kubernetes/ssl/apiserver-key.pem",
            "--client-ca-file=/k8s/kubernetes/ssl/ca.pem",
            "--service-account-key-file=/k8s/kubernetes/ssl/sa.pub",
            "--etcd-cafile=/k8s/kubernetes/ssl/etcd-ca.pem",
            "--etcd-certfile=/k8s/kubernetes/ssl/apiserver-etcd-client.pem",
            "--etcd-keyfile=/k8s/kubernetes/ssl/apiserver-etcd-client-key.pem",
        ],
    );
    unit("kube-apiserver", &["ExecStart=/k8s/kubernetes/bin/kube-apiserver $KUBE_APISERVER_OPTS"]);
    let token = text(state, "/k8s/kubernetes/cfg/token.csv");
    assert!(token.contains(",kubelet-bootstrap,10001,\""), "{token}");
    assert!(token.contains("system:kubelet-bootstrap\""), "{token}");
    // In place of `--master=127.0.0.1:8080`, which asks nobody who he is.
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kube-scheduler",
        &["--kubeconfig=/k8s/kubernetes/cfg/scheduler.kubeconfig", "--leader-elect=true"],
    );
    unit("kube-scheduler", &[]);
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kube-controller-manager",
        &[
            "--kubeconfig=/k8s/kubernetes/cfg/controller-manager.kubeconfig",
            "--leader-elect=true",
            "--service-cluster-ip-range=10.254.0.0/16",
            "--cluster-name=lab",
            "--cluster-signing-cert-file=/k8s/kubernetes/ssl/ca.pem",
            "--cluster-signing-key-file=/k8s/kubernetes/ssl/ca-key.pem",
            "--root-ca-file=/k8s/kubernetes/ssl/ca.pem",
        ],
    );
    unit("kube-controller-manager", &[]);
}

#[test]
fn the_classic_guides_nodes() {
    let state = &classic()[1];
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kubelet",
        &[
            "--logtostderr=true",
            "--v=4",
            "--hostname-override=node-2",
            "--kubeconfig=/k8s/kubernetes/cfg/kubelet.kubeconfig",
            "--bootstrap-kubeconfig=/k8s/kubernetes/cfg/bootstrap.kubeconfig",
            "--config=/k8s/kubernetes/cfg/kubelet.config",
            "--cert-dir=/k8s/kubernetes/ssl/kubelet",
            "--pod-infra-container-image=kprov.local/pause:3.10",
        ],
    );
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kubelet.config",
        &[
            "kind: KubeletConfiguration",
            "apiVersion: kubelet.config.k8s.io/v1beta1",
            "address: 0.0.0.0",
            "port: 10250",
            "cgroupDriver: cgroupfs",
            "clusterDNS:",
            "- 10.254.0.10",
            "clusterDomain: cluster.local",
            "failSwapOn: false",
        ],
    );
    assert_lines(
        state,
        "/etc/systemd/system/kubelet.service",
        &[
            "After=network-online.target docker.service",
            "Requires=docker.service",
            "EnvironmentFile=-/k8s/kubernetes/cfg/kubelet",
            "ExecStart=/k8s/kubernetes/bin/kubelet $KUBELET_OPTS",
            "KillMode=process",
            "Restart=on-failure",
        ],
    );
    let own: Vec<_> = state.data.iter().filter(|path| path.starts_with("/k8s/")).collect();
    assert_eq!(own, ["/k8s/kubernetes/cfg/kubelet.kubeconfig", "/k8s/kubernetes/ssl/kubelet"]);
    assert_lines(
        state,
        "/k8s/kubernetes/cfg/kube-proxy",
        &[
            "--hostname-override=node-2",
            "--cluster-cidr=10.244.0.0/16",
            "--kubeconfig=/k8s/kubernetes/cfg/kube-proxy.kubeconfig",
        ],
    );
    assert_lines(state, "/etc/systemd/system/flanneld.service", &["Type=notify"]);
    assert_lines(state, "/k8s/kubernetes/cfg/flanneld", &["--ip-masq=true", "--backend=vxlan"]);
}

#[test]
fn the_first_centos_guides_environment_files() {
    let states = lab_with("layout = \"environment-files\"");
    let (master, node) = (&states[0], &states[1]);
    for name in ["config", "apiserver", "controller-manager", "scheduler", "kubelet", "proxy"] {
        assert!(master.file(&format!("/etc/kubernetes/{name}")).is_some(), "no {name}");
    }
    golden!("environment-files-config", text(master, "/etc/kubernetes/config"));
    golden!("environment-files-apiserver", text(master, "/etc/kubernetes/apiserver"));
    let unit = "/etc/systemd/system/kube-apiserver.service";
    golden!("environment-files-kube-apiserver.service", text(master, unit));
    // A node learns nothing of etcd, so that a new member restarts nothing there.
    assert!(!text(node, "/etc/kubernetes/config").contains("etcd"));
    assert_lines(
        node,
        "/etc/systemd/system/kube-proxy.service",
        &[
            "EnvironmentFile=-/etc/kubernetes/config",
            "EnvironmentFile=-/etc/kubernetes/proxy",
            "ExecStart=/usr/local/bin/kube-proxy $KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBE_PROXY_ARGS",
        ],
    );
    let proxy = node.units.iter().find(|unit| unit.name == "kube-proxy.service").unwrap();
    assert!(proxy.inputs.contains("/etc/kubernetes/config"), "{:?}", proxy.inputs);
}

#[test]
fn a_flag_is_never_given_twice() {
    let inventory = inventory("lab", |text| {
        text.replace("name = \"lab\"", "name = \"lab\"\nlayout = \"environment-files\"")
            + "[components.kube-apiserver]\nargs = { v = 6 }\n"
    });
    let pki = pki(&inventory);
    let state = &states(&inventory, &pki)[0];
    assert_lines(state, "/etc/kubernetes/apiserver", &["--v=6"]);
    let unit = text(state, "/etc/systemd/system/kube-apiserver.service");
    assert!(!unit.contains("$KUBE_LOG_LEVEL") && unit.contains("$KUBE_ALLOW_PRIV"), "{unit}");
}

#[test]
fn every_layout_names_only_files_that_exist() {
    for layout in Layout::ALL {
        for state in lab_with(&format!("layout = \"{}\"", layout.as_str())) {
            let exists = |path: &str| {
                state.file(path).is_some() || state.links.iter().any(|link| link.path == path)
            };
            for unit in &state.units {
                let missing: Vec<_> = unit.inputs.iter().filter(|path| !exists(path)).collect();
                assert!(missing.is_empty(), "{}: {missing:?}", unit.name);
            }
        }
    }
}

#[test]
fn docker_starts_on_the_range_that_flanneld_tells() {
    let states = lab_edited(|text| text + "\n[network]\npod_bridge = \"docker0\"\n");
    let state = &states[1];
    golden!("docker0-docker.service.d-flannel.conf", text(state, DOCKER_ON_FLANNEL));
    golden!("docker0-flanneld.service", text(state, "/etc/systemd/system/flanneld.service"));
    assert_lines(state, "/etc/kubernetes/flanneld.env", &["--pod-bridge=docker0"]);
    assert_lines(state, "/etc/kubernetes/kubelet.env", &["--pod-bridge=docker0"]);
    // At the first apply the kubelet brings the node, flanneld takes its range, Docker follows; at
    // boot systemd starts flanneld, Docker, the kubelet.
    let names: Vec<_> = state.units.iter().map(|unit| unit.name.as_str()).collect();
    let order = [
        "kubelet.service",
        "flanneld.service",
        "docker.service",
        "kube-proxy.service",
        "cluster-dns.service",
    ];
    assert_eq!(names, order);
    let kubelet = text(state, "/etc/systemd/system/kubelet.service");
    assert!(kubelet.contains("After=network-online.target docker.service\n"), "{kubelet}");
    assert!(LAB.states[1].file(DOCKER_ON_FLANNEL).is_none());
    assert!(LAB.states[1].units.iter().all(|unit| unit.name != "docker.service"));
}

#[test]
fn tunnels_of_open_vswitch_need_it_and_a_bridge_of_their_own() {
    let more = "\n[network]\nbackend = \"ovs-gre\"\novs_datapath = \"netdev\"\n";
    let states = lab_edited(|text| text + more);
    let state = &states[1];
    assert!(state.open_vswitch && !state.modules.contains("vxlan"), "{:?}", state.modules);
    golden!("ovs-gre-flanneld.service", text(state, "/etc/systemd/system/flanneld.service"));
    let flags = ["--backend=ovs-gre", "--ovs-datapath=netdev", "--mtu=1462", "--pod-bridge=kbr0"];
    assert_lines(state, "/etc/kubernetes/flanneld.env", &flags);
    assert_lines(state, "/etc/kubernetes/kubelet.env", &["--pod-bridge=kbr0"]);
    let gre = |state: &HostState| {
        let openings = state.firewall.openings.iter();
        openings.filter(|opening| matches!(opening, Opening::Gre { .. })).count()
    };
    assert_eq!(gre(state), 1);
    let by_kernel = lab_edited(|text| text + &more.replace("netdev", "system"));
    assert!(by_kernel[1].modules.contains("openvswitch"));
    assert!(!state.modules.contains("openvswitch"));
    let usual = &LAB.states[1];
    assert!(!usual.open_vswitch && gre(usual) == 0);
}

/// Runs the script that starts Docker where systemd knows these files of its unit, and returns what
/// was started with which options.
fn started(unit: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let states = lab_edited(|text| text + "\n[network]\npod_bridge = \"docker0\"\n");
    let script = text(&states[1], "/etc/kubernetes/start-docker.sh");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("unit"), unit).unwrap();
    let programs = [
        ("systemctl", "#!/bin/sh\ncat \"${0%/*}/unit\"\n"),
        ("dockerd", "#!/bin/sh\nfor word in dockerd \"$@\"; do printf '[%s]' \"$word\"; done\n"),
    ];
    for (name, text) in programs {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .env("PATH", path)
        .env("OPTIONS", "--log-level=info --debug")
        .env("DOCKER_NETWORK_OPTIONS", "--bip=10.244.3.1/24 --mtu=1450")
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn docker_starts_as_its_own_unit_says() {
    let check = |unit: &str, expected: &str| assert_eq!(started(unit), expected, "{unit}");
    let network = "[--bip=10.244.3.1/24][--mtu=1450]";
    check(
        "# /lib/systemd/system/docker.service\n[Service]\nEnvironmentFile=-/etc/default/docker\n\
         ExecStart=dockerd -H fd:// $DOCKER_OPTS\nExecReload=/bin/kill -s HUP $MAINPID\n",
        &format!("[dockerd][-H][fd://]{network}"),
    );
    // As on CentOS 7, where the unit takes the options anyway, and once is enough.
    check(
        "# /usr/lib/systemd/system/docker.service\n[Service]\nExecStart=dockerd \\\n  \
         # of the package\n  --exec-opt native.cgroupdriver=cgroupfs \\\n  $OPTIONS \\\n  \
         $DOCKER_NETWORK_OPTIONS\nRestart=on-abnormal\n",
        &format!(
            "[dockerd][--exec-opt][native.cgroupdriver=cgroupfs][--log-level=info][--debug]{network}"
        ),
    );
    // A drop-in of the owner's takes the place of the unit's line, and kprov's own is left out.
    check(
        &format!(
            "# /lib/systemd/system/docker.service\n[Service]\nExecStart=dockerd -H fd://\n\n\
             # /etc/systemd/system/docker.service.d/10-owner.conf\n[Service]\nExecStart=\n\
             ExecStart=-dockerd \"--label=a b\" --tlsverify\n\n\
             # {DOCKER_ON_FLANNEL}\n[Service]\nExecStart=\nExecStart=/bin/sh start-docker.sh\n"
        ),
        &format!("[dockerd][--label=a b][--tlsverify]{network}"),
    );
    let message = "docker.service has no ExecStart but kprov's: install Docker's package again\n";
    check("# /lib/systemd/system/docker.service\n[Unit]\n", message);
}

/// Who joins is decided by people where the inventory says so, and by the cluster otherwise.
#[test]
fn nodes_may_be_approved_by_hand() {
    let options = |states: &[HostState]| {
        text(&states[0], "/etc/kubernetes/kube-controller-manager.env").to_owned()
    };
    let by_hand = options(&lab_with("node_approval = \"manual\""));
    assert!(by_hand.contains("--approve-joining-nodes=false"), "{by_hand}");
    assert!(!options(&lab_with("")).contains("approve"));
}

#[test]
fn a_master_as_pods_has_manifests_and_a_kubelet_that_needs_no_cluster() {
    let states = lab_with("masters = \"static-pods\"");
    let (master, node) = (&states[0], &states[1]);
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let path = format!("/etc/kubernetes/manifests/{name}.yaml");
        let shown = text(master, &path);
        let digest = shown.split("kprov.io/inputs: ").nth(1).unwrap().lines().next().unwrap();
        golden!(format!("static-pods-{name}.yaml"), shown.replace(digest, "<DIGEST>"));
        assert!(master.units.iter().all(|unit| unit.name != format!("{name}.service")));
        assert!(master.file(&format!("/etc/kubernetes/{name}.env")).is_none());
    }
    assert_eq!(master.images.len(), 1);
    assert!(node.images.is_empty(), "only masters run it");
    let kubelet = master.units.iter().find(|unit| unit.name == "kubelet.service").unwrap();
    assert_eq!(kubelet.stage, Stage::ControlPlane);
    let Gate::StaticPods(gate) = &kubelet.health else { panic!("{kubelet:?}") };
    assert_eq!((gate.api.port, gate.api.path.as_str()), (6443, "/readyz"));
    for (name, inputs) in &gate.pods {
        let component = name.strip_suffix("-node-1").unwrap();
        let shown = text(master, &format!("/etc/kubernetes/manifests/{component}.yaml"));
        assert!(shown.contains(&format!("kprov.io/inputs: \"{inputs}\"")), "{shown}");
    }
    assert_eq!(gate.pods.len(), 3);
    assert_eq!(kubelet.inputs.iter().filter(|path| path.contains("/manifests/")).count(), 3);
    let env = text(master, "/etc/kubernetes/kubelet.env");
    assert!(!env.contains("--bootstrap-kubeconfig"), "{env}");
    let kubeconfig = text(master, "/etc/kubernetes/kubelet.kubeconfig");
    assert!(kubeconfig.contains("user: system:node:node-1"), "{kubeconfig}");
    assert!(text(node, "/etc/kubernetes/kubelet.env").contains("--bootstrap-kubeconfig"));
}

#[test]
fn a_pod_starts_again_when_what_it_reads_changes() {
    let inputs = |more: &str| {
        let inventory = inventory("lab", |text| {
            text.replace("name = \"lab\"", "name = \"lab\"\nmasters = \"static-pods\"")
        });
        let pki = pki(&inventory);
        let mut all = BTreeMap::new();
        for round in 0..2 {
            let mut pki = pki.clone();
            if round == 1 && more == "token" {
                pki.bootstrap_token = crate::secret::Secret::new("other".to_owned());
            }
            for name in ["kube-apiserver", "kube-scheduler"] {
                let state = states(&inventory, &pki).remove(0);
                let path = format!("/etc/kubernetes/manifests/{name}.yaml");
                all.insert((name, round), text(&state, &path).to_owned());
            }
        }
        let changed = |name| all[&(name, 0)] != all[&(name, 1)];
        (changed("kube-apiserver"), changed("kube-scheduler"))
    };
    assert_eq!(inputs(""), (false, false));
    assert_eq!(inputs("token"), (true, false));
}

#[test]
fn a_pod_with_other_flags_is_another_one_to_its_gate() {
    let inventory = |more: &str| {
        inventory("lab", |text| {
            text.replace("name = \"lab\"", "name = \"lab\"\nmasters = \"static-pods\"") + more
        })
    };
    let pki = pki(&inventory(""));
    let gate = |more: &str| {
        let inventory = inventory(more);
        let state = states(&inventory, &pki).remove(0);
        let kubelet = state.units.iter().find(|unit| unit.name == "kubelet.service").unwrap();
        let Gate::StaticPods(gate) = &kubelet.health else { panic!("{kubelet:?}") };
        gate.pods.clone()
    };
    let (plain, other) = (gate(""), gate("[components.kube-scheduler]\nargs = { v = 6 }\n"));
    let changed = |name: &str| plain[name] != other[name];
    assert!(changed("kube-scheduler-node-1") && !changed("kube-controller-manager-node-1"));
}
