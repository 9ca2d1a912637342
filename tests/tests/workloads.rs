//! Workloads beyond deployments, and what keeps them going while hosts are worked on, with the
//! real kubectl.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);
const IMAGE: &str = "kprov.local/echo";

#[tokio::test(flavor = "multi_thread")]
async fn classes_jobs_sets_and_budgets() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("workloads", 3)).await?;
    pods_have_the_priority_of_their_class(&cluster).await?;
    jobs_end(&cluster).await?;
    jobs_come_by_the_clock(&cluster).await?;
    use_is_told_and_followed(&cluster).await?;
    names_stay(&cluster).await?;
    files_stay(&cluster).await?;
    daemons_run_everywhere(&cluster).await?;
    drains_wait_for_the_budget(&cluster).await
}

async fn pods_have_the_priority_of_their_class(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create priorityclass gold --value=1000 --description=first").await?;
    let table = cluster.kubectl("get priorityclasses").await?;
    for part in ["GLOBAL-DEFAULT", "gold", "2000001000"] {
        ensure!(table.contains(part), "{part:?} is missing:\n{table}");
    }
    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"golden"},"spec":{
            "priorityClassName":"gold","containers":[{"name":"echo","image":"kprov.local/echo:1"}]}}"#,
        )
        .await?;
    let priority = cluster.get("pod/golden", "{.spec.priority} {.spec.preemptionPolicy}").await?;
    ensure!(priority == ["1000", "PreemptLowerPriority"], "{priority:?}");
    let refused = cluster.try_kubectl(&["delete", "priorityclass", "system-node-critical"]).await?;
    ensure!(refused.code != 0, "a class of the system was deleted");
    cluster.kubectl("delete pod/golden priorityclass/gold").await?;
    Ok(())
}

