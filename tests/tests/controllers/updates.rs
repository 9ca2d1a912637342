//! Updates that wait for somebody: sets that replace pods by number or when they are deleted, and
//! daemons that come before the ones they replace go.

use anyhow::{Result, ensure};
use tests::{Cluster, eventually};

use super::{IMAGE, SOON};

const OTHER: &str = "kprov.local/echo:2";
/// Names and images of a set's pods, in the order of their names.
const IMAGES: &str = "{range .items[*]}{.metadata.name}={.spec.containers[0].image} {end}";
/// A pod of this template is ready when it has been told so, by [`tell_ready`].
const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: NAME, namespace: updates }
spec:
  replicas: 2
  serviceName: NAME
  podManagementPolicy: POLICY
  updateStrategy: { type: OnDelete }
  selector: { matchLabels: { app: NAME } }
  template:
    metadata: { labels: { app: NAME } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: kprov.local/echo:1
          readinessProbe: { httpGet: { path: "/file?path=/told", port: 8080 }, periodSeconds: 1 }
"#;
const DAEMONS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: surge, namespace: updates }
spec:
  updateStrategy: { type: RollingUpdate, rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } }
  selector: { matchLabels: { app: surge } }
  template:
    metadata: { labels: { app: surge } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: echo, image: "kprov.local/echo:1" }]
"#;

pub(crate) async fn wait_for_somebody(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace updates").await?;
    sets_start_in_order_or_at_once(cluster).await?;
    sets_are_replaced_when_deleted_and_by_number(cluster).await?;
    daemons_come_before_others_go(cluster).await?;
    cluster.kubectl("delete namespace updates --timeout=60s").await?;
    Ok(())
}

async fn tell_ready(cluster: &Cluster, pod: &str) -> Result<()> {
    let ask = format!("exec {pod} -n updates -- /bin/echo get");
    // Its container may still be on the way.
    eventually(&format!("{pod} to be told"), SOON, async || {
        cluster.kubectl(&format!("{ask} http://127.0.0.1:8080/write?path=/told&text=yes")).await
    })
    .await?;
    Ok(())
}

