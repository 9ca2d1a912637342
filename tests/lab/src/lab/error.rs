//! What can go wrong with a lab.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::dockerd::DaemonError;
use crate::exec::Output;
use crate::host_image::HostImageError;
use crate::lab::range::TakenRange;
use crate::subnet::Subnet;

/// Says why a lab could not do what it was asked for.
#[derive(Debug, Error)]
pub enum LabError {
    /// There is no outer Docker.
    #[error("no Docker to run hosts in")]
    Daemon(#[from] DaemonError),
    /// There is no image for the hosts.
    #[error("no image for the hosts")]
    Image(#[from] HostImageError),
    /// The outer Docker refused.
    #[error("cannot {act}")]
    Docker {
        /// What was tried.
        act: String,
        /// Why it failed.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// The machine refused.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No lab of this name is up.
    #[error("no lab named {name} is up; `lab up --name {name}` starts one")]
    NoLab {
        /// The name.
        name: String,
    },
    /// The lab has no such host.
    #[error("no host named {name}; there are: {known}")]
    NoHost {
        /// The name.
        name: String,
        /// The hosts that there are.
        known: String,
    },
    /// Another network uses the addresses.
    #[error("the range {wanted} overlaps {other}")]
    RangeTaken {
        /// The range asked for.
        wanted: Subnet,
        /// What uses the addresses.
        other: TakenRange,
    },
    /// All ranges for labs are in use.
    #[error("no range of 10.99.0.0/16 is free; remove a lab or choose one with --subnet")]
    NoRange,
    /// The range is too small.
    #[error("the range {subnet} has no room for {hosts} hosts")]
    RangeFull {
        /// The range.
        subnet: Subnet,
        /// How many hosts were asked for.
        hosts: usize,
    },
    /// A host did not become ready.
    #[error("host {host} is not ready after {} s: {state}", waited.as_secs())]
    NotReady {
        /// The host.
        host: String,
        /// How long it was given.
        waited: Duration,
        /// What it said last.
        state: String,
    },
    /// A host booted with failed units.
    #[error("host {host} booted with failed units:\n{units}")]
    Degraded {
        /// The host.
        host: String,
        /// The failed units.
        units: String,
    },
    /// A command did not end in time.
    #[error("on {host}: {command}: no end after {} s", timeout.as_secs())]
    ExecTimeout {
        /// The host.
        host: String,
        /// The command.
        command: String,
        /// The limit.
        timeout: Duration,
    },
    /// A command failed.
    #[error("on {host}: {command}: {output}")]
    Command {
        /// The host.
        host: String,
        /// The command.
        command: String,
        /// What it left.
        output: Output,
    },
}

impl LabError {
    pub(crate) fn docker(act: String, source: bollard::errors::Error) -> Self {
        Self::Docker { act, source: Box::new(source) }
    }

    pub(crate) fn io(act: String, source: io::Error) -> Self {
        Self::Io { act, source }
    }
}
