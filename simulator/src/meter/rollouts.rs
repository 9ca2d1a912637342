//! When deployments rolled out, and how many of their pods were there meanwhile.

use std::collections::BTreeMap;

use api::Key;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::outcome::Rollout;
use crate::span::Span;

/// The rollouts so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Rollouts {
    all: Vec<Rollout>,
    /// Those under way, by deployment.
    open: BTreeMap<Key, usize>,
}

impl Rollouts {
    /// A deployment was written; `None` when it is gone. A rollout begins with a deployment and
    /// with every change of its pods; changing their number is none.
    pub(super) fn write(
        &mut self,
        at: Span,
        key: &Key,
        old: Option<&Deployment>,
        new: Option<&Deployment>,
    ) {
        let Some(new) = new else {
            self.open.remove(key);
            return;
        };
        let generation = new.metadata.generation.unwrap_or(0);
        let changed = old.is_none_or(|old| {
            old.metadata.generation != new.metadata.generation && template(old) != template(new)
        });
        if changed {
            self.open.insert(key.clone(), self.all.len());
            self.all.push(Rollout {
                deployment: key.path(),
                generation,
                began: at,
                completed: None,
                available_min: available(old.unwrap_or(new)),
                replicas: replicas(new),
            });
        }
        let Some(rollout) = self.open.get(key).map(|at| &mut self.all[*at]) else { return };
        rollout.available_min = rollout.available_min.min(available(new));
        rollout.replicas = replicas(new);
        if is_complete(new) {
            rollout.completed = Some(at);
            self.open.remove(key);
        }
    }

    /// All rollouts, in the order in which they began.
    pub(super) fn take(&mut self) -> Vec<Rollout> {
        self.open.clear();
        std::mem::take(&mut self.all)
    }
}

fn template(deployment: &Deployment) -> Option<&PodTemplateSpec> {
    deployment.spec.as_ref().map(|s| &s.template)
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Source: kubernetes 1.33, `pkg/controller/deployment/util`, `DeploymentComplete`.
fn is_complete(deployment: &Deployment) -> bool {
    let wanted = replicas(deployment);
    deployment.status.as_ref().is_some_and(|status| {
        status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && status.observed_generation >= deployment.metadata.generation
    })
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use serde_json::json;

    use super::*;

    fn deployment(generation: i64, image: &str, replicas: i32, status: [i32; 3]) -> Deployment {
        let [all, updated, available] = status;
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "generation": generation},
            "spec": {"replicas": replicas, "selector": {}, "template": {"spec":
                {"containers": [{"name": "app", "image": image}]}}},
            "status": {"observedGeneration": generation, "replicas": all,
                "updatedReplicas": updated, "availableReplicas": available},
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_lasts_from_the_change_until_all_is_available() {
        let states = [
            deployment(1, "a", 4, [0, 0, 0]),
            deployment(1, "a", 4, [4, 4, 4]),
            deployment(2, "b", 4, [4, 4, 4]),
            deployment(2, "b", 4, [5, 1, 3]),
            deployment(2, "b", 4, [5, 4, 4]),
            deployment(2, "b", 4, [4, 4, 4]),
            deployment(3, "b", 2, [4, 4, 4]),
            deployment(4, "c", 2, [2, 0, 2]),
        ];
        // A change is seen before the controller has observed it.
        let mut states = Vec::from(states);
        for at in [0, 2, 7] {
            states[at].status.as_mut().unwrap().observed_generation = None;
        }
        let key = Key::new(Kind::Deployment, "n", "web");
        let mut rollouts = Rollouts::default();
        for (at, state) in states.iter().enumerate() {
            let old = at.checked_sub(1).map(|before| &states[before]);
            rollouts.write(Span::secs(at as u64), &key, old, Some(state));
        }
        rollouts.write(Span::secs(9), &key, states.last(), None);
        let found = rollouts.take();
        let shown: Vec<_> = found
            .iter()
            .map(|r| (r.generation, r.began, r.completed, r.available_min, r.replicas))
            .collect();
        assert_eq!(
            shown,
            [
                (1, Span::secs(0), Some(Span::secs(1)), 0, 4),
                (2, Span::secs(2), Some(Span::secs(5)), 3, 4),
                (4, Span::secs(7), None, 2, 2),
            ]
        );
        assert_eq!(found[0].deployment, "n/web");
    }
}
