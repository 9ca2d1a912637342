//! Manifests of the operator's own: they come, change and leave with the inventory, and `kprov diff`
//! tells of each before it happens.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Cluster, nothing_is_left_to_do};

/// A workload, so that there is something to wait for, with what it is told.
const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: greeting, namespace: default }
data: { text: TEXT }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: greeter, namespace: default }
spec:
  replicas: 2
  selector: { matchLabels: { app: greeter } }
  template:
    metadata: { labels: { app: greeter } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: echo, image: "kprov.local/echo:1" }]
"#;

pub(crate) async fn come_change_and_leave(cluster: &mut Cluster) -> Result<()> {
    let manifest = cluster.folder().join("greeting.yaml");
    std::fs::write(&manifest, MANIFEST.replace("TEXT", "hello"))?;
    let before = std::mem::take(&mut cluster.inventory.extra);
    cluster.inventory.extra =
        format!("{before}\n[[addons]]\nname = \"greeting\"\nmanifests = [\"greeting.yaml\"]\n");
    cluster.rewrite()?;
    let (map, deployment) = ("ConfigMap default/greeting", "Deployment default/greeter");
    differ(cluster, &[("create", map), ("create", deployment)]).await?;
    let made = applied(cluster).await?;
    ensure!(made.as_array().is_some_and(|made| made.len() == 2), "{made}");
    // The run has waited: both pods are there.
    let ready = cluster.get("deployment/greeter", "{.status.readyReplicas}").await?;
    ensure!(ready == ["2"], "{ready:?}");

    let revisions = async || {
        let path = "{.items[*].metadata.resourceVersion}";
        cluster.get("configmap/greeting deployment/greeter", path).await
    };
    let written = revisions().await?;
    differ(cluster, &[]).await?;
    nothing_is_left_to_do(cluster).await?;
    ensure!(
        revisions().await? == written,
        "one more apply wrote an object that is as it should be"
    );

    std::fs::write(&manifest, MANIFEST.replace("TEXT", "goodbye"))?;
    differ(cluster, &[("update", map)]).await?;
    applied(cluster).await?;
    let text = cluster.get("configmap/greeting", "{.data.text}").await?;
    ensure!(text == ["goodbye"], "{text:?}");
    // What somebody deletes comes again.
    cluster.kubectl("delete configmap/greeting").await?;
    differ(cluster, &[("create", map)]).await?;
    applied(cluster).await?;

    cluster.inventory.extra = before;
    cluster.rewrite()?;
    differ(cluster, &[("delete", deployment), ("delete", map)]).await?;
    applied(cluster).await?;
    let left = ["get", "configmap/greeting", "deployment/greeter", "--ignore-not-found"];
    let left = cluster.try_kubectl(&left).await?;
    ensure!(left.code == 0 && left.stdout.is_empty(), "{left:?}");
    differ(cluster, &[]).await
}

/// What `kprov diff` tells of addons on hosts that are as they should be.
async fn differ(cluster: &Cluster, wanted: &[(&str, &str)]) -> Result<()> {
    let told = cluster.kprov("diff", &["--exit-code", "--output", "json"]).await?;
    let code = if wanted.is_empty() { 0 } else { 2 };
    ensure!(told.code == code, "{told:?}");
    let said: Value = serde_json::from_str(&told.stdout)?;
    let wanted: Vec<Value> = wanted
        .iter()
        .map(|(act, object)| json!({ "addon": "greeting", "object": object, "act": act }))
        .collect();
    ensure!(said["addons"] == json!(wanted) && said["drifted"] == 0, "{said:#}");
    Ok(())
}

/// Applies, and gives what was done to addons; no host changes by that.
async fn applied(cluster: &Cluster) -> Result<Value> {
    let told = cluster.kprov("apply", &["--output", "json"]).await?;
    let said: Value = serde_json::from_str(&told.expect_success("kprov apply")?.stdout)?;
    ensure!(said["changed_hosts"] == 0, "{said:#}");
    Ok(said["addons"].clone())
}
