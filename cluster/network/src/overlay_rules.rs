//! How a node reaches the pods of the others: [`Overlay::desired`] computes it from the nodes of
//! the cluster, [`diff`] finds what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use api::meta;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

#[cfg(test)]
mod tests;

/// Bytes that vxlan adds to a packet: outer Ethernet, IPv4, UDP and vxlan headers.
pub const VXLAN_OVERHEAD: u32 = 50;
/// Bytes that a GRE tunnel of Open vSwitch adds: the pod's Ethernet header, GRE and IPv4.
pub const GRE_OVERHEAD: u32 = 38;
/// Lets a node be reached at another address than its internal one, as with flannel.
const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip-overwrite";

/// How packets between pods of different nodes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Inside UDP packets between the hosts; works wherever hosts reach each other.
    Vxlan,
    /// As they are, routed by the hosts; all hosts must share one link.
    HostGw,
    /// Inside GRE packets of Open vSwitch, a tunnel to each host; see [`crate::switch`].
    OvsGre,
}

impl Backend {
    /// Bytes that it adds to a packet of a pod.
    pub const fn overhead(self) -> u32 {
        match self {
            Self::Vxlan => VXLAN_OVERHEAD,
            Self::HostGw => 0,
            Self::OvsGre => GRE_OVERHEAD,
        }
    }
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of a node's vxlan device, or of its bridge behind the switch. It follows from
    /// the node's address, so that others know it without being told; the first byte marks it as
    /// locally administered.
    pub const fn of_host(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x0a, 0x58, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A node as the overlay sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The network of its pods.
    pub pods: Ipv4Net,
    /// The address of the host.
    pub host: Ipv4Addr,
}

impl Peer {
    /// Reads a node; `None` until it has a pod network and an address.
    pub fn of_node(node: &Node) -> Option<Self> {
        let pods = pod_network(node)?;
        let host = match meta::annotation(&node.metadata, PUBLIC_IP) {
            Some(address) => address.parse().ok()?,
            None => internal_address(node)?,
        };
        Some(Self { pods, host })
    }
}

/// The first IPv4 network among a node's pod networks.
pub fn pod_network(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let mut networks = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    networks.find_map(|text| text.parse::<Ipv4Net>().ok()).map(|network| network.trunc())
}

fn internal_address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok())
}

/// A way to the pods of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The pods.
    pub pods: Ipv4Net,
    /// The next hop: the other host, its end of the vxlan, or its bridge.
    pub via: Ipv4Addr,
}

/// All that a node needs to reach the pods of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Routes by pod network.
    pub routes: BTreeMap<Ipv4Net, Ipv4Addr>,
    /// Hardware addresses by next hop; not for host-gw, where the hosts ask for them.
    pub neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// Hosts by the hardware address of their vxlan device; only for vxlan.
    pub forwarding: BTreeMap<Mac, Ipv4Addr>,
}

impl Overlay {
    /// What the node `own` needs to reach `peers`, which may include itself.
    pub fn desired(backend: Backend, own: Peer, peers: impl IntoIterator<Item = Peer>) -> Self {
        let mut overlay = Self::default();
        for peer in distinct(own, peers) {
            let mac = Mac::of_host(peer.host);
            match backend {
                Backend::HostGw => {
                    overlay.routes.insert(peer.pods, peer.host);
                }
                Backend::Vxlan => {
                    // The other end of the vxlan has the network's own address.
                    let via = peer.pods.network();
                    overlay.routes.insert(peer.pods, via);
                    overlay.neighbours.insert(via, mac);
                    overlay.forwarding.insert(mac, peer.host);
                }
                Backend::OvsGre => {
                    // The switch forwards by hardware address, so nobody has to ask for it.
                    let via = gateway(peer.pods);
                    overlay.routes.insert(peer.pods, via);
                    overlay.neighbours.insert(via, mac);
                }
            }
        }
        overlay
    }

    /// Makes one change.
    pub fn apply(&mut self, change: OverlayChange) {
        match change {
            OverlayChange::PutForwarding { mac, host } => {
                self.forwarding.insert(mac, host);
            }
            OverlayChange::PutNeighbour { address, mac } => {
                self.neighbours.insert(address, mac);
            }
            OverlayChange::PutRoute(route) => {
                self.routes.insert(route.pods, route.via);
            }
            OverlayChange::RemoveRoute(route) => {
                self.routes.remove(&route.pods);
            }
            OverlayChange::RemoveNeighbour { address, .. } => {
                self.neighbours.remove(&address);
            }
            OverlayChange::RemoveForwarding { mac, .. } => {
                self.forwarding.remove(&mac);
            }
        }
    }
}

