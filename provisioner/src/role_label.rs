//! The label that says which nodes are masters.
//!
//! A kubelet must not give itself a role (`NodeRestriction`), so the administrator does, when the
//! node has registered.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::execute::chain;
use crate::host::{Host, HttpsEndpoint};
use crate::ready::{self, NodeReadiness};

/// The label of masters; its value is empty.
///
/// Source: Kubernetes, well-known labels, `node-role.kubernetes.io/control-plane`.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Labels the registered nodes among `masters` and takes the label from those that are in `hosts`
/// and no masters; other nodes are not the inventory's business. Returns whose label was changed.
///
/// # Errors
/// Why the API server did not do it, in one line.
pub fn ensure(
    host: &mut dyn Host,
    nodes: &HttpsEndpoint,
    hosts: &BTreeSet<String>,
    masters: &BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let wrong = wrong(&ready::nodes(host, nodes)?, hosts, masters);
    for (name, value) in &wrong {
        let endpoint = HttpsEndpoint { path: format!("{}/{name}", nodes.path), ..nodes.clone() };
        let patch = json!({ "metadata": { "labels": { CONTROL_PLANE: value } } });
        let answer =
            host.merge_patch(&endpoint, &patch.to_string()).map_err(|error| chain(&error))?;
        if answer.status != 200 {
            let body = String::from_utf8_lossy(&answer.body);
            return Err(format!(
                "{} answers {} {}",
                endpoint.endpoint(),
                answer.status,
                body.trim()
            ));
        }
    }
    Ok(wrong.into_keys().collect())
}

/// Nodes whose label is not as it should be, with the value it should have: null for none.
fn wrong(
    nodes: &BTreeMap<String, NodeReadiness>,
    hosts: &BTreeSet<String>,
    masters: &BTreeSet<String>,
) -> BTreeMap<String, Value> {
    let known = nodes.iter().filter(|(name, _)| hosts.contains(*name));
    known
        .filter(|(name, node)| node.control_plane != masters.contains(*name))
        .map(|(name, node)| {
            let value = if node.control_plane { Value::Null } else { Value::from("") };
            (name.clone(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_alone_are_labelled_and_strangers_left_alone() {
        let node = |control_plane| NodeReadiness {
            ready: true,
            message: String::new(),
            version: String::new(),
            control_plane,
        };
        let nodes = [("new", false), ("old", true), ("right", true), ("plain", false), ("x", true)];
        let nodes = nodes.map(|(name, is)| (name.to_owned(), node(is))).into();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let hosts = names(&["new", "old", "right", "plain", "gone"]);
        let masters = names(&["new", "right", "gone"]);
        let expected = [("new".to_owned(), json!("")), ("old".to_owned(), Value::Null)];
        assert_eq!(wrong(&nodes, &hosts, &masters), expected.into());
    }
}
