use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

pub(crate) fn service(name: &str, spec: &Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name}, "spec": spec}))
    .unwrap()
}

/// A slice of endpoints `(address, node, [ready, serving, terminating])`.
pub(crate) fn slice(
    name: &str,
    ports: &Value,
    endpoints: &[(&str, &str, [bool; 3])],
) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, [ready, serving, terminating])| {
            json!({"addresses": [address], "nodeName": node, "conditions":
                {"ready": ready, "serving": serving, "terminating": terminating}})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": format!("{name}-x"),
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports}))
    .unwrap()
}

const N1: Viewpoint<'_> = Viewpoint { node_name: "n1", zone: Some("west") };
pub(crate) const READY: [bool; 3] = [true, true, false];
const LEAVING: [bool; 3] = [false, true, true];
const STARTING: [bool; 3] = [false, false, false];

fn http() -> Value {
    json!([{"name": "http", "protocol": "TCP", "port": 8080}])
}

fn web(more: &Value) -> Service {
    let mut spec = json!({"type": "ClusterIP", "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    service("web", &spec)
}

/// The rules of the one port of `web` on node `n1`.
fn port(more: &Value, endpoints: &[(&str, &str, [bool; 3])]) -> PortRules {
    let rules = desired([&web(more)], [&slice("web", &http(), endpoints)], N1);
    rules.services[&ServiceName::new("ns", "web")].ports["http"].clone()
}

fn addresses(endpoints: &BTreeSet<Endpoint>) -> Vec<String> {
    endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn ready_endpoints_are_used_else_those_that_still_serve() {
    let check = |endpoints: &[(&str, &str, [bool; 3])], expected: &[&str]| {
        let rules = port(&json!({}), endpoints);
        assert_eq!(addresses(&rules.cluster), expected);
        assert_eq!(rules.any_endpoint, !expected.is_empty());
        assert!(rules.local.is_empty());
    };
    check(
        &[("10.1.1.2", "n1", READY), ("10.1.2.2", "n2", READY), ("10.1.2.3", "n2", LEAVING)],
        &["10.1.1.2:8080", "10.1.2.2:8080"],
    );
    check(&[("10.1.1.2", "n1", STARTING), ("10.1.2.3", "n2", LEAVING)], &["10.1.2.3:8080"]);
    check(&[("10.1.1.2", "n1", STARTING)], &[]);
    check(&[], &[]);
}

#[test]
fn local_policies_keep_traffic_on_the_node() {
    let both = [("10.1.1.2", "n1", READY), ("10.1.2.2", "n2", READY)];
    let internal = port(&json!({"internalTrafficPolicy": "Local"}), &both);
    assert_eq!(addresses(internal.internal_endpoints()), ["10.1.1.2:8080"]);
    assert!(internal.cluster.is_empty(), "no traffic may use endpoints elsewhere");

    let node_port = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    let external = port(&node_port, &both);
    assert_eq!(addresses(external.internal_endpoints()).len(), 2);
    assert_eq!(addresses(external.external_endpoints()), ["10.1.1.2:8080"]);
    let elsewhere = port(&node_port, &both[1..]);
    assert!(elsewhere.external_endpoints().is_empty() && elsewhere.any_endpoint);
}

#[test]
fn hints_keep_traffic_in_the_zone_if_all_endpoints_have_them() {
    type Hinted<'a> = (&'a str, [bool; 3], &'a [&'a str]);
    let check = |zone: Option<&str>, endpoints: &[Hinted<'_>], expected: &[&str]| {
        let plain: Vec<_> = endpoints.iter().map(|(ip, state, _)| (*ip, "n2", *state)).collect();
        let mut slice = slice("web", &http(), &plain);
        for (endpoint, (_, _, zones)) in slice.endpoints.iter_mut().zip(endpoints) {
            let zones: Vec<Value> = zones.iter().map(|name| json!({"name": name})).collect();
            endpoint.hints = serde_json::from_value(json!({"forZones": zones})).unwrap();
        }
        let viewpoint = Viewpoint { node_name: "n1", zone };
        let rules = desired([&web(&json!({}))], [&slice], viewpoint);
        let port = &rules.services[&ServiceName::new("ns", "web")].ports["http"];
        assert_eq!(addresses(&port.cluster), expected);
        assert_eq!(port.any_endpoint, !expected.is_empty());
    };
    let (west, east) = ("10.1.1.2:8080", "10.1.2.2:8080");
    let each = [("10.1.1.2", READY, &["west"][..]), ("10.1.2.2", READY, &["east", "north"][..])];
    check(Some("west"), &each, &[west]);
    check(Some("north"), &each, &[east]);
    check(Some("south"), &each, &[west, east]);
    check(None, &each, &[west, east]);
    // One without a hint is meant for all: who is not told so would get too little.
    let some = [("10.1.1.2", READY, &["west"][..]), ("10.1.2.2", READY, &[][..])];
    check(Some("west"), &some, &[west, east]);
    // Only those that are ready count.
    let leaving = [("10.1.1.2", LEAVING, &["west"][..]), ("10.1.2.2", READY, &["east"][..])];
    check(Some("west"), &leaving, &[east]);
    let last = [("10.1.1.2", LEAVING, &["west"][..]), ("10.1.2.2", LEAVING, &["east"][..])];
    check(Some("west"), &last, &[west, east]);
}

#[test]
fn services_without_an_address_of_their_own_have_no_rules() {
    let absent = |service: &Service| desired([service], [], N1).services.is_empty();
    assert!(absent(&web(&json!({"clusterIP": "None", "clusterIPs": ["None"]}))));
    assert!(absent(&web(&json!({"type": "ExternalName"}))));
    assert!(absent(&web(&json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}))));
    let mut other = web(&json!({}));
    let label = ("service.kubernetes.io/service-proxy-name".to_owned(), "mesh".to_owned());
    other.metadata.labels = Some([label].into());
    assert!(absent(&other));
}

