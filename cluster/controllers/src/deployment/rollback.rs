//! Going back to the template of an earlier revision, as an annotation asks.
//!
//! `kubectl rollout undo` writes the old template itself; the annotation is what is left of the API
//! that clients used before.
//!
//! Source: kubernetes 1.33, `pkg/controller/deployment/rollback.go`.

use api::{ApiObject, Request, meta};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use machine::{Plan, Record};

use super::Pass;
use super::history::{NOT_COPIED, ROLLBACK_TO};
use super::sets::{Set, TEMPLATE_HASH, same};
use crate::announce;

/// The revision that the deployment shall go back to, zero for the last one; what is no number asks
/// for nothing.
pub(super) fn wanted(deployment: &Deployment) -> Option<i64> {
    meta::annotation(&deployment.metadata, ROLLBACK_TO)?.parse().ok()
}

impl Pass<'_> {
    /// Plans the deployment with the template of `revision` and without the annotation. One that
    /// cannot go back is told so and loses the annotation, too.
    pub(super) fn roll_back(mut self, revision: i64, plan: &mut Plan) {
        // What is left gets its number first.
        if self.sets.new.is_none() && !self.create_new(plan) {
            return;
        }
        self.renew_annotations();
        self.write(plan);
        let revision = if revision == 0 { self.last_revision() } else { revision };
        let mut deployment = self.deployment.clone();
        deployment.metadata.annotations.get_or_insert_default().remove(ROLLBACK_TO);
        let record = match self.sets.all().find(|set| revision != 0 && set.revision() == revision) {
            Some(set) => take_back(&mut deployment, &set.set, revision),
            None => {
                let message = match revision {
                    0 => "Unable to find last revision.",
                    _ => "Unable to find the revision to rollback to.",
                };
                let reason = "DeploymentRollbackRevisionNotFound";
                announce::warning(self.deployment, reason, message.to_owned())
            }
        };
        let request = Request::Update { object: deployment.into_object(), subresource: None };
        plan.request_announced(request, announce::when_done(record));
    }

    /// The revision before the newest; zero if there is none.
    fn last_revision(&self) -> i64 {
        let mut revisions: Vec<i64> = self.sets.all().map(Set::revision).collect();
        revisions.sort_unstable();
        revisions.iter().rev().nth(1).copied().unwrap_or(0)
    }
}

/// Gives the deployment the template of a replica set, and its annotations: they would be copied to
/// the set again. What people are told of it.
fn take_back(deployment: &mut Deployment, set: &ReplicaSet, revision: i64) -> Record {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let spec = deployment.spec.get_or_insert_default();
    if same(&spec.template, &template) {
        let message = format!(
            "The rollback revision contains the same template as current deployment \"{name}\""
        );
        return announce::warning(deployment, "DeploymentRollbackTemplateUnchanged", message);
    }
    spec.template = template;
    if let Some(labels) = spec.template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| NOT_COPIED.contains(&key.as_str()));
    let own = set.metadata.annotations.iter().flatten();
    let own = own.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    annotations.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    let message = format!("Rolled back deployment \"{name}\" to revision {revision}");
    announce::normal(deployment, "DeploymentRollback", message)
}
