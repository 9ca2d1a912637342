//! Revisions: making the replica set of a new template, numbering it, and forgetting old ones.

use api::{ApiObject, Key, Kind, Request, meta};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use machine::{Announcement, Plan};

use super::sets::{Set, TEMPLATE_HASH, note_replicas, template_hash};
use super::{Pass, REVISION, progress, scaled_record};
use crate::announce;
use crate::ownership::{self, workload_selector};

/// Revisions that a replica set had before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// The list of former revisions is cut at this many characters.
const REVISION_HISTORY_CHARS_MAX: usize = 2000;

/// Asks for the template of an earlier revision.
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// Annotations of the deployment that mean nothing on its replica sets.
pub(super) const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    super::sets::DESIRED_REPLICAS,
    super::sets::MAX_REPLICAS,
    ROLLBACK_TO,
];

impl Pass<'_> {
    /// Plans the replica set of the deployment's template. A set of that name with another
    /// template makes the deployment count a collision, which changes the name; then nothing is
    /// made and `false` returned.
    pub(super) fn create_new(&mut self, plan: &mut Plan) -> bool {
        let Some(set) = self.set_of_template() else { return false };
        // It would be released at once and another one made, without end.
        let selector = self.deployment.spec.as_ref().map(|s| workload_selector(&s.selector));
        if selector.is_none_or(|s| !s.matches(set.metadata.labels.as_ref())) {
            return false;
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        if self.cache.object(&Key::new(Kind::ReplicaSet, namespace, &name)).is_some() {
            let mut deployment = self.deployment.clone();
            let collisions = self.status.collision_count.unwrap_or(0).saturating_add(1);
            self.status.collision_count = Some(collisions);
            deployment.status = Some(self.status.clone());
            plan.request(ownership::update_status(deployment));
            return false;
        }
        let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let refused = announce::warning(
            self.deployment,
            progress::SET_CREATION_FAILED,
            format!("Failed to create new replica set \"{name}\": "),
        );
        let done = (replicas > 0).then(|| scaled_record(self.deployment, &name, 0, replicas));
        plan.request_announced(
            Request::Create(set.clone().into_object()),
            Announcement { done, refused: Some(refused) },
        );
        self.note_progress(
            "True",
            progress::SET_CREATED,
            format!("Created new replica set \"{name}\""),
        );
        self.sets.new = Some(Set::created(set));
        true
    }

    fn set_of_template(&self) -> Option<ReplicaSet> {
        let spec = self.deployment.spec.as_ref()?;
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        let hash = template_hash(&spec.template, self.status.collision_count);

        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let mut set = ReplicaSet::default();
        set.metadata.name = Some(format!("{name}-{hash}"));
        set.metadata.namespace = self.deployment.metadata.namespace.clone();
        set.metadata.labels = Some(labels.clone());
        set.metadata.owner_references = Some(vec![meta::controller_reference(self.deployment)]);
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash);
        set.spec = Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds.filter(|n| *n != 0),
            replicas: Some(self.new_size(0)),
            selector,
            template: Some(template),
        });
        self.annotate(&mut set);
        let most = self.replicas.saturating_add(self.strategy.surge);
        note_replicas(&mut set, &self.replicas.to_string(), &most.to_string());
        Some(set)
    }

    /// Brings the annotations and the readiness rule of the new set up to date.
    pub(super) fn renew_annotations(&mut self) {
        let Some(new) = &self.sets.new else { return };
        let mut renewed = new.set.as_ref().clone();
        self.annotate(&mut renewed);
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        if let Some(spec) = &mut renewed.spec
            && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready;
        }
        let name = new.name().to_owned();
        if let Some(new) = &mut self.sets.new
            && renewed != *new.set
        {
            *new.edit() = renewed;
        }
        if progress::condition(&self.status, progress::PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{name}\"");
            self.note_progress("True", progress::SET_FOUND, message);
        }
    }

    /// Copies the deployment's annotations, and gives the set the next revision if it is not the
    /// newest already.
    fn annotate(&self, set: &mut ReplicaSet) {
        let before = meta::annotation(&set.metadata, REVISION).map(str::to_owned);
        let annotations = set.metadata.annotations.get_or_insert_default();
        for (key, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&key.as_str()) {
                annotations.insert(key.clone(), value.clone());
            }
        }
        // A revision that is no number was written by somebody else: leave it.
        let Ok(old) = before.as_deref().unwrap_or("0").parse::<i64>() else { return };
        let next = self.sets.max_old_revision().saturating_add(1);
        if old < next {
            annotations.insert(REVISION.to_owned(), next.to_string());
            if let Some(before) = before {
                let history = annotations.get(REVISION_HISTORY).map(String::as_str);
                let history = appended(history.unwrap_or_default(), &before);
                annotations.insert(REVISION_HISTORY.to_owned(), history);
            }
        }
    }

    /// The deployment with the revision of its new set, if it does not say so yet.
    pub(super) fn renumbered(&self) -> Option<Request> {
        // First the status must say that the set was created, or nobody ever learns it.
        let new = self.sets.new.as_ref().filter(|s| s.set.metadata.uid.is_some())?;
        let revision = meta::annotation(&new.set.metadata, REVISION)?;
        if meta::annotation(&self.deployment.metadata, REVISION) == Some(revision) {
            return None;
        }
        let mut deployment = self.deployment.clone();
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), revision.to_owned());
        Some(Request::Update { object: deployment.into_object(), subresource: None })
    }

    /// Deletes old replica sets beyond the history that is kept.
    pub(super) fn clean_up(&self, plan: &mut Plan) {
        let limit = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
        let Some(limit) = limit.filter(|n| *n != i32::MAX) else { return };
        let mut alive: Vec<&Set<'_>> =
            self.sets.old.iter().filter(|s| !meta::is_terminating(&s.set.metadata)).collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        alive.sort_by_key(|s| (s.revision(), s.age()));
        for set in alive.into_iter().take(surplus) {
            if set.actual() == 0 && set.replicas == 0 && set.is_settled() {
                plan.request(ownership::delete(set.set.as_ref()));
            }
        }
    }
}

/// Appends a revision to the history, dropping the oldest ones when it grows too long.
fn appended(history: &str, revision: &str) -> String {
    if history.is_empty() {
        return revision.to_owned();
    }
    let mut kept = history;
    while kept.len() + revision.len() + 1 > REVISION_HISTORY_CHARS_MAX {
        match kept.split_once(',') {
            Some((_, rest)) => kept = rest,
            None => return revision.to_owned(),
        }
    }
    format!("{kept},{revision}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded() {
        assert_eq!(appended("", "1"), "1");
        assert_eq!(appended("1,2", "3"), "1,2,3");
        let long = (1..2000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let cut = appended(&long, "2000");
        assert!(cut.len() <= REVISION_HISTORY_CHARS_MAX && cut.ends_with(",1999,2000"), "{cut}");
    }
}
