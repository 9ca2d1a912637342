//! The parts of a file, plugins aside.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Plugins, Problems};

/// The file, with parts that are decoded by themselves.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct File {
    api_version: String,
    kind: String,
    parallelism: Option<i32>,
    pub(super) leader_election: Value,
    pub(super) client_connection: Value,
    enable_profiling: Option<bool>,
    enable_contention_profiling: Option<bool>,
    pub(super) percentage_of_nodes_to_score: Option<i32>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    pub(super) profiles: Option<Vec<Value>>,
    pub(super) extenders: Option<Vec<Value>>,
    delay_cache_until_active: Option<bool>,
}

impl File {
    pub(super) fn initial_backoff(&self) -> u64 {
        self.pod_initial_backoff_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(1)
    }

    pub(super) fn max_backoff(&self) -> u64 {
        self.pod_max_backoff_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(10)
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Some(parallelism) = self.parallelism.filter(|p| *p <= 0) {
            let detail = "should be an integer value greater than zero";
            problems.invalid("parallelism", parallelism, detail);
        }
        let path = "percentageOfNodesToScore";
        percentage(self.percentage_of_nodes_to_score, path, problems);
        let initial = self.pod_initial_backoff_seconds.unwrap_or(1);
        if initial <= 0 {
            problems.invalid("podInitialBackoffSeconds", initial, "must be greater than 0");
        }
        let max = self.pod_max_backoff_seconds.unwrap_or(10);
        if max < initial {
            let detail = "must be greater than or equal to PodInitialBackoffSeconds";
            problems.invalid("podMaxBackoffSeconds", max, detail);
        }
    }

    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(parallelism) = self.parallelism {
            remarks.push(format!(
                "parallelism {parallelism} has no effect: decisions are taken one after the other"
            ));
        }
        for (field, set) in [
            ("enableProfiling", self.enable_profiling == Some(true)),
            ("enableContentionProfiling", self.enable_contention_profiling == Some(true)),
        ] {
            if set {
                remarks.push(format!("{field} has no effect: there are no profiles to read"));
            }
        }
        if self.delay_cache_until_active == Some(true) {
            remarks.push(
                "delayCacheUntilActive has no effect: a scheduler that does not lead watches, too"
                    .to_owned(),
            );
        }
        remarks
    }
}

/// Checks a share of the nodes.
pub(super) fn percentage(value: Option<i32>, path: &str, problems: &mut Problems) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        problems.invalid(path, value, "not in valid range [0-100]");
    }
}

/// Of several schedulers, which acts.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct LeaderElection {
    pub(super) leader_elect: Option<bool>,
    lease_duration: String,
    renew_deadline: String,
    retry_period: String,
    resource_lock: String,
    resource_name: String,
    resource_namespace: String,
}

const LEASE: &str = "kube-scheduler";

impl LeaderElection {
    /// The name of the lease.
    pub(super) fn lease(&self) -> &str {
        if self.resource_name.is_empty() { LEASE } else { &self.resource_name }
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        for (field, value, fixed) in [
            ("leaseDuration", &self.lease_duration, "15s"),
            ("renewDeadline", &self.renew_deadline, "10s"),
            ("retryPeriod", &self.retry_period, "2s"),
        ] {
            if !matches!(value.as_str(), "" | "0" | "0s") && value != fixed {
                let detail = format!("this scheduler's is always {fixed}");
                problems.invalid(&format!("leaderElection.{field}"), value, &detail);
            }
        }
        if !matches!(self.resource_lock.as_str(), "" | "leases") {
            let detail = r#"resourceLock value must be "leases""#;
            problems.invalid("leaderElection.resourceLock", &self.resource_lock, detail);
        }
        if !matches!(self.resource_namespace.as_str(), "" | "kube-system") {
            let detail = "this scheduler's lease is in kube-system";
            let path = "leaderElection.resourceNamespace";
            problems.invalid(path, &self.resource_namespace, detail);
        }
        let complaints = api::names::subdomain(self.lease());
        problems.invalid_each("leaderElection.resourceName", self.lease(), complaints);
    }

    pub(super) fn complete(&self) -> Value {
        json!({
            "leaderElect": self.leader_elect.unwrap_or(true),
            "leaseDuration": "15s",
            "renewDeadline": "10s",
            "retryPeriod": "2s",
            "resourceLock": "leases",
            "resourceName": self.lease(),
            "resourceNamespace": "kube-system",
        })
    }
}

/// How the API is reached.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClientConnection {
    pub(super) kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: f64,
    burst: i32,
}

impl ClientConnection {
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.qps != 0.0 || self.burst != 0 {
            remarks.push(
                "clientConnection.qps and burst have no effect: requests are bounded by how many \
                 are under way"
                    .to_owned(),
            );
        }
        if !self.content_type.is_empty() || !self.accept_content_types.is_empty() {
            remarks.push(
                "clientConnection.contentType and acceptContentTypes have no effect: this \
                 scheduler speaks JSON"
                    .to_owned(),
            );
        }
        remarks
    }
}

/// A profile as it is written.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct FileProfile {
    pub(super) scheduler_name: Option<String>,
    pub(super) percentage_of_nodes_to_score: Option<i32>,
    pub(super) plugins: Option<Plugins>,
    pub(super) plugin_config: Vec<PluginConfig>,
}

/// What one plugin is told.
#[derive(Deserialize)]
pub(super) struct PluginConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) args: Value,
}
