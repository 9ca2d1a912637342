//! Where a host keeps programs, settings, certificates and data, and how its units read them.
//!
//! One closed type: whoever needs a path on a host asks it here, and layouts differ in nothing else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How files are laid out on hosts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `/usr/local/bin`, `/etc/kubernetes`, `/etc/etcd`, `/var/lib/etcd`.
    #[default]
    Fhs,
    /// The same places, with one file of environment variables a component under
    /// `/etc/kubernetes`, and `/etc/kubernetes/config` for what all have in common.
    EnvironmentFiles,
    /// `/k8s/etcd` and `/k8s/kubernetes` with `bin`, `cfg` and `ssl` each, data in `/data1/etcd`.
    Classic,
}

/// Flags that components have in common where a layout keeps them in one file: flag, variable and
/// the components that take it; an empty list stands for all of them.
const SHARED: [(&str, &str, &[&str]); 4] = [
    ("logtostderr", "KUBE_LOGTOSTDERR", &[]),
    ("v", "KUBE_LOG_LEVEL", &[]),
    ("allow-privileged", "KUBE_ALLOW_PRIV", &["kube-apiserver"]),
    ("etcd-servers", "KUBE_ETCD_SERVERS", &["kube-apiserver"]),
];

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 3] = [Self::Fhs, Self::EnvironmentFiles, Self::Classic];

    /// The word in the inventory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fhs => "fhs",
            Self::EnvironmentFiles => "environment-files",
            Self::Classic => "classic",
        }
    }

    /// Whether this is what an inventory without the setting has.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether both keep certificates and data at the same places, so that a running cluster can
    /// go from one to the other by files and restarts alone.
    #[must_use]
    pub fn keeps_data_like(self, other: Self) -> bool {
        self.etcd_data() == other.etcd_data()
    }

    /// Folder of etcd's program.
    #[must_use]
    pub fn etcd_programs(self) -> &'static str {
        if self == Self::Classic { "/k8s/etcd/bin" } else { "/usr/local/bin" }
    }

    /// Folder of all other programs.
    #[must_use]
    pub fn programs(self) -> &'static str {
        if self == Self::Classic { "/k8s/kubernetes/bin" } else { "/usr/local/bin" }
    }

    /// Folder of etcd's settings.
    #[must_use]
    pub fn etcd_settings(self) -> &'static str {
        if self == Self::Classic { "/k8s/etcd/cfg" } else { "/etc/etcd" }
    }

    /// Folder of all other settings.
    #[must_use]
    pub fn settings(self) -> &'static str {
        if self == Self::Classic { "/k8s/kubernetes/cfg" } else { "/etc/kubernetes" }
    }

    /// Folder of etcd's certificates.
    #[must_use]
    pub fn etcd_certificates(self) -> &'static str {
        if self == Self::Classic { "/k8s/etcd/ssl" } else { "/etc/etcd/pki" }
    }

    /// Folder of all other certificates.
    #[must_use]
    pub fn certificates(self) -> &'static str {
        if self == Self::Classic { "/k8s/kubernetes/ssl" } else { "/etc/kubernetes/pki" }
    }

    /// Folder of etcd's data.
    #[must_use]
    pub fn etcd_data(self) -> &'static str {
        if self == Self::Classic { "/data1/etcd" } else { "/var/lib/etcd" }
    }

    /// Folder of static pods.
    #[must_use]
    pub fn manifests(self) -> String {
        format!("{}/manifests", self.settings())
    }

    /// The kubeconfig that a kubelet writes for itself.
    #[must_use]
    pub fn kubelet_kubeconfig(self) -> &'static str {
        match self {
            Self::Classic => "/k8s/kubernetes/cfg/kubelet.kubeconfig",
            Self::Fhs | Self::EnvironmentFiles => "/var/lib/kubelet/kubeconfig",
        }
    }

    /// Folder of the certificates that a kubelet gets for itself.
    #[must_use]
    pub fn kubelet_certificates(self) -> &'static str {
        match self {
            Self::Classic => "/k8s/kubernetes/ssl/kubelet",
            Self::Fhs | Self::EnvironmentFiles => "/var/lib/kubelet/pki",
        }
    }

    /// The kubelet's configuration.
    #[must_use]
    pub fn kubelet_configuration(self) -> String {
        let name = if self == Self::Classic { "kubelet.config" } else { "kubelet.yaml" };
        format!("{}/{name}", self.settings())
    }

    /// Paths of the certificate `stem` and of its key in `folder`.
    #[must_use]
    pub fn certificate(self, folder: &str, stem: &str) -> [String; 2] {
        match self {
            Self::Classic => [format!("{folder}/{stem}.pem"), format!("{folder}/{stem}-key.pem")],
            Self::Fhs | Self::EnvironmentFiles => {
                [format!("{folder}/{stem}.crt"), format!("{folder}/{stem}.key")]
            }
        }
    }

    /// The environment file of a component.
    #[must_use]
    pub fn environment(self, component: &str) -> String {
        if component == "etcd" {
            let name = if self == Self::Fhs { "etcd.env" } else { "etcd.conf" };
            return format!("{}/{name}", self.etcd_settings());
        }
        let folder = self.settings();
        match self {
            Self::Fhs => format!("{folder}/{component}.env"),
            Self::Classic => format!("{folder}/{component}"),
            Self::EnvironmentFiles => {
                format!("{folder}/{}", component.strip_prefix("kube-").unwrap_or(component))
            }
        }
    }

    /// The variable that holds a component's flags in its environment file.
    #[must_use]
    pub fn variable(self, component: &str) -> String {
        if self == Self::EnvironmentFiles && component == "kube-apiserver" {
            return "KUBE_API_ARGS".to_owned();
        }
        let name = component.to_ascii_uppercase().replace('-', "_");
        let end = if self == Self::EnvironmentFiles { "ARGS" } else { "OPTS" };
        format!("{name}_{end}")
    }

    /// The file of variables that all components read, where there is one.
    #[must_use]
    pub fn shared_environment(self) -> Option<String> {
        (self == Self::EnvironmentFiles).then(|| format!("{}/config", self.settings()))
    }

    /// The variables of [`Self::shared_environment`] that `component` uses, but for those whose
    /// flag it has of its own: no program takes a flag twice.
    pub fn shared_variables(
        self,
        component: &str,
        has_own: impl Fn(&str) -> bool,
    ) -> Vec<&'static str> {
        if self.shared_environment().is_none() || component == "etcd" {
            return Vec::new();
        }
        let takes = |only: &&[&str]| only.is_empty() || only.contains(&component);
        let shared = SHARED.iter().filter(|(flag, _, only)| takes(only) && !has_own(flag));
        shared.map(|(_, variable, _)| *variable).collect()
    }

    /// When systemd starts a component again.
    #[must_use]
    pub fn restart(self) -> &'static str {
        if self == Self::Classic { "on-failure" } else { "always" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_inventory() {
        for layout in Layout::ALL {
            let word = serde_json::to_value(layout).unwrap();
            assert_eq!(word, layout.as_str());
        }
    }

    #[test]
    fn only_layouts_with_data_at_one_place_lead_to_each_other() {
        assert!(Layout::Fhs.keeps_data_like(Layout::EnvironmentFiles));
        assert!(!Layout::Fhs.keeps_data_like(Layout::Classic));
    }

    #[test]
    fn a_flag_of_a_components_own_takes_the_place_of_the_shared_one() {
        let of = |component: &str, own: &str| {
            Layout::EnvironmentFiles.shared_variables(component, |flag| flag == own)
        };
        assert_eq!(of("kubelet", "v"), ["KUBE_LOGTOSTDERR"]);
        assert_eq!(of("kube-proxy", ""), ["KUBE_LOGTOSTDERR", "KUBE_LOG_LEVEL"]);
        assert_eq!(of("kube-apiserver", "").len(), 4);
        assert!(of("etcd", "").is_empty());
        assert!(Layout::Fhs.shared_variables("kubelet", |_| false).is_empty());
    }
}
