//! flanneld: connects this node's pods with those of the others.
//!
//! [`run`] watches the nodes and the kernel's links and routes, computes what should be with
//! `network::overlay_rules`, and makes the difference over netlink. What it made stays when it
//! ends, so that pods keep talking while it restarts.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Key, Kind, Time};
use client::{Client, Clock, WatchSpec};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use machine::{Cache, WatchEvent};
use network::overlay_firewall::OverlayFirewall;
use network::overlay_rules::{self, Backend, Overlay, Peer, Subnet};
use network::switch::Datapath;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::docker::PodBridge;
use crate::kernel_setting;
use crate::packet_filter::FilterError;

mod bridge;
mod events;
mod firewall;
mod kernel;
mod switch;

pub use bridge::PodBridgeLink;
pub use firewall::cleanup as firewall_cleanup;
pub use kernel::{DEVICE, Device, Kernel, KernelError, Underlay};
pub use switch::SwitchError;

/// Where others learn this node's pod network; its presence means that the network works.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// What the overlay is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this node.
    pub node_name: String,
    /// The address by which other hosts reach this one; the node's internal address if `None`.
    pub host_address: Option<Ipv4Addr>,
    /// The network of all pods.
    pub network: Ipv4Net,
    /// How packets travel.
    pub backend: Backend,
    /// Who forwards for Open vSwitch; the kernel if it can and `None`.
    pub datapath: Option<Datapath>,
    /// The largest packet of pods in bytes; as large as fits if `None`.
    pub mtu: Option<u32>,
    /// Whether traffic of pods that leaves the cluster is masqueraded.
    pub masquerade: bool,
    /// Where to tell the result, usually [`SUBNET_FILE`].
    pub subnet_file: PathBuf,
    /// The bridge of this node's pods.
    pub bridge: PodBridge,
}

