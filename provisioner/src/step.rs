//! The closed set of things that kprov does to a host.
//!
//! A plan is a list of steps and executing makes no choices. Every step is idempotent, and each is
//! atomic as far as a later run can see: a crash leaves it done or not done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::firewall::FirewallChange;
use crate::record::{Prior, Record};
use crate::state::{Mode, Owner};

/// One action on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the state and record types")]
pub enum Step {
    /// Keeps the bytes that are at `path` now, for the day of a reset.
    BackUp { path: String },
    /// Replaces the host's record.
    WriteRecord { record: Box<Record> },
    /// Forgets with which inputs `unit` was started: until it is marked again, the next plan
    /// restarts it.
    Forget { unit: String },
    /// Makes a directory, or sets its attributes.
    MakeDirectory { path: String, mode: Mode, owner: Owner },
    /// Puts the staged bytes with this digest at `path`.
    Install { path: String, mode: Mode, owner: Owner, sha256: Digest },
    /// Sets mode and owner of a file whose bytes are right.
    SetAttributes { path: String, mode: Mode, owner: Owner },
    /// Makes a symbolic link.
    Link { path: String, target: String },
    /// Gives a path back what was there before.
    Restore { path: String, prior: Prior },
    /// Sets a kernel setting.
    Sysctl { key: String, value: String },
    /// Loads a kernel module.
    LoadModule { module: String },
    /// Unloads a kernel module where nothing uses it.
    UnloadModule { module: String },
    /// Makes systemd read its unit files again.
    Reload,
    /// Has a unit start at boot.
    Enable { unit: String },
    /// The same where systemd reads its unit files again after it anyway: one reading for all units
    /// of a host, each of which takes as long as the start of a small one.
    EnableQuietly { unit: String },
    /// Has a unit not start at boot.
    Disable { unit: String },
    /// Starts a unit that does not run.
    Start { unit: String },
    /// Starts a unit, or restarts it, and waits until systemd calls it active.
    Restart { unit: String },
    /// Stops a unit.
    Stop { unit: String },
    /// Remembers with which inputs `unit` was started.
    MarkStarted { unit: String, inputs: Digest },
    /// Loads a staged image archive into Docker.
    LoadImage { reference: String, archive: Digest },
    /// Removes an image from Docker.
    RemoveImage { reference: String },
    /// Removes the containers that our kubelet made.
    RemoveContainers,
    /// Removes links, tables and chains that our components made.
    RemoveNetwork,
    /// Keeps what is at `path` under a name of its own beside it.
    SetAside { path: String },
    /// Unmounts and removes what the components left at `path`.
    RemoveData { path: String, prior: Prior },
    /// Removes links and chains that a Docker engine of ours left behind.
    RemoveEngineNetwork,
    /// Installs packages, and notes which ones came with them. With staged `files` (name and
    /// digest), all of those and nothing from elsewhere.
    InstallPackages {
        manager: PackageManager,
        packages: BTreeSet<String>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        files: BTreeMap<String, Digest>,
    },
    /// Removes the packages that came with an installation of ours.
    RemovePackages { manager: PackageManager },
    /// Switches swap off, now and for the next boot.
    SwapOff { swaps: BTreeSet<String> },
    /// Gives back swap that was switched off.
    SwapOn { swaps: BTreeSet<String> },
    /// Puts a block of lines into a file, or replaces it.
    WriteBlock { path: String, text: String },
    /// Takes the block of lines out of a file, and removes a file that did not exist before.
    RemoveBlock { path: String, existed: bool },
    /// Gives a path the SELinux label that the host's policy says.
    Relabel { path: String },
    /// Arms a timer on the host that takes changes of its firewall back.
    GuardFirewall { undo: Vec<FirewallChange> },
    /// Changes the host's firewall.
    ChangeFirewall { change: FirewallChange },
    /// Disarms the timer, over a new connection: one that a wrong rule would have kept out.
    ConfirmFirewall,
    /// Forgets failures and unit files that are no more.
    ResetFailed,
    /// Removes what was sent and is in place now.
    ClearStaging,
    /// Removes the record and all that kprov kept on the host.
    RemoveRecord,
}

impl Step {
    /// What is being done, for progress and errors.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::BackUp { path } => format!("keep {path}"),
            Self::WriteRecord { .. } => "write the record".to_owned(),
            Self::Forget { unit } => format!("prepare restart of {unit}"),
            Self::MakeDirectory { path, .. } => format!("make directory {path}"),
            Self::Install { path, .. } => format!("install {path}"),
            Self::SetAttributes { path, .. } => format!("set mode and owner of {path}"),
            Self::Link { path, .. } => format!("link {path}"),
            Self::Restore { path, prior: Prior::Absent } => format!("remove {path}"),
            Self::Restore { path, .. } => format!("restore {path}"),
            Self::Sysctl { key, value } => format!("set {key} = {value}"),
            Self::LoadModule { module } => format!("load module {module}"),
            Self::UnloadModule { module } => format!("unload module {module}"),
            Self::Reload => "reload systemd".to_owned(),
            Self::Enable { unit } | Self::EnableQuietly { unit } => format!("enable {unit}"),
            Self::Disable { unit } => format!("disable {unit}"),
            Self::Start { unit } | Self::Restart { unit } => format!("start {unit}"),
            Self::Stop { unit } => format!("stop {unit}"),
            Self::MarkStarted { unit, .. } => format!("note the start of {unit}"),
            Self::LoadImage { reference, .. } => format!("load image {reference}"),
            Self::RemoveImage { reference } => format!("remove image {reference}"),
            Self::RemoveContainers => "remove containers".to_owned(),
            Self::RemoveNetwork => "remove network links and rules".to_owned(),
            Self::SetAside { path } => format!("set {path} aside"),
            Self::RemoveData { path, .. } => format!("remove data in {path}"),
            Self::RemoveEngineNetwork => "remove links and rules of Docker".to_owned(),
            Self::InstallPackages { manager, packages, .. } => {
                format!("install {} with {manager}", listed(packages))
            }
            Self::RemovePackages { manager } => format!("remove packages with {manager}"),
            Self::SwapOff { swaps } => format!("switch swap off: {}", listed(swaps)),
            Self::SwapOn { swaps } => format!("switch swap on: {}", listed(swaps)),
            Self::WriteBlock { path, .. } => format!("write our block of {path}"),
            Self::RemoveBlock { path, .. } => format!("remove our block of {path}"),
            Self::Relabel { path } => format!("label {path}"),
            Self::GuardFirewall { .. } => "guard the firewall".to_owned(),
            Self::ChangeFirewall { change } => change.to_string(),
            Self::ConfirmFirewall => "confirm the firewall over a new connection".to_owned(),
            Self::ResetFailed => "forget failed units".to_owned(),
            Self::ClearStaging => "clear the staging area".to_owned(),
            Self::RemoveRecord => "remove the record".to_owned(),
        }
    }

    /// The unit whose journal explains a failure of this step.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Start { unit } | Self::Restart { unit } | Self::Stop { unit } => Some(unit),
            _ => None,
        }
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
