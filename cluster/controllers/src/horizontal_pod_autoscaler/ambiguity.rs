//! Pods that more than one autoscaler counts: each would undo what the others do.

use api::Pod;
use api::selector::Selector;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::target::Target;
use super::{Pass, namespace};

impl Pass<'_> {
    /// The autoscalers of the namespace that count one of these pods, this one among them, if they
    /// are several.
    pub(super) fn rivals(&self, pods: &[&Pod]) -> Option<String> {
        let counts = |autoscaler: &&HorizontalPodAutoscaler| {
            let Some(selector) = self.selector_of(autoscaler) else { return false };
            pods.iter().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
        };
        let all = self.cache.list_in::<HorizontalPodAutoscaler>(namespace(self.autoscaler));
        let found: Vec<String> = all
            .filter(counts)
            .map(|autoscaler| {
                let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
                format!("{{{name} {}}}", namespace(autoscaler))
            })
            .collect();
        (found.len() > 1).then(|| format!("[{}]", found.join(" ")))
    }

    fn selector_of(&self, autoscaler: &HorizontalPodAutoscaler) -> Option<Selector> {
        let reference = &autoscaler.spec.as_ref()?.scale_target_ref;
        Target::find(self.cache, namespace(autoscaler), reference).ok()?.selector.ok()
    }
}
