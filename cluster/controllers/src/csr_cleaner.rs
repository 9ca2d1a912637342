//! Removes certificate signing requests that have served their purpose.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/cleaner`.

use std::time::Duration;

use api::{Key, Kind, Object, Time, meta};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use machine::{Cache, Delta, Plan, Reconciler};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::csr_signer::is_issued;
use crate::ownership;

const HOUR: Duration = Duration::from_secs(3600);

/// Issued, denied and failed requests are kept for an hour, undecided ones for a day, and none for
/// longer than its certificate is good.
const KEPT: [(&str, Duration); 3] = [("Approved", HOUR), ("Denied", HOUR), ("Failed", HOUR)];
const KEPT_PENDING: Duration = Duration::from_secs(24 * 3600);

/// Deletes old requests.
pub struct CsrCleaner;

impl Reconciler for CsrCleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::CertificateSigningRequest]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        vec![delta.key.clone()]
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(csr) = cache.object(key).and_then(Object::get::<CertificateSigningRequest>) else {
            return plan;
        };
        match expiry(csr) {
            Some(due) if due > now => plan.revisit_in(due.since(now)),
            Some(_) => plan.request(ownership::delete(csr)),
            None => {}
        }
        plan
    }
}

/// When a certificate that was issued ends; `None` when it cannot be read.
fn certificate_ends(csr: &CertificateSigningRequest) -> Option<Time> {
    let certificate = csr.status.as_ref()?.certificate.as_ref()?;
    let pem = pem::parse(&certificate.0).ok()?;
    let (_, certificate) = X509Certificate::from_der(pem.contents()).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Time::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// When the request may go; never, as long as it is approved and waits for its certificate.
fn expiry(csr: &CertificateSigningRequest) -> Option<Time> {
    let conditions = || csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    if conditions().next().is_none() {
        return Some(meta::created_at(&csr.metadata) + KEPT_PENDING);
    }
    let ends = conditions().find(|c| c.type_ == "Approved").and_then(|_| certificate_ends(csr));
    // A certificate is good until its last second is over.
    let ended = ends.map(|end| end + Duration::from_secs(1));
    KEPT.iter()
        .filter(|(kind, _)| *kind != "Approved" || is_issued(csr))
        .filter_map(|(kind, kept)| {
            let decided = conditions().find(|c| c.type_ == *kind)?;
            let at = decided.last_update_time.as_ref().map(Time::from_meta);
            Some(at.unwrap_or_else(|| meta::created_at(&csr.metadata)) + *kept)
        })
        .chain(ended)
        .min()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn check(condition: &str, issued: bool, after_secs: u64, goes: bool) {
        let mut fixture = Fixture::new(CsrCleaner);
        let time = fixture.now().to_meta();
        let conditions = if condition.is_empty() {
            Value::Null
        } else {
            json!([{"type": condition, "status": "True", "lastUpdateTime": time}])
        };
        let certificate = if issued { json!("eA==") } else { Value::Null };
        let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": "c", "uid": "u", "creationTimestamp": time},
            "spec": {"request": "", "signerName": "s"},
            "status": {"conditions": conditions, "certificate": certificate}}));
        fixture.advance(Duration::from_secs(after_secs));
        let plan = fixture.reconcile(&keys[0]);
        let expected: &[&str] = if goes { &["delete certificatesigningrequests/c"] } else { &[] };
        assert_eq!(summary(&plan), expected, "{condition} after {after_secs}");
    }

    #[test]
    fn requests_are_kept_for_a_while() {
        check("Approved", true, 3_599, false);
        check("Approved", true, 3_600, true);
        check("Approved", false, 99_999, false);
        check("Denied", false, 3_600, true);
        check("Failed", false, 3_599, false);
        check("", false, 86_399, false);
        check("", false, 86_400, true);
    }

    #[test]
    fn requests_go_with_their_certificates() {
        let mut fixture = Fixture::new(CsrCleaner);
        let mut params = rcgen::CertificateParams::default();
        // A minute after the start.
        params.not_before = rcgen::date_time_ymd(2001, 9, 8);
        params.not_after = rcgen::date_time_ymd(2001, 9, 9) + Duration::from_secs(6_460);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let time = fixture.now().to_meta();
        let keys = fixture.put(json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": "c", "uid": "u", "creationTimestamp": time},
            "spec": {"request": "", "signerName": "s"},
            "status": {"certificate": k8s_openapi::ByteString(certificate.into_bytes()),
                "conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": time}]}}));
        let plan = fixture.reconcile(&keys[0]);
        assert_eq!((plan.requests.len(), plan.revisit), (0, Some(Duration::from_secs(61))));
        fixture.advance(Duration::from_secs(61));
        let deleted = ["delete certificatesigningrequests/c"];
        assert_eq!(summary(&fixture.reconcile(&keys[0])), deleted);
    }
}
