//! What the API server and the quota controller both know of a `ResourceQuota`: which objects it
//! is about, and what an object uses of it.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/quota/v1/generic` and
//! `pkg/quota/v1/evaluator/core`.

mod amounts;
mod claim;
mod pod;

use k8s_openapi::api::core::v1::{ResourceQuota, Service};

pub use self::amounts::Amounts;
pub use self::pod::{counts, missing, overdue_at, requests_and_limits};
use crate::quantity::Quantity;
use crate::{Kind, Object, Time};

/// The kinds whose number can be limited by the plain name of their resource, too.
const COUNTED_BY_NAME: [Kind; 6] = [
    Kind::ConfigMap,
    Kind::Pod,
    Kind::ReplicationController,
    Kind::ResourceQuota,
    Kind::Secret,
    Kind::Service,
];
const SERVICES: &str = "services";
const LOAD_BALANCERS: &str = "services.loadbalancers";
const NODE_PORTS: &str = "services.nodeports";

/// Whether objects of the kind are counted at all. Events are not: they come by themselves.
pub const fn is_counted(kind: Kind) -> bool {
    kind.info().stored && kind.namespaced() && !kind.is_record()
}

/// Whether an object is charged again when it is updated.
pub fn is_charged_on_update(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::PersistentVolumeClaim)
}

/// The resource that is the number of objects of a kind.
pub fn count_of(kind: Kind) -> String {
    format!("count/{}", kind.group_resource())
}

/// Whether objects of the kind use the resource.
pub fn is_used_by(kind: Kind, resource: &str) -> bool {
    if !is_counted(kind) {
        return false;
    }
    if let Some(counted) = resource.strip_prefix("count/") {
        return counted == kind.group_resource();
    }
    match kind {
        Kind::Pod => pod::is_used(resource),
        Kind::PersistentVolumeClaim => claim::is_used(resource),
        Kind::Service => [SERVICES, LOAD_BALANCERS, NODE_PORTS].contains(&resource),
        _ => COUNTED_BY_NAME.contains(&kind) && resource == kind.plural(),
    }
}

/// What an object uses, whether or not anything limits it.
pub fn used_by(object: &Object, now: Time) -> Amounts {
    let kind = object.kind();
    let mut used = Amounts::default();
    if !is_counted(kind) {
        return used;
    }
    used.set(&count_of(kind), Quantity::whole(1));
    match object {
        Object::Pod(o) => pod::add(o, now, &mut used),
        Object::PersistentVolumeClaim(o) => claim::add(o, &mut used),
        Object::Service(o) => add_service(o, &mut used),
        _ if COUNTED_BY_NAME.contains(&kind) => used.set(kind.plural(), Quantity::whole(1)),
        _ => {}
    }
    used
}

fn add_service(service: &Service, used: &mut Amounts) {
    used.set(SERVICES, Quantity::whole(1));
    used.set(LOAD_BALANCERS, Quantity::whole(0));
    used.set(NODE_PORTS, Quantity::whole(0));
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let count = |n: usize| Quantity::whole(i64::try_from(n).unwrap_or(i64::MAX));
    match spec.type_.as_deref() {
        Some("NodePort") => used.set(NODE_PORTS, count(ports.len())),
        Some("LoadBalancer") => {
            used.set(LOAD_BALANCERS, Quantity::whole(1));
            let asked = ports.iter().filter(|p| p.node_port.is_some_and(|n| n != 0)).count();
            // Ports that are still to be allocated count as well.
            let all = spec.allocate_load_balancer_node_ports != Some(false);
            used.set(NODE_PORTS, count(if all { ports.len() } else { asked }));
        }
        _ => {}
    }
}

/// Whether a quota is about the object: its scopes hold. What is no pod is in no scope.
pub fn covers(quota: &ResourceQuota, object: &Object) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let selected = spec.scope_selector.as_ref().and_then(|s| s.match_expressions.as_deref());
    let selected = selected.unwrap_or_default();
    if scopes.is_empty() && selected.is_empty() {
        return true;
    }
    let Object::Pod(pod) = object else { return false };
    scopes.iter().all(|scope| pod::is_in(pod, scope))
        && selected.iter().all(|wanted| pod::is_selected(pod, wanted))
}

#[cfg(test)]
mod tests;
