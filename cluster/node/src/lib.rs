//! The node's side of the cluster that touches the machine: Docker, netlink, packet filters.
//!
//! It carries out what the pure crates `kubelet` and `network` decide; it decides nothing.

pub mod accept;
pub mod apiserver_proxy;
pub mod bootstrap;
pub mod cluster_dns;
pub mod docker;
pub mod hollow;
pub mod host_probe;
mod kernel_setting;
pub mod kubelet_agent;
pub mod kubelet_server;
pub mod kubelet_shell;
pub mod node_facts;
pub mod overlay;
pub mod packet_filter;
pub mod plain_health;
pub mod probes;
mod program;
pub mod proxy;
pub mod volumes;
