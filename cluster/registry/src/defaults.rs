//! What the server fills in when the caller left it out, before anything else looks at the
//! object. Applying the defaults twice is the same as applying them once.
//!
//! Source: kubernetes 1.33, `pkg/apis/*/v1/defaults.go` and `conversion.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::{Quantity as Amount, QuantityError};
use api::{Kind, Object, Status};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

mod autoscaler;
mod container;
mod job;
mod pod;
mod quota;
mod service;
mod storage;
mod volume;
mod workload;

pub(crate) use self::autoscaler::cpu;
use crate::meta::{drop_empty, drop_empty_map};
use crate::priority_class::PREEMPT;

/// The API group of roles, bindings and their user and group subjects.
const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in the defaults of the object's kind and writes its quantities canonically.
///
/// # Errors
/// A quantity that is none; the object cannot be understood.
pub(crate) fn apply(object: &mut Object) -> Result<(), Status> {
    let kind = object.kind();
    crate::meta::tidy(object.meta_mut());
    fill(object).map_err(|error| cannot_decode(kind, &error))
}

/// As [`apply`], for an object that is to replace `current`, which has its defaults: one with the
/// same spec needs none.
///
/// # Errors
/// As [`apply`].
pub(crate) fn apply_to_update(object: &mut Object, current: &Object) -> Result<(), Status> {
    if let (Object::Pod(new), Object::Pod(old)) = (&*object, current)
        && let (Some(spec), Some(before)) = (&new.spec, &old.spec)
        && spec.is_same(before)
        && new.status.as_deref().is_some_and(pod::is_whole)
    {
        crate::meta::tidy(object.meta_mut());
        return Ok(());
    }
    let same = match (&*object, current) {
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::Deployment(new), Object::Deployment(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::ReplicationController(new), Object::ReplicationController(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::Job(new), Object::Job(old)) => {
            new.spec == old.spec && new.status.is_some() && new.metadata.labels.is_some()
        }
        (Object::CronJob(new), Object::CronJob(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::HorizontalPodAutoscaler(new), Object::HorizontalPodAutoscaler(old)) => {
            new.spec == old.spec && new.status.is_some()
        }
        (Object::StatefulSet(new), Object::StatefulSet(old)) => {
            new.spec == old.spec
                && new.status.as_ref().is_some_and(|s| s.available_replicas.is_some())
        }
        _ => false,
    };
    if same {
        crate::meta::tidy(object.meta_mut());
        return Ok(());
    }
    apply(object)
}

/// The refusal of an object whose text has the wrong form.
pub(crate) fn cannot_decode(kind: Kind, why: &dyn std::fmt::Display) -> Status {
    let (name, version) = (kind.name(), kind.info().version);
    Status::bad_request(format!(
        "{name} in version \"{version}\" cannot be handled as a {name}: {why}"
    ))
}

fn fill(object: &mut Object) -> Result<(), QuantityError> {
    match object {
        Object::Pod(o) => pod::pod(Arc::make_mut(o))?,
        Object::Service(o) => service::service(Arc::make_mut(o)),
        Object::Endpoints(o) => service::endpoints(Arc::make_mut(o)),
        Object::EndpointSlice(o) => service::endpoint_slice(Arc::make_mut(o)),
        Object::ReplicationController(o) => workload::replication_controller(Arc::make_mut(o))?,
        Object::ReplicaSet(o) => workload::replica_set(Arc::make_mut(o))?,
        Object::Deployment(o) => workload::deployment(Arc::make_mut(o))?,
        Object::PodDisruptionBudget(o) => {
            let o = Arc::make_mut(o);
            o.spec.get_or_insert_default();
            o.status.get_or_insert_default();
        }
        Object::DaemonSet(o) => workload::daemon_set(Arc::make_mut(o))?,
        Object::Job(o) => job::job(Arc::make_mut(o))?,
        Object::CronJob(o) => job::cron_job(Arc::make_mut(o))?,
        Object::HorizontalPodAutoscaler(o) => autoscaler::autoscaler(Arc::make_mut(o))?,
        Object::StatefulSet(o) => workload::stateful_set(Arc::make_mut(o))?,
        Object::PersistentVolume(o) => storage::volume(Arc::make_mut(o))?,
        Object::PersistentVolumeClaim(o) => storage::claim(Arc::make_mut(o))?,
        Object::StorageClass(o) => storage::class(Arc::make_mut(o)),
        Object::Namespace(o) => namespace(Arc::make_mut(o)),
        Object::Node(o) => node(Arc::make_mut(o))?,
        Object::Secret(o) => secret(Arc::make_mut(o)),
        Object::ConfigMap(o) => {
            let map = Arc::make_mut(o);
            drop_empty_map(&mut map.data);
            drop_empty_map(&mut map.binary_data);
        }
        Object::ServiceAccount(o) => {
            let account = Arc::make_mut(o);
            drop_empty(&mut account.secrets);
            drop_empty(&mut account.image_pull_secrets);
        }
        Object::ResourceQuota(o) => quota::resource_quota(Arc::make_mut(o))?,
        Object::LimitRange(o) => quota::limit_range(Arc::make_mut(o))?,
        Object::PriorityClass(o) => {
            let class = Arc::make_mut(o);
            drop_false(&mut class.global_default);
            drop_blank(&mut class.description);
            class.preemption_policy.get_or_insert_with(|| PREEMPT.to_owned());
        }
        Object::RoleBinding(o) => {
            let o = Arc::make_mut(o);
            binding(&mut o.role_ref.api_group, &mut o.subjects);
        }
        Object::ClusterRoleBinding(o) => {
            let o = Arc::make_mut(o);
            binding(&mut o.role_ref.api_group, &mut o.subjects);
        }
        _ => {}
    }
    Ok(())
}

fn namespace(o: &mut k8s_openapi::api::core::v1::Namespace) {
    // Selectors of namespaces rely on every namespace being labelled with its name.
    if let Some(name) = o.metadata.name.clone() {
        let labels = o.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    o.status.get_or_insert_default().phase.get_or_insert_with(|| "Active".to_owned());
}

fn node(o: &mut k8s_openapi::api::core::v1::Node) -> Result<(), QuantityError> {
    let spec = o.spec.get_or_insert_default();
    drop_empty(&mut spec.taints);
    drop_empty(&mut spec.pod_cidrs);
    // The two fields say the same; clients may write and read either.
    match (&spec.pod_cidr, &spec.pod_cidrs) {
        (Some(one), None) if !one.is_empty() => spec.pod_cidrs = Some(vec![one.clone()]),
        (None, Some(many)) => spec.pod_cidr = many.first().cloned(),
        _ => {}
    }
    if spec.unschedulable == Some(false) {
        spec.unschedulable = None;
    }
    let status = o.status.get_or_insert_default();
    canonical_list(&mut status.capacity)?;
    canonical_list(&mut status.allocatable)?;
    if status.allocatable.is_none() {
        status.allocatable.clone_from(&status.capacity);
    }
    Ok(())
}

fn secret(o: &mut k8s_openapi::api::core::v1::Secret) {
    if o.type_.as_deref().unwrap_or_default().is_empty() {
        o.type_ = Some("Opaque".to_owned());
    }
    for (key, text) in o.string_data.take().into_iter().flatten() {
        let bytes = k8s_openapi::ByteString(text.into_bytes());
        o.data.get_or_insert_default().insert(key, bytes);
    }
    drop_empty_map(&mut o.data);
}

fn binding(group: &mut String, subjects: &mut Option<Vec<k8s_openapi::api::rbac::v1::Subject>>) {
    if group.is_empty() {
        RBAC.clone_into(group);
    }
    drop_empty(subjects);
    for subject in subjects.iter_mut().flatten() {
        let absent = subject.api_group.as_deref().unwrap_or_default().is_empty();
        match subject.kind.as_str() {
            "User" | "Group" if absent => subject.api_group = Some(RBAC.to_owned()),
            _ if absent => subject.api_group = None,
            _ => {}
        }
    }
}

/// Writes every amount of a resource list canonically, no finer than thousandths.
fn canonical_list(list: &mut Option<BTreeMap<String, Quantity>>) -> Result<(), QuantityError> {
    drop_empty_map(list);
    for quantity in list.iter_mut().flat_map(BTreeMap::values_mut) {
        let amount = Amount::parse(&quantity.0)?;
        let finer = amount.nano() % 1_000_000 != 0;
        let amount = if finer { Amount::from_milli(amount.milli()) } else { amount };
        write(quantity, amount);
    }
    Ok(())
}

/// Keeps text that is canonical already.
fn write(quantity: &mut Quantity, amount: Amount) {
    if !is_written(&quantity.0, amount) {
        quantity.0 = amount.to_string();
    }
}

/// Whether the text is just what is displayed.
fn is_written(text: &str, value: impl std::fmt::Display) -> bool {
    /// What is still to come.
    struct Rest<'a>(&'a str);
    impl std::fmt::Write for Rest<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    std::fmt::write(&mut rest, format_args!("{value}")).is_ok() && rest.0.is_empty()
}

/// Writes one amount canonically.
fn canonical(quantity: &mut Quantity) -> Result<(), QuantityError> {
    let amount = Amount::parse(&quantity.0)?;
    write(quantity, amount);
    Ok(())
}

/// Sets a text that is absent or empty.
fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Sets a number that is absent or zero.
fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}

/// A flag that is false is the same as none, where the field is no pointer in Kubernetes.
fn drop_false(flag: &mut Option<bool>) {
    if *flag == Some(false) {
        *flag = None;
    }
}

/// An empty text is the same as none, where the field is no pointer in Kubernetes.
fn drop_blank(text: &mut Option<String>) {
    if text.as_deref() == Some("") {
        *text = None;
    }
}