/// The other nodes that `own` can reach, without itself.
///
/// Pod networks that overlap with its own or an earlier one are left out: a packet can go one way
/// only, and the pods of this node must stay reachable whatever others claim.
pub fn distinct(own: Peer, peers: impl IntoIterator<Item = Peer>) -> Vec<Peer> {
    let mut reached: Vec<Peer> = Vec::new();
    for peer in peers {
        let overlaps = reached.iter().chain([&own]).any(|other| {
            other.pods.contains(&peer.pods.network()) || peer.pods.contains(&other.pods.network())
        });
        if !overlaps && peer.host != own.host {
            reached.push(peer);
        }
    }
    reached
}

/// The address of the bridge of a node's pods.
pub fn gateway(pods: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pods.network()).saturating_add(1))
}

/// One change of the kernel's state. Each `Put` replaces what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the fields are those of `Overlay` and `Route`")]
pub enum OverlayChange {
    /// Frames to `mac` go to `host`.
    PutForwarding { mac: Mac, host: Ipv4Addr },
    /// The next hop `address` has the hardware address `mac`.
    PutNeighbour { address: Ipv4Addr, mac: Mac },
    /// Packets to pods take this route.
    PutRoute(Route),
    /// The route goes.
    RemoveRoute(Route),
    /// The next hop goes.
    RemoveNeighbour { address: Ipv4Addr, mac: Mac },
    /// The entry goes.
    RemoveForwarding { mac: Mac, host: Ipv4Addr },
}

/// The changes that turn `current` into `desired`, in an order that never routes into the void:
/// what a route needs is put before it and removed after it.
pub fn diff(current: &Overlay, desired: &Overlay) -> Vec<OverlayChange> {
    let mut changes = Vec::new();
    for (mac, host) in missing(&desired.forwarding, &current.forwarding) {
        changes.push(OverlayChange::PutForwarding { mac, host });
    }
    for (address, mac) in missing(&desired.neighbours, &current.neighbours) {
        changes.push(OverlayChange::PutNeighbour { address, mac });
    }
    for (pods, via) in missing(&desired.routes, &current.routes) {
        changes.push(OverlayChange::PutRoute(Route { pods, via }));
    }
    for (pods, via) in gone(&current.routes, &desired.routes) {
        changes.push(OverlayChange::RemoveRoute(Route { pods, via }));
    }
    for (address, mac) in gone(&current.neighbours, &desired.neighbours) {
        changes.push(OverlayChange::RemoveNeighbour { address, mac });
    }
    for (mac, host) in gone(&current.forwarding, &desired.forwarding) {
        changes.push(OverlayChange::RemoveForwarding { mac, host });
    }
    changes
}

/// Entries of `wanted` that `there` has not, or has with another value.
fn missing<'a, K: Ord + Copy, V: PartialEq + Copy>(
    wanted: &'a BTreeMap<K, V>,
    there: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    wanted.iter().filter(|(k, v)| there.get(k) != Some(*v)).map(|(k, v)| (*k, *v))
}

/// Entries of `there` whose key is not in `wanted`.
fn gone<'a, K: Ord + Copy, V: Copy>(
    there: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    let kept: BTreeSet<K> = wanted.keys().copied().collect();
    there.iter().filter(move |(k, _)| !kept.contains(k)).map(|(k, v)| (*k, *v))
}

/// What pod networks of this node look like to whom sets them up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network of all pods of the cluster.
    pub network: Ipv4Net,
    /// The network of this node's pods.
    pub pods: Ipv4Net,
    /// The largest packet that fits, in bytes.
    pub mtu: u32,
    /// Whether traffic of pods that leaves the cluster is masqueraded.
    pub masquerade: bool,
}

impl Subnet {
    /// The address of the bridge of this node's pods.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.pods)
    }

    /// The environment file that tells others: `FLANNEL_SUBNET` is the bridge's address with
    /// the length of the network's prefix, and `DOCKER_NETWORK_OPTIONS` what puts Docker's own
    /// bridge there. Only one of the two masquerades.
    pub fn environment(&self) -> String {
        let Self { network, pods, mtu, masquerade } = self;
        let bridge = format!("{}/{}", self.gateway(), pods.prefix_len());
        let docker = format!("--bip={bridge} --ip-masq={} --mtu={mtu}", !masquerade);
        format!(
            "FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={bridge}\nFLANNEL_MTU={mtu}\n\
             FLANNEL_IPMASQ={masquerade}\nDOCKER_NETWORK_OPTIONS=\"{docker}\"\n"
        )
    }
}
