use proptest::prelude::*;

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, last)
}

fn to(hosts: &[u8]) -> BTreeSet<Ipv4Addr> {
    hosts.iter().map(|last| host(*last)).collect()
}

/// What Open vSwitch 3.1 answers, with a bridge of an operator's and a tunnel of hers.
const ANSWER: &str = r#"{"data":[["obr0",["map",[["kprov","overlay"]]],"netdev","secure"],["br-int",["map",[]],"",["set",[]]],["obu0",["map",[["kprov","overlay"]]],"netdev",["set",[]]]],"headings":["name","external_ids","datapath_type","fail_mode"]}
{"data":[["gre0",["map",[["kprov","overlay"]]],["map",[["remote_ip","10.99.0.12"]]],["set",[]]],["gre1",["map",[]],["map",[["remote_ip","10.0.0.9"]]],"of others"],["gre3",["map",[["a","b"],["kprov","overlay"]]],["map",[["local_ip","10.99.0.11"],["remote_ip","10.99.0.13"]]],"no such device"],["obr0",["map",[]],["map",[]],["set",[]]],["eth1",["map",[]],["map",[]],["set",[]]]],"headings":["name","external_ids","options","error"]}
"#;

#[test]
fn the_database_is_read() {
    let tunnels = [
        (0, Tunnel { local: None, remote: host(12) }),
        (3, Tunnel { local: Some(OWN), remote: host(13) }),
    ];
    let expected = Switch {
        datapath: Some(Datapath::Netdev),
        uplink: true,
        tunnels: tunnels.into(),
        taken: [1].into(),
        troubles: vec!["gre3: no such device".to_owned()],
    };
    assert_eq!(Switch::read(ANSWER).unwrap(), expected);
    let empty = r#"{"data":[],"headings":[]}{"data":[],"headings":[]}"#;
    assert_eq!(Switch::read(empty).unwrap(), Switch::default());
    let kernel = ANSWER.replace("\"netdev\"", "\"\"");
    assert_eq!(Switch::read(&kernel).unwrap().datapath, Some(Datapath::System));
    // One that would flood without flows is made anew.
    let floods = ANSWER.replace("\"secure\"", "[\"set\",[]]");
    assert_eq!(Switch::read(&floods).unwrap().datapath, None);
}

