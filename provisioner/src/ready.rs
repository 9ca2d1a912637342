//! The last question of an apply: are the nodes ready?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::applicants;
use crate::execute::chain;
use crate::host::{Host, HttpsEndpoint};
use crate::role_label::CONTROL_PLANE;
use crate::wait;

/// Pause between two looks at the nodes.
const PAUSE: Duration = Duration::from_millis(200);

/// What the cluster says about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReadiness {
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// Why not, in the cluster's words.
    pub message: String,
    /// The kubelet's version.
    pub version: String,
    /// Whether it is labelled as one of the control plane.
    pub control_plane: bool,
}

/// Why not all nodes are ready.
#[derive(Debug, thiserror::Error)]
#[error("after {waited:.1?}, {} of {expected} nodes are not ready{}", .missing.len(), listed(.missing))]
pub struct NotReadyError {
    /// How long it was waited for.
    pub waited: Duration,
    /// How many nodes there should be.
    pub expected: usize,
    /// Those that are not ready, and why.
    pub missing: BTreeMap<String, String>,
}

fn listed(missing: &BTreeMap<String, String>) -> String {
    missing.iter().map(|(name, why)| format!("\n    {name}: {why}")).collect()
}

/// Asks for all nodes once.
///
/// # Errors
/// Why there is no answer, in one line.
pub fn nodes(
    host: &mut dyn Host,
    request: &HttpsEndpoint,
) -> Result<BTreeMap<String, NodeReadiness>, String> {
    let answer = host.get(request).map_err(|error| chain(&error))?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body);
        return Err(format!("{} answers {} {}", request.endpoint(), answer.status, body.trim()));
    }
    let list: NodeList = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{} answers no node list: {error}", request.endpoint()))?;
    Ok(list.items.into_iter().map(|node| (node.metadata.name.clone(), node.readiness())).collect())
}

/// Waits until every node of `expected` is ready; where `by_hand` people let nodes in, or asks to be.
/// Gives those that ask, each with the name of its request.
///
/// # Errors
/// Those that are not, when `until` has come.
pub fn wait(
    host: &mut dyn Host,
    request: &HttpsEndpoint,
    expected: &BTreeSet<String>,
    by_hand: bool,
    until: Instant,
    mut waiting: impl FnMut(usize),
) -> Result<BTreeMap<String, String>, NotReadyError> {
    let began = Instant::now();
    wait::poll(until, PAUSE, || {
        let mut missing = missing(&nodes(host, request), expected);
        let mut asking = BTreeMap::new();
        if by_hand && !missing.is_empty() {
            // Who cannot tell now may tell at the next look.
            asking = applicants::waiting(host, request).unwrap_or_default();
            asking.retain(|name, _| missing.remove(name).is_some());
        }
        if missing.is_empty() {
            return Ok(asking);
        }
        waiting(missing.len());
        Err(NotReadyError { waited: began.elapsed(), expected: expected.len(), missing })
    })
}

/// Waits until every node of `expected` is ready at `passes` looks in a row, whichever API server
/// answers; where `by_hand` people let nodes in, or asks to be.
///
/// # Errors
/// Those that are not, and why, when `until` has come.
pub fn steadily(
    host: &mut dyn Host,
    requests: &[HttpsEndpoint],
    expected: &BTreeSet<String>,
    passes: u32,
    by_hand: bool,
    until: Instant,
) -> Result<(), BTreeMap<String, String>> {
    let mut passed = 0;
    wait::poll(until, PAUSE, || {
        let mut seen = Err("there is no API server to ask".to_owned());
        let mut asked = None;
        for request in requests {
            seen = nodes(host, request);
            if seen.is_ok() {
                asked = Some(request);
                break;
            }
        }
        let mut missing = missing(&seen, expected);
        if by_hand && !missing.is_empty() {
            let asking = asked.and_then(|request| applicants::waiting(host, request).ok());
            missing.retain(|name, _| !asking.as_ref().is_some_and(|a| a.contains_key(name)));
        }
        passed = if missing.is_empty() { passed + 1 } else { 0 };
        if passed >= passes {
            return Ok(());
        }
        let unsteady = format!("ready at {passed} of {passes} looks in a row");
        let unsteady = expected.iter().map(|name| (name.clone(), unsteady.clone()));
        Err(if missing.is_empty() { unsteady.collect() } else { missing })
    })
}

