//! [`Recording`]: what a real component was told and did, repeated by a machine of ours.
//!
//! `kube-scheduler --record-to FILE` and `kube-controller-manager --record-to FILE` write it.

use api::Time;
use machine::recording::{Header, Step};
use machine::{ApiEffect, ApiInput, ControllerManager, LeaderElector, Machine, RngTree};
use scheduler::{Desk, Scheduler, SchedulerConfig};

/// What a real component was told and did.
#[derive(Clone, Debug)]
pub struct Recording {
    header: Header,
    steps: Vec<Step<ApiInput, ApiEffect>>,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A line is no JSON document of the kind that belongs there.
    #[error("line {line}, column {column}: {message}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Where in it, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It is of a component that has no machine here.
    #[error("it is of {0:?}, and only kube-scheduler and kube-controller-manager can be repeated")]
    Component(String),
    /// The component's configuration makes no sense.
    #[error("the component's settings: {0}")]
    Settings(String),
}

/// How a machine compared with the recorded component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Inputs that were repeated.
    pub inputs: usize,
    /// Effects that were compared.
    pub effects: usize,
    /// The first difference, if there is one.
    pub difference: Option<String>,
}

impl Recording {
    /// Reads a recording. A last line that was cut off is left out: the component was stopped
    /// while it wrote it.
    ///
    /// # Errors
    /// The text is no recording.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let whole = text.ends_with('\n');
        let mut lines = text.lines().enumerate().peekable();
        let (_, first) = lines.next().ok_or(RecordingError::Empty)?;
        let header: Header = serde_json::from_str(first).map_err(|e| wrong(1, &e))?;
        let mut steps = Vec::new();
        while let Some((index, line)) = lines.next() {
            match serde_json::from_str(line) {
                Ok(step) => steps.push(step),
                Err(_) if lines.peek().is_none() && !whole => {}
                Err(error) => return Err(wrong(index + 1, &error)),
            }
        }
        Ok(Self { header, steps })
    }

    /// Which component was recorded.
    pub fn component(&self) -> &str {
        &self.header.component
    }

    /// Tells a machine of ours everything that the component was told, and compares what it does.
    ///
    /// # Errors
    /// No such machine can be made.
    pub fn replay(&self) -> Result<Parity, RecordingError> {
        let settings = |e: serde_json::Error| RecordingError::Settings(e.to_string());
        let elector = |lease: &str| {
            self.header.identity.as_ref().map(|identity| LeaderElector::new(lease, identity))
        };
        let given = self.header.settings.clone();
        match self.header.component.as_str() {
            "kube-scheduler" => {
                let config: SchedulerConfig = serde_json::from_value(given).map_err(settings)?;
                let desk =
                    Desk::new(&config).map_err(|e| RecordingError::Settings(e.to_string()))?;
                let rng = RngTree::new(self.header.seed);
                let machine = Scheduler::new(desk, elector(&config.lease), &rng);
                Ok(self.compare(machine))
            }
            "kube-controller-manager" => {
                let config: controllers::Config =
                    serde_json::from_value(given).map_err(settings)?;
                let elector = elector("kube-controller-manager");
                Ok(self.compare(ControllerManager::new(controllers::all(config), elector)))
            }
            other => Err(RecordingError::Component(other.to_owned())),
        }
    }

    fn compare(&self, mut machine: impl Machine<Input = ApiInput, Effect = ApiEffect>) -> Parity {
        let mut parity = Parity { inputs: 0, effects: 0, difference: None };
        for step in &self.steps {
            let mut effects = Vec::new();
            machine.step(step.now, step.input.clone(), &mut effects);
            parity.inputs += 1;
            parity.effects += effects.len();
            if effects != step.effects {
                parity.difference = Some(differs(parity.inputs, step.now, &step.effects, &effects));
                break;
            }
        }
        parity
    }
}

fn wrong(line: usize, error: &serde_json::Error) -> RecordingError {
    RecordingError::Line { line, column: error.column(), message: error.to_string() }
}

/// The first difference between what was recorded and what the machine does.
fn differs(input: usize, now: Time, recorded: &[ApiEffect], ours: &[ApiEffect]) -> String {
    let at = recorded.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let shown = |effects: &[ApiEffect]| {
        effects.get(at).map_or_else(
            || "nothing".to_owned(),
            |effect| serde_json::to_string(effect).unwrap_or_else(|_| format!("{effect:?}")),
        )
    };
    format!(
        "after input {input} (at {now}), effect {}: recorded {}, here {}",
        at + 1,
        shown(recorded),
        shown(ours)
    )
}
