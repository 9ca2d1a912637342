//! Service rules in the kernel: what clients see.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use network::iptables::{self, Abilities, Chains, Saved};
use network::service_rules::diff;
use network::{
    Endpoint, PortRules, Protocol, ProxyConfig, RuleSet, ServiceName, ServiceRules, nftables,
};

use crate::namespace::Namespace;

/// A node with two pods on its bridge, and a host outside of the cluster.
struct Net {
    node: Namespace,
    pod_a: Namespace,
    pod_b: Namespace,
    outside: Namespace,
}

impl Net {
    fn new() -> Self {
        let [node, pod_a, pod_b, outside] = [(); 4].map(|()| Namespace::new());
        node.ip("link add cni0 type bridge");
        node.ip("address add 10.244.1.1/24 dev cni0");
        node.ip("link set cni0 up");
        for (pod, name, address) in
            [(&pod_a, "va", "10.244.1.2/24"), (&pod_b, "vb", "10.244.1.3/24")]
        {
            node.cable(name, pod, address, "10.244.1.1");
            node.ip(&format!("link set {name} master cni0"));
            node.ip(&format!("link set {name} type bridge_slave hairpin on"));
        }
        node.cable("vo", &outside, "192.0.2.2/24", "192.0.2.1");
        node.ip("address add 192.0.2.1/24 dev vo");
        // So that the node has a way to addresses that exist only in its rules.
        node.ip("route add default via 192.0.2.2");
        node.set("net/ipv4/ip_forward", "1");
        node.set("net/bridge/bridge-nf-call-iptables", "1");
        pod_a.serve("a", 8080);
        pod_b.serve("b", 8080);
        Self { node, pod_a, pod_b, outside }
    }
}

fn config() -> ProxyConfig {
    ProxyConfig { cluster_cidr: Some("10.244.0.0/16".parse().unwrap()), masquerade_all: false }
}

/// A service on 10.96.0.10:80 and node port 30080 with these of the two pods.
fn rules(protocol: Protocol, pods: &[u8], change: impl Fn(&mut PortRules)) -> RuleSet {
    let endpoints = pods.iter().map(|n| Endpoint { address: [10, 244, 1, *n].into(), port: 8080 });
    let mut port = PortRules {
        protocol,
        port: 80,
        node_port: Some(30_080),
        external_ips: [[198, 51, 100, 77].into()].into(),
        load_balancer_ips: [].into(),
        source_ranges: [].into(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        cluster: endpoints.collect(),
        local: [].into(),
        any_endpoint: !pods.is_empty(),
        serving: [].into(),
    };
    change(&mut port);
    let service = ServiceRules {
        cluster_ip: [10, 96, 0, 10].into(),
        ports: [("http".to_owned(), port)].into(),
    };
    RuleSet { services: [(ServiceName::new("default", "web"), service)].into() }
}

/// A packet filter of a node, and what it holds.
trait Filter {
    fn set(&mut self, node: &Namespace, rules: RuleSet);
}

#[derive(Default)]
struct Nftables(Option<RuleSet>);

impl Filter for Nftables {
    fn set(&mut self, node: &Namespace, rules: RuleSet) {
        match &self.0 {
            None => drop(node.command("nft -f -", &nftables::full(&config(), &rules))),
            Some(current) => {
                let update = nftables::update(&config(), &diff(current, &rules));
                node.command("nft -f -", &update.change);
                node.command("nft -f -", &update.cleanup);
            }
        }
        let chain = node.command("nft list chain ip kube-proxy services", "");
        assert!(nftables::is_intact(&chain), "{chain}");
        self.0 = Some(rules);
    }
}

struct Iptables {
    flavour: &'static str,
    current: Option<Chains>,
}

impl Filter for Iptables {
    fn set(&mut self, node: &Namespace, rules: RuleSet) {
        let saved =
            |node: &Namespace| Saved::parse(&node.command(&format!("{}-save", self.flavour), ""));
        let chains = Chains::new(&config(), Abilities { random_fully: true }, &rules);
        let text = match &self.current {
            None => chains.resync(&saved(node)),
            Some(current) => chains.update(current),
        };
        node.command(&format!("{}-restore --noflush -w 5", self.flavour), &text);
        assert!(iptables::is_intact(&saved(node)));
        self.current = Some(chains);
    }
}

/// How often each answer comes in `times` attempts.
fn count(times: usize, ask: impl Fn() -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        *counts.entry(ask()).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(answer, times)| (answer.to_owned(), times)).collect()
}

