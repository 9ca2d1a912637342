//! Deletes bootstrap tokens that have ended.
//!
//! Source: kubernetes 1.33, `pkg/controller/bootstrap/tokencleaner.go`.

use api::{Key, Kind, Object, Request, Time};
use k8s_openapi::api::core::v1::Secret;
use machine::{Cache, Delta, Plan, Reconciler};

use crate::bootstrap_tokens::{ends, is_token};

/// Deletes tokens when their time has come.
pub struct TokenCleaner;

impl Reconciler for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Secret]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let secret = delta.new.as_ref().and_then(Object::get::<Secret>);
        let due = secret.filter(|secret| is_token(secret)).and_then(ends);
        due.map(|_| delta.key.clone()).into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(secret) = object.get::<Secret>().filter(|secret| is_token(secret)) else {
            return plan;
        };
        match ends(secret) {
            Some(end) if end > now => plan.revisit_in(end.since(now)),
            // At this very revision: a token that was just given more time stays.
            Some(_) => plan.request(Request::Delete {
                key: key.clone(),
                uid: secret.metadata.uid.clone(),
                revision: Some(object.revision()),
                grace_seconds: None,
                propagation: None,
            }),
            None => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn token(kind: &str, expiration: Option<&str>) -> Value {
        let encoded = expiration.map(|text| ByteString(text.as_bytes().to_vec()));
        json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "data": {"expiration": encoded.unwrap_or_default()}})
    }

    const TOKEN: &str = "bootstrap.kubernetes.io/token";
    const GONE: [&str; 1] = ["delete secrets/kube-system/bootstrap-token-abcdef"];

    #[test]
    fn tokens_go_when_they_end() {
        // An hour after the start, in another zone.
        let mut fixture = Fixture::new(TokenCleaner);
        let keys = fixture.put(token(TOKEN, Some("2001-09-09T04:46:40+02:00")));
        let plan = fixture.reconcile(&keys[0]);
        assert_eq!(plan.requests, []);
        assert_eq!(plan.revisit, Some(Duration::from_secs(3_600)));
        fixture.advance(Duration::from_secs(3_600));
        assert_eq!(summary(&fixture.reconcile(&keys[0])), GONE);
    }

    #[test]
    fn what_has_no_end_stays_and_what_nobody_understands_goes() {
        let mut fixture = Fixture::new(TokenCleaner);
        let keys = fixture.put(token(TOKEN, Some("tomorrow")));
        assert_eq!(summary(&fixture.reconcile(&keys[0])), GONE);
        assert!(fixture.put(token(TOKEN, None)).is_empty());
        assert_eq!(fixture.reconcile(&keys[0]), Plan::nothing());
        assert!(fixture.put(token("Opaque", Some("tomorrow"))).is_empty());
        let mut elsewhere = token(TOKEN, Some("tomorrow"));
        elsewhere["metadata"]["namespace"] = "default".into();
        assert!(fixture.put(elsewhere).is_empty());
    }
}
