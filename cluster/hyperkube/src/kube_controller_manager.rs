//! `kube-controller-manager`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Args};
use client::{Clock, WatchSpec, drive};
use controllers::cluster_dns::ClusterDns;
use ipnet::IpNet;
use machine::recording::Header;
use machine::{ControllerManager, Election, LeaderElector, Recorded};

use crate::flags::{Api, LeaderElection, Log, Serving, go_duration};
use crate::health_server::{self, Health};
use crate::recording::Recording;
use crate::signer::{Signer, SigningClient};
use crate::{daemon, kube_scheduler};

/// The component's name, and that of its lease.
const NAME: &str = "kube-controller-manager";

/// Arguments of kube-controller-manager.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    serving: Serving,
    /// Port for health checks and metrics.
    #[arg(long, default_value_t = 10257, value_name = "PORT")]
    secure_port: u16,
    /// Act only while holding a lease, `kube-system/kube-controller-manager` if no other is named.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true",
          require_equals = true, action = ArgAction::Set)]
    leader_elect: bool,
    #[command(flatten)]
    election: LeaderElection,
    /// The cluster's name.
    #[arg(long, default_value = "kubernetes", value_name = "NAME")]
    cluster_name: String,
    /// Give each node a part of the cluster CIDR.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true",
          require_equals = true, action = ArgAction::Set)]
    allocate_node_cidrs: bool,
    /// Range of pod addresses.
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: IpNet,
    /// Prefix length of a node's part.
    #[arg(long, default_value_t = 24, value_name = "BITS")]
    node_cidr_mask_size: u8,
    /// Range of service addresses; must not overlap the cluster CIDR.
    #[arg(long, value_name = "CIDR")]
    service_cluster_ip_range: Option<IpNet>,
    /// Certificate of the authority that signs requests of nodes.
    #[arg(long, value_name = "FILE")]
    cluster_signing_cert_file: PathBuf,
    /// Key of that authority.
    #[arg(long, value_name = "FILE")]
    cluster_signing_key_file: PathBuf,
    /// Longest life of a certificate that is signed; a request may ask for less.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = go_duration)]
    cluster_signing_duration: Duration,
    /// Approve the first certificate of a node that has a bootstrap token. Without it, people let nodes
    /// in: `kubectl certificate approve NAME`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true",
          require_equals = true, action = ArgAction::Set)]
    approve_joining_nodes: bool,
    /// Address of the service `kube-system/kube-dns`, by which pods reach their nodes' DNS servers; `none`
    /// removes it. Without the flag nothing is done about it.
    #[arg(long, value_name = "ADDRESS", value_parser = cluster_dns)]
    cluster_dns: Option<ClusterDns>,
    /// Authority that pods trust, published in every namespace.
    #[arg(long, value_name = "FILE")]
    root_ca_file: PathBuf,
    /// Accepted for compatibility: tokens are signed by the API server.
    #[arg(long, hide = true, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    #[command(flatten)]
    recording: Recording,
}

fn cluster_dns(text: &str) -> Result<ClusterDns, String> {
    if text == "none" {
        return Ok(ClusterDns::Removed);
    }
    let address = text.parse().map(ClusterDns::At);
    address.map_err(|_| format!("{text:?} is neither an IPv4 address nor none"))
}

struct Vitals {
    lease: String,
    leads: AtomicBool,
    depths: Mutex<Vec<(&'static str, usize)>>,
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        let mut text =
            kube_scheduler::leader_metric(&self.lease, self.leads.load(Ordering::Relaxed));
        text.push_str("# TYPE workqueue_depth gauge\n");
        for (name, depth) in self.depths.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text.push_str(&format!("workqueue_depth{{name=\"{name}\"}} {depth}\n"));
        }
        text
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    if let Some(range) = flags.service_cluster_ip_range {
        let overlap = range.contains(&flags.cluster_cidr) || flags.cluster_cidr.contains(&range);
        anyhow::ensure!(
            !overlap,
            "--cluster-cidr={} and --service-cluster-ip-range={range} overlap",
            flags.cluster_cidr
        );
    }
    tracing::info!(cluster = flags.cluster_name, "starting");
    let client = flags.api.client(NAME)?;
    let signer = Signer::load(
        &flags.cluster_signing_cert_file,
        &flags.cluster_signing_key_file,
        flags.cluster_signing_duration,
    )?;
    let root_ca = std::fs::read_to_string(&flags.root_ca_file)
        .with_context(|| format!("cannot read {}", flags.root_ca_file.display()))?;
    let config = controllers::Config {
        cluster_cidr: flags.allocate_node_cidrs.then_some(flags.cluster_cidr),
        node_cidr_mask_size: flags.node_cidr_mask_size,
        root_ca_pem: Some(root_ca.clone()),
        nodes_approved_by_hand: !flags.approve_joining_nodes,
        cluster_dns: flags.cluster_dns,
    };
    let election =
        flags.leader_elect.then(|| flags.election.over(Election::of(NAME))).transpose()?;
    let identity = election.is_some().then(kube_scheduler::identity);
    let elector = election.clone().zip(identity.as_deref());
    let elector = elector.map(|(election, name)| LeaderElector::of(election, name));
    let header = Header {
        component: NAME.to_owned(),
        // Nothing in it is random.
        seed: 0,
        settings: serde_json::to_value(&config)?,
        identity,
        election: election.clone(),
    };
    let manager = ControllerManager::new(controllers::all(config), elector);
    let specs = manager.kinds().into_iter().map(WatchSpec::all).collect();
    let manager = flags.recording.of(manager, &header)?;
    let vitals = Arc::new(Vitals {
        lease: election.map_or_else(|| NAME.to_owned(), |election| election.name),
        leads: AtomicBool::new(false),
        depths: Mutex::default(),
    });
    health_server::serve(
        SocketAddr::new(flags.serving.bind_address, flags.secure_port),
        flags.serving.identity(),
        Arc::clone(&vitals) as Arc<dyn Health>,
        shutdown.clone(),
    )
    .await?;
    daemon::ready();
    let clock = Clock::new();
    let observe = move |manager: &Recorded<ControllerManager>| {
        let manager = manager.machine();
        vitals.leads.store(manager.is_leader(clock.now()), Ordering::Relaxed);
        let mut depths = vitals.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths.clear();
        depths.extend(manager.depths());
    };
    let signing = SigningClient::new(client.clone(), signer, &root_ca);
    drive(manager, client, signing, specs, shutdown, observe, |manager, now, out| {
        manager.machine_mut().release(now, out);
    })
    .await;
    Ok(())
}
