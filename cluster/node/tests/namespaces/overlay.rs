//! The overlay in the kernel: two hosts whose pods reach each other.

use std::net::Ipv4Addr;

use network::overlay_rules::{self, Backend, Overlay, Peer};
use node::overlay::{DEVICE, Device, Kernel};

use crate::namespace::Namespace;

fn peers() -> [Peer; 2] {
    [1_u8, 2].map(|n| Peer {
        pods: format!("10.244.{n}.0/24").parse().unwrap(),
        host: Ipv4Addr::new(192, 0, 2, n),
    })
}

/// Brings a host in line; returns how many changes that took.
fn sync(host: &Namespace, backend: Backend, own: usize, peers: &[Peer]) -> usize {
    let (own, peers) = (self::peers()[own], peers.to_vec());
    host.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let kernel = Kernel::connect().unwrap();
            let underlay = kernel.underlay(own.host).await.unwrap();
            let link = match backend {
                Backend::Vxlan => {
                    let device = Device { own, mtu: underlay.mtu - 50, underlay };
                    kernel.ensure_vxlan(&device).await.unwrap()
                }
                Backend::HostGw => {
                    kernel.remove_vxlan().await.unwrap();
                    underlay.index
                }
                // The end-to-end tests have hosts with Open vSwitch.
                Backend::OvsGre => unreachable!("no switch runs in a namespace"),
            };
            let desired = Overlay::desired(backend, own, peers);
            let current = kernel.overlay(backend, link).await.unwrap();
            let changes = overlay_rules::diff(&current, &desired);
            for change in &changes {
                kernel.apply(link, *change).await.unwrap();
            }
            assert_eq!(kernel.overlay(backend, link).await.unwrap(), desired);
            kernel.ensure_hairpin("cni0").await.unwrap();
            changes.len()
        })
    })
}

/// Two hosts on one link, each with a pod on its bridge.
fn hosts() -> ([Namespace; 2], [Namespace; 2]) {
    let hosts = [Namespace::new(), Namespace::new()];
    hosts[0].cable("eth0", &hosts[1], "192.0.2.2/24", "");
    hosts[0].ip("address add 192.0.2.1/24 dev eth0");
    let pods = [Namespace::new(), Namespace::new()];
    for (n, (host, pod)) in (1..).zip(hosts.iter().zip(&pods)) {
        host.set("net/ipv4/ip_forward", "1");
        host.ip("link add cni0 type bridge");
        host.ip(&format!("address add 10.244.{n}.1/24 dev cni0"));
        host.ip("link set cni0 up");
        let address = format!("10.244.{n}.5/24");
        host.cable("veth5", pod, &address, &format!("10.244.{n}.1"));
        host.ip("link set veth5 master cni0");
    }
    pods[0].serve("one", 80);
    pods[1].serve("two", 80);
    (hosts, pods)
}

#[test]
fn pods_of_two_hosts_reach_each_other() {
    let (hosts, pods) = hosts();
    let both = peers();
    for (backend, changes) in [(Backend::Vxlan, 3), (Backend::HostGw, 1), (Backend::Vxlan, 3)] {
        for (n, host) in hosts.iter().enumerate() {
            assert_eq!(sync(host, backend, n, &both), changes, "{backend:?}");
            assert_eq!(sync(host, backend, n, &both), 0, "a second time changes nothing");
        }
        assert_eq!(pods[0].ask("10.244.2.5:80"), "two 10.244.1.5", "{backend:?}");
        assert_eq!(pods[1].ask_udp("10.244.1.5:80"), "one 10.244.2.5", "{backend:?}");
        let from_host = hosts[0].ask("10.244.2.5:80");
        assert!(from_host.starts_with("two "), "{backend:?}: {from_host}");
        assert!(hosts[0].command("bridge -d link show dev veth5", "").contains("hairpin on"));
    }
}

#[test]
fn what_was_removed_comes_back_and_who_left_is_forgotten() {
    let (hosts, pods) = hosts();
    let both = peers();
    for (n, host) in hosts.iter().enumerate() {
        sync(host, Backend::Vxlan, n, &both);
    }
    hosts[0].ip("route del 10.244.2.0/24");
    assert_eq!(sync(&hosts[0], Backend::Vxlan, 0, &both), 1);
    // Down and up loses routes; the device itself must stay.
    let before = hosts[0].ip(&format!("-o link show {DEVICE}"));
    hosts[0].ip(&format!("link set {DEVICE} down"));
    assert_eq!(sync(&hosts[0], Backend::Vxlan, 0, &both), 2);
    let after = hosts[0].ip(&format!("-o link show {DEVICE}"));
    assert_eq!(before.split(':').next(), after.split(':').next(), "same index");
    assert_eq!(pods[0].ask("10.244.2.5:80"), "two 10.244.1.5");
    hosts[0].ip(&format!("link del {DEVICE}"));
    assert_eq!(sync(&hosts[0], Backend::Vxlan, 0, &both), 3);
    assert_eq!(pods[0].ask("10.244.2.5:80"), "two 10.244.1.5");
    // The other node leaves, and a route of an operator stays.
    hosts[0].ip("route add 198.51.100.0/24 via 192.0.2.2");
    assert_eq!(sync(&hosts[0], Backend::Vxlan, 0, &both[..1]), 3);
    let routes = hosts[0].ip("route show");
    assert!(!routes.contains("10.244.2.0") && routes.contains("198.51.100.0"), "{routes}");
    let entries = hosts[0].command(&format!("bridge fdb show dev {DEVICE}"), "");
    assert!(!entries.contains("192.0.2.2"), "{entries}");
}
