//! What makes a pod that of an ordinal: its name, the labels that repeat it, and its host name.

use api::{ApiObject, Pod, Request, meta};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::claims;
use crate::replicas::pod_of_template;
use crate::revisions::POD_LABEL;

/// The label with the name of the pod, for services that select one pod.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// The label with the ordinal.
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal that its name gives a pod in the set; `None` when that name is none of the set's.
///
/// (Kubernetes also takes `web-01` for one of `web`, whose name it then cannot put right.)
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let ordinal: i64 = digits.parse().ok().filter(|n| *n >= 0)?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

/// A new pod of the set, of the template of that revision.
pub(super) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i64,
) -> Pod {
    let mut pod = pod_of_template(set, template);
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    claims::volumes(set, &name, &mut spec.volumes);
    spec.hostname = Some(name);
    let service = set.spec.as_ref().and_then(|s| s.service_name.clone());
    spec.subdomain = service.filter(|name| !name.is_empty());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_LABEL.to_owned(), revision.to_owned());
    label(&mut pod, ordinal);
    pod
}

fn label(pod: &mut Pod, ordinal: i64) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
}

/// The write that gives the pod its labels back, if it does not tell its name any more. Host name
/// and subdomain of a pod cannot change.
pub(super) fn repair(pod: &Pod, ordinal: i64) -> Option<Request> {
    if meta::label(&pod.metadata, POD_NAME) == pod.metadata.name.as_deref() {
        return None;
    }
    let mut repaired = pod.clone();
    label(&mut repaired, ordinal);
    Some(Request::Update { object: repaired.into_object(), subresource: None })
}
