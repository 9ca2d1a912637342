//! [`Plans`]: which plans for stateful sets are being carried out, and what came in between.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Kind, Object, Pod, Request, Subresource, Time};
use k8s_openapi::api::apps::v1::StatefulSet;
use machine::WatchEvent;

use crate::check::{Cluster, Occurrence, Role};
use crate::oracle;
use crate::world::ProcessId;

/// The calls of one plan follow each other in less time than this.
const PLAN_MAX: Duration = Duration::from_secs(60);

/// The plans of controller managers for stateful sets. One begins with a call, and ends with the
/// status that it reports, or with time.
#[derive(Clone, Default)]
pub(super) struct Plans(BTreeMap<(ProcessId, String), Plan>);

/// A plan that is being carried out.
#[derive(Clone, Copy)]
struct Plan {
    began: Time,
    /// Whether its process was shown something since that it would have planned by.
    overtaken: bool,
}

impl Plans {
    /// Whether the process is carrying out a plan for the set that it would not make any more.
    pub(super) fn is_overtaken(&self, by: ProcessId, set: &str) -> bool {
        self.0.get(&(by, set.to_owned())).is_some_and(|plan| plan.overtaken)
    }

    /// Takes in what happened.
    pub(super) fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Called { by, request } if is_manager(cluster, *by) => {
                self.called(cluster, *by, request);
            }
            Occurrence::Delivered { to, event } if is_manager(cluster, *to) => {
                let told = match event {
                    WatchEvent::Changed(object) => std::slice::from_ref(object),
                    WatchEvent::Replaced { objects, .. } => objects.as_slice(),
                    _ => &[],
                };
                for object in told {
                    self.delivered(cluster, *to, object);
                }
            }
            Occurrence::Started(process) => self.0.retain(|(by, _), _| by != process),
            _ => {}
        }
    }

    fn called(&mut self, cluster: &dyn Cluster, by: ProcessId, request: &Request) {
        let set = match request {
            Request::Update {
                object: object @ Object::StatefulSet(_),
                subresource: Some(Subresource::Status),
            } => {
                self.0.remove(&(by, object.uid().to_owned()));
                return;
            }
            Request::Create(Object::Pod(pod)) => owner(pod),
            Request::Delete { key, .. } if key.kind == Kind::Pod => {
                oracle::pod(cluster.known(by, key)).and_then(owner)
            }
            _ => None,
        };
        let Some(set) = set else { return };
        let now = cluster.now();
        let begins = Plan { began: now, overtaken: false };
        let plan = self.0.entry((by, set.to_owned())).or_insert(begins);
        if now.since(plan.began) > PLAN_MAX {
            *plan = begins;
        }
    }

    /// Notes what a process is about to be shown.
    fn delivered(&mut self, cluster: &dyn Cluster, to: ProcessId, object: &Object) {
        let set = match object {
            Object::StatefulSet(_) => object.uid(),
            Object::Pod(pod) => match owner(pod) {
                Some(set) => set,
                None => return,
            },
            _ => return,
        };
        let Some(plan) = self.0.get_mut(&(to, set.to_owned())) else { return };
        plan.overtaken |= judged(cluster.known(to, &object.key())) != judged(Some(object));
    }
}

fn is_manager(cluster: &dyn Cluster, process: ProcessId) -> bool {
    cluster.role(process) == Role::ControllerManager
}

/// The UID of the stateful set that a pod is of.
fn owner(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|o| o.controller == Some(true) && o.kind == "StatefulSet")?;
    Some(&owner.uid)
}

/// What of a set or a pod decides which pods a rollout replaces.
fn judged(object: Option<&Object>) -> impl PartialEq + '_ {
    let set = object.and_then(Object::get::<StatefulSet>);
    let template = set.map(|set| {
        let update = set.status.as_ref().and_then(|s| s.update_revision.as_deref());
        (set.metadata.generation, update)
    });
    let well = oracle::pod(object).is_some_and(|pod| {
        oracle::phase(pod) == "Running" && oracle::is_ready(pod) && oracle::is_active(pod)
    });
    (template, well)
}
