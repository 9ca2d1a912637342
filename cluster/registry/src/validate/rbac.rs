//! Roles and their bindings.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, RoleRef, Subject};

use super::selector;
use crate::field::{Causes, Path};
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn rules(rules: Option<&[PolicyRule]>, namespaced: bool, causes: &mut Causes) {
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        policy_rule(rule, namespaced, &Path::new("rules").index(i), causes);
    }
}

fn policy_rule(rule: &PolicyRule, namespaced: bool, path: &Path<'_>, causes: &mut Causes) {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if rule.verbs.is_empty() {
        causes.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if some(&rule.non_resource_urls) {
        let at = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            causes.invalid(&at, &rule.non_resource_urls, detail);
        }
        if some(&rule.api_groups) || some(&rule.resources) || some(&rule.resource_names) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            causes.invalid(&at, &rule.non_resource_urls, detail);
        }
        return;
    }
    if !some(&rule.api_groups) {
        let detail = "resource rules must supply at least one api group";
        causes.required(&path.child("apiGroups"), detail);
    }
    if !some(&rule.resources) {
        let detail = "resource rules must supply at least one resource";
        causes.required(&path.child("resources"), detail);
    }
}

pub(super) fn cluster_role(role: &ClusterRole, causes: &mut Causes) {
    rules(role.rules.as_deref(), false, causes);
    let Some(aggregation) = &role.aggregation_rule else { return };
    let at = Path::new("aggregationRule");
    let at = at.child("clusterRoleSelectors");
    let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.required(&at, detail);
    }
    for (i, wanted) in selectors.iter().enumerate() {
        selector::label_selector(wanted, &at.index(i), causes);
    }
}

pub(super) fn binding(
    role: &RoleRef,
    subjects: Option<&[Subject]>,
    namespaced: bool,
    causes: &mut Causes,
) {
    let path = Path::new("roleRef");
    if role.api_group != GROUP {
        causes.not_supported(&path.child("apiGroup"), &role.api_group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        causes.not_supported(&path.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        causes.required(&path.child("name"), "");
    } else {
        let messages = names::path_segment(&role.name, false);
        causes.invalid_each(&path.child("name"), &role.name, messages);
    }
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        check_subject(subject, namespaced, &Path::new("subjects").index(i), causes);
    }
}

fn check_subject(subject: &Subject, namespaced: bool, path: &Path<'_>, causes: &mut Causes) {
    if subject.name.is_empty() {
        causes.required(&path.child("name"), "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                let messages = names::subdomain(&subject.name);
                causes.invalid_each(&path.child("name"), &subject.name, messages);
            }
            if !group.is_empty() {
                causes.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                causes.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                causes.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => {
            let supported = ["ServiceAccount", "User", "Group"];
            causes.not_supported(&path.child("kind"), other, &supported);
        }
    }
}

pub(super) fn same_role(new: &RoleRef, old: &RoleRef, causes: &mut Causes) {
    if new != old {
        causes.invalid(&Path::new("roleRef"), new, "cannot change roleRef");
    }
}
