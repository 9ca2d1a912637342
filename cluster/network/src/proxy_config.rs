//! What the operator decides about the service proxy.

use ipnet::Ipv4Net;

/// The packet mark of traffic to be masqueraded: bit 14, as kube-proxy and the kubelet use it.
pub const MASQUERADE_MARK: u32 = 1 << 14;

/// What the operator decides about the service proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// The network of all pods. Traffic to a service from outside of it is masqueraded, so that
    /// answers come back through this node. `None`: no traffic to cluster addresses is.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Masquerades all traffic to cluster addresses.
    pub masquerade_all: bool,
}
