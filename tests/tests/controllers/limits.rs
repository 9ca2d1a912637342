//! What a namespace may have, and what its containers may ask for.

use anyhow::{Result, ensure};
use tests::{Cluster, eventually};

use super::{IMAGE, SOON};

pub(crate) async fn a_namespace_gets_what_its_quota_says(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace frugal").await?;
    let hard = "--hard=pods=2,requests.cpu=1,count/configmaps=2";
    cluster.kubectl(&format!("create quota few -n frugal {hard}")).await?;
    let used = async |wanted: &[&str]| -> Result<()> {
        eventually("the quota's count", SOON, async || {
            let path = "{.status.used.pods} {.status.used.requests\\.cpu} \
                        {.status.used.count/configmaps}";
            let used = cluster.get("quota/few -n frugal", path).await?;
            ensure!(used == wanted, "{used:?} instead of {wanted:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    // The certificate of the API server's authority is there from the beginning.
    used(&["0", "0", "1"]).await?;
    cluster.kubectl("create configmap second -n frugal --from-literal=a=b").await?;
    let third = ["create", "configmap", "third", "-n", "frugal", "--from-literal=a=b"];
    let refused = cluster.try_kubectl(&third).await?;
    let why = "exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=2, \
               limited: count/configmaps=2";
    ensure!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");

    // Who does not say what it needs gets nothing of what is limited.
    let create = format!("create deployment web -n frugal --image={IMAGE} --replicas=3");
    cluster.kubectl(&create).await?;
    let failure = async |what: &str, path: &str, part: &str| -> Result<()> {
        eventually("the reason why pods are missing", SOON, async || {
            let told = cluster.get(&format!("{what} -n frugal"), path).await?.join(" ");
            ensure!(told.contains(part), "{told:?} does not tell {part:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    let path = "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    failure("deployment/web", path, "must specify requests.cpu").await?;
    cluster.kubectl("set resources deployment/web -n frugal --requests=cpu=100m").await?;
    // A deployment keeps its first message as long as the reason is the same, as in Kubernetes.
    let path = "{.items[*].status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    failure("replicasets", path, "exceeded quota: few").await?;
    used(&["2", "200m", "2"]).await?;
    let described = cluster.kubectl("describe quota few -n frugal").await?;
    let lines: Vec<String> =
        described.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    ensure!(lines.iter().any(|line| line == "pods 2 2"), "{described}");

    // More is allowed, and comes without anybody asking again.
    let more = r#"{"spec":{"hard":{"pods":"3"}}}"#;
    cluster.kubectl(&format!("patch quota/few -n frugal -p {more}")).await?;
    cluster.kubectl("rollout status deployment/web -n frugal --timeout=60s").await?;
    used(&["3", "300m", "2"]).await?;
    cluster.kubectl("scale deployment/web -n frugal --replicas=0").await?;
    used(&["0", "0", "2"]).await?;
    cluster.kubectl("delete namespace frugal --timeout=60s").await?;
    Ok(())
}

/// Containers that say nothing get the defaults of their namespace, and none goes beyond its bounds.
pub(crate) async fn containers_are_bounded(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace bounded").await?;
    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"sizes","namespace":
            "bounded"},"spec":{"limits":[{"type":"Container","max":{"memory":"64Mi"},
            "defaultRequest":{"memory":"16Mi"},"default":{"memory":"32Mi"}}]}}"#,
        )
        .await?;
    eventually("the account of pods", SOON, async || {
        cluster.kubectl("get serviceaccount default -n bounded").await
    })
    .await?;
    cluster.kubectl(&format!("run plain -n bounded --image={IMAGE}")).await?;
    let path = "{.spec.containers[0].resources.requests.memory} \
                {.spec.containers[0].resources.limits.memory}";
    let sizes = cluster.get("pod/plain -n bounded", path).await?;
    ensure!(sizes == ["16Mi", "32Mi"], "{sizes:?}");
    let large = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"large","namespace":"bounded"},
        "spec":{"containers":[{"name":"echo","image":"kprov.local/echo:1","resources":{"limits":{
        "memory":"65Mi"}}}]}}"#;
    let refused = cluster.kubectl_with(&["create", "-f", "-"], large).await?;
    let why = "maximum memory usage per Container is 64Mi, but limit is 65Mi";
    ensure!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    let described = cluster.kubectl("describe limitrange sizes -n bounded").await?;
    ensure!(described.contains("64Mi") && described.contains("32Mi"), "{described}");
    cluster.kubectl("delete namespace bounded --timeout=60s").await?;
    Ok(())
}
