//! `kubelet`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kubelet::{Kubelet, KubeletConfig};
use machine::recording::Header;
use node::bootstrap::BootstrapConfig;
use node::docker::PodBridge;
use node::kubelet_agent::{self, AgentConfig, pod_mtu};
use node::kubelet_shell::ShellConfig;

use crate::daemon;
use crate::flags::Log;
use crate::kubelet_config_file::KubeletConfigFile;
use crate::recording::Recording;

/// Arguments of the kubelet.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Kubeconfig of the node; written when the first certificate is issued.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Kubeconfig with the token that asks for the first certificate.
    #[arg(long, value_name = "FILE")]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    api_servers: Vec<String>,
    /// `KubeletConfiguration` file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where certificates and keys are kept.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/kubelet/pki")]
    cert_dir: PathBuf,
    /// Where pods' volumes are kept.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// The node's name; default: the host's.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// The node's address.
    #[arg(long, value_name = "ADDRESS")]
    node_ip: IpAddr,
    /// Labels of the node, `key=value,…`.
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// Taints the node registers with, `key=value:effect,…`.
    #[arg(long, value_name = "TAINTS", value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<(String, String, String)>,
    /// The image whose container holds a pod's network.
    #[arg(long, value_name = "IMAGE", default_value = "kprov.local/pause:3.10")]
    pod_infra_container_image: String,
    /// The bridge of pods: cni0; Docker's own docker0 on the range that flanneld tells Docker; or
    /// kbr0, which flanneld makes.
    #[arg(long, value_name = "BRIDGE", default_value = "cni0")]
    pod_bridge: PodBridge,
    /// Docker's socket.
    #[arg(long, value_name = "FILE", default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
    #[command(flatten)]
    recording: Recording,
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| format!("{text:?} is no label KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn taint(text: &str) -> Result<(String, String, String), String> {
    let parsed = text.rsplit_once(':').map(|(pair, effect)| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), value.to_owned(), effect.to_owned())
    });
    let known = |effect: &str| matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    parsed.filter(|(key, _, effect)| !key.is_empty() && known(effect)).ok_or_else(|| {
        format!("{text:?} is no taint KEY[=VALUE]:NoSchedule|PreferNoSchedule|NoExecute")
    })
}

impl Flags {
    fn agent(&self) -> anyhow::Result<AgentConfig> {
        let file = KubeletConfigFile::load(&self.config)?;
        let node_name = match &self.hostname_override {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        let kubelet = KubeletConfig {
            node_name: node_name.clone(),
            node_ip: self.node_ip.to_string(),
            node_labels: self.node_labels.clone(),
            register_taints: self.register_with_taints.clone(),
            cluster_dns: file.cluster_dns.iter().map(ToString::to_string).collect(),
            cluster_domain: file.cluster_domain,
            max_pods: file.max_pods,
            pause_image: self.pod_infra_container_image.clone(),
            root_dir: self.root_dir.display().to_string(),
            port: file.port,
            version: api::version::GIT_VERSION.to_owned(),
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 0,
        };
        Ok(AgentConfig {
            shell: ShellConfig { kubelet, static_pod_path: file.static_pod_path },
            bootstrap: BootstrapConfig {
                node_name,
                node_ip: self.node_ip.to_string(),
                kubeconfig: self.kubeconfig.clone(),
                bootstrap_kubeconfig: self.bootstrap_kubeconfig.clone(),
                servers: self.api_servers.clone(),
                cert_dir: self.cert_dir.clone(),
            },
            docker_socket: self.docker_socket.clone(),
            mtu: pod_mtu(self.node_ip),
            bridge: self.pod_bridge,
            resolv_conf: file.resolv_conf,
            address: SocketAddr::new(file.address, file.port),
            client_ca: file.authentication.x509.client_ca_file,
            healthz: (file.healthz_port != 0)
                .then(|| SocketAddr::new(file.healthz_bind_address, file.healthz_port)),
            rotate_certificates: file.rotate_certificates,
            server_tls_bootstrap: file.server_tls_bootstrap,
        })
    }
}

/// Runs until a signal; pods stay.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let agent = flags.agent()?;
    let config = &agent.shell.kubelet;
    let header = Header {
        component: "kubelet".to_owned(),
        // Nothing in it is random, and there is one for each node.
        seed: 0,
        identity: None,
        election: None,
        settings: serde_json::to_value(config)?,
    };
    let machine = flags.recording.of_keeper(Kubelet::new(config.clone()), &header)?;
    kubelet_agent::run(agent, machine, shutdown, daemon::ready).await.context("the kubelet failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints() {
        assert_eq!(label("a.b/c=d").unwrap(), ("a.b/c".into(), "d".into()));
        assert!(label("a").is_err() && label("=b").is_err());
        let parsed = taint("team=a:NoSchedule").unwrap();
        assert_eq!(parsed, ("team".into(), "a".into(), "NoSchedule".into()));
        assert_eq!(taint("x:NoExecute").unwrap().1, "");
        assert!(taint("x").is_err() && taint("x:Never").is_err());
    }
}
