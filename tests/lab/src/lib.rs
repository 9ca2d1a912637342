//! Real Linux hosts on one machine: containers that run systemd and sshd, each with its own
//! network stack, control groups and nested Docker.
//!
//! [`Lab::up`] is the way in: it starts an outer Docker where none runs, builds the hosts' image
//! once, makes a network with fixed addresses and boots the hosts; [`Lab::exec`], [`Lab::fault`]
//! and [`Lab::snapshot`] are what tests do with them, and [`Lab::down`] removes what was made,
//! recognised by its labels, and nothing else. [`test_images`] writes the container images that
//! the tests deploy.
//!
//! ```no_run
//! # async fn example() -> Result<(), lab::LabError> {
//! use lab::{Fault, Lab, LabOptions};
//!
//! let lab = Lab::up(LabOptions::for_test("example", 3)).await?;
//! let before = lab.snapshot("node-1").await?;
//! lab.run("node-1", &["systemctl", "restart", "docker"]).await?;
//! lab.fault("node-3", Fault::Kill).await?;
//! assert!(before.diff(&lab.snapshot("node-1").await?).is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! It does not know anything about kprov or Kubernetes: the hosts are bare.

mod container;
mod docker_archive;
mod dockerd;
mod exec;
mod fault;
mod host_image;
mod host_kind;
mod key_pair;
mod lab;
mod options;
mod recipe;
mod snapshot;
mod subnet;
pub mod test_images;

pub use docker_archive::{DockerArchive, Entry};
pub use dockerd::{DaemonError, Dockerd};
pub use exec::{ExecOptions, Output};
pub use fault::Fault;
pub use host_image::HostImageError;
pub use host_kind::{HostKind, NoSuchKind};
pub use lab::{Host, HostState, Lab, LabError, TakenRange};
pub use options::{LabOptions, workspace_root};
pub use recipe::Recipe;
pub use snapshot::{Difference, Snapshot};
pub use subnet::{ParseSubnetError, Subnet};
