//! `apiserver-proxy`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use client::Pem;
use node::apiserver_proxy::{self, Settings, Vitals};

use crate::daemon;
use crate::flags::Log;
use crate::health_server::{self, Certificate, Health, Identity};

/// Arguments of the balancer.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Where to listen for the node's components.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6444")]
    listen_address: SocketAddr,
    /// The API servers, an `ADDRESS:PORT` a line, the most preferred first. Read again every two
    /// seconds.
    #[arg(long, value_name = "FILE")]
    upstreams_file: PathBuf,
    /// Authorities of the API servers' certificates, to ask who is ready; and of clients that may
    /// read metrics.
    #[arg(long, value_name = "FILE")]
    ca_file: PathBuf,
    /// Where to serve health checks to anyone, and metrics to clients with a certificate of the
    /// cluster's CA, over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10245")]
    metrics_bind_address: SocketAddr,
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let ca = Pem::File(flags.ca_file.clone());
    let vitals = Arc::new(Vitals::default());
    let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let identity = Identity { certificate: Certificate::SelfSigned(names), client_ca: ca.clone() };
    let health = Arc::clone(&vitals) as Arc<dyn Health>;
    health_server::serve(flags.metrics_bind_address, identity, health, shutdown.clone()).await?;
    let settings =
        Settings { listen: flags.listen_address, upstreams: flags.upstreams_file.clone(), ca };
    apiserver_proxy::run(settings, vitals, |_| daemon::ready(), shutdown)
        .await
        .context("the balancer failed")
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Self::check(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}
