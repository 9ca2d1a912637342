//! `ControllerRevision`s: what the template of an object was before, for whoever remembers it so.
//!
//! Source: kubernetes 1.33, `pkg/controller/history`.

use api::{Key, Kind, Object, Request, codec, meta};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use machine::{Cache, Plan};
use serde_json::{Value, json};

use crate::deployment::sets::template_hash;
use crate::ownership::{self, Claim, workload_selector};
use crate::selectors::Selecting;

/// The label by which pods tell of which revision they are.
pub(crate) const POD_LABEL: &str = "controller-revision-hash";

/// A kind whose templates are remembered.
pub(crate) trait Revised: Selecting {
    /// The label of a revision that holds the hash in its name.
    const HASH_LABEL: &'static str;
    /// An object that says nothing but the template.
    fn of_template(template: PodTemplateSpec) -> Self;
    /// The template of today.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// What pods and revisions are selected by.
    fn selector(&self) -> Option<&LabelSelector>;
    /// How often the name of a new revision was taken.
    fn collisions(&self) -> Option<i32>;
    /// Replaces that number.
    fn set_collisions(&mut self, collisions: i32);
}

/// The patch that gives an object the template that it has now, spelled as Kubernetes spells it:
/// `kubectl rollout undo` compares it byte by byte.
pub(crate) fn snapshot<T: Revised>(owner: &T) -> Value {
    let only = T::of_template(owner.template().cloned().unwrap_or_default());
    let mut value = codec::to_value(&only.into_object());
    let mut template = value["spec"]["template"].take();
    template["$patch"] = "replace".into();
    // What Go writes of structures that say nothing.
    if template["metadata"]["creationTimestamp"].is_null() {
        template["metadata"]["creationTimestamp"] = Value::Null;
    }
    for list in ["/spec/initContainers", "/spec/containers"] {
        let containers = template.pointer_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if container["resources"].is_null() {
                container["resources"] = json!({});
            }
        }
    }
    json!({"spec": {"template": template}})
}

/// Whether the revision says just that.
pub(crate) fn says(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|d| d.0 == *data)
}

/// The template that a revision remembers, if it can be read.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions that the owner controls, the oldest first; `None` when it must adopt or release
/// some first.
pub(crate) fn owned<'a, T: Revised>(
    cache: &'a Cache,
    owner: &T,
    plan: &mut Plan,
) -> Option<Vec<&'a ControllerRevision>> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let selector = workload_selector(owner.selector()?);
    let mut owned = Vec::new();
    let before = plan.requests.len();
    for revision in ownership::candidates::<ControllerRevision, T>(cache, owner) {
        match ownership::claim(owner.meta(), &selector, &revision.metadata) {
            Claim::Keep => owned.push(revision),
            Claim::Ignore => {}
            Claim::Adopt => {
                plan.request(ownership::adopt(revision, meta::controller_reference(owner)));
            }
            Claim::Release => plan.request(ownership::release(revision, uid)),
        }
    }
    // Those of one number stay in the order of their names.
    owned.sort_by_key(|r| r.revision);
    (plan.requests.len() == before).then_some(owned)
}

/// Plans the revision of today's template; returns one of that name that says the same. One that
/// says something else makes the owner count a collision, which changes the name.
pub(crate) fn create<'a, T: Revised>(
    cache: &'a Cache,
    owner: &T,
    data: Value,
    number: i64,
    plan: &mut Plan,
) -> Option<&'a ControllerRevision> {
    let template = owner.template()?;
    let hash = template_hash(template, owner.collisions());
    let name = format!("{}-{hash}", owner.meta().name.as_deref().unwrap_or_default());
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let key = Key::new(Kind::ControllerRevision, namespace, &name);
    if let Some(present) = cache.object(&key).and_then(Object::get::<ControllerRevision>) {
        if says(present, &data) {
            return Some(present);
        }
        let mut collided = owner.clone();
        collided.set_collisions(owner.collisions().unwrap_or(0).saturating_add(1));
        plan.request(ownership::update_status(collided));
        return None;
    }
    let mut revision = ControllerRevision {
        data: Some(RawExtension(data)),
        revision: number,
        ..ControllerRevision::default()
    };
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(T::HASH_LABEL.to_owned(), hash);
    revision.metadata.name = Some(name);
    revision.metadata.namespace = owner.meta().namespace.clone();
    revision.metadata.labels = Some(labels);
    revision.metadata.annotations = owner.meta().annotations.clone();
    revision.metadata.owner_references = Some(vec![meta::controller_reference(owner)]);
    plan.request(Request::Create(api::ApiObject::into_object(revision)));
    None
}

/// The write that makes a revision the one of that number.
pub(crate) fn renumber(revision: &ControllerRevision, number: i64) -> Request {
    let mut renumbered = revision.clone();
    renumbered.revision = number;
    Request::Update { object: api::ApiObject::into_object(renumbered), subresource: None }
}

/// Deletes so many of the revisions, the first ones.
pub(crate) fn forget<'a>(
    idle: impl Iterator<Item = &'a ControllerRevision>,
    surplus: usize,
    plan: &mut Plan,
) {
    for revision in idle.take(surplus).filter(|r| !meta::is_terminating(&r.metadata)) {
        plan.request(ownership::delete(revision));
    }
}
