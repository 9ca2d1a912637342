//! What kprov owns on a host, and what was there before.
//!
//! Each host keeps its own record under [`DIRECTORY`], so that any operator's machine can plan,
//! prune and reset without local state. A path enters the record *before* it is changed: a crash
//! in between leaves a record that says too much, never too little.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::firewall::{FirewallKind, OwnedRules};
use crate::layout::Layout;
use crate::program::Generations;
use crate::state::{Mode, Owner};

/// Where a host keeps its record, the bytes that were before, and the staging area (mode 0700).
pub const DIRECTORY: &str = "/var/lib/kprov";

/// The format that this version writes; a newer one is refused.
pub const FORMAT: u32 = 1;

/// The objects of one host that kprov made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format, [`FORMAT`].
    pub format: u32,
    /// The cluster that owns the host.
    pub cluster: String,
    /// Fingerprint of that cluster's certificate authority.
    #[serde(default)]
    pub authority: String,
    /// The host's name in the inventory.
    pub host: String,
    /// Where its files lie.
    #[serde(default, skip_serializing_if = "Layout::is_default")]
    pub layout: Layout,
    /// Rises by one with every apply that changes something; 0 before the first one has finished.
    pub generation: u64,
    /// Files, links and directories of ours, with what was at the path before.
    #[serde(default)]
    pub paths: BTreeMap<String, Prior>,
    /// Units of ours in start order, with what they were before.
    #[serde(default)]
    pub units: Vec<OwnedUnit>,
    /// Kernel settings that we changed, with their values before.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Kernel modules that we loaded.
    #[serde(default)]
    pub modules: BTreeSet<String>,
    /// Images that we loaded and that were not there before, by reference.
    #[serde(default)]
    pub images: BTreeSet<String>,
    /// Programs by name, with the generation before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, Generations>,
    /// Paths that the components fill, with what was there before.
    #[serde(default)]
    pub data: BTreeMap<String, Prior>,
    /// Packages that we had installed; what came with them is noted beside the record.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// The program that installed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<PackageManager>,
    /// Whether pods are on the bridge of Open vSwitch's tunnels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_vswitch: bool,
    /// Swap that we switched off, by device or file.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub swaps: BTreeSet<String>,
    /// Files that hold a block of ours, and whether they existed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blocks: BTreeMap<String, bool>,
    /// Rules that we added to firewalls.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: OwnedRules,
    /// A firewall that we switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_off: Option<FirewallKind>,
}

impl Record {
    /// The record of a host on which nothing has been done yet.
    pub fn new(cluster: impl Into<String>, host: impl Into<String>) -> Self {
        Self {
            format: FORMAT,
            cluster: cluster.into(),
            authority: String::new(),
            host: host.into(),
            layout: Layout::default(),
            generation: 0,
            paths: BTreeMap::new(),
            units: Vec::new(),
            sysctls: BTreeMap::new(),
            modules: BTreeSet::new(),
            images: BTreeSet::new(),
            programs: BTreeMap::new(),
            data: BTreeMap::new(),
            packages: BTreeSet::new(),
            manager: None,
            open_vswitch: false,
            swaps: BTreeSet::new(),
            blocks: BTreeMap::new(),
            rules: OwnedRules::new(),
            firewall_off: None,
        }
    }

    /// What is known about the unit `name`.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<&OwnedUnit> {
        self.units.iter().find(|unit| unit.name == name)
    }

    /// Whether both own the same objects; the generation does not count.
    #[must_use]
    pub fn owns_the_same(&self, other: &Self) -> bool {
        Self { generation: other.generation, ..self.clone() } == *other
    }

    /// The record as the one line of JSON that a host keeps.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a record has only string keys")
    }
}

/// What was at a path before kprov took it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prior {
    /// Nothing.
    Absent,
    /// A regular file; its bytes are kept on the host under `prior/`.
    File {
        /// Permission bits.
        mode: Mode,
        /// Owner and group.
        owner: Owner,
        /// Digest of the bytes, where it was known.
        sha256: Option<Digest>,
    },
    /// A symbolic link.
    Link {
        /// What it said.
        target: String,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: Mode,
        /// Owner and group.
        owner: Owner,
        /// Whether it had no entries.
        empty: bool,
    },
    /// A device, a socket or a pipe: never touched.
    Other,
}

/// A unit that kprov starts, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedUnit {
    /// Full unit name.
    pub name: String,
    /// Whether systemd knew the unit.
    pub existed: bool,
    /// Whether it ran.
    pub active: bool,
    /// Whether it was enabled.
    pub enabled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_json() {
        let mut record = Record::new("lab", "n1");
        record.paths.insert("/etc/a".to_owned(), Prior::Absent);
        let mode = Mode(0o644);
        let file = Prior::File { mode, owner: Owner::root(), sha256: Some(Digest::of(b"x")) };
        record.paths.insert("/etc/b".to_owned(), file);
        record.data.insert("/var/lib/etcd".to_owned(), Prior::Link { target: "/d".to_owned() });
        let json = record.to_json();
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
        let later = Record { generation: 9, ..record.clone() };
        assert!(record.owns_the_same(&later) && later != record);
    }
}
