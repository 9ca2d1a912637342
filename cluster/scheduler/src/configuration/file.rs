//! The parts of a file, plugins aside.

use api::Span;
use machine::Election;
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

impl LeaderElection {
    /// The lease, and how it is competed for.
    pub(super) fn election(&self) -> Election {
        let mut election = Election::of("kube-scheduler");
        for (given, name) in [
            (&self.resource_name, &mut election.name),
            (&self.resource_namespace, &mut election.namespace),
        ] {
            if !given.is_empty() {
                name.clone_from(given);
            }
        }
        for (given, span) in [
            (&self.lease_duration, &mut election.lease_duration),
            (&self.renew_deadline, &mut election.renew_deadline),
            (&self.retry_period, &mut election.retry_period),
        ] {
            // Nothing is as good as none.
            if let Some(given) = duration(given).filter(|given| *given != Span::ZERO) {
                *span = given;
            }
        }
        election
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let mut legible = true;
        for (field, value) in [
            ("leaseDuration", &self.lease_duration),
            ("renewDeadline", &self.renew_deadline),
            ("retryPeriod", &self.retry_period),
        ] {
            if !value.is_empty() && duration(value).is_none() {
                let detail = "must be a length of time greater than zero, such as 15s";
                problems.invalid(&format!("leaderElection.{field}"), value, detail);
                legible = false;
            }
        }
        if self.leader_elect == Some(false) {
            return;
        }
        let election = self.election();
        for (field, span, why) in election.complaints().into_iter().filter(|_| legible) {
            problems.invalid(&format!("leaderElection.{field}"), format_args!("{span}"), why);
        }
        if !matches!(self.resource_lock.as_str(), "" | "leases") {
            let detail = r#"resourceLock value must be "leases""#;
            problems.invalid("leaderElection.resourceLock", &self.resource_lock, detail);
        }
        let Election { namespace, name, .. } = &election;
        if !api::names::is_label(namespace) {
            let detail = "must be the name of a namespace";
            problems.invalid("leaderElection.resourceNamespace", namespace, detail);
        }
        problems.invalid_each("leaderElection.resourceName", name, api::names::subdomain(name));
    }

    pub(super) fn complete(&self) -> Value {
        let election = self.election();
        json!({
            "leaderElect": self.leader_elect.unwrap_or(true),
            "leaseDuration": election.lease_duration,
            "renewDeadline": election.renew_deadline,
            "retryPeriod": election.retry_period,
            "resourceLock": "leases",
            "resourceName": election.name,
            "resourceNamespace": election.namespace,
        })
    }
}

fn duration(text: &str) -> Option<Span> {
    if text == "0" { Some(Span::ZERO) } else { text.parse().ok() }
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
