//! Changes of the number of pods, and what is remembered of them.

use std::time::Duration;

use api::{Patch, PatchKind, Request, Subresource, Time};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerSpec;
use machine::{Announcement, Memory, Plan};
use serde_json::json;

use super::{Pass, conditions};
use crate::announce;

/// The last change: how many pods there were and shall be.
const PENDING: &str = "pending";
/// Changes that were carried out, by their direction: how many pods were added or removed.
pub(super) const ADDED: &str = "added";
pub(super) const REMOVED: &str = "removed";
/// The longest period that a policy may have.
const PERIOD_MAX: Duration = Duration::from_secs(1800);

impl Pass<'_> {
    /// Tells the target how many pods it shall have.
    pub(super) fn rescale(
        &mut self,
        wanted: i32,
        reason: &str,
        memory: &mut Memory,
        plan: &mut Plan,
    ) {
        let Ok(target) = &self.target else { return };
        let size = format!("New size: {wanted}; reason: {reason}");
        let announcement = Announcement {
            done: Some(announce::normal(self.autoscaler, "SuccessfulRescale", size.clone())),
            refused: Some(announce::warning(
                self.autoscaler,
                "FailedRescale",
                format!("{size}; error: "),
            )),
        };
        // Whoever has changed the target in the meantime is not overruled.
        let body = json!({"metadata": {"resourceVersion": target.revision.to_string()},
            "spec": {"replicas": wanted}});
        let request = Request::Patch {
            key: target.key.clone(),
            subresource: Some(Subresource::Scale),
            patch: Patch { kind: PatchKind::Merge, body: body.into() },
        };
        let change = vec![(self.now, i64::from(target.replicas)), (self.now, i64::from(wanted))];
        memory.notes.insert(PENDING, change);
        plan.request_announced(request, announcement);
        let text = format!("the HPA controller was able to update the target scale to {wanted}");
        self.condition(conditions::ABLE, true, "SucceededRescale", text);
    }
}

/// Notes the last change if it was carried out.
pub(super) fn settle(
    memory: &mut Memory,
    spec: &HorizontalPodAutoscalerSpec,
    replicas: i32,
    now: Time,
) {
    let pending = memory.notes.remove(PENDING).unwrap_or_default();
    // Only policies ask what was changed.
    if spec.behavior.is_none() {
        memory.notes.remove(ADDED);
        memory.notes.remove(REMOVED);
        return;
    }
    if let [(at, before), (_, after)] = pending[..]
        && after == i64::from(replicas)
    {
        let name = if after > before { ADDED } else { REMOVED };
        memory.notes.entry(name).or_default().push((at, (after - before).abs()));
    }
    for name in [ADDED, REMOVED] {
        let Some(changes) = memory.notes.get_mut(name) else { continue };
        changes.retain(|(at, _)| now.since(*at) < PERIOD_MAX);
    }
}

/// How many pods were added or removed in the last period.
pub(super) fn within(memory: &Memory, name: &str, period_seconds: i32, now: Time) -> i64 {
    let period = Duration::from_secs(u64::try_from(period_seconds).unwrap_or(0));
    let changes = memory.notes.get(name).map(Vec::as_slice).unwrap_or_default();
    changes.iter().filter(|(at, _)| now.since(*at) < period).map(|(_, pods)| pods).sum()
}
