//! Who may do what: RBAC and the node authorizer, as one index that follows the objects.
//!
//! Source: kubernetes 1.33, `plugin/pkg/auth/authorizer/{rbac,node}`.

use std::collections::{BTreeMap, BTreeSet};

use api::selector::FieldSelector;
use api::{Key, Kind, Object, Reason, Status};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use crate::Caller;

mod nodes;
#[cfg(test)]
mod tests;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, … or
    /// the lower-case HTTP method for paths that are no resources.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource name; empty for paths that are no resources.
    pub resource: String,
    /// Subresource, empty for none.
    pub subresource: String,
    /// Namespace, empty for cluster-scoped requests.
    pub namespace: String,
    /// Object name, empty for collections.
    pub name: String,
    /// The path, for paths that are no resources.
    pub path: String,
    /// The field selector of a list or watch.
    pub fields: FieldSelector,
}

impl Attributes {
    /// The refusal of this request, worded as Kubernetes words it.
    pub fn forbidden(&self, caller: &Caller, why: &str) -> Status {
        let user = &caller.name;
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        if self.resource.is_empty() {
            let message = format!(
                "forbidden: User \"{user}\" cannot {} path \"{}\"{why}",
                self.verb, self.path
            );
            return Status::new(Reason::Forbidden, message);
        }
        let qualified = if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        };
        let object =
            if self.name.is_empty() { qualified } else { format!("{qualified} \"{}\"", self.name) };
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        let message = format!(
            "{object} is forbidden: User \"{user}\" cannot {} resource \"{}\" in API group \"{}\" \
             {place}{why}",
            self.verb,
            self.full_resource(),
            self.group
        );
        Status {
            kind: self.resource.clone(),
            group: self.group.clone(),
            name: self.name.clone(),
            ..Status::new(Reason::Forbidden, message)
        }
    }

    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// The answer to a question of authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may proceed.
    pub allowed: bool,
    /// Why, for people.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    User(String),
    Group(String),
}

#[derive(Clone, Debug)]
struct Bound {
    role: RoleRef,
    who: Vec<Who>,
}

/// Decides from RBAC objects, and for nodes from the pods bound to them. It is kept current by
/// [`Authorizer::apply`].
#[derive(Clone, Debug, Default)]
pub struct Authorizer {
    roles: BTreeMap<Key, Vec<PolicyRule>>,
    bindings: BTreeMap<Key, Bound>,
    bindings_of: BTreeMap<Who, BTreeSet<Key>>,
    nodes: nodes::References,
}

