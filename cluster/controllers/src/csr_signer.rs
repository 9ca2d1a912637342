//! Has approved certificate signing requests signed. Keys and randomness are the shell's. What the
//! signer that was asked does not sign gets a condition that says why.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/signer` and
//! `pkg/apis/certificates/helpers.go`.

use std::collections::BTreeSet;

use api::{ApiObject, Key, Kind, Object, Request, Subresource, Time};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use machine::{Cache, Delta, Plan, Reconciler};

use crate::csr_approver::{Asked, usages_are};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signs whatever was approved, as ever.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Signers that this cluster is.
const SIGNERS: [&str; 4] = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];

const CLIENT_AUTH: &str = "client auth";
const SERVER_AUTH: &str = "server auth";
const SIGNATURE: &str = "digital signature";
const ENCIPHERMENT: &str = "key encipherment";

/// Signs approved requests.
pub struct CsrSigner;

impl Reconciler for CsrSigner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::CertificateSigningRequest]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        vec![delta.key.clone()]
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let csr = cache.object(key).and_then(Object::get::<CertificateSigningRequest>);
        let due = csr.filter(|csr| {
            SIGNERS.contains(&csr.spec.signer_name.as_str())
                && has_condition(csr, "Approved")
                && !has_condition(csr, "Denied")
                && !has_condition(csr, "Failed")
                && !is_issued(csr)
        });
        match due.map(|csr| (csr, objection(csr))) {
            Some((_, None)) => plan.request(Request::Sign(key.clone())),
            Some((csr, Some(why))) => plan.request(failed(csr, why, now)),
            None => {}
        }
        plan
    }
}

/// Notes why the request is not signed.
fn failed(csr: &CertificateSigningRequest, why: String, now: Time) -> Request {
    let mut csr = csr.clone();
    let conditions = csr.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(why),
        last_update_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
    });
    Request::Update { object: csr.into_object(), subresource: Some(Subresource::Status) }
}

/// Why the signer does not sign the request; `None` when it does, or when the request cannot be
/// read, which whoever signs will find.
fn objection(csr: &CertificateSigningRequest) -> Option<String> {
    let spec = &csr.spec;
    let usages: BTreeSet<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    let purpose = match spec.signer_name.as_str() {
        CLIENT => return not_a_client(spec.usages.as_deref().unwrap_or_default()),
        KUBELET_CLIENT => CLIENT_AUTH,
        KUBELET_SERVING => SERVER_AUTH,
        _ => return None,
    };
    let asked = Asked::parse(&spec.request.0)?;
    let mut all = [SIGNATURE, ENCIPHERMENT, purpose];
    all.sort_unstable();
    let other_usages = || format!("usages did not match [{}]", all.join(" "));
    let [hosts, addresses, mailboxes, uris] = asked.has;
    let serves = purpose == SERVER_AUTH;
    let named = asked.common_name.starts_with("system:node:");
    let first = [
        (asked.organizations != ["system:nodes"], "subject organization is not system:nodes"),
        (serves && !hosts && !addresses, "DNS or IP subjectAltName is required"),
        (!serves && hosts, "DNS subjectAltNames are not allowed"),
        (mailboxes, "Email subjectAltNames are not allowed"),
        (!serves && addresses, "IP subjectAltNames are not allowed"),
        (uris, "URI subjectAltNames are not allowed"),
        // The one signer looks at usages before it looks at the name, the other one after.
        (!serves && !named, "subject common name does not begin with system:node:"),
    ];
    if let Some((_, why)) = first.into_iter().find(|(wrong, _)| *wrong) {
        return Some(why.to_owned());
    }
    if !usages_are(&usages, purpose) {
        return Some(other_usages());
    }
    (!named).then(|| "subject common name does not begin with system:node:".to_owned())
}

/// Why these are not the usages of a client.
fn not_a_client(usages: &[String]) -> Option<String> {
    let known = [SIGNATURE, ENCIPHERMENT, CLIENT_AUTH];
    if let Some(other) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    (!usages.iter().any(|usage| usage == CLIENT_AUTH))
        .then(|| format!("missing required usage for client certificate: {CLIENT_AUTH}"))
}

/// Whether the request has a condition of that type; whether it is true does not matter.
pub(crate) fn has_condition(csr: &CertificateSigningRequest, kind: &str) -> bool {
    let status = csr.status.as_ref();
    status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().any(|c| c.type_ == kind)
}

