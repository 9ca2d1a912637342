//! A cluster that begins where things are strict, and changes at work: a plan that is kept and carried
//! out exactly or refused, addons, a canary and batches that stop at the first failure, hooks, hosts
//! that leave.

#[path = "change/addons.rs"]
mod addons;
#[path = "change/beginnings.rs"]
mod beginnings;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Bare, Cluster, Inventory, Outcome, Role, nothing_is_left_to_do};

const SOON: Duration = Duration::from_secs(90);
/// Makes every kubelet start anew, and nothing else.
const VERBOSE: &str = "[components.kubelet]\nargs = { v = 4 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_changes_part_by_part() -> Result<()> {
    let began = Instant::now();
    let told = |what: &str| println!("{:6.1?} {what}", began.elapsed());
    let roles = [vec![Role::Etcd, Role::Master], vec![Role::Node], vec![Role::Node]];
    let mut inventory = Inventory::new("change", roles.to_vec());
    inventory.add(Role::Node);
    inventory.cluster = "node_approval = \"manual\"\n".to_owned();
    // Of the host that leaves in the end, and so shows whether the package goes with it.
    let last = inventory.settings.last_mut().context("no hosts")?;
    *last = format!("system = {{ packages = [{:?}] }}\n", beginnings::PACKAGE);
    let mut cluster = Cluster::boot(inventory).await?;
    beginnings::users_have_a_password(&cluster).await?;
    let bare = Bare::of(&cluster).await?;
    beginnings::hosts_are_measured(&cluster, &bare).await?;
    told("hosts were measured");
    beginnings::a_bundle_and_a_password_are_enough(&mut cluster, &bare).await?;
    told("applied from a bundle, and nodes were let in");
    nothing_is_left_to_do(&cluster).await?;
    addons::come_change_and_leave(&mut cluster).await?;
    told("addons came, changed and left");
    a_kept_plan_is_carried_out_or_refused(&mut cluster).await?;
    told("a kept plan was refused after a drift, and carried out");
    hooks_run_and_end_a_run(&mut cluster).await?;
    told("hooks ran, and one ended a run");
    a_canary_that_fails_stops_the_rollout(&mut cluster).await?;
    told("a canary stopped a rollout");
    let cluster = a_host_leaves(cluster, &bare).await?;
    told("a host left");
    nothing_is_left_to_do(&cluster).await
}

