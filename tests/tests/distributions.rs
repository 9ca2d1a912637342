//! One cluster of hosts that look like four distributions, with four kinds of firewall or none, and
//! Docker on one of them only.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{HostKind, Snapshot};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(90);

/// What the masters and the nodes after them look like: each distribution is both.
const KINDS: [HostKind; 7] = [
    HostKind::Centos7,
    HostKind::Ubuntu,
    HostKind::Centos9,
    HostKind::Ubuntu,
    HostKind::Centos9,
    HostKind::Debian,
    HostKind::Centos7,
];

/// Notes that package managers keep of what they did and do not give back, and a point of the boot
/// that systemd passes when it is first asked for, and stays behind.
const NOT_COMPARED: [&str; 6] = [
    "/etc/group",
    "/etc/gshadow",
    "/var/lib/ucf",
    "/var/lib/sgml-base",
    "/etc/rpm",
    "network-online.target",
];

/// One pod on each node.
const AGENT: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: kprov.local/echo:1
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_several_distributions_comes_and_goes() -> Result<()> {
    let mut inventory = Inventory::three_masters("distributions", KINDS.len() - 3);
    inventory.kinds = KINDS.to_vec();
    let repository =
        format!("repository = {{ url = {:?}, unsigned = true }}", HostKind::REPOSITORY);
    let packages = "packages = [\"containerd\", \"docker.io\", \"runc\"]";
    for (settings, kind) in inventory.settings.iter_mut().zip(KINDS) {
        *settings = match kind {
            HostKind::Debian => String::new(),
            HostKind::Centos7 => "system = { limits = { open_files = 65536 } }\n".to_owned(),
            HostKind::Centos9 => {
                format!("system = {{ hosts_file = true, docker = {{ {repository} }} }}\n")
            }
            HostKind::Ubuntu => format!("system = {{ docker = {{ {repository}, {packages} }} }}\n"),
        };
    }
    let began = Instant::now();
    let told = |what: &str| println!("{:6.1?} {what}", began.elapsed());
    let cluster = Cluster::boot(inventory).await?;
    let mut before = Vec::new();
    for host in cluster.lab.hosts() {
        before.push(cluster.lab.snapshot(&host.name).await?);
    }
    told("the hosts are up");
    cluster.apply().await?;
    told("applied");
    let ready = cluster.get("nodes", "{.items[*].status.conditions[?(@.type==\"Ready\")].status}");
    let ready = ready.await?;
    ensure!(ready == ["True"; 4], "{ready:?}");
    pods_reach_each_other(&cluster).await?;
    firewalls_let_through_what_they_should(&cluster).await?;
    told("pods reach each other");
    let again = cluster.kprov("apply", &["--output", "json"]).await?;
    let again = again.expect_success("the second apply")?;
    let said: serde_json::Value = serde_json::from_str(&again.stdout)?;
    ensure!(said["changed_hosts"] == 0, "the second apply changed something: {said:#}");
    told("applied again");

    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    told("reset");
    let mut left = Vec::new();
    for ((host, before), kind) in cluster.lab.hosts().iter().zip(&before).zip(KINDS) {
        let after = cluster.lab.snapshot(&host.name).await?;
        let these = left_over(before, &after);
        left.extend(these.into_iter().map(|line| format!("{} ({kind}) {line}", host.name)));
    }
    ensure!(left.is_empty(), "hosts are not as they were: {left:#?}");
    Ok(())
}

fn left_over(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let compared = |line: &String| !NOT_COMPARED.iter().any(|path| line.contains(path));
    before.diff(after).iter().map(ToString::to_string).filter(compared).collect()
}

async fn pods_reach_each_other(cluster: &Cluster) -> Result<()> {
    cluster.create(AGENT).await?;
    cluster.kubectl("rollout status daemonset/agent --timeout=90s").await?;
    let pods = cluster
        .get("pods -l app=agent", "{range .items[*]}{.metadata.name}={.status.podIP} {end}")
        .await?;
    ensure!(pods.len() == 4, "{pods:?}");
    for pod in &pods {
        let (name, _) = pod.split_once('=').context("no address")?;
        for other in &pods {
            let (wanted, ip) = other.split_once('=').context("no address")?;
            eventually(&format!("{pod} asks {other}"), SOON, async || {
                let line = format!("exec {name} -- /bin/echo get http://{ip}:8080/");
                let answer = cluster.kubectl(&line).await?;
                ensure!(answer.contains(&format!("pod={wanted}")), "{answer}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// Whether `from` reaches a TCP port of `to`.
async fn reaches(cluster: &Cluster, from: &str, to: &str, port: u16) -> Result<bool> {
    let address = cluster.lab.host(to)?.address;
    let script = format!("timeout 3 bash -c '</dev/tcp/{address}/{port}'");
    Ok(cluster.lab.exec(from, &["sh", "-c", &script]).await?.status == 0)
}

async fn firewalls_let_through_what_they_should(cluster: &Cluster) -> Result<()> {
    let expected = [
        ("node-6", "node-1", 22, true),
        ("node-6", "node-1", 6443, true),
        ("node-6", "node-2", 6443, true),
        ("node-6", "node-3", 6443, true),
        // etcd is for masters and other members.
        ("node-6", "node-1", 2379, false),
        ("node-6", "node-2", 2379, false),
        ("node-6", "node-3", 2379, false),
        ("node-1", "node-3", 2379, true),
        // Kubelets are for masters.
        ("node-1", "node-4", 10250, true),
        ("node-1", "node-5", 10250, true),
        ("node-1", "node-7", 10250, true),
        ("node-6", "node-4", 10250, false),
        ("node-6", "node-5", 10250, false),
        ("node-6", "node-7", 10250, false),
    ];
    for (from, to, port, open) in expected {
        let reached = reaches(cluster, from, to, port).await?;
        ensure!(reached == open, "{from} to port {port} of {to}: {reached}");
    }
    // Without its firewall the port would be open, or the test would prove nothing.
    let listening = "ss -Hltn sport = :10250 | grep -q .";
    for host in ["node-4", "node-5", "node-7"] {
        cluster.lab.run(host, &["sh", "-c", listening]).await.context("the kubelet listens")?;
    }
    Ok(())
}
