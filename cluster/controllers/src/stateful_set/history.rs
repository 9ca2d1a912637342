//! Revisions: the one that a rollout comes from, and the one that it goes to.

use std::collections::BTreeSet;

use api::Pod;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machine::{Cache, Plan};

use super::revision_of;
use crate::revisions::{self, Revised};

impl Revised for StatefulSet {
    const HASH_LABEL: &'static str = "controller.kubernetes.io/hash";

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

/// The revisions of a stateful set.
pub(super) struct History<'a> {
    /// The name of the one that all pods were of when the last rollout was complete.
    pub(super) current: &'a str,
    /// The name of the one with the template of today.
    pub(super) update: &'a str,
    /// All of them, the oldest first.
    all: Vec<&'a ControllerRevision>,
}

impl<'a> History<'a> {
    /// The revisions, once the newest is one with the template of today; else plans what brings
    /// that about.
    pub(super) fn of(cache: &'a Cache, set: &'a StatefulSet, plan: &mut Plan) -> Option<Self> {
        let data = revisions::snapshot(set);
        let all = revisions::owned(cache, set, plan)?;
        let next = all.last().map_or(0, |r| r.revision).saturating_add(1);
        let update = match all.iter().rev().find(|r| revisions::says(r, &data)) {
            None => revisions::create(cache, set, data, next, plan)?,
            Some(_) if all.last().is_some_and(|r| revisions::says(r, &data)) => all.last()?,
            Some(old) => {
                plan.request(revisions::renumber(old, next));
                return None;
            }
        };
        let update = name(update);
        let told = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = told.filter(|told| all.iter().any(|r| name(r) == *told)).unwrap_or(update);
        Some(Self { current, update, all })
    }

    /// What is said of the revisions of a set that goes.
    pub(super) fn of_old(set: &'a StatefulSet) -> Option<Self> {
        let status = set.status.as_ref()?;
        let current = status.current_revision.as_deref()?;
        let update = status.update_revision.as_deref()?;
        Some(Self { current, update, all: Vec::new() })
    }

    /// The template of the current revision, if it can be read.
    pub(super) fn template(&self) -> Option<PodTemplateSpec> {
        revisions::template_of(self.all.iter().find(|r| name(r) == self.current)?)
    }

    /// Deletes revisions that nothing refers to, beyond the number of those that is kept.
    pub(super) fn clean_up(
        &self,
        set: &StatefulSet,
        pods: impl Iterator<Item = &'a Pod>,
        plan: &mut Plan,
    ) {
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        // A negative limit, which the API does not refuse, means none.
        let Ok(limit) = usize::try_from(limit) else { return };
        if self.all.len() <= limit {
            return;
        }
        let live: BTreeSet<&str> =
            pods.map(revision_of).chain([self.current, self.update]).collect();
        let idle: Vec<&ControllerRevision> =
            self.all.iter().filter(|r| !live.contains(name(r))).copied().collect();
        let surplus = idle.len().saturating_sub(limit);
        revisions::forget(idle.into_iter(), surplus, plan);
    }
}

fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}
