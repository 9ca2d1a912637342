//! Flags that several components share, in the style of Kubernetes: `--flag=value`,
//! `--switch` or `--switch=false`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use client::{Client, Kubeconfig};

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
