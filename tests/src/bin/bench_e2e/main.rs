//! Measures a whole control plane on loopback: real etcd, hyperkube's components, hollow nodes.
//! Prints a table and writes `target/bench/e2e.json`, a list of `{name, value, unit, goal, met}`.

mod certificates;
mod programs;
mod progress;
mod requests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use certificates::Certificates;
use clap::Parser;
use client::{Client, Kubeconfig};
use http::Method;
use lab::workspace_root;
use programs::{Programs, Usage};
use progress::{Milestones, Progress};
use requests::Requests;
use serde::Serialize;
use serde_json::{Value, json};
use tests::eventually;
use tokio::task::JoinSet;

/// Pods that run a second, from the first creation to the last report.
const PODS_GOAL: f64 = 1_500.0;
/// Pods of a deployment created a second.
const CREATED_GOAL: f64 = 2_000.0;
/// Pods being created at a time by the benchmark itself.
const CREATORS: u32 = 64;
/// Lines of requests that are shown; the rest is summed up.
const REQUESTS_SHOWN: usize = 14;
/// Everything takes no longer, however slow the machine is.
const TIME_MAX: Duration = Duration::from_secs(1_200);

/// Measures a control plane with hollow nodes on loopback.
#[derive(Parser)]
struct Options {
    /// Hollow nodes.
    #[arg(long, default_value_t = 1_000)]
    nodes: u32,
    /// Pods that are created one by one.
    #[arg(long, default_value_t = 5_000)]
    pods: u32,
    /// Replicas that a deployment is scaled to.
    #[arg(long, default_value_t = 10_000)]
    replicas: u32,
}

