//! Which node a pod goes to: a queue, a view of the cluster in compact rows, and plugins at
//! Kubernetes' extension points, as one deterministic [`Scheduler`] machine.
//!
//! It knows nothing of HTTP or clocks; ties are broken by an injected seeded generator.

pub mod cycle;
pub mod framework;
pub mod plugins;
pub mod queue;
pub mod resources;
pub mod rows;
pub mod scheduler;
pub mod snapshot;

pub use cycle::{Choice, Diagnosis};
pub use framework::{Plugin, Score, Verdict};
pub use rows::{NodeInfo, PodInfo};
pub use scheduler::{Profile, Scheduler};
pub use snapshot::Snapshot;
