//! Cluster roles that are made of others: their rules are those of the cluster roles whose labels
//! they select, and of those of which these are made in turn.
//!
//! What a role that is made of others says itself does not count: it follows from them. So the
//! rules depend on roles that nobody but people write, and roles that select each other in a circle
//! come to rest.
//!
//! Source: kubernetes 1.33,
//! `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.

use std::collections::BTreeSet;

use api::selector::Selector;
use api::{ApiObject, Key, Kind, Object, Request, Time};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machine::{Cache, Delta, Plan, Reconciler};

/// Keeps the rules of aggregated cluster roles.
pub struct ClusterRoleAggregation;

impl Reconciler for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ClusterRole]
    }

    /// Aggregated roles are few; a role that changes may begin or cease to be part of any.
    fn keys_for(&self, cache: &Cache, _delta: &Delta) -> Vec<Key> {
        let roles = cache.list::<ClusterRole>().filter(|role| !selectors(role).is_empty());
        let names = roles.filter_map(|role| role.metadata.name.as_deref());
        names.map(|name| Key::cluster(Kind::ClusterRole, name)).collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(role) = cache.object(key).and_then(Object::get::<ClusterRole>) else {
            return plan;
        };
        if selectors(role).is_empty() {
            return plan;
        }
        let rules = aggregated(cache, role);
        if role.rules.as_deref().unwrap_or_default() != rules {
            let mut role = role.clone();
            role.rules = (!rules.is_empty()).then_some(rules);
            plan.request(Request::Update { object: role.into_object(), subresource: None });
        }
        plan
    }
}

fn selectors(role: &ClusterRole) -> &[LabelSelector] {
    let rule = role.aggregation_rule.as_ref();
    rule.and_then(|r| r.cluster_role_selectors.as_deref()).unwrap_or_default()
}

/// The rules of all that is selected, by selector and name, each once.
fn aggregated(cache: &Cache, role: &ClusterRole) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    let mut seen = BTreeSet::from([name(role)]);
    // The parts to be looked at, the next one last.
    let mut next = parts(cache, role);
    while let Some(part) = next.pop() {
        if !seen.insert(name(part)) {
            continue;
        }
        if selectors(part).is_empty() {
            for rule in part.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        } else {
            next.extend(parts(cache, part));
        }
    }
    rules
}

/// What the role selects, the last of it first.
fn parts<'a>(cache: &'a Cache, role: &ClusterRole) -> Vec<&'a ClusterRole> {
    let mut parts = Vec::new();
    for selector in selectors(role) {
        // A malformed selector, which the API refuses, selects nothing.
        let Ok(selector) = Selector::of_label_selector(selector) else { continue };
        let selected =
            cache.list::<ClusterRole>().filter(|p| selector.matches(p.metadata.labels.as_ref()));
        parts.extend(selected);
    }
    parts.reverse();
    parts
}

fn name(role: &ClusterRole) -> &str {
    role.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn part(name: &str, label: &str, resources: &[&str]) -> Value {
        let rules: Vec<Value> = resources
            .iter()
            .map(|r| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]}))
            .collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}}, "rules": rules})
    }

    fn whole(labels: &[&str]) -> Value {
        let selectors: Vec<Value> =
            labels.iter().map(|l| json!({"matchLabels": {*l: "true"}})).collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "whole"},
            "aggregationRule": {"clusterRoleSelectors": selectors}})
    }

    fn resources(fixture: &Fixture<ClusterRoleAggregation>) -> Vec<String> {
        let role = fixture.cache.get::<ClusterRole>("", "whole").unwrap();
        let rules = role.rules.iter().flatten();
        rules.map(|r| r.resources.as_ref().unwrap()[0].clone()).collect()
    }

    #[test]
    fn rules_are_those_of_the_parts() {
        let mut fixture = Fixture::new(ClusterRoleAggregation);
        let key = Key::cluster(Kind::ClusterRole, "whole");
        assert!(fixture.put(part("b", "x", &["pods", "secrets"])).is_empty());
        fixture.put(part("a", "x", &["nodes", "pods"]));
        fixture.put(part("c", "y", &["events"]));
        fixture.put(part("z", "z", &["jobs"]));
        assert_eq!(fixture.put(whole(&["y", "x"])), std::slice::from_ref(&key));
        fixture.settle(&key);
        assert_eq!(resources(&fixture), ["events", "nodes", "pods", "secrets"]);
        // What changes of a part changes of the whole; what somebody adds to the whole goes.
        assert_eq!(fixture.put(part("b", "x", &["secrets"])), std::slice::from_ref(&key));
        fixture.remove(&Key::cluster(Kind::ClusterRole, "a"));
        fixture.settle(&key);
        assert_eq!(resources(&fixture), ["events", "secrets"]);
        assert_eq!(fixture.put(part("c", "x", &["events"])), std::slice::from_ref(&key));
        fixture.settle(&key);
        assert_eq!(resources(&fixture), ["secrets", "events"]);
        assert_eq!(summary(&fixture.reconcile(&key)), Vec::<String>::new());
    }

    #[test]
    fn circles_come_to_rest() {
        let mut fixture = Fixture::new(ClusterRoleAggregation);
        let made = |name: &str, label: &str, of: &str, rules: Value| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name, "labels": {label: "true"}}, "rules": rules,
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]}})
        };
        let rule = |r: &str| json!([{"apiGroups": [""], "resources": [r], "verbs": ["get"]}]);
        fixture.put(part("leaf", "x", &["pods"]));
        // Each has what the other shall have, and would take it over for ever.
        fixture.put(made("one", "x", "y", rule("nodes")));
        fixture.put(made("two", "y", "x", rule("secrets")));
        let keys = ["one", "two"].map(|name| Key::cluster(Kind::ClusterRole, name));
        for key in &keys {
            fixture.settle(key);
        }
        for key in &keys {
            assert_eq!(summary(&fixture.reconcile(key)), Vec::<String>::new());
            let role = fixture.cache.get::<ClusterRole>("", &key.name).unwrap();
            let rules = role.rules.as_deref().unwrap();
            assert_eq!(rules.len(), 1);
            assert_eq!(rules[0].resources.as_deref().unwrap(), ["pods"]);
        }
        // What is taken out of the circle does not live on in it.
        fixture.remove(&Key::cluster(Kind::ClusterRole, "leaf"));
        for key in &keys {
            fixture.settle(key);
            assert_eq!(fixture.cache.get::<ClusterRole>("", &key.name).unwrap().rules, None);
        }
    }

    #[test]
    fn a_role_is_no_part_of_itself_and_plain_ones_stay() {
        let mut fixture = Fixture::new(ClusterRoleAggregation);
        let key = Key::cluster(Kind::ClusterRole, "whole");
        let mut own = whole(&["x"]);
        own["metadata"]["labels"] = json!({"x": "true"});
        own["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        fixture.put(own);
        assert_eq!(fixture.settle(&key), ["update clusterroles/whole"]);
        assert!(resources(&fixture).is_empty());
        let plain = Key::cluster(Kind::ClusterRole, "plain");
        fixture.put(part("plain", "y", &["pods"]));
        assert_eq!(summary(&fixture.reconcile(&plain)), Vec::<String>::new());
    }
}
