//! Kinds that no other tour meets by themselves.

use anyhow::{Result, ensure};
use tests::{Cluster, eventually};

use super::SOON;

/// A replica set keeps its number, leaves its pods behind when told to, and takes over what it finds.
pub(crate) async fn sets_without_a_deployment(cluster: &Cluster) -> Result<()> {
    let manifest = r#"{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"bare"},
        "spec":{"replicas":2,"selector":{"matchLabels":{"app":"bare"}},"template":{"metadata":{
        "labels":{"app":"bare"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":
        "echo","image":"kprov.local/echo:1"}]}}}}"#;
    let ready = async |wanted: &str| -> Result<()> {
        eventually("the pods of the set", SOON, async || {
            let path = "{.status.replicas} {.status.readyReplicas}";
            let replicas = cluster.get("rs/bare", path).await?;
            ensure!(replicas == [wanted, wanted], "{replicas:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    let pods = async || {
        let mut uids = cluster.get("pods -l app=bare", "{.items[*].metadata.uid}").await?;
        uids.sort();
        Ok::<_, anyhow::Error>(uids)
    };
    cluster.create(manifest).await?;
    ready("2").await?;
    cluster.kubectl("scale rs/bare --replicas=3").await?;
    ready("3").await?;
    let before = pods().await?;
    let first = cluster.get("pods -l app=bare", "{.items[0].metadata.name}").await?;
    cluster.kubectl(&format!("delete pod/{}", first.join(""))).await?;
    eventually("another pod", SOON, async || {
        let now = pods().await?;
        let kept = now.iter().filter(|uid| before.contains(uid)).count();
        ensure!((now.len(), kept) == (3, 2), "{before:?} {now:?}");
        Ok(())
    })
    .await?;
    ready("3").await?;
    let kept = pods().await?;
    cluster.kubectl("delete rs/bare --cascade=orphan").await?;
    ensure!(pods().await? == kept, "the set took its pods along");
    // The next one finds a pod too many.
    cluster.create(manifest).await?;
    ready("2").await?;
    eventually("one pod less, and none made anew", SOON, async || {
        let now = pods().await?;
        ensure!(now.len() == 2 && now.iter().all(|uid| kept.contains(uid)), "{now:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete rs/bare --cascade=foreground --timeout=60s").await?;
    Ok(())
}

/// The rules of a role that is made of others follow them.
pub(crate) async fn roles_made_of_others(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl("create clusterrole monitor --aggregation-rule=example.com/to-monitor=true")
        .await?;
    cluster.kubectl("create clusterrole monitor-pods --verb=get,list --resource=pods").await?;
    let allows = async |wanted: &str| -> Result<()> {
        eventually("the rules", SOON, async || {
            let rules = cluster.get("clusterrole/monitor", "{.rules[*].resources[*]}").await?;
            ensure!(rules.join(" ") == wanted, "{rules:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    cluster.kubectl("label clusterrole monitor-pods example.com/to-monitor=true").await?;
    allows("pods").await?;
    cluster.kubectl("create serviceaccount watcher").await?;
    let bind = "create clusterrolebinding watcher --clusterrole=monitor \
                --serviceaccount=default:watcher";
    cluster.kubectl(bind).await?;
    let may = |verb: &'static str| {
        ["auth", "can-i", verb, "pods", "--as=system:serviceaccount:default:watcher"]
    };
    eventually("the account to be allowed", SOON, async || {
        let answer = cluster.try_kubectl(&may("list")).await?;
        ensure!(answer.stdout.trim() == "yes", "{answer:?}");
        Ok(())
    })
    .await?;
    let answer = cluster.try_kubectl(&may("delete")).await?;
    ensure!(answer.stdout.trim() == "no", "{answer:?}");
    cluster.kubectl("delete clusterrole/monitor-pods").await?;
    allows("").await?;
    cluster
        .kubectl("delete clusterrole/monitor clusterrolebinding/watcher serviceaccount/watcher")
        .await?;
    Ok(())
}

/// A volume that somebody made, which its claim finds and which is kept; one that a claim asks for
/// and that nobody makes; and one that comes and goes with its pod.
pub(crate) async fn volumes_of_three_sorts(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            r#"{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"scratch"},
            "provisioner":"kprov.io/local","volumeBindingMode":"WaitForFirstConsumer"}"#,
        )
        .await?;
    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"made"},"spec":{
            "capacity":{"storage":"32Mi"},"accessModes":["ReadWriteOnce"],"storageClassName":"hand",
            "persistentVolumeReclaimPolicy":"Retain","hostPath":{"path":"/tmp"}}}"#,
        )
        .await?;
    for (name, storage) in [("fits", "16Mi"), ("larger", "64Mi")] {
        let claim = r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"NAME"},
            "spec":{"storageClassName":"hand","accessModes":["ReadWriteOnce"],"resources":{
            "requests":{"storage":"SIZE"}}}}"#;
        cluster.create(&claim.replace("NAME", name).replace("SIZE", storage)).await?;
    }
    let phases = async |wanted: &[&str]| -> Result<()> {
        eventually("the volume and the claims", SOON, async || {
            let path = "{.items[*].status.phase}";
            let phases = cluster.get("pv/made pvc/fits pvc/larger", path).await?;
            ensure!(phases == wanted, "{phases:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    phases(&["Bound", "Bound", "Pending"]).await?;
    cluster.kubectl("delete pvc/fits pvc/larger").await?;
    eventually("a volume that is kept", SOON, async || {
        let phase = cluster.get("pv/made", "{.status.phase}").await?;
        ensure!(phase == ["Released"], "{phase:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete pv/made").await?;

    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"brief"},"spec":{
            "terminationGracePeriodSeconds":1,"containers":[{"name":"echo","image":
            "kprov.local/echo:1","volumeMounts":[{"name":"work","mountPath":"/work"}]}],"volumes":[{
            "name":"work","ephemeral":{"volumeClaimTemplate":{"spec":{"storageClassName":"scratch",
            "accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"16Mi"}}}}}}]}}"#,
        )
        .await?;
    cluster.kubectl("wait pod/brief --for=condition=Ready --timeout=60s").await?;
    let claim = "{.status.phase} {.metadata.ownerReferences[0].name}";
    let claim = cluster.get("pvc/brief-work", claim).await?;
    ensure!(claim == ["Bound", "brief"], "{claim:?}");
    cluster.kubectl("delete pod/brief").await?;
    eventually("the claim and its volume to be gone", SOON, async || {
        let left = cluster.get("pvc,pv", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete storageclass/scratch").await?;
    Ok(())
}
