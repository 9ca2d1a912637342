//! [`Configuration`]: a `KubeSchedulerConfiguration`, `kubescheduler.config.k8s.io/v1`, as far as
//! this scheduler has the setting.
//!
//! A field that does not exist is an error, and so is a setting that could not be honoured: one
//! that is silently ignored is worse. Settings that only say how fast Kubernetes' own scheduler
//! shall work are accepted, and noted in [`Configuration::remarks`].
//!
//! Reading files is not for this crate: it is given the value that a file holds.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/apis/config` (`v1`, `validation`).

mod extenders;
mod file;
mod plugins;
mod problems;

#[cfg(test)]
mod tests;

use machine::Election;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::desk::SchedulerConfig;
use crate::plugin_args::PluginArgs;
use crate::profile::ProfileConfig;
pub use extenders::ExtenderTls;
use extenders::FileExtender;
use file::{File, FileProfile, LeaderElection};
pub(crate) use plugins::{Known, known_names};
use plugins::{Merged, Plugins};
pub(crate) use problems::Problems;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
const DEFAULT_NAME: &str = "default-scheduler";

/// A scheduler's configuration, checked, with everything that a file leaves out.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What decides.
    pub scheduler: SchedulerConfig,
    /// Whether to act only while holding the lease, if the file says so.
    pub leader_elect: Option<bool>,
    /// The lease, and how it is competed for.
    pub election: Election,
    /// Path of the kubeconfig file, if the file names one.
    pub kubeconfig: Option<String>,
    /// For each extender how it is reached over TLS, if it is.
    pub extenders: Vec<Option<ExtenderTls>>,
    /// What was accepted and has no effect, or one that may not be meant, a sentence each.
    pub remarks: Vec<String>,
    /// The file with all that it leaves out.
    complete: Value,
}

/// Why a value is no configuration of this scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// It is something else.
    #[error("this is {api_version:?}, {kind:?}; {API_VERSION:?}, {KIND:?} is wanted")]
    Kind {
        /// `apiVersion` as found.
        api_version: String,
        /// `kind` as found.
        kind: String,
    },
    /// Fields that do not exist, by their path.
    #[error("strict decoding error: {}", .0.join(", "))]
    UnknownFields(Vec<String>),
    /// A value of another type than is wanted.
    #[error("{place}: {message}")]
    Type {
        /// Where; the smallest part that is known.
        place: String,
        /// What is wanted.
        message: String,
    },
    /// Values that cannot be, all of them.
    #[error("{}", shown(.0))]
    Invalid(Vec<String>),
}

/// One problem as it is, several in brackets, as Kubernetes shows them.
fn shown(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        _ => format!("[{}]", problems.join(", ")),
    }
}

impl Configuration {
    /// Understands a configuration.
    ///
    /// # Errors
    /// It is none, or has a field or value that cannot be honoured; all such values are told.
    pub fn of(value: &Value) -> Result<Self, ConfigurationError> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version != API_VERSION || kind != KIND {
            return Err(ConfigurationError::Kind { api_version, kind });
        }
        let mut reader = Reader::default();
        let file: File = reader.read("", &without_nulls(value))?;
        let leader: LeaderElection = reader.read("leaderElection", &file.leader_election)?;
        let client: file::ClientConnection =
            reader.read("clientConnection", &file.client_connection)?;
        let mut profiles = Vec::new();
        for (i, profile) in file.profiles.iter().flatten().enumerate() {
            let profile: FileProfile = reader.read(&format!("profiles[{i}]"), profile)?;
            let args = read_args(&mut reader, i, &profile)?;
            profiles.push((profile, args));
        }
        if profiles.is_empty() {
            profiles.push((FileProfile::default(), PluginArgs::default()));
        }
        if let [(profile, _)] = &mut profiles[..] {
            // Validation sees to it that each of several has a name of its own.
            profile.scheduler_name.get_or_insert_with(|| DEFAULT_NAME.to_owned());
        }
        let mut extenders: Vec<FileExtender> = Vec::new();
        for (i, extender) in file.extenders.iter().flatten().enumerate() {
            extenders.push(reader.read(&format!("extenders[{i}]"), extender)?);
        }
        reader.finish()?;

        let mut problems = Problems::default();
        file.validate(&mut problems);
        leader.validate(&mut problems);
        let profiles: Vec<Made> = (0..)
            .zip(&profiles)
            .map(|(i, (profile, args))| make(i, profile, args, &file, &mut problems))
            .collect();
        unique_names(&profiles, &mut problems);
        plugins::common_queue_sort(profiles.iter().map(|p| &p.given), &mut problems);
        let together = |made: &Made| made.config.enabled.iter().any(|name| name == "Coscheduling");
        extenders::validate(&extenders, profiles.iter().position(together), &mut problems);
        problems.result().map_err(ConfigurationError::Invalid)?;

