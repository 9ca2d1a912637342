//! What namespaces may use: [`Quota`] and [`LimitRange`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A resource quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// How much of each resource there may be, `pods`, `requests.cpu`, `count/jobs.batch`, as
    /// quantities.
    pub hard: BTreeMap<String, String>,
}

/// Bounds and defaults of containers, as quantities by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRange {
    /// Its name.
    pub name: String,
    /// What a container requests that does not say it.
    #[serde(default)]
    pub default_request: BTreeMap<String, String>,
    /// The limits of a container that does not say them.
    #[serde(default)]
    pub default: BTreeMap<String, String>,
    /// The least that a container may request.
    #[serde(default)]
    pub min: BTreeMap<String, String>,
    /// The most that a container may request, or have as its limit.
    #[serde(default)]
    pub max: BTreeMap<String, String>,
}
