//! Every namespace has a service account named `default`.
//!
//! Source: kubernetes 1.33, `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use api::{ApiObject, Key, Kind, Object, Request, Time, meta};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use machine::{Cache, Delta, Plan, Reconciler};

const NAME: &str = "default";

/// Makes the service account `default` in every active namespace.
pub struct ServiceAccounts;

impl Reconciler for ServiceAccounts {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Namespace, Kind::ServiceAccount]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        namespace_of(delta, NAME).into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        if is_active(cache, key) && cache.get::<ServiceAccount>(&key.name, NAME).is_none() {
            let mut account = ServiceAccount::default();
            account.metadata.name = Some(NAME.to_owned());
            account.metadata.namespace = Some(key.name.to_string());
            plan.request(Request::Create(account.into_object()));
        }
        plan
    }
}

/// The namespace that changed, or the one whose object of that name changed.
pub(crate) fn namespace_of(delta: &Delta, name: &str) -> Option<Key> {
    match delta.key.kind {
        Kind::Namespace => Some(delta.key.clone()),
        _ if &*delta.key.name == name => Some(Key::cluster(Kind::Namespace, &delta.key.namespace)),
        _ => None,
    }
}

/// Whether the namespace exists and is not being deleted.
pub(crate) fn is_active(cache: &Cache, key: &Key) -> bool {
    let Some(namespace) = cache.object(key).and_then(Object::get::<Namespace>) else {
        return false;
    };
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    !meta::is_terminating(&namespace.metadata) && phase != Some("Terminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, creates};

    fn check(namespace: serde_json::Value, with_account: bool, expected: &[&str]) {
        let mut fixture = Fixture::new(ServiceAccounts);
        fixture.put(namespace);
        if with_account {
            fixture.put(serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": "n"}}));
        }
        let plan = fixture.reconcile(&Key::cluster(Kind::Namespace, "n"));
        assert_eq!(creates(&plan), expected);
    }

    #[test]
    fn every_active_namespace_gets_one() {
        let namespace = |extra: serde_json::Value| {
            let mut value = serde_json::json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "n"}});
            value["metadata"]["deletionTimestamp"] = extra;
            value
        };
        let alive = || namespace(serde_json::Value::Null);
        check(alive(), false, &["serviceaccounts/n/default"]);
        check(alive(), true, &[]);
        check(namespace("2026-01-01T00:00:00Z".into()), false, &[]);
    }

    #[test]
    fn a_lost_account_is_made_again() {
        let mut fixture = Fixture::new(ServiceAccounts);
        fixture.put(serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "n"}}));
        let keys = fixture.remove(&Key::new(Kind::ServiceAccount, "n", "default"));
        assert_eq!(keys, [Key::cluster(Kind::Namespace, "n")]);
    }
}
