//! What may change in a pod that scheduling gates hold back: gates may go, and whoever holds them
//! may narrow down where the pod shall run.
//!
//! Source: kubernetes 1.33, `ValidatePodUpdate`.

use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelectorTerm, PodSpec};

use crate::field::{Causes, Labels, Path};

/// Gates may be removed, and none may come.
pub(super) fn only_removed(new: &PodSpec, old: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    let known = |name: &str| old.scheduling_gates.iter().flatten().any(|gate| gate.name == name);
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !known(&gate.name) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            causes.forbidden(&path.index(i).child("name"), &detail);
        }
    }
}

/// Sets in `spec` what may change while the pod is gated to what it was.
pub(super) fn overlay_mutable(
    spec: &mut PodSpec,
    old: &PodSpec,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    if old.scheduling_gates.iter().flatten().next().is_none() {
        return;
    }
    node_selector(spec, old, &path.child("nodeSelector"), causes);
    let (before, now) = (node_affinity(old).cloned(), node_affinity(spec));
    if before.as_ref() == now {
        return;
    }
    let at = path.child("affinity");
    if let Some(before) = &before {
        narrowed(now, before, &at.child("nodeAffinity"), causes);
    }
    match &mut spec.affinity {
        None => spec.affinity = Some(Affinity { node_affinity: before, ..Affinity::default() }),
        Some(affinity) => {
            affinity.node_affinity = before;
            if old.affinity.is_none() && *affinity == Affinity::default() {
                spec.affinity = None;
            }
        }
    }
}

fn node_affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn node_selector(spec: &mut PodSpec, old: &PodSpec, path: &Path<'_>, causes: &mut Causes) {
    let kept = |(key, value): (&String, &String)| {
        spec.node_selector.as_ref().and_then(|labels| labels.get(key)) == Some(value)
    };
    if !old.node_selector.iter().flatten().all(kept) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        causes.invalid(path, Labels(spec.node_selector.as_ref()), detail);
    }
    spec.node_selector.clone_from(&old.node_selector);
}

/// Each term that a node had to match may ask for more; what is preferred may change at will.
fn narrowed(new: Option<&NodeAffinity>, old: &NodeAffinity, path: &Path<'_>, causes: &mut Causes) {
    let terms = |affinity: &NodeAffinity| {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
        required.map(|selector| selector.node_selector_terms.clone()).unwrap_or_default()
    };
    let (old, new) = (terms(old), new.map(terms).unwrap_or_default());
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    let path = path.child("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return causes.invalid(&path, new.as_slice(), detail);
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        if !extends(new, old) {
            let detail = "only additions are allowed (no mutations or deletions)";
            causes.invalid(&path.index(i), new, detail);
        }
    }
}

/// Whether a term begins with all that another asks for. One that asks for nothing matches no
/// node, so that more would widen it.
fn extends(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = |term: &NodeSelectorTerm| {
        [&term.match_expressions, &term.match_fields].map(|list| list.clone().unwrap_or_default())
    };
    let (new, old) = (lists(new), lists(old));
    if old.iter().all(Vec::is_empty) {
        return new.iter().all(Vec::is_empty);
    }
    new.iter().zip(&old).all(|(new, old)| new.starts_with(old))
}
