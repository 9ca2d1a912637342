//! What hosts were before, and whether anything is left to do on them.

use anyhow::{Result, ensure};
use lab::Snapshot;
use serde_json::Value;

use crate::Cluster;

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

/// A kernel setting of the machine that all hosts of a lab share.
const OF_THE_MACHINE: &str = "sysctls: kernel.";

/// Snapshots of all hosts of a lab at one moment.
pub struct Bare {
    before: Vec<(String, Snapshot)>,
}

impl Bare {
    /// Takes them.
    ///
    /// # Errors
    /// A host does not answer.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let mut before = Vec::new();
        for host in cluster.lab.hosts() {
            before.push((host.name.clone(), cluster.lab.snapshot(&host.name).await?));
        }
        Ok(Self { before })
    }

    /// Files, units, kernel settings, links, routes, rules and containers are as they were.
    ///
    /// # Errors
    /// All that is otherwise.
    pub async fn expect_given_back(&self, cluster: &Cluster) -> Result<()> {
        self.expect_these_given_back(cluster, |_| true).await
    }

    /// The same of one host.
    ///
    /// # Errors
    /// All that is otherwise.
    pub async fn expect_host_given_back(&self, cluster: &Cluster, host: &str) -> Result<()> {
        self.expect_these_given_back(cluster, |name| name == host).await
    }

    async fn expect_these_given_back(
        &self,
        cluster: &Cluster,
        chosen: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut left = Vec::new();
        for (host, before) in self.before.iter().filter(|(host, _)| chosen(host)) {
            let after = cluster.lab.snapshot(host).await?;
            let lines = before.diff(&after).into_iter().map(|difference| difference.to_string());
            let compared = |line: &String| {
                !NOT_COMPARED.iter().any(|path| line.contains(path))
                    && !line[2..].starts_with(OF_THE_MACHINE)
            };
            left.extend(lines.filter(compared).map(|line| format!("{host} {line}")));
        }
        ensure!(left.is_empty(), "hosts are not as they were: {left:#?}");
        Ok(())
    }
}

/// One more apply has nothing to do: it writes no file and starts no unit anew.
///
/// # Errors
/// What it did.
pub async fn nothing_is_left_to_do(cluster: &Cluster) -> Result<()> {
    let mut running = Vec::new();
    for host in cluster.lab.hosts() {
        running.push(cluster.lab.activations(&host.name).await?);
    }
    let again = cluster.kprov("apply", &["--output", "json"]).await?;
    let again = again.expect_success("one more apply")?;
    let said: Value = serde_json::from_str(&again.stdout)?;
    ensure!(said["changed_hosts"] == 0, "one more apply changed something: {said:#}");
    for (host, before) in cluster.lab.hosts().iter().zip(running) {
        let now = cluster.lab.activations(&host.name).await?;
        let ours = ["docker", "etcd", "flanneld", "kubelet"];
        let kube = |unit: &String| unit.starts_with("kube-");
        let is_ours = |unit: &&String| {
            kube(unit) || ours.iter().any(|name| **unit == format!("{name}.service"))
        };
        for unit in before.keys().filter(is_ours) {
            ensure!(before.get(unit) == now.get(unit), "{} {unit} restarted", host.name);
        }
    }
    Ok(())
}
