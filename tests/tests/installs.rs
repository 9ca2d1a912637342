//! The installs of the guides (docs/installs), each on hosts that look like those of its guide, with
//! the guide's verification steps and the real kubectl; then applied once more, and given back.

#![expect(clippy::print_stdout, reason = "a test report says how long each part took")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Fault, HostKind};
use tests::{
    Bare, Cluster, Inventory, Role, Traffic, eventually, nothing_is_left_to_do,
    pods_reach_each_other,
};

const SOON: Duration = Duration::from_secs(90);

/// Tells how far a test has come.
struct Story(Instant);

impl Story {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn tell(&self, what: &str) {
        println!("{:6.1?} {what}", self.0.elapsed());
    }
}

/// What every guide ends with, and what none of them has: nothing is left to do, and the hosts can
/// be had back.
async fn is_whole_and_given_back(cluster: &Cluster, bare: &Bare, story: &Story) -> Result<()> {
    nothing_is_left_to_do(cluster).await?;
    story.tell("applied again");
    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    bare.expect_given_back(cluster).await?;
    story.tell("given back");
    Ok(())
}

async fn boot(cluster: &Cluster, host: &str) -> Result<()> {
    cluster.lab.fault(host, Fault::Kill).await?;
    cluster.lab.fault(host, Fault::Start).await?;
    Ok(())
}

/// Runs a line of shell on a host.
async fn shell(cluster: &Cluster, host: &str, line: &str) -> Result<String> {
    cluster.lab.run(host, &["sh", "-c", line]).await.with_context(|| format!("{host}: {line}"))
}

/// What the guide of classic binaries makes of three hosts of CentOS 7.
#[tokio::test(flavor = "multi_thread")]
async fn classic_binaries_on_three_hosts() -> Result<()> {
    let story = Story::begin();
    let node = || vec![Role::Etcd, Role::Node];
    let mut inventory =
        Inventory::new("classic", vec![vec![Role::Etcd, Role::Master], node(), node()]);
    inventory.kinds = vec![HostKind::Centos7];
    inventory.cluster = "layout = \"classic\"\nservice_cidr = \"10.254.0.0/16\"\n\
                         pod_cidr = \"10.244.0.0/16\"\nnode_ports = \"30000-50000\"\n"
        .to_owned();
    inventory.extra = "[network]\nbackend = \"vxlan\"\npod_bridge = \"docker0\"\n\n\
                       [pki]\nalgorithm = \"rsa-2048\"\nca_days = 3650\nleaf_days = 3650\n"
        .to_owned();
    let cluster = Cluster::boot(inventory).await?;
    let bare = Bare::of(&cluster).await?;
    story.tell("the hosts are up");
    cluster.apply().await?;
    story.tell("applied");

    classic_components_are_healthy(&cluster).await?;
    pods_reach_each_other(&cluster, 2).await?;
    pods_are_on_dockers_bridge(&cluster).await?;
    story.tell("pods reach each other");
    the_network_is_in_etcd(&cluster).await?;
    story.tell("etcd says the network, again after a drift");

    // At a boot, flanneld comes before Docker, and Docker before the kubelet.
    boot(&cluster, "node-2").await?;
    cluster.nodes_are_ready(2, SOON).await?;
    cluster.kubectl("rollout status daemonset/agent --timeout=90s").await?;
    pods_reach_each_other(&cluster, 2).await?;
    pods_are_on_dockers_bridge(&cluster).await?;
    story.tell("a node has booted");
    is_whole_and_given_back(&cluster, &bare, &story).await
}

