//! A plan as a file: what exactly will be done, and what that rests on.
//!
//! The file has no bytes of files, only their digests, so it holds no secret: what is sent is made
//! anew from the inventory and the state directory at the apply, and is the same or is refused.
//! A plan is carried out as it stands or not at all: [`SavedPlan::check_inputs`] tells what has
//! changed on the operator's side, [`SavedPlan::check_hosts`] what has changed on the hosts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Plan;
use crate::addons::Addon;
use crate::digest::Digest;
use crate::facts::Facts;
use crate::inventory::Hook;
use crate::state::HostState;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 2;

/// What a plan file says it is.
const KIND: &str = "kprov-plan";

/// A longer file is none of ours: a plan for a thousand hosts has some 20 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Differences that a refusal names by host; more would bury the first.
const DIFFERENCES_SHOWN: usize = 10;

/// A plan with all that it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of kprov that made it.
    pub version: String,
    /// The cluster's name.
    pub cluster: String,
    /// Fingerprint of the cluster's certificate authority.
    pub authority: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Who made it.
    pub by: String,
    /// Where the local inputs are.
    pub source: PlanSource,
    /// The hooks that run with it.
    pub hooks: Vec<Hook>,
    /// Digest of all addons.
    pub addons: Digest,
    /// By host, what the plan rests on; the plan's hosts and no others.
    pub basis: BTreeMap<String, Basis>,
    /// What will be done.
    pub plan: Plan,
}

/// Where a plan's local inputs are; absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSource {
    /// The inventory.
    pub inventory: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Templates that replace the built-in ones.
    pub templates: Option<PathBuf>,
    /// Whether the only host is the operator's machine.
    pub local: bool,
}

/// What the plan of one host rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// The desired state, part by part; contents as digests.
    pub desired: BTreeMap<String, String>,
    /// The observed facts, part by part.
    pub observed: BTreeMap<String, String>,
    /// Digest of `observed`.
    pub observed_sha256: Digest,
}

/// Why a plan file is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    /// It cannot be read or written.
    #[error("cannot {act} the plan {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no plan, or not all of one, or was edited.
    #[error("{} is no usable plan: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is of another kprov.
    #[error(
        "the plan was made by kprov {version} (format {format}), this is kprov {own} (format {FORMAT})"
    )]
    Version {
        /// The version that made it.
        version: String,
        /// Its format.
        format: u32,
        /// This version.
        own: &'static str,
    },
    /// It is of another cluster.
    #[error("the plan is of another cluster: {planned}, here {here}")]
    Cluster {
        /// Name and authority in the plan.
        planned: String,
        /// Name and authority of the inventory and its state directory.
        here: String,
    },
    /// What the operator's side brings has changed.
    #[error("the plan's local inputs have changed since it was made{}", listed(.0))]
    Inputs(BTreeMap<String, Vec<String>>),
    /// Hosts are no longer as they were.
    #[error("hosts have changed since the plan was made{}", listed(.0))]
    Drifted(BTreeMap<String, Vec<String>>),
}

impl SavedPlanError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File { .. } => "check the path, and that the file can be read and written",
            Self::Damaged { .. } | Self::Version { .. } => "make a new plan with kprov plan -o",
            Self::Cluster { .. } => {
                "use the inventory and the --state-dir that the plan was made with"
            }
            Self::Inputs(_) => "put the inputs back, or look at a new plan: kprov plan -o",
            Self::Drifted(_) => "find out who changed them, then look at a new plan: kprov plan -o",
        }
    }
}

fn listed(by_host: &BTreeMap<String, Vec<String>>) -> String {
    let mut out = String::new();
    for (host, differences) in by_host {
        for difference in differences.iter().take(DIFFERENCES_SHOWN) {
            out.push_str(&format!("\n    {host}: {difference}"));
        }
        if let Some(more @ 1..) = differences.len().checked_sub(DIFFERENCES_SHOWN) {
            out.push_str(&format!("\n    {host}: and {more} more"));
        }
    }
    out
}

/// Whether the file begins like a plan: an inventory, which is TOML, cannot begin so.
#[must_use]
pub fn is_saved_plan(path: &Path) -> bool {
    let mut head = [0; 64];
    let read = fs::File::open(path).and_then(|mut file| io::Read::read(&mut file, &mut head));
    read.is_ok_and(|count| head[..count].trim_ascii_start().starts_with(b"{"))
}

/// The file as it is written: the plan, and a digest that tells a cut or edited one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<P> {
    kind: String,
    sha256: Digest,
    plan: P,
}

