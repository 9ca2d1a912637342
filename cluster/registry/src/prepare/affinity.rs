//! Labels of a pod that its terms of affinity to pods name, written into their selectors.
//!
//! Source: kubernetes 1.33, `pkg/registry/core/pod/strategy.go`.

use std::collections::BTreeMap;

use api::Pod;
use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

type Labels = BTreeMap<String, String>;

/// Adds what `matchLabelKeys` and `mismatchLabelKeys` ask for to the selectors.
pub(super) fn select_by_keys(pod: &mut Pod) {
    let names_keys = |affinity: &Affinity| {
        let mut named = false;
        for_each_term(&mut affinity.clone(), |term| named |= has_keys(term));
        named
    };
    // Pods of one template share their spec: it is copied where that is needed alone.
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    if !affinity.is_some_and(names_keys) {
        return;
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    if let Some(affinity) = pod.spec.as_mut().and_then(|spec| spec.affinity.as_mut()) {
        for_each_term(affinity, |term| merge(term, &labels));
    }
}

fn has_keys(term: &PodAffinityTerm) -> bool {
    let some = |keys: Option<&Vec<String>>| keys.is_some_and(|keys| !keys.is_empty());
    some(term.match_label_keys.as_ref()) || some(term.mismatch_label_keys.as_ref())
}

/// A term without a selector means nobody, and goes on to.
fn merge(term: &mut PodAffinityTerm, labels: &Labels) {
    let Some(selector) = &mut term.label_selector else { return };
    let keys = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
    for (keys, operator) in keys {
        for key in keys.iter().flatten() {
            let Some(value) = labels.get(key) else { continue };
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

fn for_each_term(affinity: &mut Affinity, mut visit: impl FnMut(&mut PodAffinityTerm)) {
    if let Some(pods) = &mut affinity.pod_affinity {
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut();
        preferred.flatten().for_each(|weighted| visit(&mut weighted.pod_affinity_term));
        let required = pods.required_during_scheduling_ignored_during_execution.iter_mut();
        required.flatten().for_each(&mut visit);
    }
    if let Some(pods) = &mut affinity.pod_anti_affinity {
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut();
        preferred.flatten().for_each(|weighted| visit(&mut weighted.pod_affinity_term));
        let required = pods.required_during_scheduling_ignored_during_execution.iter_mut();
        required.flatten().for_each(&mut visit);
    }
}
