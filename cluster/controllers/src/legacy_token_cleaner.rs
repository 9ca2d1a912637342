//! Tokens in secrets that came with their account, as in clusters older than Kubernetes 1.24, and
//! that nobody uses: after a year they are not accepted any more, and after another one deleted.
//!
//! Which tokens came with their account is told by its `secrets`: what is not listed there somebody
//! made on purpose. When a token was used the API server notes; until it has done so for a year
//! nothing is known.
//!
//! Source: kubernetes 1.33, `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::collections::BTreeSet;
use std::time::Duration;

use api::legacy_token::{
    ACCOUNT, ACCOUNT_UID, INVALID_SINCE, LAST_USED, SINCE, TYPE, date, day, tracking,
};
use api::{ApiObject, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use machine::{Aspects, Cache, Delta, Plan, Reconciler};

/// Kubernetes' default of `--legacy-service-account-token-clean-up-period`.
const PERIOD: Duration = Duration::from_secs(365 * 24 * 3600);
/// Labels tell the day and not the hour. It is also how often it is looked whether pods still use a
/// token that is due.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Marks tokens that nobody uses, and deletes them.
///
/// The keys are secrets.
pub struct LegacyTokenCleaner;

impl Reconciler for LegacyTokenCleaner {
    fn name(&self) -> &'static str {
        "legacy-service-account-token-cleaner"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Secret, Kind::ServiceAccount, Kind::ConfigMap, Kind::Pod]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        // Who uses a secret is asked when its time has come.
        if kind == Kind::Pod { Aspects::NONE } else { Aspects::ALL }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::Secret => {
                let secret = delta.new.as_ref().and_then(Object::get::<Secret>);
                secret.filter(|s| is_token(s)).map(|_| delta.key.clone()).into_iter().collect()
            }
            Kind::ServiceAccount => {
                let listed = |object: &Option<Object>| {
                    object.as_ref().and_then(Object::get::<ServiceAccount>).map(secrets_of)
                };
                let new = listed(&delta.new).unwrap_or_default();
                if listed(&delta.old).as_ref() == Some(&new) { Vec::new() } else { new }
            }
            Kind::ConfigMap if delta.key == tracking() => {
                cache.list::<ServiceAccount>().flat_map(secrets_of).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(secret) = object.get::<Secret>().filter(|secret| is_token(secret)) else {
            return plan;
        };
        let Some(due) = unused_at(cache, key, secret) else { return plan };
        if due > now {
            plan.revisit_in(due.since(now));
        } else if is_read(cache, key) {
            plan.revisit_in(DAY);
        } else {
            match meta::label(&secret.metadata, INVALID_SINCE).and_then(day) {
                None => plan.request(marked(secret, now)),
                Some(since) if since + DAY + PERIOD > now => {
                    plan.revisit_in((since + DAY + PERIOD).since(now));
                }
                // At this very revision: one that was just used stays.
                Some(_) => plan.request(Request::Delete {
                    key: key.clone(),
                    uid: secret.metadata.uid.clone(),
                    revision: Some(object.revision()),
                    grace_seconds: None,
                    propagation: None,
                }),
            }
        }
        plan
    }
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && !meta::is_terminating(&secret.metadata)
}

/// The secrets that an account lists, as keys.
fn secrets_of(account: &ServiceAccount) -> Vec<Key> {
    let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
    let names = account.secrets.iter().flatten().filter_map(|r| r.name.as_deref());
    let keys: BTreeSet<Key> = names.map(|name| Key::new(Kind::Secret, namespace, name)).collect();
    keys.into_iter().collect()
}

