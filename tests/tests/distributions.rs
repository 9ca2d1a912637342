//! One cluster of hosts that look like four distributions, with four kinds of firewall or none, and
//! Docker on one of them only.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::HostKind;
use tests::{Bare, Cluster, Inventory, nothing_is_left_to_do, pods_reach_each_other};

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
    let bare = Bare::of(&cluster).await?;
    told("the hosts are up");
    cluster.apply().await?;
    told("applied");
    let ready = cluster.get("nodes", "{.items[*].status.conditions[?(@.type==\"Ready\")].status}");
    let ready = ready.await?;
    ensure!(ready == ["True"; 4], "{ready:?}");
    pods_reach_each_other(&cluster, 4).await?;
    firewalls_let_through_what_they_should(&cluster).await?;
    told("pods reach each other");
    nothing_is_left_to_do(&cluster).await?;
    told("applied again");

    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    told("reset");
    bare.expect_given_back(&cluster).await?;
    Ok(())
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
        let reached = cluster.reaches(from, to, port).await?;
        ensure!(reached == open, "{from} to port {port} of {to}: {reached}");
    }
    // Without its firewall the port would be open, or the test would prove nothing.
    let listening = "ss -Hltn sport = :10250 | grep -q .";
    for host in ["node-4", "node-5", "node-7"] {
        cluster.lab.run(host, &["sh", "-c", listening]).await.context("the kubelet listens")?;
    }
    Ok(())
}
