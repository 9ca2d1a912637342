//! End-to-end tests: real hosts, the real `kprov` and `hyperkube`, the real kubectl.
//!
//! [`Cluster`] is a lab with an inventory of its own and the programs to act on it;
//! [`eventually`] waits for a condition with a deadline; [`Traffic`] is a client that writes and
//! reads while something happens, and counts what fails.

mod cluster;
mod inventory;
mod traffic;
mod wait;

pub use cluster::{Cluster, Outcome};
pub use inventory::{Inventory, Role};
pub use traffic::{Tally, Traffic};
pub use wait::eventually;
