//! End-to-end tests: real hosts, the real `kprov` and `hyperkube`, the real kubectl.
//!
//! [`Cluster`] is a lab with an inventory of its own and the programs to act on it;
//! [`eventually`] waits for a condition with a deadline; [`Traffic`] is a client that writes and
//! reads while something happens, and counts what fails. [`Bare`] is what hosts were before.

mod agents;
mod bare;
mod cluster;
mod inventory;
mod traffic;
mod wait;

pub use agents::pods_reach_each_other;
pub use bare::{Bare, nothing_is_left_to_do};
pub use cluster::{Cluster, Outcome};
pub use inventory::{Inventory, Role};
pub use traffic::{Tally, Traffic};
pub use wait::eventually;
