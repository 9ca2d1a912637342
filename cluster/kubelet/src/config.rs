//! What the kubelet is configured with.

use serde::{Deserialize, Serialize};

/// What the kubelet is configured with; loaded once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletConfig {
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: String,
    /// Labels given to the node when it registers and kept since.
    pub node_labels: Vec<(String, String)>,
    /// Taints given to the node when it registers: key, value, effect.
    pub register_taints: Vec<(String, String, String)>,
    /// Addresses of the cluster's name service.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain, without a dot at the end.
    pub cluster_domain: String,
    /// Pods that fit on the node.
    pub max_pods: u32,
    /// The pause image.
    pub pause_image: String,
    /// Where pod folders are, for example `/var/lib/kubelet`.
    pub root_dir: String,
    /// The port of the kubelet's own API.
    pub port: u16,
    /// `v1.33.0+kprov0.1.0`.
    pub version: String,
    /// CPU kept from pods, thousandths of a core.
    pub reserved_cpu_milli: i64,
    /// Memory kept from pods, bytes.
    pub reserved_memory_bytes: i64,
}

impl KubeletConfig {
    /// The folder of a pod.
    pub fn pod_folder(&self, uid: &str) -> String {
        [&*self.root_dir, "/pods/", uid].concat()
    }
}
