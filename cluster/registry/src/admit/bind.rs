//! `pods/binding`: a pod gets its node, once.
//!
//! Source: kubernetes 1.33, `pkg/registry/core/pod/storage`.

use std::sync::Arc;

use api::{Kind, Object, Pod, Reason, Status, Time};
use k8s_openapi::api::core::v1::PodCondition;

use super::Context;
use crate::admission;
use crate::field::{Causes, Path};
use crate::meta;
use crate::operation::{Mutation, PodBinding};

/// Assigns the pod to the node of the binding.
///
/// # Errors
/// The pod has a node, is being deleted, is another pod, or the binding names no node.
pub(super) fn bind(
    context: Context<'_>,
    current: &Object,
    binding: &PodBinding,
) -> Result<Mutation, Status> {
    let Some(pod) = current.get::<Pod>() else { return Err(Status::no_route()) };
    let name = pod.metadata.name.clone().unwrap_or_default();
    admission::bind(context, &name)?;
    validate(binding).into_result(Kind::Binding, &name)?;
    if !binding.uid.is_empty() && binding.uid != current.uid() {
        return Err(meta::uid_mismatch(Kind::Pod, &name, &binding.uid, current.uid()));
    }
    if let Some(why) = refusal(pod, &name) {
        return Err(conflict(&name, &why));
    }
    let mut object = current.clone();
    if let Object::Pod(pod) = &mut object {
        assign(Arc::make_mut(pod), binding, context.stamp.now);
    }
    Ok(Mutation::put(object))
}

fn validate(binding: &PodBinding) -> Causes {
    let mut causes = Causes::default();
    let path = Path::new("target");
    if !matches!(binding.target_kind.as_str(), "" | "Node") {
        causes.not_supported(&path.child("kind"), &binding.target_kind, &["Node", "<empty>"]);
    }
    if binding.node.is_empty() {
        causes.required(&path.child("name"), "");
    }
    causes
}

fn refusal(pod: &Pod, name: &str) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = &pod.node_name {
        return Some(format!("pod {name} is already assigned to node {:?}", node.as_str()));
    }
    let spec = pod.spec.as_ref()?;
    let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    gated.then(|| format!("pod {name} has non-empty .spec.schedulingGates"))
}

fn conflict(name: &str, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
    let mut status = Status::new(Reason::Conflict, message);
    status.kind = "pods/binding".to_owned();
    status.name = name.to_owned();
    status
}

fn assign(pod: &mut Pod, binding: &PodBinding, now: Time) {
    pod.node_name = Some(binding.node.as_str().into());
    if !binding.labels.is_empty() {
        pod.metadata.labels.get_or_insert_default().extend(binding.labels.clone());
    }
    if !binding.annotations.is_empty() {
        pod.metadata.annotations.get_or_insert_default().extend(binding.annotations.clone());
    }
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.to_meta()),
        ..PodCondition::default()
    };
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == scheduled.type_) {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
}