impl SavedPlan {
    /// The plan for the hosts of `plan`, which was made from `desired` and `facts`.
    #[must_use]
    pub fn new(
        plan: Plan,
        desired: &[HostState],
        facts: &BTreeMap<String, Facts>,
        source: PlanSource,
        hooks: &[Hook],
        addons: &[Addon],
    ) -> Self {
        let states = desired.iter().filter(|state| plan.host(&state.host).is_some());
        let basis = states.clone().filter_map(|state| {
            let observed = observed(state, facts.get(&state.host)?);
            let observed_sha256 = digest_of(&observed);
            let desired = parts(state);
            Some((state.host.clone(), Basis { desired, observed, observed_sha256 }))
        });
        let first = states.clone().next();
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: first.map(|state| state.cluster.clone()).unwrap_or_default(),
            authority: first.map(|state| state.authority.clone()).unwrap_or_default(),
            made: String::new(),
            by: String::new(),
            source,
            hooks: hooks.to_vec(),
            addons: digest_of_addons(addons),
            basis: basis.collect(),
            plan,
        }
    }

    /// Writes the plan for its owner alone, as a whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SavedPlanError> {
        let text = serde_json::to_string(self).expect("a plan has only string keys");
        let envelope = Envelope {
            kind: KIND.to_owned(),
            sha256: Digest::of(text.as_bytes()),
            plan: serde_json::value::RawValue::from_string(text).expect("it was just written"),
        };
        let text = serde_json::to_string(&envelope).expect("a plan has only string keys");
        let write = || {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            // Temporary files are 0600 from the start.
            let mut file =
                tempfile::NamedTempFile::new_in(directory.unwrap_or_else(|| Path::new(".")))?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| SavedPlanError::File {
            act: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a plan that this very version has written.
    ///
    /// # Errors
    /// When it is damaged, or of another version.
    pub fn read(path: &Path) -> Result<Self, SavedPlanError> {
        let failed = |source| SavedPlanError::File { act: "read", path: path.to_owned(), source };
        let damaged = |why: String| SavedPlanError::Damaged { path: path.to_owned(), why };
        if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(damaged("it is too long".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let envelope: Envelope<Box<serde_json::value::RawValue>> =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if envelope.kind != KIND {
            return Err(damaged(format!("it calls itself {:?}", envelope.kind)));
        }
        let text = envelope.plan.get();
        // The version first: another one may well have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            version: String,
        }
        let head: Head = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let own = env!("CARGO_PKG_VERSION");
        if (head.format, head.version.as_str()) != (FORMAT, own) {
            let Head { format, version } = head;
            return Err(SavedPlanError::Version { version, format, own });
        }
        if envelope.sha256 != Digest::of(text.as_bytes()) {
            return Err(damaged("its digest is another: it was cut or edited".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| damaged(error.to_string()))
    }

    /// Compares the plan with what the inventory and the state directory ask for now.
    ///
    /// # Errors
    /// When they are of another cluster, or anything differs.
    pub fn check_inputs(
        &self,
        desired: &[HostState],
        hooks: &[Hook],
        addons: &[Addon],
    ) -> Result<(), SavedPlanError> {
        let mut differences = BTreeMap::new();
        for (host, basis) in &self.basis {
            let Some(state) = desired.iter().find(|state| state.host == *host) else {
                let gone = vec!["it is no longer in the inventory".to_owned()];
                differences.insert(host.clone(), gone);
                continue;
            };
            if (&state.cluster, &state.authority) != (&self.cluster, &self.authority) {
                let named = |cluster: &str, authority: &str| {
                    let authority: String = authority.chars().take(12).collect();
                    format!("{cluster} (authority {authority})")
                };
                return Err(SavedPlanError::Cluster {
                    planned: named(&self.cluster, &self.authority),
                    here: named(&state.cluster, &state.authority),
                });
            }
            let differing = compare(&basis.desired, &parts(state));
            if !differing.is_empty() {
                differences.insert(host.clone(), differing);
            }
        }
        if self.addons != digest_of_addons(addons) {
            let addons = vec!["the addons of the inventory are others".to_owned()];
            differences.insert("all".to_owned(), addons);
        }
        if self.hooks != hooks {
            let hooks = vec!["the hooks of the inventory are others".to_owned()];
            differences.insert("all".to_owned(), hooks);
        }
        if differences.is_empty() { Ok(()) } else { Err(SavedPlanError::Inputs(differences)) }
    }

    /// Compares the plan with the hosts as they are now, and gives it with the bytes that its
    /// steps need. `desired` has passed [`Self::check_inputs`]; `again` is the plan that would be
    /// made of it and of `facts` now.
    ///
    /// # Errors
    /// The hosts that have changed, and what of them.
    pub fn check_hosts(
        &self,
        desired: &[HostState],
        facts: &BTreeMap<String, Facts>,
        again: &Plan,
    ) -> Result<Plan, SavedPlanError> {
        let mut differences = BTreeMap::new();
        for (host, basis) in &self.basis {
            let state = desired.iter().find(|state| state.host == *host);
            let (Some(state), Some(facts)) = (state, facts.get(host)) else {
                differences.insert(host.clone(), vec!["it was not asked".to_owned()]);
                continue;
            };
            let now = observed(state, facts);
            if digest_of(&now) != basis.observed_sha256 {
                differences.insert(host.clone(), compare(&basis.observed, &now));
            }
        }
        if !differences.is_empty() {
            return Err(SavedPlanError::Drifted(differences));
        }
        // What was compared is what the planner is known to look at; this is what it does with it.
        for planned in &self.plan.hosts {
            let now = again.host(&planned.host).map(|now| (&now.batches, now.generation));
            if Some((&planned.batches, planned.generation)) != now {
                let other = vec!["a plan made now has other steps".to_owned()];
                differences.insert(planned.host.clone(), other);
            }
        }
        if !differences.is_empty() {
            return Err(SavedPlanError::Drifted(differences));
        }
        if self.plan.waves != again.waves {
            let other = vec!["the inventory's [rollout] asks for other batches".to_owned()];
            return Err(SavedPlanError::Inputs([("all".to_owned(), other)].into()));
        }
        let mut exact = self.plan.clone();
        for host in &mut exact.hosts {
            // The same steps, so the bytes with the digests that they name.
            let now = again.host(&host.host).expect("its steps were compared a moment ago");
            host.uploads.clone_from(&now.uploads);
        }
        Ok(exact)
    }
}

/// What tells addons from others; their objects may be secrets.
fn digest_of_addons(addons: &[Addon]) -> Digest {
    let of = |addon: &Addon| {
        let objects: Vec<_> = addon.objects.iter().map(|object| &object.value).collect();
        json!([addon.name, addon.wait.map(|wait| wait.as_secs()), objects])
    };
    let text = Value::from(addons.iter().map(of).collect::<Vec<_>>()).to_string();
    Digest::of(text.as_bytes())
}

/// What a desired state consists of, with digests for contents.
fn parts(state: &HostState) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for file in &state.files {
        let what = format!("{} {} {}", file.content.digest(), file.mode, file.owner);
        parts.insert(format!("file {}", file.path), what);
    }
    let mut rest = serde_json::to_value(state).expect("a state has only string keys");
    if let Value::Object(fields) = &mut rest {
        fields.remove("files");
        // Where a blob lies here is no part of what the host gets.
        for (list, blob) in [("images", "archive"), ("package_files", "blob")] {
            if let Some(Value::Array(items)) = fields.get_mut(list) {
                items.iter_mut().for_each(|item| drop(item[blob]["source"].take()));
            }
        }
    }
    flatten("", &rest, &mut parts);
    parts
}

/// What a plan for `state` rests on of `facts`; what changes by itself is left out.
fn observed(state: &HostState, facts: &Facts) -> BTreeMap<String, String> {
    const VOLATILE: [&str; 6] =
        ["clock_skew_ms", "disk_free", "fence", "holder", "listeners", "machine"];
    let mut value = serde_json::to_value(facts).expect("facts have only string keys");
    let Value::Object(fields) = &mut value else { return BTreeMap::new() };
    for name in VOLATILE {
        fields.remove(name);
    }
    // Other images come and go with the pods of the host.
    for name in ["images", "loaded"] {
        if let Some(Value::Object(images)) = fields.get_mut(name) {
            images.retain(|reference, _| {
                state.images.iter().any(|image| image.reference == *reference)
            });
        }
    }
    let mut parts = BTreeMap::new();
    flatten("", &value, &mut parts);
    parts
}

/// Values two levels down by their path: `paths /etc/hosts`, `units etcd.service`, `kernel`.
fn flatten(prefix: &str, value: &Value, parts: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) if !prefix.contains(' ') => {
            for (key, value) in fields {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix} {key}") };
                flatten(&path, value, parts);
            }
        }
        Value::String(text) => _ = parts.insert(prefix.to_owned(), text.clone()),
        other => _ = parts.insert(prefix.to_owned(), other.to_string()),
    }
}

fn digest_of(parts: &BTreeMap<String, String>) -> Digest {
    let text = serde_json::to_string(parts).expect("texts have only string keys");
    Digest::of(text.as_bytes())
}

/// What differs, one line each.
fn compare(planned: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = planned.keys().chain(now.keys()).collect();
    let differing = keys.into_iter().filter(|key| planned.get(*key) != now.get(*key));
    differing
        .map(|key| match (planned.get(key), now.get(key)) {
            (Some(planned), Some(now)) => {
                format!("{key} was {}, is {}", short(planned), short(now))
            }
            (None, Some(now)) => format!("{key} was not there, is {}", short(now)),
            (Some(planned), None) => format!("{key} was {}, is not there", short(planned)),
            (None, None) => key.clone(),
        })
        .collect()
}

/// A record is too long for a line.
fn short(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