fn check(filter: &mut dyn Filter) {
    let net = Net::new();
    let (node, pod_a, pod_b, outside) = (&net.node, &net.pod_a, &net.pod_b, &net.outside);
    let service = "10.96.0.10:80";

    filter.set(node, rules(Protocol::Tcp, &[2, 3], |_| {}));
    // Traffic from outside is masqueraded, that of pods is not; a pod that reaches itself is.
    let turns = counts([("a 10.244.1.1", 3), ("b 10.244.1.1", 3)]);
    assert_eq!(count(6, || node.ask(service)), turns, "from the node");
    assert_eq!(count(6, || outside.ask(service)), turns, "from outside");
    assert_eq!(count(6, || outside.ask("192.0.2.1:30080")), turns, "to the node port");
    assert_eq!(count(6, || outside.ask("198.51.100.77:80")), turns, "to the external address");
    assert_eq!(
        count(6, || pod_a.ask(service)),
        counts([("a 10.244.1.1", 3), ("b 10.244.1.2", 3)]),
        "from a pod, itself included"
    );
    assert_eq!(pod_a.ask("10.244.1.3:8080"), "b 10.244.1.2", "past the service");

    filter.set(node, rules(Protocol::Tcp, &[2], |_| {}));
    assert_eq!(count(3, || pod_b.ask(service)), counts([("a 10.244.1.3", 3)]));

    filter.set(node, rules(Protocol::Tcp, &[], |_| {}));
    for (from, name) in [(node, "node"), (pod_b, "pod"), (outside, "outside")] {
        assert_eq!(from.ask(service), "ConnectionRefused", "{name}");
    }
    assert_eq!(outside.ask("192.0.2.1:30080"), "ConnectionRefused");

    filter.set(node, rules(Protocol::Tcp, &[2, 3], |port| port.affinity_seconds = Some(60)));
    let first = outside.ask(service);
    assert_eq!(count(4, || outside.ask(service)), counts([(&first, 4)]), "a client stays");
    let others = count(2, || pod_a.ask(service));
    assert_eq!(others.len(), 1, "also another client: {others:?}");

    let local = |port: &mut PortRules| {
        port.external_local = true;
        port.local = port.cluster.iter().take(1).copied().collect();
    };
    filter.set(node, rules(Protocol::Tcp, &[2, 3], local));
    let kept = counts([("a 192.0.2.2", 3)]);
    assert_eq!(count(3, || outside.ask("192.0.2.1:30080")), kept, "with its own address");

    filter.set(node, rules(Protocol::Udp, &[2, 3], |_| {}));
    assert_eq!(count(6, || outside.ask_udp("192.0.2.1:30080")), turns);
    assert_eq!(count(6, || node.ask_udp(service)), turns);
    assert_eq!(node.ask("10.244.1.2:8080"), "a 10.244.1.1", "TCP is free again");
}

#[test]
fn nftables_serve_clients_everywhere() {
    check(&mut Nftables::default());
}

#[test]
fn iptables_serve_clients_everywhere() {
    check(&mut Iptables { flavour: "iptables", current: None });
}

#[test]
fn legacy_iptables_serve_clients_everywhere() {
    check(&mut Iptables { flavour: "iptables-legacy", current: None });
}

#[test]
fn rules_leave_nothing_behind() {
    let node = Namespace::new();
    node.command("nft -f -", &nftables::probe());
    assert_eq!(node.command("nft list ruleset", ""), "");
    Nftables::default().set(&node, rules(Protocol::Tcp, &[2, 3], |_| {}));
    node.command("nft -f -", &nftables::cleanup());
    assert_eq!(node.command("nft list ruleset", ""), "");
    node.command("iptables -A FORWARD -s 198.51.100.1 -j DROP", "");
    let before = node.command("iptables -S", "") + &node.command("iptables -t nat -S", "");
    let mut filter = Iptables { flavour: "iptables", current: None };
    filter.set(&node, rules(Protocol::Tcp, &[2, 3], |_| {}));
    let cleanup = iptables::cleanup(&Saved::parse(&node.command("iptables-save", "")));
    node.command("iptables-restore --noflush", &cleanup);
    let after = node.command("iptables -S", "") + &node.command("iptables -t nat -S", "");
    assert_eq!(after, before);
}

/// Sends one packet after the other from one socket; a flow stays with its endpoint.
#[test]
fn a_flow_whose_endpoint_is_gone_moves_to_another() {
    let net = Net::new();
    let mut filter = Nftables::default();
    let serve =
        |pods: &[u8]| rules(Protocol::Udp, pods, |port| port.serving = port.cluster.clone());
    filter.set(&net.node, serve(&[2]));
    let socket = net.outside.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect("10.96.0.10:80").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket
    });
    let ask = || {
        socket.send(b"?").unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(ask(), "a 10.244.1.1");
    filter.set(&net.node, serve(&[3]));
    assert_eq!(ask(), "a 10.244.1.1", "the kernel goes on with a tracked flow");
    let forget = |rules: RuleSet| {
        net.node.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(node::proxy::forget_stale(&rules));
        });
    };
    forget(serve(&[2, 3]));
    assert_eq!(ask(), "a 10.244.1.1", "its endpoint still serves");
    forget(serve(&[3]));
    assert_eq!(ask(), "b 10.244.1.1");
}
