//! Where pods go, with the real kubectl: near, apart, spread, ahead of others, held back.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_where_they_shall() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("scheduling", 3)).await?;
    apart_and_near(&cluster).await?;
    spread_evenly(&cluster).await?;
    displaced_for_more_important_ones(&cluster).await?;
    held_back_until_told(&cluster).await
}

/// A deployment whose pods are labelled `app=NAME`, with more in the spec of its pods.
async fn deploy(cluster: &Cluster, name: &str, replicas: u32, more: &str) -> Result<()> {
    cluster
        .create(&format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}"}},"spec":{{
            "replicas":{replicas},"selector":{{"matchLabels":{{"app":"{name}"}}}},"template":{{
            "metadata":{{"labels":{{"app":"{name}"}}}},"spec":{{"terminationGracePeriodSeconds":1,
            {more},"containers":[{{"name":"echo","image":"kprov.local/echo:1"}}]}}}}}}}}"#
        ))
        .await?;
    Ok(())
}

async fn hosts_of(cluster: &Cluster, app: &str) -> Result<Vec<String>> {
    let mut hosts = cluster.get(&format!("pods -l app={app}"), "{.items[*].spec.nodeName}").await?;
    hosts.sort();
    Ok(hosts)
}

/// Waits until the event says of a pod why it went nowhere.
async fn refused_for(cluster: &Cluster, app: &str, why: &str) -> Result<()> {
    eventually(&format!("a pod of {app} that is told {why:?}"), SOON, async || {
        let path = "{.items[*].status.conditions[?(@.type==\"PodScheduled\")].message}";
        let told = cluster.get(&format!("pods -l app={app}"), path).await?.join(" ");
        ensure!(told.contains(why), "{told}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn apart_and_near(cluster: &Cluster) -> Result<()> {
    let apart = r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[
        {"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"apart"}}}]}}"#;
    deploy(cluster, "apart", 3, apart).await?;
    cluster.kubectl("rollout status deployment/apart --timeout=60s").await?;
    ensure!(hosts_of(cluster, "apart").await? == ["node-1", "node-2", "node-3"]);
    cluster.kubectl("scale deployment/apart --replicas=4").await?;
    let why = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.";
    refused_for(cluster, "apart", why).await?;
    let events = cluster.kubectl("get events --field-selector reason=FailedScheduling").await?;
    ensure!(events.contains("didn't match pod anti-affinity rules"), "{events}");

    cluster.kubectl("scale deployment/apart --replicas=1").await?;
    eventually("one left", SOON, async || {
        ensure!(hosts_of(cluster, "apart").await?.len() == 1);
        Ok(())
    })
    .await?;
    let near = r#""affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[
        {"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"apart"}}}]}}"#;
    deploy(cluster, "near", 3, near).await?;
    cluster.kubectl("rollout status deployment/near --timeout=60s").await?;
    let (partner, near) = (hosts_of(cluster, "apart").await?, hosts_of(cluster, "near").await?);
    ensure!(near.iter().all(|host| *host == partner[0]), "{near:?} beside {partner:?}");
    cluster.kubectl("delete deployment apart near").await?;
    Ok(())
}

async fn spread_evenly(cluster: &Cluster) -> Result<()> {
    let spread = r#""topologySpreadConstraints":[{"maxSkew":1,"topologyKey":
        "kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule",
        "labelSelector":{"matchLabels":{"app":"spread"}}}]"#;
    deploy(cluster, "spread", 6, spread).await?;
    cluster.kubectl("rollout status deployment/spread --timeout=60s").await?;
    let hosts = hosts_of(cluster, "spread").await?;
    let evenly = ["node-1", "node-1", "node-2", "node-2", "node-3", "node-3"];
    ensure!(hosts == evenly, "{hosts:?}");
    cluster.kubectl("delete deployment spread").await?;
    Ok(())
}

/// Of pods that need the same port of the host, each host can have one.
async fn displaced_for_more_important_ones(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create priorityclass gold --value=1000 --description=first").await?;
    let pod = |name: &str, class: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"ports"}}}},
            "spec":{{{class}"terminationGracePeriodSeconds":1,"containers":[{{"name":"echo","image":
            "kprov.local/echo:1","ports":[{{"containerPort":8080,"hostPort":18080}}]}}]}}}}"#
        )
    };
    for name in ["low-1", "low-2", "low-3"] {
        cluster.create(&pod(name, "")).await?;
    }
    cluster.kubectl("wait pods -l app=ports --for=condition=Ready --timeout=60s").await?;
    cluster.create(&pod("low-4", "")).await?;
    let why = "3 node(s) didn't have free ports for the requested pod ports. preemption: 0/3 nodes \
               are available: 3 No preemption victims found for incoming pod.";
    refused_for(cluster, "ports", why).await?;
    cluster.kubectl("delete pod low-4").await?;

    cluster.create(&pod("golden", r#""priorityClassName":"gold","#)).await?;
    cluster.kubectl("wait pod/golden --for=condition=Ready --timeout=60s").await?;
    let left = cluster.get("pods -l app=ports", "{.items[*].metadata.name}").await?;
    ensure!(left.len() == 3 && left.contains(&"golden".to_owned()), "{left:?}");
    let events = cluster.kubectl("get events --field-selector reason=Preempted").await?;
    ensure!(events.contains("Preempted by pod"), "{events}");
    let now = cluster.get("pod/golden", "{.status.nominatedNodeName} {.spec.nodeName}").await?;
    ensure!(now.first() == now.last(), "{now:?}");
    cluster.kubectl("delete pods -l app=ports").await?;
    cluster.kubectl("delete priorityclass/gold").await?;
    Ok(())
}

async fn held_back_until_told(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"gated"},"spec":{
            "schedulingGates":[{"name":"example.com/quota"}],"terminationGracePeriodSeconds":1,
            "containers":[{"name":"echo","image":"kprov.local/echo:1"}]}}"#,
        )
        .await?;
    let table = cluster.kubectl("get pod gated").await?;
    ensure!(table.contains("SchedulingGated"), "{table}");
    let path = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    let reason = cluster.get("pod/gated", path).await?;
    ensure!(reason == ["SchedulingGated"], "{reason:?}");
    let free = r#"--patch={"spec":{"schedulingGates":null}}"#;
    let patched = cluster.try_kubectl(&["patch", "pod", "gated", "--type=merge", free]).await?;
    patched.expect_success("kubectl patch")?;
    cluster.kubectl("wait pod/gated --for=condition=Ready --timeout=60s").await?;
    cluster.kubectl("delete pod gated").await?;
    Ok(())
}
