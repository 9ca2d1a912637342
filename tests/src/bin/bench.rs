//! Measures the goals' figures in a lab: prints a table and writes `target/bench/cluster.json`,
//! a list of `{name, value, unit, goal, met}`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Lab, workspace_root};
use serde::Serialize;
use tests::{Cluster, Inventory, Role, eventually};

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
    twenty_hosts(&mut figures).await?;
    cluster(&mut figures).await?;
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

async fn twenty_hosts(figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::boot(Inventory::single_master("bench20", 20)).await?;
    // The first plan also stores the hosts' keys; the second is what is measured.
    cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    let start = Instant::now();
    cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    figures.seconds("connect, facts and plan of 20 hosts", start.elapsed(), 2.0);
    cluster.lab.down().await?;
    Ok(())
}

async fn cluster(figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::boot(Inventory::single_master("bench", 3)).await?;
    let start = Instant::now();
    cluster.apply().await?;
    ready(&cluster, 3).await?;
    figures.seconds("apply from 3 bare hosts to all nodes Ready", start.elapsed(), 30.0);
    let start = Instant::now();
    cluster.kprov("apply", &[]).await?.expect_success("kprov apply")?;
    figures.seconds("second apply", start.elapsed(), 1.5);
    pod_start(figures, &cluster).await?;
    memory(figures, &cluster).await?;
    grow(figures, cluster).await
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

async fn grow(figures: &mut Figures, cluster: Cluster) -> Result<()> {
    let cluster = cluster.grow(Role::Node).await?;
    let start = Instant::now();
    cluster.kprov("apply", &[]).await?.expect_success("kprov apply")?;
    ready(&cluster, 4).await?;
    figures.seconds("node added to a running cluster, until Ready", start.elapsed(), 10.0);
    Ok(())
}