#[test]
fn affinity_has_the_default_of_three_hours() {
    assert_eq!(port(&json!({}), &[]).affinity_seconds, None);
    let client = json!({"sessionAffinity": "ClientIP"});
    assert_eq!(port(&client, &[]).affinity_seconds, Some(10_800));
    let short = json!({"sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    assert_eq!(port(&short, &[]).affinity_seconds, Some(60));
}

#[test]
fn a_claimed_node_port_stays_with_the_first() {
    let node_port = |name, ip: &str| {
        service(
            name,
            &json!({"clusterIP": ip, "type": "NodePort",
                "ports": [{"port": 80, "nodePort": 30000}], "externalIPs": ["192.0.2.1"]}),
        )
    };
    let (a, b) = (node_port("a", "10.96.0.1"), node_port("b", "10.96.0.2"));
    let rules = desired([&b, &a], [], N1);
    let port_of = |name: &str| rules.services[&ServiceName::new("ns", name)].ports[""].clone();
    assert_eq!((port_of("a").node_port, port_of("b").node_port), (Some(30_000), None));
    assert_eq!((port_of("a").external_ips.len(), port_of("b").external_ips.len()), (1, 0));
}

pub(crate) fn rule_sets() -> impl Strategy<Value = RuleSet> {
    let one = (0..6_u8, any::<[bool; 5]>(), proptest::collection::vec((0..9_u8, 0..3_u8), 0..6));
    proptest::collection::vec(one, 0..6).prop_map(|specs| {
        let mut services = Vec::new();
        let mut slices = Vec::new();
        for (name, [udp, node_port, affinity, local, ranges], endpoints) in specs {
            let protocol = if udp { "UDP" } else { "TCP" };
            let mut spec = json!({"clusterIP": format!("10.96.0.{name}"),
                "ports": [{"port": 80, "protocol": protocol, "name": "p"}]});
            if node_port {
                spec["ports"][0]["nodePort"] = json!(30_000 + u32::from(name % 3));
                spec["externalIPs"] = json!(["192.0.2.7"]);
            }
            if affinity {
                spec["sessionAffinity"] = json!("ClientIP");
            }
            if local {
                spec["externalTrafficPolicy"] = json!("Local");
                spec["internalTrafficPolicy"] = json!("Local");
            }
            if ranges {
                spec["loadBalancerSourceRanges"] = json!(["198.51.100.0/24"]);
            }
            let name = format!("s{name}");
            let mut service = service(&name, &spec);
            service.status = serde_json::from_value(
                json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}),
            )
            .unwrap();
            let endpoints: Vec<(String, String, [bool; 3])> = endpoints
                .iter()
                .map(|(ip, state)| {
                    let state = [READY, LEAVING, STARTING][usize::from(*state)];
                    (format!("10.244.{}.{ip}", ip % 2), format!("n{}", ip % 2), state)
                })
                .collect();
            let endpoints: Vec<(&str, &str, [bool; 3])> =
                endpoints.iter().map(|(a, n, s)| (a.as_str(), n.as_str(), *s)).collect();
            let ports = json!([{"name": "p", "protocol": protocol, "port": 8080}]);
            slices.push(slice(&name, &ports, &endpoints));
            services.push(service);
        }
        desired(&services, &slices, N1)
    })
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_desired(a in rule_sets(), b in rule_sets()) {
        let mut rules = a.clone();
        for change in diff(&a, &b) {
            rules.apply(change);
        }
        prop_assert_eq!(&rules, &b);
        prop_assert!(diff(&rules, &b).is_empty());
    }
}

/// Services of every sort, for the renderers.
pub(crate) fn assorted() -> RuleSet {
    let pods = [("10.244.1.2", "n1", READY), ("10.244.2.2", "n2", READY)];
    let services = [
        web(&json!({"type": "NodePort", "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})),
        service(
            "dns",
            &json!({"clusterIP": "10.96.0.2", "ports": [
            {"name": "dns", "protocol": "UDP", "port": 53},
            {"name": "dns-tcp", "protocol": "TCP", "port": 53}]}),
        ),
        service(
            "empty",
            &json!({"clusterIP": "10.96.0.3", "type": "NodePort",
            "ports": [{"port": 443, "nodePort": 30443}]}),
        ),
        service(
            "edge",
            &json!({"clusterIP": "10.96.0.4", "type": "NodePort",
            "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80, "nodePort": 30081}]}),
        ),
    ];
    let dns = json!([{"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53}]);
    let slices = [
        slice("web", &http(), &pods),
        slice("dns", &dns, &pods[..1]),
        slice("edge", &http(), &pods[1..]),
    ];
    desired(&services, &slices, N1)
}
