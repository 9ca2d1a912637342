//! Flags that several components share, in the style of Kubernetes: `--flag=value`,
//! `--switch` or `--switch=false`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use api::Span;
use clap::Args;
use client::{Client, Kubeconfig, Pem};
use machine::Election;

use crate::health_server::{Certificate, Identity};

/// Logging.
#[derive(Args)]
pub(crate) struct Log {
    /// Verbosity: 0 warnings, 2 what happens, 4 details, 6 everything.
    #[arg(long, short, default_value_t = 2, value_name = "LEVEL")]
    pub(crate) v: u8,
    /// Log as JSON, a line each.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) logging_format: String,
    /// Accepted for compatibility: logs always go to standard error.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub(crate) logtostderr: Option<bool>,
}

/// How to reach the API.
#[derive(Args)]
pub(crate) struct Api {
    /// Kubeconfig with the server, its CA and this component's certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) api_servers: Vec<String>,
}

impl Api {
    /// A client for these flags.
    pub(crate) fn client(&self, user_agent: &str) -> anyhow::Result<Client> {
        let config = Kubeconfig::load(&self.kubeconfig, &self.api_servers, user_agent)?;
        Ok(Client::new(config)?)
    }
}

/// The port that serves health checks and metrics over TLS.
#[derive(Args)]
pub(crate) struct Serving {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    /// Certificate of this component's own port.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_file: PathBuf,
    /// Key of that certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_private_key_file: PathBuf,
    /// Authorities whose client certificates may read metrics.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_file: PathBuf,
}

impl Serving {
    /// What these flags make the server.
    pub(crate) fn identity(&self) -> Identity {
        let (cert, key) = (self.tls_cert_file.clone(), self.tls_private_key_file.clone());
        Identity {
            certificate: Certificate::Files(cert, key),
            client_ca: Pem::File(self.client_ca_file.clone()),
        }
    }
}

/// How a process competes for the lease whose holder acts.
#[derive(Args)]
pub(crate) struct LeaderElection {
    /// How long others wait after the last renewal that they saw until one of them takes the lease;
    /// default: 15s.
    #[arg(long, value_name = "DURATION")]
    leader_elect_lease_duration: Option<Span>,
    /// How long a leader that cannot renew its lease goes on; less than the lease lasts; default:
    /// 10s.
    #[arg(long, value_name = "DURATION")]
    leader_elect_renew_deadline: Option<Span>,
    /// Time between attempts to get the lease or to renew it; default: 2s.
    #[arg(long, value_name = "DURATION")]
    leader_elect_retry_period: Option<Span>,
    /// Name of the lease; default: the component's.
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_name: Option<String>,
    /// Namespace of the lease; default: kube-system.
    #[arg(long, value_name = "NAMESPACE")]
    leader_elect_resource_namespace: Option<String>,
    /// Accepted for compatibility: there are leases alone.
    #[arg(long, hide = true, value_name = "KIND", value_parser = ["leases"])]
    leader_elect_resource_lock: Option<String>,
}

impl LeaderElection {
    /// What these flags make of an election, which is meant where they say nothing.
    pub(crate) fn over(&self, election: Election) -> anyhow::Result<Election> {
        let name = self.leader_elect_resource_name.clone().unwrap_or(election.name);
        let namespace = self.leader_elect_resource_namespace.clone().unwrap_or(election.namespace);
        ensure!(
            api::names::subdomain(&name).is_empty(),
            "--leader-elect-resource-name is {name:?}, which cannot be the name of a lease"
        );
        ensure!(
            api::names::is_label(&namespace),
            "--leader-elect-resource-namespace is {namespace:?}, which cannot be the name of a namespace"
        );
        let election = Election {
            name,
            namespace,
            lease_duration: self.leader_elect_lease_duration.unwrap_or(election.lease_duration),
            renew_deadline: self.leader_elect_renew_deadline.unwrap_or(election.renew_deadline),
            retry_period: self.leader_elect_retry_period.unwrap_or(election.retry_period),
        };
        if let Some((field, value, why)) = election.complaints().first() {
            let flag = match *field {
                "leaseDuration" => "lease-duration",
                "renewDeadline" => "renew-deadline",
                _ => "retry-period",
            };
            bail!("--leader-elect-{flag} is {value}, which {why}");
        }
        Ok(election)
    }
}

/// The port on which a node's component serves metrics over TLS.
#[derive(Args)]
pub(crate) struct NodeServing {
    /// Certificate of the metrics port; default: one that is made in memory and signed by itself.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
}

impl NodeServing {
    /// What these flags make the server of the node; clients of `cluster_ca` may read metrics.
    pub(crate) fn identity(&self, node_name: &str, cluster_ca: Pem) -> Identity {
        let certificate = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Certificate::Files(cert.clone(), key.clone()),
            _ => {
                let names = [node_name, "localhost", "127.0.0.1"];
                Certificate::SelfSigned(names.map(str::to_owned).to_vec())
            }
        };
        Identity { certificate, client_ca: cluster_ca }
    }
}

/// Reads a duration as Go writes it, in whole numbers: `8760h0m0s`, `90s`.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 8760h0m0s or 90s");
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit: u32 = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::from_secs(number).checked_mul(unit).ok_or_else(wrong)?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(go_duration(text).ok().map(|d| d.as_secs()), seconds, "{text:?}");
        };
        check("8760h0m0s", Some(8760 * 3600));
        check("1h30m", Some(5400));
        check("150s", Some(150));
        for wrong in ["", "5", "h", "1d", "-1s", "1.5h", "1h ", "99999999999999999999s"] {
            check(wrong, None);
        }
        check(&format!("{}h", u64::MAX), None);
    }
}
