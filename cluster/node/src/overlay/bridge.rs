//! The kernel's side of the switch: the bridge of pods that its tunnels are a port of, and the way
//! out for a switch that forwards by itself.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use network::overlay_rules::{Mac, Peer, gateway};
use network::switch::{self, INNER, INNER_GATEWAY, INNER_PREFIX, UPLINK_MAC};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::kernel::{Kernel, KernelError, find, mtu_of, refused};
use crate::kernel_setting;

/// The bridge of pods as it should be.
#[derive(Clone, Copy, Debug)]
pub struct PodBridgeLink {
    /// Its name.
    pub name: &'static str,
    /// This node.
    pub own: Peer,
    /// The largest packet of pods in bytes.
    pub mtu: u32,
}

impl Kernel {
    /// Makes the bridge of pods, unless it is there as it should be, and the switch a port of it.
    /// Returns the index of the bridge.
    ///
    /// # Errors
    /// The kernel refuses a request, or the switch has not made its port.
    pub async fn ensure_pod_bridge(&self, bridge: &PodBridgeLink) -> Result<u32, KernelError> {
        let (name, mac) = (bridge.name, Mac::of_host(bridge.own.host));
        if find(&self.links().await?, name).is_none() {
            let message =
                LinkBridge::new(name).address(mac.0.to_vec()).mtu(bridge.mtu).up().build();
            let made = self.handle.link().add(message).execute().await;
            made.map_err(refused(format!("make the bridge {name}")))?;
            tracing::info!(bridge = name, %mac, mtu = bridge.mtu, "bridge made");
        }
        let links = self.links().await?;
        let link = find(&links, name).ok_or(KernelError::Gone(name))?;
        let index = link.header.index;
        if !is_like(link, bridge.mtu, Some(mac)) {
            let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec());
            let message = message.mtu(bridge.mtu).up().build();
            let set = self.handle.link().set(message).execute().await;
            set.map_err(refused(format!("set up {name}")))?;
        }
        let port = find(&links, switch::BRIDGE).ok_or(KernelError::Gone(switch::BRIDGE))?;
        let is_port = port
            .attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::Controller(bridge) if *bridge == index));
        if !is_port || !is_like(port, bridge.mtu, None) {
            let message = LinkUnspec::new_with_index(port.header.index);
            let message = message.controller(index).mtu(bridge.mtu).up().build();
            let set = self.handle.link().set(message).execute().await;
            set.map_err(refused(format!("make {} a port of {name}", switch::BRIDGE)))?;
        }
        let pods = bridge.own.pods;
        let address = Ipv4Net::new(gateway(pods), pods.prefix_len());
        self.ensure_address(name, index, address.expect("the prefix is that of a network")).await?;
        Ok(index)
    }

    /// Connects a switch that forwards by itself with the kernel. Such a switch sends packets of
    /// tunnels by its own bridges only, and from an address that such a bridge has; so it gets a
    /// bridge with an address of its own. The kernel has to pass on what comes from that address
    /// and to send on what goes there, which it would not do with an address that it holds itself.
    ///
    /// # Errors
    /// The kernel refuses a request, or the switch has not made its ports.
    pub async fn ensure_uplink(&self) -> Result<(), KernelError> {
        let links = self.links().await?;
        let mut indexes = Vec::new();
        for name in [switch::UPLINK, switch::UPLINK_PORT] {
            let link = find(&links, name).ok_or(KernelError::Gone(name))?;
            indexes.push(link.header.index);
            if !link.header.flags.contains(LinkFlags::Up) {
                let message = LinkUnspec::new_with_index(link.header.index).up().build();
                let set = self.handle.link().set(message).execute().await;
                set.map_err(refused(format!("set {name} up")))?;
            }
        }
        let (inner, outer) = (indexes[0], indexes[1]);
        let on_net = |address| {
            Ipv4Net::new(address, INNER_PREFIX).expect("the length of the prefix is a constant")
        };
        self.ensure_address(switch::UPLINK_PORT, outer, on_net(INNER_GATEWAY)).await?;
        // The switch wants to see both in one network.
        self.ensure_address(switch::UPLINK, inner, on_net(INNER)).await?;
        self.disown(inner).await?;
        let there = self.neighbours(outer).await?.get(&INNER) == Some(&UPLINK_MAC);
        if !there {
            let neighbours = self.handle.neighbours();
            let request = neighbours.add(outer, INNER.into()).link_layer_address(&UPLINK_MAC.0);
            let put = request.replace().execute().await;
            put.map_err(refused(format!("tell where {INNER} is")))?;
        }
        let setting = format!("net/ipv4/conf/{}/accept_local", switch::UPLINK_PORT);
        kernel_setting::ensure(&setting, "1")
            .map_err(|source| KernelError::Setting { name: setting.replace('/', "."), source })
    }

    /// Makes the kernel forget that the address of tunnels is one of its own, and that its network
    /// is there: the way to it is by the port.
    async fn disown(&self, link: u32) -> Result<(), KernelError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(refused("list routes"))?;
        for route in routes.into_iter().filter(|route| leads_to(route, link)) {
            let result = self.handle.route().del(route).execute().await;
            result.map_err(refused(format!("pass on what goes to {INNER}")))?;
        }
        Ok(())
    }

    /// Removes a link if it is there.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub async fn remove_named(&self, name: &'static str) -> Result<(), KernelError> {
        let Some(index) = find(&self.links().await?, name).map(|link| link.header.index) else {
            return Ok(());
        };
        let result = self.handle.link().del(index).execute().await;
        result.map_err(refused(format!("remove {name}")))
    }
}

fn is_like(link: &LinkMessage, mtu: u32, mac: Option<Mac>) -> bool {
    let has = |mac: Mac| {
        link.attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::Address(address) if *address == mac.0))
    };
    mtu_of(link) == Some(mtu) && link.header.flags.contains(LinkFlags::Up) && mac.is_none_or(has)
}

/// Whether the route, in whatever table, is by that link.
fn leads_to(route: &RouteMessage, link: u32) -> bool {
    route.attributes.contains(&RouteAttribute::Oif(link))
}