async fn classic_components_are_healthy(cluster: &Cluster) -> Result<()> {
    let wide = cluster.kubectl("get nodes -o wide").await?;
    let ready = wide.lines().filter(|line| line.contains(" Ready ")).count();
    ensure!(ready == 2 && wide.contains("CentOS Linux 7"), "{wide}");
    let ready = cluster.kubectl("get --raw /readyz?verbose").await?;
    ensure!(ready.contains("[+]etcd ok"), "{ready}");
    let requests = cluster.kubectl("get csr").await?;
    let issued = requests.lines().filter(|line| {
        line.contains("kubelet-bootstrap") && line.trim_end().ends_with("Approved,Issued")
    });
    ensure!(issued.count() == 2, "{requests}");
    // As the guide asks etcd, by its own files; its client is of Go, which `curl` stands in for.
    let health = "curl -sf --cacert /k8s/etcd/ssl/ca.pem --cert /k8s/etcd/ssl/healthcheck-client.pem \
                  --key /k8s/etcd/ssl/healthcheck-client-key.pem";
    for host in cluster.lab.hosts() {
        let line = format!("{health} https://{}:2379/health", host.address);
        let answer = shell(cluster, &host.name, &line).await?;
        ensure!(answer.contains("true"), "{}: {answer}", host.name);
        let login =
            shell(cluster, &host.name, "ls /data1/etcd; bash -lc 'command -v etcd'").await?;
        ensure!(login.contains("/k8s/etcd/bin/etcd"), "{}: {login}", host.name);
    }
    Ok(())
}

/// As the guide's `etcdctl get`, by the HTTP that etcd itself speaks: a host has no `etcdctl`. Keys and
/// values travel in base64.
async fn the_network_is_in_etcd(cluster: &Cluster) -> Result<()> {
    const KEY: &str = "L2s4cy9uZXR3b3JrL2NvbmZpZw==";
    const EMPTY: &str = "e30=";
    const TRUE: &str =
        "eyJOZXR3b3JrIjogIjEwLjI0NC4wLjAvMTYiLCAiQmFja2VuZCI6IHsiVHlwZSI6ICJ2eGxhbiJ9fQ==";
    let address = cluster.lab.host("node-2")?.address;
    let ask = async |act: &str, fields: &str| {
        let line = format!(
            "curl -sf --cacert /k8s/etcd/ssl/ca.pem --cert /k8s/etcd/ssl/healthcheck-client.pem \
             --key /k8s/etcd/ssl/healthcheck-client-key.pem \
             -d '{{\"key\": \"{KEY}\"{fields}}}' https://{address}:2379/v3/kv/{act}"
        );
        shell(cluster, "node-2", &line).await
    };
    let expect = async |value: &str| {
        let kept = ask("range", "").await?;
        ensure!(kept.contains(&format!("\"value\":\"{value}\"")), "{kept}");
        Ok(())
    };
    expect(TRUE).await?;
    ask("put", &format!(", \"value\": \"{EMPTY}\"")).await?;
    expect(EMPTY).await?;
    let differs = cluster.kprov("diff", &["--exit-code"]).await?;
    ensure!(differs.code == 2 && differs.stdout.contains("~ etcd: key"), "{differs:?}");
    cluster.apply().await?;
    expect(TRUE).await
}

/// Docker runs by the name that its package gives it, with the range that flanneld tells.
async fn pods_are_on_dockers_bridge(cluster: &Cluster) -> Result<()> {
    for host in ["node-2", "node-3"] {
        let told = shell(cluster, host, "cat /run/flannel/subnet.env").await?;
        let told = told.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
        let subnet = told.context("flanneld told no range")?;
        let address = shell(cluster, host, "ip -4 -o address show docker0").await?;
        ensure!(address.contains(&format!(" {subnet} ")), "{host}: {subnet}: {address}");
        let engine = shell(cluster, host, "tr '\\0' ' ' </proc/$(pidof dockerd-current)/cmdline");
        let engine = engine.await?;
        for option in
            ["native.cgroupdriver=cgroupfs", "--log-level=info", &format!("--bip={subnet}")]
        {
            ensure!(engine.contains(option), "{host}: no {option}: {engine}");
        }
        // kubelet and proxy are told of no bridge of their own.
        let links = shell(cluster, host, "ip -o link show").await?;
        ensure!(!links.contains("cni0"), "{host}: {links}");
    }
    Ok(())
}

