//! What every cluster starts with, created by the first API server that finds it missing.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiObject, Object, Reason, Status, meta};
use k8s_openapi::api::core::v1::{Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use registry::{Caller, Operation};

use crate::last_use;
use crate::server::{Server, now};
use crate::write::Asked;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
/// Roles with another value of this annotation are left alone.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const RETRY: Duration = Duration::from_secs(1);

/// The API server itself.
pub(crate) fn itself() -> Caller {
    Caller {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..Caller::default()
    }
}

/// Creates what is missing, trying until it is there.
pub(crate) async fn bootstrap(server: &Arc<Server>) {
    let mut objects: Vec<Object> = NAMESPACES.into_iter().map(namespace).collect();
    objects.extend(registry::priority_class::system_classes());
    objects.extend(policy());
    objects.push(kubernetes_service(server));
    objects.push(last_use::tracked_since(None, now()));
    for object in objects {
        while let Err(status) = ensure(server, &object).await {
            tracing::warn!(key = %object.key(), message = status.message,
                "an object of the bootstrap was not created");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn ensure(server: &Server, object: &Object) -> Result<(), Status> {
    let found = server.hub.read().window.get(&object.key()).and_then(|e| e.object().ok());
    let operation = match found {
        None => Operation::Create { object: object.clone() },
        Some(found) => match brought_up_to_date(&found, object) {
            None => return Ok(()),
            Some(object) => Operation::Update { key: object.key(), object, subresource: None },
        },
    };
    let caller = itself();
    let asked = Asked { server, caller: &caller, dry_run: false };
    match asked.carry_out(&operation).await {
        Ok(_) => Ok(()),
        // Another server was faster.
        Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
        Err(status) => Err(status),
    }
}

/// A role or binding of the policy with all that this version grants; `None` when it grants it
/// already, or when the operator has taken it over. What the operator added stays.
///
/// Source: kubernetes 1.33, "Auto-reconciliation" of RBAC.
fn brought_up_to_date(found: &Object, wanted: &Object) -> Option<Object> {
    if meta::annotation(found.meta(), AUTOUPDATE) == Some("false") {
        return None;
    }
    match (found, wanted) {
        (Object::ClusterRole(found), Object::ClusterRole(wanted)) => {
            let mut role = found.as_ref().clone();
            if let Some(rules) = joined(found.rules.as_deref(), wanted.rules.as_deref()) {
                role.rules = Some(rules);
            }
            let selectors = |role: &ClusterRole| {
                let rule = role.aggregation_rule.as_ref();
                rule.and_then(|r| r.cluster_role_selectors.clone()).unwrap_or_default()
            };
            if let Some(all) = joined(Some(&selectors(found)), Some(&selectors(wanted))) {
                role.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(all) });
            }
            for (label, value) in wanted.metadata.labels.iter().flatten() {
                let labels = role.metadata.labels.get_or_insert_default();
                labels.entry(label.clone()).or_insert_with(|| value.clone());
            }
            (role != **found).then(|| role.into_object())
        }
        (Object::ConfigMap(_), Object::ConfigMap(_)) => {
            Some(last_use::tracked_since(Some(found), now())).filter(|map| map != found)
        }
        (Object::ClusterRoleBinding(found), Object::ClusterRoleBinding(wanted)) => {
            let subjects = joined(found.subjects.as_deref(), wanted.subjects.as_deref())?;
            let binding = ClusterRoleBinding { subjects: Some(subjects), ..found.as_ref().clone() };
            Some(binding.into_object())
        }
        _ => None,
    }
}

/// Both lists; `None` when the first holds all of the second.
fn joined<T: Clone + PartialEq>(found: Option<&[T]>, wanted: Option<&[T]>) -> Option<Vec<T>> {
    let mut all = found.unwrap_or_default().to_vec();
    let wanted = wanted.unwrap_or_default();
    all.extend(wanted.iter().filter(|w| !found.unwrap_or_default().contains(w)).cloned());
    (all.len() > found.map_or(0, <[T]>::len)).then_some(all)
}

/// The policy, marked as ours to keep up to date.
fn policy() -> impl Iterator<Item = Object> {
    registry::bootstrap_policy::bootstrap_policy().into_iter().map(|mut object| {
        let annotations = object.meta_mut().annotations.get_or_insert_default();
        annotations.insert(AUTOUPDATE.to_owned(), "true".to_owned());
        object
    })
}

fn namespace(name: &str) -> Object {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }.into_object()
}

/// The service by which pods find the API: the first address of the range.
fn kubernetes_service(server: &Server) -> Object {
    let address = server.config.admission.service_cidr.hosts().next();
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    Service {
        metadata: ObjectMeta {
            name: Some("kubernetes".to_owned()),
            namespace: Some("default".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: address.map(|a| a.to_string()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: 443,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(i32::from(server.advertised_port))),
                ..ServicePort::default()
            }]),
            session_affinity: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
    .into_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_gain_what_they_lack_and_keep_the_rest() {
        let Some(Object::ClusterRole(role)) =
            policy().find(|o| matches!(o, Object::ClusterRole(_)))
        else {
            panic!("the policy has roles")
        };
        let wanted = Object::ClusterRole(role.clone());
        assert_eq!(brought_up_to_date(&wanted, &wanted), None);
        let mut old = role.as_ref().clone();
        let own = k8s_openapi::api::rbac::v1::PolicyRule {
            verbs: vec!["own".to_owned()],
            ..Default::default()
        };
        old.rules = Some(vec![own.clone()]);
        let old = old.into_object();
        let Some(Object::ClusterRole(new)) = brought_up_to_date(&old, &wanted) else {
            panic!("rules are missing")
        };
        assert!(new.rules.as_ref().unwrap().contains(&own));
        let updated = Object::ClusterRole(new);
        assert_eq!(brought_up_to_date(&updated, &wanted), None);
        // One of a version that did not put roles together.
        let whole = policy().find(|o| &*o.key().name == "edit").unwrap();
        let mut plain = whole.get::<ClusterRole>().unwrap().clone();
        plain.aggregation_rule = None;
        plain.metadata.labels = None;
        let plain = plain.into_object();
        assert_eq!(brought_up_to_date(&plain, &whole), Some(whole));
        let mut taken_over = old;
        let annotations = taken_over.meta_mut().annotations.get_or_insert_default();
        annotations.insert(AUTOUPDATE.to_owned(), "false".to_owned());
        assert_eq!(brought_up_to_date(&taken_over, &wanted), None);
    }
}
