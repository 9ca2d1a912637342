//! The API server: HTTP over TLS in front of `registry::admit` and the store.
//!
//! A request is authenticated, authorized and routed; a write is decided by
//! [`registry::admit()`] and committed by compare-and-swap; a read is served from the watch cache
//! ([`registry::window`]), after the cache has reached the store's revision when the read must
//! be consistent. Start it with [`run`]. Decisions are not made here.

mod answer;
mod authenticate;
mod body;
mod bootstrap;
mod config;
mod discovery;
mod documents;
mod evict;
mod expiry;
mod handle;
mod health;
mod hub;
mod kubelet;
mod last_use;
mod masters;
mod metrics;
mod negotiate;
mod openapi;
mod present;
mod query;
mod read;
mod review;
mod route;
mod serve;
mod server;
mod service_account;
mod start;
mod tls;
mod token_request;
mod usage;
mod watching;
mod write;

pub use config::{Config, Kubelets, ServiceAccounts, StoreConfig, Tls};
pub use serve::run;
pub use start::StartError;
