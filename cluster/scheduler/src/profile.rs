//! Configurations of the scheduler: which plugins, with which weights.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::configuration::{Known, Problems, known_names};
use crate::framework::{Enabled, Filtering, Relating};
use crate::plugin_args::PluginArgs;
use crate::plugins::plugins;
use crate::preemption::Candidates;

/// The scheduler of pods that name none.
const DEFAULT_NAME: &str = "default-scheduler";

/// The name of what displaces pods of lower priority, among those of plugins.
const PREEMPTION: &str = "DefaultPreemption";

/// The name of what has claims bound.
const VOLUME_BINDING: &str = "VolumeBinding";

/// The name of what places pods in groups.
const COSCHEDULING: &str = "Coscheduling";

/// No weight is higher: so that sums of weighted scores cannot overflow.
pub(crate) const WEIGHT_MAX: i64 = 10_000;

/// What a profile is made of; everything has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ProfileConfig {
    /// Pods choose a profile by `spec.schedulerName`.
    pub name: String,
    /// Share of the nodes to look at, in percent; adaptive when absent or zero.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// Weights of scores by the plugin's name, where they differ from the default; zero for
    /// scores that shall not count.
    pub weights: BTreeMap<String, i64>,
    /// Names of plugins that do nothing at all.
    pub disabled: Vec<String>,
    /// Names of plugins beyond the default set that do something.
    pub enabled: Vec<String>,
    /// Names of plugins that reject no nodes, whatever else they do.
    pub unfiltered: Vec<String>,
    /// What plugins are told.
    pub args: PluginArgs,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            percentage_of_nodes_to_score: None,
            weights: BTreeMap::new(),
            disabled: Vec::new(),
            enabled: Vec::new(),
            unfiltered: Vec::new(),
            args: PluginArgs::default(),
        }
    }
}

/// Why a profile cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// There is no such plugin.
    #[error("no scheduling plugin is called {name:?}; there are {known}")]
    UnknownPlugin {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// A weight is out of range.
    #[error("the weight of scheduling plugin {name:?} is {weight}, not between 0 and 10000")]
    Weight {
        /// The plugin's name.
        name: String,
        /// The weight.
        weight: i64,
    },
    /// A percentage is out of range.
    #[error("percentageOfNodesToScore is {0}, not between 0 and 100")]
    Percentage(usize),
    /// Plugins are told what cannot be.
    #[error("{}", .0.join(", "))]
    Args(Vec<String>),
    /// Two profiles have one name, or there is none.
    #[error("each of a scheduler's profiles, of which there must be one, needs a name of its own")]
    Names,
    /// Extenders are asked about one pod at a time.
    #[error(
        "profile {0:?} enables Coscheduling, and there are extenders: what extenders say of a pod \
         is not known when all pods of its group are placed at once; leave one of them out"
    )]
    Together(String),
}

/// A configuration of the scheduler, ready for use.
pub struct Profile {
    /// Pods choose a profile by `spec.schedulerName`.
    pub name: String,
    /// The plugins, in the order in which they filter: those that look at other pods come last.
    pub(crate) plugins: Vec<Enabled>,
    /// How they look at other pods.
    pub(crate) relating: Relating,
    /// Share of the nodes to look at, in percent; adaptive when absent.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// Whether pods with scheduling gates are held back.
    pub(crate) gates: bool,
    /// Whether affinity to nodes rejects nodes.
    pub(crate) pins: bool,
    /// How long the claims of a pod may take to be bound; `None` if nobody looks at claims.
    pub(crate) volume_timeout: Option<Duration>,
    /// How long placed pods of a group may wait for each other's claims; `None` if groups do not
    /// count.
    pub(crate) coscheduling: Option<Duration>,
    /// Among how many nodes one is chosen whose pods are displaced; `None` displaces none.
    pub preemption: Option<Candidates>,
}

impl Default for Profile {
    fn default() -> Self {
        Self::new(&ProfileConfig::default()).expect("the defaults are valid")
    }
}

impl Profile {
    /// The plugins, in the order in which they filter.
    pub fn plugins(&self) -> &[Enabled] {
        &self.plugins
    }

