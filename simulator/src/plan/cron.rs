//! Jobs at the times of a schedule: [`CronJob`].

use serde::{Deserialize, Serialize};

/// What becomes of a time at which the last job still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// The new one waits.
    Forbid,
    /// The old one is deleted.
    Replace,
}

/// A cron job. Four minutes after the faults are healed users suspend all of them, so that a
/// cluster can come to rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronJob {
    /// Its name; pods are labelled `app=NAME`.
    pub name: String,
    /// Index into [`Plan::templates`](super::Plan::templates), whose pods end by themselves.
    pub template: u32,
    /// When jobs are made, in UTC: five fields.
    pub schedule: String,
    /// What becomes of a time at which the last job still runs.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Whether it makes no jobs at first.
    #[serde(default)]
    pub suspended: bool,
    /// How late a job may be made; at any time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
    /// How many jobs that succeeded are kept.
    #[serde(default = "three")]
    pub successful_kept: u32,
    /// How many jobs that failed are kept.
    #[serde(default = "one")]
    pub failed_kept: u32,
    /// How many pods of a job must succeed.
    #[serde(default = "one")]
    pub completions: u32,
    /// How many of them run at a time.
    #[serde(default = "one")]
    pub parallelism: u32,
    /// How many failures of a job are too many by one.
    #[serde(default = "six")]
    pub backoff_limit: u32,
    /// How long jobs stay when they have finished; as long as they are kept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

const fn one() -> u32 {
    1
}

const fn three() -> u32 {
    3
}

const fn six() -> u32 {
    6
}
