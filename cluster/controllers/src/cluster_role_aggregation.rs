//! Cluster roles that are made of others: their rules are those of the cluster roles whose labels
//! they select.
//!
//! Source: kubernetes 1.33,
//! `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.

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
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors(role) {
        // A malformed selector, which the API refuses, selects nothing.
        let Ok(selector) = Selector::of_label_selector(selector) else { continue };
        let parts = cache.list::<ClusterRole>().filter(|part| {
            part.metadata.name != role.metadata.name
                && selector.matches(part.metadata.labels.as_ref())
        });
        for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
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
