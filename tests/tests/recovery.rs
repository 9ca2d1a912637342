//! Every component killed in turn: pods run on, everything comes back, nothing acknowledged is
//! lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn every_component_survives_sigkill() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("recovery", 3)).await?;
    cluster.kubectl("create deployment web --image=kprov.local/echo:1 --replicas=3").await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    let uids = cluster.get("pods -l app=web", "{.items[*].metadata.uid}").await?;
    let victims = [
        ("node-1", "kube-apiserver"),
        ("node-1", "kube-scheduler"),
        ("node-1", "kube-controller-manager"),
        ("node-1", "etcd"),
        ("node-2", "kubelet"),
    ];
    for (i, (host, unit)) in victims.iter().enumerate() {
        let acknowledged = format!("before-{unit}");
        cluster.kubectl(&format!("create configmap {acknowledged} --from-literal=n={i}")).await?;
        let script = format!("systemctl kill --signal=SIGKILL {unit}.service");
        cluster.lab.run(host, &["sh", "-c", &script]).await?;
        // The write before the kill is there, and new work is done.
        eventually(&format!("the cluster without {unit}"), SOON, async || {
            cluster.kubectl(&format!("get configmap {acknowledged}")).await
        })
        .await?;
        let replicas = 4 + i;
        eventually("a new order", SOON, async || {
            cluster.kubectl(&format!("scale deployment/web --replicas={replicas}")).await
        })
        .await?;
        cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
        let now = cluster.get("pods -l app=web", "{.items[*].metadata.uid}").await?;
        ensure!(uids.iter().all(|uid| now.contains(uid)), "after {unit} pods are gone");
        let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
        let restarts = cluster.get("pods -l app=web", restarts).await?;
        ensure!(restarts.iter().all(|n| n == "0"), "after {unit} containers restarted");
    }
    Ok(())
}
