//! The node agent as a state machine: which pods run, how they start, are probed, restarted and
//! ended, and what the API is told about them and about the node.
//!
//! The main type is [`Kubelet`], a [`machine::Machine`] over [`NodeInput`] and [`NodeEffect`].
//! It speaks of containers, volumes and probes as data ([`RuntimeRequest`]); Docker, files and
//! sockets are the shell's (crate `node`). Where there are no containers, in simulations and on
//! hollow nodes, [`container_runtime`] stands in for Docker.

pub mod config;
pub mod container_runtime;
pub mod kubelet;
pub mod naming;
pub mod runtime;
pub mod volume;

mod admission;
mod calls;
mod claim_source;
mod config_source;
mod container_spec;
mod context;
mod environment;
mod images;
mod instance;
mod labels;
mod local_volumes;
mod mirror;
mod node_agent;
mod node_status;
mod occupancy;
mod orphans;
mod pod_dns;
mod pod_fields;
mod pod_status;
mod pod_worker;
mod probe;
mod probing;
mod replies;
mod resources;
mod start;
mod sync;
mod termination;
mod volume_source;
mod watched;
mod workers;

pub use config::KubeletConfig;
pub use kubelet::Kubelet;
pub use labels::Labels;
pub use runtime::{
    NodeEffect, NodeInput, RuntimeError, RuntimeErrorKind, RuntimeEvent, RuntimeInput,
    RuntimeReply, RuntimeRequest,
};
