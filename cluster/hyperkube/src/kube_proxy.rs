//! `kube-proxy`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use client::{Client, Kubeconfig, Pem};
use ipnet::Ipv4Net;
use network::ProxyConfig;
use node::plain_health;
use node::proxy::{self, Mode, Settings, Vitals};
use serde::Deserialize;
use tokio::sync::watch;

use crate::daemon;
use crate::flags::{Log, NodeServing};
use crate::health_server::{self, Health};

/// Arguments of kube-proxy.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); other flags overrule it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kubeconfig with the server, its CA and this component's certificate.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    api_servers: Vec<String>,
    /// The network of all pods; traffic to services from elsewhere is masqueraded.
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Option<String>,
    /// `nftables`, `iptables`, or empty to use what the host has.
    #[arg(long, value_name = "MODE")]
    proxy_mode: Option<String>,
    /// The name of this node; default: the host's name.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Where to serve health checks, over plain HTTP to anyone.
    #[arg(long, value_name = "ADDRESS")]
    healthz_bind_address: Option<String>,
    /// Where to serve metrics, over TLS to clients with a certificate of the cluster's CA; empty:
    /// nowhere. Default: 127.0.0.1:10249.
    #[arg(long, value_name = "ADDRESS")]
    metrics_bind_address: Option<String>,
    #[command(flatten)]
    serving: NodeServing,
    /// Remove all service rules from this host, then exit.
    #[arg(long)]
    cleanup: bool,
}

