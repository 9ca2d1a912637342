//! The kernel's links, routes, neighbours and forwarding entries, over rtnetlink.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use network::overlay_rules::{Backend, Mac, Overlay, OverlayChange, Peer, Route};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::{
    Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder,
};

/// The name of the vxlan device, as flannel calls it for network 1.
pub const DEVICE: &str = "flannel.1";
const VXLAN_ID: u32 = 1;
/// The port flannel uses: the kernel's default from before there was a standard one.
const VXLAN_PORT: u16 = 8472;
/// Marks our routes, so that those of others are never touched. Numbers from 5 on that the
/// kernel's headers do not name are free for use.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(88);

/// Why the kernel did not tell or do something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket can be opened.
    #[error("cannot open a netlink socket")]
    Connect(#[source] std::io::Error),
    /// A request failed.
    #[error("the kernel refused to {action}")]
    Refused {
        /// What was asked.
        action: String,
        /// Why not.
        #[source]
        source: rtnetlink::Error,
    },
    /// The host has no link with its own address.
    #[error("no link has the address {0}")]
    NoUnderlay(Ipv4Addr),
    /// The vxlan device is gone right after it was made.
    #[error("the device {DEVICE} went away")]
    DeviceGone,
    /// A link that others make is not there.
    #[error("there is no link {0}")]
    Gone(&'static str),
    /// A setting could not be set.
    #[error("cannot set {name}")]
    Setting {
        /// The setting.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

pub(super) fn refused(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> KernelError {
    let action = action.into();
    move |source| KernelError::Refused { action, source }
}

/// The link that carries traffic between hosts.
#[derive(Clone, Copy, Debug)]
pub struct Underlay {
    /// Its index.
    pub index: u32,
    /// Its largest packet in bytes.
    pub mtu: u32,
}

/// The vxlan device as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// This node.
    pub own: Peer,
    /// The largest packet of pods in bytes.
    pub mtu: u32,
    /// The link below it.
    pub underlay: Underlay,
}

/// A connection to the kernel.
pub struct Kernel {
    pub(super) handle: Handle,
}

impl Kernel {
    /// Connects to the kernel of the present network namespace.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn connect() -> Result<Self, KernelError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(KernelError::Connect)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Finds the link that has the host's address.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn underlay(&self, host: Ipv4Addr) -> Result<Underlay, KernelError> {
        let mut addresses = self.handle.address().get().execute();
        let mut index = None;
        while let Some(address) = addresses.try_next().await.map_err(refused("list addresses"))? {
            let is_host = address
                .attributes
                .iter()
                .any(|a| matches!(a, AddressAttribute::Local(IpAddr::V4(ip)) if *ip == host));
            if is_host {
                index = Some(address.header.index);
            }
        }
        let index = index.ok_or(KernelError::NoUnderlay(host))?;
        let links = self.links().await?;
        let link = links.iter().find(|link| link.header.index == index);
        let mtu = link.and_then(mtu_of).ok_or(KernelError::NoUnderlay(host))?;
        Ok(Underlay { index, mtu })
    }

    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, KernelError> {
        self.handle.link().get().execute().try_collect().await.map_err(refused("list links"))
    }

    /// Makes the vxlan device unless it is there as it should be. Returns its index.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn ensure_vxlan(&self, device: &Device) -> Result<u32, KernelError> {
        let mac = Mac::of_host(device.own.host);
        let there = find(&self.links().await?, DEVICE).cloned();
        let link = match there {
            Some(link) if is_vxlan(&link, device, mac) => link,
            other => {
                if let Some(other) = other {
                    self.remove_link(other.header.index).await?;
                }
                self.add_vxlan(device, mac).await?;
                tracing::info!(device = DEVICE, %mac, mtu = device.mtu, "device made");
                find(&self.links().await?, DEVICE).cloned().ok_or(KernelError::DeviceGone)?
            }
        };
        let index = link.header.index;
        if mtu_of(&link) != Some(device.mtu) || !link.header.flags.contains(LinkFlags::Up) {
            let message = LinkUnspec::new_with_index(index).mtu(device.mtu).up().build();
            let result = self.handle.link().set(message).execute().await;
            result.map_err(refused(format!("set {DEVICE} up")))?;
        }
        self.ensure_address(DEVICE, index, device.own.pods.network().into()).await?;
        Ok(index)
    }

    async fn add_vxlan(&self, device: &Device, mac: Mac) -> Result<(), KernelError> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(DEVICE)
            .id(VXLAN_ID)
            .dev(device.underlay.index)
            .local(device.own.host)
            .port(VXLAN_PORT)
            .learning(false)
            .address(mac.0.to_vec())
            .mtu(device.mtu)
            .up()
            .build();
        let result = self.handle.link().add(message).execute().await;
        result.map_err(refused(format!("make the vxlan device {DEVICE}")))
    }

    /// Gives a device its one address. With a full prefix it brings no route along.
    pub(super) async fn ensure_address(
        &self,
        device: &str,
        index: u32,
        wanted: Ipv4Net,
    ) -> Result<(), KernelError> {
        let (address, prefix) = (wanted.addr(), wanted.prefix_len());
        let request = self.handle.address().get().set_link_index_filter(index);
        let addresses: Vec<_> =
            request.execute().try_collect().await.map_err(refused("list addresses"))?;
        let mut there = false;
        for other in addresses {
            if other.header.index != index || other.header.family != AddressFamily::Inet {
                continue;
            }
            let is_wanted = other.header.prefix_len == prefix
                && other.attributes.iter().any(
                    |a| matches!(a, AddressAttribute::Local(IpAddr::V4(ip)) if *ip == address),
                );
            if is_wanted {
                there = true;
            } else {
                let result = self.handle.address().del(other).execute().await;
                result.map_err(refused(format!("remove an address of {device}")))?;
            }
        }
        if !there {
            let request = self.handle.address().add(index, address.into(), prefix);
            let result = request.execute().await;
            result.map_err(refused(format!("give {device} the address {address}")))?;
        }
        Ok(())
    }

    /// Removes the vxlan device, and with it its routes, if it is there.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn remove_vxlan(&self) -> Result<(), KernelError> {
        let index = find(&self.links().await?, DEVICE).map(|link| link.header.index);
        match index {
            Some(index) => self.remove_link(index).await,
            None => Ok(()),
        }
    }

    async fn remove_link(&self, index: u32) -> Result<(), KernelError> {
        let result = self.handle.link().del(index).execute().await;
        result.map_err(refused(format!("remove {DEVICE}")))
    }

    /// Reads what the kernel holds of the overlay on a link.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn overlay(&self, backend: Backend, link: u32) -> Result<Overlay, KernelError> {
        let routes = self.our_routes().await?;
        let on_link = routes.iter().filter(|(_, index, _)| *index == link);
        let mut overlay = Overlay {
            routes: on_link.map(|(route, ..)| (route.pods, route.via)).collect(),
            ..Overlay::default()
        };
        if backend != Backend::HostGw {
            overlay.neighbours = self.neighbours(link).await?;
        }
        if backend == Backend::Vxlan {
            overlay.forwarding = self.forwarding(link).await?;
        }
        Ok(overlay)
    }

    /// All routes with our mark, with the index of their link.
    async fn our_routes(&self) -> Result<Vec<(Route, u32, RouteMessage)>, KernelError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(refused("list routes"))?;
        Ok(routes
            .into_iter()
            .filter(|r| {
                r.header.protocol == ROUTE_PROTOCOL && r.header.table == RouteHeader::RT_TABLE_MAIN
            })
            .filter_map(|message| {
                let (route, index) = parse_route(&message)?;
                Some((route, index, message))
            })
            .collect())
    }

    /// Removes all routes with our mark.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn remove_routes(&self) -> Result<(), KernelError> {
        for (route, _, message) in self.our_routes().await? {
            let result = self.handle.route().del(message).execute().await;
            result.map_err(refused(format!("remove the route to {}", route.pods)))?;
        }
        Ok(())
    }

    pub(super) async fn neighbours(
        &self,
        link: u32,
    ) -> Result<BTreeMap<Ipv4Addr, Mac>, KernelError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet);
        let all: Vec<NeighbourMessage> =
            request.execute().try_collect().await.map_err(refused("list neighbours"))?;
        Ok(all
            .iter()
            .filter(|n| n.header.ifindex == link && n.header.state == NeighbourState::Permanent)
            .filter_map(|n| Some((destination_of(n)?, mac_of(n)?)))
            .collect())
    }

    async fn forwarding(&self, link: u32) -> Result<BTreeMap<Mac, Ipv4Addr>, KernelError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let all: Vec<NeighbourMessage> =
            request.execute().try_collect().await.map_err(refused("list forwarding entries"))?;
        Ok(all
            .iter()
            .filter(|n| n.header.ifindex == link)
            .filter_map(|n| Some((mac_of(n)?, destination_of(n)?)))
            .collect())
    }

    /// Makes one change on a link.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn apply(&self, link: u32, change: OverlayChange) -> Result<(), KernelError> {
        let neighbours = self.handle.neighbours();
        let result = match change {
            OverlayChange::PutForwarding { mac, host } => {
                let request = neighbours
                    .add_bridge(link, &mac.0)
                    .destination(host.into())
                    .flags(NeighbourFlags::Own);
                request.replace().execute().await
            }
            OverlayChange::PutNeighbour { address, mac } => {
                let request = neighbours.add(link, address.into()).link_layer_address(&mac.0);
                request.replace().execute().await
            }
            OverlayChange::PutRoute(route) => {
                self.handle.route().add(route_message(route, link)).replace().execute().await
            }
            OverlayChange::RemoveRoute(route) => {
                self.handle.route().del(route_message(route, link)).execute().await
            }
            OverlayChange::RemoveNeighbour { address, mac } => {
                let mut request = neighbours.add(link, address.into()).link_layer_address(&mac.0);
                let message = request.message_mut().clone();
                neighbours.del(message).execute().await
            }
            OverlayChange::RemoveForwarding { mac, host } => {
                let mut request = neighbours
                    .add_bridge(link, &mac.0)
                    .destination(host.into())
                    .flags(NeighbourFlags::Own);
                let message = request.message_mut().clone();
                neighbours.del(message).execute().await
            }
        };
        result.map_err(refused(format!("make the change {change:?}")))
    }

    /// Lets the bridge send packets back out of the port they came from, for pods that reach
    /// themselves through a service.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn ensure_hairpin(&self, bridge: &str) -> Result<(), KernelError> {
        let links = self.links().await?;
        let Some(bridge) = find(&links, bridge) else { return Ok(()) };
        // Not the switch: what it has sent must not go back to it.
        let switch = find(&links, network::switch::BRIDGE).map(|link| link.header.index);
        let ports = links.iter().filter(|link| Some(link.header.index) != switch);
        for port in ports.filter(|link| needs_hairpin(link, bridge.header.index)) {
            let message = LinkBridgePort::new(port.header.index).hairpin(true).build();
            let result = self.handle.link().set_port(message).execute().await;
            match result {
                Ok(()) => {}
                // Containers that ended meanwhile took their links along.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(refused("set a bridge port to hairpin mode")(error)),
            }
        }
        Ok(())
    }
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(error) = error else { return false };
    let code = error.raw_code().abs();
    [nix::errno::Errno::ENODEV, nix::errno::Errno::ENXIO].iter().any(|e| *e as i32 == code)
}