/// From when on the token counts as unused; `None` for one of which that cannot be told.
fn unused_at(cache: &Cache, key: &Key, secret: &Secret) -> Option<Time> {
    let annotation = |name: &str| meta::annotation(&secret.metadata, name);
    let account = cache.get::<ServiceAccount>(&key.namespace, annotation(ACCOUNT)?)?;
    let uid = annotation(ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let is_of_it = uid.is_none() || uid == account.metadata.uid.as_deref();
    if !is_of_it || !secrets_of(account).contains(key) {
        return None;
    }
    let map = tracking();
    let map = cache.get::<ConfigMap>(&map.namespace, &map.name)?;
    let tracked = day(map.data.as_ref()?.get(SINCE)?)? + DAY;
    let used = match meta::label(&secret.metadata, LAST_USED) {
        Some(text) => day(text)? + DAY,
        None => Time::ZERO,
    };
    Some(tracked.max(used).max(meta::created_at(&secret.metadata)) + PERIOD)
}

/// Whether a pod reads the secret.
fn is_read(cache: &Cache, key: &Key) -> bool {
    cache.list_in::<Pod>(&key.namespace).filter_map(|pod| pod.spec.as_deref()).any(|spec| {
        let mut found = false;
        api::pod::configuration(spec, &mut |kind, name| {
            found |= kind == Kind::Secret && *name == *key.name;
        });
        found
    })
}

/// The write that says that the token is not accepted from today on.
fn marked(secret: &Secret, now: Time) -> Request {
    let mut secret = secret.clone();
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert(INVALID_SINCE.to_owned(), date(now));
    Request::Update { object: secret.into_object(), subresource: None }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn key() -> Key {
        Key::new(Kind::Secret, "n", "robot-token")
    }

    /// The day is 2001-09-09.
    fn fixture(since: &str) -> Fixture<LegacyTokenCleaner> {
        let mut fixture = Fixture::new(LegacyTokenCleaner);
        fixture.put(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": "n", "uid": "u"},
            "secrets": [{"name": "robot-token"}]}));
        let map = tracking();
        fixture.put(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": &*map.name, "namespace": &*map.namespace},
            "data": {"since": since}}));
        fixture
    }

    fn secret(labels: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE,
            "metadata": {"name": "robot-token", "namespace": "n", "labels": labels,
                "creationTimestamp": "1999-01-01T00:00:00Z",
                "annotations": {ACCOUNT: "robot", ACCOUNT_UID: "u"}}})
    }

    #[test]
    fn what_nobody_uses_is_marked_and_then_deleted() {
        let check = |labels: Value, expected: &[&str], days: Option<u64>| {
            let mut fixture = fixture("2000-01-01");
            assert_eq!(fixture.put(secret(labels.clone())), [key()]);
            let plan = fixture.reconcile(&key());
            assert_eq!(summary(&plan), expected, "{labels}");
            assert_eq!(plan.revisit.map(|d| d.as_secs().div_ceil(86_400)), days, "{labels}");
        };
        check(json!({}), &["update secrets/n/robot-token"], None);
        check(json!({LAST_USED: "2000-09-08"}), &["update secrets/n/robot-token"], None);
        check(json!({LAST_USED: "2000-09-09"}), &[], Some(1));
        check(json!({LAST_USED: "2001-09-09"}), &[], Some(366));
        check(json!({LAST_USED: "yesterday"}), &[], None);
        check(json!({INVALID_SINCE: "2000-09-08"}), &["delete secrets/n/robot-token"], None);
        check(json!({INVALID_SINCE: "2000-09-09"}), &[], Some(1));
        check(json!({INVALID_SINCE: "odd"}), &["update secrets/n/robot-token"], None);
        // Somebody still tries.
        check(json!({INVALID_SINCE: "2000-09-08", LAST_USED: "2001-09-01"}), &[], Some(358));
        let mut fixture = fixture("2000-01-01");
        fixture.put(secret(json!({})));
        let plan = fixture.reconcile(&key());
        plan.requests.into_iter().for_each(|request| fixture.request(request));
        let marked = fixture.cache.get::<Secret>("n", "robot-token").unwrap();
        assert_eq!(meta::label(&marked.metadata, INVALID_SINCE), Some("2001-09-09"));
        assert_eq!(fixture.settle(&key()), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_known_to_be_unused_stays() {
        let stays = |fixture: &Fixture<LegacyTokenCleaner>, days: Option<u64>| {
            let plan = fixture.reconcile(&key());
            assert_eq!(summary(&plan), Vec::<String>::new());
            assert_eq!(plan.revisit.map(|d| d.as_secs().div_ceil(86_400)), days);
        };
        // Its use is noted for less than a year, or nobody knows since when.
        let mut recent = fixture("2001-09-01");
        recent.put(secret(json!({})));
        stays(&recent, Some(358));
        recent.remove(&tracking());
        stays(&recent, None);
        // Its account does not list it, is another one, or is gone.
        let mut own = fixture("2000-01-01");
        own.put(secret(json!({})));
        let account = |uid: &str, secrets: Value| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": secrets,
                "metadata": {"name": "robot", "namespace": "n", "uid": uid}})
        };
        let listed = json!([{"name": "robot-token"}]);
        assert!(own.put(account("u", json!([{"name": "x"}]))).iter().all(|k| *k != key()));
        stays(&own, None);
        assert_eq!(own.put(account("v", listed.clone())), [key()]);
        stays(&own, None);
        own.remove(&Key::new(Kind::ServiceAccount, "n", "robot"));
        stays(&own, None);
        // A pod reads it.
        let mut read = fixture("2000-01-01");
        read.put(secret(json!({})));
        read.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p",
            "namespace": "n"}, "spec": {"containers": [], "volumes": [{"name": "v",
            "secret": {"secretName": "robot-token"}}]}}));
        stays(&read, Some(1));
        // It is another kind of secret.
        let mut other = secret(json!({}));
        other["type"] = "Opaque".into();
        assert!(read.put(other).is_empty());
        stays(&read, None);
    }
}
