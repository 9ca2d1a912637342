//! `ResourceQuota`: counts anew what is used of a quota when its spec changes, and when objects go
//! or use less.
//!
//! What is used more is charged by the API server, in the transaction of the object. So that no
//! charge is undone, what is counted here is written on condition that the quota was not written
//! since, and counted of objects at least as new as the quota. So that none is left over, the
//! quota is at least as new as the objects, too, and as the last one that went: else a charge could
//! be seen after its object went, or after its object and after another one that went.
//!
//! Source: kubernetes 1.33, `pkg/controller/resourcequota/resource_quota_controller.go`.

use std::collections::BTreeSet;
use std::time::Duration;

use api::quantity::Quantity;
use api::quota::{self, Amounts};
use api::{Key, Kind, Object, Pod, Request, Time};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use machine::{Aspects, Cache, Delta, Plan, Reconciler};

use crate::ownership;

/// A pod that is overdue ceases to count this much later: deadlines are told to the second.
const OVERDUE: Duration = Duration::from_secs(1);

/// Keeps what is used of quotas.
pub struct ResourceQuotas;

/// Quotas, and whatever they can count.
const KINDS: &[Kind] = api::kinds_where!(|kind| quota::is_counted(kind));

impl Reconciler for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::META | Aspects::PHASE,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        let mut keys = BTreeSet::new();
        if let Some(new) = delta.new.as_ref().and_then(Object::get::<ResourceQuota>) {
            let old = delta.old.as_ref().and_then(Object::get::<ResourceQuota>);
            // Charges change nothing but what is used.
            if old.is_none_or(|old| old.spec != new.spec) || !is_taken_notice_of(new) {
                keys.insert(delta.key.clone());
            }
        }
        if gives_back(delta) {
            let kind = delta.key.kind;
            let quotas = cache.list_in::<ResourceQuota>(&delta.key.namespace);
            let concerned = quotas.filter(|q| hard(q).names().any(|n| quota::is_used_by(kind, n)));
            keys.extend(concerned.filter_map(|quota| {
                let name = quota.metadata.name.as_deref()?;
                Some(Key::new(Kind::ResourceQuota, &delta.key.namespace, name))
            }));
        }
        keys.into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else { return plan };
        let Some(quota) = object.get::<ResourceQuota>() else { return plan };
        let hard = hard(quota);
        let counted: Vec<Kind> = KINDS
            .iter()
            .copied()
            .filter(|kind| hard.names().any(|name| quota::is_used_by(*kind, name)))
            .collect();
        for kind in counted.iter().filter(|kind| cache.revision(**kind) < object.revision()) {
            plan.request(Request::ReadRevision(*kind));
        }
        let objects = counted.iter().flat_map(|kind| cache.objects_in(*kind, &key.namespace));
        let losses = counted.iter().map(|kind| cache.last_loss(*kind));
        let newest = objects.map(Object::revision).chain(losses).max();
        if newest.is_some_and(|newest| cache.revision(Kind::ResourceQuota) < newest) {
            plan.request(Request::ReadRevision(Kind::ResourceQuota));
        }
        if !plan.requests.is_empty() {
            return plan;
        }
        let mut used = before(quota, &hard);
        for kind in counted {
            let limited = |name: &str| hard.get(name).is_some() && quota::is_used_by(kind, name);
            for object in cache.objects_in(kind, &key.namespace) {
                if quota::covers(quota, object) {
                    used.add(&quota::used_by(object, now).only(limited));
                    revisit(object, now, &mut plan);
                }
            }
        }
        let status = quota.status.as_ref();
        if !is_taken_notice_of(quota)
            || used != Amounts::of_list(status.and_then(|s| s.used.as_ref()))
        {
            let mut quota = quota.clone();
            quota.status = Some(ResourceQuotaStatus {
                hard: quota.spec.as_ref().and_then(|s| s.hard.clone()),
                used: (!used.is_empty()).then(|| used.to_list()),
            });
            plan.request(ownership::update_status(quota));
        }
        plan
    }
}

fn hard(quota: &ResourceQuota) -> Amounts {
    Amounts::of_list(quota.spec.as_ref().and_then(|s| s.hard.as_ref()))
}

/// Whether the status is that of the spec.
fn is_taken_notice_of(quota: &ResourceQuota) -> bool {
    let status = quota.status.as_ref();
    let known = Amounts::of_list(status.and_then(|s| s.hard.as_ref()));
    let used = Amounts::of_list(status.and_then(|s| s.used.as_ref()));
    let hard = hard(quota);
    known == hard && hard.names().all(|name| used.get(name).is_some() || !is_known(name))
}

/// Whether anything here uses the resource.
fn is_known(name: &str) -> bool {
    KINDS.iter().any(|kind| quota::is_used_by(*kind, name))
}

/// What is used before anything is counted: nothing, and what was used before of resources that
/// others must count.
fn before(quota: &ResourceQuota, hard: &Amounts) -> Amounts {
    let status = quota.status.as_ref();
    let known = Amounts::of_list(status.and_then(|s| s.used.as_ref()));
    let mut used = Amounts::default();
    for name in hard.names() {
        if is_known(name) {
            used.set(name, Quantity::whole(0));
        } else if let Some(amount) = known.get(name) {
            used.set(name, amount);
        }
    }
    used
}

/// Whether the object uses less than before, or will by itself.
fn gives_back(delta: &Delta) -> bool {
    let Some(old) = &delta.old else { return false };
    let Some(new) = &delta.new else { return true };
    match (old, new) {
        (Object::Pod(old), Object::Pod(new)) => {
            let ended = |pod: &Pod| !quota::counts(pod, Time::ZERO);
            (!ended(old) && ended(new)) || quota::overdue_at(old) != quota::overdue_at(new)
        }
        (Object::Service(_), _) | (Object::PersistentVolumeClaim(_), _) => {
            let used = quota::used_by(new, Time::ZERO);
            quota::used_by(old, Time::ZERO).beyond(&used).next().is_some()
        }
        _ => false,
    }
}

/// Asks to be called again when a pod that still counts will be overdue.
fn revisit(object: &Object, now: Time, plan: &mut Plan) {
    if let Object::Pod(pod) = object
        && let Some(at) = quota::overdue_at(pod).filter(|_| quota::counts(pod, now))
    {
        plan.revisit_in((at + OVERDUE).since(now));
    }
}

#[cfg(test)]
mod tests;