/// The tour on one machine, by somebody who has kprov there and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn one_machine_goes_up_and_down() -> Result<()> {
    let story = Story::begin();
    let cluster = Cluster::boot(Inventory::single_master("updown", 1)).await?;
    let images = cluster.lab.options().images_dir();
    let root = lab::workspace_root();
    let pause = images.join("pause-3.10.tar");
    let files = [
        (cluster.kprov_path(), "kprov", 0o755),
        (root.join("target/release/hyperkube"), "hyperkube", 0o755),
        ("/usr/bin/etcd".into(), "etcd", 0o755),
        (std::fs::canonicalize(cluster.kubectl_path())?, "kubectl", 0o755),
        (pause, "images/pause-3.10.tar", 0o644),
        (images.join("echo-1.tar"), "echo-1.tar", 0o644),
        (images.join("echo-2.tar"), "echo-2.tar", 0o644),
    ];
    shell(&cluster, "node-1", "mkdir -p /opt/kprov/images").await?;
    for (from, name, mode) in files {
        let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
        cluster.lab.put("node-1", &format!("/opt/kprov/{name}"), mode, &bytes).await?;
    }
    let bare = Bare::of(&cluster).await?;
    story.tell("the machine has kprov and kubectl");
    let up = "kprov up --image /opt/kprov/echo-1.tar --image /opt/kprov/echo-2.tar";
    person(&cluster, up).await?;
    story.tell("up");
    for line in [
        "kubectl get nodes",
        "kubectl cluster-info",
        "kubectl create deployment hello --image=kprov.local/echo:1 --port=8080",
        "kubectl rollout status deployment/hello --timeout=60s",
        "kubectl expose deployment/hello --type=NodePort --port=8080",
        "kubectl scale deployments/hello --replicas=3",
        "kubectl rollout status deployment/hello --timeout=60s",
        "kubectl scale deployments/hello --replicas=2",
        "kubectl get deployments",
        "kubectl set image deployments/hello echo=kprov.local/echo:2",
        "kubectl rollout status deployment/hello --timeout=60s",
    ] {
        person(&cluster, line).await?;
    }
    let port = person(&cluster, "kubectl get service hello -o jsonpath={.spec.ports[0].nodePort}");
    let address = cluster.lab.host("node-1")?.address;
    let url = format!("curl -sf --max-time 3 http://{address}:{}/", port.await?.trim());
    let answers = async |version: &str| {
        eventually("an answer through the node port", SOON, async || {
            let answer = person(&cluster, &url).await?;
            ensure!(answer.contains(&format!("version={version}")), "{answer}");
            Ok(())
        })
        .await
    };
    answers("2").await?;
    person(&cluster, "kubectl rollout undo deployments/hello").await?;
    person(&cluster, "kubectl rollout status deployment/hello --timeout=60s").await?;
    answers("1").await?;
    let namespaces = person(&cluster, "kubectl get namespaces").await?;
    ensure!(namespaces.contains("kube-system"), "{namespaces}");
    story.tell("toured");

    let again = person(&cluster, "kprov up 2>&1").await?;
    ensure!(again.contains("nothing to do"), "{again}");
    let asked = person(&cluster, "kprov down 2>&1").await?;
    ensure!(asked.contains("nothing was changed"), "{asked}");
    person(&cluster, "kubectl get nodes").await?;
    person(&cluster, "kprov down --yes").await?;
    person(&cluster, "rmdir ~/.kube").await?;
    bare.expect_given_back(&cluster).await?;
    story.tell("down");
    Ok(())
}

/// Runs a line as a person who may become root, at home, with the programs of `/opt/kprov`.
async fn person(cluster: &Cluster, line: &str) -> Result<String> {
    let line = format!("export PATH=/opt/kprov:$PATH KUBECACHEDIR=/tmp/kubectl-cache; {line}");
    let words = ["runuser", "-l", "kprov", "-c", &line];
    cluster.lab.run("node-1", &words).await.with_context(|| line.clone())
}

