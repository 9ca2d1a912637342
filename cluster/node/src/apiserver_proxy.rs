//! A TCP balancer on each host in front of all API servers.
//!
//! Bytes are passed on as they are: it neither ends TLS nor knows a secret. Who is ready is asked
//! of the API servers themselves, over one connection each; which one a new connection goes to is
//! decided by [`network::balancer`]. A server that stops answering loses its established
//! connections as well, so that watches move on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Config, ConfigError, Credentials, Pem};
use http::Method;
use network::balancer::{Balancer, Observation, parse_upstreams};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::accept::accept;

/// How often each API server is asked whether it is ready, and the list of them is read again. A
/// stopping API server stays for longer than two rounds (`--shutdown-delay-duration`).
const ROUND: Duration = Duration::from_secs(2);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A server in the same network answers within milliseconds; the next one is tried then.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Bytes that a server has not confirmed for so long are lost, and it with them.
const UNCONFIRMED_MAX_MS: u32 = 10_000;
/// Silence after which a connection is asked whether the other side is still there, in seconds;
/// and so often again.
const KEEPALIVE_S: u32 = 5;
/// Questions of that kind without an answer that end a connection.
const KEEPALIVE_PROBES: u32 = 2;
/// Connections at a time: a node's components need a handful. Further ones wait in the queue.
const CONNECTIONS_MAX: usize = 4_096;
/// How long answers that are under way have when the proxy stops.
const GRACE: Duration = Duration::from_millis(500);

/// What the proxy is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The list of API servers, the most preferred first; see
    /// [`network::balancer::parse_upstreams`].
    pub upstreams: PathBuf,
    /// The authorities that may sign the API servers' certificates.
    pub ca: Pem,
}

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The list cannot be read.
    #[error("cannot read the list of API servers {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list is none.
    #[error("the list of API servers {path} is unusable: {why}")]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The authority cannot be used.
    #[error("the API servers cannot be asked")]
    Ask(#[from] ConfigError),
}

/// What is known of the API servers, and what was done; shared with the server of metrics.
#[derive(Debug, Default)]
pub struct Vitals {
    balancer: Mutex<Balancer>,
    lines: Mutex<BTreeMap<SocketAddr, Arc<Line>>>,
    /// Connections that no API server took.
    unserved: AtomicU64,
}

/// The connections to one API server.
#[derive(Debug)]
struct Line {
    active: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    ended: AtomicU64,
    /// Rises when all established connections must end.
    end: watch::Sender<u64>,
}

impl Default for Line {
    fn default() -> Self {
        let count = AtomicU64::default;
        let end = watch::Sender::new(0);
        Self { active: count(), made: count(), failed: count(), ended: count(), end }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vitals {
    /// Whether any API server is ready.
    ///
    /// # Errors
    /// What is known of each, in one line.
    pub fn check(&self) -> Result<(), String> {
        let balancer = locked(&self.balancer);
        if balancer.is_ready() {
            return Ok(());
        }
        let each = balancer.upstreams().iter();
        let each: Vec<_> =
            each.map(|u| format!("{} is {}", u.address, u.condition.as_str())).collect();
        Err(format!("no API server is ready: {}", each.join(", ")))
    }

    /// Metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = String::new();
        out.push_str("# TYPE apiserver_proxy_upstream_ready gauge\n");
        for upstream in locked(&self.balancer).upstreams() {
            let (address, ready) = (upstream.address, upstream.condition.as_str() == "ready");
            let _ = writeln!(
                out,
                "apiserver_proxy_upstream_ready{{upstream=\"{address}\"}} {}",
                u8::from(ready)
            );
        }
        type Count = fn(&Line) -> &AtomicU64;
        let counts: [(&str, &str, Count); 4] = [
            ("connections", "gauge", |line| &line.active),
            ("connections_total", "counter", |line| &line.made),
            ("connect_failures_total", "counter", |line| &line.failed),
            ("connections_ended_total", "counter", |line| &line.ended),
        ];
        let lines = locked(&self.lines);
        for (name, kind, count) in counts {
            let _ = writeln!(out, "# TYPE apiserver_proxy_{name} {kind}");
            for (address, line) in lines.iter() {
                let count = count(line).load(Ordering::Relaxed);
                let _ = writeln!(out, "apiserver_proxy_{name}{{upstream=\"{address}\"}} {count}");
            }
        }
        let unserved = self.unserved.load(Ordering::Relaxed);
        let _ = writeln!(out, "# TYPE apiserver_proxy_unserved_total counter");
        let _ = writeln!(out, "apiserver_proxy_unserved_total {unserved}");
        out
    }

    fn line(&self, address: SocketAddr) -> Arc<Line> {
        Arc::clone(locked(&self.lines).entry(address).or_default())
    }
}

/// Serves until `shutdown` turns true. `ready` is told the address that is listened on.
///
/// # Errors
/// The settings cannot be used, or the address cannot be listened on.
pub async fn run(
    settings: Settings,
    vitals: Arc<Vitals>,
    ready: impl FnOnce(SocketAddr),
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ProxyError> {
    let mut watchers = Watchers::default();
    watchers.follow(&settings, &read_list(&settings.upstreams)?, &vitals)?;
    let listen = settings.listen;
    let failed = |source| ProxyError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    ready(listener.local_addr().map_err(failed)?);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut relays = JoinSet::new();
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            _ = round.tick() => {
                // A list that is being replaced, or a wrong one, leaves the old one in force.
                let followed = read_list(&settings.upstreams)
                    .and_then(|list| watchers.follow(&settings, &list, &vitals));
                if let Err(error) = followed {
                    tracing::warn!(error = crate::docker::chain(&error), "the list is not followed");
                }
            }
            accepted = accept(&listener, &slots) => {
                let Some((stream, _, slot)) = accepted else { continue };
                let vitals = Arc::clone(&vitals);
                relays.spawn(async move {
                    relay(stream, &vitals).await;
                    drop(slot);
                });
            }
            Some(_) = relays.join_next() => {}
        }
    }
    drop(listener);
    let _ = timeout(GRACE, async { while relays.join_next().await.is_some() {} }).await;
    Ok(())
}

