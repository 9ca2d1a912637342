//! Removes certificate signing requests that have served their purpose.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/cleaner`.

use std::time::Duration;

use api::{Key, Kind, Object, Time, meta};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use machine::{Cache, Delta, Plan, Reconciler};

use crate::csr_signer::is_issued;
use crate::ownership;

const HOUR: Duration = Duration::from_secs(3600);

/// Issued, denied and failed requests are kept for an hour, undecided ones for a day.
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

/// When the request may go; never, as long as it is approved and waits for its certificate.
fn expiry(csr: &CertificateSigningRequest) -> Option<Time> {
    let conditions = || csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    if conditions().next().is_none() {
        return Some(meta::created_at(&csr.metadata) + KEPT_PENDING);
    }
    KEPT.iter()
        .filter(|(kind, _)| *kind != "Approved" || is_issued(csr))
        .filter_map(|(kind, kept)| {
            let decided = conditions().find(|c| c.type_ == *kind)?;
            let at = decided.last_update_time.as_ref().map(Time::from_meta);
            Some(at.unwrap_or_else(|| meta::created_at(&csr.metadata)) + *kept)
        })
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
}