/// A master whose components are pods of its own kubelet.
#[tokio::test(flavor = "multi_thread")]
async fn masters_are_pods_of_hyperkube() -> Result<()> {
    let story = Story::begin();
    let mut inventory = Inventory::single_master("hyper", 2);
    inventory.cluster = "masters = \"static-pods\"\n".to_owned();
    let mut cluster = Cluster::boot(inventory).await?;
    let bare = Bare::of(&cluster).await?;
    cluster.apply().await?;
    story.tell("applied");
    let told = cluster.kubectl("get pods -n kube-system").await?;
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let runs =
            |line: &str| line.starts_with(&format!("{name}-node-1 ")) && line.contains("1/1");
        ensure!(told.lines().any(runs), "{name}: {told}");
        let containers = containers_of(&cluster, name).await?;
        ensure!(containers.len() == 1, "{containers:?}");
        let sandboxes =
            format!("docker ps --format '{{{{.Names}}}}' --filter name=^k8s_POD_{name}-");
        let sandboxes = shell(&cluster, "node-1", &sandboxes).await?;
        ensure!(sandboxes.lines().count() == 1, "{sandboxes}");
    }
    let paths = cluster.kubectl("get --raw /").await?;
    for path in ["/api", "/api/v1", "/apis", "/healthz", "/healthz/ping", "/metrics", "/version"] {
        ensure!(paths.contains(&format!("\"{path}\"")), "{path}: {paths}");
    }
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("pods reach each other");

    // When a run ends, what it changed is what answers: not the pod before, which stops slowly.
    let before = containers_of(&cluster, "kube-apiserver").await?;
    cluster.inventory.extra = "[components.kube-apiserver]\nargs = { v = 4 }\n".to_owned();
    cluster.rewrite()?;
    cluster.apply().await?;
    let after = containers_of(&cluster, "kube-apiserver").await?;
    ensure!(after.len() == 1 && after != before, "{before:?} {after:?}");
    let flags = format!("docker inspect --format '{{{{.Path}}}} {{{{.Args}}}}' {}", after[0]);
    let flags = shell(&cluster, "node-1", &flags).await?;
    ensure!(flags.contains("--v=4"), "{flags}");
    story.tell("the API server has other flags");

    boot(&cluster, "node-1").await?;
    cluster.nodes_are_ready(2, SOON).await?;
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("the master has booted");
    nothing_is_left_to_do(&cluster).await?;
    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    // Docker lets pass what a host forwards if the host did so before Docker started: an owner's
    // Docker that was started with the cluster's settings is itself again after a boot.
    boot(&cluster, "node-1").await?;
    eventually("the hosts to be what they were", SOON, async || {
        bare.expect_given_back(&cluster).await
    })
    .await?;
    story.tell("given back");
    Ok(())
}

/// Three masters as pods, under a client that writes and reads on all of them in turn.
#[tokio::test(flavor = "multi_thread")]
async fn three_masters_as_pods_change_one_after_the_other() -> Result<()> {
    let story = Story::begin();
    let every = vec![Role::Etcd, Role::Master, Role::Node];
    let mut inventory = Inventory::new("hyperthree", vec![every; 3]);
    inventory.cluster = "masters = \"static-pods\"\n".to_owned();
    let mut cluster = Cluster::boot(inventory).await?;
    let bare = Bare::of(&cluster).await?;
    cluster.apply().await?;
    story.tell("applied");
    let traffic = Traffic::start(&cluster, "flags")?;
    cluster.inventory.extra = "[components.kube-apiserver]\nargs = { v = 4 }\n".to_owned();
    cluster.rewrite()?;
    cluster.apply().await?;
    traffic.stop(&cluster).await?.expect_unbroken("new flags of the API servers")?;
    // A pod that started beside the one before would find its port taken, and start again.
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    let restarts = cluster.get("pods -n kube-system -l tier=control-plane", restarts).await?;
    ensure!(restarts == ["0"; 9], "{restarts:?}");
    story.tell("the API servers have other flags");
    is_whole_and_given_back(&cluster, &bare, &story).await
}