/// Runs `kprov VERB FILE ARGS…` on a file that is no inventory.
async fn kprov_on(cluster: &Cluster, verb: &str, file: &str) -> Result<Outcome> {
    let mut command = tokio::process::Command::new(cluster.kprov_path());
    command.arg(verb).arg(file);
    let output = tokio::time::timeout(Duration::from_secs(300), command.output()).await??;
    Ok(Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

async fn kubelets(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for host in ["node-2", "node-3", "node-4"] {
        let units = cluster.lab.activations(host).await?;
        all.push(units.get("kubelet.service").context("no kubelet")?.clone());
    }
    Ok(all)
}

async fn a_kept_plan_is_carried_out_or_refused(cluster: &mut Cluster) -> Result<()> {
    cluster.inventory.extra = VERBOSE.to_owned();
    cluster.rewrite()?;
    let file = cluster.folder().join("next.plan");
    let file = file.to_str().context("no UTF-8")?.to_owned();
    cluster.kprov("plan", &["-o", &file]).await?.expect_success("kprov plan -o")?;
    let before = kubelets(cluster).await?;
    // Somebody edits a file of a host: what the plan rests on is no longer true.
    let edited = "/etc/kubernetes/kube-proxy.yaml";
    let line = format!("cp -p {edited} /root/kept; echo '# mine' >>{edited}");
    cluster.lab.run("node-3", &["sh", "-c", &line]).await?;
    let refused = kprov_on(cluster, "apply", &file).await?;
    ensure!(refused.code == 7, "{refused:?}");
    for part in ["node-3", edited] {
        ensure!(refused.stderr.contains(part), "{part} is not named: {refused:?}");
    }
    ensure!(kubelets(cluster).await? == before, "a refused plan changed something");
    let drift = cluster.kprov("diff", &["--exit-code"]).await?;
    ensure!(drift.code == 2, "{drift:?}");
    cluster.lab.run("node-3", &["sh", "-c", &format!("mv /root/kept {edited}")]).await?;
    kprov_on(cluster, "apply", &file).await?.expect_success("kprov apply FILE")?;
    let after = kubelets(cluster).await?;
    ensure!(before.iter().zip(&after).all(|(old, new)| old != new), "{before:?} {after:?}");
    cluster.nodes_are_ready(3, SOON).await?;
    // Carried out once, it is a plan for hosts that are no more.
    let again = kprov_on(cluster, "apply", &file).await?;
    ensure!(again.code == 7, "{again:?}");
    nothing_is_left_to_do(cluster).await
}

fn hook(name: &str, when: &str, on: &str, command: &str, timeout_s: u32) -> String {
    format!(
        "[[hooks]]\nname = {name:?}\n{when}\non = {on:?}\ncommand = {command:?}\n\
         timeout_s = {timeout_s}\n"
    )
}

async fn hooks_run_and_end_a_run(cluster: &mut Cluster) -> Result<()> {
    let log = cluster.folder().join("hooks.log");
    let notes = format!("echo $KPROV_PHASE $KPROV_HOSTS >>{}", log.display());
    let before = hook("announce", "before = \"node\"", "operator", &notes, 60);
    let on_hosts = "test -d /etc/kubernetes && touch /run/hooked";
    let on_hosts = hook("look", "after = \"node\"", "hosts", on_hosts, 60);
    cluster.inventory.extra = format!("{before}{on_hosts}");
    cluster.rewrite()?;
    cluster.apply().await?;
    let written = std::fs::read_to_string(&log)?;
    let hosts = ["node-2", "node-3", "node-4"];
    ensure!(hosts.iter().all(|host| written.contains(host)), "{written}");
    for host in hosts {
        cluster.lab.run(host, &["test", "-e", "/run/hooked"]).await?;
    }
    // One that hangs is killed, named, and ends the run before the phase that it stands before.
    let hangs = hook("ask somebody", "before = \"node\"", "operator", "sleep 1000", 2);
    cluster.inventory.extra = format!("{VERBOSE}{hangs}");
    cluster.rewrite()?;
    let kubelets_before = kubelets(cluster).await?;
    let ended = cluster.kprov("apply", &[]).await?;
    ensure!(ended.code != 0 && ended.stderr.contains("ask somebody"), "{ended:?}");
    ensure!(kubelets(cluster).await? == kubelets_before, "a kubelet was restarted");
    cluster.inventory.extra = VERBOSE.to_owned();
    cluster.rewrite()?;
    cluster.apply().await?;
    nothing_is_left_to_do(cluster).await
}

async fn a_canary_that_fails_stops_the_rollout(cluster: &mut Cluster) -> Result<()> {
    let before = kubelets(cluster).await?;
    // A kubelet that does not start: it finds no such option.
    cluster.inventory.extra = "[rollout]\nbatch = 1\ncanary = 1\n\n\
                               [components.kubelet]\nargs = { no-such-option = \"x\" }\n"
        .to_owned();
    cluster.rewrite()?;
    let plan = cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    ensure!(plan.stdout.contains("canary"), "{}", plan.stdout);
    let failed = cluster.kprov("apply", &["--output", "json"]).await?;
    ensure!(failed.code == 4, "{failed:?}");
    let said: Value = serde_json::from_str(&failed.stdout)?;
    let error = |host: &str| said["hosts"][host]["error"].as_str().unwrap_or_default().to_owned();
    ensure!(error("node-2").contains("kubelet"), "{said:#}");
    for host in ["node-3", "node-4"] {
        ensure!(error(host).contains("not reached"), "{host}: {said:#}");
    }
    let after = kubelets(cluster).await?;
    ensure!(after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");
    // The way back is the way there.
    cluster.inventory.extra = "[rollout]\nbatch = 1\ncanary = 1\n".to_owned();
    cluster.rewrite()?;
    cluster.apply().await?;
    cluster.nodes_are_ready(3, SOON).await?;
    nothing_is_left_to_do(cluster).await
}

async fn a_host_leaves(mut cluster: Cluster, bare: &Bare) -> Result<Cluster> {
    cluster.kubectl("create deployment web --image=kprov.local/echo:1 --replicas=3").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    cluster.inventory.remove_last();
    cluster.rewrite()?;
    let told = cluster.apply().await?;
    ensure!(told.stderr.contains("node-4") && told.stderr.contains("--prune"), "{told:?}");
    cluster.nodes_are_ready(3, SOON).await?;
    cluster.kprov("apply", &["--prune"]).await?.expect_success("kprov apply --prune")?;
    cluster.nodes_are_ready(2, SOON).await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    let nodes = cluster.get("pods -l app=web", "{.items[*].spec.nodeName}").await?;
    ensure!(nodes.len() == 3 && !nodes.contains(&"node-4".to_owned()), "{nodes:?}");
    beginnings::the_package_is_gone(&cluster, "node-4").await?;
    bare.expect_host_given_back(&cluster, "node-4").await?;
    Ok(cluster)
}
