//! The kubelet's own TLS API on port 10250: logs, exec, attach, port-forward, statistics.
//!
//! The main entry is [`serve`]. Whoever calls is known by a client certificate of the cluster's
//! CA or by a bearer token that the API server vouches for, and may do what the API server says.

mod access;
mod answer;
mod certificate;
mod containers;
mod exec;
mod expiring;
mod identity;
mod listener;
mod logs;
mod port_forward;
mod query;
mod route;
mod server;
mod spdy;
mod spdy_command;
mod stats;
mod streams;
mod upgrade;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::Object;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use certificate::{CertificateError, ServingCertificate};

/// Where and as whom the kubelet serves.
#[derive(Clone)]
pub struct ServerConfig {
    /// The address to listen on, usually `0.0.0.0:10250`.
    pub address: SocketAddr,
    /// PEM file of the authority that signs client certificates.
    pub client_ca: PathBuf,
    /// The serving certificate; it may be exchanged while serving.
    pub serving: Arc<ServingCertificate>,
    /// The node's name, the object of every authorization question.
    pub node_name: String,
}

/// Knows no pods: every container is found by its labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByLabels;

impl PodSource for ByLabels {
    fn pods(&self) -> Vec<Object> {
        Vec::new()
    }

    fn container_id(&self, _: &str, _: &str, _: Option<&str>, _: &str, _: bool) -> Option<String> {
        None
    }
}

/// What the server has to know about the node's pods.
pub trait PodSource: Send + Sync {
    /// The pods bound to this node, with their current status.
    fn pods(&self) -> Vec<Object>;

    /// The runtime's identifier of a container of a pod: the newest attempt, or the one before it
    /// when `previous`. `None` when there is none, or none known without asking the runtime:
    /// the server then looks at the labels of the runtime's containers.
    fn container_id(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
        previous: bool,
    ) -> Option<String>;
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The authority's file cannot be read or holds no certificate.
    #[error("cannot use the client authority {path}: {reason}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Serves until `shutdown` becomes true.
///
/// # Errors
/// When the address cannot be listened on or the client authority cannot be used.
pub async fn serve(
    config: ServerConfig,
    docker: bollard::Docker,
    pods: Arc<dyn PodSource>,
    api: client::Client,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let tls = listener::tls(&config)?;
    let address = config.address;
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
    serve_on(listener, tls, config.node_name, docker, pods, api, async move {
        // A sender that is gone asks nobody to go on.
        let _ = shutdown.wait_for(|stop| *stop).await;
    })
    .await;
    Ok(())
}

/// Serves on a listener until the future is ready.
async fn serve_on(
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    node_name: String,
    docker: bollard::Docker,
    pods: Arc<dyn PodSource>,
    api: client::Client,
    shutdown: impl Future<Output = ()>,
) {
    let stop = CancellationToken::new();
    let server = Arc::new(server::Server {
        containers: containers::Containers::new(docker.clone(), pods),
        docker,
        tokens: identity::Tokens::new(api.clone()),
        access: access::Access::new(api, node_name.clone()),
        stats: stats::Stats::new(node_name),
        requests: server::Requests::default(),
        sessions: Arc::new(Semaphore::new(server::SESSIONS_MAX)),
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    });
    let serving = listener::run(listener, tls, server);
    tokio::pin!(serving);
    tokio::select! {
        () = serving.as_mut() => {}
        () = shutdown => {
            stop.cancel();
            serving.await;
        }
    }
}

#[cfg(test)]
mod tests;