/// Names of the running containers of a component on the master.
async fn containers_of(cluster: &Cluster, component: &str) -> Result<Vec<String>> {
    let line = format!(
        "docker ps --format '{{{{.Names}}}}' --filter name=^k8s_{component}_{component}-node-1_kube-system_"
    );
    let names = shell(cluster, "node-1", &line).await?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The guide with Open vSwitch: two hosts of Ubuntu, a tunnel between them, its addresses and its
/// proof. These hosts' kernel has no module of Open vSwitch, so that the switch forwards by itself.
#[tokio::test(flavor = "multi_thread")]
async fn two_ubuntu_hosts_with_a_tunnel_of_open_vswitch() -> Result<()> {
    let story = Story::begin();
    let mut inventory = Inventory::single_master("tunnel", 2);
    inventory.kinds = vec![HostKind::Ubuntu];
    inventory.cluster = "pod_cidr = \"172.17.0.0/16\"\nnode_cidr_mask = 24\n".to_owned();
    inventory.extra = format!(
        "[network]\nbackend = \"ovs-gre\"\n\n\
         [defaults]\nsystem = {{ docker = {{ repository = {{ url = {:?}, unsigned = true }}, \
         packages = [\"containerd\", \"docker.io\", \"runc\"] }} }}\n",
        HostKind::REPOSITORY
    );
    let cluster = Cluster::boot(inventory).await?;
    let bare = Bare::of(&cluster).await?;
    cluster.apply().await?;
    story.tell("applied");
    cluster.nodes_are_ready(2, SOON).await?;
    tunnels_lead_to_the_other_bridge(&cluster).await?;
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("pods reach each other");
    only_peers_may_send_tunnel_packets(&cluster).await?;

    // The database outlives the switch; its flows and its way out do not.
    shell(&cluster, "node-1", "systemctl restart openvswitch-switch ovs-vswitchd").await?;
    tunnels_lead_to_the_other_bridge(&cluster).await?;
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("the switch was started again");
    boot(&cluster, "node-2").await?;
    cluster.nodes_are_ready(2, SOON).await?;
    tunnels_lead_to_the_other_bridge(&cluster).await?;
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("a node has booted");
    is_whole_and_given_back(&cluster, &bare, &story).await
}

/// Each host reaches the other's bridge of pods, with the longest packets that shall pass, by a
/// bridge of Linux of which the one of the tunnels is a port.
async fn tunnels_lead_to_the_other_bridge(cluster: &Cluster) -> Result<()> {
    let mut bridges = Vec::new();
    for host in cluster.lab.hosts() {
        let address = shell(cluster, &host.name, "ip -4 -o address show kbr0").await?;
        let address = address.split_whitespace().nth(3).context("no address")?.to_owned();
        ensure!(address.starts_with("172.17.") && address.ends_with(".1/24"), "{address}");
        bridges.push(address.trim_end_matches("/24").to_owned());
    }
    let hosts = cluster.lab.hosts();
    for (host, (other, bridge)) in hosts.iter().zip(hosts.iter().rev().zip(bridges.iter().rev())) {
        let tunnel =
            shell(cluster, &host.name, "ovs-vsctl get Interface gre0 type options").await?;
        let remote = format!("remote_ip=\"{}\"", other.address);
        ensure!(tunnel.starts_with("gre") && tunnel.contains(&remote), "{tunnel}");
        let port = shell(cluster, &host.name, "ip -o link show master kbr0").await?;
        ensure!(port.contains(" obr0: ") && port.contains(" mtu 1462 "), "{port}");
        let route = shell(cluster, &host.name, &format!("ip route get {bridge}")).await?;
        ensure!(route.contains(" dev kbr0 "), "{route}");
        let forwards = shell(cluster, &host.name, "cat /proc/sys/net/ipv4/ip_forward").await?;
        ensure!(forwards.trim() == "1", "{}: {forwards}", host.name);
        let ping = format!("ping -c 1 -W 1 -M do -s 1434 {bridge}");
        eventually(&format!("{} to reach {bridge}", host.name), SOON, async || {
            shell(cluster, &host.name, &ping).await.map(drop)
        })
        .await?;
    }
    Ok(())
}

/// The host's firewall lets GRE in from the other host, and so said the guide's.
async fn only_peers_may_send_tunnel_packets(cluster: &Cluster) -> Result<()> {
    let hosts = cluster.lab.hosts();
    for (host, other) in hosts.iter().zip(hosts.iter().rev()) {
        let rules = shell(cluster, &host.name, "iptables-save -t filter").await?;
        let from = format!("-s {}/32 ", other.address);
        let opens = |line: &&str| line.contains(" -p gre ") || line.contains(" -p 47 ");
        let opened: Vec<_> = rules.lines().filter(opens).collect();
        ensure!(opened.len() == 1 && opened[0].contains(&from), "{}: {rules}", host.name);
    }
    Ok(())
}

/// The same addresses and the same proof without Open vSwitch, for hosts on one segment: Docker is
/// on the bridge as there, and routes stand in for the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn two_ubuntu_hosts_with_the_addresses_of_the_tunnel() -> Result<()> {
    let story = Story::begin();
    let mut inventory = Inventory::single_master("routes", 2);
    inventory.kinds = vec![HostKind::Ubuntu];
    inventory.cluster = "pod_cidr = \"172.17.0.0/16\"\nnode_cidr_mask = 24\n".to_owned();
    inventory.extra = format!(
        "[network]\nbackend = \"host-gw\"\npod_bridge = \"docker0\"\n\n\
         [defaults]\nsystem = {{ docker = {{ repository = {{ url = {:?}, unsigned = true }}, \
         packages = [\"containerd\", \"docker.io\", \"runc\"] }} }}\n",
        HostKind::REPOSITORY
    );
    let cluster = Cluster::boot(inventory).await?;
    // Docker would not start with two ranges for its bridge: that is found before it is installed.
    let refused = cluster.kprov("apply", &[]).await?;
    ensure!(refused.code == 3 && refused.stderr.contains("daemon.json sets bip"), "{refused:?}");
    for host in cluster.lab.hosts() {
        shell(&cluster, &host.name, "sed -i '/\"bip\"/d' /etc/docker/daemon.json").await?;
    }
    let bare = Bare::of(&cluster).await?;
    cluster.apply().await?;
    story.tell("applied");
    cluster.nodes_are_ready(2, SOON).await?;
    let mut bridges = Vec::new();
    for host in cluster.lab.hosts() {
        let address = shell(&cluster, &host.name, "ip -4 -o address show docker0").await?;
        let address = address.split_whitespace().nth(3).context("no address")?.to_owned();
        ensure!(address.starts_with("172.17.") && address.ends_with(".1/24"), "{address}");
        bridges.push(address.trim_end_matches("/24").to_owned());
    }
    for (host, other) in cluster.lab.hosts().iter().zip(bridges.iter().rev()) {
        shell(&cluster, &host.name, &format!("ping -c 1 -W 3 {other}")).await?;
        let route = shell(&cluster, &host.name, &format!("ip route get {other}")).await?;
        ensure!(route.contains(" via ") && route.contains(" dev eth0 "), "{route}");
        let forwards = shell(&cluster, &host.name, "cat /proc/sys/net/ipv4/ip_forward").await?;
        ensure!(forwards.trim() == "1", "{}: {forwards}", host.name);
    }
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("pods reach each other");
    boot(&cluster, "node-2").await?;
    cluster.nodes_are_ready(2, SOON).await?;
    pods_reach_each_other(&cluster, 2).await?;
    story.tell("a node has booted");
    is_whole_and_given_back(&cluster, &bare, &story).await
}

