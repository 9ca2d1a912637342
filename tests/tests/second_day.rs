//! The second day: certificates and their authorities are replaced under a client that writes all
//! the while, and a cluster is made again from a backup; with the real kubectl.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(90);
/// How often the client asks another master before it calls a write failed.
const TRIES: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_replaced_and_backups_restored() -> Result<()> {
    let cluster = Cluster::up(Inventory::three_masters("secondday", 3)).await?;
    cluster.kubectl("create deployment web --image=kprov.local/echo:1 --replicas=3").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    certificates_are_listed_and_renewed(&cluster).await?;
    authorities_are_replaced_under_load(&cluster).await?;
    a_backup_makes_the_cluster_again(&cluster).await
}

/// The inventory's file comes after the sub-command.
async fn kprov(cluster: &Cluster, line: &str) -> Result<String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let inventory = cluster.inventory_path();
    let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let subcommand = matches!(verb, "certs" | "etcd").then(|| words.remove(0));
    let program = cluster.kprov_path();
    let mut command = tokio::process::Command::new(program);
    command.arg(verb).args(subcommand).arg(inventory).args(words);
    command.env("KPROV_PASSPHRASE", "a passphrase of this test");
    let output = tokio::time::timeout(Duration::from_secs(300), command.output())
        .await
        .with_context(|| format!("kprov {line} hangs"))??;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "kprov {line}: {}\n{out}\n{err}", output.status);
    Ok(out)
}

async fn listed(cluster: &Cluster) -> Result<Vec<Value>> {
    let told: Value = serde_json::from_str(&kprov(cluster, "certs list --output json").await?)?;
    ensure!(told["unreachable"].as_array().is_some_and(Vec::is_empty), "{told}");
    let rows = told["certificates"].as_array().context("no list of certificates")?.clone();
    ensure!(rows.len() > 12, "{told}");
    for row in &rows {
        ensure!(row["days_left"].as_i64().is_some_and(|days| days > 300), "{row}");
        for place in ["on_host", "served"] {
            let seen = &row[place];
            ensure!(seen.is_null() || seen == "same", "{place}: {row}");
        }
    }
    Ok(rows)
}

async fn certificates_are_listed_and_renewed(cluster: &Cluster) -> Result<()> {
    let before = listed(cluster).await?;
    kprov(cluster, "certs renew --hosts node-2 --kind apiserver").await?;
    let after = listed(cluster).await?;
    let changed = before.iter().zip(&after).filter(|(old, new)| old != new).count();
    ensure!(before.len() == after.len() && changed == 1, "{changed} are new:\n{after:#?}");
    Ok(())
}

/// Writes until it is told to stop, to whichever master answers; gives how often it wrote.
async fn write_all_the_while(cluster: &Cluster, stop: &AtomicBool) -> Result<u32> {
    let hosts: Vec<String> = cluster.lab.hosts().iter().map(|host| host.name.clone()).collect();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut said = Vec::new();
        for host in hosts.iter().cycle().skip(written as usize).take(TRIES) {
            let context = format!("{}-{host}", cluster.inventory.name());
            let name = format!("write-{written}");
            let arguments = ["--context", &context, "--request-timeout=10s", "create", "configmap"];
            let outcome = cluster.try_kubectl(&[&arguments[..], &[name.as_str()]].concat()).await?;
            // The answer to a write that was carried out may be lost with its server.
            if outcome.code == 0 || outcome.stderr.contains("already exists") {
                said.clear();
                break;
            }
            said.push(outcome.stderr);
        }
        ensure!(said.is_empty(), "write {written} failed {TRIES} times: {said:#?}");
        written += 1;
    }
    Ok(written)
}

async fn authorities_are_replaced_under_load(cluster: &Cluster) -> Result<()> {
    let pods = "{.items[*].metadata.uid} {.items[*].status.containerStatuses[*].restartCount}";
    let before = cluster.get("pods -l app=web", pods).await?;
    let old = std::fs::read_to_string(cluster.kubeconfig())?;
    let stop = AtomicBool::new(false);
    let replace = async {
        let done = async {
            kprov(cluster, "certs rotate-ca --yes --stop-after trust").await?;
            // Whoever has a kubeconfig needs one that trusts the new authority, too.
            std::fs::write(cluster.kubeconfig(), kprov(cluster, "kubeconfig").await?)?;
            kprov(cluster, "certs rotate-ca --yes --stop-after issue").await?;
            std::fs::write(cluster.kubeconfig(), kprov(cluster, "kubeconfig").await?)?;
            kprov(cluster, "certs rotate-ca --yes").await
        }
        .await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (_, written) = tokio::try_join!(replace, write_all_the_while(cluster, &stop))?;
    ensure!(written > 10, "the client wrote {written} times only");
    std::fs::write(cluster.kubeconfig(), kprov(cluster, "kubeconfig").await?)?;
    listed(cluster).await?;
    let maps = cluster.get("configmaps", "{.items[*].metadata.name}").await?;
    let kept = maps.iter().filter(|name| name.starts_with("write-")).count();
    ensure!(kept == written as usize, "{kept} of {written} writes are kept");
    eventually("all nodes to be ready", SOON, async || {
        let path = "{.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let ready = cluster.get("nodes", path).await?;
        ensure!(ready.len() == 3 && ready.iter().all(|word| word == "True"), "{ready:?}");
        Ok(())
    })
    .await?;
    ensure!(cluster.get("pods -l app=web", pods).await? == before, "pods were touched");
    cluster.kubectl("scale deployment/web --replicas=4").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    // Who has only the old credentials is nobody now.
    let former = cluster.folder().join("former.kubeconfig");
    std::fs::write(&former, old)?;
    let refused = refused(&former).await?;
    ensure!(refused.contains("certificate"), "{refused}");
    kprov(cluster, "plan --exit-code").await.context("a rotation leaves changes")?;
    Ok(())
}

/// What kubectl says when it may not.
async fn refused(kubeconfig: &Path) -> Result<String> {
    let mut command = tokio::process::Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(["--request-timeout=10s", "get", "nodes"]);
    let output = command.output().await?;
    ensure!(!output.status.success(), "the former credentials are good");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn a_backup_makes_the_cluster_again(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create configmap precious --from-literal=a=b").await?;
    let archive = cluster.folder().join("cluster.kbackup");
    let to = archive.to_str().context("no UTF-8")?;
    kprov(cluster, &format!("backup --to {to}")).await?;
    let sealed = std::fs::read(&archive)?;
    let clear = |text: &[u8]| sealed.windows(text.len()).any(|window| window == text);
    ensure!(!clear(b"PRIVATE KEY") && !clear(b"precious"), "the backup is not sealed");
    cluster.kubectl("create configmap late").await?;
    kprov(cluster, "reset --yes").await?;
    let mut command = tokio::process::Command::new(cluster.kprov_path());
    command.arg("restore").arg(&archive).arg(cluster.inventory_path()).arg("--yes");
    command.env("KPROV_PASSPHRASE", "a passphrase of this test");
    let output = tokio::time::timeout(Duration::from_secs(300), command.output()).await??;
    ensure!(output.status.success(), "restore: {output:?}");
    let value = cluster.get("configmap/precious", "{.data.a}").await?;
    ensure!(value == ["b"], "{value:?}");
    let late = cluster.try_kubectl(&["get", "configmap", "late"]).await?;
    ensure!(late.code != 0, "what came after the backup is there");
    cluster.kubectl("rollout status deployment/web --timeout=120s").await?;
    Ok(())
}
