use proptest::prelude::*;
use serde_json::json;

use super::*;

fn peer(pods: &str, host: [u8; 4]) -> Peer {
    Peer { pods: pods.parse().unwrap(), host: host.into() }
}

fn three() -> (Peer, Vec<Peer>) {
    let own = peer("10.244.1.0/24", [10, 99, 0, 11]);
    let others = [
        own,
        peer("10.244.2.0/24", [10, 99, 0, 12]),
        peer("10.244.3.0/24", [10, 99, 0, 13]),
        // Claims what another has.
        peer("10.244.2.0/25", [10, 99, 0, 14]),
        // Claims what this node has.
        peer("10.244.0.0/16", [10, 99, 0, 15]),
    ];
    (own, others.to_vec())
}

#[test]
fn peers_are_read_from_nodes() {
    let node = |spec: serde_json::Value, annotations: serde_json::Value| -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": annotations},
            "spec": spec,
            "status": {"addresses": [
                {"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "InternalIP", "address": "10.0.0.5"}]}}))
        .unwrap()
    };
    let check = |spec, annotations, expected| {
        assert_eq!(Peer::of_node(&node(spec, annotations)), expected);
    };
    let cidr = json!({"podCIDR": "10.1.2.0/24"});
    check(cidr.clone(), json!({}), Some(peer("10.1.2.0/24", [10, 0, 0, 5])));
    check(
        json!({"podCIDRs": ["fd00::/64", "10.1.3.0/24"]}),
        json!({}),
        Some(peer("10.1.3.0/24", [10, 0, 0, 5])),
    );
    let public = json!({"flannel.alpha.coreos.com/public-ip-overwrite": "1.2.3.4"});
    check(cidr, public, Some(peer("10.1.2.0/24", [1, 2, 3, 4])));
    check(json!({}), json!({}), None);
}

#[test]
fn vxlan_needs_route_neighbour_and_forwarding_for_each_peer() {
    let (own, peers) = three();
    let overlay = Overlay::desired(Backend::Vxlan, own, peers);
    let changes = diff(&Overlay::default(), &overlay);
    let text: Vec<String> = changes.iter().map(|change| format!("{change:?}")).collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    PutForwarding { mac: Mac([10, 88, 10, 99, 0, 12]), host: 10.99.0.12 }
    PutForwarding { mac: Mac([10, 88, 10, 99, 0, 13]), host: 10.99.0.13 }
    PutNeighbour { address: 10.244.2.0, mac: Mac([10, 88, 10, 99, 0, 12]) }
    PutNeighbour { address: 10.244.3.0, mac: Mac([10, 88, 10, 99, 0, 13]) }
    PutRoute(Route { pods: 10.244.2.0/24, via: 10.244.2.0 })
    PutRoute(Route { pods: 10.244.3.0/24, via: 10.244.3.0 })
    ");
    assert_eq!(diff(&overlay, &overlay), []);
    assert_eq!(Mac::of_host([10, 99, 0, 12].into()).to_string(), "0a:58:0a:63:00:0c");
}

#[test]
fn host_gw_needs_routes_alone() {
    let (own, peers) = three();
    let overlay = Overlay::desired(Backend::HostGw, own, peers.clone());
    let first = Route { pods: peers[1].pods, via: peers[1].host };
    assert_eq!(overlay.routes.len(), 2);
    assert_eq!(overlay.routes.get(&first.pods), Some(&first.via));
    assert!(overlay.neighbours.is_empty() && overlay.forwarding.is_empty());
    let left = Overlay::desired(Backend::HostGw, own, peers[2..3].to_vec());
    assert_eq!(diff(&overlay, &left), [OverlayChange::RemoveRoute(first)]);
}

#[test]
fn tunnels_need_a_route_and_a_neighbour_for_each_peer() {
    let (own, peers) = three();
    let overlay = Overlay::desired(Backend::OvsGre, own, peers.clone());
    let changes = diff(&Overlay::default(), &overlay);
    let text: Vec<String> = changes.iter().map(|change| format!("{change:?}")).collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    PutNeighbour { address: 10.244.2.1, mac: Mac([10, 88, 10, 99, 0, 12]) }
    PutNeighbour { address: 10.244.3.1, mac: Mac([10, 88, 10, 99, 0, 13]) }
    PutRoute(Route { pods: 10.244.2.0/24, via: 10.244.2.1 })
    PutRoute(Route { pods: 10.244.3.0/24, via: 10.244.3.1 })
    ");
    assert_eq!(distinct(own, peers.clone()), peers[1..3]);
}

#[test]
fn the_environment_file_names_the_bridge_address() {
    let subnet = Subnet {
        network: "10.244.0.0/16".parse().unwrap(),
        pods: "10.244.3.0/24".parse().unwrap(),
        mtu: 1450,
        masquerade: true,
    };
    let told = |masquerade| Subnet { masquerade, ..subnet.clone() }.environment();
    assert_eq!(
        told(true),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\n\
         FLANNEL_IPMASQ=true\n\
         DOCKER_NETWORK_OPTIONS=\"--bip=10.244.3.1/24 --ip-masq=false --mtu=1450\"\n"
    );
    assert!(told(false).contains(" --ip-masq=true "), "Docker does it where flanneld does not");
}

fn overlays() -> impl Strategy<Value = Overlay> {
    let peers = proptest::collection::vec((0..12_u8, 0..8_u8), 0..10);
    let backends = prop_oneof![Just(Backend::Vxlan), Just(Backend::HostGw), Just(Backend::OvsGre)];
    (peers, backends).prop_map(|(peers, backend)| {
        let own = peer("10.244.200.0/24", [10, 0, 0, 200]);
        let peers = peers
            .into_iter()
            .map(|(net, host)| peer(&format!("10.244.{net}.0/24"), [10, 0, 0, host]));
        Overlay::desired(backend, own, peers)
    })
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_desired(a in overlays(), b in overlays()) {
        let mut overlay = a.clone();
        let changes = diff(&a, &b);
        for change in &changes {
            overlay.apply(*change);
        }
        prop_assert_eq!(&overlay, &b);
        prop_assert!(diff(&overlay, &b).is_empty());
    }
}
