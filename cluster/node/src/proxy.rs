//! kube-proxy: keeps the packet filter in line with services and their endpoints.
//!
//! [`run`] watches both, computes the rules with `network::service_rules`, and writes what
//! changed in one transaction. Nothing is polled but for a check, twice a minute, that nobody
//! removed some of the rules; the loss of the whole table is noticed at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Kind, meta};
use client::{Client, Clock, WatchSpec};
use k8s_openapi::api::core::v1::Node;
use machine::{Cache, WatchEvent};
use network::service_rules::{self, Viewpoint};
use network::{ProxyConfig, RuleSet};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::kernel_setting;
use crate::packet_filter::FilterError;

mod conntrack;
mod filter;
mod guard;

pub use conntrack::forget_stale;
use filter::Filter;
pub use filter::cleanup;

/// Which packet filter to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables where the host has what is needed, else iptables.
    Auto,
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

/// What the proxy is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this node.
    pub node_name: String,
    /// Which packet filter to use.
    pub mode: Mode,
    /// How rules are made.
    pub rules: ProxyConfig,
}

/// Why the proxy cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The packet filter that was asked for does not work here.
    #[error("{mode} does not work on this host")]
    Unusable {
        /// The packet filter.
        mode: &'static str,
        /// Why.
        #[source]
        source: FilterError,
    },
    /// Neither packet filter works here.
    #[error("neither nftables nor iptables work on this host; nftables: {nftables}")]
    Neither {
        /// What is wrong with nftables.
        nftables: FilterError,
        /// What is wrong with iptables.
        #[source]
        iptables: FilterError,
    },
}

/// What the proxy tells of itself.
#[derive(Debug, Default)]
pub struct Vitals {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    mode: &'static str,
    synced: bool,
    trouble: Option<String>,
    services: usize,
    syncs: u64,
    full_syncs: u64,
    failures: u64,
    seconds: f64,
    /// When the rules were last in line, seconds since the Unix epoch.
    synced_at: u64,
}

impl Vitals {
    fn update(&self, change: impl FnOnce(&mut State)) {
        // A panic elsewhere does not make these numbers worse.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the rules are in line.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        match state.trouble {
            Some(trouble) => Err(trouble),
            None if state.synced => Ok(()),
            None => Err("waiting for services and endpoints".to_owned()),
        }
    }

    /// `nftables` or `iptables`.
    pub fn mode(&self) -> String {
        self.state().mode.to_owned()
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        for (name, type_, value) in [
            ("kubeproxy_sync_proxy_rules_total", "counter", state.syncs),
            ("kubeproxy_sync_full_proxy_rules_total", "counter", state.full_syncs),
            ("kubeproxy_sync_proxy_rules_failures_total", "counter", state.failures),
        ] {
            text.push_str(&format!("# TYPE {name} {type_}\n{name} {value}\n"));
        }
        text.push_str(&format!(
            "# TYPE kubeproxy_services gauge\nkubeproxy_services {}\n\
             # TYPE kubeproxy_sync_proxy_rules_last_duration_seconds gauge\n\
             kubeproxy_sync_proxy_rules_last_duration_seconds {:.6}\n\
             # TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n\
             kubeproxy_sync_proxy_rules_last_timestamp_seconds {}\n",
            state.services, state.seconds, state.synced_at
        ));
        text
    }
}

/// Changes come in bursts: a pod that goes changes its slice, a rollout several. After the first
/// news the rest of a burst is waited for.
const COALESCE: Duration = Duration::from_millis(10);
/// How often it is checked that the rules are still there.
const CHECK: Duration = Duration::from_secs(30);
/// From the first failed attempt to the sixth and later.
const RETRY: machine::Backoff =
    machine::Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30) };
/// The label that says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";
const KINDS: [Kind; 2] = [Kind::Service, Kind::EndpointSlice];

