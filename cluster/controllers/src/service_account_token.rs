//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of the account that it
//! names, and goes with the account.
//!
//! Tokens are signed by the API server, which has the key: the shell asks it for one.
//!
//! Source: kubernetes 1.33, `pkg/controller/serviceaccount/tokens_controller.go`.

use api::legacy_token::{ACCOUNT, ACCOUNT_UID, TYPE};
use api::{Key, Kind, Object, Request, Time, meta};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use machine::{Cache, Delta, Plan, Reconciler};

/// Has tokens made, and deletes those whose account is gone.
///
/// The keys are secrets.
pub struct ServiceAccountTokens {
    ca_pem: String,
}

impl ServiceAccountTokens {
    /// Tokens come with the authority of the API server, a PEM bundle.
    pub const fn new(ca_pem: String) -> Self {
        Self { ca_pem }
    }

    /// Whether the secret has all that it should have.
    fn is_complete(&self, secret: &Secret, account: &ServiceAccount) -> bool {
        let field = |name: &str| secret.data.as_ref().and_then(|data| data.get(name));
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let uid = meta::annotation(&secret.metadata, ACCOUNT_UID);
        // Whether the token is any good only the API server can tell.
        field("token").is_some()
            && field("ca.crt").is_some_and(|value| value.0 == self.ca_pem.as_bytes())
            && field("namespace").is_some_and(|value| value.0 == namespace.as_bytes())
            && uid == account.metadata.uid.as_deref()
    }
}

impl Reconciler for ServiceAccountTokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Secret, Kind::ServiceAccount]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::Secret {
            let ours = delta.new.as_ref().and_then(Object::get::<Secret>).and_then(account_of);
            return ours.map(|_| delta.key.clone()).into_iter().collect();
        }
        // Only accounts that come and go matter.
        let uid = |object: &Option<Object>| object.as_ref().map(|o| o.uid().to_owned());
        if uid(&delta.old) == uid(&delta.new) {
            return Vec::new();
        }
        let secrets = cache.list_in::<Secret>(&delta.key.namespace);
        let named = secrets.filter(|secret| account_of(secret) == Some(&*delta.key.name));
        let names = named.filter_map(|secret| secret.metadata.name.as_deref());
        names.map(|name| Key::new(Kind::Secret, &delta.key.namespace, name)).collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(secret) = object.get::<Secret>() else { return plan };
        let Some(name) = account_of(secret) else { return plan };
        if meta::is_terminating(&secret.metadata) {
            return plan;
        }
        let uid = meta::annotation(&secret.metadata, ACCOUNT_UID).filter(|uid| !uid.is_empty());
        let account = cache
            .get::<ServiceAccount>(&key.namespace, name)
            .filter(|account| uid.is_none() || account.metadata.uid.as_deref() == uid);
        match account {
            Some(account) if self.is_complete(secret, account) => {}
            Some(_) => plan.request(Request::Sign(key.clone())),
            None if cache.revision(Kind::ServiceAccount) < object.revision() => {
                plan.request(Request::ReadRevision(Kind::ServiceAccount));
            }
            None => plan.request(Request::Delete {
                key: key.clone(),
                uid: secret.metadata.uid.clone(),
                revision: Some(object.revision()),
                grace_seconds: None,
                propagation: None,
            }),
        }
        plan
    }
}

/// The account whose token the secret is for.
fn account_of(secret: &Secret) -> Option<&str> {
    let name = meta::annotation(&secret.metadata, ACCOUNT).filter(|name| !name.is_empty());
    name.filter(|_| secret.type_.as_deref() == Some(TYPE))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn fixture() -> Fixture<ServiceAccountTokens> {
        Fixture::new(ServiceAccountTokens::new("CA".to_owned()))
    }

    fn account(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": "n", "uid": uid}})
    }

    fn secret(uid: Option<&str>, ca: &str) -> Value {
        let mut annotations = json!({ACCOUNT: "robot"});
        let mut data = json!({});
        if let Some(uid) = uid {
            annotations[ACCOUNT_UID] = uid.into();
            let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
            data = json!({"token": bytes("t"), "ca.crt": bytes(ca), "namespace": bytes("n")});
        }
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "data": data,
            "metadata": {"name": "s", "namespace": "n", "annotations": annotations}})
    }

    fn key() -> Key {
        Key::new(Kind::Secret, "n", "s")
    }

    #[test]
    fn secrets_get_what_they_lack() {
        let check = |secret: Value, expected: &[&str]| {
            let mut fixture = fixture();
            fixture.put(account("u"));
            assert_eq!(fixture.put(secret), [key()]);
            fixture.progress();
            assert_eq!(summary(&fixture.reconcile(&key())), expected);
        };
        check(secret(None, ""), &["sign n/s"]);
        check(secret(Some("u"), "CA"), &[]);
        check(secret(Some("u"), "another"), &["sign n/s"]);
        let mut without = secret(Some("u"), "CA");
        without["data"].as_object_mut().unwrap().remove("token");
        check(without, &["sign n/s"]);
        check(secret(Some("former"), "CA"), &["delete secrets/n/s"]);
    }

    #[test]
    fn tokens_go_with_their_account() {
        let mut fixture = fixture();
        fixture.put(secret(Some("u"), "CA"));
        // The account may be about to be seen.
        assert_eq!(summary(&fixture.reconcile(&key())), ["read ServiceAccount"]);
        assert_eq!(fixture.put(account("u")), [key()]);
        assert_eq!(fixture.reconcile(&key()), Plan::nothing());
        let mut labelled = account("u");
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert!(fixture.put(labelled).is_empty());
        let account = Key::new(Kind::ServiceAccount, "n", "robot");
        assert_eq!(fixture.remove(&account), [key()]);
        assert_eq!(summary(&fixture.reconcile(&key())), ["delete secrets/n/s"]);
    }

    #[test]
    fn other_secrets_are_left_alone() {
        let mut fixture = fixture();
        let mut opaque = secret(None, "");
        opaque["type"] = "Opaque".into();
        assert!(fixture.put(opaque).is_empty());
        assert_eq!(fixture.reconcile(&key()), Plan::nothing());
    }
}