/// Those of `expected` that are not ready, and why.
fn missing(
    seen: &Result<BTreeMap<String, NodeReadiness>, String>,
    expected: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let missing = expected.iter().filter_map(|name| Some((name.clone(), why_not(seen, name)?)));
    missing.collect()
}

fn why_not(seen: &Result<BTreeMap<String, NodeReadiness>, String>, name: &str) -> Option<String> {
    match seen.as_ref().map(|nodes| nodes.get(name)) {
        Ok(Some(node)) => (!node.ready).then(|| node.message.clone()),
        Ok(None) => Some("it has not registered".to_owned()),
        Err(error) => Some(error.clone()),
    }
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
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: String,
}

impl Node {
    fn readiness(self) -> NodeReadiness {
        let version = self.status.node_info.kubelet_version;
        let control_plane = self.metadata.labels.contains_key(CONTROL_PLANE);
        match self.status.conditions.into_iter().find(|condition| condition.kind == "Ready") {
            Some(condition) => NodeReadiness {
                ready: condition.status == "True",
                message: condition.message,
                version,
                control_plane,
            },
            None => {
                let message = "its kubelet has not reported yet".to_owned();
                NodeReadiness { ready: false, message, version, control_plane }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMachine;

    /// Who asks to be let in is waited for only where the cluster decides.
    #[test]
    fn nodes_that_people_have_to_let_in_are_not_waited_for() {
        let machine = FakeMachine::new("m");
        let nodes = HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 6443,
            path: "/api/v1/nodes".to_owned(),
            ca: String::new(),
            client: None,
        };
        let ready = r#"{"items":[{"metadata":{"name":"n1"},"status":{"conditions":[
            {"type":"Ready","status":"True"}]}}]}"#;
        let requests = applicants::tests::pending("csr-2", "n2");
        for (path, body) in [("/api/v1/nodes", ready), (applicants::PATH, &*requests)] {
            machine.state().answers.insert(format!("10.0.0.1:6443{path}"), body.to_owned());
        }
        let mut host = machine.connect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut look = |expected: &[&str], by_hand| {
            let (until, expected) = (Instant::now(), names(expected));
            wait(host.as_mut(), &nodes, &expected, by_hand, until, |_| ())
        };
        assert_eq!(look(&["n1"], true).unwrap(), BTreeMap::new());
        let asking = BTreeMap::from([("n2".to_owned(), "csr-2".to_owned())]);
        assert_eq!(look(&["n1", "n2"], true).unwrap(), asking);
        assert!(look(&["n1", "n2"], false).unwrap_err().missing.contains_key("n2"));
        let missing = look(&["n2", "n3"], true).unwrap_err().missing;
        assert_eq!(missing.into_keys().collect::<Vec<_>>(), ["n3"]);
        let mut gate = |by_hand| {
            let requests = std::slice::from_ref(&nodes);
            steadily(host.as_mut(), requests, &names(&["n1", "n2"]), 2, by_hand, Instant::now())
        };
        // One look is not two; what lacks is that, and no longer the node.
        assert_eq!(gate(true).unwrap_err()["n2"], "ready at 1 of 2 looks in a row");
        assert_eq!(gate(false).unwrap_err()["n2"], "it has not registered");
    }

    #[test]
    fn readiness_is_read_from_a_node_list() {
        let json = br#"{"kind":"NodeList","items":[
            {"metadata":{"name":"n1","labels":{"node-role.kubernetes.io/control-plane":""}},
                "status":{"conditions":[
                {"type":"MemoryPressure","status":"False"},
                {"type":"Ready","status":"True","message":"kubelet is posting ready status"}],
                "nodeInfo":{"kubeletVersion":"v1.33.0"}}},
            {"metadata":{"name":"n2"},"status":{"conditions":[
                {"type":"Ready","status":"False","message":"no network"}]}},
            {"metadata":{"name":"n3"}}]}"#;
        let list: NodeList = serde_json::from_slice(json).unwrap();
        let nodes: BTreeMap<_, _> =
            list.items.into_iter().map(|n| (n.metadata.name.clone(), n.readiness())).collect();
        assert!(nodes["n1"].ready && nodes["n1"].version == "v1.33.0");
        assert!(nodes["n1"].control_plane && !nodes["n2"].control_plane);
        let seen = Ok(nodes);
        let why = |name: &str| why_not(&seen, name).unwrap_or_default();
        assert_eq!(why("n1"), "");
        assert_eq!(why("n2"), "no network");
        assert_eq!(why("n3"), "its kubelet has not reported yet");
        assert_eq!(why("n4"), "it has not registered");
    }
}
