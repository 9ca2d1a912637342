//! Has approved certificate signing requests signed. Keys and randomness are the shell's.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/signer`.

use api::{Key, Kind, Object, Request, Time};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use machine::{Cache, Delta, Plan, Reconciler};

/// Signers that this cluster is.
const SIGNERS: [&str; 4] = [
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/legacy-unknown",
];

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

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let csr = cache.object(key).and_then(Object::get::<CertificateSigningRequest>);
        let due = csr.is_some_and(|csr| {
            SIGNERS.contains(&csr.spec.signer_name.as_str())
                && has_condition(csr, "Approved")
                && !has_condition(csr, "Denied")
                && !has_condition(csr, "Failed")
                && !is_issued(csr)
        });
        if due {
            plan.request(Request::SignCertificate(key.clone()));
        }
        plan
    }
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
}
