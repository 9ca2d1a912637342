//! RBAC's check against escalation: nobody grants what they do not hold.
//!
//! Source: kubernetes 1.33, `pkg/registry/rbac` and `k8s.io/component-helpers/auth/rbac`.

use std::collections::BTreeSet;

use api::{Key, Kind, Object, Status};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleRef};

use super::forbidden;
use crate::admit::Context;
use crate::authorize::{Attributes, Authorizer};
use crate::operation::{Caller, View};

const GROUP: &str = "rbac.authorization.k8s.io";
/// The kinds that say who may do what.
const KINDS: [Kind; 4] =
    [Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding];

/// The authorizer over the rules of the view.
pub(super) fn authorizer(view: &dyn View) -> Authorizer {
    let mut authorizer = Authorizer::default();
    for object in KINDS.into_iter().flat_map(|kind| view.list(kind, "")) {
        authorizer.apply(&object.key(), Some(&object));
    }
    authorizer
}

pub(super) fn check(
    context: Context<'_>,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let superuser = context.caller.groups.iter().any(|g| g == "system:masters");
    if superuser || !KINDS.contains(&new.kind()) || old.is_some_and(|old| grants_same(new, old)) {
        return Ok(());
    }
    let authorizer = authorizer(context.view);
    let namespace = new.meta().namespace.as_deref().unwrap_or_default();
    let (rules, verb, role) = match new {
        Object::Role(role) => (role.rules.clone(), "escalate", new.key()),
        Object::ClusterRole(role) => (role.rules.clone(), "escalate", new.key()),
        Object::RoleBinding(b) => {
            let role = referenced(&b.role_ref, namespace);
            (None, "bind", role)
        }
        Object::ClusterRoleBinding(b) => (None, "bind", referenced(&b.role_ref, "")),
        _ => return Ok(()),
    };
    if may(&authorizer, context.caller, verb, &role, namespace) {
        return Ok(());
    }
    let rules = match verb {
        "bind" => rules_of(context.view, &role)?,
        _ => rules.unwrap_or_default(),
    };
    let held: Vec<&PolicyRule> = authorizer.rules(context.caller, namespace).collect();
    let missing: Vec<PolicyRule> =
        rules.iter().flat_map(split).filter(|one| !held.iter().any(|h| covers(h, one))).collect();
    if missing.is_empty() { Ok(()) } else { Err(forbidden(new, &refusal(context.caller, missing))) }
}

fn grants_same(new: &Object, old: &Object) -> bool {
    match (new, old) {
        (Object::Role(new), Object::Role(old)) => new.rules == old.rules,
        (Object::ClusterRole(new), Object::ClusterRole(old)) => {
            new.rules == old.rules && new.aggregation_rule == old.aggregation_rule
        }
        (Object::RoleBinding(new), Object::RoleBinding(old)) => {
            new.role_ref == old.role_ref && new.subjects == old.subjects
        }
        (Object::ClusterRoleBinding(new), Object::ClusterRoleBinding(old)) => {
            new.role_ref == old.role_ref && new.subjects == old.subjects
        }
        _ => false,
    }
}

fn referenced(role: &RoleRef, namespace: &str) -> Key {
    if role.kind == "Role" {
        Key::new(Kind::Role, namespace, &role.name)
    } else {
        Key::cluster(Kind::ClusterRole, &role.name)
    }
}

fn rules_of(view: &dyn View, role: &Key) -> Result<Vec<PolicyRule>, Status> {
    let found = view.get(role).ok_or_else(|| Status::not_found(role.kind, &role.name))?;
    let rules = match role.kind {
        Kind::Role => found.get::<Role>().and_then(|r| r.rules.clone()),
        _ => found.get::<ClusterRole>().and_then(|r| r.rules.clone()),
    };
    Ok(rules.unwrap_or_default())
}

/// Whether the caller was told explicitly that it may.
fn may(authorizer: &Authorizer, caller: &Caller, verb: &str, role: &Key, namespace: &str) -> bool {
    let asked = Attributes {
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        resource: role.kind.plural().to_owned(),
        name: role.name.to_string(),
        namespace: namespace.to_owned(),
        ..Attributes::default()
    };
    authorizer.authorize(caller, &asked).allowed
}

/// The rule as rules of one verb on one thing each.
fn split(rule: &PolicyRule) -> Vec<PolicyRule> {
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    let mut out = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for url in list(&rule.non_resource_urls) {
            let urls = Some(vec![url]);
            out.push(PolicyRule {
                verbs: verbs.clone(),
                non_resource_urls: urls,
                ..PolicyRule::default()
            });
        }
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let names = list(&rule.resource_names);
                let names: Vec<Option<String>> = if names.is_empty() {
                    vec![None]
                } else {
                    names.into_iter().map(Some).collect()
                };
                out.extend(names.into_iter().map(|name| PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    resource_names: name.map(|n| vec![n]),
                    non_resource_urls: None,
                }));
            }
        }
    }
    out
}

/// Whether a rule that is held covers a rule of one thing.
fn covers(held: &PolicyRule, one: &PolicyRule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|i| i == "*" || i == wanted);
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    let first = |l: &Option<Vec<String>>| l.as_ref().and_then(|l| l.first()).cloned();
    if !one.verbs.iter().all(|verb| has(&held.verbs, verb)) {
        return false;
    }
    if let Some(url) = first(&one.non_resource_urls) {
        return list(&held.non_resource_urls).iter().any(|h| match h.strip_suffix('*') {
            Some(prefix) => url.starts_with(prefix),
            None => *h == url,
        });
    }
    let (Some(group), Some(resource)) = (first(&one.api_groups), first(&one.resources)) else {
        return false;
    };
    let resources = list(&held.resources);
    let by_subresource = resource
        .split_once('/')
        .is_some_and(|(_, sub)| resources.iter().any(|r| r.strip_prefix("*/") == Some(sub)));
    let names = list(&held.resource_names);
    let named = match first(&one.resource_names) {
        _ if names.is_empty() => true,
        Some(name) => names.contains(&name),
        None => false,
    };
    has(&list(&held.api_groups), &group) && (has(&resources, &resource) || by_subresource) && named
}

fn refusal(caller: &Caller, missing: Vec<PolicyRule>) -> String {
    // Verbs on the same thing are shown as one rule.
    let mut compact: Vec<PolicyRule> = Vec::new();
    for one in missing {
        let same = |c: &&mut PolicyRule| {
            c.api_groups == one.api_groups
                && c.resources == one.resources
                && c.resource_names == one.resource_names
                && c.non_resource_urls == one.non_resource_urls
        };
        match compact.iter_mut().find(same) {
            Some(rule) => {
                let new: Vec<String> =
                    one.verbs.into_iter().filter(|v| !rule.verbs.contains(v)).collect();
                rule.verbs.extend(new);
            }
            None => compact.push(one),
        }
    }
    let lines: BTreeSet<String> = compact.iter().map(shown).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        caller.name,
        quoted(&caller.groups),
        lines.join("\n")
    )
}

fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn shown(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", rule.api_groups.as_deref()),
        ("Resources", rule.resources.as_deref()),
        ("NonResourceURLs", rule.non_resource_urls.as_deref()),
        ("ResourceNames", rule.resource_names.as_deref()),
        ("Verbs", Some(rule.verbs.as_slice())),
    ];
    let parts: Vec<String> = fields
        .into_iter()
        .filter_map(|(name, list)| Some((name, list?)))
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}
