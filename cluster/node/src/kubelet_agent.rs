//! A whole kubelet: certificates, its own API, health, and the shell around the machine.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use kubelet::Kubelet;
use machine::Recorded;
use tokio::sync::watch;

use crate::bootstrap::{self, BootstrapConfig, BootstrapError};
use crate::docker::{PodBridge, Runtime, chain};
use crate::kubelet_server::{self, PodSource, ServeError, ServerConfig};
use crate::kubelet_shell::{KubeletShell, ShellConfig};
use crate::plain_health;

/// Between looks for Docker's socket.
const SOCKET_RETRY: Duration = Duration::from_secs(1);
/// By then a cluster that approves by itself has issued the first certificate.
const APPROVAL_SOON: Duration = Duration::from_secs(10);
/// What a VXLAN header takes of a packet, bytes.
const OVERLAY_BYTES: u32 = 50;
/// MTU of a pod network when the node's own is not known, bytes.
const MTU_DEFAULT: u32 = 1450;

/// What a kubelet is configured with, all together.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The shell and the kubelet in it.
    pub shell: ShellConfig,
    /// Certificates and the way to the API.
    pub bootstrap: BootstrapConfig,
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// MTU of the pod network, bytes.
    pub mtu: u32,
    /// The bridge of pods.
    pub bridge: PodBridge,
    /// The resolver file that pods' own are made from.
    pub resolv_conf: PathBuf,
    /// Where the kubelet's own API listens.
    pub address: SocketAddr,
    /// Who signs its clients' certificates.
    pub client_ca: PathBuf,
    /// Where `/healthz` is served without TLS; loopback.
    pub healthz: Option<SocketAddr>,
    /// Renew the client certificate.
    pub rotate_certificates: bool,
    /// Get the serving certificate from the cluster instead of signing it oneself.
    pub server_tls_bootstrap: bool,
}

/// Why a kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It has no identity.
    #[error("the kubelet has no certificate")]
    Bootstrap(#[from] BootstrapError),
    /// Its API cannot be served.
    #[error("the kubelet's API cannot be served")]
    Serve(#[from] ServeError),
    /// Its health cannot be served.
    #[error("cannot listen on {address}")]
    Health {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the kubelet `machine`, which has the configuration that is in `config`, until `shutdown`
/// turns true; calls `ready` when it has its identity and serves, or has waited so long for its first
/// certificate that somebody seems to have to approve it.
///
/// # Errors
/// Settings or addresses that waiting will not mend.
pub async fn run(
    config: AgentConfig,
    machine: Recorded<Kubelet>,
    mut shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(),
) -> Result<(), AgentError> {
    let mut ready = Some(ready);
    let shell = KubeletShell::new(config.shell.clone(), machine);
    let pods = shell.pods();
    if let Some(address) = config.healthz {
        let health = pods.clone();
        plain_health::serve(address, move || health.health(), shutdown.clone())
            .await
            .map_err(|source| AgentError::Health { address, source })?;
    }
    // The first certificate may take as long as an operator needs to approve it; whoever has started
    // the kubelet need not wait so long.
    let mut waiting = pin!(bootstrap::node_client(&config.bootstrap, shutdown.clone()));
    let client = match tokio::time::timeout(APPROVAL_SOON, &mut waiting).await {
        Ok(client) => client?,
        Err(_) => {
            if let Some(ready) = ready.take() {
                ready();
            }
            waiting.await?
        }
    };
    let Some(client) = client else { return Ok(()) };
    let serving = bootstrap::serving_certificate(&config.bootstrap)?;
    let Some(docker) = docker(&config.docker_socket, shutdown.clone()).await else {
        return Ok(());
    };
    if config.rotate_certificates {
        let settings = config.bootstrap.clone();
        tokio::spawn(bootstrap::rotate_client(settings, client.clone(), shutdown.clone()));
    }
    if config.server_tls_bootstrap {
        tokio::spawn(bootstrap::rotate_serving(
            config.bootstrap.clone(),
            client.clone(),
            Arc::clone(&serving),
            shutdown.clone(),
        ));
    }
    let server = kubelet_server::serve(
        ServerConfig {
            address: config.address,
            client_ca: config.client_ca.clone(),
            serving,
            node_name: config.bootstrap.node_name.clone(),
        },
        docker.clone(),
        Arc::new(pods) as Arc<dyn PodSource>,
        client.clone(),
        shutdown.clone(),
    );
    let root = PathBuf::from(&config.shell.kubelet.root_dir);
    let runtime = Runtime::new(docker, &root, &config.resolv_conf, config.mtu, config.bridge);
    if let Some(ready) = ready {
        ready();
    }
    tokio::select! {
        () = shell.run(client, runtime, shutdown.clone()) => Ok(()),
        served = server => {
            if served.is_ok() {
                let _ = shutdown.wait_for(|stop| *stop).await;
            }
            Ok(served?)
        }
    }
}

/// Waits for Docker's socket.
async fn docker(socket: &Path, mut shutdown: watch::Receiver<bool>) -> Option<Docker> {
    let mut told = false;
    loop {
        match Runtime::connect(socket) {
            Ok(docker) => return Some(docker),
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %chain(&error), "waiting for Docker");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(SOCKET_RETRY) => {}
            _ = shutdown.wait_for(|stop| *stop) => return None,
        }
    }
}

/// The MTU of the pod network on the node with that address: the node's own less what the
/// overlay needs.
pub fn pod_mtu(node_ip: IpAddr) -> u32 {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let of_node = interfaces.filter(|i| {
        let address = i.address.as_ref().and_then(|a| a.as_sockaddr_in().map(|v4| v4.ip()));
        address.is_some_and(|ip| IpAddr::V4(ip) == node_ip)
    });
    of_node
        .filter_map(|i| {
            let path = format!("/sys/class/net/{}/mtu", i.interface_name);
            std::fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()
        })
        .map(|mtu| mtu.saturating_sub(OVERLAY_BYTES).max(576))
        .min()
        .unwrap_or(MTU_DEFAULT)
}
