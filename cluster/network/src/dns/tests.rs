use serde_json::{Value, json};

use super::*;

fn directory() -> Directory {
    let ranges = ["10.244.0.0/16", "10.254.0.0/16"].map(|range| range.parse().unwrap());
    let mut directory =
        Directory::new(Zone { domain: "cluster.local".to_owned(), ranges: ranges.into() });
    directory.put_namespace("default");
    service(
        &mut directory,
        "kubernetes",
        &json!({
            "clusterIP": "10.254.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
        }),
    );
    service(
        &mut directory,
        "web",
        &json!({
            "clusterIP": "10.254.0.7", "clusterIPs": ["10.254.0.7", "fd00::7"],
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }),
    );
    service(
        &mut directory,
        "db",
        &json!({
            "clusterIP": "None", "ports": [{"name": "sql", "port": 5432}],
        }),
    );
    service(
        &mut directory,
        "early",
        &json!({
            "clusterIP": "None", "publishNotReadyAddresses": true,
        }),
    );
    service(&mut directory, "empty", &json!({"clusterIP": "None"}));
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    service(&mut directory, "outside", &external("Example.com."));
    service(&mut directory, "inside", &external("web.default.svc.cluster.local"));
    service(&mut directory, "tick", &external("tock.default.svc.cluster.local"));
    service(&mut directory, "tock", &external("tick.default.svc.cluster.local"));
    slice(
        &mut directory,
        "db-1",
        "db",
        &json!([
            {"addresses": ["10.244.1.2"], "hostname": "db-0"},
            {"addresses": ["10.244.1.3"], "conditions": {"ready": true}},
            {"addresses": ["10.244.1.4"], "hostname": "db-2", "conditions": {"ready": false}},
        ]),
    );
    slice(
        &mut directory,
        "early-1",
        "early",
        &json!([
            {"addresses": ["10.244.1.9"], "hostname": "e-0", "conditions": {"ready": false}},
        ]),
    );
    directory
}

fn service(directory: &mut Directory, name: &str, spec: &Value) {
    let metadata = json!({"namespace": "default", "name": name});
    let service = json!({"metadata": metadata, "spec": spec});
    directory.put_service(&serde_json::from_value(service).unwrap());
}

