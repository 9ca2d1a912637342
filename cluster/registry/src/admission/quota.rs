//! ResourceQuota: no more is used of a namespace than its quotas allow.
//!
//! What is charged is stored together with the object that it is charged for, or neither is: the
//! quotas that [`charge`] answers with are written in the transaction of the object, on condition
//! that they still have the revision at which they were read.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::quota::{self, Amounts};
use api::{Kind, Object, Status};
use k8s_openapi::api::core::v1::ResourceQuota;

use super::forbidden;
use crate::admit::Context;

/// The quotas with what the object uses more than `old`, which it replaces.
///
/// # Errors
/// The refusal: the object uses more than is left, or does not say how much.
pub(crate) fn charge(
    context: Context<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<Vec<Object>, Status> {
    let kind = object.kind();
    if !quota::is_counted(kind) || (old.is_some() && !quota::is_charged_on_update(kind)) {
        return Ok(Vec::new());
    }
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let quotas = context.view.list(Kind::ResourceQuota, namespace);
    if quotas.is_empty() {
        return Ok(Vec::new());
    }
    let now = context.stamp.now;
    let mut concerned = Vec::new();
    for quota in quotas.iter().filter_map(Object::share::<ResourceQuota>) {
        let pertinent = Pertinent::of(&quota, object).map_err(|why| forbidden(object, &why))?;
        if let Some(pertinent) = pertinent {
            concerned.push((Arc::clone(&quota), pertinent));
        }
    }
    let mut more = quota::used_by(object, now);
    let negative: Vec<&str> =
        more.iter().filter(|(_, q)| q.is_negative()).map(|(name, _)| name).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(forbidden(object, &why));
    }
    if let Some(old) = old {
        more.take(&quota::used_by(old, now));
    }
    let mut charged = Vec::new();
    for (mut quota, pertinent) in concerned {
        let asked = more.only(|name| {
            pertinent.hard.get(name).is_some() && more.get(name).is_some_and(|q| !q.is_zero())
        });
        if asked.is_empty() {
            continue;
        }
        let used = pertinent.with(name(&quota), &asked).map_err(|why| forbidden(object, &why))?;
        let status = Arc::make_mut(&mut quota).status.get_or_insert_default();
        status.used = Some(used.to_list());
        charged.push(Object::ResourceQuota(quota));
    }
    Ok(charged)
}

fn name(quota: &ResourceQuota) -> &str {
    quota.metadata.name.as_deref().unwrap_or_default()
}

/// What a quota that is about the object allows, and what is used of it.
struct Pertinent {
    hard: Amounts,
    used: Amounts,
}

impl Pertinent {
    /// `None` if the quota is not about the object.
    fn of(quota: &ResourceQuota, object: &Object) -> Result<Option<Self>, String> {
        // What the controller has not taken notice of is not known to be used.
        let status = quota.status.as_ref();
        let hard = Amounts::of_list(status.and_then(|s| s.hard.as_ref()));
        let limited: BTreeSet<&str> =
            hard.names().filter(|name| quota::is_used_by(object.kind(), name)).collect();
        if limited.is_empty() || !quota::covers(quota, object) {
            return Ok(None);
        }
        if let Object::Pod(pod) = object {
            let missing = quota::missing(pod, &limited);
            if !missing.is_empty() {
                let each: Vec<String> = missing
                    .iter()
                    .map(|(resource, containers)| {
                        let containers: Vec<&str> = containers.iter().copied().collect();
                        format!("{resource} for: {}", containers.join(","))
                    })
                    .collect();
                let name = name(quota);
                return Err(format!("failed quota: {name}: must specify {}", each.join("; ")));
            }
        }
        let used = Amounts::of_list(status.and_then(|s| s.used.as_ref()));
        if limited.iter().any(|name| used.get(name).is_none()) {
            let limited: Vec<&str> = limited.into_iter().collect();
            return Err(format!(
                "status unknown for quota: {}, resources: {}",
                name(quota),
                limited.join(",")
            ));
        }
        Ok(Some(Self { hard, used }))
    }

    /// What is used with that much more, if there is as much.
    fn with(&self, quota: &str, asked: &Amounts) -> Result<Amounts, String> {
        let mut used = self.used.clone();
        used.add(asked);
        let then = used.only(|name| asked.get(name).is_some());
        let exceeded: BTreeSet<&str> = then.beyond(&self.hard).collect();
        if exceeded.is_empty() {
            return Ok(used);
        }
        let part = |amounts: &Amounts| amounts.only(|name| exceeded.contains(name));
        Err(format!(
            "exceeded quota: {quota}, requested: {}, used: {}, limited: {}",
            part(asked),
            part(&self.used),
            part(&self.hard)
        ))
    }
}
