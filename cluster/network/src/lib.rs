//! What a node's network should look like, as data: the rules that make services reachable
//! ([`RuleSet`]) and the routes that connect the pod networks of all nodes ([`Overlay`]).
//!
//! Each has a `desired` state computed from API objects, a `diff` to it, and renderers that
//! turn both into text for `nft` and `iptables-restore`. [`balancer`] decides which API server a
//! node's connections go to, and [`dns`] what names stand for. Nothing here runs a program, opens a
//! socket or reads the kernel's state; the crate `node` does.

pub mod balancer;
pub mod chain_names;
pub mod dns;
pub mod flows;
pub mod iptables;
pub mod nftables;
pub mod overlay_firewall;
pub mod overlay_rules;
pub mod proxy_config;
pub mod service_rules;
pub mod switch;

pub use flows::{Flow, FlowCheck};
pub use overlay_rules::{Backend, Overlay, OverlayChange};
pub use proxy_config::ProxyConfig;
pub use service_rules::{
    Endpoint, PortRules, Protocol, RuleChange, RuleSet, ServiceName, ServiceRules,
};
