//! Measures the goals' figures in a lab: prints a table and writes `target/bench/cluster.json`,
//! a list of `{name, value, unit, goal, met}`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Host, Lab, workspace_root};
use serde::Serialize;
use tests::{Cluster, Inventory, Role, eventually};
use tokio::process::Command;
use tokio::task::JoinSet;

/// The units of a master besides etcd, in the order in which they need each other.
const MASTER_UNITS: &str = "kube-apiserver kube-controller-manager kube-scheduler";
/// The units of a node.
const NODE_UNITS: &str = "apiserver-proxy kubelet kube-proxy flanneld cluster-dns";
/// No command over SSH takes longer.
const SSH_TIME_MAX: Duration = Duration::from_secs(120);

/// One measured figure and what it should be at most.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
    met: bool,
}

#[derive(Default)]
struct Figures {
    list: Vec<Figure>,
}

impl Figures {
    /// Notes a figure; `goal` is the most it may be.
    #[expect(clippy::print_stdout, reason = "the table is the program's result")]
    fn note(&mut self, name: &'static str, value: f64, unit: &'static str, goal: f64) {
        let met = value <= goal;
        let verdict = if met { "met" } else { "MISSED" };
        println!("{name:<58} {value:>9.2} {unit:<3} goal {goal:>6.1}  {verdict}");
        self.list.push(Figure { name, value, unit, goal, met });
    }

