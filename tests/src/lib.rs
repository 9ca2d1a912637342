//! End-to-end tests: real hosts, the real `kprov` and `hyperkube`, the real kubectl.
//!
//! [`Cluster`] is a lab with an inventory of its own and the programs to act on it;
//! [`eventually`] waits for a condition with a deadline.

mod cluster;
mod inventory;
mod wait;

pub use cluster::{Cluster, Outcome};
pub use inventory::{Inventory, Role};
pub use wait::eventually;
