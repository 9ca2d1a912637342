//! Marks of disruptions that did not come.

use std::time::Duration;

use api::{Pod, Time, meta};
use k8s_openapi::api::core::v1::PodCondition;
use machine::Plan;

use crate::{ownership, pods};

/// How long a pod may be marked before it is deleted.
const TIMEOUT: Duration = Duration::from_secs(120);

const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// When the pod loses its mark; `None` when it has none, or rightly. A kubelet may take any time
/// to end a pod that it has marked.
pub(super) fn due(pod: &Pod) -> Option<Time> {
    if meta::is_terminating(&pod.metadata) || pods::is_terminal(pod) {
        return None;
    }
    let mark = pods::condition(pod, DISRUPTION_TARGET).filter(|c| c.status == "True")?;
    if mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map(Time::from_meta).unwrap_or_default();
    Some(since + TIMEOUT)
}

/// Takes back a mark that is too old, or asks to be called again when it will be.
pub(super) fn clear(pod: &Pod, now: Time, plan: &mut Plan) {
    let Some(due) = due(pod) else { return };
    if due > now {
        plan.revisit_in(due.since(now));
        return;
    }
    let mut pod = pod.clone();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    for condition in conditions.iter_mut().filter(|c| c.type_ == DISRUPTION_TARGET) {
        *condition = PodCondition {
            type_: DISRUPTION_TARGET.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(now.to_meta()),
            ..PodCondition::default()
        };
    }
    plan.request(ownership::update_status(pod));
}