    fn seconds(&mut self, name: &'static str, took: Duration, goal: f64) {
        self.note(name, took.as_secs_f64(), "s", goal);
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the table is the program's result")]
async fn main() -> Result<()> {
    println!("conditions: release build, {} cores, {}", cores(), conditions().await);
    let mut figures = Figures::default();
    binary(&mut figures)?;
    let one_more_at_20 = twenty_hosts(&mut figures).await?;
    cluster(&mut figures, one_more_at_20).await?;
    let folder = workspace_root().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("cluster.json");
    std::fs::write(&file, serde_json::to_string_pretty(&figures.list)?)?;
    println!("written to {}", file.display());
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn conditions() -> String {
    let load = tokio::fs::read_to_string("/proc/loadavg").await.unwrap_or_default();
    format!("load {}", load.split_whitespace().next().unwrap_or("unknown"))
}

#[expect(clippy::cast_precision_loss, reason = "a size in MB needs no 53 bits")]
fn binary(figures: &mut Figures) -> Result<()> {
    let path = workspace_root().join("target/release/hyperkube");
    let size = std::fs::metadata(&path).context("run `make build`")?.len();
    figures.note("hyperkube, stripped", size as f64 / 1e6, "MB", 40.0);
    Ok(())
}

/// Twenty hosts; how long it takes to add one more.
async fn twenty_hosts(figures: &mut Figures) -> Result<Duration> {
    let cluster = Cluster::boot(Inventory::single_master("bench20", 20)).await?;
    // The first plan also stores the hosts' keys; the second is what is measured.
    cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    let start = Instant::now();
    cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    figures.seconds("connect, facts and plan of 20 hosts", start.elapsed(), 2.0);
    cluster.apply().await?;
    ready(&cluster, 20).await?;
    no_op(figures, "apply of 20 hosts without a change", &cluster, 3.0).await?;
    let (cluster, took) = add_one(cluster, 21).await?;
    cluster.lab.down().await?;
    Ok(took)
}

async fn cluster(figures: &mut Figures, one_more_at_20: Duration) -> Result<()> {
    let cluster = Cluster::boot(Inventory::single_master("bench", 3)).await?;
    let start = Instant::now();
    cluster.apply().await?;
    ready(&cluster, 3).await?;
    let applied = start.elapsed();
    figures.seconds("apply from 3 bare hosts to all nodes Ready", applied, 30.0);
    no_op(figures, "apply of 3 hosts without a change", &cluster, 1.5).await?;
    pod_start(figures, &cluster).await?;
    memory(figures, &cluster).await?;
    let raw = raw_cost(&cluster).await?;
    let times = applied.as_secs_f64() / raw.as_secs_f64();
    figures.note("  the first apply against its raw cost", times, "x", 1.5);
    let (cluster, took) = add_one(cluster, 4).await?;
    figures.seconds("node added to a running cluster, until Ready", took, 10.0);
    let times = one_more_at_20.as_secs_f64() / took.as_secs_f64();
    figures.note("  the same at 20 hosts against at 3", times, "x", 1.2);
    cluster.lab.down().await?;
    Ok(())
}

/// The median of three applies that find nothing to do.
async fn no_op(
    figures: &mut Figures,
    name: &'static str,
    cluster: &Cluster,
    goal: f64,
) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        cluster.kprov("apply", &[]).await?.expect_success("kprov apply")?;
        times.push(start.elapsed());
    }
    times.sort();
    figures.seconds(name, times[1], goal);
    Ok(())
}

/// Adds a host to a cluster that runs, until it is the last of that many nodes to be ready.
async fn add_one(cluster: Cluster, nodes: usize) -> Result<(Cluster, Duration)> {
    let cluster = cluster.grow(Role::Node).await?;
    let start = Instant::now();
    cluster.kprov("apply", &[]).await?.expect_success("kprov apply")?;
    ready(&cluster, nodes).await?;
    Ok((cluster, start.elapsed()))
}

/// What nobody can save of a first apply: to connect to all hosts, to put the program there, to
/// start the units one after the other as they need each other, and to wait for the nodes.
async fn raw_cost(cluster: &Cluster) -> Result<Duration> {
    let lab = &cluster.lab;
    let master = lab.host("node-1")?;
    let everywhere = |script: String| on_all(lab, lab.hosts(), script, None);
    let stopped = format!("systemctl stop {NODE_UNITS} {MASTER_UNITS} etcd 2>/dev/null; true");
    everywhere(stopped).await?;
    let program = workspace_root().join("target/release/hyperkube");
    let start = Instant::now();
    on_all(lab, lab.hosts(), "cat > /var/tmp/raw".to_owned(), Some(&program)).await?;
    let alone = std::slice::from_ref(master);
    on_all(lab, alone, format!("systemctl start etcd && systemctl start {MASTER_UNITS}"), None)
        .await?;
    // Only some have a balancer or a DNS server of their own.
    let units = format!(
        "for unit in {NODE_UNITS}; do systemctl cat $unit >/dev/null 2>&1 && echo $unit; done | \
         xargs systemctl start"
    );
    everywhere(units).await?;
    ready(cluster, 3).await?;
    let took = start.elapsed();
    everywhere("rm /var/tmp/raw".to_owned()).await?;
    Ok(took)
}

/// Runs a script as root on hosts at once over SSH, with a file as its input.
async fn on_all(lab: &Lab, hosts: &[Host], script: String, input: Option<&Path>) -> Result<()> {
    let mut running = JoinSet::new();
    for host in hosts {
        let mut command = Command::new("ssh");
        command
            .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-i"])
            .arg(lab.ssh_key())
            .arg(format!("root@{}", host.address))
            .arg(&script)
            .stdin(match input {
                Some(file) => Stdio::from(std::fs::File::open(file)?),
                None => Stdio::null(),
            })
            .kill_on_drop(true);
        running.spawn(async move { tokio::time::timeout(SSH_TIME_MAX, command.status()).await });
    }
    while let Some(ended) = running.join_next().await {
        let status = ended?.context("a command over SSH does not end")??;
        if !status.success() {
            bail!("a command over SSH ended with {status}: {script}");
        }
    }
    Ok(())
}

async fn ready(cluster: &Cluster, nodes: usize) -> Result<()> {
    eventually("all nodes Ready", Duration::from_secs(60), async || {
        let path = "{.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let ready = cluster.get("nodes", path).await?;
        ensure!(ready.len() == nodes && ready.iter().all(|s| s == "True"), "{ready:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// From the start of `kubectl run` to the pod's Ready condition, median of five.
async fn pod_start(figures: &mut Figures, cluster: &Cluster) -> Result<()> {
    let mut times = Vec::new();
    for i in 0..5 {
        let start = Instant::now();
        cluster.kubectl(&format!("run p{i} --image=kprov.local/echo:1")).await?;
        cluster.kubectl(&format!("wait pod/p{i} --for=condition=Ready --timeout=30s")).await?;
        times.push(start.elapsed());
    }
    times.sort();
    figures.seconds("pod from kubectl create to Ready (median of 5)", times[2], 2.0);
    cluster.kubectl("delete pod p0 p1 p2 p3 p4 --wait=false").await?;
    Ok(())
}

async fn memory(figures: &mut Figures, cluster: &Cluster) -> Result<()> {
    // Let what the pods needed be given back.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let masters = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let master = resident(&cluster.lab, "node-1", &masters).await?;
    figures.note("idle memory of the master components, without etcd", master, "MB", 100.0);
    let node = resident(&cluster.lab, "node-2", &["kubelet", "kube-proxy", "flanneld"]).await?;
    figures.note("idle memory of kubelet, kube-proxy and flanneld", node, "MB", 60.0);
    Ok(())
}

/// Resident set of the units' main processes together, in MB.
async fn resident(lab: &Lab, host: &str, units: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for unit in units {
        let script = format!(
            "awk '/^VmRSS/ {{print $2}}' /proc/$(systemctl show -P MainPID {unit}.service)/status"
        );
        let kib = lab.run(host, &["sh", "-c", &script]).await?;
        sum += kib.trim().parse::<f64>().with_context(|| format!("{unit}: {kib:?}"))? / 1e3;
    }
    Ok(sum)
}
