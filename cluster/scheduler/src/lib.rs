//! Which node a pod goes to: a queue, a view of the cluster in compact rows, and plugins at
//! Kubernetes' extension points, as one deterministic [`Scheduler`] machine.
//!
//! It knows nothing of HTTP or clocks; ties are broken by an injected seeded generator.

mod attachments;
pub mod census;
pub mod configuration;
pub mod cycle;
pub mod desk;
pub mod disk;
pub mod explain;
pub mod extender;
pub mod fast;
pub mod framework;
pub mod group;
mod lean;
pub mod node_info;
pub mod plugin_args;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod profile;
pub mod queue;
pub mod relations;
pub mod resources;
pub mod scheduler;
pub mod shadow;
pub mod snapshot;
pub mod survey;
pub mod volumes;

pub use configuration::{Configuration, ConfigurationError, ExtenderTls};
pub use cycle::{Choice, Diagnosis, Question};
pub use desk::{Desk, SchedulerConfig};
pub use explain::{Explanation, Unexplained};
pub use extender::{ExtenderConfig, ManagedResource};
pub use fast::Fast;
pub use framework::{Enabled, Plugin, Score, Verdict};
pub use node_info::NodeInfo;
pub use plugin_args::PluginArgs;
pub use pod_info::{Classes, PodClass, PodInfo, Standing};
pub use preemption::Preemption;
pub use profile::{Profile, ProfileConfig, ProfileError};
pub use relations::{Kin, Presence};
pub use scheduler::{Decision, Scheduler};
pub use shadow::Shadow;
pub use snapshot::Snapshot;
pub use survey::{Refusal, Survey};
