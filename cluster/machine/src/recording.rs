//! [`Recorded`]: a machine whose inputs and effects are written down, so that the very same run
//! can be repeated elsewhere.
//!
//! A recording is text, one JSON document a line: a [`Header`], then a [`Step`] for every input.

use api::Time;
use serde::{Deserialize, Serialize};

use crate::{Election, Machine};

/// What a recording is of: enough to make the same machine again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// `kube-scheduler`, `kube-controller-manager` or `kubelet`.
    pub component: String,
    /// What all of the machine's randomness derives from.
    pub seed: u64,
    /// The candidate's name in the leader election; `None` without one.
    pub identity: Option<String>,
    /// How it competes; as it usually does if that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<Election>,
    /// How the machine was configured, as its own configuration type is written.
    pub settings: serde_json::Value,
}

/// One input and what followed from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step<I, E> {
    /// When.
    pub now: Time,
    /// What the machine was told.
    pub input: I,
    /// What it did.
    pub effects: Vec<E>,
}

/// Takes one line, without its end.
pub type Sink = Box<dyn FnMut(&str) + Send>;

/// A machine whose inputs and effects are written down.
pub struct Recorded<M> {
    machine: M,
    /// `None` writes nothing down.
    sink: Option<Sink>,
}

impl<M> Recorded<M> {
    /// Writes down what goes in and out of `machine`.
    pub fn new(machine: M, header: &Header, mut sink: Sink) -> Self {
        if let Ok(line) = serde_json::to_string(header) {
            sink(&line);
        }
        Self { machine, sink: Some(sink) }
    }

    /// Writes nothing down.
    pub const fn silent(machine: M) -> Self {
        Self { machine, sink: None }
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for what is not part of the recording.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }
}

impl<M> Machine for Recorded<M>
where
    M: Machine,
    M::Input: Serialize + Clone,
    M::Effect: Serialize + Clone,
{
    type Input = M::Input;
    type Effect = M::Effect;

    fn step(&mut self, now: Time, input: M::Input, out: &mut Vec<M::Effect>) {
        let Some(sink) = &mut self.sink else { return self.machine.step(now, input, out) };
        let from = out.len();
        let told = input.clone();
        self.machine.step(now, input, out);
        let step = Step { now, input: told, effects: out[from..].to_vec() };
        if let Ok(line) = serde_json::to_string(&step) {
            sink(&line);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.machine.wake_at()
    }
}