/// The first guide for CentOS: etcd, a master and two nodes, files of variables, iptables-services.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_centos_install_on_four_hosts() -> Result<()> {
    let story = Story::begin();
    let roles = [Role::Etcd, Role::Master, Role::Node, Role::Node].map(|role| vec![role]);
    let mut inventory = Inventory::new("centos", roles.to_vec());
    inventory.kinds = vec![HostKind::Centos7];
    inventory.cluster = "layout = \"environment-files\"\n".to_owned();
    // The guide looks at the rules of services with iptables.
    inventory.extra = "[network]\nproxy_mode = \"iptables\"\n".to_owned();
    let cluster = Cluster::boot(inventory).await?;
    let bare = Bare::of(&cluster).await?;
    cluster.apply().await?;
    story.tell("applied");
    cluster.nodes_are_ready(2, SOON).await?;
    files_of_variables_are_read(&cluster).await?;
    iptables_services_let_through_what_they_should(&cluster).await?;
    story.tell("files and rules are those of the guide");
    a_pod_has_a_port_of_its_host(&cluster).await?;
    a_replication_controller_and_its_service(&cluster).await?;
    story.tell("toured");
    is_whole_and_given_back(&cluster, &bare, &story).await
}

async fn files_of_variables_are_read(cluster: &Cluster) -> Result<()> {
    let master = ["config", "apiserver", "controller-manager", "scheduler"];
    let node = ["config", "kubelet", "proxy"];
    for (host, files) in [("node-2", &master[..]), ("node-3", &node), ("node-4", &node)] {
        for file in files {
            let text = shell(cluster, host, &format!("cat /etc/kubernetes/{file}")).await?;
            ensure!(text.contains("KUBE"), "{host} {file}: {text}");
        }
    }
    let unit =
        shell(cluster, "node-2", "systemctl show -p EnvironmentFiles kube-apiserver").await?;
    for file in ["/etc/kubernetes/config", "/etc/kubernetes/apiserver"] {
        ensure!(unit.contains(file), "{unit}");
    }
    let runs = "tr '\\0' '\\n' </proc/$(systemctl show -p MainPID --value kube-apiserver)/cmdline";
    let runs = shell(cluster, "node-2", runs).await?;
    let etcd = cluster.lab.host("node-1")?.address;
    for flag in ["--logtostderr=true", &format!("--etcd-servers=https://{etcd}:2379")] {
        ensure!(runs.lines().any(|line| line == flag), "no {flag}: {runs}");
    }
    Ok(())
}

