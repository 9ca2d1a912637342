//! Taking a node out of a cluster that goes on: its pods, then the node itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::execute::chain;
use crate::host::https::ANSWER_TIMEOUT;
use crate::host::{Host, HttpsAnswer, HttpsEndpoint};

/// Pause between two looks at what is left on a node.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps new pods off the node `name` and evicts those that are there, as `kubectl drain
/// --ignore-daemonsets --delete-emptydir-data` does; waits until they are gone. Says whether there
/// was such a node.
///
/// # Errors
/// Why the node is not empty when `until` has come, in one line.
pub fn drain(
    host: &mut dyn Host,
    nodes: &HttpsEndpoint,
    name: &str,
    until: Instant,
) -> Result<bool, String> {
    let node = at(nodes, format!("{}/{name}", nodes.path));
    let cordon = json!({ "spec": { "unschedulable": true } }).to_string();
    let answer = host.merge_patch(&node, &cordon).map_err(|error| chain(&error))?;
    match answer.status {
        200 => {}
        404 => return Ok(false),
        _ => return Err(refusal(&node, &answer)),
    }
    let list = at(nodes, format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}"));
    loop {
        let answer = host.get(&list).map_err(|error| chain(&error))?;
        if answer.status != 200 {
            return Err(refusal(&list, &answer));
        }
        let pods: PodList = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("{} answers no pod list: {error}", list.endpoint()))?;
        let evicted: Vec<_> = pods.items.iter().filter(|pod| pod.is_evicted()).collect();
        if evicted.is_empty() {
            return Ok(true);
        }
        let mut last = String::new();
        for Pod { metadata } in &evicted {
            if metadata.deletion_timestamp.is_some() {
                continue;
            }
            let (namespace, pod) = (&metadata.namespace, &metadata.name);
            let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
            let eviction = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": { "name": pod, "namespace": namespace },
            });
            let endpoint = at(nodes, path);
            let answer = host
                .post(&endpoint, &eviction.to_string(), ANSWER_TIMEOUT)
                .map_err(|error| chain(&error))?;
            match answer.status {
                200 | 201 | 404 => {}
                // A disruption budget says "not now": it is asked again.
                429 => last = format!(": {namespace}/{pod}: {}", message(&answer)),
                _ => return Err(refusal(&endpoint, &answer)),
            }
        }
        if Instant::now() >= until {
            return Err(format!("{} pods of {name} are not gone{last}", evicted.len()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Deletes the node `name`; one that is not there is gone already.
///
/// # Errors
/// Why the API server did not do it, in one line.
pub fn delete_node(host: &mut dyn Host, nodes: &HttpsEndpoint, name: &str) -> Result<(), String> {
    let node = at(nodes, format!("{}/{name}", nodes.path));
    let answer = host.delete(&node).map_err(|error| chain(&error))?;
    match answer.status {
        200 | 202 | 404 => Ok(()),
        _ => Err(refusal(&node, &answer)),
    }
}

fn at(endpoint: &HttpsEndpoint, path: String) -> HttpsEndpoint {
    HttpsEndpoint { path, ..endpoint.clone() }
}

fn refusal(endpoint: &HttpsEndpoint, answer: &HttpsAnswer) -> String {
    format!("{} answers {} {}", endpoint.endpoint(), answer.status, message(answer))
}

/// The words of a `Status`, or the whole body.
fn message(answer: &HttpsAnswer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let status: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    match status.as_ref().and_then(|status| status["message"].as_str()) {
        Some(message) => message.to_owned(),
        None => body.trim().to_owned(),
    }
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<OwnerReference>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct OwnerReference {
    kind: String,
    #[serde(default)]
    controller: bool,
}

impl Pod {
    /// Pods of daemon sets come back at once, and those of files belong to the kubelet.
    fn is_evicted(&self) -> bool {
        let of_daemon_set = |owner: &OwnerReference| owner.controller && owner.kind == "DaemonSet";
        !self.metadata.annotations.contains_key("kubernetes.io/config.mirror")
            && !self.metadata.owner_references.iter().any(of_daemon_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMachine;

    fn endpoint(port: u16, path: &str) -> HttpsEndpoint {
        let (address, path, ca) = ("10.0.0.1".to_owned(), path.to_owned(), String::new());
        HttpsEndpoint { address, port, path, ca, client: None }
    }

    fn answering(answers: &[(&str, &str)]) -> FakeMachine {
        let machine = FakeMachine::new("m");
        let own = answers.iter().map(|(at, body)| ((*at).to_owned(), (*body).to_owned()));
        machine.state().answers.extend(own);
        machine
    }

    const PODS: &str = "10.0.0.1:6443/api/v1/pods?fieldSelector=spec.nodeName%3Dn1";

    #[test]
    fn a_drained_node_is_cordoned_and_its_pods_evicted_but_for_those_that_stay() {
        let pods = r#"{"items":[
            {"metadata":{"name":"web","namespace":"a"}},
            {"metadata":{"name":"going","namespace":"a","deletionTimestamp":"x"}},
            {"metadata":{"name":"agent","namespace":"a",
                "ownerReferences":[{"kind":"DaemonSet","controller":true}]}},
            {"metadata":{"name":"file","namespace":"a",
                "annotations":{"kubernetes.io/config.mirror":"x"}}}]}"#;
        let machine = answering(&[(PODS, pods)]);
        let nodes = endpoint(6443, "/api/v1/nodes");
        let mut host = machine.connect();
        let error = drain(host.as_mut(), &nodes, "n1", Instant::now()).unwrap_err();
        assert_eq!(error, "2 pods of n1 are not gone");
        let sent = machine.state().sent.clone();
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert_eq!(
            sent[0],
            r#"PATCH 10.0.0.1:6443/api/v1/nodes/n1 {"spec":{"unschedulable":true}}"#
        );
        let eviction = "POST 10.0.0.1:6443/api/v1/namespaces/a/pods/web/eviction";
        assert!(sent[1].starts_with(eviction), "{sent:?}");
        machine.state().answers.insert(PODS.to_owned(), "{}".to_owned());
        assert_eq!(drain(host.as_mut(), &nodes, "n1", Instant::now()), Ok(true));
    }

    #[test]
    fn a_budget_that_forbids_it_is_named() {
        let machine =
            answering(&[(PODS, r#"{"items":[{"metadata":{"name":"web","namespace":"a"}}]}"#)]);
        let at = "10.0.0.1:6443/api/v1/namespaces/a/pods/web/eviction".to_owned();
        machine.state().unhealthy.insert(at.clone(), 429);
        let budget = r#"{"message":"Cannot evict pod as it would violate its budget."}"#;
        machine.state().answers.insert(at, budget.to_owned());
        let nodes = endpoint(6443, "/api/v1/nodes");
        let error = drain(machine.connect().as_mut(), &nodes, "n1", Instant::now()).unwrap_err();
        assert!(error.ends_with("a/web: Cannot evict pod as it would violate its budget."));
    }

    #[test]
    fn a_node_that_is_not_there_is_no_failure() {
        let machine = answering(&[]);
        machine.state().unhealthy.insert("10.0.0.1:6443/api/v1/nodes/n1".to_owned(), 404);
        let nodes = endpoint(6443, "/api/v1/nodes");
        let mut host = machine.connect();
        assert_eq!(drain(host.as_mut(), &nodes, "n1", Instant::now()), Ok(false));
        assert_eq!(delete_node(host.as_mut(), &nodes, "n1"), Ok(()));
    }
}
