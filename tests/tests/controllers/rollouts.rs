//! Rollouts of deployments and stateful sets that are held, taken back and begun anew.

use anyhow::{Result, ensure};
use tests::{Cluster, eventually};

use super::{IMAGE, SOON};

pub(crate) async fn are_held_and_taken_back(cluster: &Cluster) -> Result<()> {
    for kind in ["deployment", "statefulset"] {
        let strategy = r#""strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}},"#;
        let more = if kind == "deployment" { strategy } else { "" };
        let api_kind = if kind == "deployment" { "Deployment" } else { "StatefulSet" };
        let manifest = r#"{"apiVersion":"apps/v1","kind":"KIND","metadata":{"name":"rolled"},
            "spec":{"replicas":2,MORE"selector":{"matchLabels":{"app":"rolled"}},"template":{
            "metadata":{"labels":{"app":"rolled"}},"spec":{"terminationGracePeriodSeconds":1,
            "containers":[{"name":"echo","image":"kprov.local/echo:1"}]}}}}"#;
        cluster.create(&manifest.replace("KIND", api_kind).replace("MORE", more)).await?;
        let images = async |wanted: &str| -> Result<()> {
            cluster.kubectl(&format!("rollout status {kind}/rolled --timeout=90s")).await?;
            eventually("the images", SOON, async || {
                let path = "{.items[*].spec.containers[0].image}";
                let images = cluster.get("pods -l app=rolled", path).await?;
                ensure!(images == [wanted, wanted], "{kind}: {images:?}");
                Ok(())
            })
            .await?;
            Ok(())
        };
        images(IMAGE).await?;
        let other = "kprov.local/echo:2";
        if kind == "deployment" {
            // Held: the template changes, and no pod does before it goes on.
            cluster.kubectl("rollout pause deployment/rolled").await?;
            cluster.kubectl(&format!("set image deployment/rolled echo={other}")).await?;
            cluster.kubectl("scale deployment/rolled --replicas=1").await?;
            cluster.kubectl("scale deployment/rolled --replicas=2").await?;
            eventually("two pods of the template before", SOON, async || {
                let path = "{.status.readyReplicas} {.status.updatedReplicas}";
                let replicas = cluster.get("deployment/rolled", path).await?;
                ensure!(replicas == ["2"], "{replicas:?}");
                Ok(())
            })
            .await?;
            cluster.kubectl("rollout resume deployment/rolled").await?;
        } else {
            cluster.kubectl(&format!("set image {kind}/rolled echo={other}")).await?;
        }
        images(other).await?;
        cluster.kubectl(&format!("rollout undo {kind}/rolled --to-revision=1")).await?;
        images(IMAGE).await?;
        // What was gone back to is the newest revision, and the first one no more.
        let history = cluster.kubectl(&format!("rollout history {kind}/rolled")).await?;
        let digit = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
        let revisions: Vec<&str> =
            history.lines().filter(digit).filter_map(|l| l.split_whitespace().next()).collect();
        ensure!(revisions == ["2", "3"], "{kind}: {history}");
        let before = cluster.get("pods -l app=rolled", "{.items[*].metadata.uid}").await?;
        cluster.kubectl(&format!("rollout restart {kind}/rolled")).await?;
        images(IMAGE).await?;
        let after = cluster.get("pods -l app=rolled", "{.items[*].metadata.uid}").await?;
        ensure!(after.iter().all(|uid| !before.contains(uid)), "{kind}: {before:?} {after:?}");
        cluster.kubectl(&format!("delete {kind}/rolled --cascade=foreground")).await?;
    }
    Ok(())
}