/// The rules that the guide lists, in the file that a start of the service loads and in the kernel.
async fn iptables_services_let_through_what_they_should(cluster: &Cluster) -> Result<()> {
    let master = cluster.lab.host("node-2")?.address;
    let expected = [
        ("node-1", format!("-A INPUT -s {master}/32 -p tcp -m tcp --dport 2379")),
        ("node-2", "-A INPUT -p tcp -m tcp --dport 6443".to_owned()),
        ("node-3", format!("-A INPUT -s {master}/32 -p tcp -m tcp --dport 10250")),
        ("node-4", format!("-A INPUT -s {master}/32 -p tcp -m tcp --dport 10250")),
    ];
    for (host, rule) in expected {
        for source in ["cat /etc/sysconfig/iptables", "iptables-save -t filter"] {
            let rules = shell(cluster, host, source).await?;
            let at = |line: &str| rules.lines().position(|l| l.starts_with(line));
            let refused = at("-A INPUT -j REJECT").context("everything is let in")?;
            ensure!(at(&rule).is_some_and(|at| at < refused), "{host}: {rule}: {rules}");
        }
    }
    for (from, to, port, open) in [
        ("node-2", "node-1", 2379, true),
        ("node-3", "node-1", 2379, false),
        ("node-3", "node-2", 6443, true),
        ("node-2", "node-3", 10250, true),
        ("node-1", "node-3", 10250, false),
        ("node-4", "node-3", 10250, false),
    ] {
        let reached = cluster.reaches(from, to, port).await?;
        ensure!(reached == open, "{from} to port {port} of {to}: {reached}");
    }
    Ok(())
}