fn slice(directory: &mut Directory, name: &str, service: &str, endpoints: &Value) {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata = json!({"namespace": "default", "name": name, "labels": labels});
    let ports = json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]);
    let slice = json!({
        "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    });
    directory.put_slice(&serde_json::from_value(slice).unwrap());
}

fn show(answer: &Answer) -> String {
    let Answer::Known(known) = answer else { return "elsewhere".to_owned() };
    let mut lines = vec![format!("{:?}", known.code)];
    let sections = [("", &known.answers), ("? ", &known.authority), ("+ ", &known.additional)];
    for (sign, records) in sections {
        lines.extend(records.iter().map(|record| format!("{sign}{record}")));
    }
    lines.extend(known.then.iter().map(|name| format!("then {name}")));
    lines.join("\n")
}

fn ask(directory: &Directory, name: &str, kind: QueryType) -> String {
    show(&directory.answer(&Question { name, kind }, 0))
}

fn check(name: &str, kind: QueryType, expected: &[&str]) {
    let answer = ask(&directory(), name, kind);
    // The serial number says how often something changed, which is no business of most tests.
    let answer = answer
        .lines()
        .map(|line| if line.starts_with("? ") { line.rsplit_once(' ').unwrap().0 } else { line });
    assert_eq!(answer.collect::<Vec<_>>(), expected, "{name} {kind:?}");
}

const SOA: &str =
    "? cluster.local SOA kube-dns.kube-system.svc.cluster.local hostmaster.cluster.local";
const REVERSE_SOA: &str =
    "? in-addr.arpa SOA kube-dns.kube-system.svc.cluster.local hostmaster.cluster.local";

#[test]
fn services_have_their_addresses() {
    let name = "web.default.svc.cluster.local";
    check(name, QueryType::A, &["NoError", "web.default.svc.cluster.local A 10.254.0.7"]);
    check(name, QueryType::Aaaa, &["NoError", "web.default.svc.cluster.local AAAA fd00::7"]);
    check(name, QueryType::Txt, &["NoError", SOA]);
    // A service of one family exists in the other one, too, and has no address there.
    check("kubernetes.default.svc.cluster.local", QueryType::Aaaa, &["NoError", SOA]);
    check("nobody.default.svc.cluster.local", QueryType::A, &["NameError", SOA]);
    check("web.other.svc.cluster.local", QueryType::A, &["NameError", SOA]);
}

#[test]
fn headless_services_have_those_of_their_endpoints() {
    let name = "db.default.svc.cluster.local";
    let both = [format!("{name} A 10.244.1.2"), format!("{name} A 10.244.1.3")];
    check(name, QueryType::A, &["NoError", &both[0], &both[1]]);
    let next = directory().answer(&Question { name, kind: QueryType::A }, 3);
    assert_eq!(show(&next), format!("NoError\n{}\n{}", both[1], both[0]));
    let own = "db-0.db.default.svc.cluster.local";
    check(own, QueryType::A, &["NoError", &format!("{own} A 10.244.1.2")]);
    let dashed = "10-244-1-3.db.default.svc.cluster.local";
    check(dashed, QueryType::A, &["NoError", &format!("{dashed} A 10.244.1.3")]);
    check("10-244-1-2.db.default.svc.cluster.local", QueryType::A, &["NameError", SOA]);
    check("db-2.db.default.svc.cluster.local", QueryType::A, &["NameError", SOA]);
    let early = "e-0.early.default.svc.cluster.local";
    check(early, QueryType::A, &["NoError", &format!("{early} A 10.244.1.9")]);
    check("empty.default.svc.cluster.local", QueryType::A, &["NoError", SOA]);
}

#[test]
fn named_ports_are_found() {
    let name = "_http._tcp.web.default.svc.cluster.local";
    let web = "web.default.svc.cluster.local";
    let additional = [format!("+ {web} A 10.254.0.7"), format!("+ {web} AAAA fd00::7")];
    let answer = format!("{name} SRV 0 100 80 {web}");
    check(name, QueryType::Srv, &["NoError", &answer, &additional[0], &additional[1]]);
    check(name, QueryType::A, &["NoError", SOA]);
    check("_http._udp.web.default.svc.cluster.local", QueryType::Srv, &["NameError", SOA]);
    check("_tcp.web.default.svc.cluster.local", QueryType::Srv, &["NoError", SOA]);
    check("_sctp.web.default.svc.cluster.local", QueryType::Srv, &["NameError", SOA]);
    let name = "_sql._tcp.db.default.svc.cluster.local";
    let targets = ["db-0.db.default.svc.cluster.local", "10-244-1-3.db.default.svc.cluster.local"];
    check(
        name,
        QueryType::Srv,
        &[
            "NoError",
            &format!("{name} SRV 0 50 5432 {}", targets[0]),
            &format!("{name} SRV 0 50 5432 {}", targets[1]),
            &format!("+ {} A 10.244.1.2", targets[0]),
            &format!("+ {} A 10.244.1.3", targets[1]),
        ],
    );
}

#[test]
fn addresses_have_names() {
    let check_name = |name: &str, expected: &str| {
        check(name, QueryType::Ptr, &["NoError", &format!("{name} PTR {expected}")]);
    };
    check_name("7.0.254.10.in-addr.arpa", "web.default.svc.cluster.local");
    check_name("2.1.244.10.in-addr.arpa", "db-0.db.default.svc.cluster.local");
    check_name("9.1.244.10.in-addr.arpa", "e-0.early.default.svc.cluster.local");
    check("7.0.254.10.in-addr.arpa", QueryType::A, &["NoError", REVERSE_SOA]);
    // Neither ready nor named, and nobody's.
    for name in ["4.1.244.10", "3.1.244.10", "99.0.254.10"] {
        check(&format!("{name}.in-addr.arpa"), QueryType::Ptr, &["NameError", REVERSE_SOA]);
    }
    for name in ["8.8.8.8", "254.10", "1.2.3.4.5", "x.0.254.10", "300.0.254.10"] {
        check(&format!("{name}.in-addr.arpa"), QueryType::Ptr, &["elsewhere"]);
    }
}

#[test]
fn pods_are_spelled_out_in_namespaces_that_exist() {
    let name = "10-244-1-7.default.pod.cluster.local";
    check(name, QueryType::A, &["NoError", &format!("{name} A 10.244.1.7")]);
    check("10-244-1-7.other.pod.cluster.local", QueryType::A, &["NameError", SOA]);
    check("10-244-1.default.pod.cluster.local", QueryType::A, &["NameError", SOA]);
    check("010-244-1-7.default.pod.cluster.local", QueryType::A, &["NameError", SOA]);
}

#[test]
fn external_names_lead_on() {
    let alias = |from: &str, to: &str| format!("{from}.default.svc.cluster.local CNAME {to}");
    let outside = "outside.default.svc.cluster.local";
    let line = alias("outside", "example.com");
    check(outside, QueryType::A, &["NoError", &line, "then example.com"]);
    check(outside, QueryType::Cname, &["NoError", &line]);
    let web = "web.default.svc.cluster.local";
    let (line, address) = (alias("inside", web), format!("{web} A 10.254.0.7"));
    check("inside.default.svc.cluster.local", QueryType::A, &["NoError", &line, &address]);
    check("inside.default.svc.cluster.local", QueryType::Txt, &["NoError", &line, SOA]);
    check("tick.default.svc.cluster.local", QueryType::A, &["ServerFailure"]);
}

#[test]
fn names_above_services_exist() {
    let version = "dns-version.cluster.local";
    check(version, QueryType::Txt, &["NoError", &format!("{version} TXT \"1.1.0\"")]);
    check("cluster.local", QueryType::A, &["NoError", SOA]);
    check(
        "cluster.local",
        QueryType::Ns,
        &["NoError", "cluster.local NS kube-dns.kube-system.svc.cluster.local"],
    );
    for name in ["svc", "pod", "default.svc", "default.pod"] {
        check(&format!("{name}.cluster.local"), QueryType::A, &["NoError", SOA]);
    }
    for name in ["other.svc", "other.pod", "example", "a.b.c.web.default.svc", ".svc", ""] {
        check(&format!("{name}.cluster.local"), QueryType::A, &["NameError", SOA]);
    }
    for name in ["example.com", "mycluster.local", "local", ""] {
        check(name, QueryType::A, &["elsewhere"]);
    }
}

#[test]
fn news_replace_what_was_known() {
    let mut directory = directory();
    let web = "web.default.svc.cluster.local";
    let none = |directory: &Directory, name: &str, kind| {
        let answer = ask(directory, name, kind);
        assert!(answer.starts_with("NameError"), "{name}: {answer}");
    };
    // Another service gets the address before the end of the first one is told.
    service(&mut directory, "new", &json!({"clusterIP": "10.254.0.7"}));
    directory.remove_service("default", "web");
    none(&directory, web, QueryType::A);
    let name = ask(&directory, "7.0.254.10.in-addr.arpa", QueryType::Ptr);
    assert!(name.ends_with("PTR new.default.svc.cluster.local"), "{name}");
    // A slice goes from one service to another.
    slice(&mut directory, "db-1", "empty", &json!([{"addresses": ["10.244.1.8"]}]));
    let answer = ask(&directory, "empty.default.svc.cluster.local", QueryType::A);
    assert!(answer.ends_with("A 10.244.1.8"), "{answer}");
    none(&directory, "db-0.db.default.svc.cluster.local", QueryType::A);
    none(&directory, "2.1.244.10.in-addr.arpa", QueryType::Ptr);
    directory.clear_slices();
    directory.clear_services();
    assert_eq!(directory.services(), 0);
    none(&directory, "early.default.svc.cluster.local", QueryType::A);
    directory.clear_namespaces();
    none(&directory, "default.svc.cluster.local", QueryType::A);
}

#[test]
fn no_answer_is_longer_than_a_message() {
    let mut directory = directory();
    let endpoint = |n: usize| json!({"addresses": [format!("10.244.{}.{}", n / 256, n % 256)]});
    for part in 0..20 {
        let endpoints = (part * 100..part * 100 + 100).map(endpoint).collect();
        slice(&mut directory, &format!("many-{part}"), "empty", &endpoints);
    }
    let question = Question { name: "empty.default.svc.cluster.local", kind: QueryType::A };
    let count = |turn| match directory.answer(&question, turn) {
        Answer::Known(known) => (known.answers.len(), known.answers[0].to_string()),
        Answer::Elsewhere => panic!("a name of the cluster"),
    };
    assert_eq!(count(0), (RECORDS_MAX, format!("{} A 10.244.0.0", question.name)));
    assert_eq!(count(1_500), (RECORDS_MAX, format!("{} A 10.244.5.220", question.name)));
}