impl Authorizer {
    /// The kinds whose changes must be applied.
    pub const KINDS: &'static [Kind] = &[
        Kind::Role,
        Kind::RoleBinding,
        Kind::ClusterRole,
        Kind::ClusterRoleBinding,
        Kind::Pod,
        Kind::PersistentVolume,
    ];

    /// Notes the present state of an object; `None` when it is gone.
    pub fn apply(&mut self, key: &Key, object: Option<&Object>) {
        match (key.kind, object) {
            (Kind::Role | Kind::ClusterRole, Some(object)) => {
                let rules = match object {
                    Object::Role(role) => role.rules.clone(),
                    Object::ClusterRole(role) => role.rules.clone(),
                    _ => None,
                };
                self.roles.insert(key.clone(), rules.unwrap_or_default());
            }
            (Kind::Role | Kind::ClusterRole, None) => {
                self.roles.remove(key);
            }
            (Kind::RoleBinding | Kind::ClusterRoleBinding, object) => self.bind(key, object),
            (Kind::Pod | Kind::PersistentVolume, object) => self.nodes.apply(key, object),
            _ => {}
        }
    }

    fn bind(&mut self, key: &Key, object: Option<&Object>) {
        if let Some(before) = self.bindings.remove(key) {
            for who in before.who {
                if let Some(keys) = self.bindings_of.get_mut(&who) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.bindings_of.remove(&who);
                    }
                }
            }
        }
        let (role, subjects) = match object {
            Some(Object::RoleBinding(b)) => (&b.role_ref, &b.subjects),
            Some(Object::ClusterRoleBinding(b)) => (&b.role_ref, &b.subjects),
            _ => return,
        };
        let who: Vec<Who> =
            subjects.iter().flatten().filter_map(|s| who(s, &key.namespace)).collect();
        for one in &who {
            self.bindings_of.entry(one.clone()).or_default().insert(key.clone());
        }
        self.bindings.insert(key.clone(), Bound { role: role.clone(), who });
    }

    /// Decides whether `caller` may do what `asked` describes.
    pub fn authorize(&self, caller: &Caller, asked: &Attributes) -> Decision {
        if caller.groups.iter().any(|g| g == "system:masters") {
            return Decision { allowed: true, reason: String::new() };
        }
        let mut refusal = String::new();
        if let Some(node) = node_name(caller) {
            match self.nodes.authorize(node, asked) {
                Ok(()) => return Decision { allowed: true, reason: String::new() },
                Err(why) => refusal = why,
            }
        }
        let mut missing = String::new();
        for (key, bound) in self.bindings_for(caller, &asked.namespace) {
            let role = role_key(&bound.role, &key.namespace);
            let Some(rules) = self.roles.get(&role) else {
                missing = format!(
                    "RBAC: {}.rbac.authorization.k8s.io \"{}\" not found",
                    role.kind.info().singular,
                    role.name
                );
                continue;
            };
            if rules.iter().any(|rule| allows(rule, asked)) {
                let reason = format!(
                    "RBAC: allowed by {} \"{}\" of {} \"{}\"",
                    key.kind.name(),
                    key.path(),
                    bound.role.kind,
                    bound.role.name
                );
                return Decision { allowed: true, reason };
            }
        }
        let reason = if refusal.is_empty() { missing } else { refusal };
        Decision { allowed: false, reason }
    }

    /// All rules that apply to the caller in a namespace, for `SelfSubjectRulesReview` and the
    /// check against escalation.
    pub fn rules<'a>(
        &'a self,
        caller: &'a Caller,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a PolicyRule> {
        self.bindings_for(caller, namespace)
            .filter_map(|(key, bound)| self.roles.get(&role_key(&bound.role, &key.namespace)))
            .flatten()
    }

    /// The bindings that name the caller and reach the namespace; cluster-wide ones first.
    fn bindings_for<'a>(
        &'a self,
        caller: &Caller,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Bound)> {
        let mut keys: BTreeSet<&Key> = BTreeSet::new();
        let user = Who::User(caller.name.clone());
        let groups = caller.groups.iter().map(|g| Who::Group(g.clone()));
        for who in std::iter::once(user).chain(groups) {
            keys.extend(self.bindings_of.get(&who).into_iter().flatten());
        }
        keys.into_iter()
            .filter(move |key| {
                key.kind == Kind::ClusterRoleBinding
                    || (!namespace.is_empty() && *key.namespace == *namespace)
            })
            .filter_map(|key| Some((key, self.bindings.get(key)?)))
    }
}

/// The node's name if the caller is a kubelet.
pub fn node_name(caller: &Caller) -> Option<&str> {
    let node = caller.name.strip_prefix("system:node:")?;
    caller.groups.iter().any(|g| g == "system:nodes").then_some(node)
}

fn who(subject: &Subject, namespace: &str) -> Option<Who> {
    match subject.kind.as_str() {
        "User" => Some(Who::User(subject.name.clone())),
        "Group" => Some(Who::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().unwrap_or(namespace);
            Some(Who::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

fn role_key(role: &RoleRef, namespace: &str) -> Key {
    if role.kind == "Role" {
        Key::new(Kind::Role, namespace, &role.name)
    } else {
        Key::cluster(Kind::ClusterRole, &role.name)
    }
}

fn has(list: Option<&Vec<String>>, wanted: &str) -> bool {
    list.into_iter().flatten().any(|item| item == "*" || item == wanted)
}

/// Whether one rule covers what is asked.
pub fn allows(rule: &PolicyRule, asked: &Attributes) -> bool {
    if !has(Some(&rule.verbs), &asked.verb) {
        return false;
    }
    if asked.resource.is_empty() {
        return rule.non_resource_urls.iter().flatten().any(|url| match url.strip_suffix('*') {
            Some(prefix) => asked.path.starts_with(prefix),
            None => *url == asked.path,
        });
    }
    let resources = rule.resources.as_ref();
    let resource = has(resources, &asked.full_resource())
        || (!asked.subresource.is_empty()
            && resources
                .into_iter()
                .flatten()
                .any(|r| r.strip_prefix("*/") == Some(&asked.subresource)));
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(rule.api_groups.as_ref(), &asked.group)
        && resource
        && (names.is_empty() || names.contains(&asked.name))
}
