//! `as=Table`: the columns and cells that `kubectl get` prints.
//!
//! Source: kubernetes 1.33, `pkg/printers/internalversion/printers.go`.

use api::{ApiObject, Kind, Object, Time, codec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

mod autoscaler;
mod columns;
mod duration;
mod node;
mod pod;
mod quota;
mod service;
mod storage;
mod text;
mod workload;

#[cfg(test)]
mod tests;

pub use columns::{Column, columns};
pub use duration::human_duration;

use text::age;

/// What accompanies each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The object's metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Parses the `includeObject` query parameter; `None` when it has another value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The metadata of the list that the table shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The revision the list is of (a single object: its own).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The token for the next page, empty on the last.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// How many objects follow this page, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// The cells of an object, one for each of [`columns`].
pub fn row(object: &Object, now: Time) -> Vec<Value> {
    match object {
        Object::Pod(o) => pod::row(o, now),
        Object::Node(o) => node::row(o, now),
        Object::Service(o) => service::service(o, now),
        Object::Endpoints(o) => service::endpoints(o, now),
        Object::EndpointSlice(o) => service::endpoint_slice(o, now),
        Object::Deployment(o) => workload::deployment(o, now),
        Object::ReplicaSet(o) => workload::replica_set(o, now),
        Object::ReplicationController(o) => workload::replication_controller(o, now),
        Object::DaemonSet(o) => workload::daemon_set(o, now),
        Object::StatefulSet(o) => workload::stateful_set(o, now),
        Object::ControllerRevision(o) => workload::controller_revision(o, now),
        Object::Job(o) => workload::job(o, now),
        Object::CronJob(o) => workload::cron_job(o, now),
        Object::HorizontalPodAutoscaler(o) => autoscaler::autoscaler(o, now),
        Object::NodeMetrics(o) => autoscaler::node_metrics(o),
        Object::PodMetrics(o) => autoscaler::pod_metrics(o),
        Object::Scale(o) => workload::scale(o, now),
        Object::PodDisruptionBudget(o) => workload::disruption_budget(o, now),
        Object::ResourceQuota(o) => quota::resource_quota(o, now),
        Object::Event(o) => text::event(o, now),
        Object::CertificateSigningRequest(o) => text::certificate_signing_request(o, now),
        Object::RoleBinding(o) => {
            text::binding(&o.metadata, &o.role_ref, o.subjects.as_deref(), now)
        }
        Object::ClusterRoleBinding(o) => {
            text::binding(&o.metadata, &o.role_ref, o.subjects.as_deref(), now)
        }
        Object::Namespace(o) => {
            let phase = o.status.as_ref().and_then(|s| s.phase.as_deref());
            simple(o.as_ref(), phase.unwrap_or_default().into(), now)
        }
        Object::ConfigMap(o) => {
            let data = o.data.as_ref().map_or(0, |d| d.len());
            let binary = o.binary_data.as_ref().map_or(0, |d| d.len());
            simple(o.as_ref(), (data + binary).into(), now)
        }
        Object::Secret(o) => {
            let data = o.data.as_ref().map_or(0, |d| d.len());
            vec![
                name(&o.metadata),
                o.type_.as_deref().unwrap_or_default().into(),
                data.into(),
                age(&o.metadata, now),
            ]
        }
        Object::ServiceAccount(o) => {
            simple(o.as_ref(), o.secrets.as_ref().map_or(0, Vec::len).into(), now)
        }
        Object::Lease(o) => {
            let holder = o.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
            simple(o.as_ref(), holder.unwrap_or_default().into(), now)
        }
        Object::PriorityClass(o) => vec![
            name(&o.metadata),
            o.value.into(),
            o.global_default.unwrap_or_default().into(),
            age(&o.metadata, now),
            o.preemption_policy.as_deref().unwrap_or_default().into(),
        ],
        Object::PersistentVolume(o) => storage::volume(o, now),
        Object::PersistentVolumeClaim(o) => storage::claim(o, now),
        Object::StorageClass(o) => storage::class(o, now),
        Object::CsiNode(o) => {
            vec![name(&o.metadata), o.spec.drivers.len().into(), age(&o.metadata, now)]
        }
        other => {
            let meta = other.meta();
            let created = meta.creation_timestamp.as_ref();
            vec![name(meta), created.map_or(Value::Null, |t| format!("{:.0}", t.0).into())]
        }
    }
}

/// Name, one cell, age.
fn simple<T: ApiObject>(object: &T, cell: Value, now: Time) -> Vec<Value> {
    vec![name(object.meta()), cell, age(object.meta(), now)]
}

fn name(meta: &ObjectMeta) -> Value {
    meta.name.as_deref().unwrap_or_default().into()
}

/// A whole `Table` document of objects of `kind`, as they are stored.
pub fn table<'a>(
    kind: Kind,
    objects: impl IntoIterator<Item = &'a Object>,
    now: Time,
    include: IncludeObject,
    meta: &ListMeta,
) -> Vec<u8> {
    let mut out = open(meta);
    put(&mut out, columns(kind.stored_as()));
    out.extend(br#","rows":["#);
    for (i, object) in objects.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_row(&mut out, object, now, include);
    }
    out.extend(b"]}");
    out
}

/// The `Table` of one event of a watch. Only the first event of a watch names the columns.
pub fn watch_table(object: &Object, now: Time, include: IncludeObject, first: bool) -> Vec<u8> {
    let resource_version = object.meta().resource_version.clone().unwrap_or_default();
    let mut out = open(&ListMeta { resource_version, ..ListMeta::default() });
    if first {
        put(&mut out, columns(object.kind()));
    } else {
        out.extend(b"null");
    }
    out.extend(br#","rows":["#);
    put_row(&mut out, object, now, include);
    out.extend(b"]}");
    out
}

fn open(meta: &ListMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
    put(&mut out, meta);
    out.extend(br#","columnDefinitions":"#);
    out
}

fn put_row(out: &mut Vec<u8>, object: &Object, now: Time, include: IncludeObject) {
    out.extend(br#"{"cells":"#);
    put(out, &row(object, now));
    if let Object::Pod(pod) = object
        && let Some(conditions) = pod::conditions(pod)
    {
        out.extend(br#","conditions":"#);
        put(out, &conditions);
    }
    match include {
        IncludeObject::None => out.extend(br#","object":null"#),
        IncludeObject::Metadata => {
            out.extend(
                br#","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","#,
            );
            out.extend(br#""metadata":"#);
            put(out, object.meta());
            out.push(b'}');
        }
        IncludeObject::Object => {
            out.extend(br#","object":"#);
            out.extend(codec::encode(object));
        }
    }
    out.push(b'}');
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("string keys and finite numbers always serialize");
}