/// Keeps the rules in line until `shutdown` turns true, and leaves them in place then. Calls
/// `on_synced` once, when they are in line for the first time.
///
/// # Errors
/// No packet filter works on this host.
pub async fn run(
    client: Client,
    settings: Settings,
    vitals: Arc<Vitals>,
    on_synced: impl FnOnce() + Send,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ProxyError> {
    let filter = Filter::choose(settings.mode).await?;
    vitals.update(|state| state.mode = filter.name());
    tracing::info!(mode = filter.name(), node = settings.node_name, "proxy mode chosen");
    prepare_kernel();
    let (sink, mut news) = mpsc::channel::<WatchEvent>(256);
    let own = WatchSpec::fields(Kind::Node, &format!("metadata.name={}", settings.node_name));
    let watches: Vec<_> = KINDS
        .map(WatchSpec::all)
        .into_iter()
        .chain([own])
        .map(|spec| tokio::spawn(client::watch(client.clone(), spec, sink.clone())))
        .collect();
    let clock = Clock::new();
    let mut on_synced = Some(on_synced);
    let mut proxy = Proxy {
        settings,
        filter,
        vitals,
        clock,
        cache: Cache::default(),
        zone: None,
        current: None,
    };
    let mut due: Option<Instant> = None;
    let mut failures = 0_u32;
    let mut check = Instant::now() + CHECK;
    let mut losses = guard::watch_table("kube-proxy");
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            () = at(due) => {
                if proxy.sync().await {
                    (due, failures) = (None, 0);
                    if let Some(on_synced) = on_synced.take() {
                        on_synced();
                    }
                } else {
                    failures = failures.saturating_add(1);
                    due = Some(Instant::now() + RETRY.delay(failures));
                }
                check = Instant::now() + CHECK;
            }
            Some(event) = news.recv() => {
                let changed = proxy.learn(event);
                // The first complete lists count even when they are empty.
                if (changed || proxy.current.is_none()) && proxy.cache.synced(KINDS) {
                    due.get_or_insert_with(|| Instant::now() + COALESCE);
                }
            }
            () = async {
                tokio::select! {
                    () = tokio::time::sleep_until(check) => {}
                    Some(()) = losses.recv() => {}
                }
            } => {
                check = Instant::now() + CHECK;
                if proxy.current.is_some() && !proxy.filter.is_intact().await {
                    tracing::warn!("somebody removed the service rules; writing them again");
                    proxy.current = None;
                    due.get_or_insert_with(Instant::now);
                }
            }
        }
    }
    for watch in watches {
        watch.abort();
    }
    Ok(())
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Packets between pods of one bridge must pass the packet filter, or answers of a service's
/// endpoint would reach a neighbour untranslated.
fn prepare_kernel() {
    if let Err(error) = kernel_setting::ensure("net/bridge/bridge-nf-call-iptables", "1") {
        tracing::warn!(
            %error,
            "cannot set net.bridge.bridge-nf-call-iptables; pods of one node may not reach \
             each other through services (is br_netfilter loaded?)"
        );
    }
}

struct Proxy {
    settings: Settings,
    filter: Filter,
    vitals: Arc<Vitals>,
    clock: Clock,
    cache: Cache,
    /// Where this node is, as far as that is known. Nothing waits for it: without a zone all
    /// endpoints are used.
    zone: Option<String>,
    /// What the packet filter holds; `None` when that is not known.
    current: Option<RuleSet>,
}

impl Proxy {
    /// Takes news. Returns whether the rules may change by them.
    fn learn(&mut self, event: WatchEvent) -> bool {
        let changes = self.cache.apply(self.clock.now(), event);
        let before = self.zone.take();
        // A node reports its health at any time; here only its place matters.
        let mut nodes = self.cache.list::<Node>();
        self.zone = nodes.next().and_then(|n| meta::label(&n.metadata, ZONE).map(str::to_owned));
        before != self.zone || changes.iter().any(|change| change.key.kind != Kind::Node)
    }

    /// Writes the difference between what is and what should be. Returns whether that worked.
    async fn sync(&mut self) -> bool {
        let started = Instant::now();
        let viewpoint =
            Viewpoint { node_name: &self.settings.node_name, zone: self.zone.as_deref() };
        let desired = service_rules::desired(self.cache.list(), self.cache.list(), viewpoint);
        let full = self.current.is_none();
        let changes = self.current.as_ref().map(|current| service_rules::diff(current, &desired));
        if changes.as_ref().is_some_and(Vec::is_empty) {
            let now = self.clock.now().as_secs();
            self.vitals.update(|state| (state.trouble, state.synced_at) = (None, now));
            return true;
        }
        let result = self.filter.sync(&self.settings.rules, changes.as_deref(), &desired).await;
        let took = started.elapsed();
        if let Err(error) = result {
            tracing::warn!(%error, full, "service rules were not written");
            // What arrived is unknown: the next attempt writes everything.
            self.current = None;
            self.vitals.update(|state| {
                state.failures += 1;
                state.trouble = Some(error.to_string());
            });
            return false;
        }
        let count = changes.as_ref().map_or(desired.services.len(), Vec::len);
        tracing::info!(full, services = count, ?took, "service rules written");
        if conntrack::concerns(changes.as_deref()) {
            conntrack::forget_stale(&desired).await;
        }
        let now = self.clock.now().as_secs();
        self.vitals.update(|state| {
            state.synced = true;
            state.synced_at = now;
            state.trouble = None;
            state.services = desired.services.len();
            state.syncs += 1;
            state.full_syncs += u64::from(full);
            state.seconds = took.as_secs_f64();
        });
        self.current = Some(desired);
        true
    }
}