        let mut remarks = file.remarks();
        remarks.extend(client.remarks());
        remarks.extend(profiles.iter().flat_map(|profile| profile.remarks.iter().cloned()));
        let remark = |(i, extender): (usize, &FileExtender)| extender.remark(i);
        remarks.extend(extenders.iter().enumerate().filter_map(remark));
        let mut complete = complete(&file, &leader, &client, &profiles);
        if !extenders.is_empty() {
            complete["extenders"] = extenders.iter().map(FileExtender::complete).collect();
        }
        let scheduler = SchedulerConfig {
            profiles: profiles.into_iter().map(|profile| profile.config).collect(),
            initial_backoff_seconds: file.initial_backoff(),
            max_backoff_seconds: file.max_backoff(),
            extenders: extenders.iter().map(FileExtender::config).collect(),
        };
        let kubeconfig = Some(client.kubeconfig).filter(|path| !path.is_empty());
        Ok(Self {
            scheduler,
            leader_elect: leader.leader_elect,
            election: leader.election(),
            kubeconfig,
            extenders: extenders.iter().map(FileExtender::tls).collect(),
            remarks,
            complete,
        })
    }

    /// The file with everything that it leaves out, as `--write-config-to` writes it.
    pub const fn complete(&self) -> &Value {
        &self.complete
    }
}

/// The value without fields that are null: they say nothing, as a key in YAML with nothing below.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            said.map(|(field, value)| (field.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A profile, understood.
struct Made {
    config: ProfileConfig,
    given: Plugins,
    merged: Merged,
    remarks: Vec<String>,
}

fn make(
    index: usize,
    profile: &FileProfile,
    args: &PluginArgs,
    file: &File,
    problems: &mut Problems,
) -> Made {
    let path = format!("profiles[{index}]");
    let name = profile.scheduler_name.clone().unwrap_or_default();
    if name.is_empty() {
        problems.required(&format!("{path}.schedulerName"), "");
    }
    let percentage = profile.percentage_of_nodes_to_score;
    file::percentage(percentage, &format!("{path}.percentageOfNodesToScore"), problems);
    let places = &profile.plugin_config;
    args.validate(
        |plugin| {
            let at = places.iter().position(|config| config.name == plugin).unwrap_or(0);
            format!("{path}.pluginConfig[{at}].args")
        },
        problems,
    );
    let given = profile.plugins.clone().unwrap_or_default();
    let remarks = given.remarks(&path);
    let merged = given.merge(&path, &name, problems);
    // Zero is adaptive, as none is, but what a profile says comes before what is said of all.
    let percentage = percentage.or(file.percentage_of_nodes_to_score).filter(|p| *p != 0);
    let config = ProfileConfig {
        percentage_of_nodes_to_score: percentage.and_then(|p| usize::try_from(p).ok()),
        args: args.clone(),
        ..merged.config(name)
    };
    Made { config, given, merged, remarks }
}

fn unique_names(profiles: &[Made], problems: &mut Problems) {
    for (i, profile) in profiles.iter().enumerate() {
        let same = |other: &Made| other.config.name == profile.config.name;
        if let Some(first) = profiles[..i].iter().rposition(same) {
            let at = format!("profiles[{i}].schedulerName");
            problems.duplicate(&at, &format!("profiles[{first}].schedulerName"));
        }
    }
}

