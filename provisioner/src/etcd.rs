//! etcd as kprov sees it: who its members are, how they change, what they hold.
//!
//! Hosts have the etcd server and nothing else of etcd's, so kprov speaks to the members itself:
//! JSON over the HTTP gateway that every member of version 3.4 and later has on its client port,
//! through the SSH connection that is there anyway. No client library, no tool on the host.

pub mod births;
pub mod gateway;
pub mod membership;
pub mod network_key;
pub mod snapshot;
