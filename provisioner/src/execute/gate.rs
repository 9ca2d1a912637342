//! Waiting until a unit is healthy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Limits;
use crate::compose::INPUTS;
use crate::facts::FactsQuery;
use crate::host::{Host, HttpsEndpoint};
use crate::secret::Secret;
use crate::state::{Content, Gate, HostState, HttpsGate};

/// Lines of a unit's journal that an error shows.
pub(super) const JOURNAL_LINES: u32 = 20;

/// Pause between two questions: short against a component's start, long against a round trip.
const PAUSE: Duration = Duration::from_millis(150);

/// Why a gate stayed closed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// It never answered well.
    #[error("{unit} is not healthy after {waited:.1?}: {last}{}", shown(.journal))]
    Unhealthy {
        /// The unit.
        unit: String,
        /// How long it was asked.
        waited: Duration,
        /// The last answer.
        last: String,
        /// The last lines of its journal.
        journal: String,
    },
    /// The gate names a file that is not part of the desired state.
    #[error("the health gate of {unit} needs {path}, which no file of the host's state is")]
    NoCredentials {
        /// The unit.
        unit: String,
        /// The missing path.
        path: String,
    },
}

impl GateError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Unhealthy { unit, .. } => {
                format!("see journalctl -u {unit} on the host, correct the cause and apply again")
            }
            Self::NoCredentials { .. } => "this is an error in kprov; please report it".to_owned(),
        }
    }
}

fn shown(journal: &str) -> String {
    journal.lines().map(|line| format!("\n    | {line}")).collect()
}

/// Waits until `gate` is open, until its time limit or the run's deadline.
pub(super) fn wait(
    host: &mut dyn Host,
    state: &HostState,
    unit: &str,
    gate: &Gate,
    limits: Limits,
) -> Result<(), GateError> {
    let question = match gate {
        Gate::Active => Question::Active,
        Gate::Https(gate) => Question::Healthy(request(state, unit, gate)?),
        Gate::StaticPods(gate) => Question::Pods {
            health: request(state, unit, &gate.api)?,
            pods: request(state, unit, &HttpsGate { path: PODS.to_owned(), ..gate.api.clone() })?,
            wanted: &gate.pods,
        },
    };
    let began = Instant::now();
    let until = (began + limits.gate).min(limits.deadline);
    let mut passed = 0;
    loop {
        let answer = match &question {
            Question::Active => active(host, unit),
            Question::Healthy(request) => asked(host, request).map(|_| ()),
            Question::Pods { health, pods, wanted } => (asked(host, health))
                .and_then(|_| asked(host, pods))
                .and_then(|list| pods_are_ready(&list, wanted)),
        };
        // One good answer between two bad ones is no health: the count starts anew.
        passed = if answer.is_ok() { passed + 1 } else { 0 };
        if passed >= limits.passes.max(1) {
            return Ok(());
        }
        if Instant::now() >= until {
            let last = answer
                .err()
                .unwrap_or_else(|| format!("{passed} of {} good answers in a row", limits.passes));
            let journal = host.journal(unit, JOURNAL_LINES).unwrap_or_default();
            let (unit, waited) = (unit.to_owned(), began.elapsed());
            return Err(GateError::Unhealthy { unit, waited, last, journal });
        }
        std::thread::sleep(PAUSE);
    }
}

/// The master's pods of all hosts.
pub(super) const PODS: &str =
    "/api/v1/namespaces/kube-system/pods?labelSelector=tier%3Dcontrol-plane";

/// What a gate asks, with all that it needs for that.
enum Question<'a> {
    Active,
    Healthy(HttpsEndpoint),
    Pods { health: HttpsEndpoint, pods: HttpsEndpoint, wanted: &'a BTreeMap<String, String> },
}

/// Whether each pod is ready, and the one that its manifest asks for rather than the one before.
fn pods_are_ready(list: &[u8], wanted: &BTreeMap<String, String>) -> Result<(), String> {
    let list: Value = serde_json::from_slice(list)
        .map_err(|error| format!("the API server answers no list of pods: {error}"))?;
    let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    for (name, inputs) in wanted {
        let Some(pod) = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str()) else {
            return Err(format!("the API has no pod {name}"));
        };
        if pod["metadata"]["annotations"][INPUTS] != inputs.as_str() {
            return Err(format!("the pod {name} is still the one before"));
        }
        let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        if !conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            return Err(format!("the pod {name} is not ready"));
        }
    }
    Ok(())
}

/// The body of a good answer.
fn asked(host: &mut dyn Host, request: &HttpsEndpoint) -> Result<Vec<u8>, String> {
    match host.get(request) {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => {
            let body = String::from_utf8_lossy(&answer.body);
            Err(format!("{} answers {} {}", request.endpoint(), answer.status, body.trim()))
        }
        Err(error) => Err(chain(&error)),
    }
}

/// A unit that dies soon after its start is active at times: only several looks tell.
fn active(host: &mut dyn Host, unit: &str) -> Result<(), String> {
    let units = [unit.to_owned()].into();
    let facts = host.facts(&FactsQuery { units, ..FactsQuery::default() }, None);
    let facts = facts.map_err(|error| chain(&error))?;
    match facts.units.get(unit).map(|unit| unit.active.as_str()) {
        Some("active") => Ok(()),
        Some(state) => Err(format!("systemd calls it {state}")),
        None => Err("systemd does not know it".to_owned()),
    }
}

impl Gate {
    /// Whether there is anything to ask: the step that started a unit has seen it active once.
    pub(super) fn asks(&self, passes: u32) -> bool {
        passes > 1 || *self != Self::Active
    }
}

fn request(state: &HostState, unit: &str, gate: &HttpsGate) -> Result<HttpsEndpoint, GateError> {
    let text = |path: &String| match state.file(path).map(|file| &file.content) {
        Some(Content::Text(text)) => Ok(text.clone()),
        Some(Content::Secret(secret)) => Ok(secret.expose().to_owned()),
        Some(Content::Blob(_)) | None => {
            Err(GateError::NoCredentials { unit: unit.to_owned(), path: path.clone() })
        }
    };
    let client = match &gate.client {
        Some(files) => Some((text(&files.cert)?, Secret::new(text(&files.key)?))),
        None => None,
    };
    Ok(HttpsEndpoint {
        address: gate.address.clone(),
        port: gate.port,
        path: gate.path.clone(),
        ca: text(&gate.ca)?,
        client,
    })
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_must_be_the_one_of_its_manifest_and_ready() {
        let wanted = [("kube-apiserver-n1".to_owned(), "new".to_owned())].into();
        let check = |name: &str, inputs: &str, ready: &str, expected: Result<(), &str>| {
            let pod = json!({
                "metadata": { "name": name, "annotations": { INPUTS: inputs } },
                "status": { "conditions": [
                    { "type": "Initialized", "status": "True" },
                    { "type": "Ready", "status": ready },
                ] },
            });
            let list = json!({ "kind": "PodList", "items": [pod] }).to_string();
            let found = pods_are_ready(list.as_bytes(), &wanted);
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check("kube-apiserver-n1", "new", "True", Ok(()));
        let before = "the pod kube-apiserver-n1 is still the one before";
        check("kube-apiserver-n1", "old", "True", Err(before));
        check("kube-apiserver-n1", "new", "False", Err("the pod kube-apiserver-n1 is not ready"));
        check("kube-apiserver-n2", "new", "True", Err("the API has no pod kube-apiserver-n1"));
        assert!(pods_are_ready(b"{}", &wanted).is_err() && pods_are_ready(b"", &wanted).is_err());
    }
}
