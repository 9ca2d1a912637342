//! `kube-apiserver`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use apiserver::{Config, Kubelets, ServiceAccounts, StoreConfig, Tls};
use clap::{ArgAction, Args};
use ipnet::IpNet;

use crate::daemon;
use crate::flags::{Log, go_duration};

/// Admission plugins that may be named; those without a kind to act on do nothing here.
const ADMISSION: [&str; 9] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "ResourceQuota",
    "NodeRestriction",
    "DefaultTolerationSeconds",
    "Priority",
    "CertificateApproval",
    "CertificateSigning",
];

/// Arguments of kube-apiserver.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Members of etcd, `https://HOST:2379`, comma-separated.
    #[arg(long, value_name = "URLS", value_delimiter = ',', required = true)]
    etcd_servers: Vec<String>,
    /// Authority of etcd's certificates.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_certfile", "etcd_keyfile"])]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long, value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate for etcd.
    #[arg(long, value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port to listen on.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    secure_port: u16,
    /// Address at which the others reach this server.
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: IpAddr,
    /// Let privileged containers run.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false",
          require_equals = true, action = ArgAction::Set)]
    allow_privileged: bool,
    /// Where cluster addresses of services are taken from.
    #[arg(long, value_name = "CIDR")]
    service_cluster_ip_range: IpNet,
    /// Where node ports are taken from, `FIRST-LAST`.
    #[arg(long, value_name = "RANGE", default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: RangeInclusive<u16>,
    /// Admission plugins; all that are built in are always on.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = admission)]
    enable_admission_plugins: Vec<String>,
    /// Authorizers; must be `Node,RBAC`.
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Let secrets of type `bootstrap.kubernetes.io/token` authenticate.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false",
          require_equals = true, action = ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// Static tokens, lines of `token,user,uid,"group1,group2"`.
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Serving certificate.
    #[arg(long, value_name = "FILE")]
    tls_cert_file: PathBuf,
    /// Key of the serving certificate.
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: PathBuf,
    /// Authority of client certificates.
    #[arg(long, value_name = "FILE")]
    client_ca_file: PathBuf,
    /// Public keys of service-account tokens; may be given several times.
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Key that signs service-account tokens.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: PathBuf,
    /// Issuer of service-account tokens.
    #[arg(long, value_name = "URL", default_value = "https://kubernetes.default.svc")]
    service_account_issuer: String,
    /// Client certificate for kubelets.
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// Key of the client certificate for kubelets.
    #[arg(long, value_name = "FILE")]
    kubelet_client_key: Option<PathBuf>,
    /// Authority of kubelets' serving certificates.
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// How long requests are still taken after a signal, while the server calls itself not ready:
    /// as long as balancers take to notice.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = go_duration)]
    shutdown_delay_duration: Duration,
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
        .filter(|(first, last)| first <= last);
    let (first, last) = range.ok_or_else(|| format!("{text:?} is no range FIRST-LAST of ports"))?;
    Ok(first..=last)
}

fn admission(name: &str) -> Result<String, String> {
    if ADMISSION.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("no admission plugin is named {name:?}; there are {}", ADMISSION.join(", ")))
}

impl Flags {
    fn config(&self) -> anyhow::Result<Config> {
        let mut modes = self.authorization_mode.clone();
        modes.sort();
        ensure!(
            modes == ["Node", "RBAC"],
            "--authorization-mode={} is not supported; use Node,RBAC",
            self.authorization_mode.join(",")
        );
        let tls = Tls {
            certificate: self.tls_cert_file.clone(),
            key: self.tls_private_key_file.clone(),
            client_ca: Some(self.client_ca_file.clone()),
        };
        let mut config = Config::new(SocketAddr::new(self.bind_address, self.secure_port), tls);
        config.advertise_address = self.advertise_address;
        config.token_file.clone_from(&self.token_auth_file);
        config.bootstrap_tokens = self.enable_bootstrap_token_auth;
        config.service_accounts = ServiceAccounts {
            issuer: self.service_account_issuer.clone(),
            signing_key: Some(self.service_account_signing_key_file.clone()),
            keys: self.service_account_key_file.clone(),
            ..ServiceAccounts::default()
        };
        config.shutdown_delay = self.shutdown_delay_duration;
        config.kubelets = Kubelets {
            identity: self.kubelet_client_certificate.clone().zip(self.kubelet_client_key.clone()),
            ca: self.kubelet_certificate_authority.clone(),
        };
        config.admission = registry::Options {
            service_cidr: self.service_cluster_ip_range,
            node_ports: self.service_node_port_range.clone(),
            allow_privileged: self.allow_privileged,
        };
        config.store =
            StoreConfig::Etcd { endpoints: self.etcd_servers.clone(), tls: self.etcd()? };
        Ok(config)
    }

    fn etcd(&self) -> anyhow::Result<Option<[PathBuf; 3]>> {
        match (&self.etcd_cafile, &self.etcd_certfile, &self.etcd_keyfile) {
            (Some(ca), Some(cert), Some(key)) => Ok(Some([ca.clone(), cert.clone(), key.clone()])),
            (None, None, None) => Ok(None),
            _ => bail!("--etcd-cafile, --etcd-certfile and --etcd-keyfile go together"),
        }
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let mut shutdown = daemon::shutdown()?;
    let stopped = async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    apiserver::run(flags.config()?, |_| daemon::ready(), stopped)
        .await
        .context("the API server failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_plugins() {
        assert_eq!(port_range("30000-50000").unwrap(), 30000..=50000);
        for text in ["", "1", "5-3", "a-b", "1-70000"] {
            assert!(port_range(text).is_err(), "{text}");
        }
        assert!(admission("NodeRestriction").is_ok());
        assert!(admission("AlwaysAdmit").unwrap_err().contains("NodeRestriction"));
    }
}
