//! Containers of ours whose pod is gone: they are ended and removed.

use std::collections::BTreeMap;

use api::Pod;

use crate::context::{Context, RuntimePurpose};
use crate::runtime::{ContainerRecord, ContainerState, RuntimeRequest};

/// Containers that belong to no pod any more.
#[derive(Clone, Default)]
pub(crate) struct Orphans {
    /// By identifier.
    containers: BTreeMap<String, Orphan>,
}

#[derive(Clone)]
struct Orphan {
    record: ContainerRecord,
    /// Whether it was stopped already.
    stopped: bool,
}

impl Orphans {
    /// Begins to remove a container.
    pub(crate) fn add(&mut self, ctx: &mut Context, record: &ContainerRecord) {
        if self.containers.contains_key(&record.id) {
            return;
        }
        let id = record.id.clone();
        let running = record.state == ContainerState::Running;
        let is_sandbox = record.container() == crate::naming::SANDBOX;
        self.containers.insert(id.clone(), Orphan { record: record.clone(), stopped: !running });
        let purpose = RuntimePurpose::Orphan { id: id.clone() };
        let grace_seconds = if is_sandbox { 0 } else { record.grace_seconds() };
        let request = if running {
            RuntimeRequest::Stop { id, grace_seconds }
        } else {
            RuntimeRequest::Remove { id }
        };
        ctx.runtime(purpose, request);
    }

    /// The next step after a call; a failed one is repeated at the next listing.
    pub(crate) fn answer(&mut self, ctx: &mut Context, id: String, ok: bool) {
        match self.containers.get_mut(&id) {
            Some(orphan) if ok && !orphan.stopped => {
                orphan.stopped = true;
                let purpose = RuntimePurpose::Orphan { id: id.clone() };
                ctx.runtime(purpose, RuntimeRequest::Remove { id });
            }
            _ => {
                self.containers.remove(&id);
            }
        }
    }

    /// Whether something of a pod of this name still runs.
    pub(crate) fn run_for(&self, pod: &Pod) -> bool {
        self.containers.values().any(|orphan| !orphan.stopped && orphan.record.is_of(pod))
    }

    /// Whether nothing of the pod is being removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }
}
