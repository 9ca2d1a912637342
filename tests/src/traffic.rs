//! [`Traffic`]: a client that writes and reads all the while, on one master after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::hash::fnv64;
use bytes::Bytes;
use client::{Client, Kubeconfig};
use http::Method;
use tokio::task::JoinHandle;

use crate::{Cluster, Role};

/// A master that takes longer counts as one that refuses; kubectl would wait longer.
const TRY_MAX: Duration = Duration::from_secs(5);
/// Between two writes: often enough to meet a gap of a quarter of a second, and no load.
const PACE: Duration = Duration::from_millis(100);
/// Between two rounds over all masters when none has taken a write.
const PAUSE: Duration = Duration::from_millis(200);
/// Reasons that are kept; a long outage has the same ones again and again.
const REASONS_MAX: usize = 40;

/// A client that writes and reads until it is told to stop. Each write goes to another master first,
/// and to the others when that one refuses: what a load balancer or a careful client does.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Arc<std::sync::Mutex<Vec<(String, Client)>>>,
    task: JoinHandle<Tally>,
    prefix: String,
}

/// What a client has met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub written: u32,
    /// Reads of what had just been written, each from another master, that found it.
    pub read: u32,
    /// Calls that one master refused and another one took.
    pub elsewhere: u32,
    /// Rounds in which every master refused a write, or a read.
    pub failed: u32,
    /// The longest time from one acknowledged write to the next.
    pub gap_max: Duration,
    /// When and why masters refused, the first of them.
    pub reasons: Vec<String>,
}

impl Traffic {
    /// Begins. `name` tells the objects of one client from those of another.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub fn start(cluster: &Cluster, name: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = Arc::new(std::sync::Mutex::new(clients(cluster)?));
        let prefix = format!("{name}-");
        let run = Run {
            stop: stop.clone(),
            clients: clients.clone(),
            prefix: prefix.clone(),
            began: Instant::now(),
            tally: Tally::default(),
        };
        let task = tokio::spawn(run.go());
        Ok(Self { stop, clients, task, prefix })
    }

    /// Goes on with the kubeconfig as it is now: after a change of the authority clients need one
    /// that trusts the new one, and after a change of hosts one that knows the masters.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub fn follow(&self, cluster: &Cluster) -> Result<()> {
        let new = clients(cluster)?;
        *self.clients.lock().expect("nobody panics with it") = new;
        Ok(())
    }

    /// Ends, and makes sure that everything that was acknowledged is still there.
    ///
    /// # Errors
    /// An acknowledged write is lost.
    pub async fn stop(self, cluster: &Cluster) -> Result<Tally> {
        let Self { prefix, .. } = &self;
        let prefix = prefix.clone();
        let tally = self.end().await?;
        let names = cluster.get("configmaps", "{.items[*].metadata.name}").await?;
        let kept = names.iter().filter(|name| name.starts_with(&prefix)).count();
        ensure!(kept >= tally.written as usize, "{kept} of {} writes are kept", tally.written);
        Ok(tally)
    }

    /// Ends where acknowledged writes may be lost.
    ///
    /// # Errors
    /// The client has panicked.
    pub async fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the client of a test panicked")
    }
}

impl Tally {
    /// Makes sure that no call failed on all masters.
    ///
    /// # Errors
    /// Some did; why is said.
    pub fn expect_unbroken(&self, what: &str) -> Result<()> {
        #[expect(clippy::print_stdout, reason = "a test report says what was counted")]
        let () = println!("{what}: {self}");
        ensure!(self.written > 10, "{what}: the client wrote {} times only", self.written);
        ensure!(self.failed == 0, "{what}: {self}\n{:#?}", self.reasons);
        Ok(())
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { written, read, elsewhere, failed, gap_max, .. } = self;
        write!(
            f,
            "{written} writes, {read} reads, {elsewhere} taken by another master, {failed} failed, \
             longest gap {gap_max:.1?}"
        )
    }
}

/// One client for each master.
fn clients(cluster: &Cluster) -> Result<Vec<(String, Client)>> {
    let masters = cluster.lab.hosts().iter().enumerate();
    let masters = masters.filter(|(at, _)| cluster.inventory.has(*at, Role::Master));
    masters
        .map(|(_, host)| {
            let servers = [format!("https://{}:6443", host.address)];
            let config = Kubeconfig::load(&cluster.kubeconfig(), &servers, "kprov-tests")?;
            Ok((host.name.clone(), Client::new(config)?))
        })
        .collect()
}

/// The client itself.
struct Run {
    stop: Arc<AtomicBool>,
    clients: Arc<std::sync::Mutex<Vec<(String, Client)>>>,
    prefix: String,
    began: Instant,
    tally: Tally,
}

impl Run {
    async fn go(mut self) -> Tally {
        let mut last = Instant::now();
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let name = format!("{}{number}", self.prefix);
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},
                "data":{{"check":"{}"}}}}"#,
                fnv64(name.as_bytes())
            );
            let all = "/api/v1/namespaces/default/configmaps";
            let post = (Method::POST, all.to_owned(), Bytes::from(body));
            if !self.insist(number, &post).await {
                break;
            }
            self.tally.gap_max = self.tally.gap_max.max(last.elapsed());
            last = Instant::now();
            self.tally.written += 1;
            // Another master must know what this one has acknowledged.
            let get = (Method::GET, format!("{all}/{name}"), Bytes::new());
            if !self.insist(number + 1, &get).await {
                break;
            }
            self.tally.read += 1;
            number += 1;
            tokio::time::sleep(PACE).await;
        }
        self.tally
    }

    /// Repeats a call until it succeeds; false when it was told to stop before.
    async fn insist(&mut self, first: usize, call: &(Method, String, Bytes)) -> bool {
        while !self.round(first, call).await {
            self.tally.failed += 1;
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    /// Asks one master after the other, beginning with another one for each number.
    async fn round(&mut self, first: usize, call: &(Method, String, Bytes)) -> bool {
        let clients = self.clients.lock().expect("nobody panics with it").clone();
        let order = (0..clients.len()).map(|i| &clients[(first + i) % clients.len()]);
        for (turn, (master, client)) in order.enumerate() {
            match one(client, call).await {
                Ok(()) => {
                    self.tally.elsewhere += u32::from(turn > 0);
                    return true;
                }
                Err(error) if self.tally.reasons.len() < REASONS_MAX => {
                    let at = self.began.elapsed();
                    let call = &call.0;
                    self.tally.reasons.push(format!("{at:.1?} {call} {master}: {error:#}"));
                }
                Err(_) => {}
            }
        }
        false
    }
}

async fn one(client: &Client, (method, path, body): &(Method, String, Bytes)) -> Result<()> {
    let call = client.call(method.clone(), path, "application/json", body.clone());
    let answer = tokio::time::timeout(TRY_MAX, call).await;
    if answer.is_err() {
        // The next call must not wait for the same connection.
        client.reconnect().await;
    }
    let (code, body) = answer.with_context(|| format!("no answer within {TRY_MAX:?}"))??;
    match code {
        // The answer to a write that was carried out may have been lost with its server.
        200 | 201 | 409 => Ok(()),
        _ => bail!("{code} {}", String::from_utf8_lossy(&body)),
    }
}
