//! Real kernel, private network namespaces: needs root, `nft`, `iptables` and `ip`.
//!
//! Each test builds its own little network in namespaces that no other process sees, and that
//! end with the test.

#[cfg(test)]
#[path = "namespaces/namespace.rs"]
mod namespace;
#[cfg(test)]
#[path = "namespaces/overlay.rs"]
mod overlay;
#[cfg(test)]
#[path = "namespaces/services.rs"]
mod services;
