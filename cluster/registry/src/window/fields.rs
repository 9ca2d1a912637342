//! What selectors may ask of an object, and the selection of objects.
//!
//! Source: kubernetes 1.33, `pkg/apis/*/v1/conversion.go` (the supported field labels).

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::selector::{FieldSelector, Selector};
use api::{Kind, Status};
use serde::Deserialize;

use super::entry::Entry;

/// The fields of a kind that field selectors may name, besides the name and the namespace.
pub(super) const fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pod => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        Kind::Node => &["spec.unschedulable"],
        Kind::Namespace => &["status.phase"],
        Kind::Secret => &["type"],
        Kind::Service => &["spec.clusterIP", "spec.type"],
        Kind::ReplicationController | Kind::ReplicaSet => &["status.replicas"],
        Kind::Job => &["status.successful"],
        Kind::CertificateSigningRequest => &["spec.signerName"],
        Kind::Event => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

/// The few fields of any object that the window reads.
#[derive(Debug, Deserialize)]
pub(super) struct Peek<'a> {
    #[serde(default, borrow)]
    pub(super) metadata: PeekMeta<'a>,
    #[serde(default, borrow)]
    spec: Option<PeekSpec<'a>>,
    #[serde(default, borrow)]
    status: Option<PeekStatus<'a>>,
    #[serde(default, borrow, rename = "involvedObject")]
    involved: Option<PeekReference<'a>>,
    #[serde(default, borrow)]
    source: Option<PeekSource<'a>>,
    #[serde(default, borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "reportingComponent")]
    reporting: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "type")]
    class: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeekMeta<'a> {
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default, borrow)]
    pub(super) resource_version: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekSpec<'a> {
    #[serde(default, borrow)]
    node_name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    restart_policy: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    scheduler_name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    service_account_name: Option<Cow<'a, str>>,
    #[serde(default)]
    host_network: Option<bool>,
    #[serde(default)]
    unschedulable: Option<bool>,
    #[serde(default, borrow, rename = "clusterIP")]
    cluster_ip: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "type")]
    class: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    signer_name: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekStatus<'a> {
    #[serde(default, borrow)]
    phase: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "podIP")]
    pod_ip: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    nominated_node_name: Option<Cow<'a, str>>,
    #[serde(default)]
    replicas: Option<i64>,
    #[serde(default)]
    succeeded: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekReference<'a> {
    #[serde(default, borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    uid: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    resource_version: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    field_path: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
struct PeekSource<'a> {
    #[serde(default, borrow)]
    component: Option<Cow<'a, str>>,
}

impl<'a> Peek<'a> {
    pub(super) fn of(json: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| e.to_string())
    }

    fn field(&self, name: &str) -> Cow<'_, str> {
        let flag = |value: Option<bool>| {
            Some(Cow::Borrowed(if value.unwrap_or_default() { "true" } else { "false" }))
        };
        let spec = self.spec.as_ref();
        let status = self.status.as_ref();
        let involved = self.involved.as_ref();
        match name {
            "spec.nodeName" => spec.and_then(|s| s.node_name.clone()),
            "spec.restartPolicy" => spec.and_then(|s| s.restart_policy.clone()),
            "spec.schedulerName" => spec.and_then(|s| s.scheduler_name.clone()),
            "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()),
            "spec.hostNetwork" => flag(spec.and_then(|s| s.host_network)),
            "spec.unschedulable" => flag(spec.and_then(|s| s.unschedulable)),
            "spec.clusterIP" => spec.and_then(|s| s.cluster_ip.clone()),
            "spec.type" => spec.and_then(|s| s.class.clone()),
            "spec.signerName" => spec.and_then(|s| s.signer_name.clone()),
            "status.phase" => status.and_then(|s| s.phase.clone()),
            "status.podIP" => status.and_then(|s| s.pod_ip.clone()),
            "status.nominatedNodeName" => status.and_then(|s| s.nominated_node_name.clone()),
            "status.replicas" => {
                let replicas = status.and_then(|s| s.replicas).unwrap_or_default();
                Some(Cow::Owned(replicas.to_string()))
            }
            "status.successful" => {
                let succeeded = status.and_then(|s| s.succeeded).unwrap_or_default();
                Some(Cow::Owned(succeeded.to_string()))
            }
            "involvedObject.kind" => involved.and_then(|r| r.kind.clone()),
            "involvedObject.namespace" => involved.and_then(|r| r.namespace.clone()),
            "involvedObject.name" => involved.and_then(|r| r.name.clone()),
            "involvedObject.uid" => involved.and_then(|r| r.uid.clone()),
            "involvedObject.apiVersion" => involved.and_then(|r| r.api_version.clone()),
            "involvedObject.resourceVersion" => involved.and_then(|r| r.resource_version.clone()),
            "involvedObject.fieldPath" => involved.and_then(|r| r.field_path.clone()),
            "reason" => self.reason.clone(),
            "reportingComponent" => self.reporting.clone(),
            "source" => self
                .source
                .as_ref()
                .and_then(|s| s.component.clone())
                .filter(|c| !c.is_empty())
                .or_else(|| self.reporting.clone()),
            "type" => self.class.clone(),
            _ => None,
        }
        .unwrap_or_default()
    }
}

