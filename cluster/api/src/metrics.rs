//! `metrics.k8s.io/v1beta1`: what nodes and pods use.
//!
//! Source: `k8s.io/metrics` of kubernetes 1.33, `pkg/apis/metrics/v1beta1`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::{ApiObject, cron};

/// What a node uses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "NodeJson")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
pub struct NodeMetrics {
    /// Standard metadata, with the labels of the node.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// The span of time that the rates are of, such as `15s`.
    pub window: String,
    /// How much of each resource is used.
    pub usage: BTreeMap<String, Quantity>,
}

/// What a pod uses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "PodJson")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
pub struct PodMetrics {
    /// Standard metadata, with the labels of the pod.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// The span of time that the rates are of, such as `15s`.
    pub window: String,
    /// Its containers, all that run.
    pub containers: Vec<ContainerMetrics>,
}

/// Resource usage metrics of a node.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct NodeJson {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default = "epoch")]
    timestamp: Time,
    #[serde(default)]
    window: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

/// Resource usage metrics of a pod.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PodJson {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default = "epoch")]
    timestamp: Time,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

impl From<NodeJson> for NodeMetrics {
    fn from(json: NodeJson) -> Self {
        let NodeJson { metadata, timestamp, window, usage, .. } = json;
        Self { metadata, timestamp, window, usage }
    }
}

impl From<PodJson> for PodMetrics {
    fn from(json: PodJson) -> Self {
        let PodJson { metadata, timestamp, window, containers, .. } = json;
        Self { metadata, timestamp, window, containers }
    }
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
pub struct ContainerMetrics {
    /// The name of the container.
    pub name: String,
    /// How much of each resource is used.
    #[serde(default)]
    pub usage: BTreeMap<String, Quantity>,
}

impl PodMetrics {
    /// The span of time that the rates are of; none when it cannot be read.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(cron::duration_nanos(&self.window).unwrap_or(0))
    }
}

fn epoch() -> Time {
    crate::Time::ZERO.to_meta()
}

impl Serialize for NodeMetrics {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let mut state = ser.serialize_struct("NodeMetrics", 6)?;
        state.serialize_field("apiVersion", Self::KIND.api_version())?;
        state.serialize_field("kind", Self::KIND.name())?;
        state.serialize_field("metadata", &self.metadata)?;
        state.serialize_field("timestamp", &self.timestamp)?;
        state.serialize_field("window", &self.window)?;
        state.serialize_field("usage", &self.usage)?;
        state.end()
    }
}

impl Serialize for PodMetrics {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let mut state = ser.serialize_struct("PodMetrics", 6)?;
        state.serialize_field("apiVersion", Self::KIND.api_version())?;
        state.serialize_field("kind", Self::KIND.name())?;
        state.serialize_field("metadata", &self.metadata)?;
        state.serialize_field("timestamp", &self.timestamp)?;
        state.serialize_field("window", &self.window)?;
        state.serialize_field("containers", &self.containers)?;
        state.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec};

    #[test]
    fn json_is_that_of_kubernetes() {
        let json = r#"{"apiVersion":"metrics.k8s.io/v1beta1","kind":"PodMetrics","metadata":{"labels":{"a":"b"},"name":"p","namespace":"n"},"timestamp":"2023-11-14T22:13:20Z","window":"15.5s","containers":[{"name":"c","usage":{"cpu":"12n","memory":"4Ki"}}]}"#;
        let object = codec::decode_any(json.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(codec::encode(&object)).unwrap(), json);
        assert_eq!(object.key(), crate::Key::new(Kind::PodMetrics, "n", "p"));
        let pod: &PodMetrics = object.get().unwrap();
        assert_eq!(pod.window(), Duration::from_millis(15_500));
        assert_eq!(PodMetrics { window: "?".to_owned(), ..pod.clone() }.window(), Duration::ZERO);
    }
}
