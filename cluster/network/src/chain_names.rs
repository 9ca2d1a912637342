//! Names of the chains of a service, as kube-proxy forms them, so that its users and tools find
//! what they know.
//!
//! Source: Kubernetes 1.33, `pkg/proxy/iptables/proxier.go` and `pkg/proxy/nftables/proxier.go`.

use sha2::{Digest, Sha256};

use crate::{Endpoint, Protocol, ServiceName};

/// `namespace/name:port`, or `namespace/name` when the port has no name.
pub fn port_name(service: &ServiceName, port: &str) -> String {
    if port.is_empty() { service.to_string() } else { format!("{service}:{port}") }
}

/// The first `length` characters of the base32 form of a SHA-256 hash.
fn hash(text: &str, length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(text.as_bytes());
    (0..length)
        .map(|i| {
            let bit = i * 5;
            let pair = u16::from(digest[bit / 8]) << 8 | u16::from(digest[bit / 8 + 1]);
            let index = usize::from(pair >> (11 - bit % 8)) & 31;
            char::from(ALPHABET[index])
        })
        .collect()
}

/// Chain names of a service's port in iptables: a kind and a hash, since a name there is at
/// most 28 bytes.
#[derive(Clone, Debug)]
pub(crate) struct IptablesNames {
    key: String,
}

impl IptablesNames {
    pub(crate) fn new(service: &ServiceName, port: &str, protocol: Protocol) -> Self {
        Self { key: format!("{}{}", port_name(service, port), protocol.name()) }
    }

    /// The chain that balances over the endpoints of the whole cluster.
    pub(crate) fn cluster(&self) -> String {
        format!("KUBE-SVC-{}", hash(&self.key, 16))
    }

    /// The chain that balances over the endpoints of this node.
    pub(crate) fn local(&self) -> String {
        format!("KUBE-SVL-{}", hash(&self.key, 16))
    }

    /// The chain of traffic to node ports and external addresses.
    pub(crate) fn external(&self) -> String {
        format!("KUBE-EXT-{}", hash(&self.key, 16))
    }

    /// The chain that refuses sources outside of the load balancer's ranges.
    pub(crate) fn firewall(&self) -> String {
        format!("KUBE-FW-{}", hash(&self.key, 16))
    }

    /// The chain that sends traffic to one endpoint.
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> String {
        format!("KUBE-SEP-{}", hash(&format!("{}{endpoint}", self.key), 16))
    }
}

/// Chain names of a service's port in nftables: readable, with a hash against collisions.
#[derive(Clone, Debug)]
pub(crate) struct NftablesNames {
    base: String,
}

impl NftablesNames {
    pub(crate) fn new(service: &ServiceName, port: &str, protocol: Protocol) -> Self {
        let name = format!("{service}/{}/{port}", protocol.name());
        Self { base: name }
    }

    fn named(&self, kind: &str, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.base);
        format!("{kind}-{}-{name}", hash(&name, 8))
    }

    /// The chain that balances over the endpoints of the whole cluster.
    pub(crate) fn cluster(&self) -> String {
        self.named("service", "")
    }

    /// The chain that balances over the endpoints of this node.
    pub(crate) fn local(&self) -> String {
        self.named("local", "")
    }

    /// The chain of traffic to node ports and external addresses.
    pub(crate) fn external(&self) -> String {
        self.named("external", "")
    }

    /// The chain that refuses sources outside of the load balancer's ranges.
    pub(crate) fn firewall(&self) -> String {
        self.named("firewall", "")
    }

    /// The chain that sends traffic to one endpoint.
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> String {
        self.named("endpoint", &format!("__{}/{}", endpoint.address, endpoint.port))
    }

    /// The set of clients that stay with one endpoint.
    pub(crate) fn affinity(&self, endpoint: &Endpoint) -> String {
        self.named("affinity", &format!("__{}/{}", endpoint.address, endpoint.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kube_proxy() {
        // The service every cluster has; its chain name is known from countless listings.
        let service = ServiceName::new("default", "kubernetes");
        let names = IptablesNames::new(&service, "https", Protocol::Tcp);
        assert_eq!(names.cluster(), "KUBE-SVC-NPX46M4PTMTKRN6Y");
        let dns = ServiceName::new("kube-system", "kube-dns");
        let names = IptablesNames::new(&dns, "dns", Protocol::Udp);
        assert_eq!(names.cluster(), "KUBE-SVC-TCOU7JCQXEZGVUNU");
        assert!(names.external().len() < 29);
    }

    #[test]
    fn nftables_names_are_readable() {
        let service = ServiceName::new("ns1", "svc1");
        let names = NftablesNames::new(&service, "p80", Protocol::Tcp);
        assert_eq!(names.cluster(), "service-ULMVA6XW-ns1/svc1/tcp/p80");
        let endpoint = Endpoint { address: [10, 180, 0, 1].into(), port: 80 };
        assert_eq!(names.endpoint(&endpoint), "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
    }
}
