//! Pods on all nodes that ask each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(90);

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

/// Puts a pod on each of `nodes` nodes, and has each of them ask each.
///
/// # Errors
/// Pods that are missing, or that do not reach each other.
pub async fn pods_reach_each_other(cluster: &Cluster, nodes: usize) -> Result<()> {
    cluster.create(AGENT).await?;
    cluster.kubectl("rollout status daemonset/agent --timeout=90s").await?;
    let pods = cluster
        .get("pods -l app=agent", "{range .items[*]}{.metadata.name}={.status.podIP} {end}")
        .await?;
    ensure!(pods.len() == nodes, "{pods:?}");
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
