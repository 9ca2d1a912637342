//! The ranges of addresses that a new network must keep away from.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use bollard::models::Network;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::subnet::Subnet;

/// A range of addresses in use on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenRange {
    /// The addresses.
    pub range: Subnet,
    user: User,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum User {
    Network(String),
    Interface(String),
}

impl TakenRange {
    /// The range of a network of the outer Docker.
    pub(super) fn of_network(network: &Network) -> Option<Self> {
        let name = network.name.clone().unwrap_or_default();
        Some(Self { range: range_of(network)?, user: User::Network(name) })
    }

    /// The ranges that the kernel reaches through its interfaces, the loopback aside.
    pub(super) fn of_interfaces() -> io::Result<Vec<Self>> {
        let found = getifaddrs()?.filter_map(|interface| {
            if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                return None;
            }
            let ipv4 = |address: Option<nix::sys::socket::SockaddrStorage>| {
                Some(address?.as_sockaddr_in()?.ip())
            };
            let range = range_of_address(ipv4(interface.address)?, ipv4(interface.netmask)?);
            Some(Self { range, user: User::Interface(interface.interface_name) })
        });
        Ok(found.collect())
    }
}

impl fmt::Display for TakenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            User::Network(name) => write!(f, "{} of the Docker network {name}", self.range),
            User::Interface(name) => write!(
                f,
                "{} of the interface {name} of this machine; if nothing uses that any more: \
                 ip link delete {name}",
                self.range
            ),
        }
    }
}

/// The range of a network of Docker, if it has one of IPv4.
pub(super) fn range_of(network: &Network) -> Option<Subnet> {
    let config = network.ipam.as_ref()?.config.as_ref()?.first()?;
    config.subnet.as_ref()?.parse().ok()
}

fn range_of_address(address: Ipv4Addr, mask: Ipv4Addr) -> Subnet {
    let bits = mask.to_bits().leading_ones();
    Subnet::new(address, u8::try_from(bits).unwrap_or(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_takes_the_range_of_its_mask() {
        let range = |mask: [u8; 4]| {
            range_of_address(Ipv4Addr::new(10, 99, 1, 1), Ipv4Addr::from(mask)).to_string()
        };
        assert_eq!(range([255, 255, 255, 0]), "10.99.1.0/24");
        assert_eq!(range([255, 255, 254, 0]), "10.99.0.0/23");
        assert_eq!(range([255, 255, 255, 255]), "10.99.1.1/32");
    }

    #[test]
    fn the_loopback_takes_nothing() {
        let taken = TakenRange::of_interfaces().unwrap();
        let loopback = Subnet::new(Ipv4Addr::LOCALHOST, 8);
        assert!(!taken.iter().any(|taken| loopback.overlaps(taken.range)), "{taken:?}");
    }

    #[test]
    fn who_finds_a_range_taken_is_told_by_whom() {
        let range = Subnet::of_lab(1);
        let told = |user| TakenRange { range, user }.to_string();
        let network = told(User::Network("kprov-lab-ha".to_owned()));
        assert_eq!(network, "10.99.1.0/24 of the Docker network kprov-lab-ha");
        let interface = told(User::Interface("lab01234567".to_owned()));
        assert!(interface.ends_with("ip link delete lab01234567"), "{interface}");
    }
}
