//! Deterministic components: the [`Machine`] contract, the [`Cache`] they read, the work queue of
//! every reconciler ([`Controller`]), and leader election.
//!
//! Nothing here waits, reads a clock or draws randomness of its own. A shell (`client` in
//! production, the simulator in virtual time) feeds inputs and carries out effects.

pub mod aspects;
pub mod backoff;
pub mod cache;
pub mod contract;
pub mod controller;
pub mod controller_manager;
pub mod index;
pub mod leader;
pub mod reconciler;
pub mod record;
pub mod recording;
pub mod rng;

pub use aspects::Aspects;
pub use backoff::Backoff;
pub use cache::{Cache, Delta};
pub use contract::{ApiEffect, ApiInput, CallId, Calls, Machine, WatchEvent};
pub use controller::Controller;
pub use controller_manager::ControllerManager;
pub use index::Index;
pub use leader::{Election, LeaderElector};
pub use reconciler::{Announcement, Answer, Memory, Plan, Reconciler};
pub use record::{Record, Recorder, Regarding, Report};
pub use recording::Recorded;
pub use rng::RngTree;
