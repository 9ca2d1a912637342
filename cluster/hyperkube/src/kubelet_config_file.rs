//! `KubeletConfiguration` files, `kubelet.config.k8s.io/v1beta1`, as far as this kubelet has the
//! setting. An unknown key is an error that names it: a setting silently ignored is worse.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// The settings of a kubelet that stand in its configuration file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KubeletConfigFile {
    api_version: String,
    kind: String,
    #[serde(default = "any_address")]
    pub(crate) address: IpAddr,
    #[serde(default = "port")]
    pub(crate) port: u16,
    #[serde(default)]
    read_only_port: u16,
    #[serde(default = "loopback")]
    pub(crate) healthz_bind_address: IpAddr,
    #[serde(default = "healthz_port")]
    pub(crate) healthz_port: u16,
    pub(crate) authentication: Authentication,
    #[serde(default)]
    authorization: Authorization,
    #[serde(default, rename = "clusterDNS")]
    pub(crate) cluster_dns: Vec<IpAddr>,
    #[serde(default = "cluster_domain")]
    pub(crate) cluster_domain: String,
    #[serde(default = "cgroupfs")]
    cgroup_driver: String,
    #[serde(default)]
    #[expect(dead_code, reason = "swap is never refused; the key is accepted")]
    fail_swap_on: bool,
    #[serde(default = "max_pods")]
    pub(crate) max_pods: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "the status is written when it changes; the key is accepted")]
    node_status_update_frequency: Option<String>,
    #[serde(default = "resolv_conf")]
    pub(crate) resolv_conf: PathBuf,
    #[serde(default)]
    pub(crate) rotate_certificates: bool,
    #[serde(default, rename = "serverTLSBootstrap")]
    pub(crate) server_tls_bootstrap: bool,
    #[serde(default)]
    pub(crate) static_pod_path: Option<PathBuf>,
}

/// Who may ask the kubelet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Authentication {
    #[serde(default)]
    anonymous: Switch,
    #[serde(default)]
    #[expect(dead_code, reason = "tokens are always reviewed by the API server")]
    webhook: Switch,
    pub(crate) x509: X509,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Switch {
    #[serde(default)]
    enabled: bool,
}

/// Whose client certificates are accepted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct X509 {
    /// The authority that signs them.
    #[serde(rename = "clientCAFile")]
    pub(crate) client_ca_file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Authorization {
    #[serde(default)]
    mode: String,
}

fn any_address() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

const fn port() -> u16 {
    10250
}

const fn healthz_port() -> u16 {
    10248
}

fn cluster_domain() -> String {
    "cluster.local".to_owned()
}

fn cgroupfs() -> String {
    "cgroupfs".to_owned()
}

const fn max_pods() -> u32 {
    110
}

fn resolv_conf() -> PathBuf {
    PathBuf::from("/etc/resolv.conf")
}

impl KubeletConfigFile {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut file: Self = serde_saphyr::from_str(text)?;
        ensure!(
            file.api_version == "kubelet.config.k8s.io/v1beta1"
                && file.kind == "KubeletConfiguration",
            "this is {}, {}; kubelet.config.k8s.io/v1beta1, KubeletConfiguration is wanted",
            file.api_version,
            file.kind
        );
        ensure!(file.read_only_port == 0, "readOnlyPort is not served: it would need no identity");
        ensure!(!file.authentication.anonymous.enabled, "anonymous authentication is not offered");
        if !matches!(file.authorization.mode.as_str(), "" | "Webhook") {
            bail!("authorization.mode {:?} is not offered; use Webhook", file.authorization.mode);
        }
        ensure!(
            file.cgroup_driver == "cgroupfs",
            "cgroupDriver {:?} is not offered: Docker makes the control groups",
            file.cgroup_driver
        );
        if file.cluster_domain.ends_with('.') {
            file.cluster_domain.pop();
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
                        authentication: {x509: {clientCAFile: /ca.crt}}\n";

    #[test]
    fn defaults_and_the_guides_dotted_domain() {
        let file = KubeletConfigFile::parse(&format!("{HEAD}clusterDomain: cluster.local.\n"));
        let file = file.unwrap();
        assert_eq!((file.port, file.healthz_port, file.max_pods), (10250, 10248, 110));
        assert_eq!(file.cluster_domain, "cluster.local");
        assert!(file.static_pod_path.is_none() && !file.rotate_certificates);
    }

    #[test]
    fn what_is_refused() {
        let check = |line: &str, expected: &str| {
            let error = KubeletConfigFile::parse(&format!("{HEAD}{line}\n")).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(expected), "{line}: {text}");
        };
        check("readOnlyPort: 10255", "readOnlyPort");
        check("kubletPort: 1", "kubletPort");
        check("cgroupDriver: systemd", "cgroupDriver");
        check("authorization: {mode: AlwaysAllow}", "AlwaysAllow");
    }
}
