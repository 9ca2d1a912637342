use super::*;
use insta::assert_snapshot;

fn openings() -> BTreeSet<Opening> {
    let host = |last| Ipv4Addr::new(10, 0, 0, last);
    let range = "10.244.0.0/16".parse().unwrap();
    [
        Opening::port_for(Protocol::Tcp, 2379, [host(3), host(2), host(4)]).unwrap(),
        Opening::Port { protocol: Protocol::Tcp, port: 6443, from: None },
        Opening::port_for(Protocol::Udp, 8472, [host(9)]).unwrap(),
        Opening::gre_for([host(7), host(6), host(9)]).unwrap(),
        Opening::Pods { range },
    ]
    .into()
}

fn lines(kind: FirewallKind) -> String {
    let mut firewall = FirewallFact::new(kind);
    firewall.input.insert("inet filter input".to_owned());
    firewall.forward.insert("inet filter forward".to_owned());
    rules(&openings(), &firewall).into_iter().collect::<Vec<_>>().join("\n")
}

#[test]
fn each_firewall_says_it_in_its_own_words() {
    assert_snapshot!(lines(FirewallKind::Firewalld), @r#"
    kprov zone 10.244.0.0/16
    public rule family="ipv4" port port="6443" protocol="tcp" accept
    public rule family="ipv4" source address="10.0.0.2/31" port port="2379" protocol="tcp" accept
    public rule family="ipv4" source address="10.0.0.4" port port="2379" protocol="tcp" accept
    public rule family="ipv4" source address="10.0.0.6/31" protocol value="gre" accept
    public rule family="ipv4" source address="10.0.0.9" port port="8472" protocol="udp" accept
    public rule family="ipv4" source address="10.0.0.9" protocol value="gre" accept
    "#);
    assert_snapshot!(lines(FirewallKind::Ufw), @r#"
    allow gre any 0.0.0.0/0 any 10.0.0.6/31 in
    allow gre any 0.0.0.0/0 any 10.0.0.9 in
    allow tcp 2379 0.0.0.0/0 any 10.0.0.2/31 in
    allow tcp 2379 0.0.0.0/0 any 10.0.0.4 in
    allow tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in
    allow udp 8472 0.0.0.0/0 any 10.0.0.9 in
    route:allow any any 0.0.0.0/0 any 10.244.0.0/16 in
    route:allow any any 10.244.0.0/16 any 0.0.0.0/0 in
    "#);
    assert_snapshot!(lines(FirewallKind::Iptables), @r#"
    FORWARD -d 10.244.0.0/16 -m comment --comment kprov-e772047015d3 -j ACCEPT
    FORWARD -s 10.244.0.0/16 -m comment --comment kprov-68570ea9f6ef -j ACCEPT
    INPUT -p tcp -m tcp --dport 6443 -m comment --comment kprov-5deb376acbfd -j ACCEPT
    INPUT -s 10.0.0.2/31 -p tcp -m tcp --dport 2379 -m comment --comment kprov-4b937678c97c -j ACCEPT
    INPUT -s 10.0.0.4/32 -p tcp -m tcp --dport 2379 -m comment --comment kprov-d87a8c660af6 -j ACCEPT
    INPUT -s 10.0.0.6/31 -p 47 -m comment --comment kprov-7465d4ee8c32 -j ACCEPT
    INPUT -s 10.0.0.9/32 -p 47 -m comment --comment kprov-823465cbe102 -j ACCEPT
    INPUT -s 10.0.0.9/32 -p udp -m udp --dport 8472 -m comment --comment kprov-c0a9813a5a2d -j ACCEPT
    "#);
    assert_snapshot!(lines(FirewallKind::Nftables), @r#"
    inet filter forward ip daddr 10.244.0.0/16 accept comment "kprov-48e754e791b3"
    inet filter forward ip saddr 10.244.0.0/16 accept comment "kprov-5d417cd01c5a"
    inet filter input ip saddr { 10.0.0.2/31, 10.0.0.4 } tcp dport 2379 accept comment "kprov-b2a19c6f7a63"
    inet filter input ip saddr { 10.0.0.6/31, 10.0.0.9 } ip protocol 47 accept comment "kprov-d18787d8a4be"
    inet filter input ip saddr { 10.0.0.9 } udp dport 8472 accept comment "kprov-6c55a14f7210"
    inet filter input tcp dport 6443 accept comment "kprov-ff785c860f78"
    "#);
}

#[test]
fn addresses_are_joined_to_ranges_that_hold_nobody_else() {
    let hosts = (1..=8).map(|last| Ipv4Addr::new(10, 0, 0, last));
    let Some(Opening::Port { from: Some(from), .. }) =
        Opening::port_for(Protocol::Tcp, 1, hosts.clone())
    else {
        panic!("nothing is opened")
    };
    let held: Vec<_> = from.iter().flat_map(Ipv4Net::hosts).collect();
    let all: BTreeSet<_> = (from.iter())
        .flat_map(|net| (u32::from(net.network())..=u32::from(net.broadcast())).map(Ipv4Addr::from))
        .collect();
    assert_eq!(all, hosts.collect());
    assert!(from.len() < 8 && !held.is_empty());
    assert_eq!(Opening::port_for(Protocol::Tcp, 1, []), None);
    assert_eq!(Opening::gre_for([]), None);
}

#[test]
fn a_rule_is_found_again_by_its_key() {
    for kind in FirewallKind::ALL {
        let mut firewall = FirewallFact::new(kind);
        firewall.input.insert("inet filter input".to_owned());
        for rule in rules(&openings(), &firewall.clone()) {
            assert!(!firewall.has(&rule), "{rule}");
            firewall.permanent.insert(kind.key(&rule));
            assert!(firewall.keeps(&rule) && !firewall.has(&rule), "{rule}");
            firewall.runtime.insert(kind.key(&rule));
            assert!(firewall.has(&rule), "{rule}");
        }
        assert_eq!(FirewallKind::of_name(kind.name()), Some(kind));
    }
}

#[test]
fn marks_tell_rules_apart() {
    for kind in [FirewallKind::Iptables, FirewallKind::Nftables] {
        let mut firewall = FirewallFact::new(kind);
        firewall.input.extend(["ip a input".to_owned(), "inet b input".to_owned()]);
        let rules = rules(&openings(), &firewall);
        let keys: BTreeSet<_> = rules.iter().map(|rule| kind.key(rule)).collect();
        assert_eq!(keys.len(), rules.len());
        assert!(keys.iter().all(|key| key.len() == MARK.len() + MARK_DIGITS), "{keys:?}");
    }
}

#[test]
fn a_change_is_taken_back_by_its_inverse() {
    let kind = FirewallKind::Ufw;
    let set = |text: &str| BTreeSet::from([text.to_owned()]);
    let change = FirewallChange::Rules { kind, open: set("a"), close: set("b") };
    let back = FirewallChange::Rules { kind, open: set("b"), close: set("a") };
    assert_eq!(change.inverse(), back);
    assert_eq!(back.inverse(), change);
    let off = FirewallChange::Switch { kind, on: false };
    assert_eq!(off.inverse(), FirewallChange::Switch { kind, on: true });
}
