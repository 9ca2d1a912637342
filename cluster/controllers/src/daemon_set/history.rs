//! Revisions: what the template was before, remembered in `ControllerRevision`s.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApiObject, Key, Kind, Object, Pod, Request, codec, meta};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use machine::{Cache, Plan};
use serde_json::{Value, json};

use super::HASH;
use crate::deployment::sets::template_hash;
use crate::labels::Orphans;
use crate::ownership::{self, Claim, workload_selector};
use crate::selectors::Selecting;

/// The revisions of a daemon set.
pub(crate) struct History<'a> {
    /// The one with the template of today.
    current: &'a ControllerRevision,
    /// All others, the oldest first.
    old: Vec<&'a ControllerRevision>,
}

impl<'a> History<'a> {
    /// The revisions, once there is one with the template of today and all is in order; else plans
    /// what brings that about.
    pub(crate) fn of(
        cache: &'a Cache,
        set: &'a DaemonSet,
        pods: &[&'a Pod],
        plan: &mut Plan,
    ) -> Option<Self> {
        let data = snapshot(set);
        let all = owned(cache, set, plan)?;
        label(&all, plan)?;
        let (mut current, mut old): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|r| r.data.as_ref().is_some_and(|d| d.0 == data));
        let order = |r: &&ControllerRevision| (r.revision, r.metadata.name.clone());
        current.sort_by_key(order);
        old.sort_by_key(order);
        let newest = old.last().map_or(0, |r| r.revision);
        let next = newest.saturating_add(1);
        let Some(kept) = current.pop() else {
            let current = create(cache, set, data, next, plan)?;
            return Some(Self { current, old });
        };
        if !current.is_empty() {
            merge(kept, &current, pods, plan);
            return None;
        }
        if kept.revision < next {
            let mut renumbered = kept.clone();
            renumbered.revision = next;
            plan.request(Request::Update { object: renumbered.into_object(), subresource: None });
            return None;
        }
        Some(Self { current: kept, old })
    }

    /// The hash that pods of today's template are labelled with.
    pub(crate) fn hash(&self) -> &'a str {
        meta::label(&self.current.metadata, HASH).unwrap_or_default()
    }

    /// Deletes old revisions beyond the number that is kept, except those that pods still have.
    pub(crate) fn clean_up(&self, set: &DaemonSet, pods: &[&Pod], plan: &mut Plan) {
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let surplus = self.old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        if surplus == 0 {
            return;
        }
        let live: BTreeSet<&str> =
            pods.iter().filter_map(|pod| meta::label(&pod.metadata, HASH)).collect();
        let is_live = |r: &&&ControllerRevision| {
            meta::label(&r.metadata, HASH).is_some_and(|hash| live.contains(hash))
        };
        for revision in self.old.iter().filter(|r| !is_live(r)).take(surplus) {
            if !meta::is_terminating(&revision.metadata) {
                plan.request(ownership::delete(*revision));
            }
        }
    }
}

/// The patch that gives a daemon set the template that it has now, spelled as Kubernetes spells it:
/// `kubectl rollout undo` compares it byte by byte.
fn snapshot(set: &DaemonSet) -> Value {
    let mut only = DaemonSet::default();
    only.spec.get_or_insert_default().template =
        set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
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

/// The revisions that the daemon set controls; `None` when it must adopt or release some first.
fn owned<'a>(
    cache: &'a Cache,
    set: &DaemonSet,
    plan: &mut Plan,
) -> Option<Vec<&'a ControllerRevision>> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let selector = workload_selector(&set.spec.as_ref()?.selector);
    let orphans = match set.required_labels() {
        None => Vec::new(),
        Some(labels) if labels.is_empty() => cache.list_in(namespace).collect(),
        Some(labels) => Orphans::<ControllerRevision>::find(cache, namespace, labels),
    };
    let candidates: BTreeMap<Option<&str>, &ControllerRevision> = cache
        .owned::<ControllerRevision>(uid)
        .chain(orphans)
        .filter(|r| r.metadata.namespace.as_deref() == Some(namespace))
        .map(|r| (r.metadata.name.as_deref(), r))
        .collect();
    let mut owned = Vec::new();
    let before = plan.requests.len();
    for revision in candidates.into_values() {
        match ownership::claim(&set.metadata, &selector, &revision.metadata) {
            Claim::Keep => owned.push(revision),
            Claim::Ignore => {}
            Claim::Adopt => {
                plan.request(ownership::adopt(revision, meta::controller_reference(set)));
            }
            Claim::Release => plan.request(ownership::release(revision, uid)),
        }
    }
    (plan.requests.len() == before).then_some(owned)
}

/// Labels revisions that have no hash with their name; `None` when there are such.
fn label(all: &[&ControllerRevision], plan: &mut Plan) -> Option<()> {
    let before = plan.requests.len();
    for revision in all.iter().filter(|r| meta::label(&r.metadata, HASH).is_none()) {
        let mut labelled = ControllerRevision::clone(revision);
        let name = labelled.metadata.name.clone().unwrap_or_default();
        labelled.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), name);
        plan.request(Request::Update { object: labelled.into_object(), subresource: None });
    }
    (plan.requests.len() == before).then_some(())
}

/// Plans the revision of today's template; returns one of that name that says the same. One that
/// says something else makes the daemon set count a collision, which changes the name.
fn create<'a>(
    cache: &'a Cache,
    set: &DaemonSet,
    data: Value,
    number: i64,
    plan: &mut Plan,
) -> Option<&'a ControllerRevision> {
    let template = &set.spec.as_ref()?.template;
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(template, collisions);
    let name = format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let key = Key::new(Kind::ControllerRevision, namespace, &name);
    if let Some(present) = cache.object(&key).and_then(Object::get::<ControllerRevision>) {
        if present.data.as_ref().is_some_and(|d| d.0 == data) {
            return Some(present);
        }
        let mut collided = set.clone();
        let status = collided.status.get_or_insert_default();
        status.collision_count = Some(collisions.unwrap_or(0).saturating_add(1));
        plan.request(ownership::update_status(collided));
        return None;
    }
    let mut revision = ControllerRevision {
        data: Some(RawExtension(data)),
        revision: number,
        ..ControllerRevision::default()
    };
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash);
    revision.metadata.name = Some(name);
    revision.metadata.namespace = set.metadata.namespace.clone();
    revision.metadata.labels = Some(labels);
    revision.metadata.annotations = set.metadata.annotations.clone();
    revision.metadata.owner_references = Some(vec![meta::controller_reference(set)]);
    plan.request(Request::Create(revision.into_object()));
    None
}

/// Deletes revisions that say the same as the one that is kept; their pods get its label first, or
/// they would be replaced. (Kubernetes relabels all pods, also those of other templates.)
fn merge(
    kept: &ControllerRevision,
    surplus: &[&ControllerRevision],
    pods: &[&Pod],
    plan: &mut Plan,
) {
    let hash = meta::label(&kept.metadata, HASH).unwrap_or_default();
    for revision in surplus {
        let theirs = meta::label(&revision.metadata, HASH);
        for pod in pods.iter().filter(|p| meta::label(&p.metadata, HASH) == theirs) {
            if theirs != Some(hash) {
                let mut relabelled = Pod::clone(pod);
                let labels = relabelled.metadata.labels.get_or_insert_default();
                labels.insert(HASH.to_owned(), hash.to_owned());
                plan.request(Request::Update {
                    object: relabelled.into_object(),
                    subresource: None,
                });
            }
        }
        plan.request(ownership::delete(*revision));
    }
}
