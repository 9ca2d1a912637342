//! `flanneld`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use client::{Client, Kubeconfig};
use ipnet::Ipv4Net;
use network::Backend;
use network::switch::Datapath;
use node::docker::PodBridge;
use node::overlay::{self, Settings, Vitals};
use node::plain_health;

use crate::daemon;
use crate::flags::{Log, NodeServing};
use crate::health_server::{self, Health};
use crate::kube_proxy::node_name;

/// Arguments of flanneld.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Kubeconfig with the server, its CA and this component's certificate.
    #[arg(long, value_name = "FILE", required_unless_present = "cleanup")]
    kubeconfig: Option<PathBuf>,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    api_servers: Vec<String>,
    /// The name of this node; default: the host's name.
    #[arg(long, value_name = "NAME", default_value = "")]
    hostname_override: String,
    /// The address by which other hosts reach this one; default: the node's internal address.
    #[arg(long, value_name = "ADDRESS", alias = "public-ip")]
    iface_address: Option<Ipv4Addr>,
    /// The network of all pods.
    #[arg(long, value_name = "CIDR", required_unless_present = "cleanup")]
    network: Option<Ipv4Net>,
    /// How packets travel between hosts.
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "vxlan")]
    backend: BackendName,
    /// Who forwards for Open vSwitch, with ovs-gre.
    #[arg(long, value_enum, value_name = "DATAPATH", default_value = "auto")]
    ovs_datapath: DatapathName,
    /// The largest packet of pods in bytes; 0: as large as fits.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    mtu: u32,
    /// Masquerade traffic of pods that leaves the cluster.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false",
          require_equals = true, action = ArgAction::Set)]
    ip_masq: bool,
    /// Where to serve health checks, over plain HTTP to anyone.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10254")]
    healthz_bind_address: SocketAddr,
    /// Where to serve metrics, over TLS to clients with a certificate of the cluster's CA.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10247")]
    metrics_bind_address: SocketAddr,
    #[command(flatten)]
    serving: NodeServing,
    /// The bridge of pods, which must let them reach themselves through a service.
    #[arg(long, value_name = "BRIDGE", default_value = "cni0")]
    pod_bridge: PodBridge,
    /// Where others learn this node's pod network.
    #[arg(long, value_name = "FILE", default_value = overlay::SUBNET_FILE)]
    subnet_file: PathBuf,
    /// Remove everything this made on the host (devices, routes, packet filter rules, the
    /// subnet file), then exit.
    #[arg(long)]
    cleanup: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendName {
    /// Inside UDP packets between the hosts; works wherever hosts reach each other.
    Vxlan,
    /// As they are, routed by the hosts, which must share a link.
    HostGw,
    /// Inside GRE packets, by tunnels of Open vSwitch from each host to each.
    OvsGre,
}

#[derive(Clone, Copy, ValueEnum)]
enum DatapathName {
    /// The kernel where it has the module openvswitch, else ovs-vswitchd.
    Auto,
    /// The kernel.
    System,
    /// ovs-vswitchd itself.
    Netdev,
}

/// The least that IPv4 requires of every link; smaller ones fail in strange ways.
const MTU_MIN: u32 = 576;