pub(super) fn find<'a>(links: &'a [LinkMessage], name: &str) -> Option<&'a LinkMessage> {
    links.iter().find(|link| {
        link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name))
    })
}

pub(super) fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn link_infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .filter_map(|a| match a {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

/// Whether the link is the vxlan device that is wanted, but for what can be changed in place.
fn is_vxlan(link: &LinkMessage, device: &Device, mac: Mac) -> bool {
    let has_mac = link
        .attributes
        .iter()
        .any(|a| matches!(a, LinkAttribute::Address(address) if *address == mac.0));
    let is_vxlan = link_infos(link).any(|info| matches!(info, LinkInfo::Kind(InfoKind::Vxlan)));
    let settings: Vec<&InfoVxlan> = link_infos(link)
        .filter_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(settings)) => Some(settings),
            _ => None,
        })
        .flatten()
        .collect();
    has_mac
        && is_vxlan
        && [
            InfoVxlan::Id(VXLAN_ID),
            InfoVxlan::Link(device.underlay.index),
            InfoVxlan::Local(device.own.host),
            InfoVxlan::Port(VXLAN_PORT),
            InfoVxlan::Learning(false),
        ]
        .iter()
        .all(|wanted| settings.contains(&wanted))
}

/// Whether the link is a port of the bridge without hairpin mode.
fn needs_hairpin(link: &LinkMessage, bridge: u32) -> bool {
    let is_port =
        link.attributes.iter().any(|a| matches!(a, LinkAttribute::Controller(c) if *c == bridge));
    is_port
        && !link_infos(link).any(|info| {
            matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(settings))
                if settings.contains(&InfoBridgePort::HairpinMode(true)))
        })
}

fn parse_route(message: &RouteMessage) -> Option<(Route, u32)> {
    let (mut network, mut via, mut index) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => network = Some(*ip),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
            RouteAttribute::Oif(link) => index = Some(*link),
            _ => {}
        }
    }
    let pods = Ipv4Net::new(network?, message.header.destination_prefix_length).ok()?;
    Some((Route { pods, via: via? }, index?))
}

fn route_message(route: Route, link: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.pods.network(), route.pods.prefix_len())
        .gateway(route.via)
        .output_interface(link)
        .protocol(ROUTE_PROTOCOL)
        // The next hop is in no network of the link; the neighbour entry says where it is.
        .onlink()
        .build()
}

fn destination_of(neighbour: &NeighbourMessage) -> Option<Ipv4Addr> {
    neighbour.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        // Of the bridge family the address comes as bytes.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

fn mac_of(neighbour: &NeighbourMessage) -> Option<Mac> {
    neighbour.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}
