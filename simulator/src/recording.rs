//! [`Recording`]: what a real component was told and did, repeated by a machine of ours.
//!
//! `--record-to FILE` of kube-scheduler, kube-controller-manager and kubelet writes it.

use std::fmt::Debug;

use api::Time;
use kubelet::{Kubelet, KubeletConfig, NodeEffect, NodeInput};
use machine::recording::{Header, Step};
use machine::{ApiEffect, ApiInput, ControllerManager, Election, LeaderElector, Machine, RngTree};
use scheduler::{Desk, Scheduler, SchedulerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a real component was told and did.
#[derive(Clone, Debug)]
pub struct Recording {
    header: Header,
    steps: Steps,
}

/// The steps of a component, by what it speaks to.
#[derive(Clone, Debug)]
enum Steps {
    /// The API alone.
    Api(Vec<Step<ApiInput, ApiEffect>>),
    /// The API and a container runtime.
    Node(Vec<Step<NodeInput, NodeEffect>>),
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
    #[error(
        "it is of {0:?}, and only kube-scheduler, kube-controller-manager and kubelet can be \
         repeated"
    )]
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
    /// The text is no recording, or one of another component.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let first = text.lines().next().ok_or(RecordingError::Empty)?;
        let header: Header = serde_json::from_str(first).map_err(|e| wrong(1, &e))?;
        let steps = match header.component.as_str() {
            "kube-scheduler" | "kube-controller-manager" => Steps::Api(steps(text)?),
            "kubelet" => Steps::Node(steps(text)?),
            other => return Err(RecordingError::Component(other.to_owned())),
        };
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
        let elector = || {
            let election = self.header.election.clone();
            let election = election.unwrap_or_else(|| Election::of(&self.header.component));
            let identity = self.header.identity.as_deref()?;
            Some(LeaderElector::of(election, identity))
        };
        let given = self.header.settings.clone();
        let steps = match &self.steps {
            Steps::Api(steps) => steps,
            Steps::Node(steps) => {
                let config: KubeletConfig = serde_json::from_value(given).map_err(settings)?;
                return Ok(compare(steps, Kubelet::new(config)));
            }
        };
        if self.header.component == "kube-scheduler" {
            let config: SchedulerConfig = serde_json::from_value(given).map_err(settings)?;
            let desk = Desk::new(&config).map_err(|e| RecordingError::Settings(e.to_string()))?;
            let rng = RngTree::new(self.header.seed);
            Ok(compare(steps, Scheduler::new(desk, elector(), &rng)))
        } else {
            let config: controllers::Config = serde_json::from_value(given).map_err(settings)?;
            Ok(compare(steps, ControllerManager::new(controllers::all(config), elector())))
        }
    }
}

/// The steps of a recording, which has one in each line but the first.
fn steps<S: DeserializeOwned>(text: &str) -> Result<Vec<S>, RecordingError> {
    let whole = text.ends_with('\n');
    let mut lines = text.lines().enumerate().skip(1).peekable();
    let mut steps = Vec::new();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_str(line) {
            Ok(step) => steps.push(step),
            Err(_) if lines.peek().is_none() && !whole => {}
            Err(error) => return Err(wrong(index + 1, &error)),
        }
    }
    Ok(steps)
}

fn compare<M>(steps: &[Step<M::Input, M::Effect>], mut machine: M) -> Parity
where
    M: Machine<Input: Clone, Effect: PartialEq + Serialize + Debug>,
{
    let mut parity = Parity { inputs: 0, effects: 0, difference: None };
    for step in steps {
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

fn wrong(line: usize, error: &serde_json::Error) -> RecordingError {
    RecordingError::Line { line, column: error.column(), message: error.to_string() }
}

/// The first difference between what was recorded and what the machine does.
fn differs<E: PartialEq + Serialize + Debug>(
    input: usize,
    now: Time,
    recorded: &[E],
    ours: &[E],
) -> String {
    let at = recorded.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let shown = |effects: &[E]| {
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
