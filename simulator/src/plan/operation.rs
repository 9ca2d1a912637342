//! What users do: [`Operation`].

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{Autoscaler, CronJob, LimitRange, Quota};
use crate::span::Span;

/// Something a user does at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedOperation {
    /// When, from the start of the run.
    pub at: Span,
    /// What.
    #[serde(flatten)]
    pub operation: Operation,
}

/// Kinds that an operation may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// A pod.
    Pod,
    /// A deployment.
    Deployment,
    /// A replica set.
    ReplicaSet,
    /// A replication controller.
    ReplicationController,
    /// A stateful set.
    StatefulSet,
    /// A daemon set.
    DaemonSet,
    /// A job.
    Job,
    /// A cron job.
    CronJob,
    /// An autoscaler of pods.
    HorizontalPodAutoscaler,
    /// A resource quota.
    ResourceQuota,
    /// A limit range.
    LimitRange,
    /// A claim of a volume.
    PersistentVolumeClaim,
    /// A disruption budget.
    PodDisruptionBudget,
    /// A service.
    Service,
    /// A namespace.
    Namespace,
    /// A node.
    Node,
}

/// A disruption budget for the pods labelled `app=APP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// The value of the label.
    pub app: String,
    /// How many pods must stay: a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<String>,
    /// How many pods may be missing: a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<String>,
}