/// Whether the certificate was issued.
pub(crate) fn is_issued(csr: &CertificateSigningRequest) -> bool {
    let certificate = csr.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.is_some_and(|c| !c.0.is_empty())
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn check(signer: &str, conditions: &[&str], certificate: Value, signs: bool) {
        let mut fixture = Fixture::new(CsrSigner);
        let conditions: Vec<Value> =
            conditions.iter().map(|c| json!({"type": c, "status": "True"})).collect();
        let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
            "spec": {"request": "", "signerName": signer},
            "status": {"conditions": conditions, "certificate": certificate}}));
        let expected: &[&str] = if signs { &["sign c"] } else { &[] };
        assert_eq!(summary(&fixture.reconcile(&keys[0])), expected);
    }

    #[test]
    fn only_approved_requests_to_us_are_signed() {
        let kubelet = "kubernetes.io/kubelet-serving";
        check(kubelet, &["Approved"], Value::Null, true);
        check(kubelet, &[], Value::Null, false);
        check(kubelet, &["Approved", "Denied"], Value::Null, false);
        check(kubelet, &["Approved", "Failed"], Value::Null, false);
        check(kubelet, &["Approved"], json!("eA=="), false);
        check("example.com/other", &["Approved"], Value::Null, false);
    }

    /// What is noted of an approved request; nothing when it is signed.
    fn noted(signer: &str, usages: &[&str], subject: (&str, &str), names: &[SanType]) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.0);
        params.distinguished_name.push(DnType::OrganizationName, subject.1);
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let mut fixture = Fixture::new(CsrSigner);
        let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
            "spec": {"request": k8s_openapi::ByteString(pem.into_bytes()), "signerName": signer,
                "usages": usages},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]}}));
        let plan = fixture.reconcile(&keys[0]);
        assert_eq!(plan.requests.len(), 1);
        let Request::Update { object, subresource: Some(Subresource::Status) } = &plan.requests[0]
        else {
            assert_eq!(summary(&plan), ["sign c"]);
            return Value::Null;
        };
        let condition = &api::codec::to_value(object)["status"]["conditions"][1];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("Failed"), &json!("True")));
        assert_eq!(condition["reason"], "SignerValidationFailure");
        condition["message"].clone()
    }

    #[test]
    fn each_signer_signs_what_it_is_for() {
        let node = ("system:node:a", "system:nodes");
        let host = SanType::DnsName("a".try_into().unwrap());
        let ip = SanType::IpAddress("10.0.0.7".parse().unwrap());
        let mail = SanType::Rfc822Name("a@b".try_into().unwrap());
        let uri = SanType::URI("spiffe://a".try_into().unwrap());
        let client = [SIGNATURE, ENCIPHERMENT, CLIENT_AUTH];
        let server = [SIGNATURE, SERVER_AUTH];
        let kubelet = |subject, usages: &[&str], names: &[SanType]| {
            noted(KUBELET_CLIENT, usages, subject, names)
        };
        assert_eq!(kubelet(node, &client, &[]), Value::Null);
        assert_eq!(
            kubelet(node, &client[..1], &[]),
            "usages did not match [client auth digital signature key encipherment]"
        );
        assert_eq!(
            kubelet(("system:node:a", "x"), &client, &[]),
            "subject organization is not system:nodes"
        );
        assert_eq!(
            kubelet(("a", "system:nodes"), &client, &[]),
            "subject common name does not begin with system:node:"
        );
        for (name, kind) in [(&host, "DNS"), (&ip, "IP"), (&mail, "Email"), (&uri, "URI")] {
            let why = format!("{kind} subjectAltNames are not allowed");
            assert_eq!(kubelet(node, &client, std::slice::from_ref(name)), why);
        }
        let serving = |subject, usages: &[&str], names: &[SanType]| {
            noted(KUBELET_SERVING, usages, subject, names)
        };
        assert_eq!(serving(node, &server, std::slice::from_ref(&ip)), Value::Null);
        assert_eq!(serving(node, &server, std::slice::from_ref(&host)), Value::Null);
        assert_eq!(serving(node, &server, &[]), "DNS or IP subjectAltName is required");
        assert_eq!(
            serving(node, &server, &[host.clone(), mail]),
            "Email subjectAltNames are not allowed"
        );
        assert_eq!(
            serving(node, &server, &[host.clone(), uri]),
            "URI subjectAltNames are not allowed"
        );
        assert_eq!(
            serving(node, &client, std::slice::from_ref(&host)),
            "usages did not match [digital signature key encipherment server auth]"
        );
        assert_eq!(
            serving(("a", "system:nodes"), &server, std::slice::from_ref(&host)),
            "subject common name does not begin with system:node:"
        );
        let plain =
            |usages: &[&str]| noted(CLIENT, usages, ("jane", "dev"), std::slice::from_ref(&host));
        assert_eq!(plain(&client), Value::Null);
        assert_eq!(plain(&server), "invalid usage for client certificate: server auth");
        assert_eq!(
            plain(&client[..2]),
            "missing required usage for client certificate: client auth"
        );
        assert_eq!(noted(LEGACY, &["any"], ("jane", "dev"), &[]), Value::Null);
    }
}
