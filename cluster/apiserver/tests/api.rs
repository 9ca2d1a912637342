//! The API over HTTP, mostly on the store in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "api/cluster.rs"]
mod cluster;

#[path = "api/access.rs"]
mod access;
#[path = "api/etcd.rs"]
mod etcd;
#[path = "../../store/tests/conformance/etcd_process.rs"]
mod etcd_process;
#[path = "api/kubectl.rs"]
mod kubectl;
#[path = "api/kubelet.rs"]
mod kubelet;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/quotas.rs"]
mod quotas;
#[path = "api/versions.rs"]
mod versions;
#[path = "api/watches.rs"]
mod watches;
#[path = "api/writes.rs"]
mod writes;
