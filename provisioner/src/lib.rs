//! kprov: turns an inventory into running hosts over SSH.
//!
//! The flow of an apply: [`state::HostState`] (what should be) and facts (what is) give a plan, a
//! pure value; executing it makes no choices. This crate never talks to a cluster's API beyond the
//! final question whether the nodes are ready and the label that tells masters from others; to etcd
//! it speaks about its members and for backups.

pub mod addons;
pub mod applicants;
pub mod artifacts;
pub mod backup;
pub mod bundle;
pub mod cli;
pub mod compose;
pub mod distribution;
pub mod etcd;
pub mod execute;
pub mod facts;
pub mod firewall;
pub mod host;
pub mod import;
pub mod kubeconfig;
pub mod last_known;
pub mod leave;
pub mod lock;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod probe;
pub mod program;
pub mod progress;
pub(crate) mod quote;
pub mod ready;
pub mod record;
pub mod render;
pub(crate) mod repository;
pub mod role_label;
pub mod run_log;
pub mod secret;
pub mod skew;
pub mod state;
pub mod step;
pub mod trace;
pub mod wait;

// What an inventory is made of is in a crate of its own, which the simulator reads, too.
pub use ::inventory;
pub use ::inventory::{digest, host_key, layout};
