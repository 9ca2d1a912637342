//! Another build of the programs on three masters, and the way back, under a client that reads and
//! writes all the while.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use lab::workspace_root;
use tests::{Cluster, Inventory};
use tokio::process::{Child, Command};

/// The balancer of the product in front of all masters, on this machine.
struct Balancer {
    process: Child,
    port: u16,
}

impl Balancer {
    fn start(cluster: &Cluster) -> Result<Self> {
        let masters = cluster.lab.hosts().iter().take(3);
        let list: String = masters.map(|host| format!("{}:6443\n", host.address)).collect();
        let upstreams = cluster.folder().join("upstreams");
        std::fs::write(&upstreams, list)?;
        let port = || -> Result<u16> {
            Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
        };
        let (port, metrics) = (port()?, port()?);
        let process = Command::new(workspace_root().join("target/release/hyperkube"))
            .args(["apiserver-proxy", "--v=0"])
            .arg(format!("--listen-address=127.0.0.1:{port}"))
            .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
            .arg(format!("--upstreams-file={}", upstreams.display()))
            .arg(format!("--ca-file={}", authority(cluster.folder())?.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { process, port })
    }
}

/// The certificate of the cluster's authority, in the operator's state directory.
fn authority(folder: &Path) -> Result<PathBuf> {
    let clusters = std::fs::read_dir(folder.join(".kprov"))?;
    let paths = clusters.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let candidates = paths.iter().flat_map(|path| [path.join("ca.crt"), path.join("pki/ca.crt")]);
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("the state directory has no certificate of the authority")
}

#[derive(Debug, Default)]
struct Tally {
    done: usize,
    failures: Vec<String>,
}

/// Writes an object and reads it back, again and again, each time over a new connection.
async fn read_and_write(
    cluster: Arc<Cluster>,
    server: String,
    round: &'static str,
    stop: Arc<AtomicBool>,
) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{round}-{}", tally.done);
        let write = ["create", "configmap", name.as_str(), "--server", server.as_str()];
        let read = ["get", "configmap", name.as_str(), "--server", server.as_str()];
        for arguments in [write, read] {
            match cluster.try_kubectl(&arguments).await {
                Ok(outcome) if outcome.code == 0 => {}
                Ok(outcome) => tally.failures.push(format!("{arguments:?}: {}", outcome.stderr)),
                Err(error) => tally.failures.push(format!("{arguments:?}: {error:#}")),
            }
        }
        tally.done += 1;
    }
    tally
}

/// Runs a command of kprov while the client works; says what it printed and what the client saw.
async fn under_load(
    cluster: &Arc<Cluster>,
    port: u16,
    verb: &'static str,
) -> Result<(String, Tally)> {
    let stop = Arc::new(AtomicBool::new(false));
    let server = format!("https://127.0.0.1:{port}");
    let client = tokio::spawn(read_and_write(cluster.clone(), server, verb, stop.clone()));
    let outcome = cluster.kprov(verb, &[]).await;
    stop.store(true, Ordering::Relaxed);
    let tally = client.await?;
    let outcome = outcome?.expect_success(verb)?;
    Ok((format!("{}{}", outcome.stderr, outcome.stdout), tally))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_its_way_back_fail_no_request() -> Result<()> {
    let mut cluster = Cluster::up(Inventory::three_masters("upgrades", 1)).await?;
    // Another build: the same program with other bytes.
    let built = workspace_root().join("target/release/hyperkube");
    let other = cluster.folder().join("hyperkube");
    let mut bytes = std::fs::read(&built)?;
    bytes.extend_from_slice(b"another build");
    std::fs::write(&other, bytes)?;
    cluster.inventory.hyperkube = Some(other);
    cluster.rewrite()?;
    let cluster = Arc::new(cluster);
    let mut balancer = Balancer::start(&cluster)?;
    for verb in ["upgrade", "rollback"] {
        let (said, tally) = under_load(&cluster, balancer.port, verb).await?;
        println!("{verb}: {} rounds, {} failures\n{said}", tally.done, tally.failures.len());
        ensure!(said.contains("4 hosts changed") && tally.done > 10, "{said}\n{tally:?}");
        ensure!(tally.failures.is_empty(), "{:#?}", tally.failures);
        let again = cluster.kprov(verb, &[]).await?.expect_success("again")?.stdout;
        ensure!(again.contains("nothing to do"), "{again}");
    }
    balancer.process.start_kill()?;
    let status = cluster.kprov("status", &[]).await?.expect_success("status")?.stdout;
    ensure!(status.contains("hyperkube") && status.contains("BEFORE"), "{status}");
    // With the former build named, there is nothing left to do.
    let mut cluster = Arc::into_inner(cluster).context("the clients are gone")?;
    cluster.inventory.hyperkube = None;
    cluster.rewrite()?;
    let plan = cluster.kprov("plan", &["--exit-code"]).await?.expect_success("plan")?.stdout;
    ensure!(plan.contains("nothing to do"), "{plan}");
    Ok(())
}
