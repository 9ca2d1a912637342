//! Taking a node out of a cluster that goes on: its pods, then the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::execute::chain;
use crate::host::https::ANSWER_TIMEOUT;
use crate::host::{Host, HttpsAnswer, HttpsEndpoint};

/// Longest wait for the pods of one node to go.
pub const DRAIN_WAIT: Duration = Duration::from_secs(120);

/// The annotation of a node that a run keeps new pods off.
const CORDONED: &str = "kprov.io/cordoned-by-run";

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
                429 => last = format!(": {namespace}/{pod}: {}", answer.message()),
                _ => return Err(refusal(&endpoint, &answer)),
            }
        }
        if Instant::now() >= until {
            return Err(format!("{} pods of {name} are not gone{last}", evicted.len()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Keeps new pods off the node `name` for as long as a run works on it, and says so on the node
/// itself: a run that follows one that was killed finds it. A node that somebody else keeps pods
/// off stays as it is.
///
/// # Errors
/// Why the API server did not do it, in one line.
pub fn cordon(host: &mut dyn Host, nodes: &HttpsEndpoint, name: &str) -> Result<(), String> {
    let node = at(nodes, format!("{}/{name}", nodes.path));
    match look(host, &node)? {
        Some(seen) if !seen.spec.unschedulable => {
            let patch = json!({
                "metadata": { "annotations": { CORDONED: "true" } },
                "spec": { "unschedulable": true },
            });
            patched(host, &node, &patch)
        }
        Some(_) | None => Ok(()),
    }
}

/// Lets pods onto the node `name` again, if a run kept them off.
///
/// # Errors
/// Why the API server did not do it, in one line.
pub fn uncordon(host: &mut dyn Host, nodes: &HttpsEndpoint, name: &str) -> Result<(), String> {
    let node = at(nodes, format!("{}/{name}", nodes.path));
    match look(host, &node)? {
        Some(seen) if seen.metadata.annotations.contains_key(CORDONED) => {
            let patch = json!({
                "metadata": { "annotations": { CORDONED: null } },
                "spec": { "unschedulable": null },
            });
            patched(host, &node, &patch)
        }
        Some(_) | None => Ok(()),
    }
}

/// Lets pods onto all of `names` again that an earlier run has left cordoned; gives those.
///
/// # Errors
/// Why the API server did not do it, in one line.
pub fn uncordon_left(
    host: &mut dyn Host,
    nodes: &HttpsEndpoint,
    names: &BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let answer = host.get(nodes).map_err(|error| chain(&error))?;
    if answer.status != 200 {
        return Err(refusal(nodes, &answer));
    }
    let list: NodeList = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{} answers no node list: {error}", nodes.endpoint()))?;
    let left = list.items.into_iter().map(|node| node.metadata);
    let left =
        left.filter(|node| names.contains(&node.name) && node.annotations.contains_key(CORDONED));
    let left: Vec<_> = left.map(|node| node.name).collect();
    left.iter().try_for_each(|name| uncordon(host, nodes, name))?;
    Ok(left)
}

/// The node, if there is one.
fn look(host: &mut dyn Host, node: &HttpsEndpoint) -> Result<Option<Node>, String> {
    let answer = host.get(node).map_err(|error| chain(&error))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|error| format!("{} answers no node: {error}", node.endpoint())),
        404 => Ok(None),
        _ => Err(refusal(node, &answer)),
    }
}

fn patched(host: &mut dyn Host, node: &HttpsEndpoint, patch: &Value) -> Result<(), String> {
    let answer = host.merge_patch(node, &patch.to_string()).map_err(|error| chain(&error))?;
    match answer.status {
        200 | 404 => Ok(()),
        _ => Err(refusal(node, &answer)),
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
    format!("{} answers {} {}", endpoint.endpoint(), answer.status, answer.message())
}

#[derive(Deserialize)]
struct NodeList {
    #[serde(default)]
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default)]
    unschedulable: bool,
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
    fn a_run_uncordons_what_a_run_has_cordoned_and_nothing_else() {
        const NODE: &str = "10.0.0.1:6443/api/v1/nodes/n1";
        let nodes = endpoint(6443, "/api/v1/nodes");
        let machine = answering(&[]);
        let mut host = machine.connect();
        let mut both = |node: &str| {
            machine.state().answers.insert(NODE.to_owned(), node.to_owned());
            cordon(host.as_mut(), &nodes, "n1").unwrap();
            uncordon(host.as_mut(), &nodes, "n1").unwrap();
            std::mem::take(&mut machine.state().sent)
        };
        // The answer stays as it is here: each call is judged by itself.
        let free = both(r#"{"metadata":{"name":"n1"}}"#);
        let mark = r#"{"metadata":{"annotations":{"kprov.io/cordoned-by-run":"true"}},"spec":{"unschedulable":true}}"#;
        assert_eq!(free, [format!("PATCH {NODE} {mark}")]);
        let theirs = both(r#"{"metadata":{"name":"n1"},"spec":{"unschedulable":true}}"#);
        assert_eq!(theirs, [""; 0]);
        let ours = r#"{"metadata":{"name":"n1","annotations":{"kprov.io/cordoned-by-run":"true"}},
            "spec":{"unschedulable":true}}"#;
        let freed = r#"{"metadata":{"annotations":{"kprov.io/cordoned-by-run":null}},"spec":{"unschedulable":null}}"#;
        assert_eq!(both(ours), [format!("PATCH {NODE} {freed}")]);
        let all = format!(r#"{{"items":[{ours},{{"metadata":{{"name":"n2"}}}}]}}"#);
        machine.state().answers.insert(nodes.endpoint(), all);
        let names = ["n1", "n2"].map(str::to_owned).into();
        assert_eq!(uncordon_left(host.as_mut(), &nodes, &names).unwrap(), ["n1"]);
        assert_eq!(machine.state().sent, [format!("PATCH {NODE} {freed}")]);
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
