//! `cluster-dns`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use client::{Client, Kubeconfig};
use ipnet::Ipv4Net;
use network::dns::Zone;
use node::cluster_dns::{self, Settings, Vitals};

use crate::daemon;
use crate::flags::Log;
use crate::health_server::{self, Certificate, Health, Identity};

/// Arguments of the DNS server.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Kubeconfig with the server, its CA and this component's certificate.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    api_servers: Vec<String>,
    /// Where to listen, over UDP and TCP. The service `kube-system/kube-dns` expects the node's address
    /// and port 10053.
    #[arg(long, value_name = "ADDRESS")]
    listen_address: SocketAddr,
    /// Domain of the cluster's names.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    cluster_domain: String,
    /// Address of the service `kube-system/kube-dns`: no upstream resolver, whatever the host's list
    /// says.
    #[arg(long, value_name = "ADDRESS")]
    cluster_dns: Option<IpAddr>,
    /// The network of all pods: who may ask, besides this host, and whose addresses have names here.
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Ipv4Net,
    /// Range of service addresses, which have names here.
    #[arg(long, value_name = "CIDR")]
    service_cluster_ip_range: Ipv4Net,
    /// List of upstream resolvers for all other names, read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// Where to serve health checks to anyone, and metrics to clients with a certificate of the
    /// cluster's CA, over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10244")]
    metrics_bind_address: SocketAddr,
}

impl Flags {
    fn settings(&self) -> Settings {
        let domain = self.cluster_domain.trim_end_matches('.').to_ascii_lowercase();
        let ranges = vec![self.cluster_cidr, self.service_cluster_ip_range];
        Settings {
            listen: self.listen_address,
            zone: Zone { domain, ranges },
            clients: vec![self.cluster_cidr],
            own: self.cluster_dns.into_iter().collect(),
            resolv_conf: self.resolv_conf.clone(),
        }
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let config = Kubeconfig::load(&flags.kubeconfig, &flags.api_servers, "cluster-dns")?;
    let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let certificate = Certificate::SelfSigned(names);
    let identity = Identity { certificate, client_ca: config.ca.clone() };
    let client = Client::new(config)?;
    let vitals = Arc::new(Vitals::default());
    let health = Arc::clone(&vitals) as Arc<dyn Health>;
    health_server::serve(flags.metrics_bind_address, identity, health, shutdown.clone()).await?;
    cluster_dns::run(client, flags.settings(), vitals, |_| daemon::ready(), shutdown).await?;
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn flags_become_settings() {
        let line = Line::parse_from([
            "cluster-dns",
            "--kubeconfig=/k",
            "--listen-address=10.0.0.1:10053",
            "--cluster-domain=Example.Org.",
            "--cluster-dns=10.254.0.10",
            "--cluster-cidr=10.244.0.0/16",
            "--service-cluster-ip-range=10.254.0.0/16",
        ]);
        let settings = line.flags.settings();
        assert_eq!(settings.zone.domain, "example.org");
        assert_eq!(settings.zone.ranges.len(), 2);
        assert_eq!(settings.clients, ["10.244.0.0/16".parse().unwrap()]);
        assert_eq!(settings.own, [IpAddr::from([10, 254, 0, 10])]);
        assert_eq!(settings.listen.port(), controllers::cluster_dns::PORT);
    }
}
