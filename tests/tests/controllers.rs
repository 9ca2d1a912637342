//! What controllers do when load comes and goes, when owners are deleted in one of three ways, when
//! work fails by its number or by its rules, when rollouts are held, taken back or wait for somebody,
//! when jobs meet the next one of their schedule, when a namespace may have no more, and when a host
//! is lost with the files on it; with the real kubectl.

#[path = "controllers/jobs.rs"]
mod jobs;
#[path = "controllers/kinds.rs"]
mod kinds;
#[path = "controllers/limits.rs"]
mod limits;
#[path = "controllers/rollouts.rs"]
mod rollouts;
#[path = "controllers/updates.rs"]
mod updates;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);
/// A metric is a window old, and is looked at four times a minute.
const SCALED: Duration = Duration::from_secs(120);
const IMAGE: &str = "kprov.local/echo:1";

#[tokio::test(flavor = "multi_thread")]
async fn loads_cascades_numbers_and_losses() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("controllers", 3)).await?;
    let by_the_minute = jobs::follow_their_rules(&cluster);
    tokio::try_join!(replicas_follow_the_load(&cluster), by_the_minute, async {
        owners_go_in_three_ways(&cluster).await?;
        numbered_work_fails_by_its_number(&cluster).await?;
        rollouts::are_held_and_taken_back(&cluster).await?;
        updates::wait_for_somebody(&cluster).await?;
        limits::a_namespace_gets_what_its_quota_says(&cluster).await?;
        limits::containers_are_bounded(&cluster).await?;
        kinds::sets_without_a_deployment(&cluster).await?;
        kinds::roles_made_of_others(&cluster).await?;
        kinds::volumes_of_three_sorts(&cluster).await
    })?;
    files_outlive_their_host(&cluster).await
}

async fn replicas_follow_the_load(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create deployment busy --image={IMAGE}")).await?;
    cluster.kubectl("set resources deployment/busy --requests=cpu=50m,memory=16Mi").await?;
    cluster.kubectl("rollout status deployment/busy --timeout=60s").await?;
    cluster
        .create(
            r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":
            "busy"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":
            "busy"},"minReplicas":1,"maxReplicas":3,"metrics":[{"type":"Resource","resource":{
            "name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}],"behavior":{
            "scaleDown":{"stabilizationWindowSeconds":0}}}}"#,
        )
        .await?;
    let replicas = async |wanted: &str| -> Result<()> {
        let what = format!("{wanted} replicas");
        eventually(&what, SCALED, async || {
            let ready = cluster.get("deployment/busy", "{.status.readyReplicas}").await?;
            ensure!(ready == [wanted], "{ready:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    replicas("1").await?;
    let load = "exec deployment/busy -- /bin/echo get --timeout-ms 80000 \
                http://127.0.0.1:8080/burn?ms=70000";
    tokio::try_join!(cluster.kubectl(load), replicas("3"))?;
    replicas("1").await?;
    let reasons = "{.items[?(@.reason==\"SuccessfulRescale\")].message}";
    let events = cluster.get("events", reasons).await?.join(" ");
    for part in ["New size: 3; reason: cpu resource utilization", "New size: 1; reason: All"] {
        ensure!(events.contains(part), "{part:?} is missing: {events}");
    }
    cluster.kubectl("delete hpa/busy deployment/busy").await?;
    Ok(())
}

async fn owners_go_in_three_ways(cluster: &Cluster) -> Result<()> {
    let create = format!("create deployment owner --image={IMAGE} --replicas=2");
    let names = async |what: &str| {
        cluster.get(&format!("{what} -l app=owner"), "{.items[*].metadata.name}").await
    };
    let gone = async |what: &str| -> Result<()> {
        eventually("what was owned to be gone", SOON, async || {
            let left = names(what).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    // In the background: at once, and what was owned follows.
    cluster.kubectl(&create).await?;
    cluster.kubectl("rollout status deployment/owner --timeout=60s").await?;
    cluster.kubectl("delete deployment/owner --cascade=background").await?;
    gone("replicasets,pods").await?;
    // In the foreground: last of all.
    cluster.kubectl(&create).await?;
    cluster.kubectl("rollout status deployment/owner --timeout=60s").await?;
    cluster.kubectl("delete deployment/owner --cascade=foreground --timeout=60s").await?;
    let left = names("replicasets,pods").await?;
    ensure!(left.is_empty(), "they outlived their owner: {left:?}");
    // Orphaned: set and pods stay, with nobody above them, and the next of the name takes them over.
    cluster.kubectl(&create).await?;
    cluster.kubectl("rollout status deployment/owner --timeout=60s").await?;
    let before = names("pods").await?;
    cluster.kubectl("delete deployment/owner --cascade=orphan").await?;
    let owners = "{.items[*].metadata.ownerReferences[*].name}";
    let owners = cluster.get("replicasets -l app=owner", owners).await?;
    ensure!(owners.is_empty() && names("pods").await? == before, "{owners:?}");
    cluster.kubectl(&create).await?;
    cluster.kubectl("rollout status deployment/owner --timeout=60s").await?;
    ensure!(names("pods").await? == before, "the orphans were not taken over");
    cluster.kubectl("delete deployment/owner").await?;
    gone("replicasets,pods").await
}

/// The servers' environment has no variable for the number 1: work of that number gets a 404.
async fn numbered_work_fails_by_its_number(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("run server --image={IMAGE} --env=N0=x --env=N2=x")).await?;
    cluster.kubectl("wait pod/server --for=condition=Ready --timeout=60s").await?;
    let address = cluster.get("pod/server", "{.status.podIP}").await?;
    let address = address.first().context("the server has no address")?;
    let job = r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"partly"},"spec":{
        "completions":3,"parallelism":3,"completionMode":"Indexed","backoffLimitPerIndex":1,
        "maxFailedIndexes":2,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":
        "echo","image":"kprov.local/echo:1","args":["get",
        "http://ADDRESS:8080/env/N$(JOB_COMPLETION_INDEX)"]}]}}}}"#;
    cluster.create(&job.replace("ADDRESS", address)).await?;
    cluster.kubectl("wait job/partly --for=condition=Failed --timeout=90s").await?;
    let status = "{.status.completedIndexes} {.status.failedIndexes} {.status.succeeded} \
                  {.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason}";
    let status = cluster.get("job/partly", status).await?;
    ensure!(status == ["0,2", "1", "2", "2", "FailedIndexes"], "{status:?}");
    cluster.kubectl("delete job/partly pod/server").await?;
    Ok(())
}