fn read_list(path: &Path) -> Result<Vec<SocketAddr>, ProxyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ProxyError::Read { path: path.to_owned(), source })?;
    parse_upstreams(&text).map_err(|why| ProxyError::List { path: path.to_owned(), why })
}

/// Who asks each API server whether it is ready; they end with this value.
#[derive(Default)]
struct Watchers {
    tasks: JoinSet<()>,
    by_address: BTreeMap<SocketAddr, AbortHandle>,
}

impl Watchers {
    /// Takes a list over. Connections to a server that left it are not ended: it may be leaving in
    /// peace, and ends them itself.
    fn follow(
        &mut self,
        settings: &Settings,
        list: &[SocketAddr],
        vitals: &Arc<Vitals>,
    ) -> Result<(), ProxyError> {
        let new = list.iter().copied().filter(|address| !self.by_address.contains_key(address));
        for address in new.collect::<Vec<_>>() {
            let client = Client::new(Config {
                servers: vec![format!("https://{address}")],
                ca: settings.ca.clone(),
                credentials: Credentials::None,
                user_agent: "apiserver-proxy".to_owned(),
            })?;
            let task = self.tasks.spawn(look(address, client, Arc::clone(vitals)));
            self.by_address.insert(address, task);
            tracing::info!(upstream = %address, "API server is listed");
        }
        self.by_address.retain(|address, task| {
            let stays = list.contains(address);
            if !stays {
                task.abort();
                tracing::info!(upstream = %address, "API server is no longer listed");
            }
            stays
        });
        let mut balancer = locked(&vitals.balancer);
        balancer.replace(list);
        drop(balancer);
        // A line without connections whose server is no longer listed has nothing more to say.
        locked(&vitals.lines).retain(|address, line| {
            list.contains(address) || line.active.load(Ordering::Relaxed) > 0
        });
        Ok(())
    }
}

/// Asks one API server again and again.
async fn look(address: SocketAddr, client: Client, vitals: Arc<Vitals>) {
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        round.tick().await;
        let observation = ask(&client).await;
        if observation == Observation::Silent {
            client.reconnect().await;
        }
        if last != Some(observation) {
            tracing::info!(upstream = %address, ?observation, "API server");
            last = Some(observation);
        }
        if locked(&vitals.balancer).observe(address, observation) {
            let line = vitals.line(address);
            let active = line.active.load(Ordering::Relaxed);
            tracing::warn!(upstream = %address, active, "API server is dead: its connections end");
            line.end.send_modify(|times| *times += 1);
        }
    }
}

async fn ask(client: &Client) -> Observation {
    let answer = client.call(Method::GET, "/readyz", "", Bytes::new());
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok((200, _))) => Observation::Ready,
        Ok(Ok(_)) => Observation::NotReady,
        Ok(Err(_)) | Err(_) => Observation::Silent,
    }
}

/// Passes bytes between a client and the first API server that takes the connection, until either
/// side ends it or the server is found dead.
async fn relay(mut client: TcpStream, vitals: &Vitals) {
    let Some((mut server, line)) = dial(vitals).await else {
        vitals.unserved.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // Small messages must not wait for each other on either side.
    let _ = client.set_nodelay(true);
    let mut end = line.end.subscribe();
    line.made.fetch_add(1, Ordering::Relaxed);
    line.active.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = end.changed() => {
            line.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
    line.active.fetch_sub(1, Ordering::Relaxed);
}

async fn dial(vitals: &Vitals) -> Option<(TcpStream, Arc<Line>)> {
    let order = locked(&vitals.balancer).order();
    for address in order {
        let line = vitals.line(address);
        let error = match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match guard(&stream) {
                Ok(()) => return Some((stream, line)),
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {CONNECT_MAX:?}"),
        };
        tracing::debug!(upstream = %address, error, "the next API server is tried");
        line.failed.fetch_add(1, Ordering::Relaxed);
        locked(&vitals.balancer).refused(address);
    }
    None
}

/// Has the kernel end a connection whose other side is gone without a word.
fn guard(stream: &TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNCONFIRMED_MAX_MS)?;
    Ok(())
}

#[cfg(test)]
mod tests;