async fn pods_are(cluster: &Cluster, app: &str, wanted: &[&str]) -> Result<()> {
    eventually(&format!("pods {wanted:?}"), SOON, async || {
        let pods = cluster.get(&format!("pods -n updates -l app={app}"), IMAGES).await?;
        ensure!(pods == wanted, "{pods:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn sets_start_in_order_or_at_once(cluster: &Cluster) -> Result<()> {
    let set = |name: &str, policy: &str| SET.replace("NAME", name).replace("POLICY", policy);
    cluster.create(&set("queued", "OrderedReady")).await?;
    cluster.create(&set("db", "Parallel")).await?;
    // No pod is ready: one set has all of them, the other waits for its first.
    pods_are(cluster, "db", &["db-0=kprov.local/echo:1", "db-1=kprov.local/echo:1"]).await?;
    pods_are(cluster, "queued", &["queued-0=kprov.local/echo:1"]).await?;
    let ready = "{.items[*].status.readyReplicas}";
    let ready = cluster.get("statefulsets -n updates", ready).await?;
    ensure!(ready.iter().all(|count| count == "0"), "{ready:?}");
    tell_ready(cluster, "queued-0").await?;
    pods_are(cluster, "queued", &["queued-0=kprov.local/echo:1", "queued-1=kprov.local/echo:1"])
        .await?;
    cluster.kubectl("delete statefulset/queued -n updates --cascade=foreground").await?;
    Ok(())
}

/// Expects the set `db` of the test before, with both of its pods.
async fn sets_are_replaced_when_deleted_and_by_number(cluster: &Cluster) -> Result<()> {
    tell_ready(cluster, "db-0").await?;
    tell_ready(cluster, "db-1").await?;
    cluster.kubectl(&format!("set image statefulset/db -n updates echo={OTHER}")).await?;
    let revisions = "{.status.currentRevision} {.status.updateRevision}";
    let told = async |updated: &str| -> Result<()> {
        eventually("the set to tell of its revisions", SOON, async || {
            let both = cluster.get("statefulset/db -n updates", revisions).await?;
            ensure!(both.len() == 2 && both[0] != both[1], "{both:?}");
            let path = "{.status.readyReplicas} {.status.updatedReplicas}";
            let counts = cluster.get("statefulset/db -n updates", path).await?;
            // None that is updated is a number that is left out.
            let wanted: Vec<&str> = ["2", updated].into_iter().filter(|n| *n != "0").collect();
            ensure!(counts == wanted, "{counts:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    // The set knows of the other template, and leaves its pods alone.
    told("0").await?;
    pods_are(cluster, "db", &["db-0=kprov.local/echo:1", "db-1=kprov.local/echo:1"]).await?;
    cluster.kubectl("delete pod/db-1 -n updates").await?;
    pods_are(cluster, "db", &["db-0=kprov.local/echo:1", "db-1=kprov.local/echo:2"]).await?;
    tell_ready(cluster, "db-1").await?;
    told("1").await?;

    // Below the partition a pod is made anew as it was.
    let strategy = |partition: u32| {
        format!(
            r#"{{"spec":{{"updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{{"partition":{partition}}}}}}}}}"#
        )
    };
    cluster.kubectl(&format!("patch statefulset/db -n updates -p {}", strategy(1))).await?;
    let before = cluster.get("pod/db-0 -n updates", "{.metadata.uid}").await?;
    cluster.kubectl("delete pod/db-0 -n updates").await?;
    pods_are(cluster, "db", &["db-0=kprov.local/echo:1", "db-1=kprov.local/echo:2"]).await?;
    let after = cluster.get("pod/db-0 -n updates", "{.metadata.uid}").await?;
    ensure!(after.len() == 1 && before != after, "{before:?} {after:?}");
    tell_ready(cluster, "db-0").await?;
    let told = cluster.kubectl("rollout status statefulset/db -n updates --timeout=60s").await?;
    ensure!(told.contains("partitioned roll out complete: 1 new pods"), "{told}");

    cluster.kubectl(&format!("patch statefulset/db -n updates -p {}", strategy(0))).await?;
    pods_are(cluster, "db", &["db-0=kprov.local/echo:2", "db-1=kprov.local/echo:2"]).await?;
    tell_ready(cluster, "db-0").await?;
    eventually("one revision", SOON, async || {
        let both = cluster.get("statefulset/db -n updates", revisions).await?;
        ensure!(both.len() == 2 && both[0] == both[1], "{both:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn daemons_come_before_others_go(cluster: &Cluster) -> Result<()> {
    cluster.create(DAEMONS).await?;
    cluster.kubectl("rollout status daemonset/surge -n updates --timeout=90s").await?;
    let update = format!(
        r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"echo","image":"{OTHER}","readinessProbe":{{"httpGet":{{"path":"/file?path=/told","port":8080}},"periodSeconds":1}}}}]}}}}}}}}"#
    );
    cluster.kubectl(&format!("patch daemonset/surge -n updates -p {update}")).await?;
    // One by one, each beside the one that it will replace, which serves until then.
    let path = "{range .items[*]}{.metadata.name}={.spec.containers[0].image}={.spec.nodeName}\
                ={.status.conditions[?(@.type==\"Ready\")].status} {end}";
    let pods = async || -> Result<Vec<Vec<String>>> {
        let pods = cluster.get("pods -n updates -l app=surge", path).await?;
        Ok(pods.iter().map(|pod| pod.split('=').map(str::to_owned).collect()).collect())
    };
    for round in 1..=3 {
        let (new, _) = eventually("one daemon that is not ready", SOON, async || {
            let pods = pods().await?;
            let is_new = |pod: &&Vec<String>| pod[1] == OTHER;
            let new: Vec<_> = pods.iter().filter(is_new).collect();
            let waits: Vec<_> = new.iter().filter(|pod| pod[3] == "False").collect();
            ensure!(pods.len() == 4 && new.len() == round && waits.len() == 1, "{pods:?}");
            let beside =
                |pod: &Vec<String>| pod[1] == IMAGE && pod[2] == waits[0][2] && pod[3] == "True";
            ensure!(pods.iter().any(beside), "none serves on its host: {pods:?}");
            Ok(waits[0][0].clone())
        })
        .await?;
        tell_ready(cluster, &new).await?;
    }
    cluster.kubectl("rollout status daemonset/surge -n updates --timeout=90s").await?;
    eventually("three daemons", SOON, async || {
        let pods = pods().await?;
        let fine = |pod: &Vec<String>| pod[1] == OTHER && pod[3] == "True";
        ensure!(pods.len() == 3 && pods.iter().all(fine), "{pods:?}");
        Ok(())
    })
    .await?;
    Ok(())
}