/// Why the overlay is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The kernel did not tell or do something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The tunnels are not as they should be.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The packet filter could not be changed.
    #[error("cannot let pod traffic through")]
    Filter(#[from] FilterError),
    /// The kernel does not forward packets.
    #[error("cannot set net.ipv4.ip_forward")]
    Forwarding(#[source] std::io::Error),
    /// The subnet file cannot be written.
    #[error("cannot write {path}")]
    SubnetFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What the overlay tells of itself.
#[derive(Debug)]
pub struct Vitals {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    /// Pod networks of other nodes that packets are routed to.
    routes: usize,
    syncs: u64,
    failures: u64,
    /// When the overlay was last in line, seconds since the Unix epoch.
    synced_at: u64,
}

impl Default for Vitals {
    fn default() -> Self {
        let trouble = Some("waiting for the API".to_owned());
        Self { state: Mutex::new(State { trouble, ..State::default() }) }
    }
}

impl Vitals {
    /// Whether the overlay is in line.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        self.state().trouble.clone().map_or(Ok(()), Err)
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        for (name, kind, value) in [
            ("flanneld_syncs_total", "counter", state.syncs),
            ("flanneld_sync_failures_total", "counter", state.failures),
            ("flanneld_last_sync_timestamp_seconds", "gauge", state.synced_at),
            ("flanneld_routes", "gauge", state.routes as u64),
        ] {
            text.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
        }
        text
    }

    fn synced(&self, progress: &Progress, now: Time) {
        let mut state = self.state();
        state.trouble = progress.waiting.map(str::to_owned);
        if progress.waiting.is_none() {
            state.syncs += 1;
            state.synced_at = now.as_secs();
            state.routes = progress.routes;
        }
    }

    fn failed(&self, trouble: String) {
        let mut state = self.state();
        state.trouble = Some(trouble);
        state.failures += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make these facts worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes of nodes and links come in bursts; after the first news the rest is waited for.
const COALESCE: Duration = Duration::from_millis(50);
/// Docker takes about a second to set up its own rules after it made its bridge.
const FILTER_DELAY: Duration = Duration::from_secs(2);
/// How often it is checked that nobody removed the rules, for which there is no event.
const FILTER_CHECK: Duration = Duration::from_secs(30);
/// From the first failed attempt to the fifth and later.
const RETRY: machine::Backoff =
    machine::Backoff { first: Duration::from_secs(1), max: Duration::from_secs(15) };

/// Where nodes are let in without people, they have registered so soon after they see others.
const REGISTERED_SOON: Duration = Duration::from_secs(10);

/// Keeps the overlay in line until `shutdown` turns true, and leaves it in place then. Calls
/// `on_ready` once, when this node's own pod network is set up; or, unless Docker waits for its
/// range, when the node has not registered for so long that people seem to have to let it in.
///
/// # Errors
/// The kernel's netlink interface cannot be used at all.
pub async fn run(
    client: Client,
    settings: Settings,
    vitals: Arc<Vitals>,
    on_ready: impl FnOnce() + Send,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), OverlayError> {
    let (sink, mut news) = mpsc::channel::<WatchEvent>(64);
    let watch = tokio::spawn(client::watch(client, WatchSpec::all(Kind::Node), sink));
    let mut events = events::subscribe()?;
    let kernel = Kernel::connect()?;
    let clock = Clock::new();
    let Settings { network, masquerade, .. } = settings;
    let firewall = OverlayFirewall { network, masquerade, tunnels: None };
    let may_be_early = settings.bridge != PodBridge::Docker0;
    let mut daemon = Daemon { settings, kernel, firewall, cache: Cache::default() };
    let mut announcement = Announcement { on_ready: Some(on_ready), may_be_early, listed_at: None };
    let mut waits = false;
    let mut due: Option<Instant> = None;
    let mut filter_due = Instant::now();
    let mut failures = 0_u32;
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            () = at(due) => match daemon.sync(filter_due <= Instant::now()).await {
                Ok(progress) => {
                    failures = 0;
                    if progress.filtered {
                        filter_due = Instant::now() + FILTER_CHECK;
                    }
                    vitals.synced(&progress, clock.now());
                    waits = progress.waiting.is_some();
                    let listed = daemon.cache.synced([Kind::Node]);
                    due = announcement.synced(waits, listed, Instant::now());
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    due = Some(Instant::now() + RETRY.delay(failures));
                    let text = chain(&error);
                    tracing::warn!(error = %text, "the overlay is not in line");
                    vitals.failed(text);
                }
            },
            Some(event) = news.recv() => {
                daemon.cache.apply(clock.now(), event);
                due.get_or_insert_with(|| Instant::now() + COALESCE);
            }
            Some(()) = events.recv() => {
                due.get_or_insert_with(|| Instant::now() + COALESCE);
                filter_due = filter_due.min(Instant::now() + FILTER_DELAY);
            }
            // There are no rules before there is a network, and news ends the wait for that.
            () = tokio::time::sleep_until(filter_due), if due.is_none() && !waits => {
                due = Some(Instant::now());
            }
        }
    }
    watch.abort();
    Ok(())
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Tells whoever has started the daemon that it is up, once.
struct Announcement<F> {
    on_ready: Option<F>,
    may_be_early: bool,
    /// When the nodes were known while this one was not among them.
    listed_at: Option<Instant>,
}

impl<F: FnOnce()> Announcement<F> {
    /// Takes note of an attempt that came to its end or `waits` for the node, with the nodes `listed`
    /// or not. Gives the time at which there will be something to tell though nothing happens.
    fn synced(&mut self, waits: bool, listed: bool, now: Instant) -> Option<Instant> {
        if waits {
            if !listed || !self.may_be_early || self.on_ready.is_none() {
                return None;
            }
            let early_at = *self.listed_at.get_or_insert(now) + REGISTERED_SOON;
            if now < early_at {
                return Some(early_at);
            }
        }
        if let Some(on_ready) = self.on_ready.take() {
            on_ready();
        }
        None
    }
}

/// How far an attempt came.
struct Progress {
    /// What is still missing before the overlay can be set up.
    waiting: Option<&'static str>,
    /// Whether the packet filter was looked at.
    filtered: bool,
    /// How many pod networks of other nodes are routed to.
    routes: usize,
}

impl Progress {
    const fn waiting(what: &'static str) -> Self {
        Self { waiting: Some(what), filtered: false, routes: 0 }
    }
}

struct Daemon {
    settings: Settings,
    kernel: Kernel,
    firewall: OverlayFirewall,
    cache: Cache,
}

impl Daemon {
    /// Makes what is as it should be.
    async fn sync(&mut self, filter: bool) -> Result<Progress, OverlayError> {
        if !self.cache.synced([Kind::Node]) {
            return Ok(Progress::waiting("waiting for the API"));
        }
        let Some(own) = self.own() else {
            return Ok(Progress::waiting("waiting for the node's address and podCIDR"));
        };
        kernel_setting::ensure("net/ipv4/ip_forward", "1").map_err(OverlayError::Forwarding)?;
        let underlay = self.kernel.underlay(own.host).await?;
        let mtu = self.mtu(&underlay);
        let link = match self.settings.backend {
            Backend::Vxlan => {
                let device = Device { own, mtu, underlay };
                self.kernel.ensure_vxlan(&device).await?
            }
            Backend::HostGw => {
                self.kernel.remove_vxlan().await?;
                underlay.index
            }
            Backend::OvsGre => self.tunnels(own, mtu).await?,
        };
        let routes = self.connect(own, link).await?;
        self.kernel.ensure_hairpin(self.settings.bridge.device()).await?;
        if filter {
            firewall::ensure(&self.firewall).await?;
        }
        self.tell(own, mtu)?;
        Ok(Progress { waiting: None, filtered: filter, routes })
    }

    fn own(&self) -> Option<Peer> {
        let key = Key::cluster(Kind::Node, &self.settings.node_name);
        let node: &Node = self.cache.object(&key)?.get()?;
        match self.settings.host_address {
            Some(host) => Some(Peer { pods: overlay_rules::pod_network(node)?, host }),
            None => Peer::of_node(node),
        }
    }

    fn mtu(&self, underlay: &Underlay) -> u32 {
        let overhead = self.settings.backend.overhead();
        self.settings.mtu.unwrap_or_else(|| underlay.mtu.saturating_sub(overhead))
    }

    /// Returns the index of the bridge behind which the tunnels are.
    async fn tunnels(&mut self, own: Peer, mtu: u32) -> Result<u32, OverlayError> {
        self.kernel.remove_vxlan().await?;
        let datapath = match self.settings.datapath {
            Some(datapath) => datapath,
            None => *self.settings.datapath.insert(switch::datapath().await?),
        };
        let peers = self.cache.list::<Node>().filter_map(Peer::of_node);
        let peers = overlay_rules::distinct(own, peers).iter().map(|peer| peer.host).collect();
        let there = switch::ensure(datapath, own.host, &peers).await?;
        if there.uplink {
            self.kernel.ensure_uplink().await?;
        }
        self.firewall.tunnels = there.uplink.then_some(own.host);
        let bridge = PodBridgeLink { name: self.settings.bridge.device(), own, mtu };
        let link = self.kernel.ensure_pod_bridge(&bridge).await?;
        switch::forward(&there).await?;
        Ok(link)
    }

    /// Returns how many pod networks of other nodes are routed to.
    async fn connect(&self, own: Peer, link: u32) -> Result<usize, OverlayError> {
        let peers = self.cache.list::<Node>().filter_map(Peer::of_node);
        let desired = Overlay::desired(self.settings.backend, own, peers);
        let current = self.kernel.overlay(self.settings.backend, link).await?;
        for change in overlay_rules::diff(&current, &desired) {
            tracing::info!(?change, "overlay changes");
            self.kernel.apply(link, change).await?;
        }
        Ok(desired.routes.len())
    }

    fn tell(&self, own: Peer, mtu: u32) -> Result<(), OverlayError> {
        let subnet = Subnet {
            network: self.settings.network,
            pods: own.pods,
            mtu,
            masquerade: self.settings.masquerade,
        };
        let (path, text) = (&self.settings.subnet_file, subnet.environment());
        if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        write_whole(path, &text)
            .map_err(|source| OverlayError::SubnetFile { path: path.clone(), source })?;
        tracing::info!(pods = %own.pods, host = %own.host, mtu, "pod network of this node");
        Ok(())
    }
}

/// Writes a file so that readers see all of it or nothing.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

/// Removes everything that [`run`] made: devices, routes, packet filter rules, the subnet file.
///
/// # Errors
/// Something is there and cannot be removed.
pub async fn cleanup(subnet_file: &Path) -> Result<(), OverlayError> {
    let kernel = Kernel::connect()?;
    kernel.remove_vxlan().await?;
    kernel.remove_routes().await?;
    switch::remove().await?;
    kernel.remove_named(PodBridge::Kbr0.device()).await?;
    firewall::cleanup().await?;
    match std::fs::remove_file(subnet_file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(OverlayError::SubnetFile { path: subnet_file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subnet_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/subnet.env");
        write_whole(&path, "FLANNEL_MTU=1450\n").unwrap();
        write_whole(&path, "FLANNEL_MTU=1400\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "FLANNEL_MTU=1400\n");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn who_starts_the_daemon_waits_for_the_node_but_not_for_people() {
        let told = std::cell::Cell::new(0);
        let announcement = |may_be_early| {
            let on_ready = || told.set(told.get() + 1);
            Announcement { on_ready: Some(on_ready), may_be_early, listed_at: None }
        };
        let begun = Instant::now();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut usual = announcement(true);
        assert_eq!(usual.synced(true, false, begun), None, "no API yet: news will come");
        assert_eq!(usual.synced(true, true, after(60)), Some(after(70)));
        assert_eq!(usual.synced(true, true, after(65)), Some(after(70)));
        assert_eq!(told.get(), 0);
        assert_eq!(usual.synced(false, true, after(66)), None);
        assert_eq!(told.get(), 1);
        assert_eq!(usual.synced(false, true, after(99)), None);
        assert_eq!(told.get(), 1, "it is told once");
        let mut by_hand = announcement(true);
        assert_eq!(by_hand.synced(true, true, begun), Some(after(10)));
        assert_eq!(by_hand.synced(true, true, after(10)), None);
        assert_eq!(told.get(), 2);
        assert_eq!(by_hand.synced(true, true, after(11)), None);
        let mut docker = announcement(false);
        assert_eq!(docker.synced(true, true, after(99)), None);
        assert_eq!(told.get(), 2);
    }

    #[test]
    fn health_and_metrics_tell_how_far_it_is() {
        let vitals = Vitals::default();
        assert_eq!(vitals.check(), Err("waiting for the API".to_owned()));
        let now = Time::ZERO + Duration::from_secs(1_800_000_000);
        vitals.synced(&Progress::waiting("waiting for the node"), now);
        assert_eq!(vitals.check(), Err("waiting for the node".to_owned()));
        assert!(vitals.metrics().contains("\nflanneld_syncs_total 0\n"));
        vitals.synced(&Progress { waiting: None, filtered: true, routes: 2 }, now);
        assert_eq!(vitals.check(), Ok(()));
        vitals.failed("no netlink".to_owned());
        assert_eq!(vitals.check(), Err("no netlink".to_owned()));
        let metrics = vitals.metrics();
        for line in [
            "flanneld_syncs_total 1",
            "flanneld_sync_failures_total 1",
            "flanneld_last_sync_timestamp_seconds 1800000000",
            "flanneld_routes 2",
        ] {
            assert!(metrics.lines().any(|told| told == line), "{line}: {metrics}");
        }
    }
}