/// The values of [`names`], in that order.
pub(super) fn values(kind: Kind, peek: &Peek<'_>) -> Box<[Box<str>]> {
    names(kind).iter().map(|name| Box::from(peek.field(name).as_ref())).collect()
}

#[derive(Clone, Debug)]
enum Field {
    Name,
    Namespace,
    /// At this index of [`names`].
    Own(usize),
}

/// Which objects of a kind are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this namespace; of all when empty.
    pub(super) namespace: String,
    labels: Selector,
    terms: Vec<(Field, bool, String)>,
}

impl Filter {
    /// Makes the selection of the objects in `namespace` (in all when empty) that match both
    /// selectors.
    ///
    /// # Errors
    /// `BadRequest` when the kind cannot be selected by one of the fields.
    pub fn new(
        kind: Kind,
        namespace: &str,
        labels: Selector,
        fields: &FieldSelector,
    ) -> Result<Self, Status> {
        let own = names(kind);
        let mut terms = Vec::with_capacity(fields.terms.len());
        for (name, equal, value) in &fields.terms {
            let field = match name.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" if kind.namespaced() => Field::Namespace,
                // What older clients call the node of a pod.
                "spec.host" if kind == Kind::Pod => Field::Own(0),
                _ => match own.iter().position(|n| n == name) {
                    Some(index) => Field::Own(index),
                    None => return Err(unsupported(kind, name)),
                },
            };
            terms.push((field, *equal, value.clone()));
        }
        Ok(Self { namespace: namespace.to_owned(), labels, terms })
    }

    /// The selection of everything in a namespace, of everything when it is empty.
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// The same selection, of one name only.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.terms.push((Field::Name, true, name.to_owned()));
        self
    }

    /// The one name that can match, if the selection demands one.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|(field, equal, _)| *equal && matches!(field, Field::Name))
            .map(|(_, _, value)| value.as_str())
    }

    /// Whether every object of the namespace matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty() && self.labels.is_everything()
    }

    /// Whether the object matches, its namespace included.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.in_namespace(entry.path())
            && self.terms.iter().all(|(field, equal, wanted)| {
                let value = match field {
                    Field::Name => entry.name(),
                    Field::Namespace => entry.namespace(),
                    Field::Own(index) => entry.fields.get(*index).map_or("", |v| v),
                };
                (value == wanted) == *equal
            })
            && self.labels.matches(entry.labels.as_ref())
    }

    /// Whether an object at this path lies in the namespace.
    pub(super) fn in_namespace(&self, path: &str) -> bool {
        self.namespace.is_empty()
            || path.strip_prefix(self.namespace.as_str()).is_some_and(|p| p.starts_with('/'))
    }
}

fn unsupported(kind: Kind, name: &str) -> Status {
    Status::bad_request(if names(kind).is_empty() {
        format!(
            "{name:?} is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\""
        )
    } else {
        format!("field label not supported: {name}")
    })
}
