#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, summary};

/// A PKCS#10 request as PEM in base64, as the API carries it.
fn request(common_name: &str, organization: &str, names: &[&str]) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    serde_json::to_value(k8s_openapi::ByteString(pem.into_bytes())).unwrap()
}

struct Case<'a> {
    signer: &'a str,
    user: &'a str,
    groups: &'a [&'a str],
    usages: &'a [&'a str],
    request: Value,
}

const CLIENT_USAGES: &[&str] = &["digital signature", "key encipherment", "client auth"];
const SERVER_USAGES: &[&str] = &["digital signature", "server auth"];

fn check(case: Case<'_>, approved: bool) {
    check_with(CsrApprover::new(false), case, approved);
}

fn check_with(approver: CsrApprover, case: Case<'_>, approved: bool) {
    let mut fixture = Fixture::new(approver);
    fixture.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"},
            {"type": "Hostname", "address": "a.example"}]}}));
    let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": case.request, "signerName": case.signer, "username": case.user,
            "groups": case.groups, "usages": case.usages}}));
    let done = fixture.settle(&keys[0]);
    let expected: &[&str] =
        if approved { &["update certificatesigningrequests/c approval"] } else { &[] };
    assert_eq!(done, expected);
    assert_eq!(summary(&fixture.reconcile(&keys[0])), Vec::<String>::new());
}

fn client<'a>(user: &'a str, groups: &'a [&'a str], request: Value) -> Case<'a> {
    Case { signer: CLIENT_SIGNER, user, groups, usages: CLIENT_USAGES, request }
}

fn serving<'a>(user: &'a str, names: &[&str]) -> Case<'a> {
    let request = request("system:node:a", NODES, names);
    Case { signer: SERVING_SIGNER, user, groups: &[NODES], usages: SERVER_USAGES, request }
}

#[test]
fn client_certificates() {
    let good = || request("system:node:a", NODES, &[]);
    let token = "system:bootstrap:abcdef";
    check(client(token, &[BOOTSTRAPPERS], good()), true);
    check(client("system:node:a", &[NODES], good()), true);
    check(client("system:node:b", &[NODES], good()), false);
    check(client("jane", &["developers"], good()), false);
    check(client(token, &[BOOTSTRAPPERS], request("jane", NODES, &[])), false);
    check(client(token, &[BOOTSTRAPPERS], request("system:node:", NODES, &[])), false);
    check(client(token, &[BOOTSTRAPPERS], request("system:node:a", "system:masters", &[])), false);
    check(client(token, &[BOOTSTRAPPERS], request("system:node:a", NODES, &["a"])), false);
    check(client(token, &[BOOTSTRAPPERS], json!("bm9uc2Vuc2U=")), false);
    let usages = |usages| Case { usages, ..client(token, &[BOOTSTRAPPERS], good()) };
    check(usages(&["digital signature", "client auth"]), true);
    check(usages(&["digital signature", "client auth", "server auth"]), false);
    check(usages(&[]), false);
    let other = Case { signer: "example.com/x", ..client(token, &[BOOTSTRAPPERS], good()) };
    check(other, false);
}

#[test]
fn serving_certificates() {
    check(serving("system:node:a", &["a", "10.0.0.7", "a.example"]), true);
    check(serving("system:node:a", &["10.0.0.7"]), true);
    check(serving("system:node:a", &[]), false);
    check(serving("system:node:a", &["10.0.0.8"]), false);
    check(serving("system:node:a", &["a", "kubernetes.default"]), false);
    check(serving("system:node:b", &["a"]), false);
    check(Case { groups: &[BOOTSTRAPPERS], ..serving("system:node:a", &["a"]) }, false);
    check(Case { usages: CLIENT_USAGES, ..serving("system:node:a", &["a"]) }, false);
}

#[test]
fn people_may_decide_which_nodes_join() {
    let by_hand = || CsrApprover::new(true);
    let good = || request("system:node:a", NODES, &[]);
    check_with(by_hand(), client("system:bootstrap:abcdef", &[BOOTSTRAPPERS], good()), false);
    // Who has joined renews its certificates by itself.
    check_with(by_hand(), client("system:node:a", &[NODES], good()), true);
    check_with(by_hand(), serving("system:node:a", &["10.0.0.7"]), true);
}

#[test]
fn a_registered_address_concerns_waiting_requests() {
    let mut fixture = Fixture::new(CsrApprover::new(false));
    let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": request("system:node:a", NODES, &["10.0.0.7"]),
            "signerName": SERVING_SIGNER, "username": "system:node:a", "groups": [NODES],
            "usages": SERVER_USAGES}}));
    assert_eq!(fixture.settle(&keys[0]), Vec::<String>::new());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]}});
    assert_eq!(fixture.put(node.clone()), keys);
    assert_eq!(fixture.settle(&keys[0]).len(), 1);
    assert_eq!(fixture.put(node), []);
}