/// What a user does. Everything lives in the namespace `default` unless it says otherwise; names
/// may be written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Creates a bare pod.
    CreatePod {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// Overrides the template's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs: Option<Span>,
    },
    /// Creates a deployment of pods labelled `app=NAME`.
    CreateDeployment {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// How many pods.
        replicas: u32,
        /// A number or a percentage.
        #[serde(default = "quarter")]
        max_surge: String,
        /// A number or a percentage.
        #[serde(default = "quarter")]
        max_unavailable: String,
    },
    /// Creates a replica set of pods labelled `app=NAME`.
    CreateReplicaSet {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// How many pods.
        replicas: u32,
    },
    /// Creates a replication controller of pods labelled `app=NAME`.
    CreateReplicationController {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// How many pods.
        replicas: u32,
    },
    /// Creates a stateful set of pods labelled `app=NAME`, with no service of its own.
    CreateStatefulSet {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// How many pods.
        replicas: u32,
        /// Whether pods come and go without waiting for each other.
        #[serde(default)]
        parallel: bool,
        /// The first ordinal that a rollout replaces.
        #[serde(default)]
        partition: u32,
    },
    /// Creates a daemon set of pods labelled `app=NAME`.
    CreateDaemonSet {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
        /// A number or a percentage.
        #[serde(default = "none")]
        max_surge: String,
        /// A number or a percentage.
        #[serde(default = "one")]
        max_unavailable: String,
    },
    /// Creates a job of pods labelled `app=NAME`.
    CreateJob {
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates), whose pods end by themselves.
        template: u32,
        /// How many pods must succeed; one, whatever else runs, when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        completions: Option<u32>,
        /// How many pods run at a time.
        #[serde(default = "one_pod")]
        parallelism: u32,
        /// Whether each pod has an index to complete.
        #[serde(default)]
        indexed: bool,
        /// How many failures are too many by one.
        #[serde(default = "backoff_limit")]
        backoff_limit: u32,
        /// How long it stays when it has finished; for ever when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u32>,
    },
    /// Creates a cron job of pods labelled `app=NAME`.
    CreateCronJob(Box<CronJob>),
    /// Suspends a cron job, or lets it go on.
    SuspendCronJob {
        /// The cron job.
        name: String,
        /// Whether it is to make no jobs.
        suspended: bool,
    },
    /// Creates an autoscaler, and the load by which it scales.
    CreateAutoscaler(Box<Autoscaler>),
    /// Creates a resource quota.
    CreateQuota(Box<Quota>),
    /// Changes how much a resource quota allows.
    SetQuota(Box<Quota>),
    /// Creates a limit range.
    CreateLimitRange(Box<LimitRange>),
    /// Says what becomes of the claims of a stateful set.
    SetClaimPolicy {
        /// The stateful set.
        name: String,
        /// Whether claims go with the stateful set.
        delete_with_set: bool,
        /// Whether claims go with pods that are scaled away.
        delete_when_scaled: bool,
    },
    /// Creates a disruption budget for the pods labelled `app=APP`.
    CreateBudget(Box<Budget>),
    /// Creates a service for the pods labelled `app=APP`.
    CreateService {
        /// Its name.
        name: String,
        /// The value of the label.
        app: String,
    },
    /// Creates a namespace.
    CreateNamespace {
        /// Its name.
        name: String,
    },
    /// Changes the number of replicas.
    Scale {
        /// What is scaled.
        target: Target,
        /// Its name.
        name: String,
        /// How many pods.
        replicas: u32,
    },
    /// Changes the pods of a deployment, a stateful set or a daemon set: a rollout.
    SetTemplate {
        /// Its kind.
        #[serde(default = "deployment")]
        target: Target,
        /// Its name.
        name: String,
        /// Index into [`Plan::templates`](super::Plan::templates).
        template: u32,
    },
    /// Changes the first ordinal that rollouts of a stateful set replace.
    SetPartition {
        /// The stateful set.
        name: String,
        /// The ordinal.
        partition: u32,
    },
    /// Pauses or resumes a deployment.
    Pause {
        /// The deployment.
        name: String,
        /// Whether it is to be paused.
        paused: bool,
    },
    /// Deletes an object.
    Delete {
        /// Its kind.
        target: Target,
        /// Its name.
        name: String,
        /// Whether what it owns stays (else it goes in the background).
        #[serde(default)]
        orphan: bool,
        /// Whether what it owns goes first.
        #[serde(default)]
        foreground: bool,
    },
    /// Cordons or uncordons a node.
    Cordon {
        /// The node.
        node: String,
        /// Whether it is to be unschedulable.
        unschedulable: bool,
    },
    /// Cordons a node and evicts its pods, but for those of daemon sets, as
    /// `kubectl drain --ignore-daemonsets --force` does: what a budget refuses is tried again.
    Drain {
        /// The node.
        node: String,
        /// When it is given up.
        #[serde(default = "drain_timeout")]
        timeout: Span,
    },
    /// Sets a taint, or removes it when the effect is empty.
    Taint {
        /// The node.
        node: String,
        /// The taint's key.
        key: String,
        /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`, or nothing.
        effect: String,
    },
    /// Sets a label on an object, or removes it when the value is empty.
    Label {
        /// Its kind.
        target: Target,
        /// Its name.
        name: String,
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
}

impl Operation {
    /// The index of the template of the pods that it makes.
    pub fn template(&self) -> Option<u32> {
        match self {
            Self::CreatePod { template, .. }
            | Self::CreateDeployment { template, .. }
            | Self::CreateReplicaSet { template, .. }
            | Self::CreateReplicationController { template, .. }
            | Self::CreateStatefulSet { template, .. }
            | Self::CreateDaemonSet { template, .. }
            | Self::CreateJob { template, .. }
            | Self::SetTemplate { template, .. } => Some(*template),
            Self::CreateCronJob(cron) => Some(cron.template),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn template_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::CreatePod { template, .. }
            | Self::CreateDeployment { template, .. }
            | Self::CreateReplicaSet { template, .. }
            | Self::CreateReplicationController { template, .. }
            | Self::CreateStatefulSet { template, .. }
            | Self::CreateDaemonSet { template, .. }
            | Self::CreateJob { template, .. }
            | Self::SetTemplate { template, .. } => Some(template),
            Self::CreateCronJob(cron) => Some(&mut cron.template),
            _ => None,
        }
    }

    /// How many pods it asks for; `None` where others say it.
    pub fn replicas(&self) -> Option<u32> {
        match self {
            Self::CreateDeployment { replicas, .. }
            | Self::CreateReplicaSet { replicas, .. }
            | Self::CreateReplicationController { replicas, .. }
            | Self::CreateStatefulSet { replicas, .. }
            | Self::Scale { replicas, .. } => Some(*replicas),
            Self::CreateJob { completions, parallelism, .. } => {
                Some(completions.unwrap_or(1).max(*parallelism))
            }
            Self::CreateCronJob(cron) => Some(cron.completions.max(cron.parallelism)),
            Self::CreateAutoscaler(autoscaler) => Some(autoscaler.max_replicas),
            _ => None,
        }
    }

    /// Asks for at most so many pods.
    pub fn limit_replicas(&mut self, most: u32) {
        match self {
            Self::CreateDeployment { replicas, .. }
            | Self::CreateReplicaSet { replicas, .. }
            | Self::CreateReplicationController { replicas, .. }
            | Self::CreateStatefulSet { replicas, .. }
            | Self::Scale { replicas, .. } => *replicas = most.min(*replicas),
            Self::CreateJob { completions, parallelism, .. } => {
                *completions = completions.map(|completions| completions.min(most));
                *parallelism = most.min(*parallelism);
            }
            Self::CreateCronJob(cron) => {
                cron.completions = most.min(cron.completions);
                cron.parallelism = most.min(cron.parallelism);
            }
            // At least one, or the API server refuses it.
            Self::CreateAutoscaler(autoscaler) => {
                autoscaler.max_replicas = most.max(1).min(autoscaler.max_replicas);
                autoscaler.min_replicas = autoscaler.min_replicas.min(autoscaler.max_replicas);
            }
            _ => {}
        }
    }

    /// What it is about, or makes.
    pub fn subject(&self) -> (Target, &str) {
        match self {
            Self::CreatePod { name, .. } => (Target::Pod, name),
            Self::CreateDeployment { name, .. } | Self::Pause { name, .. } => {
                (Target::Deployment, name)
            }
            Self::CreateReplicaSet { name, .. } => (Target::ReplicaSet, name),
            Self::CreateReplicationController { name, .. } => (Target::ReplicationController, name),
            Self::CreateStatefulSet { name, .. }
            | Self::SetClaimPolicy { name, .. }
            | Self::SetPartition { name, .. } => (Target::StatefulSet, name),
            Self::CreateDaemonSet { name, .. } => (Target::DaemonSet, name),
            Self::CreateJob { name, .. } => (Target::Job, name),
            Self::CreateCronJob(cron) => (Target::CronJob, &cron.name),
            Self::SuspendCronJob { name, .. } => (Target::CronJob, name),
            Self::CreateAutoscaler(scaler) => (Target::HorizontalPodAutoscaler, &scaler.name),
            Self::CreateQuota(quota) | Self::SetQuota(quota) => {
                (Target::ResourceQuota, &quota.name)
            }
            Self::CreateLimitRange(range) => (Target::LimitRange, &range.name),
            Self::CreateBudget(budget) => (Target::PodDisruptionBudget, &budget.name),
            Self::CreateService { name, .. } => (Target::Service, name),
            Self::CreateNamespace { name } => (Target::Namespace, name),
            Self::Scale { target, name, .. }
            | Self::SetTemplate { target, name, .. }
            | Self::Delete { target, name, .. }
            | Self::Label { target, name, .. } => (*target, name),
            Self::Cordon { node, .. } | Self::Drain { node, .. } | Self::Taint { node, .. } => {
                (Target::Node, node)
            }
        }
    }

    /// What it does, as scenario files say it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::CreatePod { .. } => "create-pod",
            Self::CreateDeployment { .. } => "create-deployment",
            Self::CreateReplicaSet { .. } => "create-replica-set",
            Self::CreateReplicationController { .. } => "create-replication-controller",
            Self::CreateStatefulSet { .. } => "create-stateful-set",
            Self::CreateDaemonSet { .. } => "create-daemon-set",
            Self::CreateJob { .. } => "create-job",
            Self::CreateCronJob(_) => "create-cron-job",
            Self::SuspendCronJob { .. } => "suspend-cron-job",
            Self::CreateAutoscaler(_) => "create-autoscaler",
            Self::CreateQuota(_) => "create-quota",
            Self::SetQuota(_) => "set-quota",
            Self::CreateLimitRange(_) => "create-limit-range",
            Self::SetClaimPolicy { .. } => "set-claim-policy",
            Self::CreateBudget(_) => "create-budget",
            Self::CreateService { .. } => "create-service",
            Self::CreateNamespace { .. } => "create-namespace",
            Self::Scale { .. } => "scale",
            Self::SetTemplate { .. } => "set-template",
            Self::SetPartition { .. } => "set-partition",
            Self::Pause { .. } => "pause",
            Self::Delete { .. } => "delete",
            Self::Cordon { unschedulable: true, .. } => "cordon",
            Self::Cordon { unschedulable: false, .. } => "uncordon",
            Self::Drain { .. } => "drain",
            Self::Taint { .. } => "taint",
            Self::Label { .. } => "label",
        }
    }

    /// Whether it makes what it is about.
    pub fn creates(&self) -> bool {
        self.word().starts_with("create-")
    }

    /// The node that it is about.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Cordon { node, .. } | Self::Drain { node, .. } | Self::Taint { node, .. } => {
                Some(node)
            }
            _ => None,
        }
    }
}

/// For people: `scale Deployment/default/web`.
impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (target, name) = self.subject();
        write!(f, "{} {target:?}/", self.word())?;
        let of_cluster = matches!(target, Target::Namespace | Target::Node);
        if !of_cluster && !name.contains('/') {
            f.write_str("default/")?;
        }
        f.write_str(name)
    }
}

fn quarter() -> String {
    "25%".to_owned()
}

fn none() -> String {
    "0".to_owned()
}

fn one() -> String {
    "1".to_owned()
}

const fn one_pod() -> u32 {
    1
}

/// Kubernetes' default.
const fn backoff_limit() -> u32 {
    6
}

const fn deployment() -> Target {
    Target::Deployment
}

/// How long a drain is tried when nobody says it.
pub(crate) const DRAIN_TIMEOUT: Span = Span::secs(120);

const fn drain_timeout() -> Span {
    DRAIN_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_as_people_say_them() {
        let scale = |name: &str| Operation::Scale {
            target: Target::Deployment,
            name: name.to_owned(),
            replicas: 1,
        };
        let cordon = |unschedulable| Operation::Cordon { node: "a".to_owned(), unschedulable };
        for (operation, expected) in [
            (scale("web"), "scale Deployment/default/web"),
            (scale("shop/web"), "scale Deployment/shop/web"),
            (cordon(true), "cordon Node/a"),
            (cordon(false), "uncordon Node/a"),
            (
                Operation::CreateNamespace { name: "shop".to_owned() },
                "create-namespace Namespace/shop",
            ),
        ] {
            assert_eq!(operation.to_string(), expected);
            assert_eq!(operation.creates(), expected.starts_with("create"), "{expected}");
        }
    }
}