#[test]
fn what_is_no_answer_and_what_is_not_ours_is_refused() {
    for answer in ["", "{}", r#"{"data":[]}"#, r#"{"data":[["obr0"]]}{"data":[]}"#] {
        assert_eq!(Switch::read(answer), Err(ReadError::Unreadable), "{answer}");
    }
    let foreign = ANSWER.replacen(r#"["kprov","overlay"]"#, "", 1);
    assert_eq!(Switch::read(&foreign), Err(ReadError::Foreign("obr0".to_owned())));
}

fn transaction(from: &Switch, to: &Switch) -> String {
    from.transaction(to).join(" ").replace(" -- ", "\n")
}

#[test]
fn one_transaction_makes_all_of_it() {
    let none = Switch::default();
    let kernel = none.desired(Datapath::System, OWN, &to(&[12, 13]));
    insta::assert_snapshot!(transaction(&none, &kernel), @r"
    --may-exist add-br obr0
    set Bridge obr0 datapath_type=system fail_mode=secure external_ids:kprov=overlay
    --may-exist add-port obr0 gre0
    set Interface gre0 type=gre options:local_ip=10.99.0.11 options:remote_ip=10.99.0.12 ofport_request=1 external_ids:kprov=overlay
    --may-exist add-port obr0 gre1
    set Interface gre1 type=gre options:local_ip=10.99.0.11 options:remote_ip=10.99.0.13 ofport_request=2 external_ids:kprov=overlay
    ");
    let program = none.desired(Datapath::Netdev, OWN, &to(&[12]));
    insta::assert_snapshot!(transaction(&none, &program), @r#"
    --may-exist add-br obr0
    set Bridge obr0 datapath_type=netdev fail_mode=secure external_ids:kprov=overlay
    --may-exist add-br obu0
    set Bridge obu0 datapath_type=netdev other_config:hwaddr="0a:58:a9:fe:2f:01" external_ids:kprov=overlay
    --may-exist add-port obu0 obu1
    set Interface obu1 type=internal
    --may-exist add-port obr0 gre0
    set Interface gre0 type=gre options:remote_ip=10.99.0.12 ofport_request=1 external_ids:kprov=overlay
    "#);
    assert_eq!(transaction(&kernel, &kernel), "");
}

#[test]
fn tunnels_that_stay_keep_their_numbers() {
    let there = Switch::read(ANSWER).unwrap();
    let desired = there.desired(Datapath::Netdev, OWN, &to(&[13, 14, 15]));
    let numbers: Vec<_> = desired.tunnels.iter().map(|(n, t)| (*n, t.remote)).collect();
    // 1 is the operator's, 0 is free again.
    assert_eq!(numbers, [(0, host(14)), (2, host(15)), (3, host(13))]);
    insta::assert_snapshot!(transaction(&there, &desired), @r"
    --may-exist add-port obr0 gre0
    set Interface gre0 type=gre options:remote_ip=10.99.0.14 ofport_request=1 external_ids:kprov=overlay
    --may-exist add-port obr0 gre2
    set Interface gre2 type=gre options:remote_ip=10.99.0.15 ofport_request=3 external_ids:kprov=overlay
    --may-exist add-port obr0 gre3
    set Interface gre3 type=gre options:remote_ip=10.99.0.13 ofport_request=4 external_ids:kprov=overlay
    ");
    let fewer = desired.desired(Datapath::Netdev, OWN, &to(&[13]));
    insta::assert_snapshot!(transaction(&desired, &fewer), @r"
    --if-exists del-port obr0 gre0
    --if-exists del-port obr0 gre2
    ");
}

#[test]
fn no_flow_leads_from_tunnel_to_tunnel() {
    let switch = Switch::default().desired(Datapath::System, OWN, &to(&[12, 13]));
    insta::assert_snapshot!(switch.flows(), @r"
    priority=2,in_port=LOCAL,dl_dst=0a:58:0a:63:00:0c,actions=output:1
    priority=1,in_port=1,actions=LOCAL
    priority=2,in_port=LOCAL,dl_dst=0a:58:0a:63:00:0d,actions=output:2
    priority=1,in_port=2,actions=LOCAL
    ");
    assert_eq!(switch.remotes(), to(&[12, 13]));
}

#[test]
fn routes_of_tunnels_are_told_from_those_of_others() {
    let answer = "Route Table:\nCached: 10.99.0.11/32 dev eth0 SRC 10.99.0.11 local\n\
        User: 10.99.0.12/32 dev obu0 GW 169.254.47.2 SRC 169.254.47.1\n\
        User: 10.99.0.13/32 dev br-ex GW 10.0.0.1 SRC 10.0.0.2\n\
        User: 10.0.0.0/8 dev obu0 GW 169.254.47.2 SRC 169.254.47.1\n";
    assert_eq!(routed(answer), to(&[12]));
}

proptest! {
    /// Whatever was there, one step leads to what is wanted, and a second one is none.
    #[test]
    fn what_is_wanted_is_stable(
        there in proptest::collection::btree_map(0..12_u16, 1..9_u8, 0..6),
        taken in proptest::collection::btree_set(0..12_u16, 0..4),
        wanted in proptest::collection::btree_set(1..9_u8, 0..8),
    ) {
        let tunnels = there.iter().filter(|(n, _)| !taken.contains(n));
        let tunnels = tunnels.map(|(n, last)| (*n, Tunnel { local: None, remote: host(*last) }));
        let start = Switch { tunnels: tunnels.collect(), taken, ..Switch::default() };
        let peers = to(&wanted.into_iter().collect::<Vec<_>>());
        let desired = start.desired(Datapath::Netdev, OWN, &peers);
        prop_assert_eq!(desired.remotes(), peers.clone());
        prop_assert_eq!(desired.tunnels.len(), peers.len(), "one tunnel a host");
        prop_assert!(desired.tunnels.keys().all(|number| !desired.taken.contains(number)));
        let again = desired.desired(Datapath::Netdev, OWN, &peers);
        prop_assert_eq!(&again, &desired);
        prop_assert!(desired.transaction(&again).is_empty());
    }
}