    /// Makes the profile that is described.
    ///
    /// # Errors
    /// An unknown plugin, or a number out of range.
    pub fn new(config: &ProfileConfig) -> Result<Self, ProfileError> {
        let percentage = config.percentage_of_nodes_to_score;
        if let Some(percentage) = percentage.filter(|p| *p > 100) {
            return Err(ProfileError::Percentage(percentage));
        }
        let named = config.weights.keys().chain(&config.disabled);
        let named = named.chain(&config.enabled).chain(&config.unfiltered);
        for name in named {
            if Known::named(name).is_none() {
                let known = known_names();
                return Err(ProfileError::UnknownPlugin { name: name.clone(), known });
            }
        }
        let out_of_range = |(_, weight): &(&String, &i64)| !(0..=WEIGHT_MAX).contains(*weight);
        if let Some((name, weight)) = config.weights.iter().find(out_of_range) {
            return Err(ProfileError::Weight { name: name.clone(), weight: *weight });
        }
        let mut problems = Problems::default();
        config.args.validate(str::to_owned, &mut problems);
        problems.result().map_err(ProfileError::Args)?;
        let lists = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
        let acts = |name: &str| {
            let extra = Known::named(name).is_some_and(|known| known.extra);
            !lists(&config.disabled, name) && (!extra || lists(&config.enabled, name))
        };
        let plugins: Vec<Enabled> = plugins(&config.args)
            .into_iter()
            .filter(|plugin| acts(plugin.name()))
            .map(|plugin| {
                let weight = config.weights.get(plugin.name()).copied();
                let weight = weight.unwrap_or_else(|| plugin.weight());
                let filters = !lists(&config.unfiltered, plugin.name());
                Enabled::new(plugin, weight, filters)
            })
            .collect();
        let mut relating = Relating::default();
        for enabled in &plugins {
            let filters = enabled.filtering != Filtering::Never;
            enabled.plugin.relate(enabled.weight, filters, &mut relating);
        }
        let timeout = seconds(config.args.volume_binding.bind_timeout_seconds);
        let candidates = Candidates::of(&config.args.default_preemption);
        Ok(Self {
            name: config.name.clone(),
            pins: plugins.iter().any(|enabled| {
                enabled.plugin.name() == "NodeAffinity" && enabled.filtering != Filtering::Never
            }),
            plugins,
            relating,
            percentage_of_nodes_to_score: percentage,
            coscheduling: acts(COSCHEDULING)
                .then(|| seconds(config.args.coscheduling.permit_waiting_time_seconds)),
            volume_timeout: Some(timeout).filter(|_| !lists(&config.disabled, VOLUME_BINDING)),
            preemption: Some(candidates).filter(|_| !lists(&config.disabled, PREEMPTION)),
            gates: !lists(&config.disabled, "SchedulingGates"),
        })
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_empty_configuration_is_the_default() {
        let shape = |profile: &Profile| {
            let plugins = profile.plugins.iter().map(|p| (p.plugin.name(), p.weight));
            (
                profile.name.clone(),
                plugins.collect::<Vec<_>>(),
                profile.percentage_of_nodes_to_score,
            )
        };
        let config: ProfileConfig = serde_json::from_value(json!({})).unwrap();
        let profile = Profile::new(&config).unwrap();
        assert_eq!(shape(&profile), shape(&Profile::default()));

        let config: ProfileConfig = serde_json::from_value(json!({
            "name": "packing", "percentageOfNodesToScore": 30,
            "args": {"fit": {"scoringStrategy": {"type": "MostAllocated"}}},
            "weights": {"NodeResourcesFit": 5, "TaintToleration": 0},
            "disabled": ["PodTopologySpread", "ImageLocality"]}))
        .unwrap();
        let (name, plugins, percentage) = shape(&Profile::new(&config).unwrap());
        assert_eq!((name.as_str(), percentage), ("packing", Some(30)));
        insta::assert_snapshot!(
            plugins.iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(" "),
            @"NodeUnschedulable=0 NodeName=0 TaintToleration=0 NodeAffinity=2 NodePorts=0 NodeResourcesFit=5 VolumeRestrictions=0 NodeVolumeLimits=0 VolumeBinding=1 VolumeZone=0 InterPodAffinity=2 NodeResourcesBalancedAllocation=1"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check = |config: serde_json::Value, expected: &str| {
            let config: ProfileConfig = serde_json::from_value(config).unwrap();
            let error = Profile::new(&config).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        let unknown = "no scheduling plugin is called \"Fit\"; there are SchedulingGates, ";
        check(json!({"weights": {"Fit": 1}}), unknown);
        check(json!({"disabled": ["Fit"]}), unknown);
        check(
            json!({"weights": {"ImageLocality": -1}}),
            "the weight of scheduling plugin \"ImageLocality\" is -1",
        );
        check(json!({"percentageOfNodesToScore": 101}), "percentageOfNodesToScore is 101");
    }
}
