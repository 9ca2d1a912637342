//! Every component killed in turn: pods run on, everything comes back, nothing acknowledged is
//! lost; and with three masters, one of them may go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
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

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_masters_may_go() -> Result<()> {
    let cluster = Cluster::up(Inventory::three_masters("masters", 3)).await?;
    cluster.kubectl("create deployment web --image=kprov.local/echo:1 --replicas=3").await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    let holder = "{.spec.holderIdentity}";
    let leader = cluster.get("lease/kube-scheduler -n kube-system", holder).await?;
    let victim =
        leader.first().and_then(|l| l.split('_').next()).context("nobody leads")?.to_owned();
    cluster.lab.fault(&victim, lab::Fault::Kill).await?;
    let survivor = cluster
        .lab
        .hosts()
        .iter()
        .map(|h| h.name.clone())
        .find(|name| *name != victim)
        .context("no master is left")?;
    let context = format!("--context {}-{survivor}", cluster.inventory.name());
    // Controllers and scheduler work again within 20 s: a pod more is made and runs.
    let start = std::time::Instant::now();
    eventually("kubectl through another master", Duration::from_secs(20), async || {
        cluster.kubectl(&format!("{context} scale deployment/web --replicas=4")).await
    })
    .await?;
    eventually("the fourth replica", Duration::from_secs(40), async || {
        let running = cluster
            .get(
                &format!("{context} pods -l app=web"),
                "{.items[?(@.spec.nodeName)].metadata.name}",
            )
            .await?;
        ensure!(running.len() == 4, "{running:?}");
        Ok(())
    })
    .await?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(20), "the other masters took over after {took:?}");
    every_node_works_on(&cluster, &context).await?;
    Ok(())
}

/// After the loss of a master, kubelets report and start pods, and kube-proxy follows services.
async fn every_node_works_on(cluster: &Cluster, context: &str) -> Result<()> {
    let leases = format!("{context} leases -n kube-node-lease");
    let renewed = "{range .items[*]}{.metadata.name}={.spec.renewTime} {end}";
    let before = cluster.get(&leases, renewed).await?;
    eventually("every lease renewed", SOON, async || {
        let now = cluster.get(&leases, renewed).await?;
        let stale: Vec<&String> = before.iter().filter(|lease| now.contains(lease)).collect();
        ensure!(now.len() == 3 && stale.is_empty(), "not renewed: {stale:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&format!("{context} scale deployment/web --replicas=9")).await?;
    cluster.kubectl(&format!("{context} rollout status deployment/web --timeout=60s")).await?;
    let ready = "{.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    let ready = cluster.get(&format!("{context} nodes"), ready).await?;
    ensure!(ready == ["True", "True", "True"], "{ready:?}");
    cluster
        .kubectl(&format!("{context} expose deployment/web --port=80 --target-port=8080"))
        .await?;
    let address = cluster.get(&format!("{context} service/web"), "{.spec.clusterIP}").await?;
    let script = format!("curl -sf --max-time 3 http://{}/", address[0]);
    let nodes = cluster.get(&format!("{context} nodes"), "{.items[*].metadata.name}").await?;
    for node in &nodes {
        eventually(&format!("the new service on {node}"), SOON, async || {
            Ok(cluster.lab.run(node, &["sh", "-c", &script]).await?)
        })
        .await?;
    }
    Ok(())
}