/// What the plugins of a profile are told, as far as it says so.
fn read_args(
    reader: &mut Reader,
    index: usize,
    profile: &FileProfile,
) -> Result<PluginArgs, ConfigurationError> {
    let mut args = PluginArgs::default();
    for (i, config) in profile.plugin_config.iter().enumerate() {
        let path = format!("profiles[{index}].pluginConfig[{i}]");
        let refuse = |message: String| ConfigurationError::Invalid(vec![message]);
        let name = config.name.as_str();
        if profile.plugin_config[..i].iter().any(|other| other.name == name) {
            return Err(refuse(format!("{path}: Duplicate value: {name:?}")));
        }
        if plugins::is_removed(name) {
            return Err(refuse(format!("{path}: {}", plugins::removed(name))));
        }
        if !PluginArgs::PLUGINS.contains(&name) {
            let known = PluginArgs::PLUGINS.join(", ");
            return Err(refuse(format!(
                "{path}.name: Invalid value: {name:?}: takes no arguments; these do: {known}"
            )));
        }
        let mut value = config.args.clone();
        if let Some(fields) = value.as_object_mut() {
            let kind = format!("{name}Args");
            let given = fields.remove("kind").unwrap_or_else(|| kind.clone().into());
            let version = fields.remove("apiVersion").unwrap_or_else(|| API_VERSION.into());
            if given != kind.as_str() || version != API_VERSION {
                return Err(refuse(format!(
                    "decoding .{path}: args for plugin {name} were not of type \
                     {kind}.kubescheduler.config.k8s.io, got {}",
                    given.as_str().unwrap_or_default()
                )));
            }
        }
        let at = format!("{path}.args");
        match name {
            "Coscheduling" => args.coscheduling = reader.read(&at, &value)?,
            "DefaultPreemption" => args.default_preemption = reader.read(&at, &value)?,
            "InterPodAffinity" => args.inter_pod_affinity = reader.read(&at, &value)?,
            "NodeAffinity" => args.node_affinity = reader.read(&at, &value)?,
            "NodeResourcesBalancedAllocation" => {
                args.balanced_allocation = reader.read(&at, &value)?;
            }
            "NodeResourcesFit" => args.fit = reader.read(&at, &value)?,
            "PodTopologySpread" => args.topology_spread = reader.read(&at, &value)?,
            _ => args.volume_binding = reader.read(&at, &value)?,
        }
    }
    Ok(args)
}

/// Decodes part by part, and remembers the fields that do not exist.
#[derive(Default)]
struct Reader {
    unknown: Vec<String>,
}

impl Reader {
    fn read<T>(&mut self, path: &str, value: &Value) -> Result<T, ConfigurationError>
    where
        T: DeserializeOwned + Default,
    {
        if value.is_null() {
            return Ok(T::default());
        }
        let unknown = &mut self.unknown;
        serde_ignored::deserialize(value, |field| {
            let field = api::codec::field_path(&field);
            let dot = if path.is_empty() { "" } else { "." };
            unknown.push(format!("unknown field \"{path}{dot}{field}\""));
        })
        .map_err(|error: serde_json::Error| {
            let place = if path.is_empty() { "the file" } else { path };
            ConfigurationError::Type { place: place.to_owned(), message: error.to_string() }
        })
    }

    fn finish(self) -> Result<(), ConfigurationError> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        Err(ConfigurationError::UnknownFields(self.unknown))
    }
}

/// The file that says everything.
fn complete(
    file: &File,
    leader: &LeaderElection,
    client: &file::ClientConnection,
    profiles: &[Made],
) -> Value {
    let profiles: Vec<Value> = profiles
        .iter()
        .map(|profile| {
            let config = &profile.config;
            json!({
                "schedulerName": config.name,
                "percentageOfNodesToScore": config.percentage_of_nodes_to_score.unwrap_or(0),
                "plugins": profile.merged.complete(),
                "pluginConfig": plugin_config(config),
            })
        })
        .collect();
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "leaderElection": leader.complete(),
        "percentageOfNodesToScore": file.percentage_of_nodes_to_score.unwrap_or(0),
        "podInitialBackoffSeconds": file.initial_backoff(),
        "podMaxBackoffSeconds": file.max_backoff(),
        "profiles": profiles,
    });
    if !client.kubeconfig.is_empty() {
        value["clientConnection"] = json!({"kubeconfig": client.kubeconfig});
    }
    value
}

/// What plugins are told: those beyond the default set, if they are enabled.
fn plugin_config(config: &ProfileConfig) -> Vec<Value> {
    let args = &config.args;
    let acts = |name: &str| {
        Known::named(name).is_some_and(|known| !known.extra)
            || config.enabled.iter().any(|enabled| enabled == name)
    };
    let of = |name: &str| match name {
        "Coscheduling" => json!(args.coscheduling),
        "DefaultPreemption" => json!(args.default_preemption),
        "InterPodAffinity" => json!(args.inter_pod_affinity),
        "NodeAffinity" => json!(args.node_affinity),
        "NodeResourcesBalancedAllocation" => json!(args.balanced_allocation),
        "NodeResourcesFit" => json!(args.fit),
        "PodTopologySpread" => json!(args.topology_spread),
        _ => json!(args.volume_binding),
    };
    let names = PluginArgs::PLUGINS.iter().filter(|name| acts(name));
    names.map(|name| json!({"name": name, "args": of(name)})).collect()
}
