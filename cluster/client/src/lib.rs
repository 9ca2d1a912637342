//! The shell around components that speak to the API: a REST client with failover, list/watch,
//! and [`drive`], which runs any [`machine::Machine`] over both.
//!
//! It decides nothing about the cluster; it carries requests out and brings news in.

pub mod clock;
pub mod config;
pub mod connection;
pub mod drive;
pub mod kubeconfig;
pub mod rest;
pub mod unchecked;
pub mod watch;

pub use clock::Clock;
pub use config::{Config, ConfigError, Credentials, Pem};
pub use connection::{Client, SendError};
pub use drive::{Caller, Observe, drive};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use unchecked::Unchecked;
pub use watch::{WatchSpec, escape, watch};
