//! What the container runtime tells without being asked.

use api::Time;

use super::Kubelet;
use crate::context::RuntimePurpose;
use crate::naming;
use crate::pod_worker::Step;
use crate::replies;
use crate::runtime::{ContainerRecord, RuntimeEvent, RuntimeRequest};

impl Kubelet {
    pub(super) fn runtime_event(&mut self, now: Time, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Connected => {
                self.ctx.runtime = Ok(());
                self.node.forget_network();
                self.node.report_now(now);
                self.relist_at = now;
                self.mark_all();
            }
            RuntimeEvent::Disconnected { reason } => {
                self.ctx.runtime = Err(format!("container runtime is down: {reason}"));
                self.node.report_now(now);
            }
            RuntimeEvent::ContainerChanged { id, pod_uid, container, record } => {
                self.container_changed(id, &pod_uid, &container, record.as_deref());
            }
        }
    }

    fn container_changed(
        &mut self,
        id: String,
        pod_uid: &str,
        container: &str,
        record: Option<&ContainerRecord>,
    ) {
        let Some(worker) = self.workers.get_mut(pod_uid) else { return };
        if container == naming::SANDBOX {
            let known = worker.sandbox.record.as_mut().filter(|known| *known.id == *id);
            match (known, record) {
                (Some(known), Some(record)) => {
                    known.renew(record);
                    self.dirty.push(worker.uid.clone());
                }
                (Some(_), None) => {
                    let purpose = RuntimePurpose::InspectSandbox { uid: worker.uid.clone() };
                    self.ctx.runtime(purpose, RuntimeRequest::Inspect { id });
                }
                (None, _) => {}
            }
            return;
        }
        let Some(slot) = worker.containers.get_mut(container) else { return };
        if slot.step == Step::Start {
            // Perhaps of the container whose start is not answered yet.
            slot.recheck = true;
            return;
        }
        let inspecting = slot.inspecting;
        let Some(current) = slot.current.as_mut().filter(|known| *known.id == *id) else { return };
        match record {
            // An answer that is on its way may be older than this.
            Some(record) if !inspecting => {
                current.renew(record);
                self.dirty.push(worker.uid.clone());
            }
            _ => replies::inspect(&mut self.ctx, worker, container),
        }
    }
}
