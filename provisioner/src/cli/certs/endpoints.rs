//! Every port of ours that speaks TLS, and how to ask it.

use crate::host::HttpsEndpoint;
use crate::inventory::{API_SERVER_PORT, Host, Inventory, Role};
use crate::pki::{LeafKind, Pki};
use crate::secret::Secret;

/// A TLS server on a host.
pub(super) struct Served {
    /// The host it runs on.
    pub(super) host: String,
    /// Whose certificate it shows: a kind of ours, or `kubelet` for the kubelet's own.
    pub(super) kind: &'static str,
    /// How to ask it; it trusts the one authority that signs in the present stage alone.
    pub(super) endpoint: HttpsEndpoint,
}

/// All TLS servers of the cluster, by host.
pub(super) fn all(inventory: &Inventory, pki: &Pki) -> Vec<Served> {
    let mut all = Vec::new();
    for host in &inventory.hosts {
        let address = host.address.to_string();
        let loopback = || "127.0.0.1".to_owned();
        let mut add = |kind: &'static str, address: String, port, path: &str, ca: &str, client| {
            let (path, ca) = (path.to_owned(), ca.to_owned());
            let endpoint = HttpsEndpoint { address, port, path, ca, client };
            all.push(Served { host: host.name.clone(), kind, endpoint });
        };
        if host.has(Role::Etcd) {
            let ca = &pki.etcd_ca.cert;
            let health = client(pki, LeafKind::EtcdHealth, host);
            add("etcd-server", address.clone(), 2379, "/health", ca, health);
            let peer = client(pki, LeafKind::EtcdPeer, host);
            add("etcd-peer", address.clone(), 2380, "/version", ca, peer);
        }
        let ca = &pki.cluster_ca.cert;
        if host.has(Role::Master) {
            add("apiserver", address.clone(), API_SERVER_PORT, "/livez", ca, None);
            add("controller-manager-serving", loopback(), 10257, "/healthz", ca, None);
            add("scheduler-serving", loopback(), 10259, "/healthz", ca, None);
        }
        if host.has(Role::Node) {
            add("kubelet", address, 10250, "/healthz", ca, None);
        }
    }
    all
}

fn client(pki: &Pki, kind: LeafKind, host: &Host) -> Option<(String, Secret)> {
    pki.leaf(kind, &host.name).map(|leaf| (leaf.cert.clone(), leaf.key.clone()))
}