/// One measured figure and what it should be at least.
#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<f64>,
    met: Option<bool>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no other provider is installed before main");
    tokio::select! {
        measured = tokio::time::timeout(TIME_MAX, measure(&options)) => {
            measured.with_context(|| format!("not done within {TIME_MAX:?}"))?
        }
        // Dropping the rest ends what was started.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let logs = workspace_root().join("target/bench/e2e-logs");
    std::fs::create_dir_all(&logs)?;
    say(&format!(
        "conditions: release build, {} cores, load {}, etcd on {}",
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        load(),
        folder.path().display(),
    ));
    let mut bench = Bench::start(folder.path(), &logs, options).await?;
    bench.pods(options.pods).await?;
    bench.deployment(options.replicas).await?;
    bench.memory();
    bench.programs.check()?;
    let file = workspace_root().join("target/bench/e2e.json");
    std::fs::write(&file, serde_json::to_string_pretty(&bench.figures)?)?;
    say(&format!("written to {}; logs of the programs are in {}", file.display(), logs.display()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the program's result")]
fn say(line: &str) {
    println!("{line}");
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// A running cluster and what was measured of it.
struct Bench {
    programs: Programs,
    client: Client,
    /// The watch has a connection of its own.
    watcher: Client,
    figures: Vec<Figure>,
}

impl Bench {
    /// Starts everything and waits until all nodes are ready.
    async fn start(folder: &Path, logs: &Path, options: &Options) -> Result<Self> {
        let certificates = Certificates::new(folder)?;
        certificates.issue("server", "bench", None)?;
        certificates.issue("admin", "kubernetes-admin", Some("system:masters"))?;
        for component in ["kube-controller-manager", "kube-scheduler"] {
            certificates.issue(component, &format!("system:{component}"), None)?;
        }
        let mut programs = Programs::new(logs)?;
        programs.etcd(&certificates, &folder.join("etcd"))?;
        programs.api_server(&certificates)?;
        let kubeconfig = certificates.kubeconfig("admin", &programs.api())?;
        let config = Kubeconfig::load(Path::new(&kubeconfig), &[], "bench-e2e")?;
        let client = Client::new(config.clone())?;
        let ready = eventually("the API server is ready", Duration::from_secs(30), async || {
            let (code, _) = client.call(Method::GET, "/readyz", "", Bytes::new()).await?;
            ensure!(code == 200, "code {code}");
            Ok(())
        });
        let ready = ready.await;
        programs.check()?;
        ready?;
        programs.controllers_and_scheduler(&certificates)?;
        let start = Instant::now();
        programs.hollow_nodes(&kubeconfig, options.nodes)?;
        let mut bench =
            Self { programs, client, watcher: Client::new(config)?, figures: Vec::new() };
        let ready = bench.nodes_ready(options.nodes as usize).await;
        bench.programs.check()?;
        ready?;
        bench.note("all nodes ready", start.elapsed().as_secs_f64(), "s", None);
        Ok(bench)
    }

    async fn nodes_ready(&self, nodes: usize) -> Result<()> {
        eventually("all nodes are ready", Duration::from_secs(180), async || {
            let list = self.ask(Method::GET, "/api/v1/nodes", &Value::Null).await?;
            let items = list["items"].as_array().context("no list of nodes")?;
            let usable = items.iter().filter(|n| {
                let mut conditions = n["status"]["conditions"].as_array().into_iter().flatten();
                conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
                    && n["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
            });
            let usable = usable.count();
            ensure!(usable == nodes, "{usable} of {nodes}");
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let content_type = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        Ok(self.client.json(method, path, content_type, body).await?)
    }

    async fn namespace(&self, name: &str) -> Result<()> {
        let body = json!({"metadata": {"name": name}});
        self.ask(Method::POST, "/api/v1/namespaces", &body).await?;
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        eventually("the namespace has its account", Duration::from_secs(30), async || {
            self.ask(Method::GET, &path, &Value::Null).await
        })
        .await?;
        Ok(())
    }

    /// Pods created one by one, as fast as the API takes them.
    async fn pods(&mut self, pods: u32) -> Result<()> {
        self.namespace("pods").await?;
        let mut progress = Progress::watch(&self.watcher, "pods").await?;
        let before = Snapshot::take(self).await?;
        let start = Instant::now();
        let creators = create(&self.client, pods);
        let (created, milestones) =
            tokio::try_join!(creators, progress.until_running(pods as usize))?;
        let after = Snapshot::take(self).await?;
        say(&format!("\n{pods} pods, created one by one"));
        self.rate("pods created", pods, created.duration_since(start), None);
        self.milestones(pods, start, &milestones, [None, Some(PODS_GOAL), Some(PODS_GOAL)]);
        after.compare(&before, pods);
        Ok(())
    }

    /// A deployment that is scaled from nothing.
    async fn deployment(&mut self, replicas: u32) -> Result<()> {
        self.namespace("scale").await?;
        let labels = json!({"app": "web"});
        let deployment = json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod_spec()}},
        });
        let path = "/apis/apps/v1/namespaces/scale/deployments";
        self.ask(Method::POST, path, &deployment).await?;
        let path = format!("{path}/web");
        eventually("the deployment is observed", Duration::from_secs(30), async || {
            let found = self.ask(Method::GET, &path, &Value::Null).await?;
            let generation = &found["metadata"]["generation"];
            ensure!(found["status"]["observedGeneration"] == *generation, "{}", found["status"]);
            Ok(())
        })
        .await?;
        let mut progress = Progress::watch(&self.watcher, "scale").await?;
        let before = Snapshot::take(self).await?;
        let start = Instant::now();
        let scale = json!({"spec": {"replicas": replicas}});
        self.ask(Method::PATCH, &format!("{path}/scale"), &scale).await?;
        let milestones = progress.until_running(replicas as usize).await?;
        eventually("the deployment is available", Duration::from_secs(60), async || {
            let found = self.ask(Method::GET, &path, &Value::Null).await?;
            ensure!(found["status"]["availableReplicas"] == replicas, "{}", found["status"]);
            Ok(())
        })
        .await?;
        let after = Snapshot::take(self).await?;
        say(&format!("\na deployment scaled from 0 to {replicas}"));
        self.milestones(replicas, start, &milestones, [Some(CREATED_GOAL), None, None]);
        after.compare(&before, replicas);
        let asked = after.requests.since(&before.requests);
        let pods = asked.succeeded("create pods");
        ensure!(pods == u64::from(replicas), "{pods} pods were created for {replicas} replicas");
        Ok(())
    }

    fn milestones(
        &mut self,
        pods: u32,
        start: Instant,
        reached: &Milestones,
        goals: [Option<f64>; 3],
    ) {
        let reached = [
            ("pods created, as seen by a watch", reached.created),
            ("pods bound", reached.bound),
            ("pods running", reached.running),
        ];
        for ((name, at), goal) in reached.into_iter().zip(goals) {
            self.rate(name, pods, at.duration_since(start), goal);
        }
    }

    fn rate(&mut self, name: &str, pods: u32, took: Duration, goal: Option<f64>) {
        let name = format!("{name} ({pods} in {:.2} s)", took.as_secs_f64());
        self.note(&name, f64::from(pods) / took.as_secs_f64(), "/s", goal);
    }

    /// Notes a figure; `goal` is the least it should be.
    fn note(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        let met = goal.map(|goal| value >= goal);
        let verdict = match (goal, met) {
            (Some(goal), Some(met)) => {
                format!("goal {goal:>7.1}  {}", if met { "met" } else { "MISSED" })
            }
            _ => String::new(),
        };
        say(&format!("{name:<58} {value:>9.2} {unit:<3} {verdict}"));
        self.figures.push(Figure { name: name.to_owned(), value, unit, goal, met });
    }

    /// Memory of each program in the end.
    fn memory(&mut self) {
        say("");
        for (name, usage) in self.programs.usage() {
            self.note(&format!("memory of {name}"), usage.resident_mb, "MB", None);
        }
    }
}

/// What had happened at a moment.
struct Snapshot {
    requests: Requests,
    usage: Vec<(&'static str, Usage)>,
}

impl Snapshot {
    async fn take(bench: &Bench) -> Result<Self> {
        let requests = Requests::read(&bench.client).await?;
        Ok(Self { requests, usage: bench.programs.usage() })
    }

    /// Tells what it took since `before`, of CPU and of requests. What is needed is one creation,
    /// one binding and one report a pod.
    fn compare(&self, before: &Self, pods: u32) {
        let cpu = self.usage.iter().zip(&before.usage).map(|((name, after), (_, before))| {
            let seconds = after.cpu_seconds - before.cpu_seconds;
            format!("{name} {:.0}", seconds * 1e6 / f64::from(pods))
        });
        say(&format!("CPU, us a pod: {}", cpu.collect::<Vec<_>>().join(", ")));
        let lines = self.requests.since(&before.requests).lines();
        let shown = lines.iter().take(REQUESTS_SHOWN);
        let shown = shown.map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>();
        let rest: u64 = lines.iter().skip(REQUESTS_SHOWN).map(|(_, n)| n).sum();
        say(&format!("requests (needed: {pods} creations, bindings and reports):"));
        say(&format!("  {}, {rest} others", shown.join(", ")));
    }
}

fn pod_spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "registry.example/web:1",
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}],
    })
}

/// Creates the pods, several at a time; returns when the last was answered.
async fn create(client: &Client, pods: u32) -> Result<Instant> {
    let next = Arc::new(AtomicU32::new(0));
    let mut creators = JoinSet::new();
    for _ in 0..CREATORS {
        let (client, next) = (client.clone(), next.clone());
        creators.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pods {
                    return Ok(());
                }
                let pod = json!({"metadata": {"name": format!("p{number}")}, "spec": pod_spec()});
                let path = "/api/v1/namespaces/pods/pods";
                let body = Bytes::from(pod.to_string());
                let (code, body) =
                    client.call(Method::POST, path, "application/json", body).await?;
                ensure!(code == 201, "{code}: {}", String::from_utf8_lossy(&body));
            }
        });
    }
    while let Some(ended) = creators.join_next().await {
        ended??;
    }
    Ok(Instant::now())
}