/// A pod with a claim waits for the host that has its files, and finds them again.
async fn files_outlive_their_host(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"local"},
            "provisioner":"kprov.io/local","volumeBindingMode":"WaitForFirstConsumer"}"#,
        )
        .await?;
    cluster
        .create(
            r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"disk"},"spec":{
            "replicas":1,"serviceName":"disk","selector":{"matchLabels":{"app":"disk"}},
            "volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"storageClassName":"local",
            "accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"16Mi"}}}}],
            "template":{"metadata":{"labels":{"app":"disk"}},"spec":{"terminationGracePeriodSeconds":
            1,"nodeSelector":{"kubernetes.io/hostname":"node-3"},"tolerations":[{"key":
            "node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute",
            "tolerationSeconds":5}],"containers":[{"name":"echo","image":"kprov.local/echo:1",
            "volumeMounts":[{"name":"data","mountPath":"/data"}]}]}}}}"#,
        )
        .await?;
    cluster.kubectl("rollout status statefulset/disk --timeout=90s").await?;
    let ask = async |path: &str| {
        let line = format!("exec disk-0 -- /bin/echo get http://127.0.0.1:8080{path}");
        cluster.kubectl(&line).await
    };
    ask("/write?path=/data/kept&text=precious").await?;
    let uid = "{.metadata.uid} {.status.conditions[?(@.type==\"Ready\")].status}";
    let before = cluster.get("pod/disk-0", uid).await?;

    cluster.lab.fault("node-3", lab::Fault::Kill).await?;
    // Its pod is told to go, and cannot be known to have gone: none of its name is made elsewhere.
    eventually("the pod of the lost host to be told to go", SCALED, async || {
        let told = "{.metadata.uid} {.metadata.deletionTimestamp}";
        let told = cluster.get("pod/disk-0", told).await?;
        ensure!(told.len() == 2 && told[0] == before[0], "{told:?}");
        Ok(())
    })
    .await?;
    cluster.lab.fault("node-3", lab::Fault::Start).await?;
    eventually("another disk-0", SCALED, async || {
        let now = cluster.get("pod/disk-0", uid).await?;
        ensure!(now.len() == 2 && now[0] != before[0] && now[1] == "True", "{now:?}");
        Ok(())
    })
    .await?;
    let kept = ask("/file?path=/data/kept").await?;
    ensure!(kept.trim() == "precious", "{kept}");
    Ok(())
}
