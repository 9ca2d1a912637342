//! Waiting until a unit is healthy.

use std::time::{Duration, Instant};

use super::Limits;
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
    let gate = match gate {
        // The step that started the unit has made sure of it.
        Gate::Active => return Ok(()),
        Gate::Https(gate) => gate,
    };
    let request = request(state, unit, gate)?;
    let began = Instant::now();
    let until = (began + limits.gate).min(limits.deadline);
    loop {
        let last = match host.get(&request) {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                format!("{} answers {} {}", request.endpoint(), answer.status, body.trim())
            }
            Err(error) => chain(&error),
        };
        if Instant::now() >= until {
            let journal = host.journal(unit, JOURNAL_LINES).unwrap_or_default();
            let (unit, waited) = (unit.to_owned(), began.elapsed());
            return Err(GateError::Unhealthy { unit, waited, last, journal });
        }
        std::thread::sleep(PAUSE);
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