/// The configuration file.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Configuration {
    api_version: String,
    kind: String,
    /// Accepted for compatibility: only health and metrics are served, each on its own address.
    bind_address: String,
    client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    mode: String,
    healthz_bind_address: Option<String>,
    metrics_bind_address: Option<String>,
    hostname_override: String,
    iptables: Masquerading,
    nftables: Masquerading,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClientConnection {
    kubeconfig: PathBuf,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Masquerading {
    masquerade_all: bool,
}

impl Configuration {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in the configuration {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let configuration: Self = serde_saphyr::from_str(text)?;
        let (version, kind) = (&configuration.api_version, &configuration.kind);
        if version != "kubeproxy.config.k8s.io/v1alpha1" || kind != "KubeProxyConfiguration" {
            bail!(
                "{kind:?} of {version:?} is not understood; wanted is KubeProxyConfiguration of \
                 kubeproxy.config.k8s.io/v1alpha1"
            );
        }
        Ok(configuration)
    }
}

/// Everything that was asked for, from flags and file.
#[derive(Debug)]
struct Options {
    kubeconfig: PathBuf,
    settings: Settings,
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl Options {
    fn new(flags: &Flags, file: Configuration) -> anyhow::Result<Self> {
        let kubeconfig = flags.kubeconfig.clone().unwrap_or(file.client_connection.kubeconfig);
        if kubeconfig.as_os_str().is_empty() {
            bail!("no kubeconfig is given: use --kubeconfig or clientConnection.kubeconfig");
        }
        let mode = match flags.proxy_mode.as_deref().unwrap_or(&file.mode) {
            "" => Mode::Auto,
            "nftables" => Mode::Nftables,
            "iptables" => Mode::Iptables,
            other => bail!("the proxy mode {other:?} is not known; use nftables or iptables"),
        };
        let rules = ProxyConfig {
            cluster_cidr: cluster_cidr(
                flags.cluster_cidr.as_deref().unwrap_or(&file.cluster_cidr),
            )?,
            masquerade_all: file.iptables.masquerade_all || file.nftables.masquerade_all,
        };
        let name = flags.hostname_override.clone().unwrap_or(file.hostname_override);
        let health = flags.healthz_bind_address.clone().or(file.healthz_bind_address);
        let metrics = flags.metrics_bind_address.clone().or(file.metrics_bind_address);
        let health = address(health, "0.0.0.0:10256").context("healthzBindAddress")?;
        let metrics = address(metrics, "127.0.0.1:10249").context("metricsBindAddress")?;
        let settings = Settings { node_name: node_name(&name)?, mode, rules };
        Ok(Self { kubeconfig, settings, health, metrics })
    }
}

/// The name of this node.
pub(crate) fn node_name(given: &str) -> anyhow::Result<String> {
    if !given.is_empty() {
        return Ok(given.to_lowercase());
    }
    let name = nix::unistd::gethostname().context("cannot read the host's name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// The IPv4 network of one or two.
fn cluster_cidr(text: &str) -> anyhow::Result<Option<Ipv4Net>> {
    let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
    for network in networks {
        let network: ipnet::IpNet =
            network.parse().with_context(|| format!("clusterCIDR: {network:?} is no network"))?;
        if let ipnet::IpNet::V4(network) = network {
            return Ok(Some(network.trunc()));
        }
    }
    Ok(None)
}

/// An address to listen on; none when it is empty, the usual one when it is not given.
fn address(given: Option<String>, usual: &str) -> anyhow::Result<Option<SocketAddr>> {
    let text = given.unwrap_or_else(|| usual.to_owned());
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().with_context(|| format!("{text:?} is no ADDRESS:PORT"))?;
    Ok(Some(address))
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    if flags.cleanup {
        proxy::cleanup().await.context("cannot remove the service rules")?;
        tracing::info!("the service rules are removed");
        return Ok(());
    }
    let file = match &flags.config {
        Some(path) => Configuration::load(path)?,
        None => Configuration::default(),
    };
    let options = Options::new(flags, file)?;
    let shutdown = daemon::shutdown()?;
    let config = Kubeconfig::load(&options.kubeconfig, &flags.api_servers, "kube-proxy")?;
    let cluster_ca = config.ca.clone();
    let client = Client::new(config)?;
    let vitals = Arc::new(Vitals::default());
    serve(&options, &flags.serving, cluster_ca, &vitals, &shutdown).await?;
    proxy::run(client, options.settings, vitals, daemon::ready, shutdown).await?;
    Ok(())
}

async fn serve(
    options: &Options,
    serving: &NodeServing,
    cluster_ca: Pem,
    vitals: &Arc<Vitals>,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    if let Some(address) = options.health {
        let vitals = Arc::clone(vitals);
        plain_health::serve(address, move || vitals.check(), shutdown.clone())
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
    }
    if let Some(address) = options.metrics {
        let identity = serving.identity(&options.settings.node_name, cluster_ca);
        let health = Arc::clone(vitals) as Arc<dyn Health>;
        health_server::serve(address, identity, health, shutdown.clone()).await?;
    }
    Ok(())
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Self::check(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }

    fn page(&self, path: &str) -> Option<String> {
        (path == "/proxyMode").then(|| self.mode())
    }
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

    const FILE: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
        kind: KubeProxyConfiguration\nbindAddress: 0.0.0.0\n\
        clientConnection:\n  kubeconfig: /etc/proxy\nclusterCIDR: 10.244.0.0/16\nmode: iptables\n\
        metricsBindAddress: 127.0.0.1:1\n";

    fn options(arguments: &[&str], file: &str) -> anyhow::Result<Options> {
        let arguments = ["kube-proxy"].iter().chain(arguments);
        Options::new(&Line::parse_from(arguments).flags, Configuration::parse(file)?)
    }

    #[test]
    fn flags_overrule_the_file() {
        let given = options(&[], FILE).unwrap();
        assert_eq!(given.kubeconfig, Path::new("/etc/proxy"));
        assert_eq!(given.settings.mode, Mode::Iptables);
        assert_eq!(given.health, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!(given.metrics, Some("127.0.0.1:1".parse().unwrap()));
        let usual = options(&[], &FILE.replace("metricsBindAddress: 127.0.0.1:1\n", "")).unwrap();
        assert_eq!(usual.metrics, Some("127.0.0.1:10249".parse().unwrap()));
        let flags = [
            "--proxy-mode=nftables",
            "--cluster-cidr=fd00::/48,10.0.0.0/8",
            "--hostname-override=Node-1",
            "--healthz-bind-address=",
            "--metrics-bind-address=",
        ];
        let given = options(&flags, FILE).unwrap();
        assert_eq!(given.settings.mode, Mode::Nftables);
        assert_eq!(given.settings.rules.cluster_cidr, Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!((given.settings.node_name.as_str(), given.health), ("node-1", None));
        assert_eq!(given.metrics, None);
    }

    #[test]
    fn mistakes_are_told() {
        let check = |arguments: &[&str], file: &str, expected: &str| {
            let error = format!("{:#}", options(arguments, file).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(&[], &format!("{FILE}ipvs: {{}}\n"), "unknown field `ipvs`");
        check(&[], "kind: Pod\n", "is not understood");
        check(&["--proxy-mode=ipvs"], FILE, "use nftables or iptables");
        check(&["--cluster-cidr=10.0.0.0"], FILE, "is no network");
        check(&["--metrics-bind-address=here"], FILE, "metricsBindAddress");
        let none = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        check(&[], none, "no kubeconfig is given");
    }
}