async fn a_pod_has_a_port_of_its_host(cluster: &Cluster) -> Result<()> {
    let pod = r#"{"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web", "labels": {"name": "web"}},
        "spec": {"containers": [{"name": "web", "image": "kprov.local/echo:1",
            "ports": [{"containerPort": 8080, "hostPort": 8081}]}]}}"#;
    cluster.create(pod).await?;
    cluster.kubectl("wait pod/web --for=condition=Ready --timeout=60s").await?;
    let host = cluster.get("pod/web", "{.status.hostIP}").await?;
    let line = format!("curl -sf -m 3 http://{}:8081/", host[0]);
    let answer = shell(cluster, "node-1", &line).await?;
    ensure!(answer.contains("pod=web"), "{answer}");
    // What etcd has is the JSON that was sent, with what the API server has added.
    let files = "/etc/etcd/pki/healthcheck-client";
    let line = format!(
        "curl -sf --cacert /etc/etcd/pki/ca.crt --cert {files}.crt --key {files}.key \
         -d '{{\"key\": \"'$(printf /registry/pods/default/web | base64 -w 0)'\"}}' \
         https://{}:2379/v3/kv/range | sed 's/.*\"value\":\"\\([^\"]*\\)\".*/\\1/' | base64 -d",
        cluster.lab.host("node-1")?.address
    );
    let stored = shell(cluster, "node-1", &line).await?;
    let stored: serde_json::Value = serde_json::from_str(&stored).context(stored)?;
    ensure!(stored["spec"]["containers"][0]["ports"][0]["hostPort"] == 8081, "{stored}");
    cluster.kubectl("delete pod web").await?;
    Ok(())
}

/// A replication controller of `replicas` pods with volumes of their hosts, figures and, perhaps, a
/// port of the host.
fn replication_controller(name: &str, replicas: u32, host_port: &str) -> String {
    format!(
        r#"{{"kind": "ReplicationController", "apiVersion": "v1", "metadata": {{"name": "{name}"}},
        "spec": {{"replicas": {replicas}, "selector": {{"app": "{name}"}}, "template": {{
            "metadata": {{"labels": {{"app": "{name}"}}}},
            "spec": {{"terminationGracePeriodSeconds": 1,
                "containers": [{{"name": "web", "image": "kprov.local/echo:1",
                    "resources": {{"requests": {{"cpu": "20m", "memory": "16Mi"}}}},
                    "ports": [{{"containerPort": 8080{host_port}}}],
                    "volumeMounts": [{{"name": "logs", "mountPath": "/logs"}}]}}],
                "volumes": [{{"name": "logs", "hostPath": {{"path": "/var/log"}}}}]}}}}}}}}"#
    )
}

async fn running(cluster: &Cluster, app: &str, count: usize) -> Result<Vec<String>> {
    let path = "{.items[?(@.status.phase==\"Running\")].metadata.name}";
    let (pods, _) = eventually(&format!("{count} pods of {app}"), SOON, async || {
        let pods = cluster.get(&format!("pods -l app={app}"), path).await?;
        ensure!(pods.len() == count, "{pods:?}");
        Ok(pods)
    })
    .await?;
    Ok(pods)
}

async fn a_replication_controller_and_its_service(cluster: &Cluster) -> Result<()> {
    cluster.create(&replication_controller("web", 6, "")).await?;
    let pods = running(cluster, "web", 6).await?;
    cluster.kubectl("expose rc web --port=8000 --target-port=8080").await?;
    let address = cluster.get("service/web", "{.spec.clusterIP}").await?;
    for node in ["node-3", "node-4"] {
        let line = format!("curl -sf -m 3 http://{}:8000/", address[0]);
        eventually(&format!("the service on {node}"), SOON, async || {
            let answer = shell(cluster, node, &line).await?;
            ensure!(answer.contains("pod=web-"), "{answer}");
            Ok(())
        })
        .await?;
        let rules = shell(cluster, node, "iptables-save -t nat").await?;
        let ours = |line: &str| line.contains(&address[0]) && line.contains("--dport 8000");
        ensure!(rules.lines().any(ours), "{node}: {rules}");
    }
    cluster.kubectl(&format!("delete pod {} {}", pods[0], pods[1])).await?;
    let pods = running(cluster, "web", 6).await?;
    ensure!(pods.len() == 6, "{pods:?}");
    // Two nodes have a port each: there is no place for a third.
    cluster.create(&replication_controller("ported", 3, ", \"hostPort\": 8082")).await?;
    running(cluster, "ported", 2).await?;
    let waiting = cluster.get(
        "pods -l app=ported",
        "{.items[?(@.status.phase==\"Pending\")].status.conditions[?(@.type==\"PodScheduled\")].reason}",
    );
    ensure!(waiting.await? == ["Unschedulable"]);
    cluster.kubectl("delete rc/web rc/ported service/web").await?;
    Ok(())
}
