//! The conditions of an autoscaler.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;

use super::Pass;

/// Whether the target can be read and changed.
pub(super) const ABLE: &str = "AbleToScale";
/// Whether the number of pods can be worked out.
pub(super) const ACTIVE: &str = "ScalingActive";
/// Whether a limit keeps the number from what it should be.
pub(super) const LIMITED: &str = "ScalingLimited";

impl Pass<'_> {
    /// Makes a condition say so.
    pub(super) fn condition(&mut self, kind: &str, status: bool, reason: &str, message: String) {
        let status = if status { "True" } else { "False" };
        let all = self.status.conditions.get_or_insert_default();
        let position = all.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
            all.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                ..HorizontalPodAutoscalerCondition::default()
            });
            all.len() - 1
        });
        let condition = &mut all[position];
        if condition.status != status {
            condition.last_transition_time = Some(self.now.to_meta());
        }
        status.clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message);
    }
}