async fn jobs_end(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create job good --image={IMAGE}:1 -- /bin/echo --help")).await?;
    cluster.kubectl("wait job/good --for=condition=Complete --timeout=60s").await?;
    let table = cluster.kubectl("get jobs").await?;
    ensure!(table.contains("Complete") && table.contains("1/1"), "{table}");
    let said = cluster.kubectl("logs job/good").await?;
    ensure!(said.contains("Answers with the name of its pod"), "{said}");
    let held = cluster.get("pods -l job-name=good", "{.items[*].metadata.finalizers}").await?;
    ensure!(held.is_empty(), "pods that are counted are still held: {held:?}");

    cluster
        .create(
            r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"bad"},"spec":{
            "backoffLimit":0,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":
            "echo","image":"kprov.local/echo:1","args":["get","http://127.0.0.1:1/"]}]}}}}"#,
        )
        .await?;
    cluster.kubectl("wait job/bad --for=condition=Failed --timeout=60s").await?;
    let reason = "{.status.conditions[?(@.type==\"Failed\")].reason} {.status.failed}";
    let reason = cluster.get("job/bad", reason).await?;
    ensure!(reason == ["BackoffLimitExceeded", "1"], "{reason:?}");

    // Work that is numbered, and that nobody has to clean up after.
    cluster
        .create(
            r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"numbered"},"spec":{
            "completions":3,"parallelism":2,"completionMode":"Indexed",
            "ttlSecondsAfterFinished":5,"template":{"spec":{"restartPolicy":"Never",
            "containers":[{"name":"echo","image":"kprov.local/echo:1","args":["--help"]}]}}}}"#,
        )
        .await?;
    cluster.kubectl("wait job/numbered --for=condition=Complete --timeout=60s").await?;
    eventually("numbered work to be gone", SOON, async || {
        let left =
            cluster.get("jobs,pods -l job-name=numbered", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete jobs --all").await?;
    eventually("no pods of jobs", SOON, async || {
        let left = cluster.get("pods -l job-name", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn jobs_come_by_the_clock(cluster: &Cluster) -> Result<()> {
    let image = format!("--image={IMAGE}:1");
    let create = async |schedule: &str| {
        let schedule = format!("--schedule={schedule}");
        let command = ["create", "cronjob", "tick", &image, &schedule, "--", "/bin/echo", "--help"];
        cluster.try_kubectl(&command).await
    };
    let refused = create("* *").await?;
    ensure!(refused.stderr.contains("expected exactly 5 fields, found 2: [* *]"), "{refused:?}");
    create("* * * * *").await?.expect_success("create a cron job")?;
    cluster.kubectl("create job by-hand --from=cronjob/tick").await?;
    cluster.kubectl("wait job/by-hand --for=condition=Complete --timeout=60s").await?;
    eventually("a job of the minute", Duration::from_secs(70), async || {
        let last = cluster.get("cronjob/tick", "{.status.lastSuccessfulTime}").await?;
        let jobs = cluster.get("jobs", "{.items[*].metadata.name}").await?;
        ensure!(!last.is_empty() && jobs.iter().any(|job| job.starts_with("tick-")), "{jobs:?}");
        Ok(())
    })
    .await?;
    let table = cluster.kubectl("get cronjobs").await?;
    for part in ["TIMEZONE", "* * * * *", "False"] {
        ensure!(table.contains(part), "{part:?} is missing:\n{table}");
    }
    cluster.kubectl("delete cronjob/tick").await?;
    eventually("no jobs of the cron job", SOON, async || {
        let left = cluster.get("jobs,pods -l job-name", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn use_is_told_and_followed(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create deployment busy --image={IMAGE}:1")).await?;
    cluster.kubectl("set resources deployment/busy --requests=cpu=10m,memory=16Mi").await?;
    cluster.kubectl("autoscale deployment/busy --min=2 --max=3 --cpu-percent=50").await?;
    eventually("the least number of pods", SOON, async || {
        let replicas = cluster.get("deployment/busy", "{.status.readyReplicas}").await?;
        ensure!(replicas == ["2"], "{replicas:?}");
        Ok(())
    })
    .await?;
    // Either version tells the same.
    let old = "{.spec.targetCPUUtilizationPercentage} {.spec.minReplicas}";
    let old = cluster.get("horizontalpodautoscalers.v1.autoscaling/busy", old).await?;
    ensure!(old == ["50", "2"], "{old:?}");
    eventually("what pods use", SOON, async || {
        let pods = cluster.kubectl("top pods -l app=busy --containers").await?;
        ensure!(pods.lines().filter(|line| line.contains("echo")).count() == 2, "{pods}");
        Ok(())
    })
    .await?;
    let nodes = cluster.kubectl("top nodes").await?;
    ensure!(nodes.lines().count() == 4 && nodes.contains("Mi"), "{nodes}");
    let raw = cluster.kubectl("get pods.metrics.k8s.io -l app=busy").await?;
    ensure!(raw.contains("WINDOW"), "{raw}");
    eventually("the autoscaler to know", SOON, async || {
        let table = cluster.kubectl("get hpa").await?;
        ensure!(table.contains("Deployment/busy") && table.contains("%/50%"), "{table}");
        Ok(())
    })
    .await?;
    cluster.kubectl(r#"patch hpa/busy -p {"spec":{"minReplicas":1,"maxReplicas":1}}"#).await?;
    eventually("the greatest number of pods", SOON, async || {
        let replicas = cluster.get("deployment/busy", "{.spec.replicas}").await?;
        ensure!(replicas == ["1"], "{replicas:?}");
        Ok(())
    })
    .await?;
    eventually("the event", SOON, async || {
        let events =
            cluster.kubectl("get events --field-selector=reason=SuccessfulRescale").await?;
        ensure!(
            events.contains("New size: 1; reason: Current number of replicas above"),
            "{events}"
        );
        Ok(())
    })
    .await?;
    cluster.kubectl("delete hpa/busy deployment/busy").await?;
    Ok(())
}

async fn names_stay(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db"},"spec":{
            "replicas":3,"serviceName":"db","selector":{"matchLabels":{"app":"db"}},"template":{
            "metadata":{"labels":{"app":"db"}},"spec":{"terminationGracePeriodSeconds":1,
            "containers":[{"name":"echo","image":"kprov.local/echo:1"}]}}}}"#,
        )
        .await?;
    cluster.kubectl("rollout status statefulset/db --timeout=90s").await?;
    let names = "{.items[*].metadata.name}";
    let pods = cluster.get("pods -l app=db", names).await?;
    ensure!(pods == ["db-0", "db-1", "db-2"], "{pods:?}");
    let uid = "{.metadata.uid} {.status.conditions[?(@.type==\"Ready\")].status}";
    let before = cluster.get("pod/db-1", uid).await?;
    cluster.kubectl("delete pod/db-1").await?;
    eventually("another db-1", SOON, async || {
        let now = cluster.get("pod/db-1", uid).await?;
        ensure!(now.len() == 2 && now[0] != before[0] && now[1] == "True", "{now:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("scale statefulset/db --replicas=1").await?;
    eventually("one left", SOON, async || {
        let pods = cluster.get("pods -l app=db", names).await?;
        ensure!(pods == ["db-0"], "{pods:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete statefulset/db").await?;
    Ok(())
}

/// A stateful set keeps its files when its pods go, and gives them up when it says so.
async fn files_stay(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"local",
            "annotations":{"storageclass.kubernetes.io/is-default-class":"true"}},
            "provisioner":"kprov.io/local","volumeBindingMode":"WaitForFirstConsumer"}"#,
        )
        .await?;
    cluster
        .create(
            r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"disk"},"spec":{
            "replicas":2,"serviceName":"disk","selector":{"matchLabels":{"app":"disk"}},
            "persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete"},
            "volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":
            ["ReadWriteOnce"],"resources":{"requests":{"storage":"16Mi"}}}}],"template":{
            "metadata":{"labels":{"app":"disk"}},"spec":{"terminationGracePeriodSeconds":1,
            "containers":[{"name":"echo","image":"kprov.local/echo:1","volumeMounts":[{"name":
            "data","mountPath":"/data"}]}]}}}}"#,
        )
        .await?;
    cluster.kubectl("rollout status statefulset/disk --timeout=90s").await?;
    let claims = cluster.get("pvc -l app=disk", "{.items[*].metadata.name}").await?;
    ensure!(claims == ["data-disk-0", "data-disk-1"], "{claims:?}");
    let table = cluster.kubectl("get pvc,pv,sc").await?;
    for part in ["16Mi", "RWO", "default/data-disk-1", "local (default)", "kprov.io/local"] {
        ensure!(table.contains(part), "{part:?} is missing:\n{table}");
    }
    let ask = async |path: &str| {
        let line = format!("exec disk-1 -- /bin/echo get http://127.0.0.1:8080{path}");
        cluster.kubectl(&line).await
    };
    ask("/write?path=/data/kept&text=precious").await?;
    let uid = "{.metadata.uid} {.status.conditions[?(@.type==\"Ready\")].status}";
    let before = cluster.get("pod/disk-1", uid).await?;
    let host = cluster.get("pod/disk-1", "{.spec.nodeName}").await?;
    cluster.kubectl("delete pod/disk-1").await?;
    eventually("another disk-1", SOON, async || {
        let now = cluster.get("pod/disk-1", uid).await?;
        ensure!(now.len() == 2 && now[0] != before[0] && now[1] == "True", "{now:?}");
        Ok(())
    })
    .await?;
    let kept = ask("/file?path=/data/kept").await?;
    ensure!(kept.trim() == "precious", "{kept}");
    ensure!(cluster.get("pod/disk-1", "{.spec.nodeName}").await? == host, "it has moved");
    cluster.kubectl("delete statefulset/disk").await?;
    eventually("claims and volumes to be gone", SOON, async || {
        let left = cluster.get("pvc,pv", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let told = cluster.get("nodes", "{.items[*].metadata.annotations}").await?.join(" ");
    ensure!(!told.contains("local-volume.kprov.io"), "{told}");
    Ok(())
}

async fn daemons_run_everywhere(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"agent"},"spec":{
            "selector":{"matchLabels":{"app":"agent"}},"template":{"metadata":{"labels":{"app":
            "agent"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"echo",
            "image":"kprov.local/echo:1"}]}}}}"#,
        )
        .await?;
    let rolled_out = "rollout status daemonset/agent --timeout=90s";
    cluster.kubectl(rolled_out).await?;
    let mut hosts = cluster.get("pods -l app=agent", "{.items[*].spec.nodeName}").await?;
    hosts.sort();
    ensure!(hosts == ["node-1", "node-2", "node-3"], "{hosts:?}");
    cluster.kubectl(&format!("set image daemonset/agent echo={IMAGE}:2")).await?;
    cluster.kubectl(rolled_out).await?;
    images_are(cluster, "kprov.local/echo:2").await?;
    let history = cluster.kubectl("rollout history daemonset/agent").await?;
    ensure!(history.lines().filter(|l| l.starts_with(['1', '2'])).count() == 2, "{history}");
    cluster.kubectl("rollout undo daemonset/agent").await?;
    cluster.kubectl(rolled_out).await?;
    images_are(cluster, "kprov.local/echo:1").await
}

async fn images_are(cluster: &Cluster, image: &str) -> Result<()> {
    eventually("the images", SOON, async || {
        let path = "{.items[*].spec.containers[0].image}";
        let images = cluster.get("pods -l app=agent", path).await?;
        ensure!(images.len() == 3 && images.iter().all(|i| i == image), "{images:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Expects the daemons of the test before on every host: a drain leaves them.
async fn drains_wait_for_the_budget(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create deployment web --image={IMAGE}:1 --replicas=3")).await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    let allows = async |count: &str| -> Result<()> {
        eventually("the budget", SOON, async || {
            let allowed = cluster.get("pdb/web", "{.status.disruptionsAllowed}").await?;
            ensure!(allowed == [count], "{allowed:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    cluster.kubectl("create pdb web --selector=app=web --min-available=3").await?;
    allows("0").await?;
    let drain = ["drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data"];
    let refused = cluster.try_kubectl(&[&drain[..], &["--timeout=8s"]].concat()).await?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(refused.code != 0, "the budget was not kept: {said}");
    ensure!(said.contains("would violate the pod's disruption budget"), "{said}");
    let pods = cluster.get("pods -l app=web", "{.items[*].metadata.deletionTimestamp}").await?;
    ensure!(pods.is_empty(), "a pod was evicted: {pods:?}");

    cluster.kubectl("delete pdb/web").await?;
    cluster.kubectl("create pdb web --selector=app=web --min-available=2").await?;
    allows("1").await?;
    cluster.kubectl(&[&drain[..], &["--timeout=90s"]].concat().join(" ")).await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    let hosts = cluster.get("pods -l app=web", "{.items[*].spec.nodeName}").await?;
    ensure!(hosts.iter().all(|host| host != "node-2"), "{hosts:?}");
    let daemons = cluster.get("pods -l app=agent", "{.items[*].spec.nodeName}").await?;
    ensure!(daemons.len() == 3, "the drain took daemons along: {daemons:?}");
    cluster.kubectl("uncordon node-2").await?;
    Ok(())
}
