//! Configurations of the scheduler: which plugins, with which weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::framework::{Enabled, Plugin, Relating};
use crate::plugins::{FitStrategy, plugins};

/// The scheduler of pods that name none.
const DEFAULT_NAME: &str = "default-scheduler";

/// No weight is higher: so that sums of weighted scores cannot overflow.
const WEIGHT_MAX: i64 = 10_000;

/// A profile as people write it; everything has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ProfileConfig {
    /// Pods choose a profile by `spec.schedulerName`.
    pub name: String,
    /// Share of the nodes to look at, in percent; adaptive when absent or zero.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// Which nodes with room are preferred.
    pub fit_strategy: FitStrategy,
    /// Weights of scores by the plugin's name, where they differ from the default; zero for
    /// scores that shall not count.
    pub weights: BTreeMap<String, i64>,
    /// Names of plugins that neither filter nor score.
    pub disabled: Vec<String>,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            percentage_of_nodes_to_score: None,
            fit_strategy: FitStrategy::default(),
            weights: BTreeMap::new(),
            disabled: Vec::new(),
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
}

/// A configuration of the scheduler, ready for use.
pub struct Profile {
    /// Pods choose a profile by `spec.schedulerName`.
    pub name: String,
    /// The plugins, in the order in which they filter: by a node's properties, then by load, then
    /// by other pods.
    pub(crate) plugins: Vec<Enabled>,
    /// How they look at other pods.
    pub(crate) relating: Relating,
    /// Share of the nodes to look at, in percent; adaptive when absent.
    pub percentage_of_nodes_to_score: Option<usize>,
}

impl Default for Profile {
    fn default() -> Self {
        let enable = |plugin: Box<dyn Plugin>| {
            let weight = plugin.weight();
            Enabled::new(plugin, weight)
        };
        let plugins = plugins(FitStrategy::default()).into_iter().map(enable).collect();
        Self::of(DEFAULT_NAME.to_owned(), plugins, None)
    }
}

impl Profile {
    fn of(
        name: String,
        plugins: Vec<Enabled>,
        percentage_of_nodes_to_score: Option<usize>,
    ) -> Self {
        let mut relating = Relating::default();
        for enabled in &plugins {
            enabled.plugin.relate(enabled.weight, &mut relating);
        }
        Self { name, plugins, relating, percentage_of_nodes_to_score }
    }

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
        let plugins = plugins(config.fit_strategy);
        let known: Vec<&str> = plugins.iter().map(|p| p.name()).collect();
        for name in config.weights.keys().chain(&config.disabled) {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(ProfileError::UnknownPlugin { name: name.clone(), known });
            }
        }
        let out_of_range = |(_, weight): &(&String, &i64)| !(0..=WEIGHT_MAX).contains(*weight);
        if let Some((name, weight)) = config.weights.iter().find(out_of_range) {
            return Err(ProfileError::Weight { name: name.clone(), weight: *weight });
        }
        let plugins = plugins
            .into_iter()
            .filter(|plugin| !config.disabled.iter().any(|name| name == plugin.name()))
            .map(|plugin| {
                let weight = config.weights.get(plugin.name()).copied();
                let weight = weight.unwrap_or_else(|| plugin.weight());
                Enabled::new(plugin, weight)
            })
            .collect();
        Ok(Self::of(config.name.clone(), plugins, percentage))
    }
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
            "name": "packing", "percentageOfNodesToScore": 30, "fitStrategy": "MostAllocated",
            "weights": {"NodeResourcesFit": 5, "TaintToleration": 0},
            "disabled": ["PodTopologySpread", "ImageLocality"]}))
        .unwrap();
        let (name, plugins, percentage) = shape(&Profile::new(&config).unwrap());
        assert_eq!((name.as_str(), percentage), ("packing", Some(30)));
        insta::assert_snapshot!(
            plugins.iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(" "),
            @"NodeUnschedulable=0 NodeName=0 TaintToleration=0 NodeAffinity=2 NodePorts=0 VolumeRestrictions=0 VolumeBinding=0 VolumeZone=0 NodeResourcesFit=5 InterPodAffinity=2 NodeResourcesBalancedAllocation=1"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check = |config: serde_json::Value, expected: &str| {
            let config: ProfileConfig = serde_json::from_value(config).unwrap();
            let error = Profile::new(&config).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        let unknown = "no scheduling plugin is called \"Fit\"; there are NodeUnschedulable, ";
        check(json!({"weights": {"Fit": 1}}), unknown);
        check(json!({"disabled": ["Fit"]}), unknown);
        check(
            json!({"weights": {"ImageLocality": -1}}),
            "the weight of scheduling plugin \"ImageLocality\" is -1",
        );
        check(json!({"percentageOfNodesToScore": 101}), "percentageOfNodesToScore is 101");
    }
}
