//! What all requests share.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Time;
use registry::Stamp;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::authenticate::Authenticator;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::usage::Usage;

/// What all requests share.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) hub: Arc<Hub>,
    pub(crate) authenticator: Authenticator,
    /// The client side towards kubelets.
    pub(crate) kubelet_tls: Arc<rustls::ClientConfig>,
    /// The port at which others reach this server.
    pub(crate) advertised_port: u16,
    pub(crate) metrics: Metrics,
    /// One a request that is carried out, watches not counted.
    pub(crate) permits: Semaphore,
    /// Becomes true when the server is to stop.
    pub(crate) stopping: watch::Sender<bool>,
    /// Whether it takes no new connections any more, so that watches end.
    pub(crate) draining: watch::Sender<bool>,
    /// Becomes true when the watch cache is filled and the bootstrap is done.
    pub(crate) ready: watch::Sender<bool>,
    /// Held by whoever changes this server's place among the API servers.
    pub(crate) masters: Mutex<()>,
    /// Held by the eviction that is decided and carried out: those of a drain all write one budget,
    /// and would only undo each other's work.
    pub(crate) evicting: Mutex<()>,
    /// Held by the write whose charge to a quota came too late before: those of a namespace all
    /// write its quotas.
    pub(crate) charging: Mutex<()>,
    /// What nodes and pods were last found to use.
    pub(crate) usage: Usage,
}

impl Server {
    /// Whether the server has all it needs to answer.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
}

/// The present time.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Time::ZERO + since
}

/// Fresh time and randomness for one decision.
pub(crate) fn stamp() -> Stamp {
    Stamp { now: now(), entropy: entropy() }
}

/// Random bytes.
pub(crate) fn entropy() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// A random number below `bound`.
pub(crate) fn random_below(bound: u64) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = entropy();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) % bound.max(1)
}
