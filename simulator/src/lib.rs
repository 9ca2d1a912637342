//! The production scheduler, controllers, kubelet logic and API semantics under virtual time,
//! with faults, from a seed.
//!
//! A [`plan::Plan`] says what happens from outside; [`world::World`] runs it: it is the network,
//! the disks, the container runtimes and the clock between the very machines that production
//! runs. Nothing in here decides what a scheduler, a controller, a kubelet or an API server does.

pub mod bug;
pub mod chaos;
pub mod check;
pub mod checks;
pub mod cli;
pub mod compare;
pub mod distribution;
pub mod end_state;
pub mod finding;
pub mod meter;
pub mod oracle;
pub mod outcome;
pub mod plan;
pub mod queue;
pub mod recording;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod soak;
pub mod timeline;
pub mod trace;
pub mod workload;
pub mod world;

// The lengths of time that plans are made of.
pub use api::span;
