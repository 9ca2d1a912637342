//! One cluster of hosts that look like four distributions, with three kinds of firewall, and Docker
//! on one of them only.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{HostKind, Snapshot};
use tests::{Cluster, Inventory, eventually};

/// Sections of a snapshot that a reset gives back to the line. What Docker and the kernel keep of
/// modules and settings once used is not among them.
const GIVEN_BACK: [&str; 7] =
    ["files", "contents", "programs", "unit-files", "units", "links", "mounts"];

/// Notes of what package managers did, which they keep, and caches.
const NOT_COMPARED: [&str; 6] = [
    "/etc/group",
    "/etc/gshadow",
    "/etc/rpm",
    "/var/lib/kubelet",
    "/var/lib/ucf",
    "/var/lib/sgml-base",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_several_distributions_comes_and_goes() -> Result<()> {
    let mut inventory = Inventory::single_master("distributions", 4);
    inventory.kinds =
        vec![HostKind::Centos9, HostKind::Ubuntu, HostKind::Debian, HostKind::Centos7];
    let repository =
        format!("repository = {{ url = {:?}, unsigned = true }}", HostKind::REPOSITORY);
    inventory.settings[0] =
        format!("system = {{ hosts_file = true, docker = {{ {repository} }} }}\n");
    let packages = "packages = [\"containerd\", \"docker.io\", \"runc\"]";
    inventory.settings[1] = format!("system = {{ docker = {{ {repository}, {packages} }} }}\n");
    inventory.settings[3] = "system = { limits = { open_files = 65536 } }\n".to_owned();
    let cluster = Cluster::boot(inventory).await?;
    let mut before = Vec::new();
    for host in cluster.lab.hosts() {
        before.push(cluster.lab.snapshot(&host.name).await?);
    }
    cluster.apply().await?;
    eventually("all nodes are ready", Duration::from_secs(60), async || {
        let nodes = cluster.try_kubectl(&["get", "nodes", "--no-headers"]).await?;
        let ready = nodes.stdout.lines().filter(|line| line.contains(" Ready ")).count();
        ensure!(ready == 4, "{nodes:?}");
        Ok(())
    })
    .await?;
    firewalls_let_through_what_they_should(&cluster).await?;

    let again = cluster.kprov("apply", &["--output", "json"]).await?;
    let again = again.expect_success("the second apply")?;
    let told: serde_json::Value = serde_json::from_str(&again.stdout)?;
    ensure!(told["changed_hosts"] == 0, "the second apply changed something: {told:#}");

    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    for (host, before) in cluster.lab.hosts().iter().zip(&before) {
        let after = cluster.lab.snapshot(&host.name).await?;
        let left = left_over(before, &after);
        ensure!(left.is_empty(), "{} is not as it was: {left:#?}", host.name);
        if host.name != "node-3" {
            let docker = cluster.lab.exec(&host.name, &["sh", "-c", "command -v docker"]).await?;
            ensure!(docker.status != 0, "{} still has Docker", host.name);
        }
    }
    Ok(())
}

fn left_over(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let compared = |line: &String| !NOT_COMPARED.iter().any(|path| line.contains(path));
    (before.diff(after).into_iter())
        .filter(|difference| GIVEN_BACK.contains(&difference.section.as_str()))
        .map(|difference| difference.to_string())
        .filter(compared)
        .collect()
}

/// Whether `from` reaches a TCP port of `to`.
async fn reaches(cluster: &Cluster, from: &str, to: &str, port: u16) -> Result<bool> {
    let address = cluster.lab.host(to)?.address;
    let script = format!("timeout 3 bash -c '</dev/tcp/{address}/{port}'");
    Ok(cluster.lab.exec(from, &["sh", "-c", &script]).await?.status == 0)
}

async fn firewalls_let_through_what_they_should(cluster: &Cluster) -> Result<()> {
    let expected = [
        ("node-3", "node-1", 22, true),
        ("node-3", "node-1", 6443, true),
        // The only member of etcd is on the only master.
        ("node-3", "node-1", 2379, false),
        ("node-1", "node-2", 10250, true),
        ("node-4", "node-2", 10250, false),
        ("node-1", "node-4", 10250, true),
        ("node-2", "node-4", 10250, false),
    ];
    for (from, to, port, open) in expected {
        let reached = reaches(cluster, from, to, port).await?;
        ensure!(reached == open, "{from} to port {port} of {to}: {reached}");
    }
    // Without its firewall the port would be open, or the test would prove nothing.
    let listening = "ss -Hltn sport = :10250 | grep -q .";
    for host in ["node-2", "node-4"] {
        cluster.lab.run(host, &["sh", "-c", listening]).await.context("the kubelet listens")?;
    }
    Ok(())
}
