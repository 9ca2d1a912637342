//! Revisions: what the template was before, remembered in `ControllerRevision`s.

use std::collections::BTreeSet;

use api::{ApiObject, Pod, Request, meta};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machine::{Cache, Plan};

use super::HASH;
use crate::ownership;
use crate::revisions::{self, Revised};

impl Revised for DaemonSet {
    // Pods have the same label with the same value.
    const HASH_LABEL: &'static str = HASH;

    fn of_template(template: PodTemplateSpec) -> Self {
        let mut set = Self::default();
        set.spec.get_or_insert_default().template = template;
        set
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.as_ref()?.selector)
    }

    fn collisions(&self) -> Option<i32> {
        self.status.as_ref()?.collision_count
    }

    fn set_collisions(&mut self, collisions: i32) {
        self.status.get_or_insert_default().collision_count = Some(collisions);
    }
}

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
        let data = revisions::snapshot(set);
        let all = revisions::owned(cache, set, plan)?;
        label(&all, plan)?;
        let (mut current, old): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|r| revisions::says(r, &data));
        let newest = old.last().map_or(0, |r| r.revision);
        let next = newest.saturating_add(1);
        let Some(kept) = current.pop() else {
            let current = revisions::create(cache, set, data, next, plan)?;
            return Some(Self { current, old });
        };
        if !current.is_empty() {
            merge(kept, &current, pods, plan);
            return None;
        }
        if kept.revision < next {
            plan.request(revisions::renumber(kept, next));
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
        revisions::forget(self.old.iter().filter(|r| !is_live(r)).copied(), surplus, plan);
    }
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