impl Flags {
    fn settings(&self, network: Ipv4Net) -> anyhow::Result<Settings> {
        if self.mtu != 0 && self.mtu < MTU_MIN {
            anyhow::bail!("--mtu={} is too small: use 0 or at least {MTU_MIN}", self.mtu);
        }
        let by_tunnels = matches!(self.backend, BackendName::OvsGre);
        if by_tunnels != (self.pod_bridge == PodBridge::Kbr0) {
            anyhow::bail!("--backend=ovs-gre and --pod-bridge=kbr0 need each other");
        }
        Ok(Settings {
            node_name: node_name(&self.hostname_override)?,
            host_address: self.iface_address,
            network: network.trunc(),
            backend: match self.backend {
                BackendName::Vxlan => Backend::Vxlan,
                BackendName::HostGw => Backend::HostGw,
                BackendName::OvsGre => Backend::OvsGre,
            },
            datapath: match self.ovs_datapath {
                DatapathName::Auto => None,
                DatapathName::System => Some(Datapath::System),
                DatapathName::Netdev => Some(Datapath::Netdev),
            },
            mtu: (self.mtu != 0).then_some(self.mtu),
            masquerade: self.ip_masq,
            subnet_file: self.subnet_file.clone(),
            bridge: self.pod_bridge,
        })
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let (Some(kubeconfig), Some(network), false) =
        (&flags.kubeconfig, flags.network, flags.cleanup)
    else {
        return clean(&flags.subnet_file).await;
    };
    let settings = flags.settings(network)?;
    let shutdown = daemon::shutdown()?;
    let config = Kubeconfig::load(kubeconfig, &flags.api_servers, "flanneld")?;
    let identity = flags.serving.identity(&settings.node_name, config.ca.clone());
    let client = Client::new(config)?;
    let vitals = Arc::new(Vitals::default());
    let address = flags.healthz_bind_address;
    let health = Arc::clone(&vitals);
    plain_health::serve(address, move || health.check(), shutdown.clone())
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let metrics = Arc::clone(&vitals) as Arc<dyn Health>;
    health_server::serve(flags.metrics_bind_address, identity, metrics, shutdown.clone()).await?;
    overlay::run(client, settings, vitals, daemon::ready, shutdown).await?;
    Ok(())
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Self::check(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}

async fn clean(subnet_file: &Path) -> anyhow::Result<()> {
    overlay::cleanup(subnet_file).await.context("cannot remove the overlay")?;
    tracing::info!("the overlay is removed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn flags(arguments: &[&str]) -> Result<Flags, clap::Error> {
        let arguments = ["flanneld"].iter().chain(arguments);
        Line::try_parse_from(arguments).map(|line| line.flags)
    }

    #[test]
    fn the_settings_follow_the_flags() {
        let required = ["--kubeconfig=/k", "--network=10.244.3.0/16"];
        let given = flags(&required).unwrap();
        let settings = given.settings(given.network.unwrap()).unwrap();
        assert_eq!(settings.network.to_string(), "10.244.0.0/16");
        assert_eq!((settings.backend, settings.mtu), (Backend::Vxlan, None));
        let more = [
            "--backend=host-gw",
            "--mtu=1400",
            "--ip-masq=true",
            "--hostname-override=n1",
            "--iface-address=10.0.0.1",
            "--pod-bridge=docker0",
        ];
        let given = flags(&[&required[..], &more[..]].concat()).unwrap();
        let settings = given.settings(given.network.unwrap()).unwrap();
        assert_eq!((settings.backend, settings.mtu), (Backend::HostGw, Some(1400)));
        assert!(settings.masquerade && settings.host_address.is_some());
        assert_eq!(settings.bridge, PodBridge::Docker0);
        assert!(flags(&[&required[..], &["--pod-bridge=br0"]].concat()).is_err());
        let tunnels = ["--backend=ovs-gre", "--pod-bridge=kbr0", "--ovs-datapath=netdev"];
        let given = flags(&[&required[..], &tunnels].concat()).unwrap();
        let settings = given.settings(given.network.unwrap()).unwrap();
        assert_eq!((settings.backend, settings.bridge), (Backend::OvsGre, PodBridge::Kbr0));
        assert_eq!(settings.datapath, Some(Datapath::Netdev));
        for half in [&tunnels[..1], &tunnels[1..2]] {
            let given = flags(&[&required[..], half].concat()).unwrap();
            let error = given.settings(given.network.unwrap()).unwrap_err().to_string();
            assert!(error.contains("need each other"), "{error}");
        }
        assert!(flags(&["--kubeconfig=/k"]).is_err(), "the network must be given");
        assert!(flags(&["--cleanup"]).is_ok());
        let small = flags(&[&required[..], &["--mtu=100"]].concat()).unwrap();
        assert!(small.settings(small.network.unwrap()).is_err());
    }
}
